"""CSV: one line per site or finding of every image, the columns of the JSON report, lists joined by spaces."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence

from ftpatch.document.types import FindingRow, ScannedSite, SiteChange
from ftpatch.report import Document


def render(document: Document) -> Iterator[str]:
    """Header and rows; columns are the keys of the rows' types, and only ever appended."""
    kind, buffer = document.kind, io.StringIO()
    of_site = [*ScannedSite.__annotations__, *(SiteChange.__annotations__ if kind.changes else ())]
    columns = list(FindingRow.__annotations__) if kind.table == "findings" else of_site
    writer = csv.DictWriter(buffer, ["file", *columns], lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for image in document.images:
        rows: Sequence[Mapping[str, object]] = image["findings"] if kind.table == "findings" else image["sites"]
        for row in rows:
            flat = {key: " ".join(value) if isinstance(value, list) else value for key, value in row.items()}
            writer.writerow({"file": image["file"], **flat})
            yield buffer.getvalue()  # row by row: a kernel has 44,000
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()
