"""What `disable` gives back to sites of a module that the compiler made calls: the call, or the NOP in its place.

call    its relocation names the function again that it named
NOP     nothing in the file names that function, or a relocation is left that does nothing: a build tool's. That of
        the patch leaves
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, U32, Mask
from ftpatch.elf import tables as t
from ftpatch.elf.editor import Editor
from ftpatch.elf.relocations import relocations_of
from ftpatch.plan.request import Draft


def compiled_code(draft: Draft) -> U32:
    """(n, units) of code that the open sites get back."""
    index, shape, sec = draft.open(), draft.shape, draft.scan.sites.sec
    code = np.empty((len(index), len(shape.old)), dtype=np.uint32)
    code[:] = [unit.bits for unit in shape.old]
    for number in np.unique(sec[index]).tolist():
        mine = np.flatnonzero(sec[index] == number)
        nops = mine[_were_nops(draft, number, index[mine])]
        if len(nops):
            code[nops] = [unit.bits for unit in shape.also[0]]
    return code


def give_back(draft: Draft, editor: Editor, sec: int, index: I64) -> None:
    """The relocations of one section's sites, as they were before a patch."""
    image, rows, nops = draft.scan.image, relocations_of(draft.scan.image, sec), _were_nops(draft, sec, index)
    field, ours = _fields(draft, sec, index), rows.kind != image.arch.none
    cut, back = ours & np.isin(rows.off, field[nops]), ours & np.isin(rows.off, field[~nops])
    for table in np.unique(rows.table[cut | back]).tolist():
        content = image.rows(table, t.RELA).copy()
        again, gone = rows.row[back & (rows.table == table)], np.zeros(len(content), dtype=bool)
        gone[rows.row[cut & (rows.table == table)]] = True
        if len(again):
            kind = content["r_info"][again] & np.uint64(0xFFFF_FFFF)
            symbol = np.uint64(image.symbols.rows_named(draft.shape.called)[0])
            content["r_info"][again] = symbol << np.uint64(32) | kind
            content["r_addend"][again] = draft.shape.branch.relocated_by
        editor.keep_rows(table, content[~gone])


def _fields(draft: Draft, sec: int, index: I64) -> I64:
    """What the relocation of each site's call fills, as offset in the section."""
    sites = draft.scan.sites
    field: I64 = (sites.branch_va[index] - sites.image.base[sec]).view(np.int64) + draft.shape.branch.relocated_at
    return field


def _were_nops(draft: Draft, sec: int, index: I64) -> Mask:
    """Which sites of a section were NOPs before they were enabled."""
    image = draft.scan.image
    if not len(image.symbols.rows_named(draft.shape.called)):
        return np.ones(len(index), dtype=bool)
    rows = relocations_of(image, sec)
    return np.asarray(np.isin(_fields(draft, sec, index), rows.off[rows.kind == image.arch.none]))
