"""What a writing command adds to the objects of a scan: each chosen site's fate, and every edit with its owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ftpatch.arrays import Mask
from ftpatch.container.envelope import Contents
from ftpatch.container.pack import encoder_of
from ftpatch.document.rows import image_object
from ftpatch.elf.image import Image
from ftpatch.plan.edits import Edits
from ftpatch.plan.outcome import FATES
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import SiteTable
from ftpatch.write.deliver import Output

if TYPE_CHECKING:
    from ftpatch.write.deliver import Decided


def plan_object(
    scan: Scan, plan: Decided, output: Output | None, sha256: str | None, shown: int | None = None
) -> dict[str, Any]:
    """The IMAGE object of a writing command: the chosen sites with what happens to them, and every edit.

    shown: only that many of the patched sites and of those that stay, and no edits: enough for a text report.
    """
    chosen = plan.chosen if shown is None else _first(plan, shown)
    found = image_object(scan, chosen, sha256)
    at = {site: row for row, site in enumerate(plan.index.tolist())}  # row of the plan's columns, by site
    for index, site in zip(np.flatnonzero(chosen).tolist(), found["sites"], strict=True):
        site.update(_patched(plan, at[index], index) if index in at else _left(plan, index))
    settled = plan.settled
    found["request"] = {
        "target": settled.target, "target_va": _address(settled.target_va), "ops": settled.ops,
        "ops_via": settled.ops_via, "records": settled.records, "records_why": settled.records_why,
    }  # fmt: skip
    found["notes"] = [*plan.warnings, *plan.notes]
    found["output"] = output and {
        "file": output.path, "sha256": output.sha256, "elf_sha256": output.elf_sha256,
    }  # fmt: skip
    found["done"] = {
        "patched": len(plan.index), "left": int(plan.chosen.sum()) - len(plan.index),
        "edits": len(plan.edits), "bytes": plan.edits.n_bytes(),
    }  # fmt: skip
    found["size"] = len(scan.image.data)
    found["packing"] = _packing(scan.image, sha256) if output and sha256 else None  # it costs a compression
    signed = output.trailer if output else b""
    found["edits"] = edit_rows(plan.edits, plan.table, scan.image.trailer, signed) if shown is None else []
    return found


def _packing(image: Image, sha256: str) -> dict[str, Any]:
    """How the input comes back byte for byte: what compresses it to the same bytes, or else these bytes themselves."""
    from base64 import b64encode
    from hashlib import sha256 as sha256_of

    contents = Contents(image.data, image.raw, image.mode, image.wrapping, image.trailer)
    found: dict[str, Any] = {"wrapping": image.wrapping, "encoder": encoder_of(contents), "plain_sha256": sha256}
    if image.wrapping != "none":
        plain = sha256_of(image.data.data)
        plain.update(image.trailer)
        found["plain_sha256"] = plain.hexdigest()
    if found["encoder"] is None:
        found["original"] = b64encode(image.raw.data).decode()
    return found


def _first(plan: Decided, shown: int) -> Mask:
    """The first few of the patched sites and of those that stay: all that a text report names."""
    mask = np.zeros(len(plan.table), dtype=bool)
    mask[plan.index[:shown]] = True
    mask[np.setdiff1d(np.flatnonzero(plan.chosen), plan.index)[:shown]] = True
    return mask


def _address(va: int | None) -> str | None:
    return None if va is None else f"0x{va:016x}"


def _patched(plan: Decided, at: int, index: int) -> dict[str, Any]:
    """The fields of a site that gets a call. at: its row in the plan's columns; index: in the site table."""
    fate = plan.fate(at)
    return {
        "action": fate.action,
        "reason": fate.reason,
        "target": fate.target,
        "distance": fate.distance,
        "new_words": [f"0x{word:08x}" for word in plan.new_words[at].tolist()],
        "record_fate": fate.record or (FATES[plan.settled.records] if plan.table.row[index] >= 0 else "none"),
        "literal": fate.literal,
        "stub": fate.stub,
        "concurrency": (None, "single", "pair")[plan.new_words.shape[1]],
    }


def _left(plan: Decided, index: int) -> dict[str, Any]:
    """The fields of a chosen site that stays as it is."""
    nothing = dict.fromkeys(("target", "distance", "literal", "stub", "concurrency"))
    return {
        "action": "keep", "reason": plan.reasons.get(index), "new_words": [], **nothing,
        "record_fate": FATES[plan.settled.records] if _left_too(plan, index) else "kept",
    }  # fmt: skip


def _left_too(plan: Decided, index: int) -> bool:
    """Whether the record of a site that stays as it is leaves the table all the same."""
    row = int(plan.table.row[index])
    return row >= 0 and bool(plan.gone[row])


def edit_rows(edits: Edits, table: SiteTable, cut: bytes = b"", signed: bytes = b"") -> list[dict[str, Any]]:
    """One object per edit, in file order; `owner` says whose bytes they are.

    What exists only before (`cut`, an appended signature) or only after (the grown part, a new signature) has an empty
    other side.
    """
    size = len(table.image.data)
    rows = [
        {"pos": pos, "old": old.hex(), "new": new.hex(), "owner": _owner(kind, number, table)}
        for pos, old, new, kind, number in edits
    ]
    rows += [{"pos": size, "old": cut.hex(), "new": "", "owner": "signature"}] if cut else []
    rows += [{"pos": one.pos, "old": "", "new": one.new.hex(), "owner": one.owner} for one in edits.tail]
    end = size + len(edits.grown)
    return rows + ([{"pos": end, "old": "", "new": signed.hex(), "owner": "signature"}] if signed else [])


def _owner(kind: str, number: int, table: SiteTable) -> str:
    if kind in ("site", "stub", "literal"):
        row = int(table.row[number])
        return f"{kind} row:{row}" if row >= 0 else f"{kind} {table.name(number)}"
    return {"record": f"record slot:{number}", "relocation": f"relocation row:{number}", "thunk": f"stub {number}",
            "bound": "end of the record table in ftrace_init", "symbol": f"symbol row:{number}",
            "header": "ELF header"}[kind]  # fmt: skip
