"""What explain and diff say of sites in programs, where no kernel ever looks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ftpatch.cli import run

PROGRAMS = Path(__file__).parent.parent / "testdata" / "programs"
READY = "patchable: a record names its site, which is as the compiler left it"
ENABLED = "enabled: its site calls something, as a patch made it"
ARMED = "armed: its pad is filled, its switch is off, so that nothing is called yet"
CASES = [  # a program, a function, how it is patched first, the verdict
    ("small/arm64-pie", "work", [], READY),
    ("small/x86_64-exec", "work", [], READY),
    ("small/arm64-pie", "work", ["enable", "--hook", "hook"], ENABLED),
    ("pads/arm64-pie", "numbers", [], READY),
    ("pads/arm64-pie", "numbers", ["enable", "--arm", "--hook", "hook"], ARMED),
    ("pads/arm64-pie", "numbers", ["enable", "--hook", "hook"], ENABLED),
    ("reading/x86_64-fentry-so", "outer", [],
     "patchable: it calls the profiling function, as gprof wants it (-pg), which needs no record"),
]  # fmt: skip


def patched(ftpatch: Callable[..., str], file: Path, function: str, verb: list[str], out: Path) -> Path:
    if not verb:
        return file
    ftpatch(verb[0], file, "--func", function, *verb[1:], "-o", out)
    return out


@pytest.mark.parametrize(("name", "function", "verb", "verdict"), CASES)
def test_verdict(
    ftpatch: Callable[..., str], tmp_path: Path, name: str, function: str, verb: list[str], verdict: str
) -> None:
    file = patched(ftpatch, PROGRAMS / name, function, verb, tmp_path / "out")
    text = ftpatch("explain", function, file)
    assert text.splitlines()[0] == f"{function}: {verdict}"
    assert "kernel" not in text.replace("is the kernel's", "")


def test_diff_of_an_enabled_program(
    ftpatch: Callable[..., str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before, after = PROGRAMS / "small/arm64-pie", tmp_path / "out"
    patched(ftpatch, before, "work", ["enable", "--hook", "hook"], after)
    assert run(["diff", str(before), str(after)]) == 1
    assert "work is no longer traceable: its site calls something already, as a patch made it (.text+0x" in (
        capsys.readouterr().out
    )
