"""The switch of pad-before is one word that may be written while other threads execute it: done in a running program.

Three threads call a function all the time, and a fourth writes the words that `enable` wrote, and those it found, in
turn. The same with a site of two words has to fail, or this would show nothing.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from ftpatch.cli import run

SOURCE = Path(__file__).parent.parent / "testdata" / "programs" / "switch" / "switch.c"
COMPILER = ("aarch64-linux-gnu-gcc", "-O2", "-static")
MACHINE = "qemu-aarch64"
FLIPS = 100_000
SECONDS = 120  # until somebody looks at what hangs


def patched(folder: Path, nops: str) -> tuple[Path, list[str]]:
    """The program with its hook on; the address of the site, and its words before and after, as the report has them."""
    program, journal = folder / "program", folder / "journal"
    subprocess.run([*COMPILER, f"-DNOPS={nops}", str(SOURCE), "-o", str(program)], check=True)
    after = folder / "patched"
    assert run(["enable", str(program), "--func", "work", "--target", "hook", "-o", str(after), "--report",
                f"json={journal}"]) == 0  # fmt: skip
    image = json.loads(journal.read_text())["images"][0]
    edit = next(edit for edit in image["edits"] if edit["owner"] == "site row:0")
    assert edit["pos"] == image["sites"][0]["pos"]
    words = [",".join(bytes.fromhex(text)[at : at + 4][::-1].hex() for at in range(0, len(text) // 2, 4))
             for text in (edit["old"], edit["new"])]  # fmt: skip
    return after, [image["sites"][0]["site"], *words]


def flipped(program: Path, flips: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([MACHINE, str(program), str(flips), *arguments], capture_output=True, text=True,
                          timeout=SECONDS)  # fmt: skip


@pytest.mark.corpus
def test_the_switch_is_flipped_while_threads_are_in_the_function(tmp_path: Path) -> None:
    program, words = patched(tmp_path, "6,5")
    result = flipped(program, FLIPS, *words)
    assert result.returncode == 0, result.stdout + result.stderr
    calls, hooked, wrong = (int(part.split()[0]) for part in result.stdout.split(","))
    assert wrong == 0 and 0 < hooked < calls


@pytest.mark.corpus
def test_two_words_cannot_be_flipped_so(tmp_path: Path) -> None:
    program, words = patched(tmp_path, "2")
    assert flipped(program, 0, *words).returncode == 0  # the hook is on, and sound
    assert flipped(program, FLIPS, *words).returncode != 0
