"""What the enabled sites of an object call, and what is to be seen when they are executed."""

from __future__ import annotations

from functools import partial

import numpy as np

from ftpatch.arrays import U32
from ftpatch.elf import tables as t
from ftpatch.kernel.noreturn import NORETURN
from ftpatch.proof.case import NEW, OLD, RETIRED, Case, Pairs, SiteCalls
from ftpatch.proof.emulate.expectation import SiteExpectation
from ftpatch.proof.emulate.loader import Loaded, load_module
from ftpatch.proof.object_sites import rows_by_place

UNKNOWN = "{} is defined elsewhere: that it keeps the contract of the sites is not shown"


def check_calls(case: Case, pairs: Pairs) -> None:
    """Every enabled site of the second file: the function that it calls."""
    image, back = case.after.image, pairs.differs & (pairs.old == RETIRED) & (pairs.new == OLD)
    at = np.flatnonzero((pairs.new == NEW) | back)
    loaded = load_module(image, case.arch, near=True)
    case.memory = loaded.memory
    places = {sec: rows_by_place(image, sec) for sec in np.unique(pairs.sec[at]).tolist()}
    judged: dict[int, str] = {}
    called: dict[int, int] = {}  # pair → symbol
    for i in at.tolist():
        field = int(pairs.off[i]) + pairs.shape.size - 4
        (row,) = (row for row in places[int(pairs.sec[i])][field] if row.kind != case.arch.none)
        if row.symbol not in judged:
            judged[row.symbol] = "" if back[i] else _wrong(case, pairs, loaded, row.symbol)
        if judged[row.symbol]:
            pairs.say("verify-branch", i, f"it calls {image.symbols.name(row.symbol)}, {judged[row.symbol]}")
        else:
            called[i] = row.symbol
    names = tuple(frozenset((image.symbols.name(symbol),)) for symbol in called.values())
    n = len(names)
    case.calls = SiteCalls(pairs.pos[list(called)] if n else pairs.pos[:0], np.zeros(n, np.uint64),
                           np.zeros(n, np.uint64), names)  # fmt: skip
    case.callees.update(image.symbols.name(symbol) for symbol in called.values())
    called = {i: symbol for i, symbol in called.items() if not back[i]}
    outside = {symbol for symbol in called.values() if image.symbols.shndx[symbol] == t.SHN_UNDEF}
    case.notes += [UNKNOWN.format(image.symbols.name(symbol)) for symbol in sorted(outside)]
    case.expect_later = partial(_expect, case, pairs, loaded, called)


def _wrong(case: Case, pairs: Pairs, loaded: Loaded, symbol: int) -> str:
    """Why sites must not call a symbol; empty where they may."""
    image, symbols = case.after.image, case.after.image.symbols
    sec, kind, name = int(symbols.shndx[symbol]), int(symbols.type[symbol]), symbols.name(symbol)
    if name in NORETURN:
        return "which never returns"
    if sec == t.SHN_UNDEF:
        return "" if name else "a symbol without a name"
    if not 0 < sec < len(image.names) or not image.executable[sec] or kind not in (0, t.STT_FUNC):
        return "which is no function"
    own = (pairs.new == NEW) & (pairs.sec == sec)
    va = int(image.base[sec]) + int(symbols.rows["st_value"][symbol])
    holder = int(image.functions.containing(np.array([va], dtype=np.uint64))[0])
    if own.any() and holder >= 0:
        inside = image.functions.containing(pairs.va(pairs.off)[own]) == holder
        if inside.any():
            return "which is itself enabled and leads back to itself"
    if case.forced:
        return ""
    memory = loaded.memory

    def read(va: int, n: int) -> U32:
        if case.arch.unit == 1:
            return np.frombuffer(memory.read(va & (1 << 64) - 1, n), dtype=np.uint8).astype(np.uint32)
        words, there = memory.words(np.array([va + 4 * i & (1 << 64) - 1 for i in range(n)], dtype=np.uint64))
        return words[: int(np.argmin(there))] if not there.all() else words

    entry = int(loaded.symbols.va[symbol] + loaded.symbols.local[symbol])
    reason = case.arch.keeps_contract(read, entry, False, library=pairs.shape.library)
    return f"which was not shown to keep a site's contract ({reason})" if reason else ""


def _at_entry(pairs: Pairs, at: int) -> bool:
    """Whether a site is where the layout has it in its function, and not deeper in it."""
    case = pairs.case
    side, row = (case.before, pairs.before[at]) if pairs.before[at] >= 0 else (case.after, pairs.after[at])
    to_entry = pairs.shape.to_entry(side.sites.window[row : row + 1])[0]
    return int(side.sites.local_va[row]) == int(side.sites.va[row]) + int(to_entry)


def _expect(case: Case, pairs: Pairs, loaded: Loaded, called: dict[int, int]) -> None:
    """What is to be seen when the sites are executed; each from its function's entry on, or from the site, behind a
    prologue."""
    shape, symbols = pairs.shape, loaded.symbols
    for at, symbol in called.items():
        sec, site = int(pairs.sec[at]), int(pairs.off[at])
        inside = shape.anywhere or not _at_entry(pairs, at)
        entry = loaded.va(sec, site if inside else pairs.entry_off(at))
        target = int(symbols.va[symbol] + symbols.local[symbol])
        resume = loaded.va(sec, site + shape.size)
        case.expectations.append(SiteExpectation(pairs.name(at), entry, resume, target, None, library=shape.library))
