"""Where functions begin by the index of a program's unwind tables (.eh_frame_hdr), which stays without symbols.

Source: Linux Standard Base 5.0, 10.6.2, .eh_frame_hdr section; gcc's unwind-dw2-fde-dip.c.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import U64
from ftpatch.elf.image import Image

SECTION = ".eh_frame_hdr"
# version; how the pointer to .eh_frame, the number of rows and the rows themselves are written
SORTED = bytes((1, 0x1B, 0x03, 0x3B))  # 4 bytes each, the rows relative to the section
HEADER, ROW = 12, 8


def unwind_entries(image: Image) -> U64:
    """va of the first instruction of each function that an unwind table describes, ascending; none without an index."""
    for sec in image.sections_named(SECTION):
        content = image.content(sec)
        if len(content) < HEADER or content[:4].tobytes() != SORTED:
            continue
        n = int(content[8:HEADER].view("<u4")[0])
        rows = content[HEADER : HEADER + ROW * min(n, (len(content) - HEADER) // ROW)].view("<i4").reshape(-1, 2)
        va = image.shdr["sh_addr"][sec].astype(np.int64) + rows[:, 0].astype(np.int64)
        return np.sort(va.view(np.uint64))
    return np.zeros(0, dtype=np.uint64)
