"""What the tables of a module gain for code that a patch brings along, where kernels want to know of all code.

    .return_sites, .call_sites      a row for a place in the code, which the loader changes for the processor
    .orc_unwind_ip, .orc_unwind     rows for a stack walk, from which it tells who called

A module has such a table where its kernel was built with it; the loader sorts what has an order.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch.code_lists import UnwindTables
from ftpatch.arch.parts import Code
from ftpatch.elf import tables as t
from ftpatch.elf.editor import Editor
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of
from ftpatch.kernel.modinfo import section_of
from ftpatch.plan.module.addition import Addition

ROW = 4  # bytes of a distance
NO_WALK = (
    "stack walks end at the patch's code: the module's tables for them are not understood, so that they say nothing "
    "of it"
)


def list_code(addition: Addition, code: Code, symbol: int, site: int) -> list[str]:
    """Add rows for code whose first instruction has a symbol; what is to be said of it. site: one that calls it."""
    editor, kind = addition.editor, addition.modules.distance
    for listed in code.listed:
        if (sec := section_of(editor.image, listed.table)) >= 0:
            _add_place(editor, sec, kind, (symbol, listed.off - code.entry))
    unwind = addition.modules.unwind
    if unwind is None or not code.frames or section_of(editor.image, unwind.places) < 0:
        return []
    sites = addition.module.scan.sites
    entry = _row_at(editor.image, unwind, (int(sites.sec[site]), int(sites.off[site] + sites.site[site])))
    rows = [unwind.row(frame, entry) for frame in code.frames]
    content = b"".join(row for row in rows if row is not None)
    if len(content) != unwind.size * len(rows):
        return [NO_WALK]
    for frame in code.frames:
        _add_place(editor, section_of(editor.image, unwind.places), kind, (symbol, frame.off - code.entry))
    editor.append(section_of(editor.image, unwind.rows), content)
    return []


def _add_place(editor: Editor, sec: int, kind: int, place: tuple[int, int]) -> None:
    """A row with the distance to a symbol and addend."""
    editor.relocate(sec, editor.append(sec, bytes(ROW)), kind, *place)


def _row_at(image: Image, unwind: UnwindTables, place: tuple[int, int]) -> bytes:
    """The row that a stack walk finds for a section and offset; empty where the tables do not tell."""
    places, rows = section_of(image, unwind.places), section_of(image, unwind.rows)
    n = int(image.shdr["sh_size"][places]) // ROW
    content = image.content(rows).tobytes() if rows >= 0 else b""
    if len(content) != n * unwind.size or int(image.shdr["sh_size"][places]) != n * ROW:
        return b""
    relocations, symbols = relocations_of(image, places), image.symbols
    if not np.array_equal(relocations.off, ROW * np.arange(n)) or len(np.unique(relocations.table)) != 1:
        return b""
    addend = image.rows(int(relocations.table[0]), t.RELA)["r_addend"][relocations.row]
    off = symbols.rows["st_value"][relocations.symbol].astype(np.int64) + addend
    before = np.flatnonzero((symbols.shndx[relocations.symbol] == place[0]) & (off <= place[1]))
    if not len(before):
        return b""
    at = int(before[np.argmax(off[before])])
    return content[unwind.size * at : unwind.size * (at + 1)]
