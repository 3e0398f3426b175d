"""What `disable` puts back into the sites of a kernel that were calls, or whose functions were redirected: their own
code; and what becomes of the stubs that served redirected functions alone."""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, U8, U32, distinct, is_in
from ftpatch.plan.edits import Group, group
from ftpatch.plan.free_text import is_claimed
from ftpatch.plan.records_back import BY_JOURNAL
from ftpatch.plan.request import Draft
from ftpatch.plan.routes import distances
from ftpatch.sites.evidence import called_by
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import ENABLED, READY

TWO_WAYS = "it is redirected and gets its call and its record back, others lose theirs: disable the two sorts apart"


def refuse_mixture(draft: Draft) -> None:
    """Redirected sites of a layout whose sites are calls in the file, beside others: those become NOPs and lose their
    records, while these get their call and their record back."""
    index, called, redirected = draft.open(), draft.shape.called, draft.scan.sites.redirected
    mine, others = index[redirected[index]], index[~redirected[index]]
    if not called or draft.shape.straight or not len(mine):
        return
    target = draft.scan.image.symbols.value(called)
    if len(others):
        draft.refuse(mine, TWO_WAYS)
    elif target is None:
        draft.refuse(mine, f"its call of {called} cannot be restored: this file has no such symbol")
    else:
        far = ~draft.shape.branch.reaches(distances(draft.scan.sites.body_va[mine], np.uint64(target)))
        draft.refuse(mine[far], f"its call of {called} cannot be restored: it went through a stub of the linker's")


def loses_records(draft: Draft) -> bool:
    """Whether the open sites become NOPs and lose their records: calls in the file that are no redirected function's of
    a kernel, which go back to their calls."""
    index, sites = draft.open(), draft.scan.sites
    return (
        bool(draft.shape.called)
        and not draft.shape.straight
        and not (sites.image.linked and len(index) and sites.redirected[index].all())
    )


def refuse_unknown_words(draft: Draft) -> None:
    """Sites of a layout whose calls can be put back, where the file does not tell what to put there."""
    if draft.shape.straight and (why := _what_is_left(draft)[1]):
        draft.refuse(draft.open(), why)


def _what_is_left(draft: Draft) -> tuple[U32 | None, str]:
    """(the NOP that the file's untouched sites are, None where they are calls; why it does not tell which)."""
    sites, shape = draft.scan.sites, draft.shape
    body = sites.body()[(sites.row >= 0) & (sites.status == READY)]
    calls = shape.branch.ends(body)
    if not len(body):
        return None, f"no site that is as it was shows whether it was a call of {shape.called} or a NOP: {BY_JOURNAL}"
    if calls.any() and not calls.all():
        n = int(calls.sum())
        return None, f"{n} other sites are calls of {shape.called} and {len(body) - n} are NOPs: {BY_JOURNAL}"
    if not calls.any():
        return body[:1], ""
    far = draft.scan.image.symbols.value(shape.called) is None
    return None, f"its call of {shape.called} cannot be restored: this file has no such symbol" if far else ""


def restored_words(draft: Draft) -> U32:
    """The code that the open sites had, in a layout whose sites are calls in the file: all of them redirected, or of
    a layout whose calls can be put back."""
    index, branch = draft.open(), draft.shape.branch
    nop = _what_is_left(draft)[0] if draft.shape.straight else None
    if nop is not None:
        return np.repeat(nop, len(index), axis=0)
    target = draft.scan.image.symbols.value(draft.shape.called)
    assert target is not None or not len(index)  # else they were refused
    site_va = draft.scan.sites.body_va[index]
    return branch.encode(distances(site_va, np.uint64(target or 0))).reshape(len(index), branch.n_units)


def emptied_stubs(scan: Scan, index: I64) -> list[Group]:
    """Edits that clear the stubs of the sites `index`, but for those that other sites go through: of redirected sites
    all stubs, of others the veneers."""
    sites, image, arch = scan.sites, scan.image, scan.arch
    sizes = {"veneer": arch.veneer.size if arch.veneer else 0, "far": arch.far.size if arch.far else 0}
    gone, enabled = set(index.tolist()), np.flatnonzero((sites.status == ENABLED) & ~sites.redirected)
    used = {target.through for site, target in sites.redirects.items() if site not in gone}
    stubs = {(target.through, sizes[target.by]) for site, target in sites.redirects.items()
             if site in gone and target.through is not None and target.through not in used}  # fmt: skip
    leaves = np.isin(enabled, index)
    called = called_by(sites, enabled) if stubs or (leaves.any() and arch.veneer is not None) else None
    if called is None:
        return []
    if arch.veneer is not None:
        size = arch.veneer.size
        ends = {va: arch.veneer.leads_to(image.code(va, size // 4), va) for va in distinct(called[leaves]).tolist()}
        stubs |= {(va, size) for va, end in ends.items() if end is not None and va not in used}
    groups: list[Group] = []
    for va, size in sorted(stubs):
        if not is_claimed(image, va, size) and not is_in(called[~leaves], [va]).any():
            pos = np.array([image.pos_of_va(va)], dtype=np.int64)
            groups.append(group("thunk", image.data, np.array([len(groups)]), pos, _padding_of(scan, va, size)[None]))
    return groups


def _padding_of(scan: Scan, va: int, size: int) -> U8:
    """What was there before a stub: a veneer leaves a NOP in front of itself where it took NOPs."""
    front = scan.image.code(va - 4, 1)
    nops = scan.arch.veneer is not None and front.tolist() == [scan.arch.nop]
    return np.full(size // 4, scan.arch.nop if nops else 0, dtype="<u4").view(np.uint8)
