"""`ftpatch scan`: what a file's patch sites are, or those of all modules in a tree, without touching them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from ftpatch.cli import Verb
from ftpatch.cli.options import (
    Reports,
    failed,
    gathered,
    jobs,
    layout,
    max_size,
    note,
    options,
    reports,
    selector_files,
    selectors,
)  # fmt: skip
from ftpatch.document.request import Request
from ftpatch.errors import FtpatchError, UsageError
from ftpatch.report import Document, shows_more
from ftpatch.report.files import check_reports
from ftpatch.sites.scan import scan_file

if TYPE_CHECKING:
    from ftpatch.document.types import ImageObject
    from ftpatch.trees import ModuleScan

SITES_HELP = "Add the table of sites to the text report, and the sites of a tree's modules to JSON."

UNITS_HELP = "Add what the compiler was told, unit by unit, from debug information."


@click.command("scan", cls=Verb)
@gathered(Request, Reports)
@click.argument("files", nargs=-1, metavar="[FILE|DIR]...")
@options(selectors, reports, [layout, max_size])
@click.option("--sites", "show_sites", is_flag=True, help=SITES_HELP)
@click.option("--units", is_flag=True, help=UNITS_HELP)
@jobs
def command(request: Request, reports: Reports, files: tuple[str, ...], show_sites: bool, jobs: int | None) -> int:
    """Show the patch sites of kernels, modules and objects (default: ./vmlinux).

    A DIR stands for all modules below it (.ko, .ko.xz, .ko.gz, .ko.zst; symbolic links are not followed) and gives
    totals and a table by module. There, a selector need only match in some module. JSON has the sites of a tree's
    modules only with --sites or a selector, CSV always.
    """
    formats = reports.formats
    files = files or ("vmlinux",)
    check_reports(reports.report, [*files, *selector_files(request.func)])
    if request.func:
        from ftpatch.sites.select import expanded

        request = request._replace(func=tuple(expanded(request.func)))  # a list on stdin can be read once
    request = request._replace(hashed=shows_more(formats), with_sites=show_sites or "csv" in formats)
    document = Document("scan", show_sites=show_sites or request.selects, selected=request.selects)
    worst = 0
    for path in files:
        try:
            if not os.path.isdir(path):
                _file(path, request, formats != {"text"}, document)
            elif path not in (tree["tree"] for tree in document.trees):  # named twice, it counts once
                from ftpatch import api

                worst = max(worst, _tree(path, request, api.scan_tree(path, request, jobs, reports.watch()), document))
        except UsageError:  # nothing is written
            raise
        except FtpatchError as error:  # one bad file does not hide the others
            worst = max(worst, failed(document, path, error))
    reports.deliver(document)
    return worst


def _file(path: str, request: Request, with_sites: bool, document: Document) -> None:
    """Add one file to the document."""
    from ftpatch.document.rows import image_object

    scan = scan_file(path, request.layout, request.max_size)
    chosen = None
    if request.selects:
        from ftpatch.sites.select import select

        selection = select(scan.sites, request.func, request.status, request.section, unrecorded=request.unrecorded)
        chosen = selection.mask
        for text in selection.notes:
            note(text)
    sha256 = scan.image.sha256 if request.hashed else None
    image = image_object(scan, chosen, sha256, with_sites or request.with_sites or request.selects)
    if request.units:
        from ftpatch.document.units import units_object

        image["units"] = units_object(scan.sites)
    document.images.append(image)


def _tree(top: str, request: Request, modules: list[ModuleScan], document: Document) -> int:
    """Add all modules of a tree to the document, and their totals; the worst exit code of those that are bad."""
    from ftpatch import trees
    from ftpatch.report.objects import totals

    worst = 0
    for module in modules:
        for text in module.notes:
            note(f"{module.path}: {text}")
        if module.error:
            worst = max(worst, failed(document, module.path, module.error, top))
    images: list[ImageObject] = [{**module.image, "tree": top} for module in modules if module.image]
    document.images += images
    document.trees.append({"tree": top, "totals": totals(images, len(modules) - len(images))})
    if request.selects:
        trees.require_chosen(top, modules)
    return worst
