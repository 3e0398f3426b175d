"""Regular expressions, globs and long lists of names: what they cost is bounded, whatever is asked of whatever file."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from elfwriter import MINI
from limits import limited

from ftpatch.cli import run
from ftpatch.elf.tables import Symbols
from ftpatch.errors import FtpatchError, SelectionError
from ftpatch.finding import Finding
from ftpatch.rules import gate
from ftpatch.sites import patterns
from ftpatch.sites.patterns import Patterns
from ftpatch.sites.scan import Scan, scan_file
from ftpatch.sites.select import select

Capture = pytest.CaptureFixture[str]
KERNEL = str(MINI / "vmlinux-callops")
SPACE = 200 << 20
SLOW = "the pattern takes too long: expected 0.1 s of processor time"
SIMPLER = " – write it with no repeat inside a repeat, fewer alternatives"
NAMES = ("a" * 4000, "ab" * 2000, "_" * 100 + "x", "vfs_read")


@pytest.fixture(scope="module")
def scan() -> Scan:
    return scan_file(KERNEL)


@pytest.mark.parametrize("pattern", [
    r"^(\w+)+!$", r"(a|a)*b!", r"(?:a|aa)+!$", r"(a*)*!", r"(?:\w+_?)*!", r"^(?:(\w)\w*)+!$", r".*.*.*.*!",
    r"(x+x+)+y|(\w+\w+)+!",
    r"(?=(\w+)+!)", r"(.*)(.*)(.*)\1\2\3!", r"[^!]*[^!]*[^!]*!", r".*?.*?.*?.*?!",
])  # fmt: skip
def test_a_pattern_that_takes_too_long_is_refused_in_time(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--func '/^(\\w+)+!$/'` ran for ever on a kernel of names of forty characters."""
    before = signal.getsignal(signal.SIGPROF)
    monkeypatch.setattr(patterns, "SECONDS", 0.1)
    with limited(10, SPACE), pytest.raises(SelectionError) as caught:
        Patterns().regex(pattern, NAMES)
    assert str(caught.value) == f"/{pattern}/: {SLOW}{SIMPLER}"
    assert signal.getsignal(signal.SIGPROF) == before and signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


@pytest.mark.parametrize("glob", ["*a" * 40 + "!", "*[ab]" * 40 + "!", "?*" * 40 + "!", "*" * 1000 + "!", "*a?*" * 30])
def test_a_glob_needs_no_more_time_than_its_names_are_long(glob: str) -> None:
    with limited(10, SPACE):
        assert "!" not in "".join(Patterns().glob(glob, NAMES))


@pytest.mark.parametrize(("pattern", "line"), [
    ("x" * 4097, f"/{'x' * 39}…: too long for a pattern: found 4097 characters, expected at most 4096 – @file"),
    ("a{100001}", "the pattern repeats too often: found {n} times {n} …, expected at most 100000 together"),
    ("a{1,100001}", "the pattern repeats too often"),
    ("((a{100}){100}){100}", "the pattern repeats too often"),
    ("a{99999999999999999999}", "the pattern repeats too often"),
    ("(", "not a regular expression: found missing ), unterminated subpattern at position 0"),
    ("(" * 2000 + ")" * 2000, "not a regular expression: found "),
    ("*a", "not a regular expression: found nothing to repeat at position 0"),
    ("(?P<a>x)(?P<a>y)", "not a regular expression: found redefinition of group name 'a' as group 2"),
    ("[z-a]", "not a regular expression: found bad character range z-a at position 1"),
    ("\\", "not a regular expression: found bad escape (end of pattern) at position 0"),
])  # fmt: skip
def test_a_pattern_that_is_none_or_too_large_is_refused(pattern: str, line: str) -> None:
    with limited(10, SPACE), pytest.raises(SelectionError) as caught:
        Patterns().regex(pattern, NAMES)
    assert line in str(caught.value)


