"""What the sites of a patched module lead to, by name: for the verdict, so that a reader sees it; and circles in it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ftpatch.proof.case import PATCHED, Pairs
from ftpatch.proof.module_code import OURS, Called, Calls, Place
from ftpatch.proof.module_symbols import plain
from ftpatch.proof.redirects import function_of

NOBODY = "(code of the patch that calls nothing)"


def count_callees(calls: Calls) -> None:
    """How many sites lead to each symbol; and in a note what is left over of earlier patches."""
    for at, (_, called) in calls.ends.items():
        names = sorted(called.names) + [f"{name} (pointer)" for name in sorted(called.pointers)]
        calls.case.callees.update(names or [_far(calls, at) or NOBODY])
    left = _leftover(calls)
    if names := sorted(left.names | left.pointers):
        calls.case.notes.append(f"code of an earlier patch that no site calls any more leads to {', '.join(names)}")


def _far(calls: Calls, at: int) -> str:
    """How far from the kernel's TOC a site's call goes, where constants say it; empty where they do not."""
    pairs, toc = calls.pairs, calls.loaded.memory.kernel_toc
    to = calls.branch_at(int(pairs.sec[at]), int(pairs.branch_off[at]))
    if pairs.shape.out_of_line and isinstance(to, Place):
        to = calls.branch_at(to.sec, to.off + 4)
    for place in (to, calls.tail_target(to)) if isinstance(to, Place) else ():
        if place is not None and toc is not None and (va := calls.far_target(place)) is not None:
            return f"the kernel's TOC {va - toc:+#x}"
    return ""


def _leftover(calls: Calls) -> Called:
    """What code of the patch names that no site comes to."""
    image, symbols, names, pointers = calls.image, calls.image.symbols, set[str](), set[str]()
    for row in range(len(calls.case.before.image.symbols.rows), len(symbols.rows)):
        sec, off = int(symbols.shndx[row]), int(symbols.rows["st_value"][row])
        if not len(calls.case.before.image.shdr) <= sec < len(image.shdr) or plain(image.names[sec]) not in OURS:
            continue
        low, high = calls.extent(Place(row, sec, off))
        if not any(at == sec and low <= place < high for at, place in calls.reached):
            called = calls.names_in(sec, low, high)
            names, pointers = names | called.names, pointers | called.pointers
    return Called(frozenset(names), frozenset(pointers))


def _symbol_off(pairs: Pairs, at: int) -> int:
    """Offset in its section of the symbol of a site's function."""
    return function_of(pairs, at).va - int(pairs.case.after.image.base[int(pairs.sec[at])])


def check_circles(calls: Calls, replaced: Mapping[int, tuple[int, int]]) -> None:
    """Findings for sites whose hook is patched in turn and comes back to them: they call each other for ever.

    replaced: section and offset of the function that takes the place of each redirected one, by pair.
    """
    pairs, symbols = calls.pairs, calls.image.symbols
    at = np.flatnonzero(np.isin(pairs.new, PATCHED)).tolist()
    entry = {(int(pairs.sec[i]), off): i for i in at for off in (pairs.entry_off(i), _symbol_off(pairs, i))}
    leads = {i: {entry[place]} if place in entry else set[int]() for i, place in replaced.items()}
    for i, (_, called) in calls.ends.items():
        rows = [row for name in called.names for row in symbols.rows_named(name).tolist() if symbols.shndx[row] > 0]
        local = calls.case.arch.local_entry
        for row in rows:
            value = int(symbols.rows["st_value"][row])
            more = int(local(symbols.rows["st_other"][row : row + 1])[0]) if local else 0
            hit = {entry.get((int(symbols.shndx[row]), off)) for off in (value, value + more)} - {None}
            leads.setdefault(i, set()).update(one for one in hit if one is not None)
    for i in (i for i in leads if i in calls.ends):  # circles of redirected functions alone are told with them
        seen, todo = set[int](), list(leads[i])
        while todo:
            if (one := todo.pop()) not in seen:
                seen.add(one)
                todo += leads.get(one, ())
        if i in seen:
            pairs.say(
                "verify-branch", i, "what it calls is patched, and comes back to it: the two call each other for ever"
            )
