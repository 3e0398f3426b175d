"""What the generated pages of the reference have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# What mkdocs or GitHub would take for something else: angle brackets for tags, stars and underlines for emphasis.
SPECIAL = re.compile(r"([\\`*_<>|\[\]])")


def generated(title: str, body: str) -> str:
    """A whole page."""
    return f"<!-- Made by `python -m tools.reference`; do not edit. -->\n\n# {title}\n\n{body.strip()}\n"


def sentence(text: str) -> str:
    """A text of the program as Markdown, on one line."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are Markdown, and a bar in one is escaped by who makes it."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def code(text: str) -> str:
    """A piece of code in a cell or line."""
    return f"`{text.replace('|', chr(92) + '|')}`" if text else ""
