"""The tables that an image has once: its symbols, with their section numbers, and what is relocated at boot."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, Protocol

import numpy as np

from ftpatch.arrays import I64, U8, U64, Rows
from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf import tables as t
from ftpatch.errors import ElfError


class Tables(Protocol):
    """What is needed of an image to read its tables; `elf.image.Image`, which is made of them, is such."""

    @property
    def path(self) -> str: ...

    @property
    def shdr(self) -> Rows: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def rela(self) -> tuple[Rows, I64]: ...

    def content(self, sec: int) -> U8: ...

    def part(self, sec: int) -> FileBytes: ...

    def rows(self, sec: int, dtype: np.dtype[Any]) -> Rows: ...


def symbols_of(image: Tables, kind: int) -> t.Symbols:
    """The first table of that kind, SHT_SYMTAB or SHT_DYNSYM; an image without one has no rows.

    Raises ElfError where its strings or its extended section numbers are not there.
    """
    tabs = np.flatnonzero(image.shdr["sh_type"] == kind)
    if not len(tabs):
        return t.Symbols(np.zeros(0, t.SYM), b"", np.zeros(0, np.int64))
    tab = int(tabs[0])
    rows = image.rows(tab, t.SYM)
    link = int(image.shdr["sh_link"][tab])
    if link >= len(image.shdr) or image.shdr["sh_type"][link] != t.SHT_STRTAB:
        raise ElfError("the symbol table's sh_link names no string table", image.path, found=f"section {link}")
    shndx = rows["st_shndx"].astype(np.int64)
    odd = np.flatnonzero(shndx >= min(len(image.shdr), t.SHN_LORESERVE))  # hardly any but absolute symbols
    special = (shndx[odd] >= t.SHN_LORESERVE) & (shndx[odd] != t.SHN_XINDEX)
    extended = odd[shndx[odd] == t.SHN_XINDEX]
    if len(extended):
        shndx[extended] = _extended_index(image, tab, len(rows))[extended]
    shndx[odd[~special & (shndx[odd] >= len(image.shdr))]] = t.SHN_UNDEF
    shndx[odd[special]] = t.NO_SECTION
    strings = image.part(link)
    return t.Symbols(rows, strings.peek(0, len(strings)), shndx)  # not kept a second time


def _extended_index(image: Tables, tab: int, n: int) -> I64:
    """Section numbers of n symbols from the table that files with more than 65,279 sections have."""
    for sec in np.flatnonzero(image.shdr["sh_type"] == t.SHT_SYMTAB_SHNDX):
        if int(image.shdr["sh_link"][sec]) == tab:
            index = image.content(int(sec))
            if len(index) >= 4 * n:
                return index[: 4 * n].view("<u4").astype(np.int64)
    raise ElfError("symbols use SHN_XINDEX but there is no SHT_SYMTAB_SHNDX table for them", image.path)


# -- dynamic relocations: rows of SHT_RELA that are loaded, and the packed table SHT_RELR ------------------------------


def rela_of(image: Tables) -> tuple[Rows, I64]:
    """Every row of the loaded SHT_RELA tables, and its file position."""
    loaded = image.shdr["sh_flags"] & t.SHF_ALLOC != 0
    secs = np.flatnonzero((image.shdr["sh_type"] == t.SHT_RELA) & loaded).tolist()
    parts = [image.rows(sec, t.RELA) for sec in secs]
    starts = [int(image.shdr["sh_offset"][sec]) for sec in secs]
    pos = [start + t.RELA.itemsize * np.arange(len(rows)) for start, rows in zip(starts, parts, strict=True)]
    if len(parts) == 1:
        return parts[0], pos[0]  # a view, not a copy: vmlinux has half a million rows
    return np.concatenate([np.zeros(0, t.RELA), *parts]), np.concatenate([np.zeros(0, np.int64), *pos])


def relr_of(image: Tables, low: int, high: int) -> Iterator[U64]:
    """Addresses in [low, high) that SHT_RELR sections relocate, a part at a time."""
    for sec in np.flatnonzero(image.shdr["sh_type"] == t.SHT_RELR).tolist():
        where = f"{image.path}: {image.names[sec] or f'section {sec}'}"
        yield from t.relr_places(image.rows(sec, np.dtype("<u8")), low, high, where)


def n_dynamic(image: Tables, va: U64, size: int) -> I64:
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
