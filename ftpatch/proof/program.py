"""What is proven of a patched program or shared object, whose sites no kernel ever looks at.

Nothing reads a program's records but tools, and its loader takes the first rows of .rela.dyn for relative ones without
a look at their types. So records, relocations, symbols, dynamic table and entry point stay as they are, and any change
of them is one that no edit of a program makes. What may change are the words of sites, and what they call; code that is
added has a segment of its own.
"""

from __future__ import annotations

from ftpatch.proof.boundaries import check_boundaries
from ftpatch.proof.case import NEW, OLD, RETIRED, Case
from ftpatch.proof.pads import check_pads
from ftpatch.proof.pairs import pair_up
from ftpatch.proof.program_calls import check_calls
from ftpatch.proof.program_file import read_added
from ftpatch.proof.program_stubs import read_stubs
from ftpatch.proof.site_words import LEGAL, check_restored, check_words

STATES = (OLD, NEW, RETIRED)  # functions of programs are not redirected
LEGAL_WAYS = {way: kind for way, kind in LEGAL.items() if {*way} <= {*STATES}}


def check_program(case: Case) -> None:
    """What was appended; the sites' words, and what their calls lead to, where that is known."""
    added = read_added(case)
    if added is None and len(case.after.image.shdr) < len(case.before.image.shdr):
        return
    pairs = case.pairs = pair_up(case)
    if pairs is None:
        return
    if pairs.shape.switch:
        check_pads(case, pairs, read_stubs(case, added) if added is not None else {})
        return
    check_words(case, pairs, LEGAL_WAYS)
    check_boundaries(case, pairs)
    check_restored(case, pairs)
    if added is not None:
        check_calls(case, pairs, read_stubs(case, added))
