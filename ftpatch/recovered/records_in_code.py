"""The record table between two addresses that ftrace_init forms: for one that has hardly any records left.

A patch may have taken out nearly all of them. Then the table does not look like one any more; the code that walks it is
as it was.
Source: kernel/trace/ftrace.c ftrace_init().
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np

from ftpatch.arch.shape import MATCH_NONE
from ftpatch.arrays import U64, is_in
from ftpatch.elf.image import Image

SLOT = 8
MINUS4 = 0xFFFF_FFFF_FFFF_FFFC
BOUNDS = ("__start_mcount_loc", "__stop_mcount_loc")
INIT, MAX_WORDS = "ftrace_init", 1 << 16
MOST = 1 << 21  # slots of a table
MAX_SPANS = 64  # that are looked at, the longest first


def table_in_code(image: Image) -> tuple[int, int] | None:
    """The addresses of the first slot and behind the last; None where the code does not tell them."""
    table_end, row = image.arch.table_end, image.symbols.defined(INIT)
    if table_end is None or row is None:
        return None
    va, size = int(image.symbols.rows["st_value"][row]), int(image.symbols.rows["st_size"][row])
    pairs = table_end.find(image.code(va, min(size // image.arch.unit, MAX_WORDS)), va, None)
    formed = sorted({pair.value for pair in pairs if pair.value % SLOT == 0})
    spans = [(low, high) for low, high in combinations(formed, 2) if high - low <= SLOT * MOST]
    spans.sort(key=lambda span: span[0] - span[1])
    return next((span for span in spans[:MAX_SPANS] if _is_table(image, *span)), None)


def _is_table(image: Image, low: int, high: int) -> bool:
    """Whether all words of a span are records or what records leave behind, and some show that it is a table."""
    first, last = image.pos_of_va(low), image.pos_of_va(high - 1)
    if first < 0 or last - first != high - 1 - low:
        return False
    values = image.data[first : last + 1].view("<u8").astype(np.uint64)
    rows = image.rela[0]
    off = (rows["r_offset"] - np.uint64(low)).view(np.int64)
    here = (off >= 0) & (off < high - low) & (rows["r_info"] & 0xFFFF_FFFF == image.arch.relative)
    if (off[here] % SLOT).any():
        return False
    values[off[here] // SLOT] = rows["r_addend"][here].view(np.uint64)
    records = ~is_in(values, (0, MINUS4))
    if not _are_sites(image, values[records]):
        return False
    packed = np.unique(image.relr_places(low, high))
    return bool(records.any() or (values == MINUS4).all() or len(packed) == len(values))


def _are_sites(image: Image, values: U64) -> bool:
    """Whether each address has the words of a site, of one layout; some have no function, as of dead weak ones."""
    sec, off = image.place(values)
    if not (sec >= 0).all() or not image.executable[sec].all():
        return False
    shapes = (shape for shape in image.arch.shapes if not shape.program)
    return any((shape.match(image.window(sec, off, shape.reads)) != MATCH_NONE).all() for shape in shapes)


def bounded_as(image: Image, first: Image) -> Image:
    """The image with its record table where that of the same kernel is that a patch started from: what showed the ends
    may be the records that left. As it is where its kallsyms have the ends, or the table is no part of the other."""
    if image.recovered is None or first.recovered is None or len(image.data) != len(first.data):
        return image
    symbols, (low, high) = image.own_symbols, (first.own_symbols.value(name) for name in BOUNDS)
    rows = [row for name in BOUNDS if (row := symbols.defined(name)) is not None]
    if low is None or high is None or len(rows) < len(BOUNDS):
        return image
    start, stop = (int(symbols.rows["st_value"][row]) for row in rows)
    if not low <= start <= stop <= high or (start, stop) == (low, high):  # kallsyms has the same names in both
        return image
    bounded = symbols.rows.copy()
    bounded["st_value"][rows] = low, high
    recovered = image.recovered._replace(symbols=replace(symbols, rows=bounded))
    if not recovered.flat:
        return replace(image, recovered=recovered)
    # a part of zeros may be in no section of the second
    return replace(image, shdr=first.shdr, names=first.names, recovered=recovered)
