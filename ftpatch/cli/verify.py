"""`ftpatch verify`: two files held against each other, without the code that plans or writes."""

from __future__ import annotations

from dataclasses import dataclass

import click

from ftpatch import api
from ftpatch.cli import Verb
from ftpatch.cli.options import Reports, against, gathered, layout, max_size, options, reports
from ftpatch.cli.usage import Choice
from ftpatch.report import Document
from ftpatch.report.files import check_reports
from ftpatch.report.objects import proof_object

WITH_HELP = "Hold an object that redirect --with linked into AFTER against it; repeatable, in that order."
REQUIRE_HELP = "That a patched site was not executed is a finding; repeatable."


@dataclass(frozen=True)
class VerifyOptions:
    before: str  # the two files
    after: str
    layout: str | None  # of sites, where it is forced
    journal: str | None  # of the run that made `after`
    against: tuple[str, ...]  # what a module will meet
    objects: tuple[str, ...]  # that were linked into a module
    deep: bool
    required: tuple[str, ...]  # what must not be left out
    require_emulation: bool  # part of that, as it was once spelled
    max_size: int | None  # bytes that a packed file may unpack to


@click.command("verify", cls=Verb)
@gathered(VerifyOptions, Reports)
@click.argument("before")
@click.argument("after")
@options(reports, [layout])
@click.option("--journal", metavar="FILE", help="Hold the journal of the run that made AFTER against both files.")
@against
@click.option("--with", "objects", multiple=True, metavar="FILE.o", help=WITH_HELP)
@click.option("--deep", is_flag=True, help="Have lief read a kernel a second time, too; of modules it always does.")
@click.option("--require", "required", multiple=True, type=Choice(["emulation"]), help=REQUIRE_HELP)
@click.option("--require-emulation", is_flag=True, hidden=True, help="--require emulation, as it was once spelled.")
@max_size
def command(given: VerifyOptions, reports: Reports) -> int:
    """Show that AFTER is BEFORE with patch sites enabled, disabled or dropped, and nothing else; exit code 1 if not.

    Both files are read from zero. Every changed byte must belong to an edit of a legal kind, every new call must lead
    where a site may call, and the patched sites are executed in an emulator.
    """
    read = [path for path in (given.before, given.after, given.journal, *given.against, *given.objects) if path]
    check_reports(reports.report, read)
    proof = api.verify(
        given.before, given.after, given.journal, deep=given.deep, layout=given.layout, max_size=given.max_size,
        require_emulation=given.require_emulation or "emulation" in given.required, against=given.against,
        objects=given.objects, watch=reports.watch(what="sites"),
    )  # fmt: skip
    image = proof_object(proof, "json" in reports.formats, given.journal)
    sources = [given.journal] if given.journal else []
    reports.deliver(Document("verify", [image], sources=sources, fail_on="note"))
    return 1 if proof.findings else 0
