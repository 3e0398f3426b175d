"""Which key of a kernel, or of another module, a module's loader finds for static calls of other files.

A module names the key, where that is exported, else the trampoline alone: then a table of the kernel's pairs tells the
key. Where neither is there, the module is refused. Source: kernel/static_call_inline.c static_call_add_module().
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ftpatch.kernel.static_call_exports import exported, paired
from ftpatch.sites.static_calls import StaticCallTable
from ftpatch.sites.static_functions import functions_of


class Found(NamedTuple):
    """A key of another file."""

    file: str
    function: str | None  # what it holds; None: not known
    usable: bool  # whether the loader gets from what the module names to the key


def keys_elsewhere(table: StaticCallTable, others: Sequence[StaticCallTable]) -> dict[int, Found]:
    """Row of each key that is not in this file → the first other file that defines it."""
    found: dict[int, Found] = {}
    wanted = {table.keys.name[row]: row for row in np.flatnonzero(table.keys.sec < 0).tolist()}
    for other in others:
        rows = [row for row in np.flatnonzero(other.keys.sec >= 0).tolist() if other.keys.name[row] in wanted]
        if not rows:
            continue
        exports, pairs, functions = exported(other), paired(other), functions_of(other, np.arange(len(other.keys)))
        for row in rows:
            own = wanted[other.keys.name[row]]
            by_key = bool(table.keys.symbol[own] >= 0)
            # where nobody rewrites sites, nobody looks for the key
            named = exports[row] == "key" if by_key else exports[row] is not None
            usable = named and (by_key or bool(pairs[row]) or not table.inline)
            found.setdefault(own, Found(other.image.path, functions[row], usable))
    return found
