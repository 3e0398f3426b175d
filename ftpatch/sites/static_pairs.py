"""The kernel's pairs of trampoline and key, by which its loader finds the key of a trampoline that a module names.

Keys that modules may use and not set are not exported; their trampolines are, and the array between
`__start_static_call_tramp_key` and `__stop_static_call_tramp_key` has {s32 trampoline, s32 key} for each, both relative
to their own field. Source: include/linux/static_call_types.h, kernel/static_call_inline.c tramp_key_lookup().
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ftpatch.arrays import U64
from ftpatch.elf.code_lists import self_relative
from ftpatch.elf.image import Image
from ftpatch.errors import RecordError
from ftpatch.sites.static_calls import ENTRY, require_entries

START, STOP = "__start_static_call_tramp_key", "__stop_static_call_tramp_key"


class Pairs(NamedTuple):
    """One row per pair."""

    trampoline: U64  # va
    key: U64  # va
    named: bool  # whether the file has symbols for both ends of the array


def read_pairs(image: Image) -> Pairs:
    """The pairs of a linked kernel; no rows where it has none. Raises RecordError where their bounds do not fit."""
    start, stop = (image.symbols.value(name) for name in (START, STOP))
    none = np.zeros(0, dtype=np.uint64)
    if start is None or stop is None or start == stop:
        return Pairs(none, none, start is not None and stop is not None)
    where = f"{image.path}: trampolines and keys {start:#x}..{stop:#x}"
    n = require_entries(stop - start, where)
    pos = image.pos_of_va(start)
    if pos < 0 or pos + ENTRY * n > len(image.data):
        raise RecordError("the table of trampolines and keys does not lie in the file", where)
    named = self_relative(image.data[pos : pos + ENTRY * n], start).reshape(n, 2)
    return Pairs(named[:, 0], named[:, 1], True)
