"""The words of patch sites, from which state to which they may go, and of their stubs; in kernels and modules alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ftpatch.arch.proof_tables import CALL, JUMP
from ftpatch.arrays import I64, U32, Mask
from ftpatch.proof.case import NEW, OLD, OTHER, REDIRECTED, RETIRED, Case, Pairs
from ftpatch.proof.decoders import both, branches
from ftpatch.sites.table import READY

LEGAL = {
    (OLD, NEW): "site enabled",
    (NEW, OLD): "site disabled",
    (NEW, RETIRED): "site disabled",
    (OLD, RETIRED): "site disabled",  # enabled and disabled, in two steps
    (NEW, NEW): "site redirected",
    (OLD, REDIRECTED): "function redirected",
    (REDIRECTED, REDIRECTED): "function redirected",  # to a third one
    (REDIRECTED, OLD): "site disabled",
    (REDIRECTED, RETIRED): "site disabled",
    (REDIRECTED, NEW): "site enabled",  # the site was disabled in between, as for the next
    (NEW, REDIRECTED): "function redirected",
}
BY_RELOCATION = ((OLD, NEW), (NEW, NEW))  # in modules whose sites are calls in the file, words stay as they are
N_STATES = OTHER + 1


def check_words(case: Case, pairs: Pairs, legal_ways: Mapping[tuple[int, int], str] = LEGAL) -> None:
    """Own the words that went from one legal state to another; findings for the others."""
    width, arch = pairs.shape.size, case.arch
    for (was, is_), kind in legal_ways.items():
        legal = pairs.differs & (pairs.old == was) & (pairs.new == is_)
        if case.before.image.linked or not pairs.shape.called:
            case.account_for("site words", pairs.pos[legal], width)
        elif case.tables.left:  # a call or a NOP, and nothing else before the loader fills it
            case.account_for("site words", pairs.pos[legal & (pairs.nop | _is_empty_call(pairs))], width)
        elif (was, is_) not in BY_RELOCATION:
            case.account_for("site words", pairs.pos[legal], width)
        case.kinds[kind] += int(legal.sum())
    odd = pairs.differs & ~np.isin(pairs.old * N_STATES + pairs.new, [old * N_STATES + new for old, new in legal_ways])
    case.account_for("site words", pairs.pos[odd & (pairs.new == OTHER)], width)
    for at in np.flatnonzero(odd).tolist():
        before = case.before.image.words(pairs.sec[at : at + 1], pairs.off[at : at + 1], 0, pairs.words.shape[1])[0]
        old, new = (arch.code_text(words) for words in (before, pairs.words[at]))
        wanted = ", ".join(word.text or hex(word.bits) for word in pairs.shape.new if word.mask)
        pairs.say("verify-site", at, f"{old} became {new}, expected {wanted}, or the compiler's words back")


def _is_empty_call(pairs: Pairs) -> Mask:
    """Which sites are calls that go nowhere as long as nothing is filled in."""
    kind, distance = branches(pairs.case.arch, pairs.words)
    return np.asarray((kind == CALL) & (distance == sum(pairs.case.tables.branch_field)))


def check_restored(case: Case, pairs: Pairs) -> None:
    """Findings for sites that are as a compiler leaves them, and not as this build left its others: at boot the kernel
    compares all with the one or with the other."""
    branch, table = pairs.shape.branch, case.before.sites
    if not case.tables.left or not (pairs.differs & (pairs.new == OLD)).any():
        return
    calls = branch.ends(table.body()[(table.row >= 0) & (table.status == READY)])
    back = pairs.differs & (pairs.new == OLD)
    for form, other in ((True, "a NOP"), (False, f"a call of {pairs.shape.called}")):
        if len(calls) and (calls == form).all():
            for at in np.flatnonzero(back & (branch.ends(pairs.words) != form)).tolist():
                pairs.say("verify-site", at, f"it came back as {other}, and {len(calls)} others are not")


def stub_faults(case: Case, words: U32) -> tuple[list[str], I64, I64]:
    """Why each row of four words is no stub of a site, empty where it is one; bytes that its call and its last branch
    go. A stub keeps the return address, calls, puts it back, and goes on behind the site."""
    save, restore, text = case.tables.site_stub or (0, 0, "")
    call, back = both(case.arch, words[:, :2]), both(case.arch, words[:, 2:])
    right = (words[:, 0] == save) & (words[:, 2] == restore) & (call.kind == CALL) & (back.kind == JUMP)
    faults = [""] * len(words)
    for row in range(len(words)):
        why = call.why[row] or back.why[row]
        if why or not right[row]:
            shown = " ".join(f"{word:08x}" for word in words[row].tolist())
            faults[row] = f"its stub is {shown}, not {text}" + (f": {why}" * bool(why))
    return faults, call.distance, back.distance
