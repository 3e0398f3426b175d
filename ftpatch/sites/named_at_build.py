"""Which addresses had a name when a kernel was built: its own kallsyms say so, whatever was stripped since.

The table has an offset for each symbol, in the order of their addresses: from the first symbol (before Linux 7), or
from its own place. Where variables of each processor have addresses from 0 on (x86 before Linux 6.15), these stand as
they are, and all others below zero. Which of these a file has is told by the functions that still have their names.
Source: scripts/kallsyms.c write_src().
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.arrays import U64, Mask, is_in
from ftpatch.elf.image import Image

OFFSETS, COUNT = "kallsyms_offsets", "kallsyms_num_syms"
FIRST = 4  # sections of code at whose start the first symbol may be, by the kernel's configuration
MOST = 1 << 22  # symbols of a kernel; those of today have 200,000
SAMPLE = 512  # functions that are looked up
SURE = 0.9  # of them have to be there: a few kinds of symbols are left out


def named_at_build(image: Image, va: U64) -> Mask | None:
    """Which addresses a kernel's kallsyms have; None where these are not found, or are not those of this file."""
    if image.recovered is not None:  # its symbols are those of kallsyms
        return is_in(va, image.functions.va) if len(image.functions.va) else None
    names = image.functions.va
    names = names[:: max(len(names) // SAMPLE, 1)]
    for addresses in _readings(image) if len(names) else ():
        if float(_among(names, addresses).mean()) >= SURE:
            return _among(va, addresses)
    return None


def _among(va: U64, ascending: U64) -> Mask:
    return np.asarray(ascending[np.minimum(np.searchsorted(ascending, va), len(ascending) - 1)] == va)


def _readings(image: Image) -> Iterator[U64]:
    """The table as each kind of kernel would read it."""
    va, count = image.symbols.value(OFFSETS), image.symbols.value(COUNT)
    if va is None or count is None:
        return
    at, n_at = image.pos_of_va(va), image.pos_of_va(count)
    if min(at, n_at) < 0 or n_at + 4 > len(image.data):
        return
    n = int(image.data[n_at : n_at + 4].view("<u4")[0])
    if not 0 < n <= MOST or at + 4 * n > len(image.data):
        return
    offsets = image.data[at : at + 4 * n].view("<i4").astype(np.int64)
    for base in np.sort(image.base[image.executable])[:FIRST]:
        yield base + (offsets & 0xFFFF_FFFF).view(np.uint64)
        yield np.where(offsets < 0, base + (-1 - offsets).view(np.uint64), offsets.view(np.uint64))
    yield np.uint64(va) + (offsets + 4 * np.arange(n)).view(np.uint64)
