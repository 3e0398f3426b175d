"""The table of sites: a line for each; on a terminal, columns as wide as what stands in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ftpatch.errors import printable
from ftpatch.report.text.fitting import fitted
from ftpatch.report.text.lines import ALARM, DONE, or_dash, tinted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ftpatch.document.site_rows import SiteRow
    from ftpatch.report import Document

TINTS = {"enabled": DONE, "armed": DONE, "half": ALARM, "unexpected": ALARM, "outside-text": ALARM}  # by status


class _Row(NamedTuple):
    """The cells of one line as text."""

    row: str
    record: str
    status: str
    place: str
    pos: str
    names: str


HEAD = _Row("row", "record", "status", "place", "pos", "function")
WIDTHS = _Row("6", "18", "13", "24", "10", "")
PLAIN_ROW = "{:>6}  {:<18}  {:<13}  {:<24}  {:>10}  {}\n".format
NAME = 24  # columns that names shall have at least; on a terminal that is too narrow, positions are left out
RIGHT = ("row", "pos")  # columns of numbers


def site_lines(sites: Sequence[SiteRow], document: Document) -> Iterator[str]:
    """The head of the table and its rows."""
    if not (document.fitted or document.colored):  # a kernel has 60,000, and this is the quick way
        yield from (PLAIN_ROW(*row) for row in (HEAD, *map(_row, sites)))
        return
    widths = [int(width or 0) for width in WIDTHS]
    if document.fitted:
        widths = [len(name) for name in HEAD]
        for site in sites:
            widths = [max(width, len(cell)) for width, cell in zip(widths, _row(site), strict=True)]
        widths = [min(width, int(most or 0) or width) for width, most in zip(widths, WIDTHS, strict=True)]
        if document.width < sum(widths[:-1]) + 2 * len(widths[:-1]) + NAME:
            widths[HEAD.index("pos")] = 0
    yield _line(HEAD, widths, document, "")
    for site in sites:
        yield _line(_row(site), widths, document, TINTS.get(site["status"], ""))


def _line(row: _Row, widths: Sequence[int], document: Document, tint: str) -> str:
    cells = []
    for name, cell, width in zip(row._fields[:-1], row, widths, strict=False):
        if not width:
            continue
        text = f"{cell:>{width}}" if name in RIGHT else f"{cell:<{width}}"
        cells.append((text, tinted(cell, tint, document) + text[len(cell) :] if name == "status" else text))
    used = sum(len(text) + 2 for text, _ in cells)
    return f"{'  '.join(shown for _, shown in cells)}  {fitted(row.names, used, document)}\n"


def _row(site: SiteRow) -> _Row:
    place = printable(f"{site['section']}+{site['offset'] or '?'}" if site["section"] else "-")
    names = " = ".join([site["function"] or "-", *site["aliases"]])
    if site["listed_as"]:
        names = f"- (the kernel lists it as {site['listed_as']})"
    if site.get("action") == "redirect":
        names += f" (redirected to {site['target']})"
    elif site.get("stub") and "calls" in site:
        names += f" (calls {site['calls']} through a veneer)"
    row, pos = or_dash(site["row"]), or_dash(site["pos"])
    return _Row(row, site["record"], site["status"], place, pos, printable(names))
