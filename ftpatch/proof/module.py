"""Is every change of a module an edit of a legal kind, and right?"""

from __future__ import annotations

from ftpatch.proof.case import Case
from ftpatch.proof.module_calls import check_calls, check_rest
from ftpatch.proof.module_relocations import account_for_record_slots, check_relocations
from ftpatch.proof.pairs import pair_up
from ftpatch.proof.record_table import check_records
from ftpatch.proof.sections import check_sections
from ftpatch.proof.site_words import check_words


def check_module(case: Case) -> None:
    """All that is to be said of two relocatable files, but for stray bytes."""
    if not check_sections(case):
        return
    pairs = case.pairs = pair_up(case)
    if pairs is not None:
        check_words(case, pairs)
    check_records(case, pairs)
    account_for_record_slots(case)
    check_relocations(case, pairs)
    if pairs is not None:
        check_calls(case, pairs)
    check_rest(case)
