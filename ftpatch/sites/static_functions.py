"""What the keys of static calls hold, by the words that `--set` takes: a function's name, NULL or return0."""

from __future__ import annotations

from ftpatch.arrays import I64
from ftpatch.sites.place_names import names_of
from ftpatch.sites.static_calls import StaticCallTable
from ftpatch.sites.static_keys import Named

NULL, RETURN0 = "NULL", "return0"


def functions_of(table: StaticCallTable, rows: I64) -> list[str | None]:
    """What each of these keys holds; None where the key is in another file, or leads to no place of this one."""
    keys, return0 = table.keys, table.is_return0()[rows].tolist()
    func = Named(*(column[rows] for column in keys.func))
    null = (keys.sec[rows] >= 0) & (func.sec < 0) & (func.symbol < 0) & (func.off == 0)
    names = names_of(table.image, func)
    return [RETURN0 if zero else NULL if nothing else name
            for zero, nothing, name in zip(return0, null.tolist(), names, strict=True)]  # fmt: skip
