"""Why a module's site cannot be patched: relocations of its own in the way, or no room for an ops pointer."""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, Mask
from ftpatch.elf.relocations import Relocations, relocations_of, touched, touching
from ftpatch.plan.request import Draft


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
        for i in mine[~_called(draft, found, start)].tolist():
            draft.reasons[i] = f"its call has no single relocation to {shape.called}"


def _called(draft: Draft, found: Relocations, start: I64) -> Mask:
    """Whether nothing but one call of the layout's function is relocated at each site. start: offsets of the calls."""
    assert draft.arch.modules is not None
    right = np.isin(found.symbol, draft.image.symbols.rows_named(draft.shape.called))
    calls = found.off[right & (found.kind == draft.arch.modules.branch)]
    return np.asarray((touching(found, start, 4) == 1) & np.isin(start, calls))


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
