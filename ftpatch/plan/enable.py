"""`enable` for kernels: from sites and a request to a plan, every byte that will change and who wants it.

Nothing is written here. A plan is complete or it is not made: sites that cannot be patched refuse the whole request
unless the user allows to leave them out. What modules need instead is in `module/enable.py`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ftpatch.arrays import I64, U32, U64, Mask
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError
from ftpatch.kernel.init_text import in_init_text
from ftpatch.plan import caller_registers, kept_relocations, notes, ool_slots, records_out, refusals, routes
from ftpatch.plan.edits import Edits, Group, as_bytes, code_bytes, group, group_at
from ftpatch.plan.plan import RECORD_OUTCOMES, Plan, PlanSummary
from ftpatch.plan.records_out import RecordEdits
from ftpatch.plan.request import Draft, EnableRequest, new_draft
from ftpatch.plan.routes import Calls, distances, no_calls
from ftpatch.plan.targets import Goal, Ops, Target, resolve_ops, resolve_target
from ftpatch.sites.scan import Scan


def plan_kernel_enable(scan: Scan, request: EnableRequest) -> Plan:
    """Decide everything. Raises a PlanError, or an UnsupportedError where the layout cannot be enabled at all."""
    draft = new_draft(scan, request)
    target = resolve_target(scan, request.chosen, request.target or scan.arch.entries[0], request.force_target)
    ops = _ops(scan.image, request, target)
    refusals.refuse_wrong_states(draft)
    refusals.refuse_duplicate_records(draft)
    refusals.refuse_sites_too_early(draft, target, request.force_early)
    goal = Goal(target, ops, _way_of_ops(draft, request.ops_via) if ops else "none")
    if goal.via == "literal":
        refusals.refuse_full_literals(draft)
    refusals.refuse_overlaps(draft, goal.via == "literal")
    refusals.refuse_listed_code(draft)
    kept_relocations.refuse_other_relocations(draft)
    kept = caller_registers.kept_by_target(draft, target)
    caller_registers.refuse_relied_registers(draft, kept, target.name, request.force_target)
    if draft.shape.out_of_line:  # slots are counted only where the sites themselves are right
        refusals.refuse_unless_skipped(draft)
    n_reasons = -1
    while n_reasons != len(draft.reasons):  # a site that falls out may move the stubs of the others
        n_reasons = len(draft.reasons)
        calls = _calls(draft, goal)
        refusals.refuse_out_of_reach(draft, target, calls)
        refusals.refuse_unless_skipped(draft)

    # From here on nothing is refused for a single site; the edits are built for the remaining ones alone.
    gone = draft.gone(draft.open())
    refusals.require_layout_shown(draft, gone)
    refusals.require_core_record(draft, gone)
    return _assemble(draft, goal, gone, calls, records_out.take_out(scan, draft.shape, gone, request.records))


def _ops(image: Image, request: EnableRequest, target: Target) -> Ops | None:
    """The ops that the request names, where the target reads a pointer to one."""
    if target.entry.literal:
        return resolve_ops(image, target.entry, "list" if request.ops is None else request.ops)
    if request.ops not in (None, "list") or request.ops_via != "auto":
        raise PolicyError(f"{target.name} reads no ops pointer", image.path, found="--ops or --ops-via",
                          expected="a kernel with one ftrace_ops per site", todo="leave the option out")  # fmt: skip
    return None


def _way_of_ops(draft: Draft, asked: str) -> str:
    """How the sites get their ops: literal or thunk. asked: auto or one of these."""
    image, has_thunks, index = draft.scan.image, draft.scan.arch.ops_thunk is not None, draft.open()
    freed = int((draft.scan.records.rela[draft.gone(index)] >= 0).sum())  # a record that leaves needs its row no more
    n_free = len(records_out.free_rows(image)) + freed
    room = not _moves_at_boot(image) or len(index) <= n_free
    if asked == "thunk" or (asked == "auto" and not room and has_thunks):
        if not room:
            draft.remarks.append(
                f"a shared thunk carries the ops: {len(index)} sites, but {n_free} free relocation entries"
            )
        return "thunk"
    if not room:
        raise PolicyError("not enough free relocation entries for the ops literals", image.path, found=str(n_free),
                          expected=str(len(index)),
                          todo="--ops-via thunk" if has_thunks else "choose fewer sites")  # fmt: skip
    return "literal"


def _moves_at_boot(image: Image) -> bool:
    """Whether the kernel relocates itself, so that every pointer needs a relocation row."""
    return bool(len(image.rela[0])) or bool((image.shdr["sh_type"] == t.SHT_RELR).any())


def _calls(draft: Draft, goal: Goal) -> Calls:
    """Where the open sites' stubs and calls go."""
    index, scan, stub = draft.open(), draft.scan, draft.scan.arch.site_stub
    branch_va = scan.sites.branch_va[index]
    if goal.via == "thunk" and goal.ops is not None:
        return routes.by_thunk(scan, goal.target, goal.ops, branch_va)
    init = in_init_text(scan.image, scan.sites.va[index])
    if not draft.shape.out_of_line or stub is None:
        return routes.by_reach(scan, goal.target, branch_va, init)
    if not len(index):
        return no_calls(0)  # whatever the areas of slots look like
    slot = ool_slots.assign_slots(scan, stub, index, draft.gone(index))
    branch_to = slot + np.uint64(ool_slots.stub_literal(scan.image))
    calls = routes.by_reach(scan, goal.target, branch_to + np.uint64(stub.call_at), init)
    return replace(calls, branch_to=branch_to, slot=slot)


