"""`ftpatch enable`: turn chosen patch sites into calls, on disk, so that the kernel still boots."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import replace

import click

from ftpatch.cli.options import (
    check_reports,
    files_ready,
    layout,
    note,
    options,
    reports,
    selectors,
    to_files,
    to_stdout,
)
from ftpatch.errors import UsageError


@click.command("enable")
@click.argument("file", default="vmlinux", metavar="[FILE]")
@options(selectors, reports, [layout])
@click.option("-o", "--output", metavar="OUT", help="Write the result here (default: FILE.patched).")
@click.option("--in-place", is_flag=True, help="Replace FILE itself, and write the journal FILE.ftpatch.json.")
@click.option("--target", default="", metavar="SYMBOL|0xVA", help="What the sites call (default: ftrace_caller).")
@click.option(
    "--hook", default="", metavar="SYMBOL", help="Modules: the sites call this C function as hook(site, caller)."
)
@click.option("--stub-asm", metavar="FILE", help="Modules: the sites call this stub, written in assembly.")
@click.option(
    "--against",
    multiple=True,
    metavar="FILE",
    help="Modules: the vmlinux that will load it, and modules whose symbols it may use; repeatable.",
)
@click.option(
    "--signature",
    default="strip",
    type=click.Choice(["strip", "refuse"]),
    show_default=True,
    help="What becomes of an appended signature, which any change makes void.",
)
@click.option("--sign", nargs=2, metavar="KEY CERT", help="Sign the result as the kernel's sign-file does (RSA, PEM).")
@click.option("--max-size", type=int, metavar="BYTES", help="What a compressed file may unpack to (default: 1 GiB).")
@click.option("--force-target", is_flag=True, help="Take a target that was not shown to keep the contract of a site.")
@click.option("--force-early", is_flag=True, help="Take functions that run before the target can work (ppc64le).")
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
    metavar="list|nop|SYMBOL",
    help="The ftrace_ops of the sites, where the kernel has one per site (default: list).",
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
    hook: str, stub_asm: str | None, against: tuple[str, ...], signature: str, sign: tuple[str, str] | None,
    max_size: int | None, force_target: bool, force_early: bool, way: str, ops: str | None, ops_via: str,
    skip_unpatchable: bool, dry_run: bool,
) -> int:  # fmt: skip
    """Enable the patch sites that the selectors choose, all of them or none."""
    from ftpatch import api, apply, select
    from ftpatch.draft import Request
    from ftpatch.report import Document, destinations
    from ftpatch.report.journal import plan_object
    from ftpatch.report.text import N_SHOWN

    if in_place and output:
        raise UsageError("--in-place and -o exclude each other")
    if not (func or status or section):
        raise UsageError("nothing is chosen", todo="--func NAME chooses functions, --func '*' all of them")
    formats = {name for name, _ in destinations(report)}
    if in_place and "json" not in formats:
        journal = _new_journal(file)
        report, formats = (report, formats) if dry_run else ((*report, f"json={journal}"), {*formats, "json"})
    out = file if in_place else output or f"{file}.patched"
    check_reports(report, (file, out))
    if not in_place:
        apply.output_path(file, out)

    scan = api.scan(file, layout, max_size)
    packing, told = api.packing_for(scan.image, out, signature, sign)
    selection = select.select(scan.table, func, status, section, named=True)
    for text in selection.notes:
        note(text)
    stub = api.read_stub(scan, stub_asm) if stub_asm is not None else None
    request = Request(
        selection.mask, target=target, force_target=force_target, force_early=force_early, records=way, ops=ops,
        ops_via=ops_via, skip_unpatchable=skip_unpatchable, hook=hook, stub=stub,
    )  # fmt: skip
    made = api.make_plan(scan, request, against, max_size)
    made = replace(made, notes=(*made.notes, *told))
    for text in made.warnings:
        note(f"warning: {text}")

    document = Document("enable")
    hashed = "json" in {format_, *formats}
    shown = N_SHOWN if {format_, *formats} == {"text"} else None
    if dry_run:
        document.images.append(plan_object(scan, made, None, scan.image.sha256 if hashed else None, shown))
        to_files(document, report)
    else:

        def reports(written: api.Output, sha256: str | None) -> AbstractContextManager[None]:
            document.images.append(plan_object(scan, made, written, sha256, shown))
            return files_ready(document, report)

        api.write_enabled(scan, made, out, hashed, reports, packing)
    to_stdout(document, format_, color)
    return 0


def _new_journal(file: str) -> str:
    """Name of an in-place patch's journal. An earlier one is not replaced: it alone can undo its patch."""
    name = f"{file}.ftpatch.json"
    if os.path.lexists(name):
        raise UsageError("there is a journal of an earlier patch", name, todo="--report json=FILE names another one")
    return name
