"""The text of `verify`: what was recognised of the second file, and what does not hold."""

from __future__ import annotations

from collections.abc import Iterator

from ftpatch.report import Document
from ftpatch.report.findings import text
from ftpatch.report.text.lines import each_file


def render(document: Document) -> Iterator[str]:
    """The one pair of files."""
    yield from each_file(document, text)
