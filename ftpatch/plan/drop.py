"""`drop`: records leave the table, and the code stays as it is."""

from __future__ import annotations

import numpy as np

from ftpatch.elf.editor import Editor
from ftpatch.plan import notes, records_out, refusals
from ftpatch.plan.edits import Edits
from ftpatch.plan.module import records as module_records
from ftpatch.plan.plan import RECORD_OUTCOMES, Plan, PlanSummary
from ftpatch.plan.records_out import RecordEdits
from ftpatch.plan.request import DropRequest, new_draft
from ftpatch.plan.routes import no_calls
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
    draft = new_draft(scan, request)
    if not scan.image.linked:
        module_records.require_way(request.records, ("auto", "shrink"), scan.image.path)
    refusals.refuse_without_record(draft)
    refusals.refuse_other_records(draft)
    refusals.refuse_unless_skipped(draft)

    # From here on nothing is refused for a single site.
    index, called = draft.open(), draft.shape.called
    gone, n = draft.gone(index), len(index)
    refusals.require_core_record(draft, gone)
    if scan.image.linked:
        out = records_out.take_out(scan, draft.shape, gone, request.records)
        edits = Edits([*out.groups, records_out.to_none(scan.image, out.freed)])
    else:
        editor = Editor(scan.image)
        module_records.cut_records(editor, scan.records, gone)
        out = RecordEdits("shrink", module_records.CUT)
        edits = module_records.edits_of(editor)
    more = int(gone.sum()) - n  # records that leave besides those of the sites
    lines = [WITHOUT_RECORD, *([f"{more} {notes.ONLY_INIT}"] if more else [])]
    lines += (
        [STAYS_CALL.format(called=called)] if called and draft.shape.branch.ends(scan.sites.body()[index]).any() else []
    )
    lines += [notes.BUILD_ID, notes.SIGNATURE] if scan.image.linked else []
    return Plan(
        verb="drop", scan=scan, chosen=request.chosen, reasons=draft.reasons, index=index,
        new_words=np.zeros((n, 0), np.uint32), stub=("",) * n, stub_why=("",) * n,
        record=(RECORD_OUTCOMES[out.way],) * n, calls=no_calls(n), gone=gone, returned=index[:0],
        summary=PlanSummary(out.way, out.why), edits=edits,
        notes=tuple(lines) if n else (), warnings=out.warnings,
    )  # fmt: skip
