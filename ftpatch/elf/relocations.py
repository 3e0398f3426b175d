"""What a loader will write into one section of a relocatable file."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ftpatch.arrays import I64, U64, Mask, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError


class Relocations(NamedTuple):
    """Every relocation of one section, in ascending order of the place."""

    table: I64  # section number of the table it stands in
    row: I64  # in that table
    off: I64  # where it writes, in the section
    size: I64  # bytes that it writes, at most
    kind: U64  # relocation type
    symbol: I64  # row in the symbol table


_no = np.zeros(0, np.int64)
NONE = Relocations(_no, _no, _no, _no, np.zeros(0, np.uint64), _no)


def relocations_of(image: Image, sec: int) -> Relocations:
    """All that the loader will write into a section. ElfError where a relocation names a symbol that the file lacks."""
    tables = image.rela_tables.get(sec)
    if tables is None:
        return NONE
    parts = [image.rows(table, t.RELA) for table in tables]
    rows = np.concatenate([np.zeros(0, t.RELA), *parts])
    table = np.repeat(np.array(tables, np.int64), [len(part) for part in parts])
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
    return Relocations(table[order], number[order], off[order], size, kind, symbol)


def touching(relocations: Relocations, start: I64, size: int) -> I64:
    """How many relocations write into the `size` bytes from each start."""
    low = np.searchsorted(relocations.off, start - 7)  # none is longer than eight bytes
    high = np.searchsorted(relocations.off, start + size)
    count = np.zeros(len(start), dtype=np.int64)
    for step in range(int((high - low).max(initial=0))):
        at = np.minimum(low + step, len(relocations.off) - 1)
        count += (low + step < high) & (relocations.off[at] + relocations.size[at] > start)
    return count


def touched(relocations: Relocations, start: I64, size: int) -> Mask:
    """Whether a relocation writes into the `size` bytes from each start."""
    return np.asarray(touching(relocations, start, size) > 0)
