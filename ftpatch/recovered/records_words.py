"""Words of a kernel's data that may be records, and whether what they name is a patch site."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.arch.shape import MATCH_NONE, Shape
from ftpatch.arrays import U64, Mask, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image

SLOT = 8
EMPTY = (0, 0xFFFF_FFFF_FFFF_FFFC)  # what slots of records hold that are gone


def words_of_data(image: Image) -> Iterator[tuple[int, U64]]:
    """(address, words) of each section of data, as they are once the kernel has relocated itself."""
    head = image.shdr
    kinds = is_in(head["sh_type"], (t.SHT_PROGBITS,)) & (head["sh_flags"] & t.SHF_ALLOC != 0) & ~image.executable
    for sec in np.flatnonzero(kinds & (head["sh_size"] >= SLOT)).tolist():
        yield words_of(image, sec)


def words_of(image: Image, sec: int) -> tuple[int, U64]:
    """(address, words) of a section, as they are once the kernel has relocated itself."""
    rows = image.rela[0]
    rows = rows[(rows["r_info"] & np.uint64(0xFFFF_FFFF)) == np.uint64(image.arch.relative)]
    content, skip = image.content(sec), int(-int(image.base[sec]) % SLOT)
    words = content[skip : skip + (len(content) - skip) // SLOT * SLOT].view("<u8").astype(np.uint64)
    va = int(image.base[sec]) + skip
    off = (rows["r_offset"] - np.uint64(va)).view(np.int64)
    inside = (off >= 0) & (off < SLOT * len(words)) & (off % SLOT == 0)
    words[off[inside] // SLOT] = rows["r_addend"][inside].view(np.uint64)
    return va, words


def sites_of(image: Image, shape: Shape, values: U64) -> tuple[Mask, Mask]:
    """Which addresses are those of sites by their words, and which by a function's start, too."""
    sec, off = image.place(values)
    window = image.window(sec, off, shape.reads)
    fits = np.asarray(shape.match(window) != MATCH_NONE)
    if shape.anywhere:
        return fits, fits & image.functions.inside(values)
    at = image.functions.at if shape.at_global else image.functions.at_local
    low, high = at(values + shape.to_entry(window).view(np.uint64))
    return fits, fits & (high > low)
