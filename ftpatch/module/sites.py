"""Why a module's site cannot be patched: relocations of its own in the way, or no room for an ops pointer."""

from __future__ import annotations

import numpy as np

from ftpatch.draft import Draft
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of, touched


def by_relocations(draft: Draft) -> None:
    """Sites with a relocation on their words, other than the call that the layout itself has."""
    table, shape = draft.table, draft.shape
    index = draft.open()
    for sec in np.unique(table.sec[index]).tolist():
        mine = index[table.sec[index] == sec]
        found = relocations_of(draft.image, sec)
        start = table.off[mine] + table.site[mine]
        if not shape.called:
            for i in mine[touched(found, start, 4 * len(shape.old))].tolist():
                draft.reasons[i] = "a relocation writes into its words"
            continue
        for i, at in zip(mine.tolist(), start.tolist(), strict=True):
            rows = np.flatnonzero(found.off == at)
            if len(rows) != 1 or _name(draft.image, int(found.symbol[rows[0]])) != shape.called:
                draft.reasons[i] = f"its call has no single relocation to {shape.called}"


def by_literal(draft: Draft) -> None:
    """Sites whose eight bytes in front cannot take a pointer: only where the layout keeps it there."""
    table, shape = draft.table, draft.shape
    index = draft.open()
    if shape.literal is None:
        return
    for sec in np.unique(table.sec[index]).tolist():
        mine = index[table.sec[index] == sec]
        off = table.off[mine] + shape.literal
        words = draft.image.words(np.full(len(mine), sec), off, 0, 2)
        odd = (off % 8 != 0) | (int(draft.image.shdr["sh_addralign"][sec]) % 8 != 0)
        full = ~shape.old[0].matches(words).all(axis=1)
        moved = touched(relocations_of(draft.image, sec), off, 8)
        for bad, why in ((odd, "is not 8-byte aligned"), (moved, "has a relocation"), (full, "is not empty")):
            for i, at in zip(mine[bad].tolist(), off[bad].tolist(), strict=True):
                draft.reasons.setdefault(i, f"its ops literal at {draft.image.names[sec]}+{at:#x} {why}")


def _name(image: Image, symbol: int) -> str:
    return image.symbols.name(symbol) if 0 <= symbol < len(image.symbols.rows) else ""
