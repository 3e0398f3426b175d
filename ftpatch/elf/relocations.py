"""What a loader will write into one section of a relocatable file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.tables import I64, U64, Mask

# Relocations of eight bytes: R_AARCH64_ABS64, PREL64; R_PPC64_ADDR64, REL64, TOC, PCREL34.
WIDE = {183: (257, 260), 21: (38, 44, 51, 132)}


@dataclass(frozen=True)
class Relocations:
    """Every relocation of one section: the table and row it stands in, where it writes, type, symbol."""

    table: I64
    row: I64
    off: I64
    size: I64
    kind: U64
    symbol: I64


def relocations_of(image: Image, sec: int) -> Relocations:
    """All that the loader will write into a section, in ascending order of the place."""
    kinds, targets = image.shdr["sh_type"], image.shdr["sh_info"]
    tables = np.flatnonzero((kinds == t.SHT_RELA) & (targets == sec)).tolist()
    parts = [image.rows(table, t.RELA) for table in tables]
    rows = np.concatenate([np.zeros(0, t.RELA), *parts])
    table = np.concatenate([np.zeros(0, np.int64), *(np.full(len(p), n) for p, n in zip(parts, tables, strict=True))])
    number = np.concatenate([np.zeros(0, np.int64), *(np.arange(len(part)) for part in parts)])
    off = rows["r_offset"].astype(np.int64)  # a place beyond all files is negative then, and still in order
    order = np.argsort(off, kind="stable")
    kind = rows["r_info"][order] & np.uint64(0xFFFF_FFFF)
    size = np.where(np.isin(kind, WIDE.get(image.e_machine, ())), 8, 4).astype(np.int64)
    return Relocations(
        table[order].astype(np.int64), number[order].astype(np.int64), off[order],
        size, kind, (rows["r_info"][order] >> np.uint64(32)).astype(np.int64),
    )  # fmt: skip


def touched(found: Relocations, start: I64, size: int) -> Mask:
    """Whether a relocation writes into the `size` bytes from each start."""
    low = np.searchsorted(found.off, start - 7)  # none is longer than eight bytes
    high = np.searchsorted(found.off, start + size)
    hit = np.zeros(len(start), dtype=bool)
    for step in range(int((high - low).max(initial=0))):
        at = np.minimum(low + step, len(found.off) - 1)
        hit |= (low + step < high) & (found.off[at] + found.size[at] > start)
    return hit
