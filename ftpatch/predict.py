"""What a kernel will say of its record table when it boots, told from its file.

`ftrace: allocating N entries in M pages` counts slots: kernels that print it before they read the table count all of
them, newer ones print it behind that and leave out the null ones. Which of the two a kernel is stands in ftrace_init:
how often it can print before it calls ftrace_process_locs (that there are no functions to be traced always comes
first). available_filter_functions lists the live ones, once those of init text are freed with it.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch import Arch
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.tables import Mask
from ftpatch.records import RecordTable
from ftpatch.sites import OUTSIDE, SiteTable
from ftpatch.targets import in_init_text

INIT, READS, PRINTS = "ftrace_init", "ftrace_process_locs", ("_printk", "printk")
MAX_CODE = 1 << 16  # bytes of ftrace_init that are read


def at_boot(image: Image, arch: Arch, records: RecordTable, table: SiteTable, live: Mask) -> dict[str, int] | None:
    """`allocating` and `listed`; None where the file is no kernel or has no record table. live: over the site table."""
    if image.kind != "vmlinux" or not len(records):
        return None
    counted = np.ones(len(records), dtype=bool) if counts_null_slots(image, arch) else records.live
    listed = live & (table.status != OUTSIDE) & ~in_init_text(image, table.va)
    return {"allocating": int(counted.sum()), "listed": int(listed.sum())}


def counts_null_slots(image: Image, arch: Arch) -> bool:
    """Whether the kernel prints the number of its records before it reads them; False where its code does not tell."""
    row = image.symbols.defined(INIT)
    if row is None:
        return False
    va, size = int(image.symbols.rows["st_value"][row]), int(image.symbols.rows["st_size"][row])
    words = image.code(va, min(size, MAX_CODE) // 4)
    at = np.flatnonzero(arch.call.word.matches(words))
    target = np.uint64(va) + (4 * at + arch.call.decode(words[at])).astype(np.int64).view(np.uint64)
    reads, prints = (np.isin(target, _entries(image, names)) for names in ((READS,), PRINTS))
    return bool(reads.any()) and int(prints[: int(np.argmax(reads))].sum()) > 1


def _entries(image: Image, names: tuple[str, ...]) -> t.U64:
    """Both entries of the functions of these names."""
    functions = image.functions
    rows = np.concatenate([image.symbols.rows_named(name) for name in names])
    at = np.isin(functions.row, rows)
    return np.concatenate([functions.va[at], functions.local[at]])
