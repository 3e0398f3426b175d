"""Layouts with NOPs in front of the entry (-fpatchable-function-entry=N,M): how many they are, each record tells.

A record names the first of a function's N NOPs, and M of them lie in front of its entry: M is the distance to the next
function symbol, if nothing but NOPs is in between, or a pad that somebody filled. How many are behind the entry, the
code tells, of all functions together: a single one may begin with a NOP of its own.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from ftpatch.arch.fronts import MAX_FRONT, Filled, read_pads, with_front
from ftpatch.arch.shape import MATCH_ARMED, MATCH_NEW, MATCH_NONE, MATCH_OLD, MATCH_PADDED, Shape, begins_with
from ftpatch.arrays import I64, U8, U32, U64, Mask
from ftpatch.elf.image import Image
from ftpatch.elf.kind import PROGRAMS
from ftpatch.elf.unwind_entries import unwind_entries
from ftpatch.errors import ShapeError
from ftpatch.sites.records import RecordTable

NOWHERE = -1
FEW = 2  # NOPs of -fpatchable-function-entry=2, which nearly everybody uses


class Fronts(NamedTuple):
    """The live records that name code. One element per record."""

    image: Image
    sec: I64  # section
    off: I64  # byte offset there
    units: I64  # NOPs between the record and the entry; 0 where the record is at it, NOWHERE where no entry follows

    def fitting(self, shape: Shape) -> int:
        """How many records a layout of the machine's `fronts` explains, with as many NOPs as it is for."""
        here = self.units == (shape.front or 0)
        window = self.image.window(self.sec[here], self.off[here], shape.reads)
        return int((match_fronts(self.image, shape, window, self.image.va(self.sec[here], self.off[here])) > 0).sum())

    def by_global(self, n: int) -> bool:
        """Whether the records with n NOPs behind them lie in front of global entries of functions that have two."""
        here = self.units == n
        if self.image.functions.local is self.image.functions.va or not here.any():
            return False
        entry = self.image.va(self.sec[here], self.off[here]) + np.uint64(n * self.image.arch.unit)
        low, high = self.image.functions.at_local(entry)
        return bool((low == high).any())

    def forced(self, shape: Shape) -> Shape:
        """That layout as most records have it."""
        if shape.skip_at < 0:
            return shape
        usual = [with_front(shape, n) for n, _ in Counter(self.units[self.units > 0].tolist()).most_common()]
        return max(usual, key=lambda some: (_of_one(self, some.front or 0) == some, self.fitting(some)),
                   default=with_front(shape, 1))  # fmt: skip


def of_records(image: Image, records: RecordTable) -> Fronts:
    """How far the live records of an image lie in front of the functions' entries."""
    code = records.sec >= 0
    code[code] = image.executable[records.sec[code]]
    sec, off = records.sec[code], records.off[code]
    units, va = np.full(len(sec), NOWHERE, dtype=np.int64), image.va(sec, off)
    entries = _entries(image)
    if not len(entries) or not len(sec):
        return Fronts(image, sec, off, units)
    entry = entries[np.minimum(np.searchsorted(entries, va), len(entries) - 1)]
    distance = (entry - va).view(np.int64)
    near = (distance >= 0) & (distance <= MAX_FRONT) & (distance % image.arch.unit == 0)
    near &= off + distance < image.shdr["sh_size"][sec].view(np.int64)
    rows = np.flatnonzero(near)
    n = distance[rows] // image.arch.unit
    nops = is_nop(image, sec[rows], off[rows], int(n.max(initial=0)) + 1)
    nops[:, -1] = False
    only_nops = nops.argmin(axis=1) >= n
    units[rows[only_nops]] = n[only_nops]
    for row, m in zip(rows[~only_nops].tolist(), n[~only_nops].tolist(), strict=True):  # filled pads, or no front
        if _holds_pad(image, sec[row : row + 1], off[row : row + 1], m):
            units[row] = m
    units[_behind_skip(image, sec, off, units)] = 0
    return Fronts(image, sec, off, units)


def _entries(image: Image) -> U64:
    """Where functions begin, ascending; of a program also by its unwind tables, as its symbols may be stripped."""
    functions = image.functions
    known = [functions.local] if functions.local is functions.va else [functions.local, functions.va]
    if image.kind in PROGRAMS and image.arch.unwinds_from_entry:
        known.append(unwind_entries(image))
    return np.unique(np.concatenate(known))


def is_nop(image: Image, sec: I64, off: I64, n: int) -> Mask:
    """(places, n) which of the units from each place on are the NOPs that a compiler leaves around entries."""
    nop = image.arch.nop if image.arch.front_nop is None else image.arch.front_nop
    return np.asarray(image.words(sec, off, 0, n) == np.uint32(nop))


def _behind_skip(image: Image, sec: I64, off: I64, units: I64) -> I64:
    """Records that name the first NOP behind extra units at an entry."""
    found = [np.zeros(0, dtype=np.int64)]
    for shape in image.arch.fronts:
        if shape.skip_at < 0:
            rows = np.flatnonzero(units == NOWHERE)
            size = shape.skip_words
            skip = begins_with(image.words(sec[rows], off[rows], -size, size), shape.skips)
            low, high = image.functions.at_local(image.va(sec[rows], off[rows] - shape.unit * size))
            found.append(rows[skip & (high > low)])
    return np.concatenate(found)


