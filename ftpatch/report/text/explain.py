"""The text of `explain`: a paragraph per site, its words as a listing; or a message taken apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ftpatch.arch import shape_named
from ftpatch.errors import printable
from ftpatch.report import Document
from ftpatch.report.text.lines import Style, line, or_dash, style_of, wrapped

if TYPE_CHECKING:
    from ftpatch.document.explained import (
        AbsentObject,
        CodeBlock,
        ExplainedRow,
        SlotObject,
        SplatRow,
        SymbolRow,
    )
    from ftpatch.document.types import ImageObject, SiteRow

WIDEST = 44  # characters of an instruction, in the column of the listing
PHASES = {"init": "at boot or load", "on": "when it was to be traced", "off": "when tracing it ended",
          "update": "when its tracer changed"}  # fmt: skip


def render(document: Document) -> Iterator[str]:
    """The text of one `explain`."""
    style = style_of(document)
    for i, splat in enumerate(document.splats):
        yield "\n" if i else ""
        yield from _splat(document.images[0] if document.images else None, splat, style)
    for image in document.images:
        if "absent" in image:
            yield from _absent(image, image["absent"], style)
        told = image.get("explained", ())
        for i, (site, more) in enumerate(zip(image["sites"] if told else (), told, strict=True)):
            yield "\n" if i else ""
            yield from _site(image, site, more, style)
        for symbol in image.get("others", ()):
            yield f"not traceable: {_symbol(symbol)}\n"


def _site(image: ImageObject, site: SiteRow, told: ExplainedRow, style: Style) -> Iterator[str]:
    """One site of a file."""
    file = told["symbols"][0]["file"] if told["symbols"] else None
    name = printable(site["function"] or "(no name)") + (f"@{printable(file)}" if file else "")
    yield f"{style[0]}{name}{style[1]}: {told['verdict']}\n"
    yield line("file", f"{printable(image['file'])}, {image['arch']} {image['kind']}")
    if told["source"]:
        yield line("source", printable(told["source"]))
    for one in told["symbols"]:
        where = f" of {printable(one['file'])}" if one["file"] else ""
        yield line("symbol", f"{printable(one['name'])}, {one['bind']}{where}, at {one['value']}, {one['size']} bytes")
    if site["listed_as"]:
        yield line("listed as", printable(site["listed_as"]))
    yield from _record(told["slot"], told["row"])
    if told["place"]:
        yield line("place", f"{printable(told['place'])}, file position {site['pos']}")
        yield line("addresses", f"entry {site['entry']}, site {site['site']}, call {site['branch']}")
    shape = shape_named(image["arch"], image["layout"])
    yield line("layout", f"{image['layout']}: {shape.text}" if shape else image["layout"])
    for block in told["code"]:
        yield from _listing(block)
    yield from _patch(told)


def _record(slot: SlotObject | None, row: int | None) -> Iterator[str]:
    if slot is None:
        yield line("record", "none names it")
        return
    where = f" at {slot['va']}" if slot["va"] else ""
    row_text = f" (row {slot['relocation']} of .rela.dyn)" if slot["relocation"] is not None else ""
    yield line("record", f"row {row}: slot{where}, file position {slot['pos']}, worth {slot['value']}")
    yield line("", f"its value is {slot['carried']}{row_text}; the word there is {slot['word']}")


def _listing(block: CodeBlock) -> Iterator[str]:
    """Words as they are; behind an arrow as they would be."""
    if not block["words"]:
        return
    yield f"  {block['what']}\n"
    texts = [printable(word["text"]) for word in block["words"]]
    width = min(max(len(text) for text in texts), WIDEST)
    for word, text in zip(block["words"], texts, strict=True):
        row = f"    {word['va'][2:]}  {word['word'][2:]}  {text:<{width}}"
        if word["new_word"]:
            row += f"  ->  {word['new_word'][2:]}  {printable(word['new_text'] or '')}"
        yield (row + (f"   <- {word['at']}" if word["at"] else "")).rstrip() + "\n"


def _patch(told: ExplainedRow) -> Iterator[str]:
    patch, concurrency = told["patch"], told["concurrency"]
    if patch is None or concurrency is None:
        yield from wrapped("enable", f"refused: {told['refused']}")
        return
    way = "" if patch["distance"] is None else f", {patch['distance']:+#x} bytes away"
    stub = f" through a stub at {patch['stub']}" if patch["stub"] else ""
    yield line("enable", f"{patch['action']} {patch['target']}{stub}{way}" + (
        f" ({patch['reason']})" if patch["reason"] else ""))  # fmt: skip
    if patch["literal"]:
        yield line("ops", f"{patch['literal']} by {patch['ops_via']}")
    yield from wrapped("record", f"{patch['records']}: {patch['records_why']}")
    yield from wrapped("live", f"{concurrency['class']}: {concurrency['text']}")
    for one in told["edits"]:
        yield from wrapped("", f"{one['what']} {one['old']} -> {one['new']}: {one['class']}, {one['text']}")


def _symbol(symbol: SymbolRow) -> str:
    file = f"@{symbol['file']}" if symbol["file"] else ""
    return f"{printable(symbol['name'] + file)} at {symbol['va']} in {printable(symbol['section'])}: {symbol['text']}"


def _absent(image: ImageObject, absent: AbsentObject, style: Style) -> Iterator[str]:
    """A name without a site."""
    yield f"{style[0]}{printable(absent['function'])}{style[1]}: not traceable in {printable(image['file'])}\n"
    yield from wrapped("why", absent["text"])
    yield from (line("symbol", _symbol(one)) for one in absent["symbols"])
    for one in absent["renamed"]:
        yield line("renamed", f"{printable(one['name'])}, {one['text']}")
    inlined = absent["inlined"]
    if inlined["units"]:
        yield line(
            "inlined", f"{inlined['copies']} copies, in {inlined['units']} source files that debug information lists"
        )
    elif inlined["unreadable"] and not absent["symbols"]:
        yield line("inlined", f"unknown: {inlined['unreadable']}")
    modules = absent["modules"]
    if modules is None:
        yield line("modules", "not searched (--modules DIR looks in a tree)")
    else:
        yield line("modules", ", ".join(map(printable, modules)) or "none of the tree has it")
    if absent["near"]:
        yield line("near", ", ".join(map(printable, absent["near"])))


def _splat(image: ImageObject | None, splat: SplatRow, style: Style) -> Iterator[str]:
    """One message of a kernel."""
    name = f"{splat['function']}+{splat['offset']}" if splat["function"] else splat["ip"] or "an unnamed site"
    where = f" [{splat['module']}]" if splat["module"] else ""
    when = f", {PHASES[splat['phase']]}" if splat["phase"] else ""
    yield f"{style[0]}{printable(name + where)}{style[1]}: ftrace {splat['what'] or 'complained'}{when}\n"
    told = ", ".join(printable(text) for text in (splat["machine"], splat["release"]) if text)
    yield line("kernel", told or "not told")
    at_call = splat["actual"] and f"{splat['actual']} at the call"
    for key, word in (("expected", splat["expected"]), ("found", splat["found"]), ("actual", at_call)):
        if word:
            yield line(key, word)
    for remark in splat["remarks"]:
        yield from wrapped("said", f"{printable(remark['message'])}: {remark['text']}")
    for site in splat["sites"]:
        words = " ".join(word[2:] for word in site["words"])
        yield line("site", f"row {or_dash(site['row'])}, {site['place']}, {site['status']}: {words}")
    if image is not None:
        shape = shape_named(image["arch"], image["layout"])
        yield line("layout", f"{image['layout']}: {shape.text}" if shape else image["layout"])
    yield from wrapped("cause", splat["cause"] + (f" ({splat['rule']})" if splat["rule"] else ""))
    if splat["help"]:
        yield from wrapped("to do", splat["help"])
    for text in splat["notes"]:
        yield from wrapped("note", text)
