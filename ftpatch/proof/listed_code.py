"""Does a changed site lie where the kernel itself rewrites code at boot, by one of its lists? What it expects there is
what the build left.
"""

from __future__ import annotations

import numpy as np

from ftpatch.elf.code_lists import listed
from ftpatch.proof.case import Case, Pairs


def check_listed_code(case: Case, pairs: Pairs) -> None:
    """Findings for changed sites in such a list, and a note where that does no harm."""
    at = np.flatnonzero(pairs.differs)
    for code_list in case.arch.code_lists if len(at) else ():
        named = at[listed(case.after.image, code_list, pairs.va(pairs.off)[at], pairs.shape.size)].tolist()
        if code_list.harmless and named:
            n = len(named)
            case.notes.append(
                f"{n} of the changed sites {'is' if n == 1 else 'are'} in {code_list.section}: {code_list.harmless}"
            )
            continue
        for number in named:
            pairs.say("verify-site", number, f"{code_list.section} lists its code, which the kernel rewrites at boot: "
                      f"{code_list.what}")  # fmt: skip
