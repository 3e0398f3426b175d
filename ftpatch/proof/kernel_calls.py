"""Where the calls of a linked kernel's sites end, the ops pointers that go with them, and the relocations."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np

from ftpatch.arch.proof_tables import CALL
from ftpatch.arrays import I64
from ftpatch.elf import tables as t
from ftpatch.kernel.init_text import in_init_text
from ftpatch.proof.call_targets import CallTarget, CallTargets
from ftpatch.proof.case import NEW, Case, Pairs, SiteCalls
from ftpatch.proof.changes import Runs
from ftpatch.proof.decoders import both, branch_targets
from ftpatch.proof.emulate.expectation import SiteExpectation
from ftpatch.proof.kernel_stubs import Stubs, account_for_cleared, check_shared, check_stubs
from ftpatch.proof.ops_pointers import TYPE, check_ops_pointers
from ftpatch.sites.records import SLOT


def check_calls(case: Case, pairs: Pairs, runs: Runs) -> tuple[I64, I64]:
    """Every call, stub and ops pointer; va of the ops pointers that enabled sites of the first and second file have."""
    stubs = check_stubs(case, pairs)
    targets = _check_targets(case, pairs, runs, stubs)
    places = np.zeros(len(pairs), dtype=np.int64)  # va of the ops pointer of each pair
    if stubs is None and pairs.shape.literal is not None:
        places = pairs.va(pairs.record + pairs.shape.literal).view(np.int64)
    elif stubs is not None and stubs.literal:
        places = stubs.slot
    ops = check_ops_pointers(case, pairs, targets, places, stubs is not None)
    case.expect_later = partial(_expect_sites, case, pairs, targets, ops)
    case.calls = _calls(pairs, targets, ops)
    case.callees.update(target.name for target in targets.values())
    served = Counter(va for at, target in targets.items() if (va := target.ops or ops.get(at, 0)))
    for va, n in served.items():  # nearly always one object, for tens of thousands of sites
        case.ops[_ops_name(case, va)] += n
    return (places if stubs is None else stubs.old_slot)[pairs.old == NEW], places[pairs.new == NEW]


def _ops_name(case: Case, va: int) -> str:
    """The name of the ftrace_ops at an address; its address where it has none."""
    symbols = case.after.image.symbols
    rows = np.flatnonzero((symbols.rows["st_value"] == np.uint64(va)) & (symbols.type == t.STT_OBJECT))
    return symbols.name(int(rows[0])) if len(rows) else f"{va:#x}"


def _check_targets(case: Case, pairs: Pairs, runs: Runs, stubs: Stubs | None) -> dict[int, CallTarget]:
    """Where each enabled site's call leads, by pair; findings for those that lead nowhere good."""
    at = np.flatnonzero(pairs.new == NEW if stubs is None else stubs.target)
    if stubs is None:
        seen = both(case.arch, pairs.words[at])
        where = pairs.va(pairs.branch_off)[at].view(np.int64) + seen.distance
        faults = [why or ("" if kind == CALL else "its branch is no call")
                  for why, kind in zip(seen.why, seen.kind.tolist(), strict=True)]  # fmt: skip
    else:
        where, faults = stubs.target[at], [""] * len(at)
    known, targets, far = CallTargets(case, stubs is not None, case.after), {}, case.arch.far
    init = case.after.image.symbols.value(far.areas[1]) if far else None
    stays = ~in_init_text(case.after.image, pairs.va(pairs.off))[at]
    for row, (i, va) in enumerate(zip(at.tolist(), where.view(np.uint64).tolist(), strict=True)):
        target = known.at(va)
        text = faults[row] or target.why or ("" if case.forced else target.doubt)
        if not text and stays[row] and any(va == init or known.freed(va) for va, _ in target.shared):
            text = "by a trampoline that is freed with init memory"
        if not text and stays[row] and not case.forced and target.freed:
            text = f"{target.name}, which is freed with init memory"
        if text:
            pairs.say("verify-branch", i, f"its call goes to {va:#x}, {text}")
        else:
            targets[i] = target
    shared = {stub for target in targets.values() for stub in target.shared}
    check_shared(case, runs, shared)
    _account_for_removed_stubs(case, pairs, stubs, shared)
    return targets


