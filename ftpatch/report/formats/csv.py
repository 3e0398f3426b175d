"""CSV: one line per site or finding of every image, the columns of the JSON report, lists joined by spaces."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence

from ftpatch.document.types import FindingRow, ImageObject, ScannedSite, SiteChange
from ftpatch.report import Document, Kind


def render(document: Document) -> Iterator[str]:
    """Header and rows; columns are only ever appended."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ["file", *_columns(document.kind)], lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for image in document.images:
        for row in _rows(document.kind, image):
            flat = {key: " ".join(value) if isinstance(value, list) else value for key, value in row.items()}
            writer.writerow({"file": image["file"], **flat})
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def _columns(kind: Kind) -> list[str]:
    """The keys of the rows, in the order of their types."""
    if kind.table == "findings":
        return list(FindingRow.__annotations__)
    return [*ScannedSite.__annotations__, *(SiteChange.__annotations__ if kind.changes else ())]


def _rows(kind: Kind, image: ImageObject) -> Sequence[Mapping[str, object]]:
    return image["findings"] if kind.table == "findings" else image["sites"]
