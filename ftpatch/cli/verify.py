"""`ftpatch verify`: two files held against each other, without the code that plans or writes."""

from __future__ import annotations

from dataclasses import dataclass

import click

from ftpatch.cli.options import gathered, layout, max_size, options, reports, to_files, to_stdout
from ftpatch.report.files import check_reports


@dataclass(frozen=True)
class VerifyOptions:
    before: str  # the two files
    after: str
    format_: str  # of stdout
    color: str
    report: tuple[str, ...]  # FORMAT=FILE, each
    layout: str | None  # of sites, where it is forced
    journal: str | None  # of the run that made `after`
    deep: bool
    required: tuple[str, ...]  # what must not be left out
    require_emulation: bool  # one of these, as it was once spelled
    max_size: int | None  # bytes that a packed file may unpack to


@click.command("verify")
@click.argument("before")
@click.argument("after")
@options(reports, [layout])
@click.option("--journal", metavar="FILE", help="Hold the journal of the run that made AFTER against both files.")
@click.option("--deep", is_flag=True, help="Have lief read a kernel a second time, too; of modules it always does.")
@click.option(
    "--require",
    "required",
    multiple=True,
    type=click.Choice(["emulation"]),
    help="That a patched site was not executed is a finding; repeatable.",
)
@click.option("--require-emulation", is_flag=True, hidden=True, help="--require emulation, as it was once spelled.")
@max_size
@gathered("given", VerifyOptions)
def command(given: VerifyOptions) -> int:
    """Show that AFTER is BEFORE with patch sites enabled, disabled or dropped, and nothing else; exit code 1 if not.

    Both files are read from zero. Every changed byte must belong to an edit of a legal kind, every new call must lead
    where a site may call, and the patched sites are executed in an emulator.
    """
    from ftpatch import api
    from ftpatch.report import Document, destinations
    from ftpatch.report.findings import proof_object

    files = (given.before, given.after, *([given.journal] if given.journal else []))
    check_reports(given.report, files)
    executed = given.require_emulation or "emulation" in given.required
    proof = api.verify(
        given.before, given.after, given.journal, given.layout, given.max_size, given.deep, executed
    )  # fmt: skip
    hashed = "json" in {given.format_, *(name for name, _ in destinations(given.report))}
    document = Document("verify", [proof_object(proof, hashed, given.journal)], fail_on="note")
    to_files(document, given.report)
    to_stdout(document, given.format_, given.color)
    return 1 if proof.findings else 0
