"""The addresses of kallsyms: what the tables' distances are from, and a second fact that proves it.

The anchor is not always in the tables. BASE and PERCPU have it in a word of the file, kallsyms_relative_base. In an
image whose relocations have addends of their own (RELA) that word may be 0 in the file, and the relocation that covers
it has the value; in a dump of a kernel that runs it has moved. OWN needs the address of the table itself. ABSOLUTE
needs none, but its words may be 0 or have moved as well.

No anchor is believed alone: the functions must be where the file has something, and linux_banner, where the table has
symbols of data (CONFIG_KALLSYMS_ALL), must be the text that it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import I64, U8, U64, Mask
from ftpatch.errors import ElfError
from ftpatch.recovered.kallsyms_listing import Listing, Tables
from ftpatch.recovered.kallsyms_values import ABSOLUTE, HIGH, OWN
from ftpatch.recovered.memory import Memory

BANNER, BANNER_TEXT = b"linux_banner", b"Linux version "
FUNCTION = (ord("t"), ord("T"))
FEW_OUTSIDE = 64  # one function in so many may have nothing at its address
TODO = "the file is damaged, or not whole"


@dataclass(frozen=True, eq=False)
class Addends:
    """What relocations with addends will write: whole addresses."""

    place: U64  # address of the word that is written, ascending
    value: U64  # as the linker placed the kernel

    def at(self, va: U64) -> tuple[U64, Mask]:
        """Per address: what is written there, and whether anything is."""
        row = np.searchsorted(self.place, va)
        row[row == len(self.place)] = 0
        there = self.place[row] == va if len(self.place) else np.zeros(len(va), bool)
        return np.where(there, self.value[row] if len(self.value) else 0, 0).astype(np.uint64), there


NO_ADDENDS = Addends(np.zeros(0, np.uint64), np.zeros(0, np.uint64))


@dataclass(frozen=True, eq=False)
class Kallsyms:
    """Symbols with addresses, in ascending order."""

    va: U64
    letter: U8  # nm's type
    starts: I64  # of each name in `strings`
    strings: bytes  # names, each with a NUL behind it; nm's letter stands before each


def settle(memory: Memory, tables: Tables, listing: Listing, addends: Addends, slide: int) -> Kallsyms:
    """The symbols at the addresses at which `memory` has the file.

    slide: by how much the words of the file are above that, in a dump of a running kernel. ElfError where the file
    does not tell the addresses, or where something is not at the address that it then has.
    """
    values = tables.values
    if values.kind == ABSOLUTE:
        va = _absolute(memory, listing, values.pos, addends, slide)
    else:
        anchor = _own(memory, values.pos) if values.kind == OWN else _base(memory, values.base_pos, addends, slide)
        va = listing.value.view(np.uint64) + np.where(listing.relative, np.uint64(anchor), np.uint64(0))
    if bool((va[1:] < va[:-1]).any()):
        row = int(np.argmax(va[1:] < va[:-1])) + 1
        raise ElfError("addresses of kallsyms do not ascend", f"row {row}", found=f"{int(va[row]):#x}",
                       expected=f"at least {int(va[row - 1]):#x}", todo=TODO)  # fmt: skip
    _require_functions(memory, listing, va)
    _require_banner(memory, listing, va)
    return Kallsyms(va, listing.letter, listing.starts, listing.strings.tobytes())


def _own(memory: Memory, pos: int) -> int:
    """The address of kallsyms_offsets."""
    va = int(memory.va_of(np.array([pos]))[0])
    if not va:
        raise ElfError("kallsyms_offsets is in no part of the file that is loaded", f"position {pos:#x}", todo=TODO)
    return va


def _base(memory: Memory, pos: int, addends: Addends, slide: int) -> int:
    """kallsyms_relative_base as the linker placed it: a relocation's addend, else what the file has."""
    word = int(memory.data[pos : pos + 8].view("<u8")[0])
    written, there = addends.at(memory.va_of(np.array([pos])))
    base = int(written[0]) if there[0] else word - slide
    if not HIGH <= base < 2 * HIGH:
        raise ElfError("kallsyms_relative_base is no address of a kernel, and no relocation tells it",
                       f"position {pos:#x}", found=f"{word:#x}",
                       todo="addresses of symbols cannot be told from this file")  # fmt: skip
    return base


def _absolute(memory: Memory, listing: Listing, pos: int, addends: Addends, slide: int) -> U64:
    """kallsyms_addresses as the linker placed them; those of the per-CPU area that starts at 0 do not move."""
    words = listing.value.view(np.uint64)
    moved = np.where(words >= np.uint64(HIGH), words - np.uint64(slide & 2 * HIGH - 1), words)
    written, there = addends.at(memory.va_of(pos + 8 * np.arange(len(words))))
    return np.where(there, written, moved)


def _require_functions(memory: Memory, listing: Listing, va: U64) -> None:
    """ElfError where functions are where nothing is. Labels of ends may be, where parts have gaps between them."""
    rows = np.flatnonzero((listing.letter == FUNCTION[0]) | (listing.letter == FUNCTION[1]))
    outside = rows[memory.pos_of(va[rows]) < 0]
    if len(outside) * FEW_OUTSIDE > len(rows):
        first = f"{int(va[outside[0]]):#x} {listing.name(int(outside[0])).decode(errors='replace')}"
        raise ElfError("functions of kallsyms are at addresses that the file does not have",
                       found=f"{len(outside)} of {len(rows)}, the first {first}", todo=TODO)  # fmt: skip


def _require_banner(memory: Memory, listing: Listing, va: U64) -> None:
    """ElfError where linux_banner is not at its address."""
    for row in listing.rows_of(BANNER).tolist():
        pos = int(memory.pos_of(va[row : row + 1])[0])
        text = memory.data[pos : pos + len(BANNER_TEXT)].tobytes() if pos >= 0 else b""
        if text != BANNER_TEXT:
            raise ElfError("linux_banner is not at the address that kallsyms has of it", f"{int(va[row]):#x}",
                           found=repr(text), expected=repr(BANNER_TEXT), todo=TODO)  # fmt: skip
