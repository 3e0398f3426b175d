"""Marks of patch sites in object files: relocations that do nothing, at calls that are not what the compiler left.

An object has no loader's jumps and no symbols of a patch to tell an enabled site by: its call names the user's own
function, as any call does. So a patched site keeps a relocation of the type that every linker passes by, at the field
of its call. recordmcount leaves the same where it makes a NOP of a call that it does not record.

    call of the site   field ◄── a relocation of a branch: what it calls    enabled
                       field ◄── the mark: what the compiler let it call; its addend is the type of that relocation
    NOP                field ◄── the mark alone                             switched off

Source: scripts/recordmcount.c, make_nop (Linux 6.1).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ftpatch.arrays import I64, U64, Mask, is_in
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of


class Marks(NamedTuple):
    """Those of one object, in ascending order of section and place."""

    sec: I64
    field: I64  # byte offset in the section of what the relocation of the call fills
    symbol: I64  # row of what the compiler let the site call; 0 where it called nothing
    call: Mask  # whether a relocation of a branch fills that place, too

    def va(self, image: Image) -> U64:
        """va of each branch."""
        return image.va(self.sec, self.field - image.arch.call.relocated_at)


def marks_of(image: Image) -> Marks:
    """The marks in the code of an object; none in files of any other kind."""
    none = np.zeros(0, np.int64)
    columns: list[tuple[I64, I64, I64, Mask]] = [(none, none, none, none.astype(bool))]
    may = image.kind == "object" and len(image.symbols.rows) > 1  # without any, relocations name nothing
    for sec in np.flatnonzero(image.executable).tolist() if may else ():
        rows, inside = relocations_of(image, sec), int(image.shdr["sh_size"][sec])
        mark = (rows.kind == image.arch.none) & (rows.off >= image.arch.call.relocated_at) & (rows.off < inside)
        if mark.any():
            calls = rows.off[is_in(rows.kind, image.arch.direct_calls)]
            off, first = np.unique(rows.off[mark], return_index=True)
            columns.append((np.full(len(off), sec, np.int64), off, rows.symbol[mark][first], is_in(off, calls)))
    return Marks(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def enabled_calls(image: Image) -> U64:
    """va of the branches of enabled sites."""
    marks = marks_of(image)
    return marks.va(image)[marks.call]


def marked(image: Image, name: str) -> tuple[I64, I64, Mask]:
    """(section, field, whether something is called) of the sites that the compiler let call the function `name`, or
    made NOPs without a word of it (-mnop-mcount)."""
    marks = marks_of(image)
    mine = is_in(marks.symbol, image.symbols.rows_named(name))
    if any(shape.also for shape in image.arch.shapes if shape.called == name and shape.through is None):
        mine |= marks.symbol == 0
    return marks.sec[mine], marks.field[mine], marks.call[mine]
