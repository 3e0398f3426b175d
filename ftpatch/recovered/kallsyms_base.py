"""The addresses of kallsyms: what the tables' distances are from, and a second fact that proves it.

The anchor is not always in the tables. BASE and PERCPU have it in a word of the file, kallsyms_relative_base. In an
image whose relocations have addends of their own (RELA) that word may be 0 in the file, and the relocation that covers
it has the value; in a dump of a kernel that runs it has moved. OWN needs the address of the table itself. ABSOLUTE
needs none, but its words may be 0 or have moved as well.

No anchor is believed alone: see kallsyms_proof.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import I64, U8, U64, Mask
from ftpatch.errors import ElfError
from ftpatch.recovered.kallsyms_exports import require_exports
from ftpatch.recovered.kallsyms_listing import Listing, Tables
from ftpatch.recovered.kallsyms_proof import BANNER, TODO, require_proof
from ftpatch.recovered.kallsyms_values import ABSOLUTE, HIGH, OWN
from ftpatch.recovered.memory import Memory

PAGE = 1 << 12  # the first symbol of a kernel, which is the base, is at the start of a page at least


@dataclass(frozen=True, eq=False)
class Addends:
    """What relocations with addends will write: whole addresses."""

    place: U64  # address of the word that is written
    value: U64  # as the linker placed the kernel

    def at(self, va: U64) -> tuple[U64, Mask]:
        """Per address: what is written there, and whether anything is."""
        if not len(self.place):
            return np.zeros(len(va), np.uint64), np.zeros(len(va), bool)
        order = np.argsort(self.place, kind="stable")
        row = order[np.minimum(np.searchsorted(self.place, va, sorter=order), len(order) - 1)]
        there = np.asarray(self.place[row] == va)
        return np.where(there, self.value[row], np.uint64(0)), there


NO_ADDENDS = Addends(np.zeros(0, np.uint64), np.zeros(0, np.uint64))


@dataclass(frozen=True, eq=False)
class Kallsyms:
    """Symbols with addresses, in ascending order."""

    va: U64
    letter: U8  # nm's type
    starts: I64  # of each name in `strings`
    strings: bytes  # names, each with a NUL behind it; nm's letter stands before each


def settle(memory: Memory, tables: Tables, listing: Listing, addends: Addends) -> Kallsyms:
    """The symbols at the addresses at which `memory` has the file.

    ElfError where the file does not tell the addresses, or where something is not at the address that it then has.
    """
    values = tables.values
    if values.kind == ABSOLUTE:
        va = _absolute(memory, listing, values.pos, addends)
    else:
        anchor = _own(memory, values.pos) if values.kind == OWN else _base(memory, values.base_pos, addends)
        if values.kind != OWN and anchor % PAGE and not len(listing.rows_of(BANNER)):
            raise ElfError("kallsyms_relative_base is in the middle of a page", found=f"{anchor:#x}", todo=TODO)
        va = listing.value.view(np.uint64) + np.where(listing.relative, np.uint64(anchor), np.uint64(0))
    if bool((va[1:] < va[:-1]).any()):
        row = int(np.argmax(va[1:] < va[:-1])) + 1
        raise ElfError("addresses of kallsyms do not ascend", f"row {row}", found=f"{int(va[row]):#x}",
                       expected=f"at least {int(va[row - 1]):#x}", todo=TODO)  # fmt: skip
    require_proof(memory, listing, va, addends.value)
    require_exports(memory, listing, va)
    return Kallsyms(va, listing.letter, listing.starts, listing.strings.tobytes())


def _own(memory: Memory, pos: int) -> int:
    """The address of kallsyms_offsets."""
    va = int(memory.va_of(np.array([pos]))[0])
    if not va:
        raise ElfError("kallsyms_offsets is in no part of the file that is loaded", f"position {pos:#x}", todo=TODO)
    return va


def _base(memory: Memory, pos: int, addends: Addends) -> int:
    """kallsyms_relative_base as the linker placed it: a relocation's addend, else what the file has."""
    word = int(memory.data[pos : pos + 8].view("<u8")[0])
    written, there = addends.at(memory.va_of(np.array([pos])))
    base = int(written[0]) if there[0] else word
    if not HIGH <= base < 2 * HIGH:
        raise ElfError("kallsyms_relative_base is no address of a kernel, and no relocation tells it",
                       f"position {pos:#x}", found=f"{word:#x}",
                       todo="addresses of symbols cannot be told from this file")  # fmt: skip
    return base


def _absolute(memory: Memory, listing: Listing, pos: int, addends: Addends) -> U64:
    """kallsyms_addresses as the linker placed them: relocations' addends, else what the file has."""
    words = listing.value.view(np.uint64)
    written, there = addends.at(memory.va_of(pos + 8 * np.arange(len(words))))
    return np.where(there, written, words)