@pytest.mark.parametrize(("pattern", "found"), [
    ("^vfs_", ["vfs_read"]), ("(?i)VFS", ["vfs_read"]), (r"(?<=vfs_)r", ["vfs_read"]), (r"^(?!a|_)", ["vfs_read"]),
    (r"(_)\1{98}", ["_" * 100 + "x"]), ("x$", ["_" * 100 + "x"]), ("", list(NAMES)), ("{1", []),
    ("a{4000}", [NAMES[0]]),
])  # fmt: skip
def test_a_pattern_has_the_syntax_of_python(pattern: str, found: list[str]) -> None:
    assert Patterns().regex(pattern, NAMES) == found


def test_all_patterns_of_a_selection_have_a_time_together() -> None:
    asked = Patterns(left=0.05)
    with pytest.raises(SelectionError, match="the pattern takes too long"):
        asked.regex(r"(\w+)+!", NAMES)
    assert asked.left < 0.05
    asked.left = 0.0
    with pytest.raises(SelectionError) as caught:
        asked.glob("vfs_*", NAMES)
    assert str(caught.value) == (
        "vfs_*: the patterns take too long: found 10 s of processor time by now – @file takes plain names, which need "
        "no pattern"
    )


def test_a_program_that_selects_in_another_thread_has_no_timer() -> None:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.extend(Patterns(left=0).regex("vfs", NAMES)))
    thread.start()
    thread.join()
    assert found == ["vfs_read"]


