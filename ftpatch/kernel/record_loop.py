"""What the kernel's loop over its record table does with a slot that is 0.

Newer kernels test a record before they adjust it, and pass over zeros; older ones adjust first, and take a zero for an
address a few bytes further. Source: kernel/trace/ftrace.c ftrace_process_locs(), Linux commit 6eeca746fa5f ("ftrace:
Test mcount_loc addr before calling ftrace_call_addr()").
"""

from __future__ import annotations

from ftpatch.elf.image import Image

LOOP = "ftrace_process_locs"
MAX_CODE = 1 << 20  # bytes of the function that are read


def tests_zero_first(image: Image) -> bool:
    """Whether this kernel's code tests a record before it adjusts it; False where the code does not tell."""
    row = image.symbols.defined(LOOP)
    if row is None or image.arch.skips_zero is None:
        return False
    va, size = int(image.symbols.rows["st_value"][row]), int(image.symbols.rows["st_size"][row])
    return image.arch.skips_zero(image.code(va, min(size, MAX_CODE) // image.arch.unit))
