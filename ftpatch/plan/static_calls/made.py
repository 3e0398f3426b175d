"""A decided setting of static calls as a plan: no site of the function tracer changes in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ftpatch.plan.edits import Edits
from ftpatch.plan.plan import Plan, PlanSummary, SetCall
from ftpatch.plan.routes import no_calls
from ftpatch.plan.static_calls.lookup import symbol_at
from ftpatch.plan.static_calls.request import NULL, RETURN0, SetDraft

NO_RECORD = "static calls have no records"


def plan_of(draft: SetDraft, edits: Edits, lines: Sequence[str]) -> Plan:
    """The plan. lines: notes, besides those of the draft."""
    scan, n = draft.scan, len(draft.scan.sites)
    none = np.zeros(0, dtype=np.int64)
    return Plan(
        verb="static-calls", scan=scan, chosen=np.zeros(n, dtype=bool), reasons={}, index=none,
        new_words=np.zeros((0, 0), np.uint32), stub=(), stub_why=(), record=(), calls=no_calls(0),
        gone=np.zeros(len(scan.records), dtype=bool), returned=none, summary=PlanSummary("keep", NO_RECORD),
        edits=edits, notes=(*dict.fromkeys((*follow(draft), *lines, *draft.remarks)),),
        warnings=tuple(draft.warnings), set_calls=tuple(_set_call(draft, key) for key in sorted(draft.goals)),
        key_names=tuple(draft.table.keys.name),
    )  # fmt: skip


def _set_call(draft: SetDraft, key: int) -> SetCall:
    goal = draft.goals[key]
    va = 0
    if goal.own_row >= 0 and draft.table.image.linked:
        va = int(draft.table.image.symbols.rows["st_value"][goal.own_row])
    n_sites = int(np.count_nonzero(draft.table.calls.key == key))
    return SetCall(draft.name(key), holds(draft, key), goal.name, va, n_sites, draft.signatures.get(key, ""),
                   draft.reasons.get(key))  # fmt: skip


def holds(draft: SetDraft, key: int) -> str:
    """What a key calls before, for people."""
    if draft.holds[key] in (NULL, RETURN0):
        return draft.holds[key]
    row = symbol_at(draft.table.image, draft.table.keys.func, key)
    return "a place without a name" if row is None else draft.table.image.symbols.name(row)


def follow(draft: SetDraft) -> list[str]:
    """What is to be said of sites of other files."""
    image, lines = draft.table.image, []
    exported = {image.symbols.name(row) for row in image.symbols.rows_beginning("__ksymtab___SC").tolist()}
    names = [draft.name(key) for key in draft.open()
             if {f"__ksymtab___SCK__{draft.name(key)}", f"__ksymtab___SCT__{draft.name(key)}"} & exported]  # fmt: skip
    if names:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        lines.append(f"exported: {shown}; modules follow, their sites are set from the key when they are loaded")
    return lines
