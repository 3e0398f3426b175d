"""`disable` for objects: a call of the profiling function becomes a NOP, and its relocation one that does nothing.

A site of NOPs gets these back, and its record. What a call of a patch named does not matter: nothing is called any
more, and the mark still names what the compiler let the site call, so that `enable` finds it again.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch.shape import begins_with
from ftpatch.arrays import I64, U32, Mask
from ftpatch.elf.editor import Editor
from ftpatch.errors import ShapeError
from ftpatch.plan import refusals
from ftpatch.plan.edits import code_bytes
from ftpatch.plan.module.records import CUT, RETURNED, cut_records, edits_of
from ftpatch.plan.object.records import return_to_its_section
from ftpatch.plan.object.relocations import SiteRows, refuse_unlike
from ftpatch.plan.plan import RECORD_OUTCOMES, Plan, PlanSummary
from ftpatch.plan.request import DisableRequest, Draft, new_draft
from ftpatch.plan.routes import no_calls
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import ENABLED, OFF, READY, UNRECORDED

BECOMES_NOP = "a call of {called} becomes a NOP; `enable --target {called}` makes it that call again"
LEAVES = "its record leaves with it: a kernel expects the call there, or the NOP that its own tools left"


def plan_object_disable(scan: Scan, request: DisableRequest) -> Plan:
    """Decide everything. Raises a PlanError where a site cannot be switched off."""
    draft = new_draft(scan, request)
    if draft.shape.out_of_line:
        raise ShapeError(f"layout {draft.shape.name} has nothing to disable in an object", scan.image.path,
                         found="sites that call from stubs of their own")  # fmt: skip
    _refuse_not_calling(draft)
    refusals.refuse_duplicate_records(draft)
    refuse_unlike(draft)
    refusals.refuse_unless_skipped(draft)

    # From here on nothing is refused for a single site.
    index, sites, called = draft.open(), scan.sites, draft.shape.called
    n, has_record = len(index), sites.row[index] >= 0
    words = np.empty((n, len(draft.shape.old)), dtype=np.uint32)
    words[:] = [word.bits for word in (draft.shape.nops if called else draft.shape.old)]
    editor = Editor(scan.image)
    _change(draft, editor, index, words)
    gone = draft.gone(index[has_record]) if called else np.zeros(len(scan.records), dtype=bool)
    cut_records(editor, scan.records, gone)
    returned = index[:0] if called else index[~has_record]
    for site in returned.tolist():
        return_to_its_section(editor, sites, site)
    way, why = ("shrink", CUT) if called else ("return", RETURNED)
    with_record, without = (RECORD_OUTCOMES[way], "none") if called else ("kept", "returned")
    lines = (BECOMES_NOP.format(called=called),) if called else ()
    return Plan(
        verb="disable", scan=scan, chosen=request.chosen, reasons=draft.reasons, index=index, new_words=words,
        stub=("",) * n, stub_why=("",) * n, record=tuple(np.where(has_record, with_record, without).tolist()),
        calls=no_calls(n), gone=gone, returned=returned, summary=PlanSummary(way, why), edits=edits_of(editor),
        notes=(*lines, *((LEAVES,) if gone.any() else ())) if n else (),
    )  # fmt: skip


def _refuse_not_calling(draft: Draft) -> None:
    """Sites that call nothing."""
    sites, shape = draft.scan.sites, draft.shape
    calls = shape.branch.ends(sites.body())
    may = sites.status == ENABLED
    if shape.called:
        may |= np.isin(sites.status, (READY, UNRECORDED)) & (calls | _through(draft))
    for site in np.flatnonzero(draft.request.chosen & ~may).tolist():
        status = int(sites.status[site])
        nothing = shape.called and status in (READY, OFF)
        draft.reasons[site] = (
            "it calls nothing: it is a NOP" if nothing
            else refusals.NOT_ENABLED if status == READY else refusals.WHY_NOT.get(status, refusals.OTHER)
        )  # fmt: skip


def _through(draft: Draft) -> Mask:
    """Sites whose call goes through a word in memory."""
    body = draft.scan.sites.body()
    return begins_with(body, (draft.shape.old,)) if draft.shape.through else np.zeros(len(body), dtype=bool)


def _change(draft: Draft, editor: Editor, index: I64, words: U32) -> None:
    """The words and relocations of the sites."""
    sites, rows = draft.scan.sites, SiteRows(editor, draft.shape)
    for site, site_words in zip(index.tolist(), words, strict=True):
        sec, start = int(sites.sec[site]), int(sites.off[site] + sites.site[site])
        editor.patch(sec, start, code_bytes(site_words[None, :], draft.shape.unit).tobytes(), "site", site)
        rows.nothing(sec, start)
    rows.finish()
