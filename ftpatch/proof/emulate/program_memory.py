"""What the memory of a loaded program holds: its segments, with imports filled in, a stack, and thread-local storage.

A program is executed at the addresses that it was linked for. Imported functions are given addresses in an area of
their own, behind all segments; nothing is executed there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.elf.image import Image

PAGE = 1 << 12  # bytes that are filled at once, the least that loaders protect
IMPORT = 16  # bytes from one imported function to the next
AREA = 1 << 32  # bytes
ENDS = 0x7FFF_0000_0000  # of the addresses of programs, with room for what a machine has there
WRITE = 2  # of p_flags


@dataclass(frozen=True)
class ProgramMemory:
    """The memory of one program. An area is at an address where no segment is."""

    image: Image
    filled: Mapping[int, int]  # va of a slot → va of the import that it holds
    imports: Mapping[str, int]  # name of an imported function → va
    stack: int  # start of an area for the stack, and for thread-local storage
    outside: tuple[int, int]  # area of the imports

    @cached_property
    def _loads(self) -> list[tuple[int, int, int, int, bool]]:
        """(va, end in memory, bytes in the file, file position, whether it is writable) of every segment, by va."""
        rows = self.image.phdr[self.image.phdr["p_type"] == t.PT_LOAD]
        return sorted((int(row["p_vaddr"]), int(row["p_vaddr"]) + int(row["p_memsz"]),
                       min(int(row["p_filesz"]), int(row["p_memsz"])), int(row["p_offset"]),
                       bool(int(row["p_flags"]) & WRITE)) for row in rows)  # fmt: skip

    @cached_property
    def _slots(self) -> list[int]:
        return sorted(self.filled)

    def page(self, va: int) -> tuple[bytes, bool] | None:
        """(content, whether it is writable) of the page at a multiple of PAGE; None where nothing is loaded."""
        if self.outside[0] <= va < self.outside[1]:
            return bytes(PAGE), False
        content, writable, known = bytearray(PAGE), False, False
        for start, end, size, pos, write in self._loads:
            if start >= va + PAGE or end <= va:
                continue
            known, writable = True, writable or write
            low, high = max(start, va), min(start + size, va + PAGE)
            if low < high:
                content[low - va : high - va] = self.image.data[pos + low - start : pos + high - start].tobytes()
        if not known:
            return None
        for slot in self._slots[bisect_right(self._slots, va - 8) : bisect_right(self._slots, va + PAGE - 1)]:
            for at, byte in enumerate(self.filled[slot].to_bytes(8, "little"), slot - va):
                if 0 <= at < PAGE:
                    content[at] = byte
        return bytes(content), writable


def program_memory(image: Image, slots: Mapping[int, str]) -> ProgramMemory | None:
    """The memory of a program whose slots are filled with the addresses of functions of these names; None where it has
    no room between its segments for what it is executed with."""
    rows = image.phdr[image.phdr["p_type"] == t.PT_LOAD]
    taken = [(int(row["p_vaddr"]), int(row["p_vaddr"]) + int(row["p_memsz"])) for row in rows]
    near = [AREA, *(-(-end // AREA) * AREA for _, end in taken)]  # so that all can be laid out in one process
    free = [area for area in sorted(near) if area + 2 * AREA < ENDS and all(
            end <= area or area + 2 * AREA <= start for start, end in taken)]  # fmt: skip
    if not free:
        return None
    outside, stack = free[0], free[0] + AREA
    names = dict.fromkeys(slots.values())
    imports = {name: outside + IMPORT * number for number, name in enumerate(names)}
    filled = {va: imports[name] for va, name in slots.items()}
    pages = -(-max(IMPORT * len(names), 1) // PAGE) * PAGE
    return ProgramMemory(image, filled, imports, stack, (outside, outside + pages))


def entries_of(image: Image) -> set[int]:
    """va of every entry of the program's functions."""
    functions = image.functions
    return set(np.concatenate([functions.va, functions.local]).tolist())
