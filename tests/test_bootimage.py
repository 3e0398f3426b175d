"""What a boot loader takes: the ELF file of ppc64le without debug information, and arm64's flat image."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from elfwriter import (
    ALLOC,
    EXEC,
    FUNC,
    LOCAL,
    MINI,
    NOBITS,
    OBJECT,
    PROGBITS,
    RELA,
    SECTION,
    WRITE,
    Elf,
    parsed,
    rela,
    written,
)

from ftpatch import api
from ftpatch.errors import FtpatchError

PPC = MINI.parent / "mini-ppc64le"
LINKED = [
    "vmlinux-mprofile", "vmlinux-pfe2", "vmlinux-ool", "vmlinux-ool-noops", "vmlinux-clang", "vmlinux-far",
    "vmlinux-unreachable", "vmlinux-gcc12", "vmlinux-nm", "vmlinux-pg",
]  # fmt: skip
SHDR = "<IIQQQQIIQQ"
PROG, NOTE = 1, 7
New = tuple[str, int, bytes]  # name, sh_type, contents


def with_sections(source: Path, new: Sequence[New], align: int = 1) -> bytes:
    """The fixture with more sections in front of .symtab, whose number so moves, and a section symbol for each."""
    file = source.read_bytes()
    shoff = struct.unpack_from("<Q", file, 40)[0]
    n, shstrndx = struct.unpack_from("<HH", file, 60)
    heads = [list(struct.unpack_from(SHDR, file, shoff + 64 * i)) for i in range(n)]
    content = [file[h[4] : h[4] + h[5]] if h[1] not in (0, NOBITS) else b"" for h in heads]
    symtab = next(i for i, h in enumerate(heads) if h[1] == 2)
    assert symtab == n - 3  # .symtab, .strtab, .shstrtab
    body, names, added = bytearray(file[: heads[symtab][4]]), bytearray(content[shstrndx]), []
    for name, kind, data in new:
        body += bytes(-len(body) % align)
        link = symtab + len(new) if kind == RELA else 0
        added.append([len(names), kind, 0, 0, len(body), len(data), link, symtab if kind == RELA else 0, align, 0])
        if kind == RELA:
            added[-1][8:] = [8, 24]
        names += name.encode() + b"\0"
        body += data
    n_local = heads[symtab][7]
    rows = bytearray(content[symtab][: 24 * n_local])
    for i in range(len(new)):
        rows += struct.pack("<IBBHQQ", 0, SECTION, 0, symtab + i, 0, 0)
    rows += content[symtab][24 * n_local :]
    tail = [heads[symtab], heads[symtab + 1], heads[symtab + 2]]
    tail[0][6], tail[0][7] = symtab + len(new) + 1, n_local + len(new)
    for head, data in zip(tail, (bytes(rows), content[symtab + 1], bytes(names)), strict=True):
        body += bytes(-len(body) % max(head[8], 1))
        head[4], head[5] = len(body), len(data)
        body += data
    body += bytes(-len(body) % 8)
    table = [*heads[:symtab], *added, *tail]
    struct.pack_into("<Q", body, 40, len(body))
    struct.pack_into("<HH", body, 60, len(table), len(table) - 1)
    for head in table:
        body += struct.pack(SHDR, *head)
    return bytes(body)


DEBUG: list[New] = [
    (".debug_info", PROG, b"\x11" * 1001),
    (".comment", PROG, b"GCC: (made by hand)\0"),
    (".rela.debug_info", RELA, rela(0, 38, 0xC000_0000_0000_0000)),
    (".debug_str", PROG, b"a\0b\0"),
    (".zdebug_line", PROG, b"ZLIB"),
    (".gdb_index", PROG, b"\x08\0\0\0"),
    (".stabstr", PROG, b"\0"),
    (".gnu_debuglink", PROG, b"vmlinux.debug\0\0\0\1\2\3\4"),
]
STAYS = [".comment", ".gnu_debuglink"]


def image_of(path: str | Path, tmp_path: Path) -> bytes:
    out = tmp_path / "image"
    size = api.image(str(path), str(out)).size
    made = out.read_bytes()
    assert size == len(made)
    return made


def described(file: bytes) -> tuple[list[Any], list[Any], dict[str, Any]]:
    """Program headers, symbols with their sections' names, and the loaded sections, as pyelftools reads them."""
    elf = parsed(file)
    secs = list(elf.iter_sections())
    symbols = []
    for one in elf.get_section_by_name(".symtab").iter_symbols():
        shndx = one["st_shndx"]
        where = secs[shndx].name if isinstance(shndx, int) else shndx
        symbols.append((one.name, one["st_value"], one["st_size"], dict(one["st_info"]), dict(one["st_other"]), where))
    loaded = {
        one.name: (one["sh_addr"], one["sh_size"], one["sh_offset"], one.data())
        for one in secs
        if one["sh_flags"] & ALLOC and one["sh_type"] != "SHT_NOBITS"
    }
    return [dict(one.header) for one in elf.iter_segments()], symbols, loaded


