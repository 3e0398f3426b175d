"""`enable` for objects: the relocation of a site's call names another symbol, and a mark stays beside it.

bl _mcount     R_CALL26 _mcount            bl my_tracer    R_CALL26 my_tracer
                                           (mark)          R_NONE   _mcount
nop            R_NONE   _mcount            the same, from a call that was switched off
nop; nop       no relocation               mov x9, x30; bl my_tracer, with a mark of no symbol
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ftpatch.arrays import I64, U32
from ftpatch.elf.editor import Editor
from ftpatch.errors import PolicyError, ShapeError, UsageError
from ftpatch.plan import notes, refusals
from ftpatch.plan.edits import code_bytes
from ftpatch.plan.module.records import CUT, cut_records, edits_of
from ftpatch.plan.object.relocations import SiteRows, refuse_unlike
from ftpatch.plan.object.target import ObjectTarget, resolve_object_target
from ftpatch.plan.plan import RECORD_OUTCOMES, Callee, Plan, PlanSummary
from ftpatch.plan.request import Draft, EnableRequest, new_draft
from ftpatch.plan.routes import no_calls
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import READY, UNRECORDED

KEPT = "asked for: a kernel that the object becomes part of would find other code than it expects"
OPTIONS = (("hook", "--hook"), ("stub", "--stub-asm"), ("ops", "--ops"))


def plan_object_enable(scan: Scan, request: EnableRequest) -> Plan:
    """Decide everything. Raises a PlanError, or an UnsupportedError where the layout cannot be enabled in an object."""
    draft = new_draft(scan, request)
    _require_possible(draft, request)
    refusals.refuse_wrong_states(draft)
    refusals.refuse_duplicate_records(draft)
    _refuse_same_target(draft, request.target)
    refuse_unlike(draft)
    refusals.refuse_overlaps(draft, with_literal=False)
    target = resolve_object_target(draft, request)
    refusals.refuse_unless_skipped(draft)

    # From here on nothing is refused for a single site.
    editor = Editor(scan.image)
    if target.row < 0 and len(draft.open()):
        target = replace(target, row=editor.symbol(target.name, 0))
    return _assemble(draft, request, editor, target)


def _require_possible(draft: Draft, request: EnableRequest) -> None:
    """Refuse options of kernels and modules, and layouts whose calls no relocation makes."""
    path = draft.scan.image.path
    for field, option in OPTIONS:
        if getattr(request, field):
            raise UsageError(f"{option} is not for objects", path, expected="--target SYMBOL")
    if request.ops_via != "auto":
        raise UsageError("--ops-via is not for objects", path, expected="--target SYMBOL")
    if request.records not in ("auto", "shrink", "keep"):
        raise PolicyError(f"--records {request.records} does not work in an object", path,
                          expected="shrink: slot and relocation leave")  # fmt: skip
    if draft.shape.out_of_line:
        raise ShapeError(f"layout {draft.shape.name} cannot be enabled in an object", path,
                         found="sites that call from stubs of their own", expected="sites that call in line",
                         todo="enable takes the module or kernel that is linked of it")  # fmt: skip


def _refuse_same_target(draft: Draft, target: str) -> None:
    """Sites that call the target as it is."""
    sites, shape = draft.scan.sites, draft.shape
    if shape.called and target == shape.called:
        calls = draft.request.chosen & np.isin(sites.status, (READY, UNRECORDED)) & shape.branch.ends(sites.body())
        draft.refuse(np.flatnonzero(calls), f"it calls {target} already")


def _assemble(draft: Draft, request: EnableRequest, editor: Editor, target: ObjectTarget) -> Plan:
    """The plan, after its changes were made in the editor."""
    scan, sites, shape, index = draft.scan, draft.scan.sites, draft.shape, draft.open()
    gone, n = draft.gone(index), len(index)
    words = np.empty((n, len(shape.new)), dtype=np.uint32)
    words[:] = [word.bits for word in shape.new]
    if shape.called and target.name == shape.called:  # what was switched off comes back as the compiler left it
        words[:] = [word.bits for word in shape.old]
    _change(draft, editor, index, words, target)
    cut_records(editor, scan.records, gone)
    way, why = ("keep", KEPT) if request.records == "keep" else ("shrink", CUT)
    kept = (f"records are kept, {KEPT}",) if way == "keep" and (sites.row[index] >= 0).any() else ()
    lines = ((notes.LEAVES_LIST,) if gone.any() else ()) + target.notes
    return Plan(
        verb="enable", scan=scan, chosen=request.chosen, reasons=draft.reasons, index=index, new_words=words,
        stub=("",) * n, stub_why=("",) * n,
        record=tuple(np.where(sites.row[index] >= 0, RECORD_OUTCOMES[way], "none").tolist()), calls=no_calls(n),
        gone=gone, returned=index[:0], summary=PlanSummary(way, why, target.name), edits=edits_of(editor),
        callee=Callee(target.name), notes=lines if n else (), warnings=(*target.warnings, *kept),
        forced_target=bool(target.warnings),
    )  # fmt: skip


def _change(draft: Draft, editor: Editor, index: I64, words: U32, target: ObjectTarget) -> None:
    """The words and relocations of the sites."""
    sites, rows = draft.scan.sites, SiteRows(editor, draft.shape)
    for site, site_words in zip(index.tolist(), words, strict=True):
        sec, start = int(sites.sec[site]), int(sites.off[site] + sites.site[site])
        editor.patch(sec, start, code_bytes(site_words[None, :], draft.shape.unit).tobytes(), "site", site)
        rows.call(sec, start, target.row, target.name == draft.shape.called)
    rows.finish()
