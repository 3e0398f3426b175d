"""What is proven of a patched object file: each site and its relocations, every other relocation, the records.

    call     one relocation of a branch; where it names another function than the compiler let it call, a mark
             beside it, which names that
    NOP      the mark alone; none in an object whose compiler made the NOP, or where sites are NOPs

Nothing else of the file may differ but what grew: names and symbols that are used.
"""

from __future__ import annotations

from ftpatch.proof.case import Case
from ftpatch.proof.object_calls import check_calls
from ftpatch.proof.object_relocations import account_for_old_rows, check_rows
from ftpatch.proof.object_sites import check_sites, site_pairs
from ftpatch.proof.record_table import account_for_slots, check_records


def check_object(case: Case) -> None:
    """The sites of both files and what belongs to them."""
    pairs = case.pairs = site_pairs(case)
    if pairs is not None:
        check_sites(pairs)
        check_calls(case, pairs)
    check_records(case, pairs)
    account_for_slots(case)
    check_rows(case, pairs)
    account_for_old_rows(case, pairs)
