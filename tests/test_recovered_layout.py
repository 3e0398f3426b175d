"""Sections, relocation tables, records and link addresses of kernels whose files say nothing of them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from elfwriter import MINI

from ftpatch.arch import arch_of
from ftpatch.arrays import U64
from ftpatch.cli import run
from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.recovered import Recovered
from ftpatch.errors import ElfError, PolicyError, SelectionError
from ftpatch.explanation.untraceable import absence
from ftpatch.recovered.image import open_image
from ftpatch.recovered.kallsyms import find_tables
from ftpatch.recovered.layout import Sections, sections_of
from ftpatch.recovered.layout_base import Base, link_base
from ftpatch.recovered.layout_content import table_of
from ftpatch.recovered.memory import Memory
from ftpatch.recovered.records import BOUNDS, record_table
from ftpatch.recovered.relocations import Table, find_rela, find_relr
from ftpatch.recovered.symbols import NO_SYMBOLS
from ftpatch.rules.before import must_trace
from ftpatch.rules.case import Case, Context
from ftpatch.sites.reading import read_sites
from ftpatch.sites.records import join
from ftpatch.sites.scan import Scan, scan_file
from ftpatch.sites.select import select
from ftpatch.sites.static_calls import read_static_calls
from tools.kernels import Kernel

ARM64 = arch_of(183, "")
BASE = 0xFFFF_8000_0800_0000
PPC = MINI.parent / "mini-ppc64le"
CODE, CONSTANT, DATA = 6, 2, 3  # sh_flags
SIZE = 0x20000  # bytes of the made image


def memory(data: bytes | bytearray, base: int = BASE) -> Memory:
    octets = FileBytes.of(bytes(data))
    return Memory(octets, np.array([base], np.uint64), np.zeros(1, np.int64), np.array([len(octets)]))


def symbols(values: dict[str, int], code: Sequence[str] = ()) -> t.Symbols:
    """Names at offsets from the base."""
    rows, strtab = np.zeros(len(values), t.SYM), b"\0"
    for row, (name, off) in zip(rows, values.items(), strict=True):
        row["st_name"], row["st_value"] = len(strtab), BASE + off
        row["st_info"] = t.STT_FUNC if name in code else t.STT_OBJECT
        strtab += name.encode() + b"\0"
    return t.Symbols(rows, strtab, np.full(len(rows), t.NO_SECTION, np.int64))


def told(sections: Sections) -> list[tuple[str, int, int, int]]:
    """(name, offsets of start and end, flags) of each."""
    head = sections.shdr[1:]
    start = (head["sh_addr"] - np.uint64(BASE)).tolist()
    end = (head["sh_addr"] + head["sh_size"] - np.uint64(BASE)).tolist()
    return list(zip(sections.names[1:], start, end, head["sh_flags"].tolist(), strict=True))


PARTS = {"_text": 0, "_stext": 0x1000, "_etext": 0x4000, "__start_rodata": 0x4000, "__end_rodata": 0x6000,
         "__init_begin": 0x8000, "_sinittext": 0x8000, "_einittext": 0x9000, "__init_end": 0xC000, "_sdata": 0xC000,
         "_edata": 0xF000, "__bss_start": 0xF000, "_end": 0x12000}  # fmt: skip
USUAL = [
    (".head.text", 0, 0x1000, CODE), (".text", 0x1000, 0x4000, CODE), (".rodata", 0x4000, 0x6000, CONSTANT),
    (".rodata", 0x6000, 0x8000, CONSTANT), (".init.text", 0x8000, 0x9000, CODE), (".init.data", 0x9000, 0xC000, DATA),
    (".data", 0xC000, 0xF000, DATA), (".bss", 0xF000, 0x12000, DATA),
]  # fmt: skip
LAYOUTS: list[tuple[str, dict[str, int], list[tuple[str, int, int, int]]]] = [
    ("the parts of the linker's script", {}, USUAL),
    ("a table within one", {"__start___ex_table": 0x5000, "__stop___ex_table": 0x5100},
     [*USUAL[:2], (".rodata", 0x4000, 0x5000, CONSTANT), ("__ex_table", 0x5000, 0x5100, CONSTANT),
      (".rodata", 0x5100, 0x6000, CONSTANT), *USUAL[3:]]),
    ("a table that ends in front of its start", {"__start___ex_table": 0x5100, "__stop___ex_table": 0x5000}, USUAL),
    ("a table of which one end is named", {"__start___ex_table": 0x5000}, USUAL),
    ("an empty table", {"__start___ex_table": 0x5000, "__stop___ex_table": 0x5000}, USUAL),
    ("a table beyond the file", {"__start___ex_table": 1 << 40, "__stop___ex_table": (1 << 40) + 16}, USUAL),
]  # fmt: skip


@pytest.mark.parametrize(("what", "more", "expected"), LAYOUTS, ids=[what for what, _, _ in LAYOUTS])
def test_parts_and_tables_are_sections_that_never_overlap(
    what: str, more: dict[str, int], expected: list[tuple[str, int, int, int]]
) -> None:
    sections = sections_of(memory(b"\x5a" * 0xF000), symbols({**PARTS, **more}), ARM64)
    assert told(sections) == expected
    held = sections.shdr["sh_type"] == t.SHT_PROGBITS
    assert (sections.shdr["sh_offset"][held] == sections.shdr["sh_addr"][held] - np.uint64(BASE)).all()


def test_zeros_behind_the_last_symbol_of_a_part_are_in_no_section() -> None:
    data = bytearray(b"\x5a" * 0xF000)
    data[0x5020:0x8000] = bytes(0x2FE0)
    sections = told(sections_of(memory(data), symbols({**PARTS, "constant": 0x5400}), ARM64))
    assert [section for section in sections if section[0] == ".rodata"] == [(".rodata", 0x4000, 0x5410, CONSTANT)]


def test_code_that_no_symbol_bounds_is_told_by_its_functions() -> None:
    more = {"exit_one": 0x9800, "exit_two": 0x9900, "behind": 0x9A00}
    sections = told(sections_of(memory(b"\x5a" * 0xF000), symbols({**PARTS, **more}, code=("exit_one", "exit_two")),
                                ARM64))  # fmt: skip
    assert (".exit.text", 0x9800, 0x9A00, CODE) in sections


# -- relocations and the link address ----------------------------------------------------------------------------------


END = {"rela": 0xC000, "relr": 0x18000}  # where the pointers of the made image end


def relocated(kind: str, moved: int = 0) -> bytes:
    """A flat image with pointers at every 24th byte from 0x8000 on, and its table of relocations at 0x1000; `moved`:
    as a dump of a kernel that runs so far off has it."""
    data = np.frombuffer(np.random.default_rng(7).bytes(SIZE), np.uint8).copy()
    words = data.view("<u8")
    places = np.arange(0x8000, END[kind], 24) // 8
    targets = np.uint64(BASE + 0x10000) + 16 * np.arange(len(places), dtype=np.uint64)
    words[places] = targets + np.uint64(moved) if kind == "relr" or moved else 0
    at = 0x1000 // 8
    words[at - 1] = 2
    if kind == "rela":
        rows = np.stack(
            [np.uint64(BASE) + np.uint64(8) * places.astype(np.uint64), np.full(len(places), 1027, np.uint64), targets],
            axis=1,
        )
        words[at : at + rows.size] = rows.astype(np.uint64).ravel()
        words[at + rows.size : at + rows.size + 3] = 2
    else:
        packed = packed_words(np.uint64(BASE) + np.uint64(8) * places.astype(np.uint64))
        words[at : at + len(packed)] = packed
        words[at + len(packed)] = 2
    return data.tobytes()


def packed_words(places: U64) -> list[int]:
    """The packed table of ascending places."""
    out: list[int] = []
    rest = places.tolist()
    while rest:
        start = rest.pop(0)
        out.append(start)
        start += 8
        while rest and rest[0] < start + 63 * 8:
            bits = [(place - start) // 8 for place in rest if place < start + 63 * 8]
            rest = rest[len(bits) :]
            out.append(1 | sum(2 << bit for bit in bits))
            start += 63 * 8
    return out


N_PLACES = len(range(0x8000, END["rela"], 24))


def test_relocation_tables_are_found_to_the_byte() -> None:
    held = memory(relocated("rela"))
    assert find_rela(held, ARM64) == Table(0x1000, 0x1000 + 24 * N_PLACES)
    held = memory(relocated("relr"))
    n = len(packed_words(np.arange(BASE + 0x8000, BASE + END["relr"], 24, dtype=np.uint64)))
    assert find_rela(held, ARM64) is None
    assert find_relr(held, None) == Table(0x1000, 0x1000 + 8 * n)


def test_noise_holds_no_relocation_table() -> None:
    held = memory(np.random.default_rng(3).bytes(SIZE))
    assert (find_rela(held, ARM64), find_relr(held, None)) == (None, None)


MOVED = 0x1234_0000
BASES: list[tuple[str, int, Base]] = [
    ("rela", 0, Base(BASE, BASE)), ("relr", 0, Base(BASE, BASE)), ("rela", MOVED, Base(BASE, BASE + MOVED)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "moved", "expected"), BASES)
def test_the_link_address_follows_from_the_relocations(kind: str, moved: int, expected: Base) -> None:
    assert link_base(FileBytes.of(relocated(kind, moved)), ARM64, SIZE) == expected


@pytest.mark.parametrize("data", [bytes(SIZE), b"\x5a" * SIZE, np.random.default_rng(5).bytes(SIZE)])
def test_an_image_without_pointers_has_no_link_address(data: bytes) -> None:
    assert link_base(FileBytes.of(data), ARM64, SIZE) is None


# -- tables that tell themselves ---------------------------------------------------------------------------------------

NOTE = struct.pack("<3I4s20s", 4, 20, 3, b"GNU\0", bytes(range(20)))
ELF = struct.pack("<4sB35xQ4xH4xHH2x", b"\x7fELF", 2, 0x400, 64, 64, 2)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bytes(64) + NOTE + bytes(64), (64, 64 + len(NOTE))),
        (bytes(64) + NOTE + NOTE + bytes(64), None),
        (bytes(64) + NOTE + ELF + bytes(64) + NOTE + bytes(0x400), (64, 64 + len(NOTE))),
        (bytes(256), None),
    ],
    ids=["one", "two", "one and a vDSO's", "none"],
)
def test_the_notes_of_a_kernel_are_found_where_nobody_elses_are(data: bytes, expected: tuple[int, int] | None) -> None:
    assert table_of(memory(data), ".notes") == expected


# -- records -----------------------------------------------------------------------------------------------------------


def without_bounds(path: Path) -> Image:
    """A kernel of which kallsyms would name code alone."""
    image = open_image(str(path))
    own = image.own_symbols
    kept = (own.type == t.STT_FUNC) | (np.arange(len(own.rows)) == 0)
    some = t.Symbols(own.rows[kept], own.strtab, own.shndx[kept])
    return replace(image, recovered=Recovered(some, "kallsyms", False))


@pytest.mark.parametrize("path", [MINI / "vmlinux-pfe2", MINI / "vmlinux-callops", MINI / "vmlinux-pfe2-bti",
                                  PPC / "vmlinux-mprofile", PPC / "vmlinux-pfe2"], ids=str)  # fmt: skip
def test_the_records_of_a_kernel_are_found_without_their_symbols(path: Path) -> None:
    names = open_image(str(path)).own_symbols
    assert record_table(without_bounds(path)) == tuple(names.value(name) for name in BOUNDS)


def test_a_program_without_section_headers_is_still_refused(tmp_path: Path) -> None:
    data = bytearray((MINI / "program").read_bytes())
    data[40:48] = bytes(8)
    (tmp_path / "program").write_bytes(data)
    with pytest.raises(ElfError, match="no section headers – give the program that the build produced"):
        open_image(str(tmp_path / "program"))


def test_a_segment_beyond_the_file_is_named(tmp_path: Path) -> None:
    data = bytearray((MINI / "vmlinux-pfe2").read_bytes())
    data[40:48] = bytes(8)
    phoff = struct.unpack_from("<Q", data, 32)[0]
    struct.pack_into("<Q", data, phoff + 32, 1 << 40)
    (tmp_path / "vmlinux").write_bytes(data)
    with pytest.raises(ElfError, match="a segment lies outside the file"):
        open_image(str(tmp_path / "vmlinux"))


def nameless(path: Path) -> Image:
    """A kernel that has neither symbols nor kallsyms."""
    return replace(open_image(str(path)), recovered=Recovered(NO_SYMBOLS, "none", False))


def test_static_calls_that_nothing_names_are_refused_and_not_counted_as_none() -> None:
    path = MINI.parent / "static_calls" / "vmlinux"
    assert len(read_static_calls(open_image(str(path))).calls) > 0
    with pytest.raises(PolicyError) as caught:
        read_static_calls(nameless(path))
    assert str(caught.value) == (
        f"{path}: the table of static calls is not known: found no names of data (a kernel without "
        "CONFIG_KALLSYMS_ALL), expected __start_static_call_sites – give the vmlinux of the same build"
    )


def test_rules_do_not_say_of_a_kernel_without_names_that_a_function_is_missing(tmp_path: Path) -> None:
    image = nameless(MINI / "vmlinux-pfe2")
    records = join([])
    case = Case(image, records, read_sites(image, records), context=Context(must=("vfs_read",)))
    assert [hit.text for hit in must_trace(case)] == [
        "vfs_read must be traceable; whether it can is not known: the kernel has no names of functions"
    ]
    assert case.static_calls is None and case.static_call_trouble is None


def test_without_names_nobody_says_why_a_function_has_no_site() -> None:
    """It was said to be inlined or renamed, as of a kernel that would have its name."""
    image = nameless(MINI / "vmlinux-pfe2")
    table = read_sites(image, join([]))
    why = "the kernel has no names at all, its functions are called by their addresses"
    assert absence(image, table, "vfs_read")["text"] == f"not known: {why}"
    with pytest.raises(SelectionError, match=f"nothing of that name: .* – {why}"):
        select(table, ["vfs_read"])


# -- Debian's kernels --------------------------------------------------------------------------------------------------


def sites_of(scan: Scan) -> list[list[object]]:
    table, names = scan.sites, scan.image.names
    sections = [names[sec] if sec >= 0 else None for sec in table.sec.tolist()]
    return [table.row.tolist(), table.va.tolist(), table.status.tolist(), sections, table.off.tolist(),
            [table.name(i) for i in range(0, len(table), 97)]]  # fmt: skip


def without_section_headers(path: str, out: Path) -> str:
    """The file as sstrip leaves it."""
    data = bytearray(Path(path).read_bytes())
    phoff, n = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    rows = [struct.unpack_from("<2I6Q", data, phoff + 56 * number) for number in range(n)]
    struct.pack_into("<Q", data, 40, 0)
    struct.pack_into("<2H", data, 60, 0, 0)
    out.write_bytes(data[: max(row[2] + row[5] for row in rows)])
    return str(out)


def flat(path: str, out: Path) -> str:
    assert run(["image", path, "-o", str(out)]) == 0
    return str(out)


# without CONFIG_KALLSYMS_ALL nothing names what is neither text nor init text
UNNAMED = {"arm64-6.1": (".rodata.text", ".exit.text"), "ppc64le-6.1": (".exit.text",)}


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "made"),
    [("arm64-6.1", flat), ("arm64-6.12", flat), ("ppc64le-6.1", without_section_headers),
     ("x86_64-6.12", without_section_headers)],
    ids=["arm64-6.1", "arm64-6.12", "ppc64le-6.1", "x86_64-6.12"],
)  # fmt: skip
def test_a_kernel_without_sections_has_those_of_its_vmlinux(
    name: str, made: Callable[[str, Path], str], kernel: Callable[[str], Kernel], tmp_path: Path
) -> None:
    """The same sites, and code is executable where it is in the vmlinux, but for what linkers fill up with."""
    path = str(kernel(name).vmlinux)
    whole, other = scan_file(path), scan_file(made(path, tmp_path / "kernel"))
    assert sites_of(other) == sites_of(whole)
    own = whole.image
    same = ["__ksymtab", "__ksymtab_gpl", "__ex_table", "__bug_table", ".notes", ".BTF", ".rela.dyn", ".relr.dyn"]
    bounds = [{name: [(int(image.base[sec]), int(image.shdr["sh_size"][sec])) for sec in image.sections_named(name)]
               for name in same} for image in (own, other.image)]  # fmt: skip
    named = [name for name in same if bounds[1][name]]
    assert {".notes", ".rela.dyn"} & set(named) and [bounds[1][name] for name in named] == [
        bounds[0][name] for name in named
    ]
    for sec in np.flatnonzero(own.executable & (own.shdr["sh_size"] > 0)).tolist():
        code = own.content(sec)
        used = np.flatnonzero(code)[[0, -1]].astype(np.uint64) + own.base[sec]
        found = other.image.place(used)[0]
        told = (found > 0).all() and other.image.executable[found].all()
        assert told or own.names[sec] in UNNAMED.get(name, ()), own.names[sec]


@pytest.mark.corpus
def test_a_kernel_without_names_has_the_records_of_its_vmlinux(kernel: Callable[[str], Kernel], tmp_path: Path) -> None:
    path = str(kernel("arm64-6.12").vmlinux)
    data = bytearray(Path(flat(path, tmp_path / "Image")).read_bytes())
    for tables in find_tables(FileBytes.of(bytes(data))):
        data[tables.tokens.pos : tables.tokens.pos + 0x400] = bytes(0x400)
    (tmp_path / "Image").write_bytes(data)
    whole, other = scan_file(path), scan_file(str(tmp_path / "Image"))
    assert other.image.recovered is not None and other.image.recovered.source == "none"
    assert other.records.value.tolist() == whole.records.value.tolist()
    assert sites_of(other)[:4] == sites_of(whole)[:4]
    live = np.flatnonzero(other.records.live)[:3].tolist()
    assert [other.sites.name(i) for i in live] == [
        f"0x{int(whole.image.functions.va[whole.sites.func[i]]):x}" for i in live
    ]
