"""How many there are of each name, on one line of text: an object of C++, or one that was compiled with
-ffunction-sections, has a section for each function, and a scan of it was one line of 9,000 characters."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from elfwriter import ALLOC, ET_REL, EXEC, NOP, RELA, RET, Elf, as_code, rela

from ftpatch.cli import run
from ftpatch.report.text.lines import counts_line

MANY = {f".text._ZN6ftpatch{n}fooEv": 1 for n in range(131)}


@pytest.mark.parametrize(
    ("counts", "width", "text"),
    [
        ({".text": 42046, ".init.text": 1965}, 80, ".text 42046, .init.text 1965"),
        ({".text.a": 1, ".text.b": 2}, 80, ".text.a 1, .text.b 2"),  # few are named
        ({".text": 3, **MANY}, 80, ".text 3, .text.* 131"),
        ({**MANY, ".text": 3, ".init.text": 1}, 80, ".text.* 131, .text 3, .init.text 1"),
        ({f".init.text.f{n}": 2 for n in range(40)} | MANY, 80, ".init.text.* 80, .text.* 131"),
        ({f".text.unlikely.f{n}": 1 for n in range(40)} | MANY, 80, ".text.unlikely.* 40, .text.* 131"),
        ({f".t{n}": n for n in range(1, 40)}, 51, ".t39 39, .t38 38, .t37 37, and 36 more"),
        ({f"s{n}" * 100: 1 for n in range(3)}, 60, "s0s0s0s0s0s0s0s0s0s0s0… 1, and 2 more"),
        ({".text." + "x" * 5000: 7}, 60, ".text.xxxxxxxxxxxxxxxx… 7"),
        ({".a\x1b\u202e": 1}, 80, r".a\x1b\u202e 1"),
        ({".text": 1, ".data": 1}, 5, ".… 1, and 1 more"),  # no width for anything
    ],
)
def test_names_of_one_beginning_are_put_together_and_the_rest_is_cut(
    counts: dict[str, int], width: int, text: str
) -> None:
    assert counts_line("sections", counts, width) == f"  sections   {text}\n"


def object_of(n: int) -> bytes:
    """A relocatable file with a section, and a section of records, for each function."""
    elf, machine_abs64 = Elf(ET_REL), 257
    tables = []
    for number in range(1, n + 1):
        code = as_code((NOP, NOP, RET))
        text = elf.section(f".text._ZNSt6vectorI{number}E9push_backEv", code, flags=ALLOC | EXEC, align=4)
        elf.symbol(f"_ZNSt6vectorI{number}E9push_backEv", text, 0, 12)
        pfe = elf.section("__patchable_function_entries", bytes(8), flags=ALLOC | 1 | 0x80, link=text, align=8)
        row = rela(0, machine_abs64, 0, number)
        tables.append(elf.section(".rela__patchable_function_entries", row, type=RELA, info=pfe, align=8, entsize=24))
    symtab = len(elf.sections)
    for table in tables:
        elf.sections[table].link = symtab
    return elf.build()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_of_a_scan_is_wider_than_the_terminal(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for name in ("a.o", "b.o"):
        (tmp_path / name).write_bytes(object_of(131))
    assert run(["scan", str(tmp_path / "a.o")]) == 0
    out = capsys.readouterr().out
    assert "  sections   .text.* 131\n" in out
    assert [line for line in out.split("\n") if re.match("  (sections|status) ", line) and len(line) > width] == []


def test_a_tree_is_cut_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.ko").write_bytes(object_of(131))
    assert run(["scan", str(tmp_path)]) == 0
    assert "  sections   .text.* 131\n" in capsys.readouterr().out
