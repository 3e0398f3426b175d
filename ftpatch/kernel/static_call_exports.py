"""Which static calls modules may use: with the key, which lets them set it, or by the trampoline alone.

A kernel exports `__SCK__NAME` and `__SCT__NAME` (EXPORT_STATIC_CALL), or the trampoline alone
(EXPORT_STATIC_CALL_TRAMP): then an array of pairs {s32 trampoline, s32 key}, each relative to its own field, tells the
loader which key it belongs to. Source: include/linux/static_call.h, kernel/static_call_inline.c tramp_key_lookup().
"""

from __future__ import annotations

import numpy as np

from ftpatch.kernel.exports import read_exports
from ftpatch.sites.static_calls import StaticCallTable
from ftpatch.sites.static_keys import KEY, TRAMPOLINE


def exported(table: StaticCallTable) -> list[str | None]:
    """Per key, what this file exports of it: `key`, `trampoline` alone, or None.

    Raises ElfError where the tables of exports contradict the file.
    """
    names = table.keys.name
    if not names:
        return []
    exports = read_exports(table.image)
    key, trampoline = (
        exports.rows(np.array([f"{prefix}{name}".encode("utf-8", "replace") for name in names])) >= 0
        for prefix in (KEY, TRAMPOLINE)
    )
    key &= table.keys.sec >= 0  # a file exports its own
    return ["key" if own else "trampoline" if also else None
            for own, also in zip(key.tolist(), trampoline.tolist(), strict=True)]  # fmt: skip
