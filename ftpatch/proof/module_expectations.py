"""What is to be seen when a patched site of a module is executed, where one run can show it."""

from __future__ import annotations

import numpy as np

from ftpatch.arch.proof_tables import JUMP
from ftpatch.proof.decoders import branches
from ftpatch.proof.emulate.expectation import SiteExpectation
from ftpatch.proof.module_code import MAX_CODE, OURS, Branch, Calls, branches_of, far_target, jump_of
from ftpatch.proof.sections import DATA


def expect_site(calls: Calls, at: int, to: Branch, jump: int | None, ops: int | None) -> None:
    """What is to be seen when the site is executed, where one run can show it."""
    pairs, loaded, name = calls.pairs, calls.loaded, calls.pairs.name(at)
    sec = int(pairs.sec[at])
    entry, resume = loaded.va(sec, pairs.entry_off(at)), loaded.va(sec, int(pairs.branch_off[at]) + 4)
    target, tail, why = _arrives(calls, at, to, jump, resume)
    if why:
        calls.case.unclaimed.append(f"{name}: {why}")
    else:
        calls.case.expectations.append(SiteExpectation(name, entry, resume, target, ops, tail))


def _arrives(calls: Calls, at: int, to: Branch, jump: int | None, resume: int) -> tuple[int, bool, str]:
    """(where a call arrives, whether that is a C function, why one run cannot show it)."""
    loaded, entries = calls.loaded, calls.case.arch.entries
    if jump is not None:
        return loaded.fakes[entries[jump]], False, ""
    if (far := far_target(calls, to)) is not None:
        return far, False, ""
    ends = branches_of(calls, to)
    named = [calls.branch_at(to.sec, off) for off in ends]
    home = int(calls.pairs.sec[at]), int(calls.pairs.branch_off[at]) + 4
    out = [one for one in named if isinstance(one, Branch) and (one.sec, one.off) != home]
    last = calls.words(to.sec, ends[-1], 1) if ends else np.zeros(1, np.uint32)
    jumps = bool(ends) and branches(calls.case.arch, last)[0][0] == JUMP
    if _conditional(calls, to) or len(out) > 1 or _reads_data(calls, to):
        return 0, False, "its stub has more than one way"
    if not out:
        return resume, False, ""
    one = out[0]
    if (number := jump_of(calls, one, to.sec)) is not None:
        return loaded.fakes[entries[number]], False, ""
    if (far := far_target(calls, one)) is not None:
        return far, False, ""
    if jumps and len(ends) == 1:
        return 0, False, "its stub ends in a jump to a function"
    called = loaded.called(calls.image.symbols.name(one.symbol))
    return called or 0, True, "" if called else "what its stub calls is not known"


def _conditional(calls: Calls, to: Branch) -> bool:
    room = min(int(calls.image.shdr["sh_size"][to.sec]) - to.off, MAX_CODE)
    for word in calls.words(to.sec, to.off, room // 4).tolist():
        if calls.case.tables.conditional(word):
            return True
        if word in calls.case.tables.ends:
            break
    return False


def _reads_data(calls: Calls, to: Branch) -> bool:
    """Whether the code has pointers to data, which the emulation does not keep."""
    room = min(int(calls.image.shdr["sh_size"][to.sec]) - to.off, MAX_CODE)
    found = [one for one in calls.named_at(to.sec, to.off, room) if one[1] == calls.case.arch.abs64]
    return any(one[3].sec and calls.image.names[one[3].sec] not in (DATA, *OURS) for one in found)
