"""Debug information of relocatable files: relocated as a linker would, or refused with the reason, never read with
holes; packed sections of either kind; a link to a file that has it."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from elfwriter import Elf, Section, extended, parsed

from ftpatch.arch import architectures
from ftpatch.elf import debug_names
from ftpatch.elf.debug_lines import source_lines, why_no_line
from ftpatch.elf.image import Image
from ftpatch.recovered.image import open_image

DWARF = Path(__file__).parent.parent / "testdata" / "dwarf"
TYPES = {arch.name: arch for arch in architectures()}


def rows_of(file: bytes, table: str) -> tuple[int, int]:
    """(position, number) of the relocations in a table."""
    section = parsed(file).get_section_by_name(table)
    return section["sh_offset"], section.num_relocations()


def with_row(
    file: bytes, table: str, row: int, *, offset: int | None = None, kind: int | None = None, symbol: int | None = None
) -> bytes:
    """The file with another relocation in place of one."""
    at = rows_of(file, table)[0] + 24 * row
    r_offset, r_info = struct.unpack_from("<QQ", file, at)
    r_info = (r_info >> 32 if symbol is None else symbol) << 32 | (r_info & 0xFFFFFFFF if kind is None else kind)
    return file[:at] + struct.pack("<QQ", r_offset if offset is None else offset, r_info) + file[at + 16 :]


def of_type_rel(file: bytes, table: str) -> bytes:
    """The file with a table that says it has no addends."""
    elf = parsed(file)
    at = elf["e_shoff"] + 64 * elf.get_section_index(table) + 4
    return file[:at] + struct.pack("<I", 9) + file[at + 4 :]


def opened(content: bytes, folder: Path) -> Image:
    (folder / "file.o").write_bytes(content)
    return open_image(str(folder / "file.o"))


def line_of_one(image: Image) -> list[str | None]:
    """The line of the function `one`."""
    row = int(image.symbols.rows_named("one")[0])
    return source_lines(image, [int(image.functions.va[image.functions.row == row][0])])


@pytest.mark.parametrize("name", ["gcc4.o", "gcc5.o", "clang5.o", "ppc64le.o", "beside.o"])
def test_a_sound_object_has_its_line(name: str) -> None:
    assert line_of_one(open_image(str(DWARF / name))) == ["one.c:7"]


@pytest.mark.parametrize("name", ["gcc5.o", "ppc64le.o"])
@pytest.mark.parametrize("row", [0, 3, -1], ids=["first", "middle", "last"])
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"kind": 0xFFF}, "a relocation of an unknown type: found type 4095 in .debug_line"),
        ({"offset": 1 << 40}, "a relocation is outside its section: found .debug_line+0x10000000000, expected less "),
        ({"offset": (1 << 64) - 4}, "a relocation is outside its section: found .debug_line+0xfffffffffffffffc, "),
        ({"symbol": 0x7FFFFFFF}, "a relocation names no symbol of this file: found symbol 2147483647"),
    ],
    ids=["type", "offset", "last offset", "symbol"],
)
def test_a_relocation_that_cannot_be_applied_is_told_not_guessed(
    tmp_path: Path, name: str, row: int, how: dict[str, int], reason: str
) -> None:
    file = (DWARF / name).read_bytes()
    row %= rows_of(file, ".rela.debug_line")[1]
    image = opened(with_row(file, ".rela.debug_line", row, **how), tmp_path)
    assert line_of_one(image) == [None]
    assert reason in why_no_line(image)


def test_a_relocation_that_ends_behind_its_section_is_refused(tmp_path: Path) -> None:
    file = (DWARF / "gcc5.o").read_bytes()
    size = parsed(file).get_section_by_name(".debug_line")["sh_size"]
    at, n = rows_of(file, ".rela.debug_line")
    kinds = [struct.unpack_from("<Q", file, at + 24 * row + 8)[0] & 0xFFFFFFFF for row in range(n)]
    for kind, length in ((TYPES["arm64"].abs64, 8), (TYPES["arm64"].abs32, 4)):
        row = kinds.index(kind)
        image = opened(with_row(file, ".rela.debug_line", row, offset=size - length + 1), tmp_path)
        assert "a relocation is outside its section" in why_no_line(image)
        assert why_no_line(opened(with_row(file, ".rela.debug_line", row, offset=size - length), tmp_path)) == (
            "not in its debug information"
        )


@pytest.mark.parametrize(("name", "arch"), [("gcc5.o", "arm64"), ("ppc64le.o", "ppc64le")])
def test_thread_local_variables_and_nothing_do_not_matter(tmp_path: Path, name: str, arch: str) -> None:
    """Relocations of .debug_info that no address of code needs: the last names a variable's place or a type."""
    file = (DWARF / name).read_bytes()
    row = rows_of(file, ".rela.debug_info")[1] - 1
    for kind in (*TYPES[arch].tls, TYPES[arch].none):
        assert why_no_line(opened(with_row(file, ".rela.debug_info", row, kind=kind), tmp_path)) == (
            "not in its debug information"
        )


