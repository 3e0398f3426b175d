"""`ftpatch enable`: turn chosen patch sites into calls, on disk, so that the kernel still boots."""

from __future__ import annotations

import click

from ftpatch.cli.options import check_reports, layout, note, options, reports, selectors, to_files, to_stdout
from ftpatch.errors import UsageError


@click.command("enable")
@click.argument("file", default="vmlinux", metavar="[FILE]")
@options(selectors, reports, [layout])
@click.option("-o", "--output", metavar="OUT", help="Write the result here (default: FILE.patched).")
@click.option("--in-place", is_flag=True, help="Replace FILE itself, and write the journal FILE.ftpatch.json.")
@click.option("--target", default="", metavar="SYMBOL|0xVA", help="What the sites call (default: ftrace_caller).")
@click.option("--force-target", is_flag=True, help="Take a target that was not shown to keep the contract of a site.")
@click.option(
    "--records",
    "way",
    default="auto",
    type=click.Choice(["auto", "null", "minus4", "shrink", "keep"]),
    show_default=True,
    help="How records leave the kernel's table.",
)
@click.option(
    "--ops",
    default="list",
    metavar="list|nop|SYMBOL",
    show_default=True,
    help="The ftrace_ops of the sites, where the kernel has one per site.",
)
@click.option(
    "--ops-via",
    default="auto",
    type=click.Choice(["auto", "literal", "thunk"]),
    show_default=True,
    help="How the sites get their ops.",
)
@click.option(
    "--skip-unpatchable", is_flag=True, help="Leave out chosen sites that cannot be patched, instead of refusing."
)
@click.option("--dry-run", is_flag=True, help="Do everything but write.")
def command(
    file: str, func: tuple[str, ...], status: tuple[str, ...], section: tuple[str, ...], format_: str,
    color: str, report: tuple[str, ...], layout: str | None, output: str | None, in_place: bool, target: str,
    force_target: bool, way: str, ops: str, ops_via: str, skip_unpatchable: bool, dry_run: bool,
) -> int:  # fmt: skip
    """Enable the patch sites that the selectors choose, all of them or none."""
    from ftpatch import api, plan, select
    from ftpatch.report import Document, destinations
    from ftpatch.report.journal import plan_object

    if in_place and output:
        raise UsageError("--in-place and -o exclude each other")
    if not (func or status or section):
        raise UsageError("nothing is chosen", todo="--func NAME chooses functions, --func '*' all of them")
    wanted = {format_, *(name for name, _ in destinations(report))}
    if in_place and "json" not in {name for name, _ in destinations(report)}:
        report = (*report, f"json={file}.ftpatch.json")
        wanted.add("json")

    output = output or f"{file}.patched"
    check_reports(report, (file, output))
    scan = api.scan(file, layout)
    selection = select.select(scan.table, func, status, section)
    for text in selection.notes:
        note(text)
    request = plan.Request(selection.mask, target, force_target, way, ops, ops_via, skip_unpatchable)
    made = plan.make_plan(scan.image, scan.arch, scan.records, scan.table, request)
    for text in made.warnings:
        note(f"warning: {text}")

    document = Document("enable")
    hashed = "json" in wanted
    if dry_run:
        document.images.append(plan_object(scan, made, None, scan.image.sha256 if hashed else None))
        to_files(document, report)
    else:

        def proven(written: api.Output, sha256: str | None) -> None:
            document.images.append(plan_object(scan, made, written, sha256))
            to_files(document, report)

        api.write_enabled(scan, made, output, in_place=in_place, hashed=hashed, before_rename=proven)
    to_stdout(document, format_, color)
    return 0
