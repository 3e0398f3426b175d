"""CSV: one line per site or finding of every image, the columns of the JSON report, lists joined by spaces."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from ftpatch.report import Document


def render(document: Document) -> Iterator[str]:
    """Header and rows; columns are only ever appended. The rows of `verify` and `check` are findings."""
    from ftpatch.document.rows import SITE_FIELDS, WRITING_FIELDS

    of, fields = "sites", ["file", *SITE_FIELDS, *(WRITING_FIELDS if document.command != "scan" else ())]
    if document.command in ("verify", "check"):
        from ftpatch.report.findings import FIELDS

        of, fields = "findings", ["file", *FIELDS]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fields, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for image in document.images:
        for site in image[of]:
            flat = {key: " ".join(value) if isinstance(value, list) else value for key, value in site.items()}
            writer.writerow({"file": image["file"], **flat})
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()
