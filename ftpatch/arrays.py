"""The array types of this program, by the names that signatures use.

Addresses are stored and shown as U64 and subtracted as I64 (`.view(np.int64)`): numpy makes float64 of a mixture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# From version 2 on numpy gives a number of Python's the type of what it meets (NEP 50), which all code here takes for
# granted: uint64 & 7 is uint64. Before, the same was float64 or an error for single values; numpy 1.24 to 1.26 can be
# told to do as its successors. That holds for the whole process.
if getattr(np, "_get_promotion_state", lambda: "weak")() != "weak":
    getattr(np, "_set_promotion_state")("weak")  # noqa: B009 - the types of newer versions do not have it

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[Any]  # structured rows: of one of the dtypes in elf.tables

SPARSE = 256  # times as many values as there are wanted, from which on most of them are set aside first
FEW = 8  # values up to which comparing with each costs less than sorting them

# np.isin and np.unique import numpy.ma, which takes as long as reading a kernel's table: what a scan runs uses these.


def is_in(values: Rows, wanted: Any) -> Mask:
    """Whether each value is one of `wanted`, a sequence or an array of values that the array's type can hold."""
    table = np.asarray(wanted, dtype=values.dtype)
    if len(table) <= FEW:
        found = np.zeros(len(values), dtype=bool)
        for value in table:
            found |= values == value
        return found
    if table.dtype.kind == "u" and len(values) > SPARSE * len(table):  # hardly any: their lowest bits tell most
        low = np.zeros(1 << 16, dtype=bool)
        low[table.astype(np.uint16)] = True
        found = low[values.astype(np.uint16)]
        found[found] = _is_in_table(values[found], table)
        return found
    return _is_in_table(values, table)


def _is_in_table(values: Rows, table: Rows) -> Mask:
    """As `is_in`, by a search for each value."""
    table = np.sort(table)
    return np.asarray(table[np.minimum(np.searchsorted(table, values), len(table) - 1)] == values)


def distinct(values: Rows) -> Rows:
    """The different values among these, ascending."""
    ordered = np.sort(values)
    head = np.ones(len(ordered), dtype=bool)
    head[1:] = ordered[1:] != ordered[:-1]
    return ordered[head]


def first_of_each(values: Rows) -> I64:
    """Where each different value stands first, ascending."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    head = np.ones(len(order), dtype=bool)
    head[1:] = ordered[1:] != ordered[:-1]
    return np.sort(order[head])
