"""What a module says of itself: strings, versions, and new contents made from old ones."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from elfwriter import ALLOC, ET_REL, LOCAL, NOTYPE, WEAK, Elf, written

from ftpatch.elf.image import Image
from ftpatch.errors import ElfError, PolicyError
from ftpatch.kernel.modinfo import (
    GPL,
    MAX_MODINFO,
    ModInfo,
    Versions,
    entries_of,
    find_names,
    read_modinfo,
    read_versions,
    strings_at,
    undefined_names,
    with_extended_versions,
    with_modinfo,
    with_versions,
)
from ftpatch.recovered.image import open_image

PPC64 = 21


def module(
    tmp_path: Path, sections: dict[str, bytes], machine: int = 183, undefined: tuple[tuple[str, int], ...] = ()
) -> Image:
    """A module of nothing but sections and undefined symbols."""
    elf = Elf(ET_REL, machine)
    for name, content in sections.items():
        elf.section(name, content, flags=ALLOC)
    elf.symbol("here", 1, 0, type=NOTYPE, bind=LOCAL)
    for name, bind in undefined:
        elf.symbol(name, 0, 0, type=NOTYPE, bind=bind)
    return open_image(written(tmp_path / "module.ko", elf.build()))


def version(name: str, crc: int) -> bytes:
    return struct.pack("<Q56s", crc, name.encode())


def crc_of(versions: Versions, name: str) -> int | None:
    """The version that the module was built against; None where it has no such row."""
    row = int(versions.rows(np.array([name.encode()]))[0])
    return None if row < 0 else int(versions.crc[row])


# -- .modinfo ----------------------------------------------------------------------------------------------------------


def test_strings_are_found_in_order_with_their_places() -> None:
    content = b"\0\0license=GPL\0\0alias=a=b\0alias=c\0junk\0=none\0depends="
    found = entries_of(content)
    assert [(entry.key, entry.value) for entry in found] == [
        ("license", "GPL"), ("alias", "a=b"), ("alias", "c"), ("depends", ""),
    ]  # fmt: skip
    assert [content[entry.start : entry.end] for entry in found] == [
        b"license=GPL",
        b"alias=a=b",
        b"alias=c",
        b"depends=",
    ]


def test_the_first_of_repeated_keys_counts_and_all_can_be_had(tmp_path: Path) -> None:
    info = read_modinfo(module(tmp_path, {".modinfo": b"import_ns=A\0license=GPL\0license=No\0import_ns=B\0"}))
    assert info.first("license") == "GPL"
    assert info.all("import_ns") == ("A", "B")
    assert info.first("vermagic") is None
    assert info.depends == ()


def test_the_names_of_modules_are_spelt_as_written_and_as_the_kernel_spells_them() -> None:
    info = ModInfo(entries_of(b"name=aes-ce\0depends=aes-ce-cipher,,mii\0"))
    assert info.name == "aes_ce"
    assert info.depends == ("aes-ce-cipher", "mii")


def test_a_file_without_modinfo_has_no_strings(mini: Path) -> None:
    assert read_modinfo(open_image(str(mini / "callops.o"))).entries == ()


def test_an_absurdly_long_modinfo_is_refused() -> None:
    with pytest.raises(ElfError) as refused:
        entries_of(bytes(MAX_MODINFO + 1), "m.ko")
    assert (
        str(refused.value)
        == f"m.ko: .modinfo is too long: found {MAX_MODINFO + 1} bytes, expected at most {MAX_MODINFO}"
    )


@pytest.mark.parametrize("licence", GPL)
def test_the_kernels_six_licences_are_gpl_compatible(licence: str) -> None:
    assert ModInfo(entries_of(f"license={licence}\0".encode())).gpl_compatible


@pytest.mark.parametrize("licence", ["Proprietary", "gpl", "GPLv2", "BSD", "Dual BSD/GPL ", "", "Apache-2.0"])
def test_other_licences_are_not(licence: str) -> None:
    assert not ModInfo(entries_of(f"license={licence}\0".encode())).gpl_compatible


def test_no_licence_is_not_gpl_compatible() -> None:
    assert not ModInfo(entries_of(b"name=x\0")).gpl_compatible


# -- __versions --------------------------------------------------------------------------------------------------------


def test_versions_are_found_by_name(tmp_path: Path) -> None:
    content = version("module_layout", 0x11) + version("_printk", 0x9299_1598) + version("_printk", 1) + b"tail"
    found = read_versions(module(tmp_path, {"__versions": content}))
    assert (len(found), found.basic, found.extended) == (3, True, False)
    assert crc_of(found, "_printk") == 0x9299_1598
    assert crc_of(found, "module_layout") == 0x11
    assert crc_of(found, "print") is None


def test_a_module_without_versions_has_no_rows(tmp_path: Path) -> None:
    found = read_versions(module(tmp_path, {".modinfo": b"a=b\0"}))
    assert (len(found), found.basic, found.extended) == (0, False, False)
    assert crc_of(found, "_printk") is None


def test_a_name_that_fills_its_row_ends_there(tmp_path: Path) -> None:
    found = read_versions(module(tmp_path, {"__versions": version("x" * 55, 7) + version("y", 8)}))
    assert crc_of(found, "x" * 55) == 7
    assert crc_of(found, "y") == 8


def test_extended_versions_replace_the_basic_ones(tmp_path: Path) -> None:
    content = {
        "__versions": version("a", 1) + version("b", 2),
        "__version_ext_crcs": struct.pack("<2I", 3, 4),
        "__version_ext_names": b"b\0" + b"n" * 200 + b"\0\0\0",
    }
    image = module(tmp_path, content)
    found = read_versions(image)
    assert (found.basic, found.extended) == (True, True)
    assert (crc_of(found, "a"), crc_of(found, "b"), crc_of(found, "n" * 200)) == (None, 3, 4)


def test_fewer_extended_names_than_crcs_are_refused(tmp_path: Path) -> None:
    image = module(tmp_path, {"__version_ext_crcs": bytes(12), "__version_ext_names": b"a\0b\0"})
    with pytest.raises(ElfError, match="__version_ext_names has fewer names than there are CRCs: found 2, expected 3"):
        read_versions(image)


def test_one_extended_section_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ElfError, match="only one of the two sections of extended versions is there"):
        read_versions(module(tmp_path, {"__version_ext_crcs": bytes(4)}))


def test_a_leading_dot_is_dropped_on_ppc64_alone(tmp_path: Path) -> None:
    undefined = ((".TOC.", 1), (".memcpy", 1), ("_printk", 1), ("maybe", WEAK))
    content = version(".memcpy", 5)
    ppc = module(tmp_path, {"__versions": content}, PPC64, undefined)
    names, weak = undefined_names(ppc)
    assert names.tolist() == [b"memcpy", b"_printk", b"maybe"]
    assert weak.tolist() == [False, False, True]
    assert crc_of(read_versions(ppc), "memcpy") == 5
    arm = module(tmp_path, {"__versions": content}, 183, undefined)
    assert undefined_names(arm)[0].tolist() == [b".TOC.", b".memcpy", b"_printk", b"maybe"]
    assert crc_of(read_versions(arm), ".memcpy") == 5


# -- names, many at once -----------------------------------------------------------------------------------------------


def test_strings_end_at_their_nul_at_the_limit_or_with_the_data() -> None:
    data = np.frombuffer(b"abc\0defghi", np.uint8)
    assert strings_at(data, np.array([0, 1, 3, 4, 8]), 4).tolist() == [b"abc", b"bc", b"", b"defg", b"hi"]
    assert strings_at(data, np.zeros(0, np.int64), 4).tolist() == []


def test_the_first_of_equal_names_is_found() -> None:
    table = np.array([b"b", b"a", b"b", b"long"])
    order = np.argsort(table, kind="stable")
    assert find_names(table, order, np.array([b"b", b"a", b"lo", b"longer"])).tolist() == [0, 1, -1, -1]
    assert find_names(table[:0], order[:0], np.array([b"b"])).tolist() == [-1]


# -- new contents ------------------------------------------------------------------------------------------------------


def test_depends_is_changed_in_its_place() -> None:
    old = b"license=GPL\0\0depends=mii\0alias=x\0"
    assert with_modinfo(old, depends=["mii", "hook"]) == b"license=GPL\0\0depends=mii,hook\0alias=x\0"
    assert with_modinfo(old, depends=[]) == b"license=GPL\0\0depends=\0alias=x\0"


def test_a_missing_depends_is_added_at_the_end() -> None:
    assert with_modinfo(b"license=GPL", depends=["mii"]) == b"license=GPL\0depends=mii\0"
    assert with_modinfo(b"", depends=["mii"]) == b"depends=mii\0"


def test_namespaces_are_added_once() -> None:
    old = b"import_ns=A\0name=m\0"
    assert with_modinfo(old, import_ns=["A", "B", "B"]) == b"import_ns=A\0name=m\0import_ns=B\0"
    assert with_modinfo(old, import_ns=["A"]) == old
    assert with_modinfo(old) == old


def test_versions_are_added_behind_the_others() -> None:
    old = version("a", 1)
    assert with_versions(old, {"b": 0xFFFF_FFFF, "c": 3}) == old + version("b", 0xFFFF_FFFF) + version("c", 3)
    assert with_versions(b"", {"b": 2}) == version("b", 2)


def test_an_equal_version_is_kept_and_another_one_refused() -> None:
    old = version("a", 1)
    assert with_versions(old, {"a": 1}) == old
    with pytest.raises(PolicyError) as refused:
        with_versions(old, {"a": 2})
    wanted = "a: the module already has another version of the symbol: found 0x00000001, expected 0x00000002"
    assert str(refused.value) == wanted


def test_a_name_too_long_for_a_row_is_refused() -> None:
    assert len(with_versions(b"", {"x" * 55: 1})) == 64
    with pytest.raises(
        PolicyError, match="too long for __versions: found 56 bytes, expected at most 55 – use a symbol"
    ):
        with_versions(b"", {"x" * 56: 1})


def test_extended_versions_are_added_before_the_padding(tmp_path: Path) -> None:
    crcs, names = with_extended_versions(struct.pack("<I", 1), b"a\0\0\0", {"n" * 90: 2})
    assert (crcs, names) == (struct.pack("<2I", 1, 2), b"a\0" + b"n" * 90 + b"\0")
    found = read_versions(module(tmp_path, {"__version_ext_crcs": crcs, "__version_ext_names": names}))
    assert (crc_of(found, "a"), crc_of(found, "n" * 90)) == (1, 2)
