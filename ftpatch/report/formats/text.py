"""Text for people: a summary that fits a screen, and the rest on demand. Each kind of document has its own file."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from ftpatch.report import Document, Render


def render(document: Document) -> Iterator[str]:
    """The report of one command over its images."""
    write: Render = importlib.import_module(f"ftpatch.report.text.{document.kind.text}").render
    pieces = write(document)
    if not document.fitted:
        return pieces
    from ftpatch.report.text.fitting import kept_to

    return kept_to(document.width, pieces)
