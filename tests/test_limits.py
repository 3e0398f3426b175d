"""The page about limits: every number on it is the one in the code."""

from __future__ import annotations

import re
from ast import literal_eval
from importlib import import_module
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs/limits.md"
NUMBERS = PAGE.read_text().partition("\n## What is read at most\n")[2]
UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
ROW = re.compile(
    r"^\| (?P<what>.+) \| (?P<number>-?[\d,.]+) ?(?P<unit>[KMG]iB|) \| `(?P<constant>[\w.]+)` \|$", re.MULTILINE
)
ROWS = [(row["constant"], row["number"], row["unit"]) for row in ROW.finditer(NUMBERS)]


@pytest.mark.parametrize(("constant", "number", "unit"), [pytest.param(*row, id=row[0]) for row in ROWS])
def test_a_limit_of_the_page_is_that_of_the_code(constant: str, number: str, unit: str) -> None:
    module, _, name = constant.rpartition(".")
    assert getattr(import_module(f"ftpatch.{module}"), name) == literal_eval(number.replace(",", "")) * UNITS[unit]


def test_every_row_of_the_page_is_read() -> None:
    lines = [line for line in NUMBERS.splitlines() if line.startswith("|")]
    heads = [line for line in lines if line.startswith(("| what |", "|---"))]
    assert len(ROWS) == len(lines) - len(heads) > 10
    assert len({constant for constant, _, _ in ROWS}) == len(ROWS)
