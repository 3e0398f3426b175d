"""The record table: bounds, values and where they live, and what is refused."""

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
    LOCAL,
    MINI,
    NOP,
    NOTYPE,
    R_ABS64,
    RELA,
    RET,
    SECTION,
    TEXT,
    Elf,
    Kernel,
    as_code,
    edited,
    pos_of,
    rela,
    symbol,
    written,
)

from ftpatch import api
from ftpatch.errors import PolicyError, RecordError
from ftpatch.sites.records import RecordTable

F0, F1 = TEXT + 0x200, TEXT + 0x210
MINUS4 = (1 << 64) - 4


def records(path: str | Path) -> RecordTable:
    return api.scan(str(path)).records


@pytest.mark.parametrize(
    ("name", "carrier"),
    [
        ("vmlinux-pfe2", "rela"),
        ("vmlinux-pfe2-bti", "rela"),
        ("vmlinux-exec", "word"),
        ("vmlinux-pg", "word"),
        ("vmlinux-kcfi", "relr"),
        ("vmlinux-callops", "relr"),
        ("vmlinux-callops-bti", "relr"),
        ("vmlinux-notrace", "none"),
        ("pfe2.o", "section"),
        ("pg.o", "section"),
        ("mini.ko", "section"),
        ("program", "rela"),
    ],
)
def test_values_live_where_the_fixture_keeps_them(name: str, carrier: str) -> None:
    assert records(MINI / name).carrier == carrier


@pytest.mark.parametrize("name", ["vmlinux-pfe2", "vmlinux-callops", "vmlinux-exec"])
def test_slots_lie_between_the_two_symbols(name: str) -> None:
    file = (MINI / name).read_bytes()
    start = symbol(file, "__start_mcount_loc")
    found = records(MINI / name)
    assert found.start == start
    assert found.slot.tolist() == [pos_of(file, start) + 8 * i for i in range(19)]


def test_words_under_relative_relocations_are_zero_in_the_file_and_not_null() -> None:
    found = records(MINI / "vmlinux-pfe2")
    assert not found.word.any()
    assert not found.null.any()


def test_the_zeros_of_a_sorted_table_lead_and_are_null() -> None:
    found = records(MINI / "vmlinux-callops")
    assert found.null.tolist() == [True] * 3 + [False] * 16
    assert found.value[3:].tolist() == sorted(found.value[3:].tolist())


def test_minus_4_without_relocation_is_null(tmp_path: Path) -> None:
    path = written(tmp_path / "v", Kernel([("f0", F0), ("f1", F1)]).build())
    edited(Path(path), tmp_path / "w", {BASE + 0x20_0000: struct.pack("<Q", MINUS4)})
    found = records(tmp_path / "w")
    assert (found.null.tolist(), found.zero.tolist()) == ([True, False], [False, False])


def test_minus_4_that_a_relocation_moves_is_live(tmp_path: Path) -> None:
    file = bytearray(Kernel([("f0", F0), ("f1", F1)], relocatable=True).build())
    at = pos_of(bytes(file), BASE + 0x40_0000)
    file[at + 16 : at + 24] = struct.pack("<q", -4)
    assert records(written(tmp_path / "v", file)).null.tolist() == [False, False]


def test_an_addend_wins_over_the_word(tmp_path: Path) -> None:
    path = written(tmp_path / "v", Kernel([("f0", F0), ("f1", F1)], relocatable=True).build())
    edited(Path(path), tmp_path / "w", {BASE + 0x20_0000: struct.pack("<Q", F1)})
    found = records(tmp_path / "w")
    assert (found.word.tolist(), found.value.tolist(), found.carrier) == ([F1, 0], [F0, F1], "rela")


def test_words_and_addends_side_by_side_are_a_mixed_carrier(tmp_path: Path) -> None:
    path = written(tmp_path / "v", Kernel([("f0", F0), ("f1", F1)], relocatable=True).build())
    edited(Path(path), tmp_path / "w", {BASE + 0x40_0000: bytes(24), BASE + 0x20_0000: struct.pack("<Q", F0)})
    found = records(tmp_path / "w")
    assert (found.value.tolist(), found.carrier) == ([F0, F1], "mixed")


def kernel_with_symbols(start: list[int], stop: list[int]) -> bytes:
    """A vmlinux whose record table is bounded by these symbols; 64 bytes of table at BASE."""
    elf = Elf()
    text = elf.section(".text", as_code([NOP, NOP, RET]), flags=ALLOC | EXEC, addr=TEXT, align=4)
    data = elf.section(".init.data", bytes(64), flags=ALLOC, addr=BASE, align=8)
    elf.section(".init.text", as_code([RET]), flags=ALLOC | EXEC, addr=TEXT + 0x1_0000)
    for name, values in (("__start_mcount_loc", start), ("__stop_mcount_loc", stop)):
        for value in values:
            elf.symbol(name, data, value, type=NOTYPE)
    elf.symbol("f", text, TEXT, 12)
    return elf.build()


