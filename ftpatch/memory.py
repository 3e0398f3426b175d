"""Whether there is memory, asked before somebody needs it who cannot say that there is none.

OpenBLAS, which numpy loads, ends the process; a thread that gets no memory while it starts is waited for, for ever.
"""

from __future__ import annotations

import mmap

NUMPY = 96 << 20  # bytes that loading numpy takes, with OpenBLAS's own for one thread
THREAD = 64 << 20  # bytes that a thread may take while it starts: its stack, and its own part of the heap


def is_there(size: int) -> bool:
    """Whether so many bytes could be had now."""
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        return False
    return True
