"""`redirect` for kernels: the first word of a function's patch site becomes a jump to its replacement.

    site ── b ──► replacement                  the way of most
    site ── b ──► [stub ──►] replacement       beyond the jump's reach; and where the replacement computes its TOC from
                                               r12, which a function without a global entry is not called with

Nobody sees a difference but by what the replacement does: registers, stack and return address are as the caller left
them. The record leaves as for `enable`, since the kernel would stumble over the jump at boot.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import U32, Mask
from ftpatch.elf.function_types import FunctionTypes
from ftpatch.plan import notes, records_out, refusals
from ftpatch.plan.caller_registers import refuse_relied_registers
from ftpatch.plan.edits import Edits, as_bytes, group
from ftpatch.plan.plan import RECORD_OUTCOMES, Plan, PlanSummary, Redirect
from ftpatch.plan.records_out import RecordEdits
from ftpatch.plan.redirect.recursion import warn_of_recursion
from ftpatch.plan.redirect.refusals import Substitute, refuse_loops, refuse_lost_toc, refuse_wrong_substitutes
from ftpatch.plan.redirect.replacement import Replacement, find_replacement
from ftpatch.plan.request import Draft, RedirectRequest, new_draft
from ftpatch.plan.routes import Calls, distances, stub_groups
from ftpatch.plan.stub_room import StubRoom, why_guarded
from ftpatch.sites.scan import Scan


def plan_kernel_redirect(scan: Scan, request: RedirectRequest) -> Plan:
    """Decide everything. Raises a PlanError, or an UnsupportedError where the layout cannot be changed at all."""
    draft = new_draft(scan, request)
    texts = dict.fromkeys(request.replacements.values())
    known = {text: find_replacement(scan.image, text) for text in texts}
    goals = {site: known[text] for site, text in request.replacements.items()}
    refusals.refuse_wrong_states(draft)
    refusals.refuse_duplicate_records(draft)
    refusals.refuse_overlaps(draft, with_literal=False)
    refuse_relied_registers(draft, 0, "its replacement", request.force_signature, "--force-signature")
    refuse_loops(draft, {site: goal.va for site, goal in goals.items()})
    types = FunctionTypes(scan.image)
    substitutes = {site: Substitute(goal.name, types, goal.row) for site, goal in goals.items()}
    refuse_lost_toc(draft, substitutes)
    signatures = refuse_wrong_substitutes(draft, request, types, substitutes)
    warn_of_recursion(draft, substitutes)
    n_reasons = -1
    while n_reasons != len(draft.reasons):  # a site that falls out may leave its stub's place to others
        n_reasons = len(draft.reasons)
        calls = _ways(draft, request, goals)
        refusals.refuse_unless_skipped(draft)

    # From here on nothing is refused for a single site.
    index = draft.open()
    gone = draft.gone(index)
    refusals.require_layout_shown(draft, gone)
    refusals.require_core_record(draft, gone)
    out = records_out.take_out(scan, draft.shape, gone, request.records)
    redirects = tuple(Redirect(goals[site].name, goals[site].va, signatures[site]) for site in index.tolist())
    return _assemble(draft, redirects, gone, calls, out)


def _ways(draft: Draft, request: RedirectRequest, goals: dict[int, Replacement]) -> Calls:
    """Where the open sites' jumps go."""
    scan, jump = draft.scan, draft.scan.arch.jump
    assert jump is not None
    room = StubRoom(scan, jump)
    index, sites = draft.open(), scan.sites
    one_entry = sites.local_va[index] == sites.entry_va[index]
    site_va = sites.body_va[index]
    local = np.array([goals[site].local for site in index.tolist()], dtype=np.uint64)
    two = np.array([goals[site].two_entries for site in index.tolist()], dtype=bool)
    reached = jump.reaches(distances(site_va, local))
    by_stub = ~reached | (one_entry & two)
    refusals.refuse_before_paca(draft, index[by_stub], "the stub to its replacement", request.force_early)
    through = np.full(len(index), -1, dtype=np.int64)
    for at in np.flatnonzero(by_stub).tolist():
        goal = goals[int(index[at])]
        number = room.number_for(int(site_va[at]), goal.va, goal.name)
        if number is None:
            distance = int(distances(site_va[at : at + 1], local[at : at + 1])[0])
            why = f"{distance:+#x} bytes to {goal.name}, and no room for a stub within {jump.low:+#x}..{jump.high:+#x}"
            draft.refuse(index[at : at + 1], f"{refusals.OUT_OF_REACH}: {why}")
        elif why := why_guarded(scan, goal.va, goal.name, "jump"):
            draft.refuse(index[at : at + 1], why)
        through[at] = -1 if number is None else number
    to = np.where(through >= 0, np.array([*(stub.va for stub in room.stubs), 0], dtype=np.uint64)[through], local)
    nothing = np.zeros(len(index), dtype=np.uint64)
    return Calls(to, site_va, to, nothing, through, tuple(room.stubs))


def _assemble(draft: Draft, redirects: tuple[Redirect, ...], gone: Mask, calls: Calls, out: RecordEdits) -> Plan:
    scan, index = draft.scan, draft.open()
    sites, jump = scan.sites, scan.arch.jump
    assert jump is not None
    new_words = sites.body()[index]
    new_words[:, 0] = jump.encode(distances(sites.body_va[index], calls.branch_to))
    shared_va = np.array([*(stub.va for stub in calls.shared), 0], dtype=np.uint64)[calls.through]  # −1: none
    recorded = sites.row[index] >= 0
    names = ", ".join(dict.fromkeys(redirect.name for redirect in redirects))
    lines = notes.of_redirect(calls, int(gone.sum()) - int(recorded.sum())) if len(index) else []
    return Plan(
        verb="redirect", scan=scan, chosen=draft.request.chosen, reasons=draft.reasons, index=index,
        new_words=new_words, stub=tuple(f"0x{va:016x}" if va else "" for va in shared_va.tolist()),
        stub_why=tuple(calls.shared[at].why if at >= 0 else "" for at in calls.through.tolist()),
        record=tuple(np.where(recorded, RECORD_OUTCOMES[out.way], "none").tolist()), calls=calls, gone=gone,
        returned=index[:0], notes=(*lines, *dict.fromkeys(draft.remarks)), summary=PlanSummary(out.way, out.why, names),
        edits=_edits(draft, new_words, calls, out), redirects=redirects,
        warnings=(*out.warnings, *draft.warnings, *notes.still_broken(scan, gone)),
    )  # fmt: skip


def _edits(draft: Draft, new_words: U32, calls: Calls, out: RecordEdits) -> Edits:
    """Records, sites, and the stubs that are new."""
    image, sites, index = draft.scan.image, draft.scan.sites, draft.open()
    groups = [*out.groups, group("site", image.data, index, sites.pos[index], as_bytes(new_words))]
    return Edits([*groups, records_out.to_none(image, out.freed), *stub_groups(image, calls.shared)])