@pytest.mark.parametrize(
    ("start", "stop", "message"),
    [
        ([BASE], [], "{path}: only one end of the record table is named: no symbol __stop_mcount_loc"),
        ([], [BASE], "{path}: only one end of the record table is named: no symbol __start_mcount_loc"),
        (
            [BASE, BASE + 8],
            [BASE + 16],
            f"{{path}}: symbol __start_mcount_loc has several values: found {BASE:#x}, {BASE + 8:#x}",
        ),
        (
            [BASE],
            [BASE + 12],
            f"{{path}}: record table {BASE:#x}..{BASE + 12:#x}: the ends of the record table do not fit: "
            "found 12 bytes, expected a positive multiple of 8, aligned",
        ),
        (
            [BASE + 8],
            [BASE],
            f"{{path}}: record table {BASE + 8:#x}..{BASE:#x}: the ends of the record table do not fit: "
            "found -8 bytes, expected a positive multiple of 8, aligned",
        ),
        (
            [BASE],
            [BASE + 72],
            f"{{path}}: record table {BASE:#x}..{BASE + 72:#x}: "
            "the record table does not lie in one section of the file",
        ),
    ],
)
def test_bounds_that_make_no_table_are_refused(start: list[int], stop: list[int], message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "v", kernel_with_symbols(start, stop))
    with pytest.raises(RecordError) as caught:
        api.scan(path)
    assert str(caught.value) == message.format(path=path)


def test_bounds_at_one_address_are_an_empty_table(tmp_path: Path) -> None:
    assert len(records(written(tmp_path / "v", kernel_with_symbols([BASE], [BASE])))) == 0


def test_a_relocation_across_two_slots_is_refused(tmp_path: Path) -> None:
    file = bytearray(Kernel([("f0", F0), ("f1", F1)], relocatable=True).build())
    at = pos_of(bytes(file), BASE + 0x40_0000)
    file[at : at + 8] = struct.pack("<Q", BASE + 0x20_0004)
    path = written(tmp_path / "v", file)
    with pytest.raises(RecordError) as caught:
        api.scan(path)
    assert str(caught.value) == (
        f"{path}: record table {BASE + 0x20_0000:#x}..{BASE + 0x20_0010:#x}: a relocation lies across two slots: "
        f"found {BASE + 0x20_0004:#x}"
    )


def test_a_stripped_vmlinux_is_refused_with_what_to_use_instead(tmp_path: Path) -> None:
    elf = Elf()
    elf.section(".text", as_code([NOP, NOP, RET]), flags=ALLOC | EXEC, addr=TEXT)
    elf.section(".init.text", as_code([RET]), flags=ALLOC | EXEC, addr=TEXT + 0x1000)
    path = written(tmp_path / "v", elf.build())
    with pytest.raises(PolicyError) as caught:
        api.scan(path)
    assert str(caught.value) == (
        f"{path}: no symbol table: found a stripped ELF file, expected .symtab – use the vmlinux of the build tree "
        "or of the debug package (stripping debug info alone is fine)"
    )
    assert caught.value.exit_code == 5


def an_object(*slots: bytes, size: int = 16, shndx: int | None = None) -> Elf:
    """An object of one record section with these relocations, against one symbol: f in .text."""
    elf = Elf(ET_REL)
    text = elf.section(".text", as_code([NOP, NOP, RET] * 2), flags=ALLOC | EXEC, align=4)
    sec = elf.section("__patchable_function_entries", bytes(size), flags=ALLOC | 1, align=8, addr=0x28)
    elf.section(".rela", b"".join(slots), type=RELA, info=sec, link=4, align=8, entsize=24)
    elf.symbol("", text if shndx is None else shndx, 0, type=SECTION, bind=LOCAL)
    elf.symbol("f", text, 0, 12)
    elf.symbol("g", text, 12, 12)
    return elf


def test_a_record_section_with_an_address_of_its_own_is_read_by_offsets(tmp_path: Path) -> None:
    elf = an_object(rela(8, R_ABS64, 0, 1), rela(0, R_ABS64, 12, 1))
    found = records(written(tmp_path / "o.o", elf.build()))
    assert (found.off.tolist(), found.sec.tolist(), found.rela.tolist()) == ([12, 0], [1, 1], [1, 0])


@pytest.mark.parametrize(
    ("elf", "message"),
    [
        (
            an_object(rela(16, R_ABS64, 0, 1)),
            "a record's relocation lies outside the section's slots",
        ),
        (an_object(rela(4, R_ABS64, 0, 1)), "a record's relocation lies outside the section's slots"),
        (
            an_object(rela(0, R_ABS64, 0, 99)),
            "a record's relocation names no symbol of this file: found symbol 99, expected less than 4",
        ),
        (
            an_object(rela(0, R_ABS64, 0, 1), rela(8, R_ABS64, 0, 1), shndx=0),
            "a record names a symbol that is not defined here: found slot 0",
        ),
        (an_object(size=12), "the record section holds no whole number of slots: found 12 bytes"),
    ],
    ids=["behind the slots", "across slots", "no such symbol", "undefined symbol", "half a slot"],
)
def test_records_of_an_object_that_contradict_it_are_refused(elf: Elf, message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "o.o", elf.build())
    with pytest.raises(RecordError) as caught:
        api.scan(path)
    assert str(caught.value) == f"{path}: section 2 __patchable_function_entries: {message}"


def test_rows_of_several_record_sections_follow_the_section_index() -> None:
    found = records(MINI / "clang-sections.o")
    assert found.in_sections
    assert np.all(np.diff(found.slot) > 0)
    assert len(found) == 8
