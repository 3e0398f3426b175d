"""Whether a name in code is a function's, where no sizes tell it: kallsyms has labels of assembly as it has functions.

A record says so. Without one, a label in front of a call or jump looks as a function does whose record an earlier patch
took away. But functions begin at multiples of what the compiler was told, and go on behind their sites.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch.fillers import fillers_of
from ftpatch.arrays import I64, U64, Mask
from ftpatch.elf.image import Image
from ftpatch.sites.table import SiteTable

ALIGNMENTS = (64, 32, 16, 8, 4)  # bytes
USUAL = 0.99  # of the functions that have a site begin at such multiples: a few are assembly


def may_be_functions(known: SiteTable, entry: U64, sec: I64, off: I64) -> Mask:
    """Which entries may be functions'. known: sites with records; off: byte offset of the first byte behind the site
    of each."""
    image = known.image
    named = known.entry_va[known.func < known.func_end]
    usual = next((n for n in ALIGNMENTS if len(named) and (named % np.uint64(n) == 0).mean() >= USUAL), 1)
    return np.asarray((entry % np.uint64(usual) == 0) & ~_ends_there(image, sec, off))


def _ends_there(image: Image, sec: I64, off: I64) -> Mask:
    """Where filling or another jump stands."""
    jump, ends = image.arch.jump, np.zeros(len(sec), dtype=bool)
    if jump is not None:
        ends |= jump.word.matches(image.words(sec, off, 0, 1)[:, 0])
    for filler in fillers_of(image.arch):
        unit = image.arch.unit
        units = np.frombuffer(filler, np.uint8 if unit == 1 else "<u4").astype(np.uint32)
        ends |= (image.words(sec, off, 0, len(units)) == units).all(axis=1)
    return ends
