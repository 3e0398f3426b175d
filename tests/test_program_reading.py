"""Programs and shared objects as they are read: which layout each way to build one has, and what its records are."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftpatch.cli import run
from ftpatch.explanation import programs
from ftpatch.sites.scan import scan_file
from ftpatch.sites.table import STATUSES

READING = Path(__file__).parent.parent / "testdata" / "programs" / "reading"
FUNCTIONS = ["inner", "outer", "early", "_start"]  # in the order of gcc's list


@pytest.mark.parametrize(
    ("name", "layout", "carrier", "code", "front"),
    [  # code: of `outer`'s site, up to the end of what a call takes; front: bytes from its symbol to there
        ("x86_64-pie", "pfe5", "rela", "9090909090", 4),
        ("x86_64-exec", "pfe5", "word", "9090909090", 4),
        ("x86_64-so", "pfe5", "rela", "9090909090", 4),
        ("x86_64-relr", "pfe5", "relr", "9090909090", 4),
        ("x86_64-both-so", "pfe5", "rela", "9090909090", 4),
        ("x86_64-short", "pfe-short", "rela", "9090", 4),
        ("x86_64-clang3", "pfe-short", "rela", "0f1f", 4),
        ("x86_64-clang5", "nop5", "rela", "0f1f440008", 4),
        ("x86_64-clang6", "nop6", "rela", "660f1f440008", 4),
        ("x86_64-clang7", "nop7", "rela", "0f1f8000020000", 4),
        ("x86_64-clang8", "nop8", "rela", "0f1f840000020000", 4),
        ("x86_64-clang9", "nop9", "rela", "660f1f840000020000", 4),
        ("x86_64-clang10", "nop10", "rela", "2e660f1f840000020000", 4),
        ("x86_64-clang15", "nop15", "rela", "66666666662e660f1f840000020000", 0),
        ("x86_64-fentry-nops", "fentry", "word", "0f1f440000", 4),
        ("x86_64-fentry-records-so", "fentry-got", "rela", "ff15e6110000", 4),
        ("x86_64-mcount-records-so", "mcount-got", "rela", "ff15ea110000", 8),
        ("arm64-pie", "pfe2", "rela", "0xd503201f 0xd503201f", 0),
    ],
)
def test_sites_of_a_program_are_read_from_its_records(
    name: str, layout: str, carrier: str, code: str, front: int
) -> None:
    scan = scan_file(str(READING / name))
    table = scan.sites
    names = [table.name(row) for row in range(len(table))]
    assert (table.shape.name if table.shape else None, scan.records.carrier) == (layout, carrier)
    assert sorted(filter(None, names)) == sorted([*FUNCTIONS, *["resolve"] * (len(names) - 4)])
    assert {STATUSES[state] for state in table.status} == {"ready"}
    outer = names.index("outer")
    assert (" ".join(table.words_text(outer)).removeprefix("0x" if " " not in code else ""),
            int(table.body_va[outer] - table.entry_va[outer])) == (code, front)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "layout", "byte"),
    [("x86_64-fentry-so", "fentry-got", 0xFF), ("x86_64-fentry-relaxed", "fentry-got", 0x67),
     ("x86_64-mcount-so", "mcount-got", 0xFF)],
)  # fmt: skip
def test_calls_through_the_got_are_sites_without_records(name: str, layout: str, byte: int) -> None:
    table = scan_file(str(READING / name)).sites
    assert table.shape is not None and table.shape.name == layout
    assert {table.name(row) for row in range(len(table))} == set(FUNCTIONS)
    assert {STATUSES[state] for state in table.status} == {"unrecorded"}
    file = (READING / name).read_bytes()
    assert [file[pos] for pos in table.pos.tolist()] == [byte] * 4


def test_a_call_through_another_pointer_is_no_site(tmp_path: Path) -> None:
    """The slot that a call goes through tells what it calls: another one is another function's."""
    file = bytearray((READING / "x86_64-fentry-records-so").read_bytes())
    scan = scan_file(str(READING / "x86_64-fentry-records-so"))
    file[int(scan.sites.pos[1]) + 2] ^= 8
    (tmp_path / "other").write_bytes(file)
    states = [STATUSES[state] for state in scan_file(str(tmp_path / "other")).sites.status]
    assert states == ["ready", "unexpected", "ready", "ready"]


