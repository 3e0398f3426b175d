"""What a writing command adds to the objects of a scan: each chosen site's fate, and every edit with its owner."""

from __future__ import annotations

from typing import Any

import numpy as np

from ftpatch import dropping
from ftpatch.api import Output, Scan
from ftpatch.edits import Edits
from ftpatch.plan import Plan
from ftpatch.report.rows import image_object
from ftpatch.sites import SiteTable


def plan_object(scan: Scan, plan: Plan, output: Output | None, sha256: str | None) -> dict[str, Any]:
    """The IMAGE object of a writing command: the chosen sites with what happens to them, and every edit."""
    found = image_object(scan, plan.chosen, sha256)
    for index, site in zip(np.flatnonzero(plan.chosen).tolist(), found["sites"], strict=True):
        site.update(_writing_fields(plan, index))
    new_words = iter(plan.new_words.tolist())
    for index, site in zip(np.flatnonzero(plan.chosen).tolist(), found["sites"], strict=True):
        if plan.patched[index]:
            site["new_words"] = [f"0x{word:08x}" for word in next(new_words)]
    found["request"] = {
        "target": plan.target.name, "aim": f"0x{plan.aim:016x}", "ops": plan.ops.name if plan.ops else None,
        "ops_via": plan.ops_via, "records": plan.dropping.way, "records_why": plan.dropping.why,
    }  # fmt: skip
    found["notes"] = [*plan.warnings, *plan.notes]
    found["output"] = output and {"file": output.path, "sha256": output.sha256, "elf_sha256": output.sha256}
    found["edits"] = edit_rows(plan.edits, plan.table)
    return found


def _writing_fields(plan: Plan, index: int) -> dict[str, Any]:
    patched = bool(plan.patched[index])
    dropped = patched and plan.table.row[index] >= 0
    return {
        "action": ("call_via_stub" if plan.thunk else "call") if patched else "keep",
        "reason": plan.reasons.get(index),
        "target": plan.target.name if patched else None,
        "distance": int(plan.distance[index]) if patched else None,
        "new_words": [],
        "record_fate": dropping.FATES[plan.dropping.way] if dropped else "kept" if not patched else "none",
        "literal": plan.ops.name if patched and plan.literal and plan.ops else None,
        "stub": f"0x{plan.thunk.va:016x}" if patched and plan.thunk else None,
        "concurrency": ("pair" if plan.new_words.shape[1] > 1 else "single") if patched else None,
    }


def edit_rows(edits: Edits, table: SiteTable) -> list[dict[str, Any]]:
    """One object per edit, in file order; `owner` says whose bytes they are."""
    return [
        {"pos": pos, "old": old.hex(), "new": new.hex(), "owner": _owner(kind, number, table)}
        for pos, old, new, kind, number in edits
    ]


def _owner(kind: str, number: int, table: SiteTable) -> str:
    if kind in ("site", "literal"):
        row = int(table.row[number])
        return f"{kind} row:{row}" if row >= 0 else f"{kind} {table.name(number)}"
    return {"record": f"record slot:{number}", "relocation": f"relocation row:{number}", "thunk": "thunk",
            "bound": "end of the record table in ftrace_init", "symbol": f"symbol row:{number}"}[kind]  # fmt: skip
