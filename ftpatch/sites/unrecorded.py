"""Calls of the profiling function (-pg) that no record names, as rows of the site table."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ftpatch.arch.shape import Shape, begins_with
from ftpatch.arrays import I64, U64, Mask, is_in
from ftpatch.elf.image import Image
from ftpatch.sites.layout import shapes_of
from ftpatch.sites.matching import functions_at
from ftpatch.sites.object_marks import enabled_calls, marks_of
from ftpatch.sites.profiler_calls import profiler_calls
from ftpatch.sites.records import RecordTable
from ftpatch.sites.table import ENABLED, OFF, UNRECORDED, SiteTable


class Calls(NamedTuple):
    """Calls of the profiling function."""

    called: str  # its name
    sec: I64  # section of each call
    off: I64  # its byte offset there


def unrecorded_calls(image: Image, records: RecordTable, va: U64, shape: Shape | None) -> Calls | None:
    """Calls of the profiling function that no record names; None where there are none, or the layout has none.
    va: of the records."""
    named = [other.called for other in shapes_of(image) if other.called and shape in (None, other)]
    for called in dict.fromkeys(named):
        sec, off = profiler_calls(image, called)
        bare = ~is_in(image.va(sec, off), va[records.live]) if len(records) else np.ones(len(sec), dtype=bool)
        if bare.any() and not _nameless_elsewhere(image, called, image.va(sec, off)):
            return Calls(called, sec[bare], off[bare])
    return None


def _nameless_elsewhere(image: Image, called: str, va: U64) -> bool:
    """Whether an object does not name the function, and most of its NOPs are not where it would be called."""
    shapes = [shape for shape in shapes_of(image) if shape.called == called]
    if image.kind != "object" or any(shape.anywhere for shape in shapes):
        return False
    marks = marks_of(image)
    if not is_in(va, marks.va(image)[marks.symbol == 0]).all():
        return False
    sec, off = image.place(va)
    found = [functions_at(image, shape, image.window(sec, off, shape.reads), va) for shape in shapes]
    at_entry = np.logical_or.reduce([low < high for low, high in found])
    return 2 * int(at_entry.sum()) < len(va)


def unrecorded_rows(image: Image, known: SiteTable, shape: Shape, calls: Calls) -> SiteTable:
    """The rows of calls that no record names."""
    if image.kind == "object":  # those that were enabled at an entry are known by now
        new = ~is_in(image.va(calls.sec, calls.off), known.va)
        calls = Calls(calls.called, calls.sec[new], calls.off[new])
    sec, off = calls.sec, calls.off
    window, va, n = image.window(sec, off, shape.reads), image.va(sec, off), len(sec)
    low, high = functions_at(image, shape, window, va)
    # where it is not at the entry as the layout has it: the function around it
    low, high = around(image, low, high, va, (low == high) & image.functions.inside(va))
    status, row = np.full(n, UNRECORDED, dtype=np.uint8), np.full(n, -1, dtype=np.int64)
    if image.kind == "object":
        status[begins_with(shape.body(window), (shape.nops,))] = OFF
        status[is_in(va + np.uint64(shape.call_at), enabled_calls(image))] = ENABLED
    site, redirected = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool)
    return SiteTable(image, shape, known.forced, row, sec, off, window, low, high, status, site, redirected)


def around(image: Image, low: I64, high: I64, va: U64, which: Mask) -> tuple[I64, I64]:
    """Spans of functions as they are, but for some places those of the functions around these."""
    low, high = low.copy(), high.copy()
    low[which], high[which] = image.functions.at(image.functions.va[image.functions.containing(va[which])])
    return low, high