@pytest.mark.parametrize("name", LINKED)
def test_without_debug_sections_the_image_is_the_file(name: str, tmp_path: Path) -> None:
    assert image_of(PPC / name, tmp_path) == (PPC / name).read_bytes()


SOME = ["vmlinux-pfe2", "vmlinux-ool", "vmlinux-far", "vmlinux-unreachable", "vmlinux-mprofile"]


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("align", [1, 16])
def test_debug_sections_go_and_all_else_stays(name: str, align: int, tmp_path: Path) -> None:
    source = with_sections(PPC / name, DEBUG, align)
    made = image_of(written(tmp_path / "v", source), tmp_path)
    before, after = described(source), described(made)
    gone = {one[0] for one in DEBUG} - set(STAYS)
    names = [one.name for one in parsed(source).iter_sections()]
    assert [one.name for one in parsed(made).iter_sections()] == [one for one in names if one not in gone]
    assert after[0] == before[0]
    assert after[1] == [one for one in before[1] if one[5] not in gone]
    assert after[2] == before[2]
    for one in parsed(source).iter_segments():
        span = slice(one["p_offset"], one["p_offset"] + one["p_filesz"])
        assert made[span] == source[span]
    assert made[:40] == source[:40]
    assert b"\x11" * 16 not in made
    assert len(made) < len(source)


@pytest.mark.parametrize("align", [1, 32])
def test_sections_that_stay_keep_their_contents_and_their_alignment(align: int, tmp_path: Path) -> None:
    source = with_sections(PPC / "vmlinux-pfe2", DEBUG, align)
    made = parsed(image_of(written(tmp_path / "v", source), tmp_path))
    old = parsed(source)
    for name in (*STAYS, ".strtab", ".shstrtab", ".symtab"):
        one, other = made.get_section_by_name(name), old.get_section_by_name(name)
        assert one["sh_offset"] % max(one["sh_addralign"], 1) == 0
        if name != ".symtab":
            assert one.data() == other.data()
        same = ("sh_type", "sh_flags", "sh_addr", "sh_addralign", "sh_entsize")
        assert [one[key] for key in same] == [other[key] for key in same]
    symtab = made.get_section_by_name(".symtab")
    assert made.get_section(symtab["sh_link"]).name == ".strtab"
    n_local = sum(one["st_info"]["bind"] == "STB_LOCAL" for one in symtab.iter_symbols())
    assert symtab["sh_info"] == n_local
    assert made.get_section(made["e_shstrndx"]).name == ".shstrtab"
    kept = [one for one in made.iter_sections() if one["sh_type"] not in ("SHT_NULL", "SHT_NOBITS")]
    spans = sorted((one["sh_offset"], one["sh_size"]) for one in kept)
    assert all(start + size <= after for (start, size), (after, _) in pairwise(spans))


def test_the_image_of_an_image_is_itself(tmp_path: Path) -> None:
    once = image_of(written(tmp_path / "v", with_sections(PPC / "vmlinux-ool", DEBUG)), tmp_path)
    assert image_of(written(tmp_path / "once", once), tmp_path) == once


