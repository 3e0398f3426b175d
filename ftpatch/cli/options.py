"""Options that several verbs share, and the way their reports go out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, TypeVar

import click

from ftpatch.cli import complain, emit, say
from ftpatch.report import Document, format_names, renderer
from ftpatch.report.files import check_reports, files_ready

if TYPE_CHECKING:
    from ftpatch.document.types import ErrorRow
    from ftpatch.errors import FtpatchError
    from ftpatch.trees import Watch

F = TypeVar("F", bound=Callable[..., object])
R = TypeVar("R")
BLOCK = 1 << 16  # characters that are written to stdout at once
SELECTOR_HELP = "name, glob, /regex/, !SEL, @file, 0xVA, .section+0xOFF, row:N or name@file.c; repeatable, joined."
STATUS_HELP = "Narrow to a status; repeatable. weak-leftover adds the nameless sites of dead weak functions."
REPORT_HELP = "Also write a report to FILE; repeatable. json=FILE of a writing verb is its journal."


def _known_statuses(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """The values, if each is a status; a usage error otherwise. The list is loaded only where one is given."""
    if values:
        from ftpatch.sites.table import STATUSES

        for value in values:
            click.Choice(STATUSES).convert(value, option, context)
    return values


def _known_format(context: click.Context, option: click.Parameter, value: str) -> str:
    """The value, if it is a format now: more may have been added since this file was read."""
    return str(click.Choice(format_names()).convert(value, option, context))


selectors = [
    click.option("--func", "func", multiple=True, metavar="SEL", help=SELECTOR_HELP),
    click.option("--status", multiple=True, metavar="STATUS", callback=_known_statuses, help=STATUS_HELP),
    click.option("--section", multiple=True, metavar="NAME", help="Narrow to a section; repeatable."),
]
reports = [
    click.option(
        "--format",
        "format_",
        metavar=f"[{'|'.join(format_names())}]",
        callback=_known_format,
        default="text",
        help="What goes to stdout.",
    ),
    click.option("--report", "report", multiple=True, metavar="FORMAT=FILE", help=REPORT_HELP),
    click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="Colour on stdout."),
]
max_size = click.option(
    "--max-size", type=int, metavar="BYTES", help="What a packed file may unpack to (default: 1 GiB)."
)
layout = click.option("--layout", metavar="NAME", help="Take this site layout instead of deciding by evidence.")


def options(*groups: list[Callable[[F], F]]) -> Callable[[F], F]:
    """A decorator that adds whole groups of options, in the order given."""

    def add(function: F) -> F:
        for option in reversed([option for group in groups for option in group]):
            function = option(function)
        return function

    return add


def gathered(name: str, kind: Callable[..., object]) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """A decorator that hands options over as one value: those that are parameters of `kind`, a dataclass.

    It stands above the options: the function has one parameter `name` in place of theirs.
    """
    names = tuple(signature(kind).parameters)

    def gather(function: Callable[..., R]) -> Callable[..., R]:
        @wraps(function)  # click keeps the options in the function's own attributes
        def with_value(*positional: object, **given: object) -> R:
            value = kind(**{key: given.pop(key) for key in names})
            return function(*positional, **given, **{name: value})

        return with_value

    return gather


def to_stdout(document: Document, format_: str, color: str) -> None:
    """The report on stdout, in pieces of some size; nothing else ever goes there."""
    document.colored = color == "always" or (
        color == "auto" and sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    )
    piece = ""
    for text in renderer(format_)(document):
        piece += text
        if len(piece) > BLOCK:  # a report of all sites has 40 MB, and `| head` ends it early
            emit(piece)
            piece = ""
    emit(piece)


def to_files(document: Document, report: tuple[str, ...]) -> None:
    """Every --report FORMAT=FILE, each written whole or not at all."""
    with files_ready(document, report, note):
        pass


def failed(document: Document, path: str, error: FtpatchError, tree: str | None = None) -> int:
    """Add a file that cannot be read to the document, and say so; its exit code."""
    complain(error)
    row: ErrorRow = {"file": path, "code": error.exit_code, "message": str(error)}
    if tree is not None:
        row["tree"] = tree
    document.errors.append(row)
    return error.exit_code


def watch(report: tuple[str, ...]) -> Watch:
    """A command line that listens: remarks on stderr, a bar on a terminal, no report that replaces a module."""
    from ftpatch.trees import Watch

    return Watch(note, lambda files: check_reports(report, files), _bar)


@contextmanager
def _bar(n: int) -> Iterator[Callable[[int], object]]:
    """A function that moves a bar on a terminal's stderr by so many files; without a terminal it does nothing."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda done: None
        return
    with click.progressbar(length=n, label="modules", show_pos=True, file=sys.stderr) as bar:
        yield bar.update


def note(text: str) -> None:
    """A remark on stderr."""
    say(f"ftpatch: {text}")