def test_functions_with_too_few_nops_are_apart_from_those_that_have_room() -> None:
    table = scan_file(str(READING / "x86_64-mixed")).sites
    states = {table.name(row): STATUSES[table.status[row]] for row in range(len(table))}
    assert table.shape is not None and table.shape.name == "pfe5"
    assert states == {**dict.fromkeys(FUNCTIONS, "ready"), "brief": "unexpected"}


def test_a_stripped_program_has_its_sites_without_names() -> None:
    table = scan_file(str(READING / "x86_64-stripped")).sites
    assert table.shape is not None and table.shape.name == "pfe5"
    assert [table.name(row) for row in range(len(table))] == [None] * 5
    assert {STATUSES[state] for state in table.status} == {"stripped", "unnamed"}


TOO_FEW = "some sites have fewer than the five bytes of NOPs that a call takes: -fpatchable-function-entry=5 is enough"


@pytest.mark.parametrize(
    ("name", "function", "verdict"),
    [
        ("x86_64-pie", "outer", "patchable: a record names its site, which is as the compiler left it"),
        ("arm64-pie", "outer", "patchable: a record names its site, which is as the compiler left it"),
        ("x86_64-fentry-so", "outer",
         "patchable: it calls the profiling function, as gprof wants it (-pg), which needs no record"),
        ("x86_64-mixed", "brief", f"its site is of another layout, pfe-short: {TOO_FEW}"),
        ("x86_64-short", "outer", f"a record names its site, which cannot be enabled: {TOO_FEW}"),
        ("x86_64-stripped", "row:0",
         "patchable, but not by a name: the symbol of its function is stripped"),
        ("x86_64-comdat", "_Z4losti", "not traceable in {path}"),
    ],
)  # fmt: skip
def test_explain_says_of_a_program_what_it_is(
    name: str, function: str, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["explain", function, str(READING / name)])
    told = capsys.readouterr().out.splitlines()
    assert told[0].partition(": ")[2] == verdict.format(path=READING / name)
    assert not any("ftrace bug" in line or "boot" in line for line in told)


def test_every_state_has_a_text_for_programs() -> None:
    assert set(programs.VERDICTS) == set(STATUSES)


@pytest.mark.parametrize(
    ("name", "address", "code"),
    [("x86_64-clang10", "0000000000001334", "2e660f1f840000020000"), ("x86_64-fentry-so", "0000000000000354",
      "ff15a6110000"), ("x86_64-fentry-relaxed", "0000000000000304", "67e8e6ffffff"),
     ("x86_64-short", "0000000000000344", "90")],
)  # fmt: skip
def test_explain_shows_a_site_in_whole_instructions(
    name: str, address: str, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["explain", "outer", str(READING / name)])
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("    0000")]
    assert [address, code] in [row[:2] for row in rows]


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("x86_64-clang5", "x86_64-clang10", ["layout nop5 is nop10 now"]),
        ("x86_64-pie", "x86_64-mixed", ["resolve@reading.c is gone", "live records that are ready: 5 -> 4 (-1)",
                                        "live records that are unexpected: 0 -> 1 (+1)"]),
        ("x86_64-fentry-so", "x86_64-fentry-so", []),
    ],
)  # fmt: skip
def test_diff_tells_what_became_of_a_programs_functions(
    old: str, new: str, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(["diff", str(READING / old), str(READING / new)])
    told = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    assert [line for line in told if line in lines] == lines and len(told) == len(lines)


def test_a_program_without_section_headers_is_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = bytearray((READING / "x86_64-pie").read_bytes())
    file[0x28:0x30], file[0x3C:0x40] = bytes(8), bytes(4)
    (tmp_path / "bare").write_bytes(file)
    assert run(["scan", str(tmp_path / "bare")]) == 3
    assert capsys.readouterr().err == (
        f"ftpatch: {tmp_path / 'bare'}: no section headers – give the program that the build produced, sections kept\n"
    )
