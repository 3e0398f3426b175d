"""`ftpatch static-calls`: the static calls of a file, by key and by site; with --set, what they call on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import click

from ftpatch.cli import Verb
from ftpatch.cli.options import OutputOptions, Reports, against, gathered, options, output, reports
from ftpatch.document.files import file_object
from ftpatch.document.static_call_rows import Asked, static_calls_object
from ftpatch.document.text_sections import text_sections
from ftpatch.errors import UsageError
from ftpatch.report import Document, shows_more
from ftpatch.report.files import check_reports
from ftpatch.sites.static_calls import static_calls_of

if TYPE_CHECKING:
    from ftpatch.document.types import ImageObject

MAX_LINE = 4096  # bytes: modules are laid out from the start of a page
KEY_HELP = "Only these keys: name, glob, /regex/ or !SEL, with or without __SCK__ or __SCT__; repeatable, joined."
SITES_HELP = "Add the table of sites, of the chosen keys; CSV lists them instead of the keys."
LINE_HELP = "Bytes of a cache line (default: the machine's usual one)."
SET_HELP = "Let a static call call FUNC (name, name@file.c or 0xVA), NULL or return0, in a new file; repeatable."
FORCE_HELP = "With --set: take a function with other parameters or another result."


def _power_of_two(context: click.Context, option: click.Parameter, value: int | None) -> int | None:
    """The value, if a line can have that size; a usage error otherwise."""
    if value is not None and value & (value - 1):
        raise click.BadParameter(f"{value} is not a power of two.", context, option)
    return value


@dataclass(frozen=True)
class StaticCallsOptions:
    """How static calls are shown."""

    key: tuple[str, ...]  # selectors of keys
    show_sites: bool
    line_size: int | None  # bytes; None: the machine's


@dataclass(frozen=True)
class SetCallsOptions(OutputOptions):
    """How they are set."""

    settings: tuple[str, ...]  # KEY=FUNC, each
    force_signature: bool
    against: tuple[str, ...]  # what a module will meet

    def require_none(self) -> None:
        """Refuse what only --set needs. Raises UsageError."""
        given = {"-o": self.output, "--in-place": self.in_place, "--dry-run": self.dry_run, "--sign": self.sign,
                 "--skip-unpatchable": self.skip_unpatchable, "--force-signature": self.force_signature,
                 "--signature": self.signature != "strip"}  # fmt: skip
        if names := [name for name, value in given.items() if value]:
            raise UsageError(f"{names[0]} is for --set", expected="--set KEY=FUNC, or no such option")


@click.command("static-calls", cls=Verb)
@gathered(StaticCallsOptions, SetCallsOptions, Reports)
@click.argument("file", default="vmlinux", metavar="[FILE]")
@click.option("--key", multiple=True, metavar="SEL", help=KEY_HELP)
@click.option("--sites", "show_sites", is_flag=True, help=SITES_HELP)
@click.option("--line-size", type=click.IntRange(8, MAX_LINE), callback=_power_of_two, metavar="N", help=LINE_HELP)
@click.option("--set", "settings", multiple=True, metavar="KEY=FUNC", help=SET_HELP)
@options(reports, output)
@against
@click.option("--force-signature", is_flag=True, help=FORCE_HELP)
def command(given: StaticCallsOptions, change: SetCallsOptions, reports: Reports) -> int:
    """Show the static calls of a kernel, module or object (default: ./vmlinux): each key with its function, trampoline
    and number of sites, and with --sites each site. With --set, let static calls call other functions, all or none.
    """
    if change.settings:
        return _set(given, change, reports)
    change.require_none()
    check_reports(reports.report, [change.file, *change.against])
    document = Document("static-calls", show_sites=given.show_sites, selected=bool(given.key))
    brief = reports.formats == {"text"} and not given.key
    document.images.append(_image(given, change, shows_more(reports.formats), brief))
    reports.deliver(document)
    return 0


def _image(given: StaticCallsOptions, change: SetCallsOptions, hashed: bool, brief: bool) -> ImageObject:
    """The IMAGE object of the file, which has no sites of the tracer."""
    table = static_calls_of(change.file, change.max_size)
    chosen = None
    if given.key:
        from ftpatch.sites.static_choice import choose_keys

        chosen = choose_keys(table, given.key)
    others = tuple(static_calls_of(path, change.max_size) for path in change.against)
    for other in others:
        if other.image.arch is not table.image.arch:
            raise UsageError("--against is for another machine", other.image.path, found=other.image.arch.name,
                             expected=table.image.arch.name)  # fmt: skip
    asked = Asked(chosen, given.line_size, given.show_sites, others, brief)
    made = {
        **file_object(table.image, table.image.sha256 if hashed else None),
        **({"text_sections": text_sections(table.image)} if given.show_sites else {}),
        "static_calls": static_calls_object(table, asked),
    }
    return cast("ImageObject", made)


def _set(given: StaticCallsOptions, change: SetCallsOptions, reports: Reports) -> int:
    """Write the file with the keys set."""
    from ftpatch import api
    from ftpatch.cli.writing import delivery_of
    from ftpatch.plan.static_calls.request import read_settings

    if given.key or given.show_sites or given.line_size:
        raise UsageError("--key, --sites and --line-size show a file, --set changes one",
                         todo="ftpatch static-calls shows the result")  # fmt: skip
    settings = read_settings(change.settings)
    delivery = delivery_of(change, reports, [*(change.sign or ()), *change.against])
    written = api.set_static_calls(
        change.file, delivery, settings, against=change.against, force_signature=change.force_signature,
        skip_unpatchable=change.skip_unpatchable,
    )  # fmt: skip
    reports.to_stdout(written.document)
    return 0
