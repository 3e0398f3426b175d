"""Records that no kernel reads: of functions that are built with NOPs and are not to be traced.

LLVM 21 takes a third value, -fpatchable-function-entry=N,M,SECTION, and rustc a record_section: the NOPs are there, so
that every function has the same prefix, and the record goes into a section that the link discards. Such a section has
any name. What tells it is that it is ordered by the code it names, and that each of its words is the address of some.
Source: LLVM pull request 131230; scripts/module.lds.S, which discards .discard.*.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import U64
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import RecordError
from ftpatch.sites.records import SECTIONS, SLOT, START, read_section

DISCARDED = ".discard."  # how the names of sections begin that kernels leave out


def records_elsewhere(image: Image) -> dict[str, U64]:
    """va of every record in sections that no kernel reads, by the section's name."""
    found: dict[str, list[U64]] = {}
    flags = image.shdr["sh_flags"]
    discarded = np.array([name.startswith(DISCARDED) for name in image.names], dtype=bool)
    # lld orders the section of the kernel's own table, too
    start = image.symbols.value(START) if image.linked else None
    kernels_own = -1 if start is None else int(image.place(np.array([start], dtype=np.uint64))[0][0])
    data = (flags & t.SHF_ALLOC != 0) & image.has_bytes & ~image.executable & (image.shdr["sh_size"] >= SLOT)
    for sec in np.flatnonzero(data & ((flags & t.SHF_LINK_ORDER != 0) | discarded)).tolist():
        name = image.names[sec]
        if name in SECTIONS or sec == kernels_own:
            continue
        try:
            table = read_section(image, sec)
        except RecordError:  # no table of addresses
            continue
        if table.live.all() and (table.sec >= 0).all() and image.executable[table.sec].all():
            found.setdefault(name, []).append(image.va(table.sec, table.off))
    return {name: np.concatenate(parts) for name, parts in found.items()}
