"""The text of `record`: which functions got records, what was mended, and where the result is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ftpatch.errors import printable
from ftpatch.report import Document
from ftpatch.report.text.lines import counts_line, each_file, first_of, line, live_lines, number

if TYPE_CHECKING:
    from ftpatch.document.types import ImageObject

N_SHOWN = 10  # rows of each sort that are named


def render(document: Document) -> Iterator[str]:
    """The one file that got records."""
    yield from each_file(document, lambda image: _record(image, document.width))


def _record(image: ImageObject, width: int) -> Iterator[str]:
    done = image["recorded"]
    added, kept = done["added"], done["kept"]
    where = f" in {done['section']} ({done['section_why']})" if added else ""
    yield line("records", f"{added} added{where}, {kept} there before")
    if added:
        yield line("layout", done["layout"])
        yield counts_line("sections", done["by_section"], width)
    rows = [f"{row['function'] or 'unnamed'} ({row['section']}+{row['offset']})" for row in done["functions"][:N_SHOWN]]
    yield from first_of(rows, N_SHOWN, "    ", n=added)
    for name, texts in (("dropped", done["lost"]), ("mended", done["repairs"])):
        yield from (line(name, text) for text in texts[:N_SHOWN])
        if len(texts) > N_SHOWN:
            yield line(name, f"and {len(texts) - N_SHOWN} more")
    if done["nops"]:
        shown = ", ".join(done["nops"][:3]) + (" …" if len(done["nops"]) > 3 else "")
        yield line("NOPs", f"{number(len(done['nops']), 'call')} made one: {shown}")
    left = [f"{row['function']}: left, {row['reason']}" for row in done["left"][:N_SHOWN]]
    yield from first_of(left, N_SHOWN, "    ", "more left", len(done["left"]))
    output = image["output"]
    what = f"{printable(output['file'])} written and checked" if output else "nothing written (dry run)"
    totals = image["done"]
    yield line("output", f"{what}; {totals['edits']} edits, {totals['bytes']} bytes")
    yield from live_lines("live", image["live"])
    yield from (line("note", note) for note in image["notes"])
