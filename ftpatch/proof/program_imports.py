"""The functions that a program or shared object imports: the slots that its loader fills with their addresses, and the
stubs of the .plt that jump through these.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.elf.image import Image

STUB = 24  # bytes of a stub of the .plt that are read
PT_DYNAMIC, MAX_DYNAMIC = 2, 1 << 16
DT_PLTRELSZ, DT_JMPREL, DT_BIND_NOW, DT_FLAGS, DT_FLAGS_1 = 2, 23, 24, 30, (7 << 28) - 5
DF_BIND_NOW, DF_1_NOW = 8, 1
DYN = np.dtype([("d_tag", "<u8"), ("d_val", "<u8")])


class Slot(NamedTuple):
    """A word that the loader fills with the address of a function of another file."""

    va: int
    name: str  # of the function's symbol
    lazy: bool  # whether that is when it is first called: until then it leads to the loader, which changes registers


@dataclass(frozen=True)
class Imports:
    """Those of one file."""

    image: Image

    @cached_property
    def slots(self) -> dict[int, Slot]:
        """By address. A slot that two relocations fill is none."""
        tables = (self.image.shdr["sh_type"] == t.SHT_RELA) & (self.image.shdr["sh_flags"] & t.SHF_ALLOC != 0)
        slots: dict[int, Slot] = {}
        twice: set[int] = set()
        low, high = self._lazy
        for table in np.flatnonzero(tables).tolist():
            link = int(self.image.shdr["sh_link"][table])
            if link >= len(self.image.shdr) or self.image.shdr["sh_type"][link] != t.SHT_DYNSYM:
                continue
            names, rows = self._names(link), self.image.rows(table, t.RELA)
            rows = rows[(rows["r_info"] >> np.uint64(32) != 0) & (rows["r_addend"] == 0)]
            address = int(self.image.shdr["sh_addr"][table])
            lazy = low <= address < high
            for va, number in zip(rows["r_offset"].tolist(), (rows["r_info"] >> np.uint64(32)).tolist(), strict=True):
                if va in slots:
                    twice.add(va)
                if names.get(number):
                    slots[va] = Slot(va, names[number], lazy)
        return {va: slot for va, slot in slots.items() if va not in twice}

    def stub(self, va: int) -> Slot | None:
        """The slot through which the stub at an address jumps; None where there is no such stub."""
        arch = self.image.arch
        if arch.plt_slot is None or not self.slots:
            return None
        at = np.array([va], dtype=np.uint64)
        words = self.image.words(*self.image.place(at), 0, STUB // arch.unit)
        got = next((int(self.image.base[sec]) for sec in self.image.sections_named(".got")), 0)
        return self.slots.get(int(arch.plt_slot(words, at, got)[0]))

    def _names(self, table: int) -> dict[int, str]:
        """The names of the symbols of a dynamic table, by row."""
        rows, link = self.image.rows(table, t.SYM), int(self.image.shdr["sh_link"][table])
        if link >= len(self.image.shdr) or self.image.shdr["sh_type"][link] != t.SHT_STRTAB:
            return {}
        strings = self.image.content(link).tobytes()
        symbols = t.Symbols(rows, strings, np.zeros(len(rows), np.int64))
        return {row: symbols.name(row) for row in range(1, len(rows))}

    @cached_property
    def dynamic(self) -> dict[int, int]:
        """The dynamic table: tag → value, of tags that stand in it once."""
        for row in self.image.phdr[self.image.phdr["p_type"] == PT_DYNAMIC]:
            start, size = int(row["p_offset"]), min(int(row["p_filesz"]), MAX_DYNAMIC * DYN.itemsize)
            content = self.image.data[start : start + size]
            rows = content[: len(content) - len(content) % DYN.itemsize].view(DYN)
            return dict(zip(rows["d_tag"].tolist(), rows["d_val"].tolist(), strict=True))
        return {}

    @cached_property
    def _lazy(self) -> tuple[int, int]:
        """Addresses of the relocations that are applied when a function is first called; none where all are at once."""
        tags = self.dynamic
        now = DT_BIND_NOW in tags or tags.get(DT_FLAGS, 0) & DF_BIND_NOW or tags.get(DT_FLAGS_1, 0) & DF_1_NOW
        start = tags.get(DT_JMPREL, 0)
        return (0, 0) if now else (start, start + tags.get(DT_PLTRELSZ, 0))
