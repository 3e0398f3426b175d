"""HTML: one page that needs nothing else, with an address map, tables to search and each edit; see `report.html`."""

from __future__ import annotations

from collections.abc import Iterator

from ftpatch.report import Document


def render(document: Document) -> Iterator[str]:
    """The whole page."""
    from ftpatch.report.html.page import render_page

    yield from render_page(document)
