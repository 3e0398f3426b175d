"""From tables to the rows and objects of a report: the only place that knows the field names of the interface."""

from __future__ import annotations

from typing import Any

import numpy as np

from ftpatch import dropping
from ftpatch.api import Output, Scan
from ftpatch.edits import Edits
from ftpatch.elf.tables import Mask
from ftpatch.plan import Plan
from ftpatch.sites import STATUSES, SiteTable
from ftpatch.summary import summary

SITE_FIELDS = (
    "row", "record", "section", "shndx", "function", "aliases", "entry", "local_entry", "site", "branch",
    "offset", "pos", "words", "status",
)  # fmt: skip
WRITING_FIELDS = (
    "action", "reason", "target", "distance", "new_words", "record_fate", "literal", "stub", "concurrency",
)  # fmt: skip
NULL_RECORD = "0x" + "0" * 16


def image_object(
    scan: Scan, chosen: Mask | None = None, sha256: str | None = None, with_sites: bool = True
) -> dict[str, Any]:
    """The IMAGE object of a scan; `chosen` filters `sites`, never the summary."""
    image, table = scan.image, scan.table
    mask = np.ones(len(table), dtype=bool) if chosen is None else chosen
    return {
        "file": image.path,
        "sha256": sha256,
        "build_id": image.build_id,
        "arch": scan.arch.name,
        "kind": image.kind,
        "layout": table.shape.name if table.shape else "none",
        "carrier": scan.records.carrier,
        "summary": summary(image, scan.arch, scan.records, table),
        "sites": site_rows(table, mask) if with_sites else [],
    }


def site_rows(table: SiteTable, mask: Mask) -> list[dict[str, Any]]:
    """One object per marked site, in table order."""
    index = np.flatnonzero(mask)
    linked = table.image.linked
    base = np.zeros(len(table), np.uint64) if linked else table.image.va(table.sec, np.zeros(len(table), np.int64))
    columns = {
        "record": table.va - base, "entry": table.entry_va - base,
        "site": table.body_va - base, "branch": table.branch_va - base,
    }  # fmt: skip
    texts = {key: [f"0x{value:016x}" for value in column[index].tolist()] for key, column in columns.items()}
    rows, secs, status = table.row[index].tolist(), table.sec[index].tolist(), table.status[index].tolist()
    offsets, positions = (table.off + table.site)[index].tolist(), table.pos[index].tolist()
    found = []
    for i, site in enumerate(index.tolist()):  # a report is one Python object per site
        known = secs[i] >= 0
        found.append(
            {
                "row": rows[i] if rows[i] >= 0 else None,
                "record": texts["record"][i] if known else NULL_RECORD,
                "section": table.image.names[secs[i]] if known else None,
                "shndx": secs[i] if known else None,
                "function": table.name(site),
                "aliases": table.aliases(site),
                "entry": texts["entry"][i] if known else None,
                "local_entry": texts["entry"][i] if known else None,
                "site": texts["site"][i] if known else None,
                "branch": texts["branch"][i] if known else None,
                "offset": f"0x{offsets[i]:x}" if known else None,
                "pos": positions[i] if known and positions[i] >= 0 else None,
                "words": table.words_text(site),
                "status": STATUSES[status[i]],
            }
        )
    return found


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
