"""Lists of code that a kernel rewrites itself at boot, beside those of ftrace."""

from __future__ import annotations

from typing import NamedTuple


class CodeList(NamedTuple):
    """One list: rows that begin with the distance from themselves to the code."""

    section: str  # of its own; else it lies between symbols __start_ and __stop_ of this name
    row: int  # bytes
    what: str  # what the kernel makes of the code
    harmless: str = ""  # why it does no harm that a site which is changed is listed; empty where it does