def _account_for_removed_stubs(case: Case, pairs: Pairs, stubs: Stubs | None, used: set[tuple[int, int]]) -> None:
    """Shared stubs of sites that were enabled, where nothing goes through them any more and nothing is left of them."""
    image = case.before.image
    call = pairs.va(pairs.branch_off).view(np.int64)
    if stubs is not None:  # the stub's second word calls
        call = stubs.old_slot + stubs.literal + 4
    known = CallTargets(case, stubs is not None, case.before)
    left = pairs.differs & (pairs.old == NEW) & (pairs.new != NEW)
    for va in np.unique(branch_targets(image, call[left])).view(np.uint64).tolist():
        for stub in known.at(va).shared:
            if stub not in used:
                account_for_cleared(case, *stub)


def _calls(pairs: Pairs, targets: dict[int, CallTarget], ops: dict[int, int]) -> SiteCalls:
    """Where the calls end that lead where a site may call."""
    at = sorted(targets)
    ends = [(targets[i].target, targets[i].ops or ops.get(i, 0)) for i in at]  # Python objects, one per site already
    target, ops_va = np.array(ends, dtype=np.uint64).reshape(-1, 2).T
    return SiteCalls(pairs.pos[np.array(at, dtype=np.int64)], target, ops_va)


def _expect_sites(case: Case, pairs: Pairs, targets: dict[int, CallTarget], ops: dict[int, int]) -> None:
    """What is to be seen when the enabled sites are executed."""
    resume = pairs.va(pairs.branch_off + pairs.shape.branch.size)
    base, library = case.after.image.base, pairs.shape.library
    for at, target in targets.items():
        if target.doubt:
            case.unclaimed.append(f"{pairs.name(at)}: what it calls was taken by force")
            continue
        entry = int(base[int(pairs.sec[at])]) + (int(pairs.off[at]) if pairs.shape.anywhere else pairs.entry_off(at))
        wanted = target.ops if target.ops is not None else ops.get(at)
        case.expectations.append(
            SiteExpectation(
                pairs.name(at), entry, int(resume[at]), target.behind or target.target, wanted, library=library
            )
        )


def check_relocations(case: Case, old_places: I64, new_places: I64) -> None:
    """Rows that changed: what they said and say must be about a record, or the ops pointer of an enabled site."""
    (old, pos), (new, new_pos) = case.before.image.rela, case.after.image.rela
    if not np.array_equal(pos, new_pos):
        case.say("verify-relocation", f"{len(new)} dynamic relocations, there were {len(old)}")
        return
    rows = np.flatnonzero(old != new)
    bad = np.zeros(len(rows), dtype=bool)
    for table, side, places in ((old[rows], case.before, old_places), (new[rows], case.after, new_places)):
        records = side.records
        start, end = np.uint64(records.start), np.uint64(records.start + SLOT * len(records))
        of_slot = (table["r_offset"] >= start) & (table["r_offset"] < end) & (table["r_offset"] % np.uint64(SLOT) == 0)
        ours = of_slot | np.isin(table["r_offset"], places[places != 0].view(np.uint64))
        plain = (table["r_info"] == case.arch.relative) | (table["r_info"] == old["r_info"][rows])
        bad |= ~(
            (table == np.zeros(1, table.dtype)) | (ours & plain & ((table["r_info"] & TYPE) == case.arch.relative))
        )
    case.account_for("relocation", pos[rows], t.RELA.itemsize)
    for row in rows[bad].tolist():
        was, is_ = (f"r_offset {int(table['r_offset'][row]):#x}, r_info {int(table['r_info'][row]):#x}, "
                    f"r_addend {int(table['r_addend'][row]):#x}" for table in (old, new))  # fmt: skip
        case.say("verify-relocation", f"dynamic relocation {row}: {was} became {is_}", row=row, pos=int(pos[row]))
