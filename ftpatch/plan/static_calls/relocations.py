"""Relocations of keys and trampolines in a linked kernel, which must say what the bytes say.

    kept by the link (--emit-relocs)   symbol and addend of each: a bzImage's list of what KASLR moves is made of them
    dynamic (RELA)                     the addend is the value
    dynamic (RELR)                     the place alone: the word itself holds the value

A place that holds an address needs one where the kernel has any; a place that holds NULL must have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ftpatch.arrays import I64
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import Relocations, relocations_of
from ftpatch.plan.edits import Group, as_bytes, group

STRIPPED = "objcopy --remove-section='.rela.*' makes a copy that boots directly and not as a bzImage"
TYPE = 0xFFFF_FFFF


class Pointing(NamedTuple):
    """One place that is to lead somewhere else."""

    key: int  # row of the table of keys
    sec: int  # of the place
    va: int  # of it
    kind: int  # relocation type of such a place
    target: int  # va that it leads to; 0: nowhere
    row: int  # of the target's symbol; −1: none
    ends: int = 0  # bytes from the place to where a distance counts from


class Kept(NamedTuple):
    """The relocations of one place that the link kept."""

    table: int  # section with its row
    number: int  # of the row in it; −1: there is none


def why_not_followed(image: Image, place: Pointing) -> str:
    """Why the relocations of a place cannot follow; empty where they can."""
    if not _relocations(image, place.sec):
        return _dynamic(image, place)
    kept = _kept(image, place)
    if kept.number < 0 and place.target:
        what = "its key" if not place.ends else "its trampoline"
        return (f"{what} has no relocation, and the table of those that the link kept has no room for one: a bzImage "
                f"made from this file would not move the address ({STRIPPED})")  # fmt: skip
    return ""


def groups_of(image: Image, places: list[Pointing]) -> Iterator[Group]:
    """Edits of the relocations of places that lead elsewhere now."""
    for place in places:
        kept = _kept(image, place) if _relocations(image, place.sec) else None
        if kept is None or kept.number < 0:
            continue
        rows = image.rows(kept.table, t.RELA)[kept.number : kept.number + 1].copy()
        old = int(rows["r_info"][0])
        symbol, addend = _named(image, place) if place.target else (0, 0)
        kind = (old & TYPE or place.kind) if place.target else image.arch.none
        rows["r_info"], rows["r_addend"] = symbol << 32 | kind, addend
        pos = int(image.shdr["sh_offset"][kept.table]) + kept.number * t.RELA.itemsize
        yield group("relocation", image.data, np.array([kept.number]), np.array([pos], np.int64), as_bytes(rows))


def _relocations(image: Image, sec: int) -> bool:
    """Whether the link kept the relocations of a section."""
    return sec in image.rela_tables


def _kept(image: Image, place: Pointing) -> Kept:
    """The relocation of a place; one that does nothing, of an earlier patch, where it has no other."""
    known: Relocations = relocations_of(image, place.sec)
    at = np.int64(place.va - (1 << 64) if place.va >> 63 else place.va)
    low, high = np.searchsorted(known.off, [at, at + 1])
    rows: I64 = np.arange(low, high)
    rows = rows[np.argsort(known.kind[rows] == image.arch.none, kind="stable")]
    return Kept(int(known.table[rows[0]]), int(known.row[rows[0]])) if len(rows) else Kept(-1, -1)


def _named(image: Image, place: Pointing) -> tuple[int, int]:
    """(symbol, addend) by which a linker keeps a place's relocation: static functions go by their section."""
    symbols, row = image.symbols, place.row
    sec, value = int(symbols.shndx[row]), int(symbols.rows["st_value"][row])
    if symbols.bind[row] == t.STB_LOCAL:
        at = np.flatnonzero((symbols.type == t.STT_SECTION) & (symbols.shndx == sec))
        if len(at):
            return int(at[0]), value - int(symbols.rows["st_value"][int(at[0])]) - place.ends
    return row, -place.ends


def _dynamic(image: Image, place: Pointing) -> str:
    """Why a place with a dynamic relocation, or without, cannot lead elsewhere; empty where it can."""
    return ""
