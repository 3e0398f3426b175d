"""Whether changed sites begin where an instruction of their function does, on machines whose instructions are bytes.

A record may name any byte. What looks like a call there can be the inside of another instruction, which would become
another one when the call's distance is written. So the code from the function's symbol to the site is decoded.
"""

from __future__ import annotations

import numpy as np

from ftpatch.proof.case import Case, Pairs
from ftpatch.proof.decoders import whole

MOST = 256  # bytes in front of a site that are decoded: compilers leave the four of a landing pad, or none


def check_boundaries(case: Case, pairs: Pairs) -> None:
    """Findings for changed sites that begin inside an instruction of the first file."""
    if case.arch.unit > 1:  # every aligned word is an instruction
        return
    image, changed = case.before.image, np.flatnonzero(pairs.differs)
    va = image.va(pairs.sec[changed], pairs.off[changed])
    holder = image.functions.containing(va)
    known = np.flatnonzero(holder >= 0)
    front = np.zeros(len(changed), dtype=np.int64)
    front[known] = (va[known] - image.functions.va[holder[known]]).view(np.int64)
    for size in np.unique(front[(front > 0) & (front <= MOST)]).tolist():
        at = changed[front == size]
        code = image.words(pairs.sec[at], pairs.off[at] - size, 0, size).astype(np.uint8)
        different, of_site = np.unique(code, axis=0, return_inverse=True)
        last = np.array([whole(case.arch, row) for row in different], dtype=np.int64)[of_site.reshape(-1)]
        for i, start in zip(at[last < size].tolist(), last[last < size].tolist(), strict=True):
            pairs.say("verify-site", i, f"it begins {size - start} bytes into an instruction, which begins at "
                      f"{pairs.off[i] - size + start:#x}; expected the beginning of one")  # fmt: skip
