"""What a writing command adds to the objects of a scan: each chosen site's fate, and every edit with its owner."""

from __future__ import annotations

from typing import Any

import numpy as np

from ftpatch import dropping
from ftpatch.api import Output, Scan
from ftpatch.edits import Edits
from ftpatch.elf.tables import Mask
from ftpatch.plan import Plan
from ftpatch.report.rows import image_object
from ftpatch.sites import SiteTable


def plan_object(
    scan: Scan, plan: Plan, output: Output | None, sha256: str | None, shown: int | None = None
) -> dict[str, Any]:
    """The IMAGE object of a writing command: the chosen sites with what happens to them, and every edit.

    shown: only that many of the patched sites and of those that stay, and no edits: enough for a text report.
    """
    chosen = plan.chosen if shown is None else _first(plan, shown)
    found = image_object(scan, chosen, sha256)
    at = {site: row for row, site in enumerate(plan.index.tolist())}  # row of the plan's columns, by site
    for index, site in zip(np.flatnonzero(chosen).tolist(), found["sites"], strict=True):
        site.update(_patched(plan, at[index], index) if index in at else _left(plan, index))
    found["request"] = {
        "target": plan.target.name, "target_va": f"0x{plan.target.va:016x}", "ops": plan.ops.name if plan.ops else None,
        "ops_via": plan.ops_via, "records": plan.dropping.way, "records_why": plan.dropping.why,
    }  # fmt: skip
    found["notes"] = [*plan.warnings, *plan.notes]
    found["output"] = output and {"file": output.path, "sha256": output.sha256, "elf_sha256": output.sha256}
    found["done"] = {
        "patched": len(plan.index), "left": int(plan.chosen.sum()) - len(plan.index),
        "edits": len(plan.edits), "bytes": plan.edits.n_bytes(),
    }  # fmt: skip
    found["edits"] = edit_rows(plan.edits, plan.table) if shown is None else []
    return found


def _first(plan: Plan, shown: int) -> Mask:
    """The first few of the patched sites and of those that stay: all that a text report names."""
    mask = np.zeros(len(plan.table), dtype=bool)
    mask[plan.index[:shown]] = True
    mask[np.flatnonzero(plan.chosen & ~plan.patched)[:shown]] = True
    return mask


def _patched(plan: Plan, at: int, index: int) -> dict[str, Any]:
    """The fields of a site that gets a call. at: its row in the plan's columns; index: in the site table."""
    shared, own = int(plan.through[at]), int(plan.slot[at])
    stub = own or (plan.stubs[shared].va if shared >= 0 else 0)
    return {
        "action": "call_via_stub" if stub else "call",
        "reason": plan.stubs[shared].why if shared >= 0 else None,
        "target": plan.target.name,
        "distance": int(plan.distance[at]),
        "new_words": [f"0x{word:08x}" for word in plan.new_words[at].tolist()],
        "record_fate": dropping.FATES[plan.dropping.way] if plan.table.row[index] >= 0 else "none",
        "literal": plan.ops.name if plan.ops and plan.ops_via == "literal" else None,
        "stub": f"0x{stub:016x}" if stub else None,
        "concurrency": "pair" if plan.new_words.shape[1] > 1 else "single",
    }


def _left(plan: Plan, index: int) -> dict[str, Any]:
    """The fields of a chosen site that stays as it is."""
    nothing = dict.fromkeys(("target", "distance", "literal", "stub", "concurrency"))
    return {
        "action": "keep", "reason": plan.reasons.get(index), "new_words": [], **nothing,
        "record_fate": dropping.FATES[plan.dropping.way] if _left_too(plan, index) else "kept",
    }  # fmt: skip


def _left_too(plan: Plan, index: int) -> bool:
    """Whether the record of a site that stays as it is leaves the table all the same."""
    row = int(plan.table.row[index])
    return row >= 0 and bool(plan.gone[row])


def edit_rows(edits: Edits, table: SiteTable) -> list[dict[str, Any]]:
    """One object per edit, in file order; `owner` says whose bytes they are."""
    return [
        {"pos": pos, "old": old.hex(), "new": new.hex(), "owner": _owner(kind, number, table)}
        for pos, old, new, kind, number in edits
    ]


def _owner(kind: str, number: int, table: SiteTable) -> str:
    if kind in ("site", "stub", "literal"):
        row = int(table.row[number])
        return f"{kind} row:{row}" if row >= 0 else f"{kind} {table.name(number)}"
    return {"record": f"record slot:{number}", "relocation": f"relocation row:{number}", "thunk": f"stub {number}",
            "bound": "end of the record table in ftrace_init", "symbol": f"symbol row:{number}"}[kind]  # fmt: skip
