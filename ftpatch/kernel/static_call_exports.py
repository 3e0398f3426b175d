"""Which static calls modules may use: with the key, which lets them set it, or by the trampoline alone.

A kernel exports `__SCK__NAME` and `__SCT__NAME` (EXPORT_STATIC_CALL), or the trampoline alone
(EXPORT_STATIC_CALL_TRAMP): then an array of pairs {s32 trampoline, s32 key}, each relative to its own field, tells the
loader which key it belongs to. Source: include/linux/static_call.h, kernel/static_call_inline.c tramp_key_lookup().
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, Mask
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import RecordError
from ftpatch.kernel.exports import read_exports
from ftpatch.sites.static_calls import StaticCallTable, require_entries

START, STOP = "__start_static_call_tramp_key", "__stop_static_call_tramp_key"
PAIR = 8  # bytes


def exported(table: StaticCallTable) -> list[str | None]:
    """Per key, what this file exports of it: `key`, `trampoline` alone, or None.

    Raises ElfError where the tables of exports contradict the file.
    """
    image, keys = table.image, table.keys
    if not len(keys):
        return []
    exports = read_exports(image)
    places = set(zip(exports.sec.tolist(), exports.off.tolist(), strict=True))
    own, jumps = (zip(*(column.tolist() for column in at), strict=True)
                  for at in ((keys.sec, keys.off), table.trampolines))  # fmt: skip
    return ["key" if key[0] >= 0 and key in places else "trampoline" if jump[0] >= 0 and jump in places else None
            for key, jump in zip(own, jumps, strict=True)]  # fmt: skip


def paired(table: StaticCallTable) -> Mask:
    """Which keys a kernel's loader finds by their trampoline. Raises RecordError for a damaged table of pairs."""
    trampoline, key = _pairs(table.image)
    rows, found = table.rows_by_place, np.zeros(len(table.keys), dtype=bool)
    for jump, own in zip(trampoline, key, strict=True):
        row = rows.get(jump, -1)
        found[row] |= row >= 0 and own == (int(table.keys.sec[row]), int(table.keys.off[row]))
    return found


def _pairs(image: Image) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Places of the trampolines and of the keys of a kernel's pairs."""
    start, stop = (image.symbols.value(name) if image.linked else None for name in (START, STOP))
    if start is None or stop is None:
        return [], []
    where = f"{image.path}: pairs of trampolines and keys {start:#x}..{stop:#x}"
    n = require_entries(stop - start, where)
    first = image.pos_of_va(start) if n else 0
    if first < 0:
        raise RecordError("the table does not lie in the file", where)
    fields = t.cut(image.data, first, stop - start, where).view("<i4").astype(np.int64)
    here = np.uint64(start).view(np.int64) + 4 * np.arange(2 * n, dtype=np.int64)
    with np.errstate(over="ignore"):
        sec, off = image.place((here + fields).view(np.uint64))
    return _places(sec[::2], off[::2]), _places(sec[1::2], off[1::2])


def _places(sec: I64, off: I64) -> list[tuple[int, int]]:
    return list(zip(sec.tolist(), off.tolist(), strict=True))
