"""The ELF file as a value: headers and tables that files may and may not have, and the three address spaces."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from elfwriter import (
    ALLOC,
    BASE,
    ET_REL,
    EXEC,
    FILE,
    LOCAL,
    MINI,
    NOBITS,
    NOP,
    R_ABS64,
    RELA,
    RET,
    TEXT,
    Elf,
    Kernel,
    as_code,
    parsed,
    pos_of,
    rela,
    symbol,
    written,
)

from ftpatch import api
from ftpatch.arrays import U64
from ftpatch.elf.identity import build_id
from ftpatch.elf.tables import relr_places
from ftpatch.errors import ArchError, ElfError, InputError
from ftpatch.recovered.image import open_image

FIXTURES = sorted(path.name for path in MINI.iterdir() if path.read_bytes()[:4] == b"\x7fELF")
CODE = as_code([NOP, NOP, RET])


def unpacked(words: U64, low: int, high: int, where: str) -> U64:
    """All slices of relr_places as one array."""
    return np.concatenate([np.zeros(0, dtype=np.uint64), *relr_places(words, low, high, where)])


@pytest.mark.parametrize("name", FIXTURES)
def test_sections_are_those_that_pyelftools_reads(name: str) -> None:
    image = open_image(str(MINI / name))
    file = (MINI / name).read_bytes()
    sections = list(parsed(file).iter_sections())
    fields = ("sh_addr", "sh_offset", "sh_size", "sh_link", "sh_info", "sh_flags")
    assert image.names == tuple(one.name for one in sections)
    assert [tuple(int(head[key]) for key in fields) for head in image.shdr] == [
        tuple(one[key] for key in fields) for one in sections
    ]


@pytest.mark.parametrize("name", FIXTURES)
def test_symbols_are_those_that_pyelftools_reads(name: str) -> None:
    symbols = open_image(str(MINI / name)).symbols
    file = (MINI / name).read_bytes()
    table = parsed(file).get_section_by_name(".symtab")
    expected = [(one["st_value"], one["st_size"], one.entry["st_name"], one.name) for one in table.iter_symbols()]
    found = [
        (int(row["st_value"]), int(row["st_size"]), int(row["st_name"]), symbols.name(i) if row["st_name"] else "")
        for i, row in enumerate(symbols.rows)
    ]
    assert [one[:3] for one in found] == [one[:3] for one in expected]
    named = [i for i, one in enumerate(expected) if one[2]]
    assert [found[i][3] for i in named] == [expected[i][3] for i in named]


@pytest.mark.parametrize("name", ["vmlinux-pfe2", "vmlinux-callops", "vmlinux-exec"])
def test_file_position_is_not_va_minus_a_constant(name: str) -> None:
    image = open_image(str(MINI / name))
    vas = [symbol((MINI / name).read_bytes(), one) for one in ("vfs_read", "ftrace_init", "__start_mcount_loc")]
    positions = [image.pos_of_va(va) for va in vas]
    assert positions == [pos_of((MINI / name).read_bytes(), va) for va in vas]
    assert len({va - pos for va, pos in zip(vas, positions, strict=True)}) == 3


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("vmlinux-pfe2", "vmlinux"),
        ("vmlinux-notrace", "vmlinux"),
        ("mini.ko", "module"),
        ("pg.o", "object"),
        ("program", "program"),
    ],
)
def test_kind_follows_content(name: str, kind: str) -> None:
    assert open_image(str(MINI / name)).kind == kind


def test_build_id_is_the_notes_content() -> None:
    file = (MINI / "vmlinux-pfe2").read_bytes()
    (note,) = parsed(file).get_section_by_name(".notes").iter_notes()
    assert build_id(open_image(str(MINI / "vmlinux-pfe2"))) == note["n_desc"]


def object_of_many_sections(target: int) -> bytes:
    """65,600 sections; the function f and its one record lie in section `target`."""
    elf = Elf(ET_REL)
    records = elf.section("__patchable_function_entries", bytes(8), flags=ALLOC, align=8)
    for number in range(2, 65_590):
        if number == target:
            elf.section(".text.f", CODE, flags=ALLOC | EXEC, align=4)
        else:
            elf.section(".x")
    elf.section(".rela", rela(0, R_ABS64, 0, 1), type=RELA, info=records, align=8, entsize=24)
    elf.symbol("f", target, 0, 12)
    return elf.build()


@pytest.mark.parametrize(
    "target",
    [
        65_279,
        65_280,
        65_520,
        65_521,
        65_522,
        65_536,
    ],
)
def test_a_function_in_any_of_65600_sections_is_found(target: int, tmp_path: Path) -> None:
    """Indices from SHN_LORESERVE (0xff00) on stand in SHT_SYMTAB_SHNDX; 0xfff1 there is a section, not SHN_ABS. Once it
    was taken for that after SHN_XINDEX had been resolved.
    """
    table = api.scan(written(tmp_path / "many.o", object_of_many_sections(target))).sites
    assert (table.sec.tolist(), table.name(0), table.status.tolist()) == ([target], "f", [0])


def test_xindex_without_its_table_is_refused(tmp_path: Path) -> None:
    elf = Elf(ET_REL)
    sec = elf.section(".text", CODE, flags=ALLOC | EXEC)
    elf.symbol("f", sec, 0, 12)
    file = bytearray(elf.build())
    path = tmp_path / "x.o"
    tab = parsed(bytes(file)).get_section_by_name(".symtab")["sh_offset"]
    file[tab + 24 + 6 : tab + 24 + 8] = struct.pack("<H", 0xFFFF)
    with pytest.raises(ElfError) as caught:
        open_image(written(path, file)).symbols  # noqa: B018
    assert str(caught.value) == (f"{path}: symbols use SHN_XINDEX but there is no SHT_SYMTAB_SHNDX table for them")


def test_sections_in_odd_file_order_are_read_by_their_headers(tmp_path: Path) -> None:
    elf = Elf()
    one = elf.section(".text", CODE, flags=ALLOC | EXEC, addr=TEXT, align=4)
    two = elf.section(".rodata", b"12345678", flags=ALLOC, addr=BASE, align=8)
    elf.section(".init.text", CODE, flags=ALLOC | EXEC, addr=BASE - 0x1000, align=4)
    elf.order = [3, 2, 1]
    elf.symbol("f", one, TEXT, 12)
    image = open_image(written(tmp_path / "v", elf.build()))
    assert image.content(two).tobytes() == b"12345678"
    sec, off = image.place(np.array([TEXT + 4, BASE, BASE - 0x1000, BASE - 1, TEXT + 12], dtype=np.uint64))
    assert (sec.tolist(), off.tolist()) == ([1, 2, 3, -1, -1], [4, 0, 0, 0, 0])
    assert image.pos(sec, off).tolist() == [92, 80, 64, -1, -1]  # 64 + 12, to 8: 80; 80 + 8: 88, + 4


def test_a_large_bss_in_an_object_is_no_overlap(tmp_path: Path) -> None:
    """In ET_REL the sections are laid end to end; a NOBITS section may be larger than the whole file."""
    elf = Elf(ET_REL)
    text = elf.section(".text", CODE, flags=ALLOC | EXEC, align=4)
    elf.section(".bss", type=NOBITS, flags=ALLOC | 1, size=1 << 20)
    records = elf.section("__patchable_function_entries", bytes(8), flags=ALLOC, align=8)
    elf.section(".rela", rela(0, R_ABS64, 0, 1), type=RELA, info=records, align=8, entsize=24)
    elf.symbol("ftrace_caller", text, 0, 12)
    assert api.scan(written(tmp_path / "o.o", elf.build())).sites.name(0) == "ftrace_caller"


def test_sections_that_overlap_in_memory_are_refused(tmp_path: Path) -> None:
    elf = Elf()
    elf.section(".text", CODE, flags=ALLOC | EXEC, addr=TEXT)
    elf.section(".rodata", bytes(8), flags=ALLOC, addr=TEXT + 8)
    image = open_image(written(tmp_path / "v", elf.build()))
    with pytest.raises(ElfError) as caught:
        image.place(np.array([TEXT], dtype=np.uint64))
    assert str(caught.value) == (f"{image.path}: sections overlap in memory: found .text ends behind .rodata's start")


def test_tls_sections_take_no_addresses(tmp_path: Path) -> None:
    elf = Elf()
    elf.section(".text", CODE, flags=ALLOC | EXEC, addr=TEXT)
    elf.section(".tbss", type=NOBITS, flags=ALLOC | 0x400, addr=TEXT + 8, size=64)
    image = open_image(written(tmp_path / "v", elf.build()))
    assert image.place(np.array([TEXT + 8], dtype=np.uint64))[0].tolist() == [1]


def broken(tmp_path: Path, at: int, new: bytes) -> str:
    file = bytearray((MINI / "pfe2.o").read_bytes())
    file[at : at + len(new)] = new
    return written(tmp_path / "b", file)


@pytest.mark.parametrize(
    ("at", "new", "kind", "message"),
    [
        (
            4,
            b"\x01",
            ArchError,
            "{path}: not a 64-bit ELF file: found EI_CLASS 1, expected 2 (ELFCLASS64) – "
            "give the vmlinux of a 64-bit kernel",
        ),
        (
            5,
            b"\x02",
            ArchError,
            "{path}: not a little-endian ELF file: found EI_DATA 2, expected 1 (ELFDATA2LSB) – "
            "give the vmlinux of a little-endian kernel",
        ),
        (
            16,
            b"\x04\x00",
            ElfError,
            "{path}: not a kernel, module, object or program: found e_type 4 (a core or crash dump), expected ET_REL, "
            "ET_EXEC or ET_DYN – give the vmlinux of the kernel that crashed",
        ),
        (
            18,
            b"\x16\x00",
            ArchError,
            "{path}: machine not supported: found e_machine 22 (s390), expected 183 (arm64), 21 (ppc64le), "
            "62 (x86_64) – give a kernel, module or object of one of these",
        ),
        (
            40,
            bytes(8),
            ElfError,
            "{path}: no section headers – give the vmlinux that the build produced, sections kept",
        ),
        (58, b"\x41\x00", ElfError, "{path}: wrong e_shentsize: found 65, expected 64"),
        (62, b"\x01\x00", ElfError, "{path}: e_shstrndx names no string table: found section 1 of {n}"),
        (62, b"\x00\xf0", ElfError, "{path}: e_shstrndx names no string table: found section 61440 of {n}"),
    ],
)
def test_headers_that_are_not_ours_are_refused(
    at: int, new: bytes, kind: type[Exception], message: str, tmp_path: Path
) -> None:
    path = broken(tmp_path, at, new)
    n = struct.unpack_from("<H", (MINI / "pfe2.o").read_bytes(), 60)[0]
    with pytest.raises(kind) as caught:
        api.scan(path)
    assert str(caught.value) == message.format(path=path, n=n)


@pytest.mark.parametrize("size", [4, 15, 16, 63, 64, 100, 1000])
def test_a_truncated_file_is_one_line_and_exit_3(size: int, tmp_path: Path) -> None:
    path = written(tmp_path / "t", (MINI / "pfe2.o").read_bytes()[:size])
    with pytest.raises(InputError) as caught:
        api.scan(path)
    assert caught.value.exit_code == 3
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_section_outside_the_file_is_refused_by_name(tmp_path: Path) -> None:
    elf = Elf()
    elf.section(".text", CODE, flags=ALLOC | EXEC, addr=TEXT, size=1 << 20)
    file = elf.build()
    path = written(tmp_path / "v", file)
    with pytest.raises(ElfError) as caught:
        open_image(path)
    assert str(caught.value) == (
        f"{path}: section .text lies outside the file: found bytes 0x40 + 0x100000, "
        f"expected at most {len(file):#x} – the file is truncated or corrupt"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"",
            "is an empty file: expected an ELF vmlinux, module or object – build or copy it again",
        ),
        (
            b"\x1f\x8b\x08",
            "gzip data ends too early: found 3 bytes – the file is truncated",
        ),
        (
            bytes(56) + b"ARM\x64",
            "the kernel does not tell at which address it is linked: expected relocation tables, or pointers to its "
            "own strings – the file is damaged, or give the vmlinux of the same build",
        ),
        (
            b"hello, world",
            'not an ELF file: found text that begins "hello, world", expected 7f 45 4c 46 – give the '
            "uncompressed ELF vmlinux of the same build (Debian: the -dbg package)",
        ),
    ],
)
def test_what_is_no_elf_file_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "v", content)
    with pytest.raises(InputError) as caught:
        open_image(path)
    assert str(caught.value) == f"{path}: {message}"


def test_text_without_contents_is_a_debug_companion(tmp_path: Path) -> None:
    elf = Elf()
    elf.section(".text", type=NOBITS, flags=ALLOC | EXEC, addr=TEXT, size=64)
    path = written(tmp_path / "v", elf.build())
    with pytest.raises(ElfError) as caught:
        api.scan(path)
    assert str(caught.value) == (
        f"{path}: text without contents: found a debug-only file (NOBITS text), expected code – "
        "use the file that it is the debug companion of"
    )


def test_a_name_is_found_as_the_tail_of_another_string(tmp_path: Path) -> None:
    """Linkers merge tails: `_text` may exist only inside `sys_text`."""
    elf = Elf()
    sec = elf.section(".text", CODE, flags=ALLOC | EXEC, addr=TEXT)
    elf.symbol("sys_text", sec, TEXT, 12)
    elf.symbol("xtext", sec, TEXT + 8, 4)
    file = bytearray(elf.build())
    tab = parsed(bytes(file)).get_section_by_name(".symtab")["sh_offset"]
    file[tab + 48 : tab + 52] = struct.pack("<I", 1 + len("sys"))  # row 2: "_text" inside "sys_text"
    image = open_image(written(tmp_path / "v", file))
    assert (image.symbols.rows_named("_text").tolist(), image.symbols.value("_text")) == ([2], TEXT + 8)


def test_the_file_symbol_in_front_names_a_local_symbols_file(tmp_path: Path) -> None:
    elf = Elf()
    sec = elf.section(".text", CODE, flags=ALLOC | EXEC, addr=TEXT)
    rows = [
        elf.symbol("a.c", 0xFFF1, 0, type=FILE, bind=LOCAL),
        elf.symbol("f", sec, TEXT, 4, bind=LOCAL),
        elf.symbol("b.c", 0xFFF1, 0, type=FILE, bind=LOCAL),
        elf.symbol("f", sec, TEXT + 4, 4, bind=LOCAL),
        elf.symbol("g", sec, TEXT + 8, 4),
    ]
    symbols = open_image(written(tmp_path / "v", elf.build())).symbols
    assert [symbols.file_of(row) for row in rows[1::2]] == ["a.c", "b.c"]
    assert symbols.file_of(rows[4]) is None


def decode_relr(words: list[int]) -> list[int]:
    """The gABI's own pseudo code, word by word."""
    places, base = [], 0
    for word in words:
        if word & 1 == 0:
            places.append(word)
            base = word + 8
        else:
            places += [base + 8 * (bit - 1) for bit in range(1, 64) if word >> bit & 1]
            base += 63 * 8
    return places


