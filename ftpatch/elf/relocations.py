"""What a loader will write into one section of a relocatable file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import I64, U64, Mask, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError


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
    """All that the loader will write into a section, in ascending order of the place.

    Raises ElfError where a relocation names a symbol that the file does not have.
    """
    kinds, targets = image.shdr["sh_type"], image.shdr["sh_info"]
    tables = np.flatnonzero((kinds == t.SHT_RELA) & (targets == sec)).tolist()
    parts = [image.rows(table, t.RELA) for table in tables]
    rows = np.concatenate([np.zeros(0, t.RELA), *parts])
    table = np.concatenate([np.zeros(0, np.int64), *(np.full(len(p), n) for p, n in zip(parts, tables, strict=True))])
    number = np.concatenate([np.zeros(0, np.int64), *(np.arange(len(part)) for part in parts)])
    off = rows["r_offset"].astype(np.int64)  # a place beyond all files is negative then, and still in order
    order = np.argsort(off, kind="stable")
    symbol = (rows["r_info"][order] >> np.uint64(32)).astype(np.int64)
    if len(symbol) and int(symbol.max()) >= len(image.symbols.rows):
        where = f"{image.path}: section {sec} {image.names[sec]}"
        raise ElfError("a relocation names no symbol of this file", where, found=f"symbol {int(symbol.max())}",
                       expected=f"less than {len(image.symbols.rows)}")  # fmt: skip
    kind = rows["r_info"][order] & np.uint64(0xFFFF_FFFF)
    size = np.where(is_in(kind, image.arch.wide), 8, 4).astype(np.int64)
    return Relocations(table[order].astype(np.int64), number[order].astype(np.int64), off[order], size, kind, symbol)


def touching(found: Relocations, start: I64, size: int) -> I64:
    """How many relocations write into the `size` bytes from each start."""
    low = np.searchsorted(found.off, start - 7)  # none is longer than eight bytes
    high = np.searchsorted(found.off, start + size)
    count = np.zeros(len(start), dtype=np.int64)
    for step in range(int((high - low).max(initial=0))):
        at = np.minimum(low + step, len(found.off) - 1)
        count += (low + step < high) & (found.off[at] + found.size[at] > start)
    return count


def touched(found: Relocations, start: I64, size: int) -> Mask:
    """Whether a relocation writes into the `size` bytes from each start."""
    return np.asarray(touching(found, start, size) > 0)
