"""Functions whose entry is a site by its words, and which no record names: several rules ask for them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.arch.shape import MATCH_OLD, begins_with
from ftpatch.arrays import first_of_each, is_in
from ftpatch.elf.image import Image
from ftpatch.rules.patchers import others
from ftpatch.sites.elsewhere import records_elsewhere
from ftpatch.sites.fronts import is_nop
from ftpatch.sites.table import UNLISTED, SiteTable

SINGLE = "pfe1"  # many functions that were built without sites begin with a NOP


def unrecorded(image: Image, table: SiteTable) -> Iterator[tuple[str, str, int]]:
    """(function, section, offset of its symbol) of functions whose entry is a site by its words, without a record.

    Words that a static key or an alternative rewrites are theirs; NOPs between functions belong to no entry.
    """
    shape, functions = table.shape, image.functions
    if shape is None or shape.anywhere or not len(functions.va) or not shape.old or shape.name == SINGLE:
        return
    entry = functions.va if shape.at_global else functions.local
    recorded = (table.sec >= 0) & ~np.isin(table.status, UNLISTED)
    known = np.sort(table.va[recorded])  # a record elsewhere in the function is another rule's
    rows = first_of_each(entry)
    begin = (entry[rows].view(np.int64) - shape.entry).view(np.uint64)
    rows = rows[
        np.searchsorted(known, begin) >= np.searchsorted(known, functions.end[rows])
    ]  # most have theirs: not read
    sec, off = image.place(entry[rows])
    code = (sec >= 0) & image.executable[np.maximum(sec, 0)] & ~np.isin(sec, image.sections_named(".exit.text"))
    sec, off = np.where(code, sec, -1), off - shape.entry
    if shape.skips and shape.skip_at < 0:  # the record names what is behind them
        off = off + shape.unit * shape.skip_words * begins_with(image.words(sec, off, 0, shape.skip_words), shape.skips)
    window = image.window(sec, off, shape.reads)
    bare = (shape.match(window) == MATCH_OLD) & code
    if shape.front:  # a NOP may be a function's own, and more of them in front of it are there to align it
        nops = is_nop(image, sec, off - shape.unit, shape.front + 1)
        bare &= nops[:, 1:].all(axis=1) & ~nops[:, 0]
    if shape.literal is not None:
        front = window[:, shape.literal // shape.unit - shape.first :][:, :2]
        bare &= (front == np.uint32(image.arch.nop)).all(axis=1)
    start = image.va(sec, off)
    site = start + shape.site(window).view(np.uint64)
    low, high = start - np.minimum(start, np.uint64(8)), np.maximum(functions.end[rows], site + np.uint64(4))
    bare &= np.searchsorted(known, low) == np.searchsorted(known, high)
    for _, begins, _ in others(image) if bare.any() else ():
        bare &= ~is_in(site, begins)
    for elsewhere in records_elsewhere(image).values() if bare.any() else ():
        bare &= ~is_in(start, elsewhere)
    sec, off = image.place(functions.va[rows[bare]])
    for row, section, offset in zip(functions.row[rows[bare]].tolist(), sec.tolist(), off.tolist(), strict=True):
        yield image.symbols.name(row), image.names[section], offset