def _assemble(draft: Draft, goal: Goal, gone: Mask, calls: Calls, out: RecordEdits) -> Plan:
    """The plan's columns and its edits."""
    scan, index, target, ops = draft.scan, draft.open(), goal.target, goal.ops
    sites = scan.sites
    recorded = sites.row[index] >= 0
    branch = draft.shape.branch
    new_words = np.empty((len(index), len(draft.shape.new)), dtype=np.uint32)
    new_words[:] = [word.bits for word in draft.shape.new]
    distance = distances(sites.branch_va[index], calls.branch_to)
    new_words[:, -branch.n_units :] = branch.encode(distance).reshape(-1, branch.n_units)
    shared_va = np.array([*(stub.va for stub in calls.shared), 0], dtype=np.uint64)[calls.through]  # −1: none
    kernel = scan.image.kind == "vmlinux"
    more = int(gone.sum()) - int(recorded.sum())
    notes_of_calls = notes.of_enable(goal, out.way, calls, more) if kernel else [notes.BUILD_ID]
    lost = (*notes.nameless(scan, index), *notes.not_seen_again(scan, index, out.way, target.own))
    kept = (records_out.KEPT,) if kernel and out.way == "keep" and recorded.any() else ()
    warned = (*((target.warning,) if target.warning else ()), *draft.warnings)
    return Plan(
        verb="enable", scan=scan, chosen=draft.request.chosen, reasons=draft.reasons, index=index, new_words=new_words,
        stub=tuple(f"0x{va:016x}" if va else "" for va in np.where(calls.slot > 0, calls.slot, shared_va).tolist()),
        stub_why=tuple(calls.shared[at].why if at >= 0 else "" for at in calls.through.tolist()),
        record=tuple(np.where(recorded, RECORD_OUTCOMES[out.way], "none").tolist()), calls=calls, gone=gone,
        returned=index[:0], notes=(*notes_of_calls, *lost, *draft.remarks),
        summary=PlanSummary(out.way, out.why, target.name, target.va, ops.name if ops else None, goal.via),
        edits=_edits(draft, goal, new_words, calls, out), ops_va=ops.va if ops else None,
        warnings=(*out.warnings, *kept, *warned, *notes.still_broken(scan, gone)), forced_target=bool(warned),
    )  # fmt: skip


# -- edits -------------------------------------------------------------------------------------------------------------


def _edits(draft: Draft, goal: Goal, new_words: U32, calls: Calls, out: RecordEdits) -> Edits:
    """Every edit: records, sites, stubs of their own, ops pointers, shared stubs."""
    image, sites, index = draft.scan.image, draft.scan.sites, draft.open()
    stub, groups, freed = draft.scan.arch.site_stub, list(out.groups), out.freed
    pointer_va = (sites.va[index].view(np.int64) + (draft.shape.literal or 0)).view(np.uint64)
    if draft.shape.out_of_line and stub is not None:
        pointer_va = calls.slot
        behind = sites.branch_va[index] + np.uint64(draft.shape.branch.size)
        back = distances(calls.branch_to + np.uint64(stub.back_at), behind)
        code = stub.code(distances(calls.call_va, calls.call_to), back)
        groups.append(group_at("stub", image, index, calls.branch_to, as_bytes(code)))
    groups.append(group("site", image.data, index, sites.pos[index], code_bytes(new_words, draft.shape.unit)))
    groups.append(kept_relocations.of_calls(draft.scan, index, goal.target.name))
    if goal.via == "literal" and goal.ops is not None and len(index):
        pointers, freed = _pointer_edits(image, index, pointer_va, goal.ops, freed)
        groups += pointers
    groups.append(records_out.to_none(image, freed))
    return Edits([*groups, *routes.stub_groups(image, calls.shared)])


def _pointer_edits(image: Image, index: I64, va: U64, ops: Ops, freed: I64) -> tuple[list[Group], I64]:
    """Each site's ops pointer and the relocation that moves it with the kernel; and the freed rows still unused."""
    pointers = group_at("literal", image, index, va, as_bytes(np.full(len(index), ops.va, dtype=np.uint64)))
    if not _moves_at_boot(image):
        return [pointers], freed
    rows = np.zeros(len(index), dtype=t.RELA)
    rows["r_offset"], rows["r_info"] = va, image.arch.relative
    rows["r_addend"] = np.uint64(ops.va).astype(np.int64)
    used = np.concatenate([freed, records_out.free_rows(image)])[: len(index)]
    return [pointers, records_out.relocation_group(image, used, as_bytes(rows))], freed[len(index) :]
