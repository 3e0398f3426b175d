"""What `disable` does with redirected functions of a kernel: their own words, and the stubs that served them alone."""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, U32, is_in
from ftpatch.plan.edits import Group, group
from ftpatch.plan.free_text import is_claimed
from ftpatch.plan.request import Draft
from ftpatch.plan.routes import distances
from ftpatch.sites.evidence import called_by
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import ENABLED

TWO_WAYS = "it is redirected and gets its call and its record back, others lose theirs: disable the two sorts apart"


def refuse_mixture(draft: Draft) -> None:
    """Redirected sites of a layout whose sites are calls in the file, beside others: those become NOPs and lose their
    records, while these get their call and their record back."""
    index, called, redirected = draft.open(), draft.shape.called, draft.scan.sites.redirected
    mine, others = index[redirected[index]], index[~redirected[index]]
    if not called or not len(mine):
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
    return bool(draft.shape.called) and not (sites.image.linked and len(index) and sites.redirected[index].all())


def restored_words(draft: Draft) -> U32:
    """The words that the open sites had, all of them redirected, in a layout whose sites are calls in the file."""
    target = draft.scan.image.symbols.value(draft.shape.called)
    assert target is not None  # else they were refused
    return draft.shape.branch.encode(distances(draft.scan.sites.body_va[draft.open()], np.uint64(target)))[:, None]


def emptied_stubs(scan: Scan, index: I64) -> list[Group]:
    """Edits that clear the stubs of the redirected sites `index`, but for those that other sites go through."""
    sites, image, arch = scan.sites, scan.image, scan.arch
    sizes = {"veneer": arch.veneer.size if arch.veneer else 0, "far": arch.far.size if arch.far else 0}
    gone = set(index.tolist())
    used = {target.through for site, target in sites.redirects.items() if site not in gone}
    stubs = {(target.through, sizes[target.by]) for site, target in sites.redirects.items()
             if site in gone and target.through is not None and target.through not in used}  # fmt: skip
    called = called_by(sites, np.flatnonzero((sites.status == ENABLED) & ~sites.redirected)) if stubs else None
    groups: list[Group] = []
    for va, size in sorted(stubs):
        if called is not None and not is_claimed(image, va, size) and not is_in(called, [va]).any():
            pos, zeros = np.array([image.pos_of_va(va)], dtype=np.int64), np.zeros((1, size), dtype=np.uint8)
            groups.append(group("thunk", image.data, np.array([len(groups)]), pos, zeros))
    return groups
