"""What a writing command adds to the objects of a scan: what becomes of each chosen site, every edit and its owner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from ftpatch.arrays import Mask
from ftpatch.document.rows import image_object
from ftpatch.document.text_sections import added_text_sections, text_sections
from ftpatch.journal.packing import packing_object
from ftpatch.plan import liveness
from ftpatch.plan.plan import RECORD_OUTCOMES, Plan
from ftpatch.plan.recording import Recording
from ftpatch.plan.request import RedirectRequest
from ftpatch.write.deliver import Output

if TYPE_CHECKING:
    from ftpatch.document.site_rows import SiteChange
    from ftpatch.document.types import ImageObject
    from ftpatch.document.written import EditRow, LiveObject, RequestObject

LOADED: Final = "load-only"  # the class of edits of what is not code, or not yet loaded


def plan_object(plan: Plan, output: Output | None, sha256: str | None, shown: int | None = None) -> ImageObject:
    """The IMAGE object of a writing command: the chosen sites with what happens to them, and every edit.

    shown: only that many of the patched sites and of those that stay, and no edits: enough for a text report.
    """
    if plan.verb == "static-calls":
        return _settings_object(plan, output, sha256, shown)
    if plan.recording is not None:
        return _recording_object(plan, plan.recording, output, sha256, shown)
    scan, summary = plan.scan, plan.summary
    chosen = plan.chosen if shown is None else _first(plan, shown)
    report = image_object(scan, chosen, sha256)
    answer = liveness.answer(plan).answer
    at = {site: row for row, site in enumerate(plan.index.tolist())}  # row of the plan's columns, by site
    report["sites"] = [
        {**site, **(_changed(plan, at[index], answer) if index in at else _left(plan, index))}
        for index, site in zip(np.flatnonzero(chosen).tolist(), report["sites"], strict=True)
    ]
    report["request"] = {
        "target": summary.target, "target_va": None if summary.target_va is None else f"0x{summary.target_va:016x}",
        "ops": summary.ops, "ops_via": summary.ops_via, "records": summary.records, "records_why": summary.records_why,
    }  # fmt: skip
    if plan.asked is not None:
        _add_redirect(report["request"], plan, plan.asked, shown)
    if plan.forced_target:
        report["request"]["forced_target"] = True
    _add_result(report, plan, output, sha256, shown)
    return report


def _settings_object(plan: Plan, output: Output | None, sha256: str | None, shown: int | None) -> ImageObject:
    """The IMAGE object of `static-calls --set`: the keys with what they call, and every edit; no site of the tracer."""
    from ftpatch.document.files import file_object
    from ftpatch.document.static_call_rows import Asked, static_calls_object
    from ftpatch.sites.static_calls import read_static_calls

    table = read_static_calls(plan.scan.image)
    named = np.isin(np.array(table.keys.name, dtype=object), [call.key for call in plan.set_calls])
    report = cast("ImageObject", {
        **file_object(plan.scan.image, sha256), "static_calls": static_calls_object(table, Asked(named)),
        "set_calls": [
            {"key": call.key, "was": call.was, "to": call.to, "to_va": f"0x{call.va:016x}" if call.va else None,
             "sites": call.sites, "signature": call.signature, "left": call.left}
            for call in plan.set_calls
        ],
    })  # fmt: skip
    _add_result(report, plan, output, sha256, shown)
    left = sum(call.left is not None for call in plan.set_calls)
    report["done"]["patched"], report["done"]["left"] = len(plan.set_calls) - left, left
    return report


def _recording_object(
    plan: Plan, done: Recording, output: Output | None, sha256: str | None, shown: int | None
) -> ImageObject:  # fmt: skip
    """The IMAGE object of `record`: the records that came, what left and what was mended, and every edit."""
    from ftpatch.document.files import file_object

    names = plan.scan.image.names
    sections, n_of = np.unique(done.sec, return_counts=True)
    by_section: dict[str, int] = {}
    for sec, n in zip(sections.tolist(), n_of.tolist(), strict=True):
        by_section[names[sec]] = by_section.get(names[sec], 0) + n
    rows = list(zip(done.names, done.sec.tolist(), done.off.tolist(), strict=True))
    report = cast("ImageObject", {
        **file_object(plan.scan.image, sha256), "recorded": {
            "section": done.section, "section_why": done.why, "layout": done.layout, "added": len(rows),
            "kept": done.kept, "dropped": done.n_dropped, "by_section": by_section, "made": done.made,
            "functions": [
                {"function": name or None, "section": names[sec], "shndx": sec, "offset": f"0x{off:x}"}
                for name, sec, off in (rows if shown is None else rows[:shown])
            ],
            "lost": list(done.dropped), "repairs": list(done.repairs), "nops": list(done.nops),
            "left": [{"function": name, "reason": why} for name, why in done.left.items()],
        },
    })  # fmt: skip
    _add_result(report, plan, output, sha256, shown)
    report["done"]["patched"], report["done"]["left"] = len(rows), len(done.left)
    return report


def _add_result(
    report: ImageObject, plan: Plan, output: Output | None, sha256: str | None, shown: int | None
) -> None:  # fmt: skip
    """What every writing command says of its result, and by what it can be undone."""
    scan = plan.scan
    report["notes"] = [*plan.warnings, *plan.notes]
    report["output"] = None if output is None else {
        "file": output.path, "sha256": output.sha256, "elf_sha256": output.elf_sha256,
    }  # fmt: skip
    report["done"] = {
        "patched": len(plan.index), "left": int(plan.chosen.sum()) - len(plan.index),
        "edits": len(plan.edits), "bytes": plan.edits.n_bytes(),
    }  # fmt: skip
    report["live"] = live_object(plan)
    report["size"] = len(scan.image.data)
    # it costs a compression
    report["packing"] = packing_object(scan.image, sha256, output.layers) if output and sha256 else None
    if shown is None and "text_sections" not in report:
        report["text_sections"] = text_sections(scan.image)
    if shown is None and (added := added_text_sections(scan.image, plan.edits.tail)):
        report["new_text_sections"] = added
    report["edits"] = EditRows(plan, output.trailer if output else b"") if shown is None else []


def live_object(plan: Plan) -> LiveObject:
    """Whether the plan's edits could be made on a running system."""
    live = liveness.answer(plan)
    return {"answer": live.answer, "text": live.text, "steps": list(live.steps)}


