"""Why a function is traceable or not, told from symbols, sections and words.

Whether somebody wrote `notrace` stands nowhere in the file: a function without a patch site was compiled without one.
What can be told is whether the site is there, whether it is enabled, and whether a record names it; and of a name
without a function, what the compiler may have made of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from ftpatch.arch.shape import MATCH_OLD, Shape
from ftpatch.arrays import I64, U8
from ftpatch.elf import debug_names
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.sites.table import OUTSIDE, READY, SiteTable

STATES = ("traceable", "broken", "enabled", "unlisted", "siteless")
TRACEABLE, BROKEN, ENABLED, UNLISTED, SITELESS = range(5)
TEXTS = {
    "traceable": "a live record names its site, which is as the kernel expects it",
    "broken": "a live record names its site, which is not as the kernel expects it: an ftrace bug at boot",
    "enabled": "its site is enabled on disk, and no record names it",
    "unlisted": "it begins with the NOPs of a site, but no record names it: dropped from the table, or never a site",
    "siteless": "compiled without a patch site: notrace, assembly, or a file without the tracer's flags",
}
SECTIONS = (  # text that is never traced, and why
    (r"\.noinstr\.text|\.entry\.text|\.cpuidle\.text|\.sched\.text\.noinstr", "noinstr code is never traced"),
    (r"\.head\.text|\.idmap\.text|\.hyp\.text|\.hibernate_exit\.text|\.kprobes\.text",
     "code of that section runs where no tracer can"),
    (r"\.exit\.text", "exit functions have no records"),
    (r"\.text\.unlikely.*|\.ref\.text", ""),
)  # fmt: skip
CLONE = re.compile(r"\.(?:isra|constprop|part|cold|lto_priv|llvm|localalias)\b[.\w]*$")
CLONES = {
    "isra": "with other parameters (.isra)", "constprop": "for constant arguments (.constprop)",
    "part": "in parts, the rest inlined (.part)", "cold": "its unlikely part (.cold), which has no entry of its own",
    "lto_priv": "by link-time optimisation", "llvm": "by link-time optimisation", "localalias": "by an alias",
}  # fmt: skip
N_NEAR, N_TRIED = 5, 60


@dataclass(frozen=True)
class Named:
    """One symbol of a wanted name."""

    name: str
    file: str | None  # source file of a local symbol
    section: str
    va: int  # the symbol's value: in a module, the offset in its section
    state: str  # of STATES; "" for what is no function
    text: str  # why it is in that state

    @property
    def has_site(self) -> bool:
        """Whether the site table has it."""
        return self.state in ("traceable", "broken", "enabled")


def states(image: Image, table: SiteTable) -> tuple[U8, I64]:
    """Per function of `image.functions`: its state, and its site in the table or −1."""
    n = len(image.functions.va)
    state, site = np.full(n, SITELESS, dtype=np.uint8), np.full(n, -1, dtype=np.int64)
    if table.shape is not None and n:
        found = _site_words(image, table.shape)
        state[found == MATCH_OLD] = UNLISTED
    named = np.flatnonzero(table.func < table.func_end)
    listed = (table.row >= 0) & (table.status != OUTSIDE)
    value = np.where(listed, np.where(table.status == READY, TRACEABLE, BROKEN), ENABLED).astype(np.uint8)
    for shift in range(int((table.func_end - table.func)[named].max(initial=0))):  # aliases: one or two, rarely more
        more = named[table.func[named] + shift < table.func_end[named]]
        site[table.func[more] + shift], state[table.func[more] + shift] = more, value[more]
    return state, site


def _site_words(image: Image, shape: Shape) -> U8:
    """MATCH_* per function, of the words where the layout puts its site."""
    functions = image.functions
    entry = functions.va if shape.at_global else functions.local
    sec, off = image.place(entry)
    sec = np.where((sec >= 0) & image.executable[np.maximum(sec, 0)], sec, -1)
    if shape.anywhere:
        return np.zeros(len(sec), dtype=np.uint8)
    off = off - shape.entry
    found = shape.match(image.window(sec, off))
    if shape.skip_at < 0 and shape.skips:
        moved = image.window(sec, off + shape.unit * shape.skip_words)
        found = np.where((found == 0) & shape.skipped(moved), shape.match(moved), found)
    found[sec < 0] = 0
    return np.asarray(found, dtype=np.uint8)


def text_of(state: str, section: str) -> str:
    """Why a function in that state and section is as it is."""
    hint = next((text for pattern, text in SECTIONS if re.fullmatch(pattern, section)), "")
    return f"in {section}: {hint}" if state == "siteless" and hint else TEXTS[state]


def named(image: Image, table: SiteTable, name: str) -> list[Named]:
    """Every defined symbol of that name, and why it is traceable or not."""
    symbols, functions = image.symbols, image.functions
    state, _ = states(image, table)
    at = {int(row): i for i, row in enumerate(functions.row.tolist())} if len(symbols.rows_named(name)) else {}
    found = []
    for row in symbols.rows_named(name).tolist():
        sec = int(symbols.shndx[row])
        kind = int(symbols.type[row])
        if kind in (t.STT_SECTION, t.STT_FILE) or sec == t.SHN_UNDEF:
            continue
        section = image.names[sec] if sec > 0 else "no section"
        told = STATES[state[at[row]]] if row in at else ""
        text = text_of(told, section) if told else _no_function(kind, section)
        found.append(Named(name, symbols.file_of(row), section, int(symbols.rows["st_value"][row]), told, text))
    return found


def _no_function(kind: int, section: str) -> str:
    what = {0: "a label without type, as assembly makes them", t.STT_OBJECT: "data"}.get(
        kind, f"a symbol of type {kind}"
    )
    return f"no function symbol but {what}, in {section}"


def imported(image: Image, name: str) -> bool:
    """Whether the file uses the name without defining it: it is in the kernel or another module."""
    rows = image.symbols.rows_named(name)
    return bool((image.symbols.shndx[rows] == t.SHN_UNDEF).any()) and name != ""


def clones(image: Image, name: str) -> list[tuple[str, str]]:
    """What the compiler made of a function: (symbol, what that is), in the order of the names."""
    wanted, strtab, found = f"\0{name}.".encode(), image.symbols.strtab, set()
    at = strtab.find(wanted)
    while at >= 0:
        end = strtab.find(b"\0", at + 1)
        found.add(strtab[at + 1 : end if end >= 0 else None].decode("utf-8", "backslashreplace"))
        at = strtab.find(wanted, at + 1)
    named = []
    for one in sorted(found):
        kind = one.removeprefix(f"{name}.").partition(".")[0]
        if kind in CLONES and len(image.symbols.rows_named(one)):
            named.append((one, CLONES[kind]))
    return named


def base_name(name: str) -> str:
    """The name in the source, without what the compiler added."""
    return CLONE.sub("", name)


def near(image: Image, name: str) -> list[str]:
    """Functions whose names are most like this one, best first."""
    wanted = _pieces(name)
    symbols, functions = image.symbols, image.functions
    ranked: list[tuple[float, str]] = []
    for row in functions.row.tolist():  # every name once: a fifth of a second for a kernel
        other = symbols.name(row)
        shared = len(wanted & _pieces(other))
        if shared * 2 >= len(wanted):
            ranked.append((shared - 0.3 * abs(len(other) - len(name)), other))
    best = [other for _, other in sorted(set(ranked), key=lambda one: (-one[0], one[1]))[:N_TRIED]]
    scored = [(SequenceMatcher(None, name, other).ratio(), other) for other in best]
    return [other for score, other in sorted(scored, key=lambda one: (-one[0], one[1])) if score > 0.6][:N_NEAR]


def _pieces(name: str) -> set[str]:
    return {name[i : i + 3] for i in range(max(1, len(name) - 2))}


@dataclass(frozen=True)
class Absence:
    """Why there is no site for a name: what else the file knows of it."""

    name: str
    symbols: tuple[Named, ...]  # of that very name
    clones: tuple[tuple[str, str], ...]  # what the compiler made of it: symbol, and what that is
    imported: bool  # used here, defined elsewhere
    debug: debug_names.DebugMention
    near: tuple[str, ...]  # names that are much like it
    modules: tuple[str, ...] | None = None  # those of a tree that have it; None: no tree was searched

    @property
    def known(self) -> bool:
        """Whether anything knows the name."""
        return bool(self.symbols or self.clones or self.imported or self.debug.mentioned or self.modules)

    @property
    def text(self) -> str:
        """The likeliest answer, in one sentence."""
        copies = sum(one.copies for one in self.debug.functions)
        if self.symbols:
            return self.symbols[0].text
        if self.clones:
            return f"the compiler renamed it to {self.clones[0][0]}: {self.clones[0][1]}"
        if self.modules:
            return f"it is in {self.modules[0]}" + (f" and {len(self.modules) - 1} more" if self.modules[1:] else "")
        if self.imported:
            return "it is used here and defined elsewhere: in the kernel or in another module"
        if any(one.inlined for one in self.debug.functions):
            return f"inlined everywhere, {copies} times: no code of its own is left to trace"
        if self.debug.functions:
            return "no function symbol: debug information knows it as declared, so it was removed or is elsewhere"
        if self.debug.mentioned:
            return "no function symbol: debug information knows the name, but not as a function with code"
        return "nothing of that name"


def absence(image: Image, table: SiteTable, name: str, modules: tuple[str, ...] | None = None) -> Absence:
    """What a file knows of a name that no site bears."""
    symbols, made = tuple(named(image, table, name)), tuple(clones(image, name))
    debug = debug_names.DebugMention("", False, ()) if symbols else debug_names.find(image, name)
    lost = not (symbols or made or debug.functions or modules)
    return Absence(name, symbols, made, imported(image, name), debug, tuple(near(image, name)) if lost else (), modules)
