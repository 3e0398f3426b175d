"""The text of `explain`: a paragraph per site, its words as a listing; or a message taken apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ftpatch.errors import printable
from ftpatch.report import Document
from ftpatch.report.text.lines import layout_text, line, live_lines, number, or_dash, title, wrapped

if TYPE_CHECKING:
    from ftpatch.document import explained
    from ftpatch.document.site_rows import SiteRow
    from ftpatch.document.types import ImageObject

N_LEADING = 5  # functions that are redirected to one, and are named
WIDEST = 44  # characters of an instruction, in the column of the listing
# what ftrace was about to do: of `Splat.phase`
PHASES = {"init": "at boot or load", "on": "when it was to be traced", "off": "when tracing it ended",
          "update": "when its tracer changed"}  # fmt: skip
BY = {
    "log": "",
    "bytes": " (by the bytes of the site)",
    "address": " (by its address)",
    "file": " (by the file)",
    None: "",
}


def render(document: Document) -> Iterator[str]:
    """The text of one `explain`."""
    for i, splat in enumerate(document.splats):
        yield "\n" if i else ""
        yield from _splat(document.images[0] if document.images else None, splat, document)
    for image in document.images:
        if "absent" in image:
            yield from _absent(image, image["absent"], document)
        yield from _traceable_as(image, document)
        for i, row in enumerate(image.get("explained", ())):
            yield "\n" if i else ""
            yield from _site(image, image["sites"][i], row, document)
        for symbol in image.get("others", ()):
            yield f"not traceable: {_symbol(symbol)}\n"
            yield from _unit(symbol)


def _traceable_as(image: ImageObject, document: Document) -> Iterator[str]:
    """The head of a function that has its sites under other names, or what else the compiler made of it."""
    names, clones = image.get("traceable_as", []), image.get("clones", [])
    if names:
        now = any(clone["traceable"] for clone in clones if clone["name"] in names)
        what = "traceable as" if now else "not traceable as it is; its code is that of"
        yield f"{title(image.get('asked', ''), document)}: {what} {', '.join(map(printable, names))}\n"
    for clone in clones:
        state = "" if clone["name"] in names else ", traceable" if clone["traceable"] else ", not traceable"
        yield from wrapped("compiled" if names else "also", f"{clone['name']}, {clone['text']}{state}")
    if clones:
        yield "\n"


def _site(image: ImageObject, site: SiteRow, row: explained.ExplainedRow, document: Document) -> Iterator[str]:
    """One site of a file."""
    file = row["symbols"][0]["file"] if row["symbols"] else None
    name = (site["function"] or "(no name)") + (f"@{file}" if file else "")
    yield f"{title(name, document)}: {printable(row['verdict'])}\n"
    yield line("file", f"{printable(image['file'])}, {image['arch']} {image['kind']}")
    if row["source"]:
        yield line("source", printable(row["source"]))
    elif row["source_unknown"]:
        yield from wrapped("source", f"not known: {row['source_unknown']}")
    for symbol in row["symbols"]:
        whole = symbol["name"] + f", {symbol['bind']}" + (f" of {symbol['file']}" if symbol["file"] else "")
        size = "its size is not known" if symbol["size"] is None else f"{symbol['size']} bytes"
        yield line("symbol", f"{printable(whole)}, at {symbol['value']}, {size}")
    if site["listed_as"]:
        yield line("listed as", printable(site["listed_as"]))
    yield from _record(row["slot"], row["row"])
    if row["place"]:
        yield line("place", f"{printable(row['place'])}, file position {site['pos']}")
        yield line("addresses", f"entry {site['entry']}, site {site['site']}, call {site['branch']}")
    yield line("layout", layout_text(image))
    yield from _leads_here(row.get("leads_here", []))
    for block in row["code"]:
        yield from _listing(block)
    yield from _patch(row)  # last: what enable would do


def _record(slot: explained.SlotObject | None, row: int | None) -> Iterator[str]:
    if slot is None:
        yield line("record", "none names it")
        return
    where = f" at {slot['va']}" if slot["va"] else ""
    row_text = f" (row {slot['relocation']} of .rela.dyn)" if slot["relocation"] is not None else ""
    yield line("record", f"row {row}: slot{where}, file position {slot['pos']}, worth {slot['value']}")
    yield line("", f"its value is {slot['carried']}{row_text}; the word there is {slot['word']}")


def _listing(block: explained.CodeBlock) -> Iterator[str]:
    """Words as they are; behind an arrow as they would be."""
    if not block["words"]:
        return
    yield f"  {printable(block['what'])}\n"
    texts = [printable(word["text"]) for word in block["words"]]
    width = min(max(len(text) for text in texts), WIDEST)
    n_digits = max(len(word["word"]) for word in block["words"]) - 2  # instructions of x86 differ in length
    for word, text in zip(block["words"], texts, strict=True):
        row = f"    {word['va'][2:]}  {word['word'][2:]:<{n_digits}}  {text:<{width}}"
        if word["new_word"]:
            row += f"  ->  {word['new_word'][2:]}  {printable(word['new_text'] or '')}"
        yield (row + (f"   <- {word['at']}" if word["at"] else "")).rstrip() + "\n"


def _patch(row: explained.ExplainedRow) -> Iterator[str]:
    patch, concurrency = row["patch"], row["concurrency"]
    if "redirected" in row and concurrency is not None:
        yield from wrapped("live", f"{concurrency['class']}: {concurrency['text']}")
    if patch is None or concurrency is None:
        yield from wrapped("enable", f"refused: {row['refused']}")
        return
    way = "" if patch["distance"] is None else f", {patch['distance']:+#x} bytes away"
    stub = f" through a stub at {patch['stub']}" if patch["stub"] else ""
    why = f" ({patch['reason']})" if patch["reason"] else ""
    yield line("enable", f"{patch['action']} {patch['target']}{stub}{way}{why}")
    if patch["literal"]:
        yield line("ops", f"{patch['literal']} by {patch['ops_via']}")
    yield from wrapped("record", f"{patch['records']}: {patch['records_why']}")
    yield from wrapped("live", f"{concurrency['class']}: {concurrency['text']}")
    for edit in row["edits"]:
        yield from wrapped("", f"{edit['what']} {edit['old']} -> {edit['new']}: {edit['class']}, {edit['text']}")
    if "live" in row:
        yield from live_lines("in all", row["live"])


def _leads_here(functions: Sequence[str]) -> Iterator[str]:
    """Who is redirected to the explained function."""
    names = ", ".join(functions[:N_LEADING]) + (
        f" and {len(functions) - N_LEADING} more" * (len(functions) > N_LEADING)
    )
    if functions:
        yield from wrapped("for", f"{names} {'is' if len(functions) == 1 else 'are'} redirected here")


def _symbol(symbol: explained.SymbolRow) -> str:
    file = f"@{symbol['file']}" if symbol["file"] else ""
    return f"{printable(symbol['name'] + file)} at {symbol['va']} in {printable(symbol['section'])}: {symbol['text']}"


def _unit(symbol: explained.SymbolRow) -> Iterator[str]:
    """What the compiler was told of the unit of a function without a site."""
    unit = symbol.get("unit")
    if unit is None:
        return
    switches = "" if unit["switches"] is None else f": {' '.join(unit['switches']) or 'nothing that matters for sites'}"
    known = ", ".join(filter(None, (unit["file"], unit["producer"]))) + switches
    unknown = f"not known: {unit['unknown']}" if unit["unknown"] else ""
    yield from wrapped("told", "; ".join(filter(None, (known, unknown))))


def _absent(image: ImageObject, absent: explained.AbsentObject, document: Document) -> Iterator[str]:
    """A name without a site."""
    yield f"{title(absent['function'], document)}: not traceable in {printable(image['file'])}\n"
    yield from wrapped("why", absent["text"])
    for symbol in absent["symbols"]:
        yield line("symbol", _symbol(symbol))
        yield from _unit(symbol)
    yield from _leads_here(absent.get("leads_here", []))
    for row in absent["renamed"]:
        yield line("renamed", f"{printable(row['name'])}, {row['text']}" + ", traceable" * row["traceable"])
    inlined, modules = absent["inlined"], absent["modules"]
    if inlined["units"]:
        files = f"{inlined['units']} source files that debug information lists"
        yield line("inlined", f"{inlined['copies']} copies, in {files}")
    elif inlined["unreadable"] and not absent["symbols"]:
        yield line("inlined", f"unknown: {inlined['unreadable']}")
    if modules is None:
        yield line("modules", "not searched (--modules DIR looks in a tree)")
    else:
        yield line("modules", ", ".join(map(printable, modules)) or "none of the tree has it")
    if absent["near"]:
        yield line("near", ", ".join(map(printable, absent["near"])))


def _splat(image: ImageObject | None, splat: explained.SplatRow, document: Document) -> Iterator[str]:
    """One message of a kernel."""
    name = f"{splat['function']}+{splat['offset']}" if splat["function"] else splat["ip"] or "an unnamed site"
    where = f" [{splat['module']}]" if splat["module"] else ""
    when = f", {PHASES[splat['phase']]}" if splat["phase"] else ""
    yield f"{title(name + where, document)}: ftrace {splat['what'] or 'complained'}{when}\n"
    machine = splat["machine"] and splat["machine"] + BY[splat["machine_by"]]
    kernel = ", ".join(printable(text) for text in (machine, splat["release"]) if text)
    yield line("kernel", kernel or "not told")
    yield from _words(splat)
    for remark in splat["remarks"]:
        yield from wrapped("said", f"{remark['message']}: {remark['text']}")
    for site in splat["sites"]:
        words = " ".join(word[2:] for word in site["words"])
        yield line("site", f"row {or_dash(site['row'])}, {site['place']}, {site['status']}: {words}")
    if image is not None:
        yield line("layout", layout_text(image))
    for i, cause in enumerate(splat["causes"]):
        text = cause["text"] + (f" ({cause['rule']})" if cause["rule"] else "")
        yield from wrapped("or" if i else "cause", f"{cause['certainty']}: {text}")
        if cause["help"]:
            yield from wrapped("to do", cause["help"])
    for text in splat["notes"]:
        yield from wrapped("note", text)


def _words(splat: explained.SplatRow) -> Iterator[str]:
    """What the kernel wanted and found, and its record."""
    texts = {"expected": splat["expected_text"], "actual": splat["actual_text"]}
    at_call = splat["actual"] and f"{splat['actual']} at the call"
    for key, word in (("expected", splat["expected"]), ("found", splat["found"]), ("actual", at_call)):
        if word:
            text = texts.get(key)
            yield line(key, word + (f": {text}" if text else ""))
    flags = splat["flags"]
    if flags and (flags["names"] or flags["users"]):
        users = [] if flags["users"] is None else [number(flags["users"], "tracer")]
        yield from wrapped("record", f"flags {flags['value']}: {', '.join([*flags['names'], *users])}")
    for tramp in splat["tramps"]:
        yield line("tracer", printable(tramp))
