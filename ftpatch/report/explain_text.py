"""An explanation for people: a paragraph per site, its words as a listing; or a message taken apart."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from ftpatch.arch import shape_named
from ftpatch.errors import printable
from ftpatch.report import Document

WIDTH = 100
BOLD, PLAIN = ("\x1b[1m", "\x1b[0m"), ("", "")
PHASES = {"init": "at boot or load", "on": "when it was to be traced", "off": "when tracing it ended",
          "update": "when its tracer changed"}  # fmt: skip


def render(document: Document) -> Iterator[str]:
    """The text of one `explain`."""
    style = BOLD if document.colored else PLAIN
    for i, splat in enumerate(document.splats):
        yield "\n" if i else ""
        yield from _splat(document.images[0] if document.images else None, splat, style)
    for image in document.images:
        if "absent" in image:
            yield from _absent(image, image["absent"], style)
        told = image.get("explained", ())
        for i, (site, one) in enumerate(zip(image["sites"] if told else (), told, strict=True)):
            yield "\n" if i else ""
            yield from _site(image, site, one, style)
        for one in image.get("others", ()):
            yield _other(one)


def _site(image: dict[str, Any], site: dict[str, Any], told: dict[str, Any], style: tuple[str, str]) -> Iterator[str]:
    """One site of a file."""
    file = told["symbols"][0]["file"] if told["symbols"] else None
    name = printable(site["function"] or "(no name)") + (f"@{printable(file)}" if file else "")
    yield f"{style[0]}{name}{style[1]}: {told['verdict']}\n"
    yield _line("file", f"{printable(image['file'])}, {image['arch']} {image['kind']}")
    if told["source"]:
        yield _line("source", printable(told["source"]))
    for one in told["symbols"]:
        where = f" of {printable(one['file'])}" if one["file"] else ""
        yield _line("symbol", f"{printable(one['name'])}, {one['bind']}{where}, at {one['value']}, {one['size']} bytes")
    if site["listed_as"]:
        yield _line("listed as", printable(site["listed_as"]))
    yield from _record(told["slot"], told["row"])
    if told["place"]:
        yield _line("place", f"{printable(told['place'])}, file position {site['pos']}")
        yield _line("addresses", f"entry {site['entry']}, site {site['site']}, call {site['branch']}")
    shape = shape_named(image["arch"], image["layout"])
    yield _line("layout", f"{image['layout']}: {shape.text}" if shape else image["layout"])
    for block in told["code"]:
        yield from _listing(block)
    yield from _patch(told)


def _record(slot: dict[str, Any] | None, row: int | None) -> Iterator[str]:
    if slot is None:
        yield _line("record", "none names it")
        return
    where = f" at {slot['va']}" if slot["va"] else ""
    row_text = f" (row {slot['relocation']} of .rela.dyn)" if slot["relocation"] is not None else ""
    yield _line("record", f"row {row}: slot{where}, file position {slot['pos']}, worth {slot['value']}")
    yield _line("", f"its value is {slot['carried']}{row_text}; the word there is {slot['word']}")


def _listing(block: dict[str, Any]) -> Iterator[str]:
    """Words as they are; behind an arrow as they would be."""
    if not block["words"]:
        return
    yield f"  {block['what']}\n"
    texts = [printable(one["text"]) for one in block["words"]]
    width = min(max(len(text) for text in texts), 44)
    for one, text in zip(block["words"], texts, strict=True):
        line = f"    {one['va'][2:]}  {one['word'][2:]}  {text:<{width}}"
        if one["new_word"]:
            line += f"  ->  {one['new_word'][2:]}  {printable(one['new_text'])}"
        yield (line + (f"   <- {one['at']}" if one["at"] else "")).rstrip() + "\n"


def _patch(told: dict[str, Any]) -> Iterator[str]:
    if told["refused"]:
        yield from _lines("enable", f"refused: {told['refused']}")
        return
    patch = told["patch"]
    way = "" if patch["distance"] is None else f", {patch['distance']:+#x} bytes away"
    stub = f" through a stub at {patch['stub']}" if patch["stub"] else ""
    yield _line("enable", f"{patch['action']} {patch['target']}{stub}{way}" + (
        f" ({patch['reason']})" if patch["reason"] else ""))  # fmt: skip
    if patch["literal"]:
        yield _line("ops", f"{patch['literal']} by {patch['ops_via']}")
    yield from _lines("record", f"{patch['records']}: {patch['records_why']}")
    concurrency = told["concurrency"]
    yield from _lines("live", f"{concurrency['class']}: {concurrency['text']}")
    for one in told["edits"]:
        yield from _lines("", f"{one['what']} {one['old']} -> {one['new']}: {one['class']}, {one['text']}")


def _other(one: dict[str, Any]) -> str:
    return f"not traceable: {_symbol(one)}\n"


def _symbol(one: dict[str, Any]) -> str:
    file = f"@{one['file']}" if one["file"] else ""
    return f"{printable(one['name'] + file)} at {one['va']} in {printable(one['section'])}: {one['text']}"


def _absent(image: dict[str, Any], absent: dict[str, Any], style: tuple[str, str]) -> Iterator[str]:
    """A name without a site."""
    yield f"{style[0]}{printable(absent['function'])}{style[1]}: not traceable in {printable(image['file'])}\n"
    yield from _lines("why", absent["text"])
    yield from (_line("symbol", _symbol(one)) for one in absent["symbols"])
    for one in absent["renamed"]:
        yield _line("renamed", f"{printable(one['name'])}, {one['text']}")
    inlined = absent["inlined"]
    if inlined["units"]:
        yield _line(
            "inlined", f"{inlined['copies']} copies, in {inlined['units']} source files that debug information lists"
        )
    elif inlined["unreadable"] and not absent["symbols"]:
        yield _line("inlined", f"unknown: {inlined['unreadable']}")
    modules = absent["modules"]
    if modules is None:
        yield _line("modules", "not searched (--modules DIR looks in a tree)")
    else:
        yield _line("modules", ", ".join(map(printable, modules)) or "none of the tree has it")
    if absent["near"]:
        yield _line("near", ", ".join(map(printable, absent["near"])))


def _splat(image: dict[str, Any] | None, splat: dict[str, Any], style: tuple[str, str]) -> Iterator[str]:
    """One message of a kernel."""
    name = f"{splat['function']}+{splat['offset']}" if splat["function"] else splat["ip"] or "an unnamed site"
    where = f" [{splat['module']}]" if splat["module"] else ""
    when = f", {PHASES[splat['phase']]}" if splat["phase"] else ""
    yield f"{style[0]}{printable(name + where)}{style[1]}: ftrace {splat['what'] or 'complained'}{when}\n"
    told = ", ".join(printable(text) for text in (splat["machine"], splat["release"]) if text)
    yield _line("kernel", told or "not told")
    for key in ("expected", "found", "actual"):
        if splat[key]:
            yield _line(key, splat[key] + (" at the call" if key == "actual" else ""))
    for one in splat["remarks"]:
        yield from _lines("said", f"{printable(one['message'])}: {one['text']}")
    for one in splat["sites"]:
        yield _line("site", f"row {'-' if one['row'] is None else one['row']}, {one['place']}, {one['status']}: "
                            f"{' '.join(word[2:] for word in one['words'])}")  # fmt: skip
    if image is not None:
        shape = shape_named(image["arch"], image["layout"])
        yield _line("layout", f"{image['layout']}: {shape.text}" if shape else image["layout"])
    yield from _lines("cause", splat["cause"] + (f" ({splat['rule']})" if splat["rule"] else ""))
    if splat["help"]:
        yield from _lines("to do", splat["help"])
    for text in splat["notes"]:
        yield from _lines("note", text)


def _line(key: str, text: str) -> str:
    return f"  {key:<10} {text}\n"


def _lines(key: str, text: str) -> Iterator[str]:
    """A long text behind its key, wrapped."""
    for i, line in enumerate(textwrap.wrap(printable(text), WIDTH)):
        yield _line("" if i else key, line)
