"""`enable` for kernels: from sites and a request to a plan, every byte that will change and who wants it.

Nothing is written here. A plan is complete or it is not made: sites that cannot be patched refuse the whole request
unless the user allows to leave them out. What modules need instead is in `module/enable.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arch import Shape
from ftpatch.arrays import I64, U32, U64, Mask
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError
from ftpatch.kernel.init_text import in_init_text
from ftpatch.plan import notes, ool_slots, records_out, refusals, routes, targets
from ftpatch.plan.edits import Edits, Group, as_bytes, group
from ftpatch.plan.ool_slots import Slots
from ftpatch.plan.plan import RECORD_OUTCOMES, Calls, Plan, PlanSummary
from ftpatch.plan.request import Draft, EnableRequest, patchable_shape
from ftpatch.plan.routes import Routes, SharedStub, distances
from ftpatch.plan.targets import Ops, Target
from ftpatch.sites.layout import require_still_shown
from ftpatch.sites.scan import Scan


@dataclass(frozen=True)
class _Goal:
    """What the calls of a kernel's sites are for."""

    target: Target
    ops: Ops | None  # the ftrace_ops that the sites serve, where the target reads a pointer to one
    slack: routes.Slack  # relocation rows for those pointers
    via: str  # how the sites find the ops: none, literal or thunk


def plan_kernel_enable(scan: Scan, request: EnableRequest) -> Plan:
    """Decide everything. Raises a PlanError, or an UnsupportedError where the layout cannot be enabled at all."""
    draft = Draft(scan, patchable_shape(scan), request)
    target = targets.resolve_target(scan, request.chosen, request.target or scan.arch.entries[0], request.force_target)
    ops = _ops(scan.image, request, target)
    refusals.refuse_wrong_states(draft)
    refusals.refuse_duplicate_records(draft)
    refusals.refuse_sites_too_early(draft, target, request.force_early)
    goal = _with_way(draft, request, target, ops)

    if goal.via == "literal":
        refusals.refuse_full_literals(draft)
    refusals.refuse_overlaps(draft, goal.via == "literal")
    if draft.shape.out_of_line:  # slots are counted only where the sites themselves are right
        refusals.refuse_unless_skipped(draft)
    n_reasons = -1
    while n_reasons != len(draft.reasons):  # a site that falls out may move the stubs of the others
        n_reasons = len(draft.reasons)
        slots, calls = _routes(draft, goal)
        refusals.refuse_out_of_reach(draft, target, slots, calls)
        refusals.refuse_unless_skipped(draft)

    # From here on nothing is refused for a single site; the edits are built for the remaining ones alone.
    gone = draft.gone(draft.open())
    if gone.any() and not scan.sites.forced:
        n = len(scan.records)
        require_still_shown(scan.image, scan.records, scan.sites.window[:n], scan.sites.va[:n], gone, draft.shape)
    out = records_out.take_out(scan, draft.shape, gone, request.records)
    return _assemble(draft, goal, gone, slots, calls, out)


def _ops(image: Image, request: EnableRequest, target: Target) -> Ops | None:
    """The ops that the request names, where the target reads a pointer to one."""
    if target.entry.literal:
        return targets.resolve_ops(image, target.entry, "list" if request.ops is None else request.ops)
    if request.ops not in (None, "list") or request.ops_via != "auto":
        raise PolicyError(f"{target.name} reads no ops pointer", image.path, found="--ops or --ops-via",
                          expected="a kernel with one ftrace_ops per site", todo="leave the option out")  # fmt: skip
    return None


def _with_way(draft: Draft, request: EnableRequest, target: Target, ops: Ops | None) -> _Goal:
    """The goal with the way in which the sites get their ops."""
    asked, slack, index = request.ops_via, routes.free_rows(draft.image), draft.open()
    if ops is None:
        return _Goal(target, None, slack, "none")
    freed = int((draft.records.rela[draft.gone(index)] >= 0).sum())  # a record that leaves needs its row no more
    n_free = len(slack.rows) + freed
    room = not slack.needed or len(index) <= n_free
    if asked == "thunk" or (asked == "auto" and not room and draft.arch.ops_thunk is not None):
        if not room:
            draft.remarks.append(
                f"a shared thunk carries the ops: {len(index)} sites, but {n_free} free relocation entries"
            )
        return _Goal(target, ops, slack, "thunk")
    if not room:
        raise PolicyError("not enough free relocation entries for the ops literals", draft.image.path,
                          found=str(n_free), expected=str(len(index)),
                          todo="--ops-via thunk" if draft.arch.ops_thunk else "choose fewer sites")  # fmt: skip
    return _Goal(target, ops, slack, "literal")


def _routes(draft: Draft, goal: _Goal) -> tuple[Slots | None, Routes]:
    """Where the open sites' stubs and calls go."""
    index, scan, stub = draft.open(), draft.scan, draft.arch.site_stub
    if goal.via == "thunk":
        assert goal.ops is not None
        return None, routes.by_thunk(scan, goal.target, goal.ops, len(index))
    init = in_init_text(scan.image, scan.sites.va[index])
    if not draft.shape.out_of_line or stub is None:
        return None, routes.by_reach(scan, goal.target, scan.sites.branch_va[index], init)
    if not len(index):
        return None, routes.straight(goal.target, 0)
    slots = ool_slots.assign_slots(scan, stub, index, draft.gone(index))
    call_va = slots.va + np.uint64(slots.literal + stub.call_at)
    return slots, routes.by_reach(scan, goal.target, call_va, init)


