"""Whether functions of a program may be called with arguments in wide vector registers, which only some code uses.

Who is compiled for such registers may pass arguments on in them without an instruction that names them. So one function
with such an instruction speaks for all functions with sites of a file; the code of others, as a library's copy routines
that are chosen when the program starts, does not.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch.program_parts import Programs
from ftpatch.sites.scan import Scan

MAX_UNITS = 1 << 20  # of one function that are looked at


def uses_wide_registers(scan: Scan, programs: Programs) -> bool:
    """Whether a function with a site uses wide vector registers; whether chosen or not."""
    sites, image = scan.sites, scan.image
    if programs.wide is None or sites.shape is None:
        return False
    known = (sites.sec >= 0) & (sites.sec < len(image.shdr))
    start = np.unique(sites.body_va[known])
    stops = np.unique(np.concatenate([start, image.functions.va]))  # where no symbol has a size, the next one begins
    after = np.searchsorted(stops, start, side="right")
    ends = np.where(after < len(stops), stops[np.minimum(after, len(stops) - 1)], start + np.uint64(MAX_UNITS))
    for va, end in zip(start.tolist(), ends.tolist(), strict=True):  # few are decoded: see `programs.wide`
        inside = int(image.functions.containing(np.array([va], dtype=np.uint64))[0])
        end = max(end, int(image.functions.end[inside])) if inside >= 0 else end
        if programs.wide(image.code(va, min(end - va, MAX_UNITS) // image.arch.unit)):
            return True
    return False
