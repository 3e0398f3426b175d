"""Functions that are built with NOPs and are not to be traced: their records are where no kernel looks.

LLVM 21 and rustc can record such functions in a section of another name, which the link leaves out. Each of them was
an error: its record was lost, rebuild.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from elfwriter import ALLOC, ET_DYN, ET_REL, EXEC, RELA, Elf, as_code, rela

from ftpatch.cli import run

ARM64, PPC64LE = 183, 21
NOP = {ARM64: 0xD503201F, PPC64LE: 0x60000000}
RET = {ARM64: 0xD65F03C0, PPC64LE: 0x4E800020}
ABS64 = {ARM64: 257, PPC64LE: 38}
RELATIVE = {ARM64: 1027, PPC64LE: 22}
LINK_ORDER = 0x80
TRACED, ELSEWHERE = "__patchable_function_entries", ".discard.pfe_notrace"
Records = Sequence[tuple[str, Sequence[int], int]]  # section, functions by number, more flags


def object_of(n: int, records: Records, machine: int = ARM64, comment: bytes = b"", prefix: int = 0) -> bytes:
    """A relocatable file of n functions that begin with two NOPs, and with some in front of them."""
    elf = Elf(ET_REL, machine)
    size = 4 * (prefix + 4)
    words = [NOP[machine]] * (prefix + 2) + [RET[machine], RET[machine]]
    text = elf.section(".text", as_code(words * n), flags=ALLOC | EXEC, align=8)
    if comment:
        elf.section(".comment", comment)
    for number in range(n):
        elf.symbol(f"f{number}", text, size * number + 4 * prefix, size - 4 * prefix)
    tables = []
    for name, functions, flags in records:
        sec = elf.section(name, bytes(8 * len(functions)), flags=ALLOC | 1 | flags, link=text, align=8)
        rows = b"".join(rela(8 * slot, ABS64[machine], size * f - 0, 1) for slot, f in enumerate(functions))
        tables.append(elf.section(f".rela{name}", rows, type=RELA, info=sec, align=8, entsize=24))
    symtab = len(elf.sections)
    for table in tables:
        elf.sections[table].link = symtab
    return elf.build()


def findings(path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str, str, int]]:
    path.write_bytes(content)
    run(["check", str(path), "--format", "json", "--ignore", "link-order"])
    image = json.loads(capsys.readouterr().out)["images"][0]
    return [(row["severity"], row["rule"], row["message"], row["count"]) for row in image["findings"]]


def elsewhere(n: int) -> list[tuple[str, str, str, int]]:
    text = f"{n} records of functions that are not to be traced: no kernel reads this section"
    return [("note", "recorded-elsewhere", text, n)]


def left_out(n: int, others: int) -> list[tuple[str, str, str, int]]:
    text = f"{n} functions start with the NOPs of a site and have no record, {others} have one"
    return [("note", "recorded-elsewhere", f"{text}: likely not to be traced, their records left out of the link", n)]


def lost(*functions: int) -> list[tuple[str, str, str, int]]:
    text = "starts with the NOPs of a site and has no record"
    return [("error", "nops-without-record", f"f{number} {text}", 1) for number in functions]


GCC, CLANG14, CLANG21 = b"GCC: (Debian 12.2.0) 12.2.0\0", b"clang version 14.0.6\0", b"clang version 21.1.0\0"
RUST = b"rustc version 1.96.0\0"
CASES = [  # name, functions, records, made by, what is right
    ("two-sections", 3, [(TRACED, (0, 2), LINK_ORDER), (ELSEWHERE, (1,), LINK_ORDER)], b"", elsewhere(1)),
    ("any-name", 3, [(TRACED, (0, 2), LINK_ORDER), ("my_entries", (1,), LINK_ORDER)], GCC, elsewhere(1)),
    ("no-link-order", 3, [(TRACED, (0, 2), 0), (ELSEWHERE, (1,), 0)], b"", elsewhere(1)),
    ("nothing-traced", 3, [(ELSEWHERE, (0, 1, 2), LINK_ORDER)], b"", elsewhere(3)),
    ("three-sections", 4, [(TRACED, (0, 3), 128), (ELSEWHERE, (1,), 128), ("bpf_pfe", (2,), 128)], b"",
     elsewhere(1) * 2),
    # a table of pointers is no record of what it names
    ("pointers", 3, [(TRACED, (0, 2), LINK_ORDER), (".data.rel.ro", (1,), 0)], b"", lost(1)),
    ("one-is-lost", 4, [(TRACED, (0, 2), LINK_ORDER), (ELSEWHERE, (1,), LINK_ORDER)], b"", [*lost(3), *elsewhere(1)]),
    # the section is gone
    ("one-among-thousands", 2000, [(TRACED, range(1, 2000), LINK_ORDER)], b"", lost(0)),
    ("many-at-once", 2000, [(TRACED, range(40, 2000), LINK_ORDER)], b"", left_out(40, 1960)),
    ("seven", 400, [(TRACED, range(7, 400), LINK_ORDER)], b"", lost(*range(7))),
    ("eight", 400, [(TRACED, range(8, 400), LINK_ORDER)], b"", left_out(8, 392)),
    ("most", 20, [(TRACED, range(11, 20), LINK_ORDER)], b"", lost(*range(11))),
    ("by-gcc", 3, [(TRACED, (0, 2), LINK_ORDER)], GCC, lost(1)),
    ("by-clang-14", 3, [(TRACED, (0, 2), LINK_ORDER)], CLANG14, lost(1)),
    ("by-clang-21", 3, [(TRACED, (0, 2), LINK_ORDER)], CLANG21, left_out(1, 2)),
    ("by-rustc", 3, [(TRACED, (0, 2), LINK_ORDER)], RUST, left_out(1, 2)),
    ("by-both", 3, [(TRACED, (0, 2), LINK_ORDER)], GCC + CLANG21, lost(1)),
]  # fmt: skip


@pytest.mark.parametrize("machine", [ARM64, PPC64LE])
@pytest.mark.parametrize(("name", "n", "records", "comment", "right"), CASES, ids=[case[0] for case in CASES])
def test_a_function_recorded_elsewhere_is_no_fault(
    name: str, n: int, records: Records, comment: bytes, right: list[tuple[str, str, str, int]], machine: int,
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert findings(tmp_path / "x.o", object_of(n, records, machine, comment), capsys) == right


def test_sites_with_a_pointer_in_front_are_recorded_elsewhere_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = object_of(3, [(TRACED, (0, 2), LINK_ORDER), (ELSEWHERE, (1,), LINK_ORDER)], prefix=2)
    assert findings(tmp_path / "x.o", content, capsys) == elsewhere(1)


def test_scan_and_explain_say_where_the_record_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.o"
    path.write_bytes(object_of(3, [(TRACED, (0, 2), LINK_ORDER), (ELSEWHERE, (1,), LINK_ORDER)]))
    assert run(["scan", str(path)]) == 0
    text = "  elsewhere  .discard.pfe_notrace 1: records that no kernel reads, of functions not to be traced\n"
    assert text in capsys.readouterr().out
    assert run(["scan", str(path), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"][0]["summary"]["elsewhere"] == {ELSEWHERE: 1}
    assert run(["explain", "f1", str(path), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"][0]["absent"]["text"] == (
        "not to be traced: its record is in .discard.pfe_notrace, which no kernel reads; its NOPs are those of a site"
    )


def kernel_of(n: int, recorded: Sequence[int], nulls: int = 0) -> bytes:
    """A kernel of n functions with four NOPs each, two in front, some of them recorded."""
    base = 0xFFFF_8000_8000_0000
    elf = Elf(ET_DYN, ARM64)
    words = [NOP[ARM64]] * 4 + [RET[ARM64]] * 2
    text = elf.section(".text", as_code(words * n), flags=ALLOC | EXEC, addr=base, align=8)
    values = [0] * nulls + [base + 24 * number for number in recorded]
    start = base + 0x100_0000
    data = elf.section(".init.data", struct.pack(f"<{len(values)}Q", *values), flags=ALLOC, addr=start, align=8)
    for number in range(n):
        elf.symbol(f"f{number}", text, base + 24 * number + 8, 16)
    elf.symbol("__start_mcount_loc", data, start, type=0)
    elf.symbol("__stop_mcount_loc", data, start + 8 * len(values), type=0)
    return elf.build()


@pytest.mark.parametrize(
    ("n", "recorded", "nulls", "right"),
    [
        (2000, range(1, 2000), 0, lost(0)),
        (2000, range(40, 2000), 0, left_out(40, 1960)),
        (2000, range(1, 2000), 1, []),  # its record may have been dropped: the slot is there
        (2000, range(2000), 0, []),
    ],
)
def test_in_a_kernel_many_are_meant_and_one_is_lost(
    n: int, recorded: Sequence[int], nulls: int, right: list[tuple[str, str, str, int]], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert findings(tmp_path / "vmlinux", kernel_of(n, recorded, nulls), capsys) == right


def test_the_section_of_the_kernels_own_table_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    """lld keeps the link order of records in the section that the kernel's table is part of."""
    kernel = Path(__file__).parent.parent / "testdata" / "static_calls_arm64" / "vmlinux-rela"
    assert run(["check", str(kernel)]) == 0
    assert capsys.readouterr().out.endswith("  result     nothing found\n")
