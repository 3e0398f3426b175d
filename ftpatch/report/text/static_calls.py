"""The text of `static-calls`: the figures of each file, its keys, and its sites where they are wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ftpatch.errors import printable
from ftpatch.report import Document
from ftpatch.report.text.lines import counts_line, each_file, line, number

if TYPE_CHECKING:
    from ftpatch.document.static_calls import StaticCallRow, StaticCallsObject, StaticKeyRow
    from ftpatch.document.types import ImageObject

N_KEYS = 20  # keys that are listed where none was asked for, those with the most sites
NOT_KNOWN = "not known"


def render(document: Document) -> Iterator[str]:
    """Each file under its head."""

    def one_file(image: ImageObject) -> Iterator[str]:
        found = image["static_calls"]
        yield from _figures(found, document)
        yield from _keys(found["entries"], document.selected)
        if found.get("calls"):
            yield from _calls(found["calls"])

    yield from each_file(document, one_file)


def _figures(found: StaticCallsObject, document: Document) -> Iterator[str]:
    kinds = ", ".join(f"{kind} {n}" for kind, n in found["by_kind"].items() if n)
    yield line("sites", f"{found['sites']}: {kinds}" if kinds else "0")
    entries = found["entries"]
    if not document.selected and entries:  # of all keys
        sections: Counter[str] = Counter()
        for key in entries:
            sections.update(key["sections"])
        if sections:
            yield counts_line("sections", dict(sections.most_common()), document.width)
    if found["sites"]:
        n, size = found["cross_line"], found["line_size"]
        yield line("lines", f"{n} of {found['sites']} destinations lie in two cache lines of {size} bytes (cross-line)")
    yield line("keys", _keys_text(found, document.selected))


def _keys_text(found: StaticCallsObject, selected: bool) -> str:
    """How many keys there are, and of which sorts."""
    entries = found["entries"]
    if selected or not entries:
        return f"{found['keys']}" + (f", {len(entries)} of them chosen" if entries else "")
    kinds = Counter(key["trampoline_kind"] or "in another file" for key in entries)
    exports = Counter(key["exported"] for key in entries if key["exported"])
    parts = [
        f"{sum(key['sites'] > 0 for key in entries)} with sites",
        "trampolines " + ", ".join(f"{kind} {n}" for kind, n in kinds.most_common()),
        *(f"{n} exported" + (" by the trampoline alone" if what == "trampoline" else "")
          for what, n in sorted(exports.items())),
    ]  # fmt: skip
    return f"{found['keys']}: " + "; ".join(parts)


def _keys(entries: Sequence[StaticKeyRow], selected: bool) -> Iterator[str]:
    """The table of keys."""
    if not entries:
        return
    shown = entries if selected else sorted(entries, key=lambda key: -key["sites"])[:N_KEYS]
    yield f"{'sites':>7} {'cross':>5}  {'trampoline':<10} key -> function\n"
    for key in shown:
        function = "in another file" if not key["defined"] else key["function"] or NOT_KNOWN
        remarks = "".join(f", {remark}" for remark in _remarks(key))
        kind = key["trampoline_kind"] or "-"
        name = printable(f"{key['key']} -> {function}{remarks}")
        yield f"{key['sites']:>7} {key['cross_line']:>5}  {kind:<10} {name}\n"
    if len(shown) < len(entries):
        yield f"        … and {number(len(entries) - len(shown), 'more key')} (--key '*' lists all)\n"


def _remarks(key: StaticKeyRow) -> Iterator[str]:
    """What a reader should know of a key besides."""
    if key["exported"]:
        yield "exported" if key["exported"] == "key" else "trampoline exported"
    if key["leads_to"] and key["trampoline_kind"] == "jump" and key["defined"] and key["leads_to"] != key["function"]:
        yield f"trampoline goes to {key['leads_to']}"


def _calls(calls: Sequence[StaticCallRow]) -> Iterator[str]:
    """The table of sites."""
    yield f"{'address':<18}  {'kind':<11} {'class':<10} key in function\n"
    for call in calls:
        place = call["address"] or "nowhere"
        flags = "".join(f", {flag}" for flag in ("tail", "init") if call[flag] and call["kind"] != flag)
        leads = f" -> {call['destination']}" if call["destination"] else f": {call['code']}" if call["code"] else ""
        section = f", {call['section']}" if call["section"] else ""
        text = printable(f"{call['key']} in {call['function'] or NOT_KNOWN}{section}{flags}{leads}")
        yield f"{place:<18}  {call['kind']:<11} {call['concurrency'] or NOT_KNOWN:<10} {text}\n"
