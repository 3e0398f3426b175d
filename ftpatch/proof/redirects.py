"""Whether a function may become another, whatever the way from one to the other: for kernels and modules alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ftpatch.arrays import I64, U64
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.kernel.noreturn import NORETURN
from ftpatch.proof.case import Case, Pairs, SiteRedirects


@dataclass(frozen=True)
class Landing:
    """Where the jump of a redirected function ends."""

    name: str = ""  # of the replacement
    row: int = -1  # of its symbol
    va: int = 0  # of its symbol; in a module as the image is laid out, -1 where it is in another file
    entry: int = 0  # va at which it is entered
    two_entries: bool = False
    by_global: bool = False  # with its address in the register from which a global entry computes the TOC
    indirect: bool = False  # by a jump to an address in a register
    stub: tuple[int, int] | None = None  # what lies in between: va and bytes; in a module section and offset
    why: str = ""  # a reason against it

    @property
    def outside(self) -> bool:
        """Whether it is in another file. The first section of a module is at 0, as functions of it may be."""
        return self.va < 0


class OwnFunction(NamedTuple):
    """The function of a site."""

    row: int  # of its symbol; −1 where it has none
    va: int  # of its symbol; of its entry as the layout has it, where it has none
    local: int  # va of its local entry

    @property
    def two_entries(self) -> bool:
        return self.local != self.va


def function_of(pairs: Pairs, at: int) -> OwnFunction:
    """The function that a site belongs to, at its addresses in the second file."""
    case, sec = pairs.case, int(pairs.sec[at])
    side, row = (case.before, pairs.before[at]) if pairs.before[at] >= 0 else (case.after, pairs.after[at])
    sites, base = side.sites, int(case.after.image.base[sec])
    if sites.func[row] == sites.func_end[row]:
        entry = base + pairs.entry_off(at)
        return OwnFunction(-1, entry, entry)
    # Where a table of records became shorter, the sections of a relocatable file behind it are laid out anew.
    first, moved = int(sites.func[row]), base - int(side.image.base[sec])
    entry, local = int(sites.entry_va[row]) + moved, int(sites.local_va[row]) + moved
    return OwnFunction(int(side.image.functions.row[first]), entry, local)


def function_at(image: Image, va: int) -> Landing | None:
    """The function of which an address is an entry; in a relocatable file as the image is laid out."""
    functions, symbols, place = image.functions, image.symbols, _one(va)
    for low, high in (functions.at_local(place), functions.at(place)):
        for at in range(int(low[0]), int(high[0])):
            local, start, row = int(functions.local[at]), int(functions.va[at]), int(functions.row[at])
            if va in (local, start):
                return Landing(symbols.name(row), row, start, va, start != local)
    sec = int(image.place(place)[0][0])
    if sec < 0 or not image.executable[sec] or functions.inside(place)[0]:
        return None
    here = symbols.rows["st_value"] == _value(image, sec, va)
    rows = np.flatnonzero(here & (symbols.shndx == sec) & (symbols.type == 0)).tolist()
    # code in assembly may have a name and no type; mapping symbols, which begin with a dollar, are no names
    plain = [row for row in rows if symbols.name(row)[:1] not in ("", "$")]
    return Landing(symbols.name(plain[0]), plain[0], va, va) if plain else None


def what_is_at(image: Image, va: int) -> str:
    """What stands at an address that is no function's entry, as the end of a sentence."""
    functions, symbols = image.functions, image.symbols
    around = int(functions.containing(_one(va))[0])
    if around >= 0:
        return f"{va - int(functions.va[around]):#x} bytes into {symbols.name(int(functions.row[around]))}"
    sec = int(image.place(_one(va))[0][0])
    value, start = _value(image, sec, va), symbols.rows["st_value"]
    data = (symbols.type == t.STT_OBJECT) & (symbols.shndx == sec) & (start <= value)
    rows = np.flatnonzero(data & (value - start < symbols.rows["st_size"]))
    return f"in {symbols.name(int(rows[0]))}, which is data" if len(rows) else "where no function begins"


