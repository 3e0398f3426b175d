"""Relocations that the link left in a linked file for other tools (--emit-relocs): nothing applies them when it runs.

A kernel's build makes a list of them by which a compressed kernel moves itself: what is on it is added to, whatever
stands there. Source: arch/x86/tools/relocs.c do_reloc64() (Linux 6.12).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ftpatch.arrays import I64, U64, Mask, Rows, distinct
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image

TYPE = np.uint64(0xFFFF_FFFF)


class KeptRelocations(NamedTuple):
    """Those of some places, a row for each."""

    place: I64  # index of the place in what was asked for
    row: Rows  # the relocation
    number: I64  # its row in the table
    pos: I64  # its file position

    @property
    def kind(self) -> U64:
        """Relocation types."""
        kinds: U64 = self.row["r_info"] & TYPE
        return kinds

    def where(self, which: Mask) -> KeptRelocations:
        return KeptRelocations(*(column[which] for column in self))


def tables_for(image: Image, sec: int) -> list[int]:
    """The tables of kept relocations of a section."""
    tables = image.rela_tables.get(sec, []) if image.linked else []
    return [table for table in tables if not int(image.shdr["sh_flags"][table]) & t.SHF_ALLOC]


def kept_at(image: Image, va: U64) -> KeptRelocations:
    """Every kept relocation of one of some places, which are distinct. Raises ElfError where a table is none."""
    order = np.argsort(va, kind="stable")
    ordered = va[order]
    parts = [KeptRelocations(np.zeros(0, np.int64), np.zeros(0, t.RELA), np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for sec in distinct(image.place(va)[0]).tolist():
        for table in tables_for(image, sec):
            rows = image.rows(table, t.RELA)
            near = np.minimum(np.searchsorted(ordered, rows["r_offset"]), len(ordered) - 1)
            number = np.flatnonzero(ordered[near] == rows["r_offset"])
            pos = int(image.shdr["sh_offset"][table]) + t.RELA.itemsize * number
            parts.append(KeptRelocations(order[near[number]], rows[number], number, pos))
    columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    return KeptRelocations(*columns)
