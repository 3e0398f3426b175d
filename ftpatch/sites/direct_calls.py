"""Every direct call and jump of a file that goes to a function of the same file, whoever makes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ftpatch.arch.shape import Branch
from ftpatch.arrays import I64, U32, U64, Mask, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of
from ftpatch.errors import ElfError

CHUNK = 1 << 20  # bytes of code that are looked at at once


class DirectCalls(NamedTuple):
    """One row per call or jump, ascending by the function that it goes to."""

    va: U64  # of the instruction
    to: I64  # the first function at its destination, as an index of `image.functions`
    jump: Mask  # it does not come back


def direct_calls(image: Image) -> DirectCalls:
    """All of them. In code of bytes, what looks like one may be the inside of another instruction."""
    parts = [(np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, bool))]
    kinds = [(image.arch.call, False), *([(image.arch.jump, True)] if image.arch.jump is not None else [])]
    for sec in np.flatnonzero(image.executable & (image.shdr["sh_size"] > 0)).tolist():
        for branch, jump in kinds:
            parts += ((va, to, np.full(len(va), jump)) for va, to in _in_section(image, sec, branch))
    va, to, jumps = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    functions = image.functions
    (first, end), (local, local_end) = functions.at(to), functions.at_local(to)
    at_entry, at_local = first < end, local < local_end
    index = np.where(at_entry, first, np.where(at_local, local, -1))
    here = index >= 0
    order = np.lexsort((va[here], index[here]))
    return DirectCalls(va[here][order], index[here][order], jumps[here][order])


def _in_section(image: Image, sec: int, branch: Branch) -> Iterator[tuple[U64, U64]]:
    """(va of each branch, va that it goes to)."""
    unit, base, code = image.arch.unit, image.base[sec], image.content(sec)
    for start in range(0, len(code), CHUNK):
        octets = code[start : start + CHUNK + branch.size - unit]
        units: U32 = (octets if unit == 1 else octets[: len(octets) & ~3].view("<u4")).astype(np.uint32)
        at, distance = branch.find(units)
        at, distance = at[at < CHUNK] + start, distance[at < CHUNK]
        with np.errstate(over="ignore"):
            va = base + at.view(np.uint64)
            yield va, (va.view(np.int64) + distance).view(np.uint64)
    if not image.linked and sec in image.rela_tables:
        yield from _relocated(image, sec, branch)


def _relocated(image: Image, sec: int, branch: Branch) -> Iterator[tuple[U64, U64]]:
    """Those of a relocatable file that its relocations let go somewhere."""
    try:
        rows = relocations_of(image, sec)
    except ElfError:  # no linker takes such a section
        return
    index = np.flatnonzero(is_in(rows.kind, image.arch.direct_calls))
    off = rows.off[index] - branch.relocated_at
    index, off = index[off >= 0], off[off >= 0]
    index = index[branch.word.matches(image.words(np.full(len(off), sec), off, 0, 1)[:, 0])]
    symbol, shndx = rows.symbol[index], image.symbols.shndx[rows.symbol[index]]
    defined = (shndx > 0) & (shndx < len(image.base))
    index, symbol, shndx = index[defined], symbol[defined], shndx[defined]
    addend = np.zeros(len(index), dtype=np.int64)
    for table in np.unique(rows.table[index]).tolist():
        here = rows.table[index] == table
        addend[here] = image.rows(table, t.RELA)["r_addend"][rows.row[index][here]]
    with np.errstate(over="ignore"):
        start = (image.base[shndx] + image.symbols.rows["st_value"][symbol]).view(np.int64)
        to = (start + addend - branch.relocated_by).view(np.uint64)
        yield image.base[sec] + (rows.off[index] - branch.relocated_at).view(np.uint64), to
