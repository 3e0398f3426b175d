"""`ftpatch scan`: what a file's patch sites are, or those of all modules in a tree, without touching them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from ftpatch.cli.options import (
    failed,
    layout,
    max_size,
    note,
    options,
    reports,
    selectors,
    to_files,
    to_stdout,
    watch,
)
from ftpatch.errors import FtpatchError, UsageError
from ftpatch.report.files import check_reports
from ftpatch.sites.scan import scan_file

if TYPE_CHECKING:
    from ftpatch.document.request import Request
    from ftpatch.document.types import ImageObject
    from ftpatch.report import Document

SITES_HELP = "Add the table of sites to the text report, and the sites of a tree's modules to JSON."
JOBS_HELP = "Worker processes for a tree (default: one per processor)."


@click.command("scan")
@click.argument("files", nargs=-1, metavar="[FILE|DIR]...")
@options(selectors, reports, [layout, max_size])
@click.option("--sites", "show_sites", is_flag=True, help=SITES_HELP)
@click.option("--jobs", type=click.IntRange(1, 1024), metavar="N", help=JOBS_HELP)
def command(
    files: tuple[str, ...], func: tuple[str, ...], status: tuple[str, ...], section: tuple[str, ...], format_: str,
    color: str, report: tuple[str, ...], layout: str | None, max_size: int | None, show_sites: bool, jobs: int | None,
) -> int:  # fmt: skip
    """Show the patch sites of kernels, modules and objects (default: ./vmlinux).

    A DIR stands for all modules below it (.ko, .ko.xz, .ko.gz, .ko.zst; symbolic links are not followed) and gives
    totals and a table by module. There, a selector need only match in some module. JSON has the sites of a tree's
    modules only with --sites or a selector, CSV always.
    """
    from ftpatch.document.request import Request
    from ftpatch.report import Document, destinations, shows_more

    wanted = {format_, *(name for name, _ in destinations(report))}
    files = files or ("vmlinux",)
    check_reports(report, files)
    if func:
        from ftpatch.sites.select import expanded

        func = tuple(expanded(func))  # a list on stdin can be read once
    request = Request(layout, func, status, section, shows_more(wanted), show_sites or "csv" in wanted, max_size)
    document = Document("scan", show_sites=show_sites or request.selects, selected=request.selects)
    worst = 0
    for path in files:
        try:
            if os.path.isdir(path):
                code = _tree(path, request, jobs, report, document)
            else:
                code = _file(path, request, wanted != {"text"}, document)
        except UsageError:  # nothing is written
            raise
        except FtpatchError as error:  # one bad file does not hide the others
            code = failed(document, path, error)
        worst = max(worst, code)
    to_files(document, report)
    to_stdout(document, format_, color)
    return worst


def _file(path: str, request: Request, with_sites: bool, document: Document) -> int:
    """Add one file to the document."""
    from ftpatch.document.rows import image_object

    scan = scan_file(path, request.layout, request.max_size)
    chosen = None
    if request.selects:
        from ftpatch.sites.select import select

        selection = select(scan.sites, request.func, request.status, request.section)
        chosen = selection.mask
        for text in selection.notes:
            note(text)
    sha256 = scan.image.sha256 if request.hashed else None
    document.images.append(image_object(scan, chosen, sha256, with_sites or request.with_sites or request.selects))
    return 0


def _tree(top: str, request: Request, jobs: int | None, report: tuple[str, ...], document: Document) -> int:
    """Add all modules of a tree to the document, and their totals; a tree that was named twice counts once."""
    from ftpatch import api, trees
    from ftpatch.report.totals import totals

    if any(one["tree"] == top for one in document.trees):
        return 0
    found = api.scan_tree(top, request, jobs, watch(report))
    worst = 0
    for one in found:
        for text in one.notes:
            note(f"{one.path}: {text}")
        if one.error:
            worst = max(worst, failed(document, one.path, one.error, top))
    images: list[ImageObject] = [{**one.image, "tree": top} for one in found if one.image]
    document.images += images
    document.trees.append({"tree": top, "totals": totals(images, len(found) - len(images))})
    if request.selects:
        trees.require_chosen(top, found)
    return worst
