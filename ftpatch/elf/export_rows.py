"""The forms of a row in a kernel's list of exported symbols, which no header names.

Source: include/linux/export.h, include/asm-generic/export.h (Linux 4.4 to 7.2).
"""

from __future__ import annotations

from typing import NamedTuple


class Format(NamedTuple):
    """One of the formats of a row."""

    width: int  # bytes of a field
    fields: int  # of a row: value, name, and in newer kernels namespace


# Those of 5.4 and later first: a table of theirs may look like one of the older ones' by chance, not the reverse.
FORMATS = (Format(4, 3), Format(8, 3), Format(4, 2), Format(8, 2))
