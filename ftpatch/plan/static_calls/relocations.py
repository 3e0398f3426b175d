"""Relocations of keys and trampolines that the link kept in a kernel (--emit-relocs): they must say what the bytes say.

A bzImage's list of what KASLR moves is made of them: a place that holds an address needs one where the kernel has any,
and a place that holds NULL must have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.kept_relocations import kept_at, tables_for
from ftpatch.plan.edits import Group, as_bytes, group

STRIPPED = "objcopy --remove-section='.rela*' makes a copy that boots directly and not as a bzImage"
NOT_MOVED = f"a bzImage made from this file would not move the address ({STRIPPED})"
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


def why_not_followed(image: Image, places: list[Pointing]) -> dict[int, str]:
    """Why relocations cannot follow, by key."""
    kept, reasons = _kept(image, places), dict[int, str]()
    for number, place in enumerate(places):
        if tables_for(image, place.sec) and place.target and number not in kept:
            what = "its key" if not place.ends else "its trampoline"
            why = f"{what} has no relocation, and those that the link kept leave no room for one: {NOT_MOVED}"
            reasons.setdefault(place.key, why)
    return reasons


def groups_of(image: Image, places: list[Pointing]) -> Iterator[Group]:
    """Edits of the relocations of places that lead elsewhere now."""
    for number, (old, row, pos) in _kept(image, places).items():
        place, rows = places[number], np.array([old], t.RELA)
        was = int(rows["r_info"][0]) & TYPE
        symbol, addend = _named(image, place) if place.target else (0, 0)
        kind = image.arch.none if not place.target else place.kind if was == image.arch.none else was
        rows["r_info"], rows["r_addend"] = symbol << 32 | kind, addend
        yield group("relocation", image.data, np.array([row]), np.array([pos], np.int64), as_bytes(rows))


def _kept(image: Image, places: list[Pointing]) -> dict[int, tuple[Any, int, int]]:
    """(relocation, its row, its file position) that the link kept, by number of the place; one that does nothing, of an
    earlier patch, where a place has no other."""
    known = kept_at(image, np.array([place.va for place in places], dtype=np.uint64))
    found: dict[int, tuple[Any, int, int]] = {}
    for at in np.argsort(known.kind != image.arch.none, kind="stable").tolist():
        found[int(known.place[at])] = known.row[at], int(known.number[at]), int(known.pos[at])
    return found


def _named(image: Image, place: Pointing) -> tuple[int, int]:
    """(symbol, addend) by which a linker keeps a place's relocation: static functions go by their section."""
    symbols, row = image.symbols, place.row
    sec, value = int(symbols.shndx[row]), int(symbols.rows["st_value"][row])
    if symbols.bind[row] == t.STB_LOCAL:
        at = np.flatnonzero((symbols.type == t.STT_SECTION) & (symbols.shndx == sec))
        if len(at):
            return int(at[0]), value - int(symbols.rows["st_value"][int(at[0])]) - place.ends
    return row, -place.ends
