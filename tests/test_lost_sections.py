"""Record sections that were lost: of a whole file, and of one unit in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from elfwriter import ALLOC, EXEC, FILE, LOCAL, NOP, R_ABS64, RELA, RET, WRITE, Elf, as_code, rela, written

from ftpatch.cli import run

ABS = 0xFFF1
BODY = 32  # bytes of a function


def module(units: dict[str, int], recorded: dict[str, bool], nops: int = 2) -> bytes:
    """A relocatable file of local functions: source file → how many it has, and whether they have records."""
    elf = Elf(1)
    n = sum(units.values())
    words = [NOP] * nops + [RET] * (BODY // 4 - nops)
    text = elf.section(".text", as_code(words * n), flags=ALLOC | EXEC, align=8)
    at, places = 0, []
    for file, count in units.items():
        elf.symbol(file, ABS, 0, type=FILE, bind=LOCAL)
        for number in range(count):
            row = elf.symbol(f"{file[:-2]}_{number}", text, at, BODY, bind=LOCAL)
            places += [(row, at)] if recorded[file] else []
            at += BODY
    if places:
        table = elf.section("__patchable_function_entries", bytes(8 * len(places)), flags=ALLOC | WRITE | 0x80, align=8,
                            link=text)  # fmt: skip
        rows = b"".join(rela(8 * slot, R_ABS64, 0, row) for slot, (row, _) in enumerate(places))
        elf.section(".rela__patchable_function_entries", rows, type=RELA, info=table, entsize=24, align=8)
    return elf.build()


def findings(path: str, capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str]]:
    run(["check", "--format", "json", "--ignore", "link-order", path])
    image = json.loads(capsys.readouterr().out)["images"][0]
    return [(row["rule"], row["message"]) for row in image["findings"]]


UNIT = "unit-records-missing"
WHOLE = "records-missing"
NONE = "start with the NOPs of a site and none has a record"


@pytest.mark.parametrize(
    ("units", "recorded", "nops", "expected"),
    [
        ({"a.c": 3, "b.c": 3}, "ab", 2, []),
        ({"a.c": 3, "b.c": 12}, "a", 2, [(UNIT, f"b.c: 12 functions {NONE}: b_0, b_1, b_2, …")]),
        ({"a.c": 40, "b.c": 2, "c.c": 2}, "a", 2, [(UNIT, f"b.c: 2 functions {NONE}: b_0, b_1"),
                                                   (UNIT, f"c.c: 2 functions {NONE}: c_0, c_1")]),
        ({"a.c": 4, "b.c": 1}, "a", 2, [
            ("nops-without-record", "b_0 starts with the NOPs of a site and has no record")]),
        ({"a.c": 2, "b.c": 2}, "", 2, [
            (WHOLE, "no record at all, and 4 functions start with the NOPs of a site: a_0, a_1, b_0, … (built from "
                    "a.c, b.c)")]),
        ({"a.c": 3}, "", 0, []),
        ({"a.c": 1}, "", 2, []),  # of assembly, or anything
    ],
)  # fmt: skip
def test_what_lost_its_records_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], units: dict[str, int], recorded: str, nops: int,
    expected: list[tuple[str, str]],
) -> None:  # fmt: skip
    file = module(units, {name: name[0] in recorded for name in units}, nops)
    assert findings(written(tmp_path / "x.o", file), capsys) == expected
