"""`ftpatch verify`: two files held against each other, without the code that plans or writes."""

from __future__ import annotations

import click

from ftpatch.cli.options import layout, max_size, options, reports, to_files, to_stdout
from ftpatch.report.files import check_reports


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
def command(
    before: str, after: str, format_: str, color: str, report: tuple[str, ...], layout: str | None,
    journal: str | None, deep: bool, required: tuple[str, ...], require_emulation: bool, max_size: int | None,
) -> int:  # fmt: skip
    """Show that AFTER is BEFORE with patch sites enabled, disabled or dropped, and nothing else; exit code 1 if not.

    Both files are read from zero. Every changed byte must belong to an edit of a legal kind, every new call must lead
    where a site may call, and the patched sites are executed in an emulator.
    """
    from ftpatch import api
    from ftpatch.report import Document, destinations
    from ftpatch.report.findings import proof_object

    files = (before, after, *([journal] if journal else []))
    check_reports(report, files)
    proof = api.verify(before, after, journal, layout, max_size, deep, require_emulation or "emulation" in required)
    hashed = "json" in {format_, *(name for name, _ in destinations(report))}
    document = Document("verify", [proof_object(proof, hashed, journal)], fail_on="note")
    to_files(document, report)
    to_stdout(document, format_, color)
    return 1 if proof.findings else 0
