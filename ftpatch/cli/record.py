"""`ftpatch record`: records of patch sites where a compiler or a linker lost them."""

from __future__ import annotations

from dataclasses import dataclass

import click

from ftpatch import api
from ftpatch.cli import Verb
from ftpatch.cli.options import OutputOptions, Reports, gathered, layout, options, output, reports, selector_files
from ftpatch.cli.writing import delivery_of

FUNC_HELP = "Functions with the NOPs of a site at their entries: name, glob, /regex/, !SEL, @file; repeatable, joined."
FROM_HELP = "Another build of the same object or module, whose functions are recorded here, too."
SECTION_HELP = "The section that takes new records (default: as the file or its sites tell)."
NOP_HELP = "Make NOPs of calls of the profiling function, where kernels of the machine take them."
AGAINST_HELP = "A kernel that will load the file, or a module of it: it tells layout and section; repeatable."


@dataclass(frozen=True)
class RecordOptions(OutputOptions):
    """What is to be recorded, and where."""

    func: tuple[str, ...]
    other: str | None
    section: str | None
    nop: bool
    against: tuple[str, ...]
    layout: str | None


@click.command("record", cls=Verb)
@gathered(RecordOptions, Reports)
@click.argument("file", metavar="FILE")
@click.option("--func", multiple=True, metavar="SEL", help=FUNC_HELP)
@click.option("--from", "other", metavar="FILE", help=FROM_HELP)
@click.option("--section", metavar="NAME", help=SECTION_HELP)
@click.option("--nop", is_flag=True, help=NOP_HELP)
@options(reports, [layout], output)
@click.option("--against", multiple=True, metavar="FILE", help=AGAINST_HELP)
def command(given: RecordOptions, reports: Reports) -> int:
    """Give an object or module the records that a compiler or linker lost: of its calls of the profiling function
    (-pg), of functions that --func names, or of those that another build has; and mend its sections of records."""
    besides = [
        *selector_files(given.func),
        *(given.sign or ()),
        *given.against,
        *([given.other] if given.other else []),
    ]
    delivery = delivery_of(given, reports, besides, given.layout)
    written = api.record(
        given.file, delivery, func=given.func, other=given.other, section=given.section, nop=given.nop,
        against=given.against, skip_unpatchable=given.skip_unpatchable,
    )  # fmt: skip
    reports.to_stdout(written.document)
    return 0
