"""Rules about programs and shared objects: each finds its defect, and sound programs have only what is true of them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ftpatch.elf import tables as t
from ftpatch.elf.kind import DT_GNU_PRELINKED, DYN
from ftpatch.rules.register import known_rules, rules_for
from ftpatch.rules.run import Request, check_file
from ftpatch.sites.scan import Scan, scan_file

READING = Path(__file__).parent.parent / "testdata" / "programs" / "reading"
Change = Callable[[Scan, bytearray], None]


def found_in(path: Path) -> list[tuple[str, str]]:
    return [(one.finding.rule, one.finding.message) for one in check_file(Request(known_rules()), str(path)).findings]


def rela_row(scan: Scan, slot: int) -> int:
    """File position of the relocation that fills a slot."""
    return int(scan.image.rela[1][scan.records.rela[slot]])


def put(at: str, slot: int, value: int) -> Change:
    """A slot's relocation with another type (`info`) or value (`addend`), or the slot's word."""

    def change(scan: Scan, file: bytearray) -> None:
        pos = {"word": int(scan.records.slot[slot])}
        if at != "word":
            row = rela_row(scan, slot)
            pos |= {"info": row + 8, "addend": row + 16}
        struct.pack_into("<Q", file, pos[at], value)

    return change


def moved(slot: int, by: int) -> Change:
    """A record that names a place some bytes further on."""
    return lambda scan, file: put("addend", slot, int(scan.records.value[slot]) + by)(scan, file)


def same(slot: int, other: int) -> Change:
    """A record that names what another one does."""
    return lambda scan, file: put("addend", slot, int(scan.records.value[other]))(scan, file)


def all_of(*changes: Change) -> Change:
    def change(scan: Scan, file: bytearray) -> None:
        for each in changes:
            each(scan, file)

    return change


def unrelocated(slot: int) -> Change:
    """A record whose value is in place, and whose relocation is none."""
    return lambda scan, file: all_of(put("info", slot, 0), put("word", slot, int(scan.records.value[slot])))(scan, file)


def prelinked(scan: Scan, file: bytearray) -> None:
    """A dynamic table with the mark of prelink in a row that this file does not need."""
    (row,) = scan.image.phdr[scan.image.phdr["p_type"] == 2]
    start = int(row["p_offset"])
    rows = np.frombuffer(bytes(file[start : start + int(row["p_filesz"])]), DYN)
    pos = start + 16 * int(np.flatnonzero(rows["d_tag"] == 21)[0])  # DT_DEBUG
    struct.pack_into("<Q", file, pos, DT_GNU_PRELINKED)


def code(slot: int, new: bytes) -> Change:
    """Other code at a site."""

    def change(scan: Scan, file: bytearray) -> None:
        pos = int(scan.sites.pos[slot])
        file[pos : pos + len(new)] = new

    return change


def variant(name: str) -> Change:
    """A function with STO_AARCH64_VARIANT_PCS."""

    def change(scan: Scan, file: bytearray) -> None:
        (table,) = scan.image.sections_named(".symtab")
        (row,) = scan.image.symbols.rows_named(name).tolist()
        file[int(scan.image.shdr["sh_offset"][table]) + t.SYM.itemsize * row + 5] |= 0x80

    return change


def size_of_records(size: int) -> Change:
    def change(scan: Scan, file: bytearray) -> None:
        (sec,) = scan.image.sections_named("__patchable_function_entries")
        struct.pack_into("<Q", file, int(scan.image.ehdr["e_shoff"]) + t.SHDR.itemsize * sec + 32, size)

    return change


def nothing(scan: Scan, file: bytearray) -> None:
    """The file as it was built."""


CASES: list[tuple[str, Change, list[tuple[str, str]]]] = [
    ("x86_64-exec", nothing, [
        ("record-order", "1 of 4 records are less than the one in front of them: early"),
        ("startup-site", "2 sites run before main: early, _start"),
    ]),
    ("x86_64-so", nothing, [
        ("record-order", "1 of 4 records are less than the one in front of them: early"),
        ("startup-site", "2 sites run before main: early, _start"),
    ]),
    ("x86_64-relr", nothing, [
        ("record-order", "1 of 4 records are less than the one in front of them: early"),
        ("startup-site", "2 sites run before main: early, _start"),
    ]),
    ("x86_64-clang10", nothing, [
        ("startup-site", "2 sites run before main: early, _start"),
    ]),
    ("x86_64-fentry-records-so", nothing, [
        ("startup-site", "2 sites run before main: early, _start"),
    ]),
    ("x86_64-pie", nothing, [
        ("record-order", "1 of 5 records are less than the one in front of them: early"),
        ("ifunc-resolver", "resolve has a site and is an IFUNC resolver"),
        ("startup-site", "2 sites run before main: early, _start"),
    ]),
    ("arm64-pie", nothing, [
        ("record-order", "1 of 5 records are less than the one in front of them: early"),
        ("ifunc-resolver", "resolve has a site and is an IFUNC resolver"),
        ("startup-site", "2 sites run before main: early, _start"),
    ]),
    ("x86_64-stripped", nothing, [
        ("record-order", "1 of 5 records are less than the one in front of them: .text+0x4"),
        ("program-names", "none of 5 sites has a name: the symbols are stripped"),
        ("ifunc-resolver", ".text+0x64 has a site and is an IFUNC resolver"),
        ("startup-site", "2 sites run before main: .text+0x4, .text+0x84"),
    ]),
    ("x86_64-short", nothing, [
        ("program-layout",
         "4 sites of layout pfe-short: some sites have fewer than the five bytes of NOPs that a call "
         "takes: -fpatchable-function-entry=5 is enough"),
        ("record-order", "1 of 4 records are less than the one in front of them: early"),
        ("startup-site", "2 sites run before main: early, _start"),
    ]),
    ("x86_64-mixed", nothing, [
        ("mixed-sizes", "1 site is of layout pfe-short, the others of pfe5: brief"),
        ("record-order", "1 of 5 records are less than the one in front of them: early"),
        ("startup-site", "2 sites run before main: early, _start"),
    ]),
    ("x86_64-comdat", nothing, [
        ("record-order", "1 of 2 records are less than the one in front of them: _start"),
        ("program-unrecorded", "1 function begins with the NOPs of a site and without a record, 2 have one: _Z4losti"),
        ("startup-site", "1 site runs before main: _start"),
    ]),
    ("x86_64-both-so", nothing, [
        ("record-order", "1 of 4 records are less than the one in front of them: early"),
        ("two-kinds", "4 calls of __fentry__ (-pg) beside pfe5 sites"),
        ("startup-site", "2 sites run before main: early, _start"),
    ]),
    ("x86_64-clang5", unrelocated(0), [
        ("record-unrelocated", "row 0 (0x1334) has no relocation, 3 others have one"),
        ("startup-site", "2 sites run before main: early, _start"),
    ]),
    ("x86_64-clang5", all_of(*map(unrelocated, range(4))), [
        ("record-unrelocated", "none of 4 records has a relocation"),
        ("startup-site", "2 sites run before main: early, _start"),
    ]),
    ("x86_64-clang5", all_of(*map(unrelocated, range(4)), prelinked), [
        ("record-unrelocated", "none of 4 records has a relocation; the file was prelinked"),
        ("startup-site", "2 sites run before main: early, _start"),
    ]),
    ("x86_64-clang5", put("addend", 0, 0), [
        ("record-discarded", "1 of 4 records are 0, the first is row 0"),
        ("program-unrecorded", "1 function begins with the NOPs of a site and without a record, 3 have one: outer"),
        ("startup-site", "2 sites run before main: early, _start"),
    ]),
    ("x86_64-clang5", put("addend", 0, 0x10), [
        ("record-discarded", "row 0 names 0x10, where the file has nothing"),
        ("program-unrecorded", "1 function begins with the NOPs of a site and without a record, 3 have one: outer"),
        ("startup-site", "2 sites run before main: early, _start"),
    ]),
    ("x86_64-clang5", moved(0, 2), [
        ("record-elsewhere", "row 0 names outer+0x6, where no site of it is"),
        ("startup-site", "2 sites run before main: early, _start"),
    ]),
    ("x86_64-clang5", code(0, b"\xcc"), [
        ("record-elsewhere", "row 0 (outer) has cc1f440008, not 0f 1f 44 00 08 or 90 90 90 90 90"),
        ("startup-site", "2 sites run before main: early, _start"),
    ]),
    ("x86_64-clang5", code(0, b"\xe8\0\0\0\0"), [
        ("enabled-sites", "1 of 4 sites are enabled: they call 0x1339"),
        ("startup-site", "2 sites run before main: early, _start"),
    ]),
    ("x86_64-clang5", same(1, 0), [
        ("record-twice", "rows 0 and 1 name the same place 0x1334"),
        ("program-unrecorded", "1 function begins with the NOPs of a site and without a record, 4 have one: inner"),
        ("startup-site", "2 sites run before main: early, _start"),
    ]),
    ("x86_64-clang5", size_of_records(28), [
        ("program-records", "the ends of the record table do not fit: 28 bytes"),
    ]),
    ("arm64-pie", variant("outer"), [
        ("record-order", "1 of 5 records are less than the one in front of them: early"),
        ("ifunc-resolver", "resolve has a site and is an IFUNC resolver"),
        ("variant-calls", "1 site is of a function with a calling convention of its own: outer"),
        ("startup-site", "2 sites run before main: early, _start"),
    ]),
    ("arm64-pie", moved(0, 2), [
        ("record-elsewhere", "row 0 lies at 2 mod 4, between two instructions"),
        ("record-order", "1 of 5 records are less than the one in front of them: early"),
        ("ifunc-resolver", "resolve has a site and is an IFUNC resolver"),
        ("startup-site", "2 sites run before main: early, _start"),
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "expected"), CASES, ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)])
def test_a_program_has_the_findings_that_are_true_of_it(
    name: str, change: Change, expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    file = bytearray((READING / name).read_bytes())
    change(scan_file(str(READING / name)), file)
    (tmp_path / name).write_bytes(file)
    assert found_in(tmp_path / name) == expected


def test_every_rule_about_programs_has_a_case() -> None:
    own = {rule.id for rule in rules_for() if tuple(rule.kinds) == ("program", "shared-object")} - {"profiled-program"}
    assert {rule for _, _, expected in CASES for rule, _ in expected} == own
