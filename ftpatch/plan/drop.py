"""`drop`: records leave the table, and the code stays as it is."""

from __future__ import annotations

import numpy as np

from ftpatch.arch import Shape
from ftpatch.elf.editor import Editor
from ftpatch.plan import notes, records_out, refusals
from ftpatch.plan.edits import Edits
from ftpatch.plan.module import records as module_records
from ftpatch.plan.plan import RECORD_OUTCOMES, Plan, PlanSummary, no_calls
from ftpatch.plan.request import Draft, DropRequest, patchable_shape
from ftpatch.sites.scan import Scan

WITHOUT_RECORD = (
    "what has no record is not in ftrace's list: it can no longer be traced by name, kprobed through ftrace or "
    "live-patched"
)
STAYS_CALL = (
    "the sites of this layout are calls of {called} in the file; without a record the kernel leaves them as they are, "
    "which costs a call and a return each time"
)


def plan_drop(scan: Scan, request: DropRequest) -> Plan:
    """Records leave the table, code stays. Raises a PlanError where that cannot be."""
    draft = Draft(scan, patchable_shape(scan), request)
    if not scan.image.linked:
        module_records.require_way(request.records, ("auto", "shrink"), scan.image.path)
    refusals.refuse_without_record(draft)
    refusals.refuse_unless_skipped(draft)

    # From here on nothing is refused for a single site.
    index = draft.open()
    gone = draft.gone(index)
    told = _notes(draft.shape, len(index), int(gone.sum()) - len(index))
    if scan.image.linked:
        out = records_out.take_out(scan, draft.shape, gone, request.records)
        summary, values, warnings = PlanSummary(out.way, out.why), out.values, out.warnings
        edits = Edits([*out.groups, records_out.to_none(scan.image, out.freed)])
        told += (notes.BUILD_ID, notes.SIGNATURE) if len(index) else ()
    else:
        editor = Editor(scan.image)
        module_records.cut_records(editor, scan.records, gone)
        summary, values = PlanSummary("shrink", module_records.CUT), np.zeros(0, np.uint64)
        warnings = ()
        edits = module_records.edits_of(scan.image, editor)
    n = len(index)
    return Plan(
        verb="drop", scan=scan, chosen=request.chosen, reasons=draft.reasons, index=index,
        new_words=np.zeros((n, 0), np.uint32), stub=("",) * n, stub_why=("",) * n,
        record=(RECORD_OUTCOMES[summary.records],) * n, calls=no_calls(n), gone=gone, returned=index[:0],
        slot_values=values, summary=summary, edits=edits, notes=told, warnings=warnings,
    )  # fmt: skip


def _notes(shape: Shape, n: int, more: int) -> tuple[str, ...]:
    """What to tell of n dropped records. more: those that leave besides."""
    if not n:
        return ()
    return (
        WITHOUT_RECORD,
        *([f"{more} {notes.ONLY_INIT}"] if more else []),
        *([STAYS_CALL.format(called=shape.called)] if shape.called else []),
    )
