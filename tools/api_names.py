"""Writes the list of public names into docs/api.md: python -m tools.api_names.

A test compares the page with what it would write, so that a name or a parameter that goes or changes is seen.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import ftpatch
from ftpatch import api

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
MARK = "<!-- names: made by python -m tools.api_names -->\n"
MADE_BY_CALLERS = ("CheckOptions", "Delivery", "Request", "RestoreRequest", "Watch")
OPTIONS = re.compile(r"Unpack\[(\w+)\]")


def parameters(value: type | object) -> Iterator[str]:
    """The parameters of a function or class as a caller writes them; `=…` where one may be left out."""
    assert callable(value)
    for parameter in inspect.signature(value).parameters.values():
        options = OPTIONS.search(str(parameter.annotation))
        if options:
            yield from (f"{name}=…" for name in getattr(api, options[1]).__annotations__)
        else:
            yield parameter.name + ("" if parameter.default is parameter.empty else "=…")


def sentence(value: object) -> str:
    """The first sentence of a docstring."""
    text = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
    return text.split(". ")[0].rstrip(".").replace("|", r"\|")


def group(name: str) -> str:
    """The heading below which a name stands."""
    value = getattr(ftpatch, name)
    if isinstance(value, type) and issubclass(value, Exception):
        return "Errors"
    if isinstance(value, type):
        return "Values that callers make" if name in MADE_BY_CALLERS else "Values that functions give"
    return "Functions"


def names() -> str:
    """The tables of all public names."""
    tables: dict[str, list[str]] = {"Functions": [], "Values that callers make": [], "Values that functions give": [],
                                    "Errors": []}  # fmt: skip
    for name in ftpatch.__all__:
        if name == "__version__":
            continue
        value, heading = getattr(ftpatch, name), group(name)
        shown = f"({', '.join(parameters(value))})" if heading in ("Functions", "Values that callers make") else ""
        text = f"exit code {value.exit_code}" if heading == "Errors" else sentence(value)
        tables[heading].append(f"| `{name}{shown}` | {text} |\n")
    return "\n".join(f"### {heading}\n\n| name | |\n|---|---|\n{''.join(rows)}" for heading, rows in tables.items())


def page(text: str) -> str:
    """The page with the names of today."""
    return f"{text.split(MARK)[0]}{MARK}\n{names()}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