def _add_redirect(request: RequestObject, plan: Plan, asked: RedirectRequest, shown: int | None) -> None:
    """What a redirect's request has besides what every request has."""
    sites = plan.scan.sites
    request["redirects"] = [
        {"function": sites.name(site), "to": to.name, "signature": to.signature}
        for site, to in list(zip(plan.index.tolist(), plan.redirects, strict=True))[:shown]
    ]
    request["with"] = None if asked.patch is None else asked.patch.path
    request["keep_original"] = ", ".join(dict.fromkeys(asked.keep_original.values())) or None
    if asked.force_signature:
        request["forced_signature"] = True
    if asked.assume_register_args:
        request["assumed_register_args"] = True


def _first(plan: Plan, shown: int) -> Mask:
    """The first few of the patched sites and of those that stay: all that a text report names."""
    mask = np.zeros(len(plan.chosen), dtype=bool)
    mask[plan.index[:shown]] = True
    mask[np.setdiff1d(np.flatnonzero(plan.chosen), plan.index)[:shown]] = True
    return mask


def _changed(plan: Plan, at: int, answer: str) -> SiteChange:
    """The fields of a site that changes. at: its row in the plan's columns."""
    return {
        "action": plan.action(at), "reason": plan.stub_why[at] or None,
        "target": plan.redirects[at].name if plan.redirects else plan.summary.target or None,
        "distance": None if plan.distance is None else int(plan.distance[at]),
        "new_words": plan.scan.arch.code_words(plan.new_words[at]), "record_fate": plan.record[at],
        "literal": plan.summary.literal, "stub": plan.stub[at] or None, "concurrency": plan.concurrency(at),
        "live": answer,
    }  # fmt: skip


def _left(plan: Plan, index: int) -> SiteChange:
    """The fields of a chosen site that stays as it is, whose record may leave with those of others."""
    row = int(plan.scan.sites.row[index])
    gone = row >= 0 and bool(plan.gone[row])
    return {
        "action": "keep", "reason": plan.reasons.get(index), "new_words": [], "target": None, "distance": None,
        "literal": None, "stub": None, "concurrency": None, "live": None,
        "record_fate": RECORD_OUTCOMES[plan.summary.records] if gone else "kept",
    }  # fmt: skip


class EditRows(Sequence["EditRow"]):
    """One object per edit, in file order; `owner` says whose bytes they are. Each is made when it is asked for: those
    of a kernel would take hundreds of megabytes.

    What exists only before (an appended signature) or only after (the grown part, a new signature) has an empty other
    side.
    """

    def __init__(self, plan: Plan, signature: bytes) -> None:
        """signature: the new one."""
        self._plan, self._signature = plan, signature

    def __len__(self) -> int:
        return len(self._plan.edits) + bool(self._plan.scan.image.trailer) + bool(self._signature)

    def __iter__(self) -> Iterator[EditRow]:
        image, edits = self._plan.scan.image, self._plan.edits
        size, cut = len(image.data), image.trailer
        for concurrency, (pos, old, new, kind, number) in zip(liveness.of_plan(self._plan), edits, strict=True):
            yield {"pos": pos, "old": old.hex(), "new": new.hex(), "owner": _owner(kind, number, self._plan),
                   "concurrency": concurrency}  # fmt: skip
        if cut:
            yield {"pos": size, "old": cut.hex(), "new": "", "owner": "signature", "concurrency": LOADED}
        for piece in edits.tail:
            yield {"pos": piece.pos, "old": "", "new": piece.new.hex(), "owner": piece.owner, "concurrency": LOADED}
        if self._signature:
            end = size + len(edits.grown)
            yield {"pos": end, "old": "", "new": self._signature.hex(), "owner": "signature", "concurrency": LOADED}

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]


def _owner(kind: str, number: int, plan: Plan) -> str:
    sites = plan.scan.sites
    if kind == "call" and plan.recording is not None:
        return f"call {plan.recording.nops[number]}"
    if kind in ("key", "trampoline"):
        return f"{kind} {plan.key_names[number]}"
    if kind in ("site", "pad", "stub", "literal"):
        row = int(sites.row[number])
        return f"{kind} row:{row}" if row >= 0 else f"{kind} {sites.name(number) or sites.place_text(number)}"
    return {"record": f"record slot:{number}", "relocation": f"relocation row:{number}", "thunk": f"stub {number}",
            "bound": "end of the record table in ftrace_init", "symbol": f"symbol row:{number}",
            "header": "ELF header"}[kind]  # fmt: skip
