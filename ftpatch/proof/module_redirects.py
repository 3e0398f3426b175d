"""Where the jumps of a patched module's redirected functions end, as their relocations say.

    b ─► the replacement                of the module, or where the loader's stubs change nothing, of another file
    b ─► a stub of the patch ─► ...     where each module has a TOC: one that enters its global entry with its address,
                                        or calls it from a frame of its own, so that the TOC pointers of others stay

A jump straight to another file would go by a stub of the loader's, which writes the TOC pointer into the caller's
frame. That word may hold another one already, which the caller loads again: a jump like that is a finding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.proof.case import REDIRECTED, Pairs
from ftpatch.proof.decoders import both
from ftpatch.proof.emulate.expectation import RedirectExpectation
from ftpatch.proof.module_code import OURS, Calls, Place
from ftpatch.proof.module_symbols import MARK, plain
from ftpatch.proof.redirect_stubs import FOREIGN, read_stub
from ftpatch.proof.redirects import (
    Landing,
    check_circles,
    check_replacement,
    function_at,
    function_of,
    keep_redirects,
    what_is_at,
    wrong_entry,
)


def check_redirects(calls: Calls) -> dict[int, Landing]:
    """Every redirected site of the second file: where it leads, by which stub, and whether it may; by pair."""
    case, pairs = calls.case, calls.pairs
    at = np.flatnonzero(pairs.new == REDIRECTED)
    seen = both(case.arch, pairs.words[at][:, : case.arch.call.n_units])
    ends: dict[int, Landing] = {}
    for number, i in enumerate(at.tolist()):  # a relocation per site
        why = seen.why[number]
        if not why and seen.distance[number]:
            why = f"its jump goes {int(seen.distance[number]):+#x} bytes before the loader fills it, expected 0"
        landing = Landing(why=why) if why else _landing(calls, i)
        if landing.why:
            pairs.say("verify-stub" if landing.stub else "verify-branch", i, landing.why)
        else:
            ends[i] = landing
    for i, landing in ends.items():
        sec = calls.image.symbols.shndx[landing.row]
        freed = bool(sec > 0) and calls.image.names[sec].startswith(".init")
        check_replacement(case, pairs, i, landing, freed and not _is_init(calls, i))
        _check_arguments(calls, i, landing)
    circles = check_circles(pairs, ends)
    for i in ends:
        if i not in circles:  # which never end
            _expect(calls, i, ends[i])
    _check_marks(calls, at.tolist())
    keep_redirects(case, pairs, ends)
    return ends


def jump_at(calls: Calls, sec: int, off: int) -> Place | str:
    """What the jump at a place goes to; or why that is not known."""
    wanted, named = calls.case.tables.jump_type, calls.named_at(sec, off, 4)
    if len(named) != 1:
        return f"{len(named)} relocations write its jump, expected one"
    at, kind, to = named[0]
    if (at, kind) != (off, wanted):
        return f"its jump has a relocation of type {kind} at {at:#x}, expected {wanted} at {off:#x}"
    return to


def _landing(calls: Calls, at: int) -> Landing:
    """Where a site's jump ends."""
    pairs, image, tables = calls.pairs, calls.image, calls.case.tables
    to = jump_at(calls, int(pairs.sec[at]), int(pairs.off[at]))
    if isinstance(to, str):
        return Landing(why=to)
    symbols = image.symbols
    name = symbols.name(to.symbol)
    if to.sec <= 0:
        if symbols.rows["st_shndx"][to.symbol] != t.SHN_UNDEF or to.off:
            return Landing(why=f"it jumps to {name}{to.off:+#x}, which is no function")
        why = f"it jumps to {name} in another file: {FOREIGN}" if tables.module_toc else ""
        return Landing(name, to.symbol, -1, calls.loaded.fakes.get(name, 0), why=why)
    new = to.sec >= len(calls.case.before.image.shdr) and to.sec not in calls.case.linked.functions
    if new or plain(image.names[to.sec]) in OURS:
        return _through_stub(calls, at, to)
    local = calls.case.arch.local_entry
    more = int(local(symbols.rows["st_other"][to.symbol : to.symbol + 1])[0]) if local else 0
    va = int(image.base[to.sec]) + to.off + more
    landing = function_at(image, va)
    if landing is None:
        return Landing(why=f"it jumps to {image.names[to.sec]}+{to.off + more:#x}, {what_is_at(image, va)}")
    if symbols.type[to.symbol] != t.STT_SECTION and to.off == int(symbols.rows["st_value"][to.symbol]):
        landing = replace(landing, name=name, row=to.symbol)
    why = wrong_entry(pairs, at, landing)
    return landing if not why else Landing(why=f"it jumps to {why}")


