"""Why a function is traceable or not, told from symbols, sections and words.

Whether somebody wrote `notrace` stands nowhere in the file: a function without a patch site was compiled without one.
What can be told is whether the site is there, whether it is enabled, and whether a record names it; and of a name
without a function, what the compiler may have made of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ftpatch.arch.shape import MATCH_OLD, Shape
from ftpatch.arrays import I64, U8, U64, is_in
from ftpatch.elf import debug_names
from ftpatch.elf import tables as t
from ftpatch.elf.clone_names import base_name, is_part
from ftpatch.elf.function_names import function_names
from ftpatch.elf.image import Image
from ftpatch.elf.kind import PROGRAMS
from ftpatch.elf.recovered import is_nameless
from ftpatch.explanation.redirected import leading_to_named
from ftpatch.explanation.told import unit_of
from ftpatch.kernel.callee import apart
from ftpatch.near_names import near_names
from ftpatch.sites.clones import Clone, clones_of
from ftpatch.sites.elsewhere import records_elsewhere
from ftpatch.sites.profiler_calls import calls_through_pointer
from ftpatch.sites.table import ARMED, OFF, OUTSIDE, PADDED, READY, STRIPPED, UNNAMED, UNRECORDED, SiteTable
from ftpatch.sites.table import ENABLED as CALLS
from ftpatch.sites.units import UnitTable

if TYPE_CHECKING:
    from ftpatch.document.explained import AbsentObject, RenamedRow, SymbolRow, UnitMention

NAMELESS = "not known: the kernel has no names at all, its functions are called by their addresses"
NOTHING = "nothing of that name"
STATES = ("traceable", "broken", "enabled", "unlisted", "siteless", "unrecorded", "off", "calling", "damaged")
WITH_SITE = ("traceable", "broken", "enabled", "unrecorded", "off", "calling", "damaged")  # the site table has them
TRACEABLE, BROKEN, ENABLED, UNLISTED, SITELESS, NO_RECORD, SWITCHED_OFF, CALLING, DAMAGED = range(9)
TEXTS = {
    "traceable": "a live record names its site, which is as the kernel expects it",
    "broken": "a live record names its site, which is not as the kernel expects it: an ftrace bug at boot",
    "enabled": "its site is enabled on disk, and no record names it",
    "unlisted": "it begins with the NOPs of a site, but no record names it: dropped from the table, or never a site",
    "unrecorded": "it calls the profiling function (-pg), and no record names the call: recordmcount or objtool did "
    "not run, or left it out",
    "off": "its call of the profiling function (-pg) was made a NOP, and no record names it",
    "calling": "its site calls something already, as a patch made it",  # in programs, as the next
    "damaged": "a record names its site, which holds neither what the compiler left nor a call",
    "siteless": "compiled without a patch site: notrace, assembly, or a file without the tracer's flags",
}
THROUGH_POINTER = "it calls the profiling function (-pg) through a pointer ({}), which no tracer can switch"
TRAMPOLINE = "__SCT__"  # how the symbols of static calls' trampolines begin
SECTIONS = (  # text that is never traced, and why
    (r"\.noinstr\.text|\.entry\.text|\.cpuidle\.text|\.sched\.text\.noinstr", "noinstr code is never traced"),
    (r"\.head\.text|\.idmap\.text|\.hyp\.text|\.hibernate_exit\.text|\.kprobes\.text",
     "code of that section runs where no tracer can"),
    (r"\.exit\.text", "exit functions have no records"),
    (r"\.text\.unlikely.*|\.ref\.text", ""),
)  # fmt: skip
NO_FUNCTIONS = {0: "a label without type, as assembly makes them", t.STT_OBJECT: "data"}
SITE_OF_CLONE = {True: "that is traceable", False: "that has no site as the kernel expects it"}
N_NEAR = 5  # names like the one asked for that are shown
SLICE = 1 << 18  # functions whose words are looked at together: each has a few dozen bytes around its entry


def states(image: Image, table: SiteTable) -> tuple[U8, I64]:
    """Per function of `image.functions`: its state, and its site in the table or −1."""
    n = len(image.functions.va)
    state, site = np.full(n, SITELESS, dtype=np.uint8), np.full(n, -1, dtype=np.int64)
    if table.shape is not None and not table.shape.called and n:  # a call tells nothing: compilers make them, too
        state[_site_words(image, table.shape) == MATCH_OLD] = UNLISTED
    listed = (table.row >= 0) & (table.status != OUTSIDE)
    value = np.where(listed, np.where(table.status == READY, TRACEABLE, BROKEN), ENABLED).astype(np.uint8)
    value[table.status == UNRECORDED] = NO_RECORD
    value[table.status == OFF] = SWITCHED_OFF
    if image.kind in PROGRAMS:
        value[value == BROKEN] = DAMAGED
        value[table.status == CALLS] = CALLING
        value[table.status == ARMED] = TRACEABLE  # its switch is still what the compiler left
        value[table.status == PADDED] = SITELESS
    functions, first = table.entries.first_sites()  # of two sites in one function, the one with a record comes first
    site[functions], state[functions] = first, value[first]
    return state, site


def _site_words(image: Image, shape: Shape) -> U8:
    """MATCH_* per function, of the words where the layout puts its site."""
    functions = image.functions
    entry = functions.va if shape.at_global else functions.local
    match = np.zeros(len(entry), dtype=np.uint8)
    for at in range(0, len(entry), SLICE):
        match[at : at + SLICE] = _words_at(image, shape, entry[at : at + SLICE])
    return match


def _words_at(image: Image, shape: Shape, entry: U64) -> U8:
    """As `_site_words`, of the functions with these entries."""
    sec, off = image.place(entry)
    sec = np.where((sec >= 0) & image.executable[np.maximum(sec, 0)], sec, -1)
    if shape.anywhere:
        return np.zeros(len(sec), dtype=np.uint8)
    off = off - shape.entry
    match = shape.match(image.window(sec, off, shape.reads))
    if shape.skip_at < 0 and shape.skips:
        moved = image.window(sec, off + shape.unit * shape.skip_words, shape.reads)
        match = np.where((match == 0) & shape.skipped(moved), shape.match(moved), match)
    match[sec < 0] = 0
    return np.asarray(match, dtype=np.uint8)


def text_of(state: str, section: str) -> str:
    """Why a function in that state and section is as it is."""
    hint = next((text for pattern, text in SECTIONS if re.fullmatch(pattern, section)), "")
    return f"in {section}: {hint}" if state == "siteless" and hint else TEXTS[state]


def symbols_named(image: Image, table: SiteTable, name: str) -> list[SymbolRow]:
    """Every defined symbol of that name, and why it is traceable or not."""
    symbols = image.symbols
    state, _ = states(image, table)
    units = UnitTable(table)
    rows: list[SymbolRow] = []
    for row in symbols.rows_named(name).tolist():
        sec, kind = int(symbols.shndx[row]), int(symbols.type[row])
        if kind in (t.STT_SECTION, t.STT_FILE) or sec == t.SHN_UNDEF:
            continue
        section = image.names[sec] if sec > 0 else "no section"
        at = table.entries.functions_of(np.array([row]))
        known = STATES[state[at[0]]] if len(at) else ""
        unit: UnitMention | None = None
        what = NO_FUNCTIONS.get(kind, f"a symbol of type {kind}")
        text = text_of(known, section) if known else f"no function symbol but {what}, in {section}"
        if kind == t.STT_FUNC and not len(at):
            text = "padding in front of a function, which the symbol is named after: no function itself"
        if known == "siteless":
            text = _why_siteless(image, row) or text
            unit = unit_of(units, int(image.functions.va[at[0]]))
            text = unit["text"] if text == TEXTS["siteless"] and unit["text"] else text
        if known == "unlisted" and (elsewhere := record_elsewhere(table, int(at[0]))):
            text = (
                f"not to be traced: its record is in {elsewhere}, which no kernel reads; its NOPs are those of a site"
            )
        if known == "siteless" and table.shape is None and _calls_through_pointer(image, int(at[0])):
            text = THROUGH_POINTER.format(image.arch.pointer_options)
        va = f"0x{int(symbols.rows['st_value'][row]):016x}"
        rows.append({"name": name, "file": symbols.file_of(row), "section": section, "va": va, "state": known,
                     "text": text})  # fmt: skip
        if unit is not None:
            rows[-1]["unit"] = unit
    return rows


def _why_siteless(image: Image, row: int) -> str:
    """Why the code at a function symbol has no patch site, where more than the section's name tells; else empty."""
    name = image.symbols.name(row)
    if image.arch.static_calls is not None and name.startswith(TRAMPOLINE):
        return (
            f"the trampoline of a static call, whose sites ftpatch static-calls --key {name[len(TRAMPOLINE) :]} tells"
        )
    if is_part(name):
        return f"a part of {base_name(name)}, which has the site at its own entry if it has one"
    kind = apart(image, row) if image.linked else ""
    return f"{kind}, which is never traced" if kind else ""


