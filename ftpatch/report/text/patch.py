"""The text of the verbs that write: what became of the chosen sites, and where the result is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ftpatch.errors import printable
from ftpatch.report import Document
from ftpatch.report.text.lines import each_file, first_of, line, live_lines

if TYPE_CHECKING:
    from ftpatch.document.site_rows import SiteRow
    from ftpatch.document.types import ImageObject
    from ftpatch.document.written import RequestObject

DONE = {"enable": "enabled", "disable": "disabled", "drop": "dropped from the record table",
        "redirect": "redirected"}  # fmt: skip
PADS = {"arm": "its pad is filled", "disarm": "its pad is cleared"}  # the switch stays off
N_SHOWN = 10  # sites of each sort that are named


def render(document: Document) -> Iterator[str]:
    """The one file that was patched."""
    yield from each_file(document, lambda image: _patch(image, document.command))


def _patch(image: ImageObject, command: str) -> Iterator[str]:
    request, sites, done = image["request"], image["sites"], image["done"]
    patched = [site for site in sites if site["action"] != "keep"]  # no more than text shows: see Delivery.shown
    kept = [site for site in sites if site["action"] == "keep"]
    leads = " to" if command == "redirect" else ", calling"
    calling = f"{leads} {request['target']}" if request["target"] else ""
    left = f"; {done['left']} chosen ones left as they are" if kept else ""
    armed = bool(patched) and all(site["action"] == "arm" for site in patched)
    what = "armed, their switches left off" if armed else DONE[command]
    yield line("sites", f"{done['patched']} {what}{calling}{left}")
    if patched and request["ops"]:
        yield line("ops", f"{request['ops']} by {request['ops_via']}")
    if patched:
        yield line("records", f"{request['records']}: {request['records_why']}")
    yield from _redirects(request)
    yield from first_of([_changed(site) for site in patched[:N_SHOWN]], N_SHOWN, "    ", n=done["patched"])
    left_texts = [f"{_site(site)}: left, {site['reason']}" for site in kept[:N_SHOWN]]
    yield from first_of(left_texts, N_SHOWN, "    ", "more left", done["left"])
    output = image["output"]
    where = f"{printable(output['file'])} written and checked" if output else "nothing written (dry run)"
    yield line("output", f"{where}; {done['edits']} edits, {done['bytes']} bytes")
    yield from live_lines("live", image["live"])
    yield from (line("note", note) for note in image["notes"])


def _redirects(request: RequestObject) -> Iterator[str]:
    """What is known of the signatures of functions and their replacements, and what came along with those."""
    if "redirects" not in request:
        return
    from ftpatch.plan.redirect.refusals import EQUAL  # loaded only where functions are redirected

    texts = [row["signature"] for row in request.get("redirects", ())]
    equal = [text for text in texts if text.startswith(EQUAL)]
    if len(equal) == len(texts):  # else the notes have what is wrong with each
        yield from (line("signature", text) for text in dict.fromkeys(equal))
    if request.get("with"):
        yield line("with", printable(request["with"] or ""))
    if request.get("keep_original"):
        yield line("original", f"can still be called as {request['keep_original']}")


def _site(site: SiteRow) -> str:
    row = "no record" if site["row"] is None else f"row {site['row']}"
    return f"{site['function'] or 'unnamed'} ({row}, {site['section']}+{site['offset']})"


def _changed(site: SiteRow) -> str:
    new = " ".join(word[2:] for word in site["new_words"])
    if site["action"] in PADS:
        return f"{_site(site)}: {PADS[site['action']]}; record {site['record_fate']}"
    if not new:
        return f"{_site(site)}: record {site['record_fate']}"
    old = " ".join(word[2:] for word in site["words"][-len(site["new_words"]) :])
    way = f", to {site['stub']}, by relocation" if site["stub"] else ""
    way = way if site["distance"] is None else f", {site['distance']:+#x} bytes"  # of a module a loader decides it
    if site["action"] == "redirect":
        through = f" through {site['stub']}" if site["stub"] else ""
        way = f", redirected to {site['target']}{through}" + (
            way if site["distance"] is not None else ", by relocation"
        )
    return f"{_site(site)}: {old} -> {new}{way}; record {site['record_fate']}"
