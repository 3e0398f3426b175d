"""The README says what the code does: its support table is the registers', its commands and verbs exist."""

from __future__ import annotations

import re
from pathlib import Path

from ftpatch.arch import architectures, support_table
from ftpatch.cli import VERBS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_support_table_is_what_the_registers_say() -> None:
    lines = README.splitlines()
    start = lines.index(support_table()[0])
    end = next(i for i in range(start, len(lines)) if not lines[i].startswith("|"))
    assert lines[start:end] == support_table()


def test_the_table_names_every_layout_of_every_machine_once() -> None:
    expected = [(arch.name, shape.name) for arch in architectures() for shape in arch.shapes]
    rows = re.findall(r"^\| (\w+) \| (`[^|]+) \|", README, re.MULTILINE)
    assert [(arch, name) for arch, names in rows for name in re.findall(r"`([\w-]+)`", names)] == expected
    assert len(set(expected)) == len(expected)


def test_a_layout_that_is_refused_says_why() -> None:
    for arch in architectures():
        for shape in arch.shapes:
            assert (f"| {arch.name} | `{shape.name}` | {shape.text} | yes | refused |" in README) == bool(shape.refusal)


def test_every_verb_and_every_make_target_of_the_readme_exists() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE)) <= set(targets)
    assert set(re.findall(r"^\| `([a-z-]+) ", README, re.MULTILINE)) >= set(VERBS)