def _calls_through_pointer(image: Image, function: int) -> bool:
    """Whether the function calls what this machine's compilers call for -pg, in a way that is no patch site."""
    called = {shape.called for shape in image.arch.shapes if shape.called}
    return any(calls_through_pointer(image, name, function) for name in called)


def record_elsewhere(table: SiteTable, function: int) -> str | None:
    """The section that no kernel reads and that has the record of a function of `image.functions`."""
    functions, shape = table.image.functions, table.shape
    if shape is None:
        return None
    entry = int((functions.va if shape.at_global else functions.local)[function])
    places = ((name, va.tolist()) for name, va in records_elsewhere(table.image).items())
    return next((name for name, va in places if entry - shape.entry in va), None)


def renamed(table: SiteTable, clones: Sequence[Clone]) -> list[RenamedRow]:
    """What the compiler made of a function, for reports."""
    return [{"name": clone.name, "text": clone.text, "whole": clone.whole, "rows": _rows(table, clone),
             "traceable": is_traceable(table, clone)} for clone in clones]  # fmt: skip


def _rows(table: SiteTable, clone: Clone) -> list[int]:
    return [row for row in table.row[list(clone.sites)].tolist() if row >= 0]


def is_traceable(table: SiteTable, clone: Clone) -> bool:
    """Whether a live record names one of its sites, which is as the compiler left it."""
    return any(table.row[site] >= 0 and table.status[site] == READY for site in clone.sites)


