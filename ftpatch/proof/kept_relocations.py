"""Relocations that the link left in a kernel (--emit-relocs), where its build makes a list of them: what is on the list
is moved with the kernel, so that an emptied slot must not be on it, and a slot with a record must. The relocation of a
site's call has to say what the call does; it is on no list.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, Mask, is_in
from ftpatch.elf.kept_relocations import KeptRelocations, kept_at
from ftpatch.proof.case import NEW, OLD, Case, Pairs
from ftpatch.proof.decoders import branch_targets
from ftpatch.sites.records import SLOT

INFO, WIDTH = 8, 8  # byte offset of r_info in a relocation, and its bytes


def check_kept_relocations(case: Case, pairs: Pairs | None) -> None:
    """Findings for those that do not fit the second file's records and calls; the others may have changed."""
    if not case.arch.listed:
        return
    _check_slots(case)
    if pairs is not None:
        _check_calls(case, pairs)


def _check_slots(case: Case) -> None:
    old, new = case.before.records, case.after.records
    if not new.start or (old.start, len(old)) != (new.start, len(new)):
        return
    changed = np.flatnonzero(old.null != new.null)
    va = np.uint64(new.start) + (SLOT * changed).astype(np.uint64)
    was, kept = kept_at(case.before.image, va), kept_at(case.after.image, va)
    empty, listed = new.null[changed], np.zeros(len(changed), dtype=bool)
    listed[kept.place[is_in(kept.kind, case.arch.listed)]] = True
    for row in changed[empty & listed].tolist():
        case.say("verify-relocation", f"slot {row} is empty, and a relocation that the link kept names it: in a kernel "
                 "that is made of this file it would be moved, and be no null", row=row)  # fmt: skip
    first = np.flatnonzero(old.live)[:1]
    moved = is_in(kept_at(case.before.image, np.uint64(new.start) + np.uint64(SLOT) * first.astype(np.uint64)).kind,
                    case.arch.listed).any()  # fmt: skip
    for row in changed[~empty & ~listed].tolist() if moved else ():
        case.say("verify-relocation", f"slot {row} has a record again and no relocation as the others have: in a "
                 "kernel that is made of this file it would not be moved", row=row)  # fmt: skip
    same = _same_rows(was, kept)
    info = was.row["r_info"][same[0]] ^ kept.row["r_info"][same[1]]
    kinds = is_in(was.kind[same[0]] | kept.kind[same[1]], case.arch.listed)  # NONE is 0 on every machine
    case.account_for("relocation", kept.pos[same[1]][kinds & (info >> np.uint64(32) == 0)] + INFO, WIDTH)


def _check_calls(case: Case, pairs: Pairs) -> None:
    """The relocations of calls that changed, which lead from the place behind the opcode to where the call goes."""
    call, symbols = case.arch.call, case.after.image.symbols
    at = np.flatnonzero(pairs.differs & np.isin(pairs.new, (OLD, NEW)) & pairs.shape.branch.ends(pairs.words))
    branch = pairs.va(pairs.branch_off)[at]
    was, kept = (kept_at(side.image, branch + np.uint64(call.relocated_at)) for side in (case.before, case.after))
    goes_to = branch_targets(case.after.image, branch.view(np.int64))[kept.place]
    number = (kept.row["r_info"] >> np.uint64(32)).astype(np.int64)
    known = number < len(symbols.rows)
    named = symbols.rows["st_value"][np.where(known, number, 0)].view(np.int64)
    right = known & (named + kept.row["r_addend"] - call.relocated_by == goes_to)
    right &= is_in(kept.kind, case.arch.direct_calls)
    right |= kept.kind == case.arch.none
    for row in np.flatnonzero(~right).tolist():
        name = symbols.name(int(number[row])) if known[row] else f"symbol {int(number[row])}"
        where = int(goes_to[row]) & (1 << 64) - 1
        pairs.say("verify-relocation", int(at[kept.place[row]]),
                  f"its call goes to {where:#x}, and the relocation that the link kept names {name}")  # fmt: skip
    same = _same_rows(was, kept)
    case.account_for("relocation", kept.pos[same[1]][right[same[1]]] + INFO, WIDTH)


def _same_rows(was: KeptRelocations, kept: KeptRelocations) -> tuple[I64, I64]:
    """Indices of the relocations that both files have at a file position, for one place, but for their r_info."""
    _, old, new = np.intersect1d(was.pos, kept.pos, assume_unique=True, return_indices=True)
    alike: Mask = was.row["r_addend"][old] == kept.row["r_addend"][new]
    alike &= was.row["r_offset"][old] == kept.row["r_offset"][new]
    return old[alike], new[alike]
