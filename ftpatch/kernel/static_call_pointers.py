"""Which data of a file points to the keys of static calls: tracepoints, tables of security hooks, dispatchers.

Code that updates a key by such a pointer does not name it. The pointer says who can.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, U64, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of
from ftpatch.sites.static_calls import StaticCallTable
from ftpatch.sites.static_keys import named_at

CHUNK = 1 << 20  # words that are looked at at once
WORD = 8  # bytes of a pointer


def pointers_to(table: StaticCallTable) -> dict[int, list[str]]:
    """Row of the key → names of the data objects that hold its address, or section and offset where none is named."""
    image, keys = table.image, table.keys
    flags = image.shdr["sh_flags"]
    data = (flags & t.SHF_ALLOC != 0) & (flags & t.SHF_EXECINSTR == 0) & image.has_bytes
    found: list[tuple[I64, I64, I64]] = []  # section and offset of the pointer, row of the key
    own = np.flatnonzero(keys.sec >= 0)
    for sec in np.flatnonzero(data).tolist() if len(own) else ():
        off, row = (_linked if image.linked else _relocated)(table, sec, own)
        found.append((np.full(len(off), sec, dtype=np.int64), off, row))
    if image.linked and len(own):
        found.append(_dynamic(table, own))
    if not found:
        return {}
    sec_of, off_of, rows = (np.concatenate([part[i] for part in found]) for i in range(3))
    named: dict[int, list[str]] = {}
    for name, row in zip(_objects_around(image, sec_of, off_of), rows.tolist(), strict=True):
        names = named.setdefault(row, [])
        if name not in names:
            names.append(name)
    return named


def _linked(table: StaticCallTable, sec: int, own: I64) -> tuple[I64, I64]:
    """(offset, row of the key) of each pointer in a section of a linked file."""
    image, keys = table.image, table.keys
    vas = image.va(keys.sec[own], keys.off[own])
    low, high = vas.min(), vas.max()
    content, skip = image.content(sec), -int(image.base[sec]) % WORD
    words = content[skip : skip + (max(len(content) - skip, 0) & -WORD)].view("<u8")
    at = [np.zeros(0, dtype=np.int64)]
    for start in range(0, len(words), CHUNK):
        part = words[start : start + CHUNK]
        at.append(start + np.flatnonzero((part >= low) & (part <= high)))
    near = np.concatenate(at)
    hit = near[is_in(words[near].astype(np.uint64), vas)]
    return skip + WORD * hit, _rows(vas, own, words[hit].astype(np.uint64))


def _dynamic(table: StaticCallTable, own: I64) -> tuple[I64, I64, I64]:
    """(section, offset, row of the key) of each pointer that a relative relocation makes when the kernel starts."""
    image, keys = table.image, table.keys
    vas = image.va(keys.sec[own], keys.off[own])
    rela, _ = image.rela
    relative = rela["r_info"] & np.uint64(0xFFFF_FFFF) == image.arch.relative
    hit = np.flatnonzero(relative & is_in(rela["r_addend"].view(np.uint64), vas))
    sec, off = image.place(rela["r_offset"][hit])
    return sec, off, _rows(vas, own, rela["r_addend"][hit].view(np.uint64))


def _relocated(table: StaticCallTable, sec: int, own: I64) -> tuple[I64, I64]:
    """(offset, row of the key) of each pointer that a loader writes into a section."""
    image = table.image
    relocations = relocations_of(image, sec)
    off = relocations.off[relocations.kind == image.arch.abs64]
    named = named_at(image, relocations, off)
    rows = [table.rows_by_place.get(place, -1) for place in zip(named.sec.tolist(), named.off.tolist(), strict=True)]
    row = np.array(rows, dtype=np.int64)
    return off[is_in(row, own)], row[is_in(row, own)]


def _rows(vas: U64, own: I64, wanted: U64) -> I64:
    """Rows of the keys at these addresses, each of which is one."""
    order = np.argsort(vas, kind="stable")
    return np.asarray(own[order[np.searchsorted(vas[order], wanted)]])


def _objects_around(image: Image, sec: I64, off: I64) -> list[str]:
    """The data object that holds each place, else the place."""
    symbols = image.symbols
    rows = np.flatnonzero((symbols.type == t.STT_OBJECT) & (symbols.shndx > 0))
    start = symbols.rows["st_value"][rows] + (0 if image.linked else image.base[symbols.shndx[rows]])
    order = np.argsort(start, kind="stable")
    rows, start = rows[order], start[order]
    va = image.va(sec, off)
    near = np.searchsorted(start, va, side="right") - 1
    names = []
    for i, at in enumerate(near.tolist()):
        inside = at >= 0 and int(va[i]) - int(start[at]) < int(symbols.rows["st_size"][rows[at]])
        names.append(symbols.name(int(rows[at])) if inside else f"{image.names[sec[i]]}+{int(off[i]):#x}")
    return names
