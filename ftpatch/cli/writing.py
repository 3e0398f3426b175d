"""What the verbs that write have in common: their options, the way to a file, its journal and its report."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from ftpatch.cli.options import check_reports, files_ready, max_size, note, to_files, to_stdout
from ftpatch.errors import UsageError
from ftpatch.sites.scan import scan_file

if TYPE_CHECKING:
    from ftpatch.arrays import Mask
    from ftpatch.elf.image import Image
    from ftpatch.plan.plan import Plan
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


def records_option(*ways: str) -> list[Callable[[Any], Any]]:
    """--records with the ways that the verb knows."""
    option = click.option("--records", "way", default="auto", type=click.Choice(ways), show_default=True,
                          help="How records leave the kernel's table.")  # fmt: skip
    return [option]


def chosen_by(
    func: tuple[str, ...], status: tuple[str, ...], section: tuple[str, ...]
) -> Callable[[Scan], tuple[Mask, tuple[str, ...]]]:
    """A function from a scanned file to the sites that the selectors choose. Raises UsageError where there are none."""
    if not (func or status or section):
        raise UsageError("nothing is chosen", todo="--func NAME chooses functions, --func '*' all of them")

    def choose(scan: Scan) -> tuple[Mask, tuple[str, ...]]:
        from ftpatch.sites import select

        selection = select.select(scan.sites, func, status, section, named=True)
        return selection.mask, selection.notes

    return choose


def run(
    verb: str, file: str, options: dict[str, Any], choose: Callable[[Scan], tuple[Mask, tuple[str, ...]]],
    decide: Callable[[Scan, Mask], Plan],
) -> int:  # fmt: skip
    """One writing command from its options to its exit code.

    options: those of `output`, of reports, and `layout`; choose: the chosen sites of a scanned file and what to say of
    the choice; decide: the plan for them.
    """
    from ftpatch.journal.write import plan_object
    from ftpatch.report import Document, destinations
    from ftpatch.report.text.patch import N_SHOWN
    from ftpatch.write import deliver, paths

    report, in_place, dry_run = options["report"], options["in_place"], options["dry_run"]
    if in_place and options["output"]:
        raise UsageError("--in-place and -o exclude each other")
    formats = {name for name, _ in destinations(report)}
    journal = ""
    if in_place and "json" not in formats:
        journal = f"{file}.ftpatch.json"
        report, formats = (report, formats) if dry_run else ((*report, f"json={journal}"), {*formats, "json"})
    out = file if in_place else options["output"] or f"{file}.patched"
    check_reports(report, (file, out))
    if not in_place:
        paths.output_path(file, out)

    scan = scan_file(file, options["layout"], options["max_size"])
    if journal:
        _require_unused(journal, scan.image)
    packing, told = deliver.packing_for(scan.image, out, options["signature"], options["sign"])
    chosen, said = choose(scan)
    for text in said:
        note(text)
    made = decide(scan, chosen)
    made = replace(made, notes=(*made.notes, *told))
    for text in made.warnings:
        note(f"warning: {text}")

    document = Document(verb)
    hashed = "json" in {options["format_"], *formats}
    shown = N_SHOWN if {options["format_"], *formats} == {"text"} else None
    if dry_run:
        document.images.append(plan_object(made, None, scan.image.sha256 if hashed else None, shown))
        to_files(document, report)
    else:

        def reports(written: deliver.Output, sha256: str | None) -> AbstractContextManager[None]:
            document.images.append(plan_object(made, written, sha256, shown))
            return files_ready(document, report)

        deliver.write_result(made, out, hashed, reports, packing, note)
    to_stdout(document, options["format_"], options["color"])
    return 0


def _require_unused(journal: str, image: Image) -> None:
    """Refuse to replace the journal of an earlier patch: it alone can undo that.

    One whose patch was never made, because a run was killed before, names the file as it is, and gives way. Raises
    UsageError for a journal in use, and what `read_journal` raises for a file of that name that is none.
    """
    from ftpatch.journal.read import read_journal

    if os.path.lexists(journal) and read_journal(journal).sha256 != image.sha256:
        raise UsageError("there is a journal of an earlier patch", journal, todo="--report json=FILE names another one")
