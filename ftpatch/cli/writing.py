"""What the verbs that write share, as one decorator: options, the way to a file, its journal and its report."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING

import click

from ftpatch.cli.options import (
    F,
    gathered,
    layout,
    max_size,
    note,
    options,
    reports,
    selectors,
    to_stdout,
)
from ftpatch.errors import UsageError
from ftpatch.report.files import check_reports

if TYPE_CHECKING:
    from ftpatch.arrays import Mask
    from ftpatch.elf.image import Image
    from ftpatch.plan.plan import Plan
    from ftpatch.sites.choice import Choose
    from ftpatch.sites.scan import Scan


output = [
    click.option("-o", "--output", metavar="OUT", help="Write the result here (default: FILE.patched)."),
    click.option("--in-place", is_flag=True, help="Replace FILE itself, and write the journal FILE.ftpatch.json."),
    click.option("--dry-run", is_flag=True, help="Do everything but write."),
    click.option(
        "--signature", default="strip", type=click.Choice(["strip", "refuse"]), show_default=True,
        help="What becomes of an appended signature, which any change makes void.",
    ),
    click.option("--sign", nargs=2, metavar="KEY CERT", help="Sign the result as the kernel's sign-file does (PEM)."),
    max_size,
    click.option(
        "--skip-unpatchable", is_flag=True, help="Leave out chosen sites that cannot be changed, instead of refusing."
    ),
]  # fmt: skip


@dataclass(frozen=True)
class WritingOptions:
    """The options that every writing verb has."""

    file: str
    func: tuple[str, ...]  # selectors, as are the next two
    status: tuple[str, ...]
    section: tuple[str, ...]
    format_: str  # of stdout
    report: tuple[str, ...]  # FORMAT=FILE, each
    color: str
    layout: str | None  # of sites, where it is forced
    output: str | None
    in_place: bool
    dry_run: bool
    signature: str  # strip or refuse one that is there
    sign: tuple[str, str] | None  # key and certificate for a new one
    max_size: int | None  # bytes that a packed file may unpack to
    skip_unpatchable: bool


def writing_verb(
    verb: str, choose: Callable[..., Choose] | None = None, records: tuple[str, ...] = ()
) -> Callable[[Callable[..., Plan]], click.Command]:
    """A decorator that makes a command of a function from scan, chosen sites and options to a plan.

    The function has the parameters `scan`, `chosen` and `shared` (WritingOptions), and one for each option of its own.
    choose: from `shared` and these to the choice, before any file is read; by the selectors alone where it is None.
    records: the values of --records, where the verb has that option.
    """

    def command_of(decide: Callable[..., Plan]) -> click.Command:
        @click.command(verb)
        @click.argument("file", default="vmlinux", metavar="[FILE]")
        @options(selectors, reports, [layout], output, _records(records))
        @gathered("shared", WritingOptions)
        @wraps(decide)
        def command(shared: WritingOptions, **given: object) -> int:
            chosen_by = (choose or by_options)(shared, **given)
            return _run(verb, shared, chosen_by, lambda scan, chosen: decide(scan, chosen, shared, **given))

        return command

    return command_of


def _records(ways: tuple[str, ...]) -> list[Callable[[F], F]]:
    """The option --records, where the verb knows any ways."""
    option = click.option("--records", default="auto", type=click.Choice(ways), show_default=True,
                          help="How records leave the kernel's table.")  # fmt: skip
    return [option] if ways else []


def by_options(shared: WritingOptions, **given: object) -> Choose:
    """The choice that the selectors of the command line make."""
    from ftpatch import api

    return api.by_selectors(shared.func, shared.status, shared.section)


@dataclass(frozen=True)
class _Destinations:
    """Where the results of a run go."""

    out: str  # the patched file
    report: tuple[str, ...]  # FORMAT=FILE, each, with the journal of --in-place
    journal: str  # of --in-place, where no --report json=FILE takes its place; "" otherwise
    formats: frozenset[str]  # of all reports, that on stdout included


def _destinations(shared: WritingOptions) -> _Destinations:
    """Where the results go. Raises UsageError where one would replace another file of this run."""
    from ftpatch.report import destinations
    from ftpatch.write import paths

    if shared.in_place and shared.output:
        raise UsageError("--in-place and -o exclude each other")
    formats, report, journal = {name for name, _ in destinations(shared.report)}, shared.report, ""
    if shared.in_place and "json" not in formats:
        journal = f"{shared.file}.ftpatch.json"
        if not shared.dry_run:
            report, formats = (*report, f"json={journal}"), {*formats, "json"}
    out = shared.file if shared.in_place else shared.output or f"{shared.file}.patched"
    check_reports(report, (shared.file, out))
    if not shared.in_place:
        paths.output_path(shared.file, out)
    return _Destinations(out, report, journal, frozenset((shared.format_, *formats)))


def _run(verb: str, shared: WritingOptions, choose: Choose, decide: Callable[[Scan, Mask], Plan]) -> int:
    """One writing command from its options to its exit code."""
    from ftpatch import api
    from ftpatch.report.text.patch import N_SHOWN

    to = _destinations(shared)
    delivery = api.Delivery(
        None if shared.dry_run else to.out, to.report, shared.layout, shared.max_size, shared.signature, shared.sign,
        # text names a few sites only, and no edits
        shown=N_SHOWN if to.formats == {"text"} else None, hashed="json" in to.formats,
        read=lambda scan: _require_unused(to.journal, scan.image) if to.journal else None,
    )  # fmt: skip
    written = api.patch(verb, shared.file, choose, decide, delivery, api.Watch(note))
    to_stdout(written.document, shared.format_, shared.color)
    return 0


def _require_unused(journal: str, image: Image) -> None:
    """Refuse to replace the journal of an earlier patch: it alone can undo that.

    One whose patch was never made, because a run was killed before, names the file as it is, and gives way. Raises
    UsageError for a journal in use, and what `read_journal` raises for a file of that name that is none.
    """
    from ftpatch.journal.read import read_journal

    if os.path.lexists(journal) and read_journal(journal).sha256 != image.sha256:
        raise UsageError("there is a journal of an earlier patch", journal, todo="--report json=FILE names another one")
