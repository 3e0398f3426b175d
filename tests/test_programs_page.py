"""What docs/programs.md says, held to what the program does."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ftpatch.cli import run

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "programs.md").read_text()
PADS = ROOT / "testdata" / "programs" / "pads"


def test_every_option_of_the_page_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    texts = ""
    for verb in ("enable", "disable", "scan", "check", "verify"):
        assert run([verb, "--help"]) == 0
        texts += capsys.readouterr().out
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE))
    assert {"--hook", "--arm", "--disarm", "--unrecorded"} <= options
    assert options <= set(re.findall(r"--[a-z][a-z-]+", texts))


def test_the_pad_is_the_code_that_the_page_shows(ftpatch: Callable[..., str], tmp_path: Path) -> None:
    """All four lines where the target returns as functions do, three where it brings x30 back itself."""
    for target, n_lines in (("plain", 4), ("trampoline", 3)):
        out = tmp_path / target
        ftpatch("enable", PADS / "arm64-pie", "--func", "numbers", "--target", target, "-o", out)
        text = ftpatch("explain", "numbers", out)
        code = re.findall(r"^ +[0-9a-f]{16}  [0-9a-f]{8}  (\w+ \S+)", text, re.MULTILINE)
        pad = [line for line in re.findall(r"^ {8}(\w+ +\S+)", PAGE, re.MULTILINE) if not line.startswith("b    pad")]
        pad = [" ".join(line.split()) for line in pad if n_lines == 4 or "x30," not in line]
        assert [line.split()[0] for line in code[:n_lines]] == [line.split()[0] for line in pad[:n_lines]]