@pytest.mark.parametrize(
    "words",
    [
        [0x1000],
        [0x1000, 0b111],
        [0x1000, (1 << 64) - 1, (1 << 64) - 1],
        [0x1000, 1, 0b11, 0x2004, 1 << 63 | 1],
        [BASE, 0b101, BASE + 0x10_0000, (1 << 64) - 1],
    ],
)
def test_relr_unpacks_as_the_specification_does(words: list[int]) -> None:
    found = unpacked(np.array(words, dtype=np.uint64), 0, (1 << 64) - 1, "w")
    assert found.tolist() == decode_relr(words)


def test_relr_that_starts_with_a_bitmap_is_refused() -> None:
    with pytest.raises(ElfError) as caught:
        unpacked(np.array([3], dtype=np.uint64), 0, 1 << 20, "w")
    assert str(caught.value) == "w: RELR table starts with a bitmap: found 0x0000000000000003, expected an address"


@pytest.mark.parametrize(("low", "high"), [(0x1000, 0x1008), (0x1008, 0x1200), (0x11F0, 0x1400), (0, 0x1000)])
def test_relr_of_a_range_is_the_whole_table_cut_to_it(low: int, high: int) -> None:
    words = [0x1000, (1 << 64) - 1, 0b1011]
    expected = [place for place in decode_relr(words) if low <= place < high]
    assert unpacked(np.array(words, dtype=np.uint64), low, high, "w").tolist() == expected


def test_addresses_of_the_kernel_half_sort_above_all_others(tmp_path: Path) -> None:
    image = open_image(written(tmp_path / "v", Kernel([("f", TEXT + 0x200), ("far", TEXT + (1 << 27))]).build()))
    assert image.functions.va.tolist() == sorted(image.functions.va.tolist())
    assert image.functions.inside(np.array([TEXT + 0x200, TEXT + 0x20C, 5], dtype=np.uint64)).tolist() == [
        True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("n", [0, 3, 40])
def test_names_that_are_looked_up_together_have_the_rows_of_each(n: int) -> None:
    """The walk over all symbols, 45 ms of a kernel, is for many names: `check` made it for none."""
    symbols, apart = (open_image(str(MINI / "vmlinux-callops")).symbols for _ in range(2))
    names = [f"absent{number}" for number in range(n - 2)] + ["vfs_read", "ftrace_caller"][:n]
    symbols.look_up(names)
    assert set(symbols._rows_known) == (set(names) if n > 32 else set())
    for name in names:
        assert symbols.rows_named(name).tolist() == apart.rows_named(name).tolist()