def _through_stub(calls: Calls, at: int, to: Place) -> Landing:
    """Where a site's jump ends that goes to code of the patch."""
    pairs, place = calls.pairs, (to.sec, to.off)
    if calls.is_freed(to) and not _is_init(calls, at):
        return Landing(why=f"it jumps to {calls.name_of(to)}, which is freed with init memory", stub=place)
    calls.reached.add(place)
    landing, kind = read_stub(calls, *place)
    if landing.why:
        return Landing(why=f"it jumps to {calls.name_of(to)}, but {landing.why}", stub=place)
    if kind is not None and kind.call is not None and kind.own_toc is None and not function_of(pairs, at).two_entries:
        why = f"its stub calls {landing.name} with whatever TOC pointer the callers of {pairs.name(at)} have"
        return Landing(why=why, stub=place)
    why = wrong_entry(pairs, at, landing) if kind is not None and kind.call is None else ""
    return Landing(why=f"its stub enters {why}", stub=place) if why else landing


def _is_init(calls: Calls, at: int) -> bool:
    return calls.image.names[int(calls.pairs.sec[at])].startswith(".init")


def _check_arguments(calls: Calls, at: int, landing: Landing) -> None:
    """A finding where a stub's frame lies between arguments in memory and who reads them; a note where nobody knows."""
    if landing.stub is None or not landing.outside:
        return
    from ftpatch.kernel.signatures import why_not_in_registers  # loaded only where functions are redirected

    case, pairs, own = calls.case, calls.pairs, function_of(calls.pairs, at)
    answers = [why_not_in_registers(case.types, own.row, compiled=True) if own.row >= 0 else None]
    if case.kernel_types is not None:
        symbols = case.kernel_types.image.symbols
        rows = [row for row in symbols.rows_named(landing.name).tolist() if symbols.type[row] == t.STT_FUNC]
        answers += [why_not_in_registers(case.kernel_types, row) for row in rows[:1]]
    if why := next(filter(None, answers), ""):
        pairs.say("verify-redirect", at, f"it leads to {landing.name} by a call from another frame, and {why}")
    elif None in answers:
        note = f"{pairs.name(at)} becomes {landing.name}, which is called from another frame: whether all arguments "
        case.notes.append(note + "travel in registers is not known")


def _expect(calls: Calls, at: int, landing: Landing) -> None:
    """Adds what is to be seen when a redirected function is called."""
    pairs, image, loaded = calls.pairs, calls.image, calls.loaded
    sec, own = int(pairs.sec[at]), function_of(pairs, at)
    moved = loaded.base[sec] - int(image.base[sec])
    target = landing.entry
    if not landing.outside:
        of = int(image.symbols.shndx[landing.row])
        target += loaded.base[of] - int(image.base[of])
    calls.case.expectations.append(RedirectExpectation(
        pairs.name(at), own.local + moved, target, by_global=landing.by_global and landing.two_entries,
        by_local=not landing.by_global and landing.two_entries, framed=landing.stub is not None and landing.outside,
        global_entry=own.va + moved if own.two_entries else None,
    ))  # fmt: skip


# -- the symbols that say which functions are redirected ---------------------------------------------------------------


def _check_marks(calls: Calls, redirected: list[int]) -> None:
    """Every redirected function has a mark at its symbol; other marks are left of earlier patches."""
    case, pairs, symbols = calls.case, calls.pairs, calls.image.symbols
    tab = int(np.argmax(calls.image.shdr["sh_type"] == t.SHT_SYMTAB))
    marks: dict[tuple[int, int, str], int] = {}
    old = len(case.before.image.symbols.rows)  # those of earlier patches are there already
    for row in range(1, len(symbols.rows)) if MARK.encode() in symbols.strtab else ():
        if (name := symbols.name(row)).startswith(MARK):
            marks[int(symbols.shndx[row]), int(symbols.rows["st_value"][row]), name.removeprefix(MARK)] = row
    wanted = {at: _mark_places(pairs, at) for at in redirected}
    for at, places in wanted.items():
        if not any(place in marks for place in places):
            pairs.say("verify-symbol", at, f"no symbol {MARK}{pairs.name(at)} marks it as redirected")
    known = {place for places in wanted.values() for place in places}
    for place, row in marks.items():
        if place not in known and row >= max(old, case.last_symbol):
            case.say("verify-symbol", f"new symbol {row} {symbols.name(row)} marks no redirected function", sec=tab,
                     off=row * t.SYM.itemsize)  # fmt: skip


def _mark_places(pairs: Pairs, at: int) -> list[tuple[int, int, str]]:
    """(section, offset, name) of the marks that a function may have."""
    own, sec, image = function_of(pairs, at), int(pairs.sec[at]), pairs.case.after.image
    if own.row < 0:
        return [(sec, int(pairs.record[at]), f"{int(pairs.off[at]):#x}")]
    low, high = image.functions.at(np.array([own.va], dtype=np.uint64))
    names = [image.symbols.name(int(row)) for row in image.functions.row[int(low[0]) : int(high[0])]]
    return [(sec, own.va - int(image.base[sec]), name) for name in names]


def replaced(calls: Calls, ends: Mapping[int, Landing]) -> dict[int, tuple[int, int]]:
    """(section, offset) of the functions of the module that redirected ones lead to, by pair."""
    symbols, base = calls.image.symbols, calls.image.base
    places = {at: int(symbols.shndx[landing.row]) for at, landing in ends.items() if not landing.outside}
    return {at: (sec, ends[at].va - int(base[sec])) for at, sec in places.items()}
