"""The key that a setting names, and what is known of it in the file."""

from __future__ import annotations

import numpy as np

from ftpatch.elf.image import Image
from ftpatch.errors import SelectionError
from ftpatch.near_names import N_NEAR, near_names
from ftpatch.plan.static_calls.request import Setting
from ftpatch.sites.static_calls import StaticCallTable
from ftpatch.sites.static_keys import Named


def find_key(table: StaticCallTable, setting: Setting) -> int:
    """Row of a key. Raises SelectionError with the nearest names."""
    names = table.keys.name
    if setting.key in names:
        return names.index(setting.key)
    if not names:
        raise SelectionError("no static call of that name", setting.option[:-1], found="a file without static calls",
                             expected="a key of this file")  # fmt: skip
    near = near_names(setting.key, names) or [name for name in names if setting.key in name]
    todo = f"did you mean {' or '.join(near[:N_NEAR])}?" if near else "ftpatch static-calls lists all"
    found = f"{len(names)} keys of other names"
    raise SelectionError("no static call of that name", setting.option[:-1], found=found,
                         expected="a key of this file", todo=todo)  # fmt: skip


def symbol_at(image: Image, named: Named, key: int) -> int | None:
    """Row of the symbol of the function that a field names; None where no symbol is there, or the field is empty."""
    sec, off, symbol = (int(column[key]) for column in named)
    if sec < 0:
        return symbol if symbol >= 0 and not off else None
    low, high = image.functions.at(image.va(named.sec[key : key + 1], named.off[key : key + 1]))
    if low[0] < high[0]:
        return int(image.functions.row[int(low[0])])
    value = np.uint64(off) + (image.base[sec] if image.linked else np.uint64(0))
    symbols = image.symbols
    here = np.flatnonzero((symbols.rows["st_value"] == value) & (symbols.shndx == sec))
    plain = here[(symbols.type[here] == 0) & (symbols.rows["st_name"][here] != 0)]  # assembly
    return int(plain[0]) if len(plain) else None
