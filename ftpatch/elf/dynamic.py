"""The dynamic relocations of a linked file: rows of SHT_RELA, and the packed table SHT_RELR."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from ftpatch.arrays import I64, U64, Rows
from ftpatch.elf import tables as t

if TYPE_CHECKING:
    from ftpatch.elf.image import Image


def rela_of(image: Image) -> tuple[Rows, I64]:
    """Every row of the loaded SHT_RELA tables, and its file position."""
    loaded = image.shdr["sh_flags"] & t.SHF_ALLOC != 0
    secs = np.flatnonzero((image.shdr["sh_type"] == t.SHT_RELA) & loaded)
    parts = [image.rows(int(sec), t.RELA) for sec in secs]
    pos = [
        int(image.shdr["sh_offset"][sec]) + t.RELA.itemsize * np.arange(len(rows), dtype=np.int64)
        for sec, rows in zip(secs, parts, strict=True)
    ]
    if len(parts) == 1:
        return parts[0], pos[0]  # a view, not a copy: vmlinux has half a million rows
    return np.concatenate([np.zeros(0, t.RELA), *parts]), np.concatenate([np.zeros(0, np.int64), *pos])


def relr_of(image: Image, low: int, high: int) -> Iterator[U64]:
    """Addresses in [low, high) that SHT_RELR sections relocate, a part at a time."""
    for sec in np.flatnonzero(image.shdr["sh_type"] == t.SHT_RELR).tolist():
        where = f"{image.path}: {image.names[sec] or f'section {sec}'}"
        yield from t.relr_places(image.rows(sec, np.dtype("<u8")), low, high, where)


def n_relocations(image: Image, va: U64, size: int) -> I64:
    """How many dynamic relocations touch the `size` bytes from each va."""
    found = np.zeros(len(va), dtype=np.int64)
    if not len(va):
        return found
    # A relocation writes eight bytes at most, so one that starts up to seven bytes in front may reach in.
    first, behind = va - np.minimum(va, np.uint64(7)), va + np.minimum(np.uint64(size), np.uint64(t.LAST_VA) - va)
    for places in chain([image.rela[0]["r_offset"]], relr_of(image, int(first.min()), int(behind.max()))):
        ordered = np.sort(places)
        found += np.searchsorted(ordered, behind) - np.searchsorted(ordered, first)
    return found
