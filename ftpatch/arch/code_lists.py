"""Tables that list code, beside those of ftrace: what a kernel rewrites at boot, and what its stack walks go by."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class CodeList(NamedTuple):
    """One list: rows that begin with the distance from themselves to the code."""

    section: str  # of its own; else it lies between symbols __start_ and __stop_ of this name
    row: int  # bytes
    what: str  # what the kernel makes of the code
    harmless: str = ""  # why it does no harm that a site which is changed is listed; empty where it does


class Listed(NamedTuple):
    """A place in code that a table of its module names, where the module has such a table."""

    table: str  # section: rows of four bytes, each the distance from itself to a place
    off: int  # byte offset in the code


class Frame(NamedTuple):
    """Where a stack walk finds the caller, from one place in code to the next that says so."""

    off: int  # byte offset in the code of the first instruction
    base: str  # sp or fp, the register that `size` counts from; empty: no code is here
    size: int = 0  # bytes from there to the stack pointer as it is when the code has returned
    saved: int = 0  # bytes from that one back to where the caller's frame pointer is kept; 0: it is in its register


class UnwindTables(NamedTuple):
    """Two tables of a module by which a stack walk finds a caller: places in code, and beside each what is true from
    there on. Its loader sorts them."""

    places: str  # section: rows of four bytes, each the distance from itself to a place
    rows: str  # section: as many rows
    size: int  # bytes of one
    # row(what is true, the row of a function's first instruction in the same module) → the row; None where that one is
    # of another kind
    row: Callable[[Frame, bytes], bytes | None]
