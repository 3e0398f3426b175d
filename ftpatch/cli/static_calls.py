"""`ftpatch static-calls`: the static calls of a file, by key and by site."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import click

from ftpatch.cli import Verb
from ftpatch.cli.options import Reports, gathered, max_size, options, reports
from ftpatch.document.static_call_rows import Asked, file_object, static_calls_object
from ftpatch.report import Document, shows_more
from ftpatch.report.files import check_reports
from ftpatch.sites.static_calls import static_calls_of

if TYPE_CHECKING:
    from ftpatch.document.types import ImageObject

MAX_LINE = 4096  # bytes: modules are laid out from the start of a page
KEY_HELP = "Only these keys: name, glob, /regex/ or !SEL, with or without __SCK__ or __SCT__; repeatable, joined."
SITES_HELP = "Add the table of sites, of the chosen keys; CSV lists them instead of the keys."
LINE_HELP = "Bytes of a cache line (default: the machine's usual one)."


def _power_of_two(context: click.Context, option: click.Parameter, value: int | None) -> int | None:
    """The value, if a line can have that size; a usage error otherwise."""
    if value is not None and value & (value - 1):
        raise click.BadParameter(f"{value} is not a power of two.", context, option)
    return value


@dataclass(frozen=True)
class StaticCallsOptions:
    file: str
    key: tuple[str, ...]  # selectors of keys
    show_sites: bool
    line_size: int | None  # bytes; None: the machine's
    max_size: int | None  # bytes that a packed file may unpack to


@click.command("static-calls", cls=Verb)
@gathered(StaticCallsOptions, Reports)
@click.argument("file", default="vmlinux", metavar="[FILE]")
@click.option("--key", multiple=True, metavar="SEL", help=KEY_HELP)
@click.option("--sites", "show_sites", is_flag=True, help=SITES_HELP)
@click.option("--line-size", type=click.IntRange(8, MAX_LINE), callback=_power_of_two, metavar="N", help=LINE_HELP)
@options(reports, [max_size])
def command(given: StaticCallsOptions, reports: Reports) -> int:
    """Show the static calls of a kernel, module or object (default: ./vmlinux): each key with its function, trampoline
    and number of sites, and with --sites each site.
    """
    check_reports(reports.report, [given.file])
    document = Document("static-calls", show_sites=given.show_sites, selected=bool(given.key))
    brief = reports.formats == {"text"} and not given.key
    document.images.append(_image(given, shows_more(reports.formats), brief))
    reports.deliver(document)
    return 0


def _image(given: StaticCallsOptions, hashed: bool, brief: bool) -> ImageObject:
    """The IMAGE object of the file, which has no sites of the tracer."""
    table = static_calls_of(given.file, given.max_size)
    chosen = None
    if given.key:
        from ftpatch.sites.static_choice import choose_keys

        chosen = choose_keys(table, given.key)
    asked = Asked(chosen, given.line_size, given.show_sites, brief)
    made = {
        **file_object(table.image, table.image.sha256 if hashed else None),
        "static_calls": static_calls_object(table, asked),
    }
    return cast("ImageObject", made)