def decide(image: Image, records: RecordTable, told: bool) -> Shape | None:
    """The layout of the machine's `fronts` that the records show; None where they show none.

    told: whether one of its other layouts explains some of them. Raises ShapeError for a program whose functions were
    built with several numbers of NOPs.
    """
    if not image.arch.fronts or (told and image.kind not in PROGRAMS):
        return None
    table = of_records(image, records)
    counts = Counter(table.units[table.units != NOWHERE].tolist())
    n = max(counts, key=lambda units: counts[units], default=0)
    if not counts or (told and set(counts) == {0}) or 2 * counts[n] <= len(table.sec) - counts.total():
        return None
    if n == 0 and len(counts) == 1 and any(_at_entry(table, shape) for shape in image.arch.shapes):
        return None
    if len(counts) > 1:
        raise _several(table, counts)
    return _of_one(table, n)


def require_told(image: Image, records: RecordTable) -> None:
    """Refuse a program of which neither symbols nor unwind tables tell how many of its NOPs are in front of entries, if
    there are so many that it makes a difference. Raises ShapeError."""
    if image.kind not in PROGRAMS or not image.arch.fronts or image.arch.unwinds_from_entry:
        return
    table = of_records(image, records)
    if (table.units != NOWHERE).any() or not len(table.sec):
        return
    n = int(is_nop(image, table.sec, table.off, FEW + 1).sum(axis=1).min())
    if n > FEW:
        raise ShapeError(
            "nothing tells where the functions begin", image.path, found=f"more than {FEW} NOPs at each record, and no "
            "symbol at any of them", expected="symbols, as some of the NOPs may be in front of the entries",
            todo="use the program that it was stripped from; --layout NAME forces one",
        )  # fmt: skip


def _at_entry(table: Fronts, shape: Shape) -> bool:
    """Whether one of the machine's other layouts is at most of the entries: of more NOPs than one."""
    return not shape.called and shape.entry == 0 and 2 * table.fitting(shape) > len(table.sec)


def _of_one(table: Fronts, n: int) -> Shape | None:
    """The longest layout that most records show which have n NOPs in front of the entry."""
    by_global = n > 0 and table.by_global(n)
    for shape in table.image.arch.fronts:
        if (n == 0) == (shape.skip_at < 0) and (not by_global or shape.at_global) and shape.at_global <= by_global:
            in_front = with_front(shape, n) if n else shape
            if 2 * table.fitting(in_front) > int((table.units == n).sum()):
                return in_front
    return None


def _several(table: Fronts, counts: Counter[int]) -> ShapeError:
    lines = []
    for n, count in sorted(counts.items()):
        shape = _of_one(table, n) if n else None
        name = f" ({shape.name})" if shape else ""
        lines.append(f"{count} with {n or 'no'} NOPs in front of the entry{name}")
    return ShapeError(
        "the records have several layouts", table.image.path, found=", ".join(lines), expected="the same "
        "-fpatchable-function-entry=N,M for all", todo="--layout NAME takes those of one layout, and leaves the others",
    )  # fmt: skip


# -- what is in front of entries ---------------------------------------------------------------------------------------


def _holds_pad(image: Image, sec: I64, off: I64, n: int) -> bool:
    """Whether somebody filled the n NOPs behind a record with a pad, whatever its layout."""
    for shape in image.arch.fronts:
        if shape.switch and n:
            in_front = with_front(shape, n)
            window = image.window(sec, off, in_front.reads)
            return bool((filled_pads(image, in_front, window, image.va(sec, off)).form >= 0).any())
    return False


def filled_pads(image: Image, shape: Shape, window: U32, va: U64) -> Filled:
    """What is in front of the entries of a layout that has pads there."""
    pads, first = image.arch.pads, -shape.first
    assert pads is not None and shape.front
    back_to = va + (shape.site(window) + shape.size).view(np.uint64)
    return read_pads(pads, image.arch.call, image.arch.nop, window[:, first : first + shape.front], va, back_to)


def match_fronts(image: Image, shape: Shape, window: U32, va: U64) -> U8:
    """MATCH_* of sites with NOPs in front of the entry, by these and by the site."""
    match = shape.match(window)
    if not shape.switch:
        return np.where(match == MATCH_OLD, MATCH_PADDED, match).astype(np.uint8) if not shape.old else match
    pad = filled_pads(image, shape, window, va)
    body = shape.body(window)
    to = va.view(np.int64) + shape.site(window) + shape.branch.distance(body)
    start = va.view(np.int64) + shape.unit * pad.at
    leads = (to >= va.view(np.int64)) & (to <= start) & (pad.form >= 0) & (match == MATCH_NEW)
    off = match == MATCH_OLD
    match[:] = MATCH_NONE
    match[off & pad.empty], match[off & (pad.form >= 0)], match[leads] = MATCH_OLD, MATCH_ARMED, MATCH_NEW
    return match
