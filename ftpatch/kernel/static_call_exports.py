"""Which static calls modules may use: with the key, which lets them set it, or by the trampoline alone.

A kernel exports `__SCK__NAME` and `__SCT__NAME` (EXPORT_STATIC_CALL), or the trampoline alone
(EXPORT_STATIC_CALL_TRAMP): then an array of pairs tells the loader which key it belongs to.
Source: include/linux/static_call.h, kernel/static_call_inline.c tramp_key_lookup().
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import Mask
from ftpatch.kernel.exports import read_exports
from ftpatch.sites.static_calls import StaticCallTable
from ftpatch.sites.static_pairs import read_pairs


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
    image, keys = table.image, table.keys
    if not image.linked:
        return np.zeros(len(keys), dtype=bool)
    pairs = read_pairs(image)
    known = set(zip(pairs.trampoline.tolist(), pairs.key.tolist(), strict=True))
    own = zip(image.va(*table.trampolines).tolist(), image.va(keys.sec, keys.off).tolist(), strict=True)
    return np.array([pair in known for pair in own], dtype=bool)
