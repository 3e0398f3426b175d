"""What the compiler was told, unit by unit: scan --units, explain, and the rules of check."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ftpatch.cli import run
from ftpatch.elf.compiler_units import CompilerUnits
from ftpatch.recovered.image import open_image
from ftpatch.sites.callers import Callers
from ftpatch.sites.scan import scan_file
from ftpatch.sites.units import UnitTable, why_no_units
from tools import kernels

DATA = Path(__file__).parents[1] / "testdata/told"
Capture = pytest.CaptureFixture[str]
PFE2 = "-fpatchable-function-entry=2 -O2"
PFE42 = "-fpatchable-function-entry=4,2"


def rows(path: Path, capsys: Capture) -> list[tuple[object, ...]]:
    """(name, producer, switches, gives_sites, functions, sites) of each unit, from JSON."""
    assert run(["scan", "--units", "--format", "json", str(path)]) == 0
    units = json.loads(capsys.readouterr().out)["images"][0]["units"]["units"]
    return [
        (row["name"], row["producer"], row["switches"] and " ".join(row["switches"]), row["gives_sites"],
         row["functions"], row["sites"])
        for row in units
    ]  # fmt: skip


SEVERAL = [
    ("with.c", "gcc 12.2.0", f"{PFE42} -O2", True, 3, 2), ("without.c", "gcc 12.2.0", "-O2", False, 2, 0),
    ("small.c", "gcc 12.2.0", f"{PFE42} -Os", True, 1, 1), ("hand.S", "GNU as 2.40", None, False, 1, 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("units4-arm64", SEVERAL),
        ("units5-arm64", SEVERAL),
        ("callops-arm64.o", SEVERAL[:3]),
        ("packed-arm64.o", [("with.c", "gcc 12.2.0", PFE2, True, 3, 2)]),
        ("types-arm64.o", [("relies.c", "gcc 12.2.0", PFE2, True, 12, 12)]),
        ("split4-arm64.o", [("with.dwo", "not known: it is in with.dwo", None, None, 3, 2)]),
        ("split5-arm64.o", [("with.dwo", "not known: it is in with.dwo", None, None, 3, 2)]),
        ("unrecorded-arm64.o", [("with.c", "gcc 12.2.0", None, None, 3, 2)]),
        ("clang-told-arm64.o", [("with.c", "clang 14.0.6", PFE2, True, 3, 2)]),
        ("clang-arm64.o", [("with.c", "clang 14.0.6", None, None, 3, 2)]),
        ("fentry-x86_64.o", [("with.c", "gcc 12.2.0", "-pg -mfentry -O2", True, 3, 3)]),
        # the functions of a whole program are in its own unit, and have the switches of theirs
        ("lto-arm64", [("<artificial>", "gcc 12.2.0", "-O2 -fcf-protection=none", None, 2, 2),
                       ("with.c", "gcc 12.2.0", f"{PFE2} -flto", True, 0, 0),
                       ("without.c", "gcc 12.2.0", f"{PFE2} -flto", True, 0, 0)]),
        ("program-arm64", []),
    ],
)  # fmt: skip
def test_units_are_told(name: str, expected: list[tuple[object, ...]], capsys: Capture) -> None:
    assert rows(DATA / name, capsys) == expected


def test_the_table_remarks_what_is_otherwise(capsys: Capture) -> None:
    assert run(["scan", "--units", str(DATA / "units5-arm64")]) == 0
    assert capsys.readouterr().out.partition("  units ")[2].splitlines() == [
        "     4 (gcc 12.2.0 3, GNU as 2.40 1)",
        f"  told       {PFE42} -O2",
        "functions  sites  unit",
        "        3      2  with.c",
        f"        2      0  without.c  ! without {PFE42}",
        "        1      1  small.c  ! -Os",
        "        1      0  hand.S  ! assembly",
    ]


def test_a_file_without_debug_information_tells_nothing(capsys: Capture) -> None:
    assert run(["scan", "--units", str(DATA / "program-arm64")]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "  units      what the compiler was told is not known: this file has no debug information"


def test_a_tree_has_the_units_of_its_modules(tmp_path: Path, capsys: Capture) -> None:
    shutil.copy(DATA / "callops-arm64.o", tmp_path / "one.ko")
    assert run(["scan", "--units", str(tmp_path)]) == 0
    assert "        2      0  without.c  ! without -fpatchable-function-entry=4,2\n" in capsys.readouterr().out


# -- explain -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "function", "why"),
    [
        ("units5-arm64", "without_one", "its unit without.c (gcc 12.2.0) was built without -fpatchable-function-entry"),
        ("units4-arm64", "without_two", "its unit without.c (gcc 12.2.0) was built without -fpatchable-function-entry"),
        ("units5-arm64", "with_none", "notrace by an attribute, or assembly in its unit with.c (gcc 12.2.0), which was "
         "built with -fpatchable-function-entry: 2 of its 3 functions have sites"),
        ("units5-arm64", "by_hand", "written in assembly, hand.S (GNU as 2.40): no option of the compiler gives it a "
         "site"),
        ("callops-arm64.o", "without_one", "its unit without.c (gcc 12.2.0) was built without "
         "-fpatchable-function-entry"),
        ("unrecorded-arm64.o", "with_none", "compiled without a patch site: notrace, assembly, or a file without the "
         "tracer's flags"),
        ("program-arm64", "more", "compiled without a patch site: notrace, assembly, or a file without the tracer's "
         "flags"),
    ],
)  # fmt: skip
def test_explain_says_why_a_function_has_no_site(name: str, function: str, why: str, capsys: Capture) -> None:
    assert run(["explain", function, str(DATA / name), "--format", "json"]) == 0
    absent = json.loads(capsys.readouterr().out)["images"][0]["absent"]
    assert (absent["text"], absent["symbols"][0]["text"]) == (why, why)


@pytest.mark.parametrize(
    ("name", "function", "told"),
    [
        ("units5-arm64", "without_one", "without.c, gcc 12.2.0: -O2"),
        ("units5-arm64", "by_hand", "hand.S, GNU as 2.40"),
        ("unrecorded-arm64.o", "with_none", "with.c, gcc 12.2.0; not known: what the compiler was told is not "
         "recorded"),
        ("split5-arm64.o", "with_none", "with.dwo; not known: what the compiler was told stands in with.dwo"),
        ("program-arm64", "more", "not known: this file has no debug information"),
    ],
)  # fmt: skip
def test_explain_names_the_unit(name: str, function: str, told: str, capsys: Capture) -> None:
    assert run(["explain", function, str(DATA / name)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  told ")]
    assert lines == [f"  told       {told}"]


# -- check -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rule", "message"),
    [
        ("layouts-arm64", "unit-layout", "small.c was built with -fpatchable-function-entry=4,2, 2 others have "
         "-fpatchable-function-entry=2"),
        ("callops-arm64.o", "unit-alignment", "small.c: sites with a pointer in front, and no switch that aligns "
         "functions to 8 bytes"),
        ("units5-arm64", "unit-without-sites", "1 units in 1 directories were built without "
         "-fpatchable-function-entry, beside others with it: without.c"),
        ("units5-arm64", "unit-layout", None),
        ("units5-arm64", "unit-alignment", None),  # no pointer is in front of a program's site
        ("packed-arm64.o", "unit-without-sites", None),
        ("unrecorded-arm64.o", "unit-without-sites", None),
    ],
)  # fmt: skip
def test_units_that_contradict_the_rest(name: str, rule: str, message: str | None, capsys: Capture) -> None:
    run(["check", "--select", rule, "--format", "json", str(DATA / name)])
    findings = json.loads(capsys.readouterr().out)["images"][0]["findings"]
    assert [finding["message"] for finding in findings] == [message] * (message is not None)


# -- damage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["units4-arm64", "units5-arm64", "clang-told-arm64.o", "split5-arm64.o"])
def test_damaged_debug_information_ends_and_is_not_believed(name: str, tmp_path: Path) -> None:
    """Bytes of its sections are overwritten one after the other: whatever that says, reading it ends with an answer."""
    content = (DATA / name).read_bytes()
    image = open_image(str(DATA / name))
    rng = np.random.default_rng(16)
    places = [(int(image.shdr["sh_offset"][sec]), int(image.shdr["sh_size"][sec]))
              for part in ("info", "abbrev", "aranges", "rnglists", "ranges", "str_offsets")
              for sec in image.sections_named(f".debug_{part}")]  # fmt: skip
    for round_ in range(40):
        damaged = bytearray(content)
        for pos, size in places:
            for at in rng.integers(0, size, 3).tolist():
                damaged[pos + at] = (0xFF, 0x00, 0x80, 0x7F)[round_ % 4]
        (tmp_path / "file").write_bytes(damaged)
        table = UnitTable(scan_file(str(tmp_path / "file")).sites)
        assert len(table.of_functions) == len(table.image.functions.va)
        assert why_no_units(table) or table.units
        assert int(table.n_functions.sum()) <= len(table.image.functions.va)


def test_units_of_types_alone_are_none() -> None:
    units = CompilerUnits(open_image(str(DATA / "types-arm64.o")))
    assert (len(units.units), units.n_unread) == (1, 0)


# -- real kernels ------------------------------------------------------------------------------------------------------


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "option", "without", "by_hand"),
    [
        ("arm64-6.12", "-fpatchable-function-entry", "rb_commit", "memcpy"),
        ("x86_64-6.12", "-pg", "trace_function", "copy_page"),
    ],
)
def test_a_real_kernel_tells_why(
    name: str, option: str, without: str, by_hand: str, kernel: Callable[[str], kernels.Kernel], capsys: Capture
) -> None:
    path = str(kernel(name).vmlinux)
    scan = scan_file(path)
    table = UnitTable(scan.sites)
    assert (table.option, table.n_unread) == (option, 0)
    gives = np.array([table.gives_sites(unit) is True for unit in table.units])
    # no unit that was built without the option has a site, and nearly all sites are in a unit
    assert int(table.n_sites[~gives].sum()) == 0
    assert int(table.n_sites.sum()) > 0.99 * int((scan.sites.sec >= 0).sum())
    assert run(["explain", without, path, "--format", "json"]) == 0
    text = json.loads(capsys.readouterr().out)["images"][0]["absent"]["text"]
    assert text.startswith("its unit kernel/trace/") and text.endswith(f" was built without {option}")
    assert run(["explain", by_hand, path, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"][0]["absent"]["text"].startswith("written in assembly, arch/")
    assert run(["check", "--units", "--select", "unit-layout,unit-alignment,ipa-ra", path]) == 0
    assert "nothing found" in capsys.readouterr().out


@pytest.mark.corpus
def test_no_caller_in_a_real_kernel_counts_on_registers(
    kernel: Callable[[str], kernels.Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the sites do not show that the option was given, and the code alone is asked."""
    monkeypatch.setattr(Callers, "told_off", "")
    monkeypatch.setattr(Callers, "_may_share", lambda callers, function: True)
    sites = scan_file(str(kernel("arm64-6.12").vmlinux)).sites
    assert list(Callers(sites).relied_on(np.arange(0, len(sites), 150))) == []
