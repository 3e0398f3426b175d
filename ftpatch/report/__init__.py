"""Reports: one format per file, all of them views of the same `Document`. Nothing here decides anything."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ftpatch.errors import UsageError

FORMATS = ("text", "json", "csv", "sarif", "junit", "ktap", "markdown", "github")  # each a module of this package


class Rule(Protocol):
    """What a report shows of a rule; the linter's own rules are such."""

    @property
    def id(self) -> str: ...

    @property
    def severity(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def help(self) -> str: ...

    @property
    def source(self) -> str: ...


@dataclass
class Document:
    """What a command has to say: JSON's top level as a value.

    show_sites: without it, text is a summary, and JSON leaves out the sites of a tree's modules. selected: only some
    sites were asked for. rules: those that a check went by, whether they found something or not. fail_on: the least
    severity that fails a check, for the formats that tell passed from failed. exit_code: what the process will end
    with, where that does not follow from these. splats: messages of a kernel.
    """

    command: str
    images: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    trees: list[dict[str, Any]] = field(default_factory=list)
    splats: list[dict[str, Any]] = field(default_factory=list)
    show_sites: bool = False
    selected: bool = False
    colored: bool = False
    rules: Sequence[Rule] = ()
    fail_on: str = "error"
    exit_code: int | None = None


def renderer(name: str) -> Callable[[Document], Iterator[str]]:
    """The function of one format: document → pieces of text."""
    if name not in FORMATS:
        raise UsageError("no such report format", name, expected=", ".join(FORMATS))
    render: Callable[[Document], Iterator[str]] = importlib.import_module(f"ftpatch.report.formats.{name}").render
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