def _assemble(
    draft: Draft, goal: _Goal, gone: Mask, slots: Slots | None, to: Routes, out: records_out.RecordEdits
) -> Plan:
    """The plan's columns and its edits."""
    scan, index, sites = draft.scan, draft.open(), draft.sites
    calls = _calls(draft, index, slots, to)
    new_words = _site_words(draft.shape, distances(sites.branch_va[index], calls.branch_to))
    more = int(gone.sum()) - int((sites.row[index] >= 0).sum())
    told = notes.of_enable(goal.target, goal.ops, out.way, to, len(index), more)
    kept = (records_out.KEPT,) if out.way == "keep" and (sites.row[index] >= 0).any() else ()
    warned = (goal.target.warning,) if goal.target.warning else ()
    left = np.where(sites.row[index] >= 0, RECORD_OUTCOMES[out.way], "none")
    return Plan(
        verb="enable", scan=scan, chosen=draft.request.chosen, reasons=draft.reasons, index=index, new_words=new_words,
        stub=_stub_places(calls),
        stub_why=tuple(calls.shared[at].why if at >= 0 else "" for at in calls.through.tolist()),
        record=tuple(left.tolist()), calls=calls, gone=gone, returned=index[:0], slot_values=out.values,
        summary=PlanSummary(
            out.way, out.why, goal.target.name, goal.target.va, goal.ops.name if goal.ops else None, goal.via
        ),
        edits=_edits(draft, goal, index, new_words, slots, calls, out), ops_va=goal.ops.va if goal.ops else None,
        notes=(*told, *draft.remarks),
        warnings=(*out.warnings, *kept, *warned, *notes.still_broken(scan, gone)), forced_target=bool(warned),
    )  # fmt: skip


def _calls(draft: Draft, index: I64, slots: Slots | None, to: Routes) -> Calls:
    """The columns of the calls, from where each one was routed."""
    stub, site = draft.arch.site_stub, draft.sites.branch_va[index]
    if slots is None or stub is None:
        return Calls(to.call_to, site, to.call_to, np.zeros(len(index), np.uint64), to.through, to.stubs)
    branch_to = slots.va + np.uint64(slots.literal)
    return Calls(branch_to, branch_to + np.uint64(stub.call_at), to.call_to, slots.va, to.through, to.stubs)


def _stub_places(calls: Calls) -> tuple[str, ...]:
    """Where each call's stub lies: its own, else the shared one."""
    shared = np.array([*(stub.va for stub in calls.shared), 0], dtype=np.uint64)[calls.through]  # −1: none
    return tuple(f"0x{va:016x}" if va else "" for va in np.where(calls.slot > 0, calls.slot, shared).tolist())


def _site_words(shape: Shape, distance: I64) -> U32:
    words = np.empty((len(distance), len(shape.new)), dtype=np.uint32)
    words[:, :-1] = [word.bits for word in shape.new[:-1]]
    words[:, -1] = shape.branch.encode(distance)
    return words


# -- edits -------------------------------------------------------------------------------------------------------------


def _edits(
    draft: Draft, goal: _Goal, index: I64, new_words: U32, slots: Slots | None, calls: Calls,
    out: records_out.RecordEdits,
) -> Edits:  # fmt: skip
    """Every edit: records, sites, stubs of their own, ops pointers, shared stubs."""
    image, sites, stub = draft.image, draft.sites, draft.arch.site_stub
    groups, freed = list(out.groups), out.freed
    pointer_va = (sites.va[index].view(np.int64) + (draft.shape.literal or 0)).view(np.uint64)
    if slots is not None and stub is not None:
        pointer_va = slots.va
        behind = sites.branch_va[index].view(np.int64) + 4
        back = behind - (calls.branch_to.view(np.int64) + stub.back_at)
        code = stub.code(distances(calls.call_va, calls.call_to), back)
        groups.append(group("stub", image.data, index, _positions(image, calls.branch_to), as_bytes(code)))
    groups.append(group("site", image.data, index, sites.pos[index], as_bytes(new_words)))
    if goal.via == "literal" and goal.ops is not None and len(index):
        pointers, freed = _literal_edits(draft, goal, index, pointer_va, goal.ops, freed)
        groups += pointers
    groups.append(records_out.to_none(image, freed))
    groups += [_stub_edit(image, number, shared) for number, shared in enumerate(calls.shared) if not shared.present]
    return Edits(groups)


def _positions(image: Image, va: U64) -> I64:
    sec, off = image.place(va)
    return image.pos(sec, off)


def _literal_edits(draft: Draft, goal: _Goal, index: I64, va: U64, ops: Ops, freed: I64) -> tuple[list[Group], I64]:
    """Each site's ops pointer and the relocation that moves it with the kernel; and the freed rows still unused."""
    image = draft.image
    pointer = as_bytes(np.full(len(index), ops.va, dtype=np.uint64))
    groups = [group("literal", image.data, index, _positions(image, va), pointer)]
    if goal.slack.needed:
        rows = np.zeros(len(index), dtype=t.RELA)
        rows["r_offset"], rows["r_info"] = va, draft.arch.relative
        rows["r_addend"] = np.uint64(ops.va).astype(np.int64)
        used = np.concatenate([freed, goal.slack.rows])[: len(index)]
        groups.append(group("relocation", image.data, used, image.rela[1][used], as_bytes(rows)))
        freed = freed[len(index) :]
    return groups, freed


def _stub_edit(image: Image, number: int, stub: SharedStub) -> Group:
    pos = np.array([image.pos_of_va(stub.va)], dtype=np.int64)
    return group("thunk", image.data, np.array([number]), pos, as_bytes(stub.words[None, :]))
