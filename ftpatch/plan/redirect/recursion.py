"""Replacements that call the function whose place they take: each such call comes back to the replacement.

Who wraps the old function that way runs until the stack is full. Only the replacement's own code is looked at, for
direct calls and jumps: what others call on its behalf is not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ftpatch.arrays import is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of
from ftpatch.plan.redirect.refusals import Substitute
from ftpatch.plan.request import Draft
from ftpatch.sites.matching import OURS
from ftpatch.sites.table import ENABLED

MAX_WORDS = 1 << 16  # of a replacement's code that are looked at
ENDLESS = "{bar} calls {foo}, which is {bar} from now on: it never returns, unless a condition ends that"


def warn_of_recursion(draft: Draft, goals: Mapping[int, Substitute]) -> None:
    """Say which replacements of the same file call what they replace."""
    image, sites, called = draft.scan.image, draft.scan.sites, dict[int, set[int]]()
    elsewhere = set(sites.entry_va[[*goals, *sites.redirects]].tolist())  # functions whose code runs no more
    for site, goal in goals.items():
        if goal.types is None or goal.types.image is not image or _start(image, goal.row) in elsewhere:
            continue
        if goal.row not in called:
            called[goal.row] = set(_called(image, goal.row))
        if called[goal.row] & {int(sites.entry_va[site]), int(sites.local_va[site])}:
            foo = sites.name(site) or sites.place_text(site)
            draft.warnings.append(ENDLESS.format(bar=goal.name, foo=foo))


def refuse_hooks(draft: Draft, goals: Mapping[int, int]) -> None:
    """Sites of a module whose replacement, at the end of the way, is enabled and calls them. goals: va, by site."""
    image, sites = draft.scan.image, draft.scan.sites
    leads = {int(sites.entry_va[site]): to.start for site, to in sites.redirects.items() if to.start is not None}
    leads |= {int(sites.entry_va[site]): goal for site, goal in goals.items()}
    enabled = np.flatnonzero((sites.status == ENABLED) & ~sites.redirected)
    at = {int(sites.entry_va[site]): int(site) for site in enabled.tolist()}
    for site, goal in goals.items() if not image.linked else ():
        end, seen = goal, set[int]()
        while end in leads and end not in seen:
            seen.add(end)
            end = leads[end]
        if end in at and _hooks(draft, at[end]) & {int(sites.entry_va[site]), int(sites.local_va[site])}:
            name = sites.name(at[end])
            draft.refuse(np.array([site]), f"it is the hook of {name}, which takes its place: they never return")


def _hooks(draft: Draft, site: int) -> set[int]:
    """va of all that code of earlier patches calls for an enabled site."""
    image, sites = draft.scan.image, draft.scan.sites
    sec = int(sites.sec[site])
    todo = [row for row, _ in _calls(image, sec, int(sites.branch_va[site]) - int(image.base[sec]), 4)]
    seen, called = set[int](), set[int]()
    while todo:
        if (row := todo.pop()) in seen:
            continue
        seen.add(row)
        of, off, size = _extent(image, row)
        if of > 0 and image.symbols.name(row).startswith(OURS):
            todo += [other for other, _ in _calls(image, of, off, size)]
        elif of > 0:
            called.add(int(image.base[of]) + off)
    return called


def _called(image: Image, row: int) -> Iterator[int]:
    """va of each place in an image that a function of it calls or jumps to."""
    (sec, off, size), start = _extent(image, row), _start(image, row)
    code = image.code(start, min(size // image.arch.unit, MAX_WORDS))
    for branch in (image.arch.call, image.arch.jump):
        if branch is not None:
            place, distance = branch.find(code)
            yield from (start + ahead for ahead in (place + distance).tolist())  # Python integers: they do not wrap
    for symbol, addend in _calls(image, sec, off, size):
        of = int(image.symbols.shndx[symbol])
        if of > 0:
            yield int(image.base[of]) + int(image.symbols.rows["st_value"][symbol]) + addend


def _start(image: Image, row: int) -> int:
    """va of a function."""
    sec, off, _ = _extent(image, row)
    return off if image.linked else int(image.base[sec]) + off


def _extent(image: Image, row: int) -> tuple[int, int, int]:
    """(section, value of its symbol, bytes) of a function."""
    symbol = image.symbols.rows[row]
    return int(image.symbols.shndx[row]), int(symbol["st_value"]), int(symbol["st_size"])


def _calls(image: Image, sec: int, off: int, size: int) -> Iterator[tuple[int, int]]:
    """(row of the symbol, addend) of the calls and jumps in a range of a relocatable file."""
    if image.linked:
        return
    rows = relocations_of(image, sec)
    inside = (rows.off >= off) & (rows.off < off + size) & is_in(rows.kind, image.arch.loader.calls)
    for at in np.flatnonzero(inside)[:MAX_WORDS].tolist():
        addend = int(image.rows(int(rows.table[at]), t.RELA)["r_addend"][int(rows.row[at])])
        yield int(rows.symbol[at]), addend