def near(image: Image, name: str) -> list[str]:
    """Functions whose names are most like this one, best first."""
    return near_names(name, function_names(image), N_NEAR)


def absence(image: Image, table: SiteTable, name: str, modules: Sequence[str] | None = None) -> AbsentObject:
    """What a file knows of a name that no site bears. modules: of a tree, that have it; None: none was searched."""
    symbols, clones = symbols_named(image, table, name), renamed(table, clones_of(table, name))
    debug = debug_names.DebugMention("", False, ()) if symbols else debug_names.find(image, name)
    inlined = [function for function in debug.functions if function.inlined]
    used = bool((image.symbols.shndx[image.symbols.rows_named(name)] == t.SHN_UNDEF).any())  # and defined elsewhere
    absent: AbsentObject = {
        "function": name,
        "text": "",
        "symbols": symbols,
        "renamed": clones,
        "inlined": {
            "units": len(inlined), "copies": sum(function.copies for function in inlined),
            "unreadable": debug.unreadable or None,
        },
        "imported": used and name != "",
        "modules": None if modules is None else list(modules),
        "near": [] if symbols or clones or debug.functions or modules else near(image, name),
    }  # fmt: skip
    if here := leading_to_named(table, name):
        absent["leads_here"] = here
    n_stripped = int(is_in(table.status, (STRIPPED, UNNAMED)).sum())
    absent["text"] = NAMELESS if is_nameless(image.recovered) else _likeliest(absent, debug, n_stripped)
    return absent


def _likeliest(absent: AbsentObject, debug: debug_names.DebugMention, n_stripped: int) -> str:
    """The likeliest answer, in one sentence. n_stripped: sites whose names are, or may be, stripped."""
    if absent["symbols"]:
        first_symbol = absent["symbols"][0]
        if first_symbol["state"] == "traceable":  # NAME@FILE of another file, or of a global symbol
            return f"the symbol table does not tell that file of it; without @, {first_symbol['name']} is found"
        return first_symbol["text"]
    if absent["renamed"]:
        clone = absent["renamed"][0]
        if clone["whole"]:
            return f"the compiler renamed it to {clone['name']}: {clone['text']}; {SITE_OF_CLONE[clone['traceable']]}"
        return f"only {clone['name']} is left of it, {clone['text']}: not the function itself"
    if absent["modules"]:
        first, *others = absent["modules"]
        return f"it is in {first}" + (f" and {len(others)} more" if others else "")
    if absent["imported"]:
        return "it is used here and defined elsewhere: in the kernel or in another module"
    if n_stripped:
        return f"{NOTHING}, but {n_stripped} functions here have none any more: it may be one whose name is stripped"
    if absent["inlined"]["units"]:
        copies = sum(function.copies for function in debug.functions)
        return f"inlined everywhere, {copies} times: no code of its own is left to trace"
    if debug.functions:
        return "no function symbol: debug information knows it as declared, so it was removed or is elsewhere"
    if debug.mentioned:
        return "no function symbol: debug information knows the name, but not as a function with code"
    return NOTHING
