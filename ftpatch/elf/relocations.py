"""What a loader will write: relocations of one section of a relocatable file, and those of a linked file at boot."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ftpatch.arrays import I64, U64, Mask, Rows, is_in
from ftpatch.elf import tables as t
from ftpatch.errors import ElfError

if TYPE_CHECKING:
    from ftpatch.elf.image import Image


class Relocations(NamedTuple):
    """Every relocation of one section, in ascending order of the place."""

    table: I64  # section number of the table it stands in
    row: I64  # in that table
    off: I64  # where it writes, in the section
    size: I64  # bytes that it writes, at most
    kind: U64  # relocation type
    symbol: I64  # row in the symbol table


def relocations_of(image: Image, sec: int) -> Relocations:
    """All that the loader will write into a section. ElfError where a relocation names a symbol that the file lacks."""
    of_section = (image.shdr["sh_type"] == t.SHT_RELA) & (image.shdr["sh_info"] == sec)
    tables = np.flatnonzero(of_section).tolist()
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


# -- dynamic relocations: rows of SHT_RELA that are loaded, and the packed table SHT_RELR ------------------------------


def rela_of(image: Image) -> tuple[Rows, I64]:
    """Every row of the loaded SHT_RELA tables, and its file position."""
    loaded = image.shdr["sh_flags"] & t.SHF_ALLOC != 0
    secs = np.flatnonzero((image.shdr["sh_type"] == t.SHT_RELA) & loaded).tolist()
    parts = [image.rows(sec, t.RELA) for sec in secs]
    starts = [int(image.shdr["sh_offset"][sec]) for sec in secs]
    pos = [start + t.RELA.itemsize * np.arange(len(rows)) for start, rows in zip(starts, parts, strict=True)]
    if len(parts) == 1:
        return parts[0], pos[0]  # a view, not a copy: vmlinux has half a million rows
    return np.concatenate([np.zeros(0, t.RELA), *parts]), np.concatenate([np.zeros(0, np.int64), *pos])


def relr_of(image: Image, low: int, high: int) -> Iterator[U64]:
    """Addresses in [low, high) that SHT_RELR sections relocate, a part at a time."""
    for sec in np.flatnonzero(image.shdr["sh_type"] == t.SHT_RELR).tolist():
        where = f"{image.path}: {image.names[sec] or f'section {sec}'}"
        yield from t.relr_places(image.rows(sec, np.dtype("<u8")), low, high, where)


def n_dynamic(image: Image, va: U64, size: int) -> I64:
    """How many dynamic relocations touch the `size` bytes from each va."""
    count = np.zeros(len(va), dtype=np.int64)
    if not len(va):
        return count
    # A relocation writes eight bytes at most, so one that starts up to seven bytes in front may reach in.
    first, behind = va - np.minimum(va, np.uint64(7)), va + np.minimum(np.uint64(size), np.uint64(t.LAST_VA) - va)
    for places in chain([image.rela[0]["r_offset"]], relr_of(image, int(first.min()), int(behind.max()))):
        ordered = np.sort(places)
        count += np.searchsorted(ordered, behind) - np.searchsorted(ordered, first)
    return count
