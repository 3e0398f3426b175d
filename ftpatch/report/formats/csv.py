"""CSV: one line per site or finding of every image, the columns of the JSON report, lists joined by spaces.

A spreadsheet takes a cell that begins with one of a few signs for a formula, and runs it: names come from files that
anybody may have made. An apostrophe in front makes text of such a cell. Numbers are numbers, negative ones too.
Source: RFC 4180; OWASP, "CSV Injection".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ftpatch.document.site_rows import ScannedSite, SiteChange
from ftpatch.document.static_calls import SetCallRow, StaticCallRow, StaticKeyRow
from ftpatch.document.symbols import ListedSymbol
from ftpatch.document.types import FindingRow, ImageObject
from ftpatch.document.written import RecordedRow
from ftpatch.errors import printable
from ftpatch.report import Document

# what begins a formula; the last four are the first four as East Asian fonts write them
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
SPECIAL = (",", '"')
OF_REDIRECTED = ("action", "target")  # of a scan where some site is redirected: what that is, and where it leads
# ASCII with neither of these that begins no formula
PLAIN = re.compile(r"(?![=+@ -])[\x20\x21\x23-\x2b\x2d-\x7e]*")


def render(document: Document) -> Iterator[str]:
    """Header and rows; columns are the keys of the rows' types, and only ever appended."""
    kind = document.kind
    scanned = () if kind.changes or kind.table != "sites" else document.images
    redirected = any("redirected" in image["summary"] for image in scanned)
    more = SiteChange.__annotations__ if kind.changes else OF_REDIRECTED if redirected else ()
    of_site = [*ScannedSite.__annotations__, *more]
    columns = list(FindingRow.__annotations__) if kind.table == "findings" else of_site
    if kind.table == "recorded":
        columns = list(RecordedRow.__annotations__)
    if kind.table == "symbols":
        columns = list(ListedSymbol.__annotations__)
    if kind.table == "static_calls":
        columns = list((StaticCallRow if document.show_sites else StaticKeyRow).__annotations__)
        if any("set_calls" in image for image in document.images):
            columns = list(SetCallRow.__annotations__)
    yield ",".join(["file", *columns]) + "\n"
    for image in document.images:
        rows = _rows(image, kind.table, document.show_sites)
        file = _cell(image["file"])
        for row in rows:  # row by row: a kernel has 44,000
            yield ",".join([file, *(_cell(row.get(column)) for column in columns)]) + "\n"


def _rows(image: ImageObject, table: str, with_sites: bool) -> Sequence[Mapping[str, object]]:
    """The rows of one image."""
    if table == "findings":
        return image["findings"]
    if table == "symbols":
        return image["symbols"]
    if table == "recorded":
        return image["recorded"]["functions"]
    if "set_calls" in image:
        return image["set_calls"]
    if table == "static_calls":
        return image["static_calls"]["calls" if with_sites else "entries"]
    return image["sites"]


def _cell(value: object) -> str:
    """One value; text in quotes where something in it has a meaning."""
    if isinstance(value, list):
        value = " ".join(item if isinstance(item, str) else _joined(item) for item in value)
    if isinstance(value, dict):
        value = " ".join(f"{name} {n}" for name, n in value.items())
    if not isinstance(value, str):
        return "" if value is None else str(value)
    if PLAIN.fullmatch(value):  # nearly all are
        return value
    formula = value.lstrip(" ").startswith(FORMULA)
    text = "".join(map(_sign, value))
    text = f"'{text}" if formula else text
    return '"' + text.replace('"', '""') + '"' if formula or any(char in text for char in SPECIAL) else text


def _joined(row: Mapping[str, object]) -> str:
    """A small object of a list: its values, and the names of what is true of it."""
    return ":".join(name if value is True else str(value) for name, value in row.items() if value is not False)


def _sign(char: str) -> str:
    """One character of a cell. Half a one stands for a byte of a file name, and is left to who writes the file."""
    return char if "\ud800" <= char <= "\udfff" else printable(char)
