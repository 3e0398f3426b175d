"""The end of the record table as the kernel's own code has it.

`--records shrink` lowers the end that ftrace_init computes, and the symbol with it. A kernel's own table of symbols
still has the end that the build gave: of a kernel without any other the code is asked.
"""

from __future__ import annotations

from ftpatch.elf.image import Image

INIT, SLOT = "ftrace_init", 8
MAX_CODE = 1 << 16  # bytes of one function that are read


def end_in_code(image: Image, start: int, stop: int) -> int:
    """The end of a table between two symbols, as ftrace_init forms it; `stop` where it is not seen to form another."""
    code, row = image.arch.table_end, image.symbols.defined(INIT)
    if code is None or row is None:
        return stop
    va, size = int(image.symbols.rows["st_value"][row]), int(image.symbols.rows["st_size"][row])
    formed = [pair.value for pair in code.find(image.code(va, min(size, MAX_CODE) // 4), va, None)]
    lowered = {value for value in formed if start < value < stop and (value - start) % SLOT == 0}
    if stop in formed or len(lowered) > 1:
        return stop
    if lowered:
        return lowered.pop()
    return start if formed.count(start) > 1 else stop  # of an empty table
