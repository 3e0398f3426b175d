"""`enable` for modules: patched words, new relocations and symbols, records that leave.

A module is relocated when it is loaded, so a patched site is a branch word with a relocation, and the loader works out
the distance. Nothing that exists is renumbered; what is new goes to the end of the file.
"""

from __future__ import annotations

import numpy as np

from ftpatch.elf.editor import Editor
from ftpatch.errors import ShapeError
from ftpatch.kernel.module import Module
from ftpatch.plan import caller_registers, notes, refusals
from ftpatch.plan.module.addition import Addition
from ftpatch.plan.module.build import OPS, Builder
from ftpatch.plan.module.callee import resolve_callee
from ftpatch.plan.module.loadable import require_loadable
from ftpatch.plan.module.records import CUT, KEPT, cut_records, edits_of
from ftpatch.plan.plan import RECORD_OUTCOMES, Plan, PlanSummary
from ftpatch.plan.request import Draft, EnableRequest, new_draft
from ftpatch.plan.routes import no_calls
from ftpatch.sites.scan import Scan

HOOK_CONTEXT = (
    "the hook runs as hook(site, caller) in whatever context the function is called in, interrupts included; "
    "a hook that calls the function itself never returns"
)


def plan_module_enable(scan: Scan, request: EnableRequest) -> Plan:
    """Decide everything. Raises a PlanError, or an UnsupportedError where the layout cannot be enabled at all."""
    draft, module, modules = new_draft(scan, request), Module(scan), scan.arch.modules
    assert modules is not None  # other machines were refused
    if draft.shape.anywhere:
        raise ShapeError(f"layout {draft.shape.name} cannot be enabled in a module", scan.image.path,
                         found=f"calls of {draft.shape.called} behind the prologue, which no stub of a module fits",
                         expected="sites at the entries of functions",
                         todo="enable takes objects: patch those before the module is linked")  # fmt: skip
    checked = require_loadable(module, request.against)
    kernel = request.against.kernel
    wanted = resolve_callee(draft, request, modules, kernel.image if kernel else None)
    refusals.refuse_wrong_states(draft)
    refusals.refuse_duplicate_records(draft)
    refusals.refuse_relocated(draft)
    if wanted.ops_size:
        refusals.refuse_full_literals(draft)
    refusals.refuse_overlaps(draft, wanted.ops_size > 0)
    kept = caller_registers.kept_in_module(draft, request)
    who = f"the stub of {wanted.name}" if request.hook and request.stub is None else wanted.name
    caller_registers.refuse_relied_registers(draft, kept, who, request.force_target)
    refusals.refuse_unless_skipped(draft)

    # From here on nothing is refused for a single site.
    lines = [HOOK_CONTEXT] if request.hook and request.stub is None else []
    addition = Addition(Editor(scan.image), module, modules)
    return _assemble(draft, request, Builder(addition, modules, wanted, request.against), [*lines, *checked])


def _assemble(draft: Draft, request: EnableRequest, builder: Builder, more_notes: list[str]) -> Plan:
    """The plan, after its changes were made in the builder's editor."""
    index, scan, wanted, editor = draft.open(), draft.scan, builder.callee, builder.editor
    gone, n = draft.gone(index), len(index)
    # The branch word has distance 0 in the file: its relocation holds the target.
    words = np.empty((n, len(draft.shape.new)), dtype=np.uint32)
    words[:] = [word.bits for word in draft.shape.new]
    calls = builder.build(draft.shape, index, words) if n else ()
    cut_records(editor, scan.records, gone)
    lines = ([notes.LEAVES_LIST] if gone.any() else []) + [*wanted.notes, *builder.addition.notes, *more_notes]
    way, why = ("keep", KEPT) if request.records == "keep" else ("shrink", CUT)
    kept = (f"records are kept, {KEPT}",) if way == "keep" and n else ()
    ops = OPS if wanted.ops_size else None
    return Plan(
        verb="enable", scan=scan, chosen=request.chosen, reasons=draft.reasons, index=index, new_words=words,
        stub=tuple(call.stub for call in calls), stub_why=tuple(call.why for call in calls),
        record=tuple(np.where(scan.sites.row[index] >= 0, RECORD_OUTCOMES[way], "none").tolist()), calls=no_calls(n),
        gone=gone, returned=index[:0],
        summary=PlanSummary(way, why, wanted.name, None, ops, "literal" if ops else "none"),
        edits=edits_of(editor), callee=wanted, notes=tuple(lines) if n else (),
        warnings=(*wanted.warnings, *draft.warnings, *notes.still_broken(scan, gone), *kept),
        forced_target=bool(wanted.warnings or draft.warnings),
    )  # fmt: skip