@pytest.mark.skipif(not shutil.which("readelf"), reason="no readelf here")
@pytest.mark.parametrize("name", ["vmlinux-pfe2", "vmlinux-unreachable"])
def test_readelf_reads_the_result_without_a_warning(name: str, tmp_path: Path) -> None:
    made = image_of(written(tmp_path / "v", with_sections(PPC / name, DEBUG, 8)), tmp_path)
    done = subprocess.run(["readelf", "-aW", written(tmp_path / "made", made)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "debug_info" not in done.stdout


def test_a_stripped_result_scans_as_before(tmp_path: Path, ftpatch: Callable[..., str]) -> None:
    source = written(tmp_path / "v", with_sections(PPC / "vmlinux-clang", DEBUG))
    path = written(tmp_path / "made", image_of(source, tmp_path))

    def sites(of: str) -> list[str]:
        return ftpatch("scan", of, "--format", "json").splitlines()[9:]

    assert sites(path) == sites(source)
    assert len(sites(path)) > 32


def test_file_bytes_of_a_segment_behind_its_last_section_stay(tmp_path: Path) -> None:
    """A p_filesz that runs into .bss: zeros of the file are loaded there."""
    source = bytearray(with_sections(PPC / "vmlinux-pfe2", DEBUG, 4096))
    (table,) = struct.unpack_from("<Q", source, 40)
    for i, one in enumerate(parsed(bytes(source)).iter_sections()):
        if one.name in STAYS:  # no need for their alignment
            struct.pack_into("<Q", source, table + 64 * i + 48, 1)
    (size,) = struct.unpack_from("<Q", source, 64 + 32)
    struct.pack_into("<Q", source, 64 + 32, size + 32)
    (start,) = struct.unpack_from("<Q", source, 64 + 8)
    assert source[start + size : start + size + 32] == bytes(32)
    made = image_of(written(tmp_path / "v", source), tmp_path)
    assert made[start : start + size + 32] == source[start : start + size + 32]


@pytest.mark.parametrize(
    "kind", [pytest.param(0, id="notype"), pytest.param(OBJECT, id="object"), pytest.param(FUNC, id="func")]
)
def test_a_symbol_of_a_section_that_goes_does_not_move_to_another(kind: int, tmp_path: Path) -> None:
    """objcopy --strip-debug drops them; whatever is done, the name must not appear in a section it was not in."""
    source = bytearray(with_sections(PPC / "vmlinux-pfe2", DEBUG))
    elf = parsed(bytes(source))
    tab = elf.get_section_by_name(".symtab")
    row = next(i for i, one in enumerate(tab.iter_symbols()) if one.name == "a_ctor")
    debug = next(i for i, one in enumerate(elf.iter_sections()) if one.name == ".debug_str")
    at = tab["sh_offset"] + 24 * row
    source[at + 4] = source[at + 4] & 0xF0 | kind
    source[at + 6 : at + 8] = struct.pack("<H", debug)
    made = described(image_of(written(tmp_path / "v", bytes(source)), tmp_path))
    assert [one[5] for one in made[1] if one[0] == "a_ctor"] in ([], ["SHN_UNDEF"], ["SHN_ABS"])


REFUSED = "debug sections cannot be left out of this file"


KEPT_FIRST = [DEBUG[1], DEBUG[0], *DEBUG[2:]]  # relocations of with_sections() are for the first of the new ones


def named_by(file: bytes, section: str) -> list[tuple[int, int, int, str, str]]:
    """Place, type and addend of each relocation, and the symbol that it names with its section, by pyelftools."""
    elf = parsed(file)
    secs, relocations = list(elf.iter_sections()), elf.get_section_by_name(section)
    symbols = list(elf.get_section(relocations["sh_link"]).iter_symbols())
    told = []
    for one in relocations.iter_relocations():
        symbol = symbols[one["r_info_sym"]]
        where = secs[symbol["st_shndx"]].name if isinstance(symbol["st_shndx"], int) else symbol["st_shndx"]
        told.append((one["r_offset"], one["r_info_type"], one["r_addend"], symbol.name, where))
    return told


def symbols_of(file: bytes) -> list[Any]:
    return list(parsed(file).get_section_by_name(".symtab").iter_symbols())


@pytest.mark.parametrize("name", [".rela.text", ".relaruntime_ptr_x"])
def test_relocations_that_a_link_kept_name_the_same_symbols(name: str, tmp_path: Path) -> None:
    """--emit-relocs, as x86_64 links: they name symbols by row, and rows move up behind those that go."""
    plain = with_sections(PPC / "vmlinux-pfe2", [*KEPT_FIRST, (name, RELA, b"")])
    last = len(symbols_of(plain)) - 1
    rows = [rela(8, 38, 5, last), rela(16, 1, -1, last // 2), rela(24, 38, 0), rela(32, 1, 0, 1)]
    file = with_sections(PPC / "vmlinux-pfe2", [*KEPT_FIRST, (name, RELA, b"".join(rows))])
    made = image_of(written(tmp_path / "v", file), tmp_path)
    assert len(symbols_of(made)) < len(symbols_of(file))
    assert named_by(made, name) == named_by(file, name)
    assert [one[:3] for one in named_by(made, name)] == [(8, 38, 5), (16, 1, -1), (24, 38, 0), (32, 1, 0)]
    target = parsed(made).get_section_by_name(name)["sh_info"]
    assert parsed(made).get_section(target).name == ".comment"


@pytest.mark.parametrize("name", [".rela.text", ".rela.init.text"])
@pytest.mark.parametrize("of", ["a debug section", "nothing", "a table cut short", "a target that goes"])
def test_relocations_that_cannot_be_kept_refuse_the_file(name: str, of: str, tmp_path: Path) -> None:
    plain = with_sections(PPC / "vmlinux-pfe2", [*KEPT_FIRST, (name, RELA, b"")])
    shndx = [one.name for one in parsed(plain).iter_sections()].index(".debug_str")
    row = {
        "a debug section": rela(0, 10, 0, [one["st_shndx"] for one in symbols_of(plain)].index(shndx)),
        "nothing": rela(0, 10, 0, len(symbols_of(plain))),
        "a table cut short": rela(0, 10, 0)[:23],
        "a target that goes": rela(0, 10, 0),
    }[of]
    new = DEBUG if of == "a target that goes" else KEPT_FIRST
    path = written(tmp_path / "v", with_sections(PPC / "vmlinux-pfe2", [*new, (name, RELA, row)]))
    with pytest.raises(FtpatchError) as caught:
        image_of(path, tmp_path)
    assert str(caught.value) == (
        f"{path}: {REFUSED}: found {name}, expected a final link without --emit-relocs – objcopy --strip-debug does it"
    )
    assert caught.value.exit_code == 4
    assert not (tmp_path / "image").exists()


def test_such_a_file_without_debug_information_is_its_own_image(tmp_path: Path) -> None:
    file = with_sections(PPC / "vmlinux-pfe2", [(".rela.text", RELA, rela(0, 10, 0))])
    assert image_of(written(tmp_path / "v", file), tmp_path) == file


@pytest.mark.parametrize("name", ["mini.ko", "pfe2.o", "clang.o"])
def test_modules_and_objects_have_no_boot_image(name: str, tmp_path: Path) -> None:
    kind = "module" if name == "mini.ko" else "object"
    with pytest.raises(FtpatchError) as caught:
        image_of(PPC / name, tmp_path)
    assert str(caught.value) == (
        f"{PPC / name}: no boot image can be made of this file: found kind {kind}, expected a vmlinux – "
        "name the vmlinux of the build tree"
    )


# -- arm64 -------------------------------------------------------------------------------------------------------

BASE = 0xFFFF_8000_8000_0000
HEAD = bytes(56) + b"ARM\x64" + bytes(4)


def flat(*sections: tuple[str, int, bytes], head: bytes = HEAD) -> Elf:
    elf = Elf(3)
    elf.section(".head.text", head, flags=ALLOC | EXEC, addr=BASE, align=16)
    for name, at, content in sections:
        elf.section(name, content, flags=ALLOC | WRITE, addr=BASE + at, align=1)
    elf.section(".bss", type=NOBITS, flags=ALLOC | WRITE, addr=BASE + 0x100_0000, size=0x1000)
    elf.symbol("start_kernel", 1, BASE, 4, bind=LOCAL)
    return elf


def test_a_flat_image_is_the_loaded_sections_with_zeros_between(tmp_path: Path) -> None:
    elf = flat((".data", 0x80, b"data"), (".notes", 0x100, b"note"), (".comment", 0x200, b"gone"), (".b", 0x90, b"b"))
    made = image_of(written(tmp_path / "v", elf.build()), tmp_path)
    assert made == HEAD.ljust(0x80, b"\0") + b"data".ljust(0x10, b"\0") + b"b".ljust(0x70, b"\0") + b"note"


def refusal(elf: Elf, tmp_path: Path) -> tuple[str, int]:
    path = written(tmp_path / "v", elf.build())
    with pytest.raises(FtpatchError) as caught:
        image_of(path, tmp_path)
    assert not (tmp_path / "image").exists()
    return str(caught.value).removeprefix(f"{path}: "), caught.value.exit_code


def test_sections_that_touch_are_no_overlap(tmp_path: Path) -> None:
    made = image_of(written(tmp_path / "v", flat((".a", 64, b"a" * 8), (".b", 72, b"b")).build()), tmp_path)
    assert made == HEAD + b"a" * 8 + b"b"


def with_load_address(file: bytes, sec: str, paddr: int) -> bytes:
    """A program header that loads one section elsewhere."""
    elf = parsed(file)
    head = elf.get_section_by_name(sec)
    row = struct.pack(
        "<IIQQQQQQ", 1, 7, head["sh_offset"], head["sh_addr"], paddr, head["sh_size"], head["sh_size"], 1
    )  # fmt: skip
    body = bytearray(file + bytes(-len(file) % 8))
    struct.pack_into("<Q", body, 32, len(body))
    struct.pack_into("<HH", body, 54, 56, 1)
    return bytes(body) + row


def test_sections_that_overlap_at_their_load_addresses_are_refused(tmp_path: Path) -> None:
    file = with_load_address(flat((".data", 0x80, b"data")).build(), ".data", BASE + 60)
    path = written(tmp_path / "v", file)
    with pytest.raises(FtpatchError) as caught:
        image_of(path, tmp_path)
    assert str(caught.value) == f"{path}: sections overlap in the boot image: found at 0x3c"
    assert caught.value.exit_code == 3


def test_the_load_address_places_a_section(tmp_path: Path) -> None:
    file = with_load_address(flat((".data", 0x8000, b"data")).build(), ".data", BASE + 0x50)
    assert image_of(written(tmp_path / "v", file), tmp_path) == HEAD.ljust(0x50, b"\0") + b"data"


def test_sections_too_far_apart_are_refused(tmp_path: Path) -> None:
    at = 1 << 32
    assert refusal(flat((".data", at, b"data")), tmp_path) == (
        "sections lie too far apart for a boot image: found 0x100000000 bytes", 3,
    )  # fmt: skip


@pytest.mark.parametrize("head", [bytes(64), bytes(55) + b"ARM\x64" + bytes(5), bytes(56) + b"ARMd"[:3], b"\xff" * 64])
def test_without_a_boot_header_there_is_no_flat_image(head: bytes, tmp_path: Path) -> None:
    assert refusal(flat(head=head), tmp_path) == (
        "the first section is no arm64 boot header: found .head.text, expected the magic ARM\\x64 at byte 56", 5,
    )  # fmt: skip


def test_the_magic_is_looked_for_in_the_lowest_section(tmp_path: Path) -> None:
    elf = flat()
    elf.section(".low", b"low", flags=ALLOC, addr=BASE - 0x10, type=PROGBITS)
    assert refusal(elf, tmp_path)[0].endswith("found .low, expected the magic ARM\\x64 at byte 56")
