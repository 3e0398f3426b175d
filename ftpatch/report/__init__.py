"""Reports: one format per file, all of them views of the same `Document`. Nothing here decides anything.

A format is a function from a document to pieces of text. It asks what the document holds, and never which verb made
it. One that is not of this package is added with `add_format`; every verb then takes it by its name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ftpatch.errors import UsageError
from ftpatch.near_names import did_you_mean

if TYPE_CHECKING:
    from ftpatch.document.explained import SplatRow
    from ftpatch.document.types import ErrorRow, ImageObject, TreeObject
    from ftpatch.rules import Rule

FORMATS = (
    "text",
    "json",
    "csv",
    "sarif",
    "junit",
    "ktap",
    "markdown",
    "github",
    "html",
)  # each a module of report.formats
BRIEF = ("text", "csv")  # formats that show no checksum, which costs a reading of the whole file


WIDTH = 113  # characters of a line of text that goes to no terminal


class Kind(NamedTuple):
    """What the documents of one verb are about."""

    text: str  # the module of report.text that writes it for people
    checks: bool = False  # whether it looks for findings, so that a file passes or fails
    table: str = "sites"  # the rows of an image that CSV lists: `sites`, `findings`, `symbols` …
    changes: bool = False  # whether the sites have the columns of a patch


PATCH = Kind("patch", changes=True)
KINDS = {
    "scan": Kind("scan"), "check": Kind("check", checks=True, table="findings"),
    "verify": Kind("verify", checks=True, table="findings"), "diff": Kind("diff", checks=True, changes=True),
    "explain": Kind("explain", changes=True), "enable": PATCH, "disable": PATCH, "drop": PATCH,
    "redirect": PATCH, "static-calls": Kind("static_calls", table="static_calls"),
    "record": Kind("record", table="recorded"), "symbols": Kind("symbols", table="symbols"),
}  # fmt: skip


@dataclass
class Document:
    """What a command has to say: JSON's top level as a value."""

    command: str  # the verb, as reports name it
    images: list[ImageObject] = field(default_factory=list)
    errors: list[ErrorRow] = field(default_factory=list)  # files that could not be read
    trees: list[TreeObject] = field(default_factory=list)
    splats: list[SplatRow] = field(default_factory=list)  # messages of a kernel
    sources: list[str] = field(
        default_factory=list
    )  # files besides the images of which it holds pieces: logs, journals
    show_sites: bool = False  # without it, text is a summary, and JSON leaves out the sites of a tree's modules
    selected: bool = False  # whether only some sites were asked for
    colored: bool = False
    width: int = WIDTH  # characters of a line of text, where it can be cut
    fitted: bool = False  # whether rows of tables keep to that, too: on a terminal, where nobody reads them by program
    rules: Sequence[Rule] = ()  # those that a check went by, whether they found something or not
    fail_on: str = "error"  # the least severity that fails a check
    exit_code: int | None = None  # what the process will end with, where that does not follow from all this

    @property
    def kind(self) -> Kind:
        return KINDS[self.command]

    def alone(self) -> list[ImageObject]:
        """The files that were named one by one."""
        return [image for image in self.images if "tree" not in image]

    def of_tree(self, top: str) -> tuple[list[ImageObject], list[ErrorRow]]:
        """The modules of one tree, and its files that could not be read."""
        images = [image for image in self.images if image.get("tree") == top]
        return images, [error for error in self.errors if error.get("tree") == top]


Render = Callable[[Document], Iterator[str]]
_added: dict[str, Render] = {}


def add_format(name: str, render: Render) -> None:
    """Offer one more format to every verb that has reports."""
    _added[name] = render


def remove_format(name: str) -> None:
    """Offer a format no more that was added."""
    del _added[name]


def format_names() -> tuple[str, ...]:
    """The names of all formats, in the order of the help."""
    return (*FORMATS, *_added)


def renderer(name: str) -> Render:
    """The function of one format: document → pieces of text."""
    if name in _added:
        return _added[name]
    if name not in FORMATS:
        names = format_names()
        raise UsageError("no such report format", name, expected=", ".join(names), todo=did_you_mean(name, names))
    render: Render = importlib.import_module(f"ftpatch.report.formats.{name}").render
    return render


def shows_more(names: Iterable[str]) -> bool:
    """Whether one of the formats shows what text leaves out: checksums, and figures that cost something."""
    return bool(set(names) - set(BRIEF))


def destinations(reports: Sequence[str]) -> list[tuple[str, str]]:
    """(format, file) of every --report FORMAT=FILE."""
    pairs = []
    for text in reports:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise UsageError("--report takes FORMAT=FILE", text, todo="for example --report json=journal.json")
        renderer(name)
        pairs.append((name, path))
    return pairs
