"""Options that several verbs share, and the way their reports go out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, TypeVar

import click

from ftpatch.cli import complain, emit, say
from ftpatch.cli.pager import show
from ftpatch.cli.progress import progress_of
from ftpatch.cli.terminal import is_colored, is_terminal, size
from ftpatch.cli.usage import Choice
from ftpatch.report import Document, destinations, format_names, renderer
from ftpatch.report.files import blocks, check_reports, files_ready

if TYPE_CHECKING:
    from ftpatch.document.types import ErrorRow
    from ftpatch.errors import FtpatchError
    from ftpatch.trees import Watch

F = TypeVar("F", bound=Callable[..., object])
SELECTOR_HELP = "name, glob, /regex/, !SEL, @file, 0xVA, .section+0xOFF, row:N or name@file.c; repeatable, joined."
STATUS_HELP = "Narrow to a status; repeatable. weak-leftover, stripped and unnamed add sites that have no name."
UNRECORDED_HELP = "Narrow to sites that no record names, such as calls of _mcount; in a kernel or module, take them."
AGAINST_HELP = "Modules: the vmlinux that will load it, and modules whose symbols it may use; repeatable."
MAX_SIZE_HELP = "What a packed file may unpack to (default: 1 GiB)."
JOBS_HELP = "Worker processes for a tree (default: one per processor)."
REPORT_HELP = "Also write a report to FILE; repeatable. json=FILE of a writing verb is its journal."
COLOR_HELP = "Colour on stdout; auto: on a terminal, unless NO_COLOR is set."
PAGER_HELP = "On a terminal, show a long report at once, not through FTPATCH_PAGER, PAGER or less."


def _known_statuses(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """The values, if each is a status; a usage error otherwise. The list is loaded only where one is given."""
    if values:
        from ftpatch.sites.table import STATUSES

        for value in values:
            Choice(STATUSES).convert(value, option, context)
    return values


def _known_format(context: click.Context, option: click.Parameter, value: str) -> str:
    """The value, if it is a format now: more may have been added since this file was read."""
    return str(Choice(format_names()).convert(value, option, context))


selectors = [
    click.option("--func", "func", multiple=True, metavar="SEL", help=SELECTOR_HELP),
    click.option("--status", multiple=True, metavar="STATUS", callback=_known_statuses, help=STATUS_HELP),
    click.option("--section", multiple=True, metavar="NAME", help="Narrow to a section; repeatable."),
    click.option("--unrecorded", is_flag=True, help=UNRECORDED_HELP),
]
reports = [
    click.option("--format", "format_", metavar=f"[{'|'.join(format_names())}]", callback=_known_format, default="text",
                 help="What goes to stdout."),
    click.option("--report", "report", multiple=True, metavar="FORMAT=FILE", help=REPORT_HELP),
    click.option("--color", type=Choice(["auto", "always", "never"]), default="auto", help=COLOR_HELP),
    click.option("--no-pager", is_flag=True, help=PAGER_HELP),
]  # fmt: skip
max_size = click.option("--max-size", type=click.IntRange(1), metavar="BYTES", help=MAX_SIZE_HELP)
layout = click.option("--layout", metavar="NAME", help="Take this site layout instead of deciding by evidence.")
against = click.option("--against", multiple=True, metavar="FILE", help=AGAINST_HELP)
jobs = click.option("--jobs", type=click.IntRange(1, 1024), metavar="N", help=JOBS_HELP)


output = [
    click.option("-o", "--output", metavar="OUT", help="Write the result here (default: FILE.patched)."),
    click.option("--in-place", is_flag=True, help="Replace FILE itself, and write the journal FILE.ftpatch.json."),
    click.option("--dry-run", is_flag=True, help="Do everything but write."),
    click.option("--signature", default="strip", type=Choice(["strip", "refuse"]), show_default=True,
                 help="What becomes of an appended signature, which any change makes void."),
    click.option("--sign", nargs=2, metavar="KEY CERT", help="Sign the result as the kernel's sign-file does (PEM)."),
    max_size,
    click.option("--skip-unpatchable", is_flag=True,
                 help="Leave out chosen sites that cannot be changed, instead of refusing."),
]  # fmt: skip


def options(*groups: list[Callable[[F], F]]) -> Callable[[F], F]:
    """A decorator that adds whole groups of options, in the order given."""

    def add(function: F) -> F:
        for option in reversed([option for group in groups for option in group]):
            function = option(function)
        return function

    return add


def gathered(*kinds: Callable[..., object]) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """A decorator that hands options over as values: for each of `kinds`, dataclasses, those that are its fields.

    It stands above the options; the values are the first parameters of the function, in this order.
    """
    names = [signature(kind).parameters.keys() for kind in kinds]

    def gather(function: Callable[..., int]) -> Callable[..., int]:
        @wraps(function)  # click keeps the options in the function's own attributes
        def with_values(**given: object) -> int:
            values = [
                kind(**{key: given.pop(key) for key in keys & given.keys()})
                for kind, keys in zip(kinds, names, strict=True)
            ]
            return function(*values, **given)

        return with_values

    return gather


@dataclass(frozen=True)
class OutputOptions:
    """The file that a verb reads, and how what it makes of it is written: the options `output`."""

    file: str
    output: str | None
    in_place: bool
    dry_run: bool
    signature: str  # strip or refuse one that is there
    sign: tuple[str, str] | None  # key and certificate for a new one
    max_size: int | None  # bytes that a packed file may unpack to
    skip_unpatchable: bool


@dataclass(frozen=True)
class Reports:
    """Where the report of a run goes, and in which formats."""

    format_: str  # of stdout
    color: str  # on stdout: auto, always, never
    report: tuple[str, ...]  # FORMAT=FILE, each
    no_pager: bool  # on a terminal

    @property
    def formats(self) -> set[str]:
        """The names of all formats."""
        return {self.format_, *(name for name, _ in destinations(self.report))}

    def deliver(self, document: Document) -> None:
        """Write the report to its files, and then to stdout."""
        self.to_files(document)
        self.to_stdout(document)

    def to_files(self, document: Document) -> None:
        """Every --report FORMAT=FILE, each written whole or not at all."""
        with files_ready(document, self.report, note):
            pass

    def to_stdout(self, document: Document) -> None:
        """The report on stdout, in pieces of some size; nothing else ever goes there."""
        document.colored = is_colored(self.color)
        document.width, _ = size()
        document.fitted = is_terminal(sys.stdout)
        show(blocks(renderer(self.format_)(document)), emit, not self.no_pager)

    def watch(self, others: Sequence[str] = (), what: str = "modules") -> Watch:
        """A command line that listens: remarks on stderr, a bar on a terminal, no report that replaces a module.

        others: FORMAT=FILE that are written besides the reports; what: the bar counts.
        """
        from ftpatch.trees import Watch

        return Watch(note, lambda files: check_reports((*self.report, *others), files), progress_of(what))


def selector_files(selectors: Sequence[str]) -> list[str]:
    """The files whose lines are selectors: those of @file and !@file."""
    bodies = [selector.removeprefix("!") for selector in selectors]
    return [body[1:] for body in bodies if body.startswith("@") and body != "@-"]


def failed(document: Document, path: str, error: FtpatchError, tree: str | None = None) -> int:
    """Add a file that cannot be read to the document, and say so; its exit code."""
    complain(error)
    row: ErrorRow = {"file": path, "code": error.exit_code, "message": str(error)}
    if tree is not None:
        row["tree"] = tree
    document.errors.append(row)
    return error.exit_code


def note(text: str) -> None:
    """A remark on stderr."""
    say(f"ftpatch: {text}")
