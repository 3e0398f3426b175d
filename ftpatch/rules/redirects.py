"""Rules about redirected functions: where they lead, and how they come there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ftpatch.rules.case import N_SHOWN, Case, Hit, first
from ftpatch.sites.jumps import JumpTarget

if TYPE_CHECKING:
    from ftpatch.elf.function_types import FunctionTypes

SIBLING = (
    "in another file, by a jump: the stub that the loader makes for it saves the TOC pointer in the frame of the "
    "function's caller"
)


def redirected(case: Case) -> Iterator[Hit]:
    """Functions that an earlier patch redirected."""
    redirects, table = case.table.redirects, case.table
    index = np.array([site for site in redirects if table.row[site] < 0], dtype=np.int64)
    if len(index):
        names = list(dict.fromkeys(redirects[site].name for site in index.tolist()))
        likely = "" if all(redirects[site].sure for site in index.tolist()) else "likely "
        functions = "1 function is" if len(index) == 1 else f"{len(index)} functions are"
        text = f"{functions} redirected ({case.some(index)}): {likely}an earlier patch (to {first(names)})"
        yield Hit(text, count=len(index))


def redirect_loop(case: Case) -> Iterator[Hit]:
    """Functions from which the way of redirects comes back to them."""
    table, redirects = case.table, case.table.redirects
    starts = {site: int(table.entry_va[site]) for site in redirects}
    leads = {starts[site]: (target.start, target.name) for site, target in redirects.items()}
    loops = list(_loops({va: start for va, (start, _) in leads.items()}))
    places = {va: (loop, at) for loop in loops for at, va in enumerate(loop)}
    for site in redirects:
        loop, at = places.get(starts[site], ([], 0))
        names = [leads[loop[(at + step) % len(loop)]][1] for step in range(min(len(loop), N_SHOWN + 1))]
        if names:
            way = ", and that to ".join(names) if len(loop) <= N_SHOWN else first(names)
            yield Hit(f"{_function(case, site)} is redirected to {way}: whoever calls it never comes back", site)


def _loops(leads: Mapping[int, int | None]) -> Iterator[list[int]]:
    """The circles of what leads to what, each function in one at most."""
    done: set[int] = set()
    for start in leads:
        way: dict[int, int] = {}  # function → its place on the way
        va: int | None = start
        while va is not None and va in leads and va not in done and va not in way:
            way[va] = len(way)
            va = leads[va]
        if va is not None and va in way:
            yield list(way)[way[va] :]
        done |= way.keys()


def redirect_target(case: Case) -> Iterator[Hit]:
    """Functions that are redirected to what cannot take their place."""
    if not case.table.redirects:
        return
    from ftpatch.elf.function_types import FunctionTypes  # loaded only where functions are redirected

    types = FunctionTypes(case.image)
    for site, target in case.table.redirects.items():
        if why := _wrong_target(case, types, site, target):
            yield Hit(f"{_function(case, site)} is redirected to {target.name}{why}", site)


def _wrong_target(case: Case, types: FunctionTypes, site: int, target: JumpTarget) -> str:
    """Why a function must not come to where it is redirected to; empty where it may."""
    from ftpatch.kernel.callee import why_never_returns, why_no_substitute

    if not target.entry:
        return ", which is the middle of a function"
    if target.va is None:
        return ""  # it is in another file
    own = int(case.image.functions.row[case.table.func[site]]) if case.named[site] else None
    if own is not None and (why := why_no_substitute(case.image, target.row, case.image, own)):
        return f": {why}"
    never = why_never_returns(types, target.row)
    if not never or (own is not None and why_never_returns(types, own)):
        return ""
    return f", which never returns ({never})"


def redirect_entry(case: Case) -> Iterator[Hit]:
    """Functions whose replacement is entered without the TOC, or the address, that it needs."""
    for site, target in case.table.redirects.items():
        if case.arch.local_entry is not None and (why := _wrong_entry(case, site, target)):
            yield Hit(f"{_function(case, site)} is redirected to {target.name}, {why}", site)


def _wrong_entry(case: Case, site: int, target: JumpTarget) -> str:
    """Why a jump must not come in where it does, on a machine whose functions may have two entries."""
    table, other, modules = case.table, case.image.symbols.rows["st_other"], case.arch.modules
    if target.va is None:
        return SIBLING if not target.by and modules is not None and modules.toc else ""
    if not target.entry or target.by == "code":
        return ""
    assert case.arch.local_entry is not None and target.start is not None
    local = target.start + int(case.arch.local_entry(other[target.row : target.row + 1])[0])
    if local != target.start and target.va == target.start and not target.by:
        return "at its global entry, which computes the TOC pointer from r12: nothing sets that"
    if local != target.start and target.va == local and table.local_va[site] == table.entry_va[site]:
        return "at its local entry, which takes the TOC pointer as set: callers of a function with one entry need not"
    return ""


def _function(case: Case, site: int) -> str:
    return case.table.name(site) or case.table.place_text(site)
