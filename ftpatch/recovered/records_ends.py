"""Whether a record table ends where symbols, or its own structure, have its ends: no record is beside it."""

from __future__ import annotations

import numpy as np

from ftpatch.arch.shape import Shape
from ftpatch.arrays import U64, is_in
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError
from ftpatch.recovered.records_words import EMPTY, SLOT, sites_of, words_of

BESIDE = 16  # words at either end of a table that symbols bound, none of which is a record
GAP = 1 << 10  # words at either end of one that was found by its structure: as much as a page of noise, and some more
BOUNDED = 0.9  # of what symbols bound are records of sites


def require_bounds(image: Image, start: int, stop: int) -> None:
    """ElfError where the table that symbols bound is not between them: what is there names no sites, or it goes on at
    either end."""
    sec, _ = image.place(np.array([start], dtype=np.uint64))
    if sec[0] < 0 or start >= stop or not image.has_bytes[sec[0]]:
        return  # who reads the records says so
    va, words = words_of(image, int(sec[0]))
    first, behind = (start - va) // SLOT, (stop - va) // SLOT
    if first < BESIDE:  # a section that symbols bound may begin where the wrong one is
        ends = image.base + image.shdr["sh_size"]
        in_front = [words_of(image, at)[1][-BESIDE:] for at in np.flatnonzero(image.has_bytes & (ends == va)).tolist()]
        words = np.concatenate([*in_front, words])
        first, behind = first + sum(map(len, in_front)), behind + sum(map(len, in_front))
    values = words[first:behind]
    live = values[~is_in(values, EMPTY)]
    fits = [(int(sites_of(image, shape, live)[0].sum()), shape) for shape in image.arch.shapes if not shape.program]
    n_sites, shape = max(fits, key=lambda fit: fit[0])
    more = bool(n_sites) and goes_on(image, shape, words, (first, behind))
    if n_sites < BOUNDED * len(live) or more:
        found = f"{n_sites} sites in {len(live)} records" + (", and more records beside them" if more else "")
        raise ElfError("symbols of kallsyms do not bound the records of patch sites", f"{image.path}: {start:#x}",
                       found=found, todo="the file is damaged")  # fmt: skip


def goes_on(image: Image, shape: Shape, words: U64, table: tuple[int, int], n: int = BESIDE) -> bool:
    """Whether some of n words beside a table name sites of functions that no word of it names: it does not end there.

    table: index of its first word, and behind its last."""
    first, behind = table
    octets = (words[max(first - n, 0) : first].view(np.uint8), words[behind : behind + n].view(np.uint8))
    for shift in range(SLOT):  # where bytes are missing, what is behind has moved
        pieces = [piece[shift:][: (len(piece) - shift) // SLOT * SLOT].view("<u8") for piece in octets]
        beside = np.concatenate(pieces)
        if (sites_of(image, shape, beside)[1] & ~is_in(beside, words[first:behind])).any():
            return True
    return False
