"""The hostile campaign, in short: some of its command lines, and that it sees what breaks a promise."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import promises
from tools.hostile import commands, run, values
from tools.hostile.__main__ import at_random, campaign, every_value

SEED, N = 13, 60


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], str]:
    """A function from a command line in a folder of two files to what is wrong with it."""
    monkeypatch.chdir(tmp_path)
    for name in ("vmlinux", "names"):
        (tmp_path / name).write_text(name)
    return lambda line: run.judged(line, tmp_path, {})


def test_hostile_command_lines_keep_every_promise() -> None:
    lines = [*every_value(), *at_random(SEED, 500)]
    assert campaign(random.Random(SEED).sample(lines, N)) == []


def test_every_sound_line_does_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or is refused for what the fixtures are: else a hostile value would be refused for something else."""
    monkeypatch.setattr(promises, "CODES", {0, 1, 5})
    assert campaign([commands.filled(line, {}) for line in commands.LINES]) == []


def test_the_same_seed_gives_the_same_lines() -> None:
    assert list(at_random(3, 50)) == list(at_random(3, 50)) != list(at_random(4, 50))


def test_every_kind_of_place_has_values() -> None:
    kinds = {commands.kind_of(line[at]) for line in commands.LINES for at in commands.places(line)}
    assert kinds == set(values.BY_KIND)


def crash() -> None:
    os.kill(os.getpid(), 11)


def leave() -> None:
    Path("left").touch()
    print("ftpatch: no", file=sys.stderr)
    os._exit(3)


def change() -> None:
    Path("names").write_text("other")
    os._exit(0)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (crash, "ended by SIGSEGV"),
        (lambda: time.sleep(60), "no end within 0.5 s"),
        (lambda: sys.exit(70), "exit code 70: "),
        (lambda: 1 / 0, "a traceback: ZeroDivisionError"),
        (leave, "exit code 3, and left ['left']"),
        (change, "exit code 0, and 'names' is not what it was"),
        (lambda: os._exit(0), ""),
    ],
    ids=["signal", "hang", "bug", "traceback", "left-over", "changed-input", "sound"],
)
def test_what_breaks_a_promise_is_told(
    fault: Callable[[], object], said: str, judged: Callable[[list[str]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftpatch.cli.main", fault)
    if said.startswith("no end"):
        monkeypatch.setattr(run, "SECONDS", 0.5)
    assert judged(["scan", "vmlinux"])[: len(said) or None] == said


@pytest.mark.parametrize(
    ("code", "out", "err", "said"),
    [
        (0, "all well\n", "", ""),
        (3, "", "ftpatch: x: no\n", ""),
        (3, "", "ftpatch: x: no\nftpatch: y: no\n", "2 lines for a refusal"),
        (3, "", "", "0 lines for a refusal"),
        (5, "", "  a: no\n  b: no\nftpatch: 2 of 2\n", ""),
        (2, "", "Usage: ftpatch\nTry 'ftpatch -h' for help.\n\nError: no\n", "a foreign line on stderr"),
        (0, "a\x1b[31mb\n", "", "text is not printable"),
        (3, "", "ftpatch: a\x1b[31mb\n", "stderr is not printable"),
        (0, "", "x.py:3: FutureWarning: set\n", "a foreign line on stderr"),
        (139, "", "", "exit code 139"),
    ],
)
def test_promises(code: int, out: str, err: str, said: str) -> None:
    assert promises.broken(code, out, err)[: len(said) or None] == said


def test_json_is_held_against_the_schema() -> None:
    assert promises.broken(0, '{"schema": 2}', "", "json").startswith("JSON is not of the schema")
    assert promises.broken(0, "{", "", "json").startswith("stdout is no JSON")


@pytest.mark.parametrize(("formats", "said"), [("json sarif", ""), ("sarif json", "JSON is not of the schema")])
def test_the_last_of_two_formats_counts(
    formats: str, said: str, judged: Callable[[list[str]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--format json --format sarif` gives SARIF, which is not of our schema."""
    monkeypatch.setattr("ftpatch.cli.main", lambda: (print("{}"), sys.exit(0)))
    first, last = formats.split()
    assert judged(["scan", "vmlinux", "--format", first, "--format", last])[: len(said) or None] == said
