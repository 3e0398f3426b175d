"""CONTRIBUTING.md adds a rule, a format and a machine: its blocks are run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "testdata" / "mini" / "vmlinux-callops"
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
BLOCKS = {
    title: re.findall(r"^```python\n(.*?)^```", body, re.MULTILINE | re.DOTALL)
    for title, body in re.findall(r"^## (Add [^\n]+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
}
THEN = {  # what a command then does: (exit code, what its output begins with)
    "Add a rule": (["check", str(FILE), "--select", "long-name", "--format", "csv"], 0, ",long-name,note,"),
    "Add a report format": (["scan", str(FILE), "--format", "short"], 0, "arm64 callops 19\n"),
    "Add a machine": (["scan", str(FILE)], 0, "status     ready 16"),
}


def test_each_of_the_three_is_shown() -> None:
    assert {title: len(blocks) for title, blocks in BLOCKS.items()} == dict.fromkeys(THEN, 1)


@pytest.mark.parametrize("title", THEN)
def test_the_block_does_what_its_heading_says(title: str) -> None:
    arguments, code, text = THEN[title]
    (block,) = BLOCKS[title]
    program = f"{block}\nimport sys\nfrom ftpatch.cli import run\nsys.exit(run({arguments!r}))\n"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (code, "")
    assert text in done.stdout


def test_make_targets_and_files_that_it_names_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`(?:KERNELS=1 )?make ([a-z]+)", TEXT)) <= targets
    named = re.findall(r"`((?:tests|ftpatch|docs)/[a-z_/.]+)`", TEXT)
    assert named and [name for name in named if not (ROOT / name).exists()] == []