def wrong_entry(pairs: Pairs, at: int, landing: Landing) -> str:
    """Why a replacement must not be entered where a jump comes in, for its TOC; empty where it may."""
    own, loses = function_of(pairs, at), pairs.case.tables.loses_toc
    other, name = pairs.case.after.image.symbols.rows["st_other"], pairs.name(at)
    if loses and loses(int(other[landing.row])) and not (own.row >= 0 and loses(int(other[own.row]))):
        return f"{landing.name}, which does not keep r2 as callers of {name} expect"
    if not landing.two_entries or landing.by_global:
        return ""
    if landing.entry == landing.va:
        return f"the global entry of {landing.name}, which needs its address in r12"
    if not own.two_entries:
        return (f"the local entry of {landing.name}, which needs its TOC in r2: callers of {name} need not have it "
                "there")  # fmt: skip
    return ""


def check_replacement(case: Case, pairs: Pairs, at: int, landing: Landing, freed: bool) -> None:
    """A finding where a function of the second file must not take the place of a site's.

    freed: it is init text, and the site's is not.
    """
    from ftpatch.kernel import callee

    image, name, own, row = case.after.image, landing.name, function_of(pairs, at), landing.row
    if name in (*case.arch.entries, pairs.shape.called):
        why = "which is called from patch sites alone"
    elif freed:
        why = "which is freed with init memory"
    elif name in NORETURN or (not landing.outside and callee.why_never_returns(case.types, row)):
        why = "which never returns"
    elif not landing.outside:
        why = callee.why_no_function(image, row)
        if not why and own.row >= 0:
            why = callee.why_no_substitute(image, row, image, own.row)
    else:
        why = ""
    if why:
        pairs.say("verify-redirect", at, f"it leads to {name}, {why}")
    elif pairs.name(at) in NORETURN:
        case.notes.append(f"{pairs.name(at)} never returns, and {name}, to which it leads, is not known to do so")


def check_circles(pairs: Pairs, ends: Mapping[int, Landing]) -> set[int]:
    """Findings for redirected functions from which the way comes back to them; which these are. ends: by pair."""
    starts = {function_of(pairs, at).va: at for at in ends}
    onward = {at: starts.get(landing.va) for at, landing in ends.items()}
    circles, known = set[int](), set[int]()
    for at in ends:
        way: dict[int, int] = {}  # pairs, each with its place on the way
        number: int | None = at
        while number is not None and number not in known and number not in way:
            way[number] = len(way)
            number = onward[number]
        if number in way:
            circles.update(list(way)[way[number] :])
        known.update(way)
    for at, landing in ends.items():
        if at in circles:
            what = "itself" if onward[at] == at else f"{landing.name}, from where the way comes back"
            pairs.say("verify-redirect", at, f"it leads to {what}")
    return circles


def keep_redirects(case: Case, pairs: Pairs, ends: Mapping[int, Landing]) -> None:
    """What the redirected functions lead to, for the verdict."""
    order: I64 = np.array(sorted(ends), dtype=np.int64)
    landings = [ends[at] for at in order.tolist()]
    va = [landing.va if case.after.image.linked else 0 for landing in landings]
    case.redirects = SiteRedirects(
        pairs.pos[order], np.array(va, dtype=np.uint64), tuple(landing.name for landing in landings),
        np.array([landing.row for landing in landings], dtype=np.int64),
    )  # fmt: skip
    case.replacements.update(landing.name for landing in landings)


def _value(image: Image, sec: int, va: int) -> np.uint64:
    """What a symbol at a va has as its value."""
    return np.uint64(va if image.linked or sec < 0 else va - int(image.base[sec]))


def _one(va: int) -> U64:
    return np.array([va & (1 << 64) - 1], dtype=np.uint64)