def test_the_command_refuses_a_slow_pattern_in_one_line(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of a real kernel are long enough; those of the small one are not."""
    monkeypatch.setattr(patterns, "SECONDS", 0.1)
    monkeypatch.setattr(Symbols, "name", lambda symbols, row: "a" * 40)
    with limited(20):
        assert run(["enable", KERNEL, "--func", r"/^(\w+)+!$/", "-o", str(tmp_path / "out")]) == 5
    assert capsys.readouterr() == ("", f"ftpatch: /^(\\w+)+!$/: {SLOW}{SIMPLER}\n")
    assert not list(tmp_path.iterdir())


# -- many selectors ----------------------------------------------------------------------------------------------------


def every_selector(scan: Scan) -> dict[str, list[str]]:
    """Selectors that choose each site alone, by form."""
    sites = scan.sites
    live = [index for index in range(len(sites)) if sites.sec[index] >= 0]
    return {
        "row:N": [f"row:{sites.row[index]}" for index in live],
        "0xVA": [f"{int(column[index]):#x}" for index in live for column in (sites.va, sites.body_va, sites.branch_va)],
        ".section+0xOFF": [f"{scan.image.names[sites.sec[index]]}+{int(sites.off[index]):#x}" for index in live],
        "name": [name for index in live if (name := sites.name(index))],
    }


@pytest.mark.parametrize("form", ["row:N", "0xVA", ".section+0xOFF", "name"])
def test_selectors_choose_the_same_alone_and_among_many(form: str, scan: Scan) -> None:
    selectors = every_selector(scan)[form]
    alone = [select(scan.sites, [selector]).mask for selector in selectors]
    assert (np.logical_or.reduce(alone) == select(scan.sites, selectors).mask).all()
    assert all(mask.any() for mask in alone)


def test_30000_selectors_are_one_pass(scan: Scan, tmp_path: Path) -> None:
    forms = every_selector(scan)
    lines = [f"fn_{n}" for n in range(20_000)] + [f"0x{n:x}" for n in range(1, 5000)]
    lines += [f"row:{n}" for n in range(5000)]
    (tmp_path / "list").write_text("\n".join([*lines, *forms["name"]]))
    missing: set[str] = set()
    with limited(20):
        mask = select(scan.sites, [f"@{tmp_path / 'list'}"], missing=missing).mask
    assert mask[: len(scan.records)][scan.records.live].all()
    assert len(missing) == 20_000 + 4999 + 5000 - len(scan.records)


def test_a_list_of_too_many_lines_is_refused(scan: Scan, tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"\n" * ((1 << 20) + 1))
    with limited(10, SPACE), pytest.raises(FtpatchError) as caught:
        select(scan.sites, [f"@{tmp_path / 'list'}"])
    assert caught.value.exit_code == 4 and "the list is too long: found more than 1048576 lines" in str(caught.value)


def test_a_list_that_names_itself_is_read_once(scan: Scan, tmp_path: Path) -> None:
    """An @file inside an @file is a name, and no function has it."""
    path = tmp_path / "list"
    path.write_text(f"@{path}\nvfs_read\n")
    with pytest.raises(SelectionError, match=f"@{path}: nothing of that name"):
        select(scan.sites, [f"@{path}"])


def test_a_selector_that_is_given_thousands_of_times_is_asked_once(scan: Scan) -> None:
    with limited(10):
        chosen = select(scan.sites, ["/read/"] * 5000 + ["!*write"] * 5000 + ["vfs_read"] * 5000)
    assert (chosen.mask == select(scan.sites, ["/read/", "!*write", "vfs_read"]).mask).all()


# -- functions that must be traceable, and ignores ---------------------------------------------------------------------


def test_functions_that_must_be_traceable_are_looked_up_together(tmp_path: Path, capsys: Capture) -> None:
    """Each was looked for in the whole symbol table: minutes for a kernel. Here are fewer; it is one pass."""
    names = [f"fn_{n}" for n in range(20_000)]
    config = tmp_path / "c.toml"
    config.write_text("must-be-traceable = [\n" + "".join(f'"{name}",\n' for name in ["vfs_read", *names]) + "]\n")
    with limited(30):
        assert run(["check", KERNEL, "--config", str(config), "--select", "must-trace"]) == 1
    out = capsys.readouterr().out
    assert "error must-trace: 20000 findings" in out and "vfs_read must" not in out
    assert "fn_0: fn_0 must be traceable; there is no such function\n" in out


def test_many_names_are_looked_up_as_each_alone(scan: Scan) -> None:
    symbols = scan.image.symbols
    names = [symbols.name(row) for row in range(len(symbols.rows))]
    fresh = Symbols(symbols.rows, symbols.strtab, symbols.shndx)
    fresh.look_up([*names, "absent", "", "x" * 100_000])
    for name in (*names, "absent"):
        assert fresh.rows_named(name).tolist() == symbols.rows_named(name).tolist()
    assert Counter(map(len, map(fresh.rows_named, names))) == Counter(map(len, map(symbols.rows_named, names)))


def finding(function: str | None, rule: str = "dead-weak") -> Finding:
    return Finding(rule, "error", "text", "vmlinux", function, 0, ".text", 0)


@pytest.mark.parametrize(("ignore", "covered"), [
    ({"function": "a"}, ["a"]), ({"function": "a?"}, ["ab"]), ({"function": "*"}, ["a", "ab"]),
    ({"object": "vmlinux"}, ["a", "ab", None]), ({"object": "vm*"}, ["a", "ab", None]), ({"object": "x.ko"}, []),
    ({"function": "a", "object": "vmlinux"}, ["a"]), ({"function": "a", "object": "x.ko"}, []),
    ({"function": "a", "object": "*"}, ["a"]), ({"function": "[ab]", "object": "vmlinux"}, ["a"]),
    ({"function": ""}, []),
])  # fmt: skip
def test_an_ignore_covers_what_it_names_with_and_without_a_glob(
    ignore: dict[str, str], covered: list[str | None]
) -> None:
    config = gate.Config(ignores=(gate.Ignore("dead-weak", "r", **ignore),))
    assert [name for name in ("a", "ab", None) if config.ignored(finding(name), "vmlinux")] == covered
    assert not config.ignored(finding("a", "duplicate"), "vmlinux")


def test_5000_ignores_are_looked_up_and_too_many_globs_refused() -> None:
    rows = "".join(f'[[ignore]]\nrule = "dead-weak"\nfunction = "f{n}"\nreason = "r"\n' for n in range(5000))
    with limited(20):
        config = gate.parse_config(rows.encode(), "c", ("dead-weak",))
        assert sum(config.ignored(finding(f"f{n}"), "vmlinux") for n in range(0, 10_000, 2)) == 2500
    rows = "".join(f'[[ignore]]\nrule = "dead-weak"\nfunction = "f{n}*"\nreason = "r"\n' for n in range(1001))
    with pytest.raises(FtpatchError) as caught:
        gate.parse_config(rows.encode(), "c", ("dead-weak",))
    assert str(caught.value) == (
        "c: more than is read of ignores: found 1001 with globs, expected at most 1000 – docs/limits.md has all limits"
    )