def test_relocations_without_addends_are_refused(tmp_path: Path) -> None:
    image = opened(of_type_rel((DWARF / "gcc5.o").read_bytes(), ".rela.debug_line"), tmp_path)
    assert line_of_one(image) == [None]
    assert why_no_line(image) == (
        "its debug information cannot be read: .debug_line: relocations without addends: found SHT_REL for "
        ".debug_line, expected SHT_RELA"
    )


# -- sections that are packed, or elsewhere ----------------------------------------------------------------------------


def packed_the_old_way(file: bytes) -> bytes:
    """A linked file with its debug sections as .zdebug: the old ones renamed, packed ones added."""
    elf = parsed(file)
    more, names = [], elf.get_section(elf["e_shstrndx"])
    content = bytearray(file)
    for section in elf.iter_sections():
        if section.name.startswith(".debug"):
            data = section.data()
            head = b"ZLIB" + len(data).to_bytes(8, "big")
            more.append(Section(f".z{section.name[1:]}", head + zlib.compress(data)))
            at = names["sh_offset"] + section["sh_name"]
            content[at : at + 2] = b".D"
    return extended(bytes(content), more)


@pytest.mark.parametrize("name", ["gcc3", "gcc4", "gcc5", "clang5"])
def test_sections_of_old_binutils_are_unpacked(tmp_path: Path, name: str) -> None:
    """.zdebug_line and so on."""
    image = opened(packed_the_old_way((DWARF / name).read_bytes()), tmp_path)
    assert not image.sections_named(".debug_line")
    assert line_of_one(image) == line_of_one(open_image(str(DWARF / name))) == ["one.c:7"]
    assert debug_names.find(image, "helper") == debug_names.find(open_image(str(DWARF / name)), "helper")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no ZLIB in front"),
        (b"ZLIB\0\0\0", "no ZLIB in front"),
        (b"GLIB" + bytes(8), "no ZLIB in front"),
        (b"ZLIB" + (1 << 40).to_bytes(8, "big") + zlib.compress(bytes(9)), "unpack to too much"),
        (b"ZLIB" + (100).to_bytes(8, "big") + zlib.compress(bytes(9)), "cannot be unpacked: found ch_type 1"),
        (b"ZLIB" + (9).to_bytes(8, "big") + b"\xff" * 20, "cannot be unpacked: found Error"),
    ],
)
def test_old_packed_sections_that_are_damaged_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    elf = Elf(1)
    elf.section(".text", bytes(16), flags=6)
    elf.section(".zdebug_line", content)
    elf.symbol("f", 1, 0, 16)
    assert reason in why_no_line(opened(elf.build(), tmp_path))


def test_a_link_to_the_debug_information_is_said(tmp_path: Path, ftpatch: Callable[..., str]) -> None:
    source = (DWARF.parent / "mini" / "mini.ko").read_bytes()
    path = tmp_path / "mini.ko"
    path.write_bytes(extended(source, [Section(".gnu_debuglink", b"mini\x1b.debug\0\0" + bytes(4))]))
    told = ftpatch("explain", "mini_step", path)
    assert (
        "  source     not known: its debug information is in another file, mini\\x1b.debug (.gnu_debuglink); "
        "eu-unstrip\n             joins both\n"
    ) in told
    (row,) = json.loads(ftpatch("explain", "mini_step", path, "--format", "json"))["images"][0]["explained"]
    assert row["source"] is None
    assert row["source_unknown"].startswith("its debug information is in another file, mini\x1b.debug (")


def test_a_file_without_debug_information_says_nothing_of_it(ftpatch: Callable[..., str]) -> None:
    assert "source" not in ftpatch("explain", "mini_step", DWARF.parent / "mini" / "mini.ko")
