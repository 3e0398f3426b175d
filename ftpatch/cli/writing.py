"""What the verbs that write share, as one decorator: options, the way to a file, its journal and its report."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import cast

import click

from ftpatch import api
from ftpatch.cli import Verb
from ftpatch.cli.options import (
    F,
    OutputOptions,
    Reports,
    gathered,
    layout,
    note,
    options,
    output,
    reports,
    selector_files,
    selectors,
)
from ftpatch.cli.usage import Choice
from ftpatch.elf.image import Image
from ftpatch.errors import UsageError
from ftpatch.journal.read import read_journal
from ftpatch.plan.plan import Plan
from ftpatch.report import destinations
from ftpatch.report.files import check_reports
from ftpatch.report.text.patch import N_SHOWN
from ftpatch.sites.choice import Choose
from ftpatch.write import paths


@dataclass(frozen=True)
class WritingOptions(OutputOptions):
    """The options that every verb has which patches sites."""

    func: tuple[str, ...]  # selectors, as are the next two
    status: tuple[str, ...]
    section: tuple[str, ...]
    unrecorded: bool  # those alone that no record names
    layout: str | None  # of sites, where it is forced


def writing_verb(
    verb: str, choose: Callable[..., Choose] | None = None
) -> Callable[[Callable[..., Plan]], click.Command]:
    """A decorator that makes a command of a function from scan, chosen sites and options to a plan.

    The function has the parameters `scan`, `chosen` and `shared` (WritingOptions), and one for each option of its own.
    choose: from `shared` and these to the choice, before any file is read; by the selectors alone where it is None.
    """

    def command_of(decide: Callable[..., Plan]) -> click.Command:
        @click.command(verb, cls=Verb)
        @gathered(WritingOptions, Reports)
        @click.argument("file", default="vmlinux", metavar="[FILE]")
        @options(selectors, reports, [layout], output)
        @wraps(decide)
        def command(shared: WritingOptions, reports: Reports, **own: object) -> int:
            delivery = delivery_of(shared, reports, _read_besides(shared, own), shared.layout)
            written = api.patch(
                verb, shared.file, (choose or by_options)(shared, **own),
                lambda scan, chosen: decide(scan, chosen, shared, **own), delivery,
            )  # fmt: skip
            reports.to_stdout(written.document)
            return 0

        return command

    return command_of


def records(*ways: str) -> Callable[[F], F]:
    """The option --records, with the ways that a verb knows."""
    return click.option("--records", default="auto", type=Choice(ways), show_default=True,
                        help="How records leave the kernel's table.")  # fmt: skip


def by_options(shared: WritingOptions, **own: object) -> Choose:
    """The choice that the selectors of the command line make."""
    return api.by_selectors(shared.func, shared.status, shared.section, shared.unrecorded)


def _read_besides(shared: WritingOptions, own: Mapping[str, object]) -> list[str]:
    """The files that the options of a verb name, whichever of them it has: they are read, and must stay."""
    many = [cast("tuple[str, ...]", own.get(option, ())) for option in ("all_but", "map_", "against")]
    code = [cast("str | None", own.get(option)) for option in ("stub_asm", "patch")]
    lists = selector_files((*shared.func, *many[0], *many[1]))
    return [*lists, *(shared.sign or ()), *(path for path in code if path), *many[2]]


def delivery_of(
    shared: OutputOptions, reports: Reports, others: list[str], layout: str | None = None
) -> api.Delivery:  # fmt: skip
    """Where the results go. layout: of sites, where it is forced.

    Raises UsageError where a result would replace another file of this run, such as `others`.
    """
    if shared.in_place and shared.output:
        raise UsageError("--in-place and -o exclude each other", todo="leave one of them out")
    files, formats, journal = reports.report, reports.formats, ""
    if shared.in_place and "json" not in (name for name, _ in destinations(files)):
        journal = f"{shared.file}.ftpatch.json"
        if not shared.dry_run:
            files, formats = (*files, f"json={journal}"), {*formats, "json"}
    out = shared.file if shared.in_place else shared.output or f"{shared.file}.patched"
    check_reports(files, (shared.file, out, *others))
    if not shared.in_place:
        paths.output_path(shared.file, out, others)
    return api.Delivery(
        None if shared.dry_run else out, files, layout, shared.max_size, shared.signature, shared.sign,
        # text names a few sites only, and no edits
        shown=N_SHOWN if formats == {"text"} else None, hashed="json" in formats,
        read=lambda scan: _require_unused(journal, scan.image) if journal else None, watch=api.Watch(note),
    )  # fmt: skip


def _require_unused(journal: str, image: Image) -> None:
    """Refuse to replace the journal of an earlier patch: it alone can undo that.

    One whose patch was never made, because a run was killed before, names the file as it is, and gives way. Raises
    UsageError for a journal in use, and what `read_journal` raises for a file of that name that is none.
    """
    if os.path.lexists(journal) and read_journal(journal).sha256 != image.sha256:
        raise UsageError("there is a journal of an earlier patch", journal, todo="--report json=FILE names another one")
