"""The text of `static-calls`: the figures of each file, its keys, and its sites where they are wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ftpatch.errors import printable
from ftpatch.report import Document
from ftpatch.report.text.fitting import fitted
from ftpatch.report.text.lines import counts_line, each_file, first_of, line, live_lines, number

if TYPE_CHECKING:
    from ftpatch.document.static_calls import OtherUpdateRow, StaticCallRow, StaticCallsObject, StaticKeyRow
    from ftpatch.document.types import ImageObject

NOT_KNOWN, ELSEWHERE = "not known", "in another file"
N_SHOWN = 10  # static calls that --set names
N_NAMES = 6  # functions and data that one line names


def render(document: Document) -> Iterator[str]:
    """Each file under its head."""

    def one_file(image: ImageObject) -> Iterator[str]:
        if "set_calls" in image:
            yield from _set(image)
            return
        found = image["static_calls"]
        yield from _figures(found, document)
        yield from _keys(found, document)
        if found.get("calls"):
            yield from _calls(found["calls"], document)

    yield from each_file(document, one_file)


def _figures(found: StaticCallsObject, document: Document) -> Iterator[str]:
    kinds = ", ".join(f"{kind} {n}" for kind, n in found["by_kind"].items() if n)
    yield line("sites", f"{found['sites']}: {kinds}" if kinds else "0")
    if found["sites"]:
        yield counts_line("sections", found["by_section"], document.width)
        n, size, unknown = found["cross_line"], found["line_size"], found["not_known"]
        doubt = f", of {unknown} it is not known" if unknown else ""
        yield line("lines", f"{n} destinations lie in two cache lines of {size} bytes (cross-line){doubt}")
    yield line("keys", f"{found['keys']}" + (f", {found['with_sites']} of them with sites" if found["keys"] else ""))
    if found["keys"] and not found["inline"]:
        yield line("", "nothing lists the sites: they branch to trampolines, and stay as they are")
    elif found["keys"] and not found["sites"]:
        yield line("", "no table lists any site: calls go to the trampolines, or are not told by this file")
    if found["pointers"]:
        yield line("", f"{found['pointers']} others are pointers that code calls through, without trampolines")
    if found["by_trampoline"]:
        yield counts_line("trampoline", found["by_trampoline"], document.width)


def _keys(found: StaticCallsObject, document: Document) -> Iterator[str]:
    """The table of keys; of those that were asked for, who sets them."""
    entries = found["entries"]
    if not entries:
        return
    yield f"{'sites':>7} {'cross':>5}  {'trampoline':<10} key -> function\n"
    for key in entries:
        function = (key["function"] or NOT_KNOWN) if key["defined"] or key["found_in"] else ELSEWHERE
        kind = key["trampoline_kind"] or "-"
        remarks = "".join(f", {remark}" for remark in _remarks(key))
        name = printable(f"{key['key']} -> {function}{remarks}")
        figures = f"{key['sites']:>7} {key['cross_line']:>5}  {kind:<10} "
        yield f"{figures}{fitted(name, len(figures), document)}\n"
        for text in _updates(key, found.get("other_updates")) if document.selected else ():
            yield f"{'':<26}{fitted(printable(text), 26, document)}\n"
    if rest := 0 if document.selected else found["keys"] - len(entries):
        yield f"        … and {number(rest, 'more key')} (--key '*' lists all)\n"


def _remarks(key: StaticKeyRow) -> Iterator[str]:
    """What a reader should know of a key besides."""
    if key["found_in"]:
        yield f"in {key['found_in']}" + ("" if key["usable"] else ", where the loader does not find it")
    if key["exported"]:
        yield "exported" if key["exported"] == "key" else "trampoline exported"
    if key["leads_to"] and key["trampoline_kind"] == "jump" and key["defined"] and key["leads_to"] != key["function"]:
        yield f"trampoline goes to {key['leads_to']}"


def _updates(key: StaticKeyRow, others: Sequence[OtherUpdateRow] | None) -> Iterator[str]:
    """Who sets a key, as far as the file tells."""
    if key["updated_by"] is None or others is None:
        yield f"set by: {NOT_KNOWN}"
        return
    if key["updated_by"]:
        yield "set by: " + _some([f"{row['function']}{' (init)' * row['init']}" for row in key["updated_by"]])
    if key["pointed_to_by"]:
        reach = [f"{row['function']}{' (init)' * row['init']}" for row in others]
        by = f"; keys that are no constant are set by {_some(reach)}" if reach else ""
        yield f"pointed to by: {_some(key['pointed_to_by'])}{by}"


def _some(names: Sequence[str]) -> str:
    more = [f"and {len(names) - N_NAMES} more"] if len(names) > N_NAMES else []
    return ", ".join([*names[:N_NAMES], *more])


def _calls(calls: Sequence[StaticCallRow], document: Document) -> Iterator[str]:
    """The table of sites."""
    yield f"{'address':<18}  {'kind':<11} {'class':<10} key in function\n"
    for call in calls:
        flags = "".join(f", {flag}" for flag, there in _flags(call) if there)
        leads = f" -> {call['destination']}" if call["destination"] else f": {call['code']}" if call["code"] else ""
        section = f", {call['section']}" if call["section"] else ""
        text = printable(f"{call['key'] or NOT_KNOWN} in {call['function'] or NOT_KNOWN}{section}{flags}{leads}")
        concurrency = call["concurrency"] or (NOT_KNOWN if call["destination"] else "-")
        figures = f"{call['address'] or 'nowhere':<18}  {call['kind']:<11} {concurrency:<10} "
        yield f"{figures}{fitted(text, len(figures), document)}\n"


def _flags(call: StaticCallRow) -> Iterator[tuple[str, bool]]:
    """What else is said of a site: where the flag says what the instruction says, too, once is enough."""
    told = call["kind"] in ("tail", "conditional")
    yield "flagged as a tail call", call["tail"] and not told
    yield "not flagged as a tail call", told and not call["tail"]
    yield "init", call["init"]


def _set(image: ImageObject) -> Iterator[str]:
    """What --set did."""
    calls, done = image["set_calls"], image["done"]
    left = f"; {done['left']} left as they are" if done["left"] else ""
    yield line("keys", f"{done['patched']} set{left}")
    texts = [f"{call['key']}: {call['was']} -> {call['to']}, {number(call['sites'], 'site')}; type {call['signature']}"
             for call in calls if call["left"] is None]  # fmt: skip
    yield from first_of(texts[:N_SHOWN], N_SHOWN, "    ", n=done["patched"])
    kept = [f"{call['key']}: left, {call['left']}" for call in calls if call["left"] is not None]
    yield from first_of(kept[:N_SHOWN], N_SHOWN, "    ", "more left", done["left"])
    output = image["output"]
    what = f"{printable(output['file'])} written and checked" if output else "nothing written (dry run)"
    yield line("output", f"{what}; {done['edits']} edits, {done['bytes']} bytes")
    yield from live_lines("live", image["live"])
    yield from (line("note", note) for note in image["notes"])
