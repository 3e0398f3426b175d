"""Reports: one format per file, all of them views of the same `Document`. Nothing here decides anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ftpatch.errors import UsageError

SCHEMA = 1
FORMATS = ("text", "json", "csv")


@dataclass
class Document:
    """What a command has to say: JSON's top level as a value.

    show_sites: without it, text is a summary, and JSON leaves out the sites of a tree's modules. selected: only some
    sites were asked for.
    """

    command: str
    images: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    trees: list[dict[str, Any]] = field(default_factory=list)
    show_sites: bool = False
    selected: bool = False
    colored: bool = False


def renderer(name: str) -> Callable[[Document], Iterator[str]]:
    """The function of one format: document → pieces of text."""
    if name == "json":
        from ftpatch.report.json import render
    elif name == "csv":
        from ftpatch.report.csv import render
    elif name == "text":
        from ftpatch.report.text import render
    else:
        raise UsageError("no such report format", name, expected=", ".join(FORMATS))
    return render


def destinations(reports: tuple[str, ...]) -> list[tuple[str, str]]:
    """(format, file) of every --report FORMAT=FILE."""
    pairs = []
    for text in reports:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise UsageError("--report takes FORMAT=FILE", text, todo="for example --report json=journal.json")
        renderer(name)
        pairs.append((name, path))
    return pairs
