"""`ftpatch scan`: what a file's patch sites are, without touching it."""

from __future__ import annotations

import click

from ftpatch.cli import complain
from ftpatch.cli.options import check_reports, layout, note, options, reports, selectors, to_files, to_stdout
from ftpatch.errors import FtpatchError


@click.command("scan")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@options(selectors, reports, [layout])
@click.option("--sites", "show_sites", is_flag=True, help="Add the table of sites to the text report.")
def command(
    files: tuple[str, ...], func: tuple[str, ...], status: tuple[str, ...], section: tuple[str, ...], format_: str,
    color: str, report: tuple[str, ...], layout: str | None, show_sites: bool,
) -> int:  # fmt: skip
    """Show the patch sites of kernels, modules and objects (default: ./vmlinux)."""
    from ftpatch import api
    from ftpatch.report import Document, destinations
    from ftpatch.report.rows import image_object

    wanted = {format_, *(name for name, _ in destinations(report))}
    check_reports(report, files or ("vmlinux",))
    with_sites = show_sites or wanted != {"text"}
    document = Document("scan", show_sites=show_sites)
    worst = 0
    for path in files or ("vmlinux",):
        try:
            scan = api.scan(path, layout)
            chosen = None
            if func or status or section:
                from ftpatch.select import select

                selection = select(scan.table, func, status, section)
                chosen = selection.mask
                for text in selection.notes:
                    note(text)
            sha256 = scan.image.sha256 if "json" in wanted else None
            document.images.append(image_object(scan, chosen, sha256, with_sites or chosen is not None))
        except FtpatchError as error:  # one bad file does not hide the others
            complain(error)
            document.errors.append({"file": path, "code": error.exit_code, "message": str(error)})
            worst = max(worst, error.exit_code)
    document.show_sites |= bool(func or status or section)
    to_files(document, report)
    to_stdout(document, format_, color)
    return worst
