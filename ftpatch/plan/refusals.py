"""Why a chosen site cannot be patched: one function per kind of obstacle, each adding reasons to a draft.

The first reason against a site stands. A site with a reason is left out, or refuses the whole request.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import Mask
from ftpatch.elf.identity import linker_stubs
from ftpatch.errors import PlanError, PolicyError, ReachError
from ftpatch.plan import routes as trampolines
from ftpatch.plan.ool_slots import Slots
from ftpatch.plan.request import Draft
from ftpatch.plan.routes import Routes
from ftpatch.sites.table import ENABLED, HALF, LEFTOVER, NULL, OUTSIDE, READY, SiteTable

WHY_NOT = {
    ENABLED: "already enabled",
    HALF: "half enabled: the first word is rewritten, the call is missing",
    NULL: "a null slot names no function",
    OUTSIDE: "the record points outside the text of this file",
}
OTHER = "unexpected words, or not at a function's entry"
SHARED = "several records name this site"
OUT_OF_REACH = "out of reach"
N_SAMPLES = 3


def by_status(draft: Draft) -> None:
    """Reasons of the chosen sites whose state, or whose record's state, forbids a patch."""
    table, records = draft.table, draft.records
    bad = np.flatnonzero(draft.request.chosen & (table.status != READY) & (table.status != LEFTOVER))
    for i in bad.tolist():
        draft.reasons[i] = WHY_NOT.get(int(table.status[i]), OTHER)
    if draft.arch.echoes and not records.in_sections:
        odd = np.zeros(len(table), dtype=bool)
        lone = (records.rela < 0) & (records.carrier == "mixed")
        odd[: len(records)] = (records.word != records.value) | lone
        for i in np.flatnonzero(draft.request.chosen & odd).tolist():
            draft.reasons.setdefault(i, "its record's word and relocation disagree")


def by_company(draft: Draft) -> None:
    """Sites that another live record names too: that record would stay, or leave its site twice."""
    for i in np.flatnonzero(draft.request.chosen & shared(draft.table)).tolist():
        draft.reasons.setdefault(i, SHARED)


def shared(table: SiteTable) -> Mask:
    """Sites that several records name."""
    known = np.flatnonzero((table.sec >= 0) & (table.row >= 0))
    site, times = np.unique(table.body_va[known], return_counts=True)
    found: Mask = np.isin(table.body_va, site[times > 1]) & (table.sec >= 0)
    return found


def by_overlap(draft: Draft, literal: bool) -> None:
    """Sites that share words with another chosen one: what the first writes is not what the second finds.

    literal: whether the pointer in front of a site is written, too.
    """
    table, shape, index = draft.table, draft.shape, draft.open()
    start = table.off[index] + table.site[index]
    end = start + 4 * len(shape.old)
    if literal and shape.literal is not None:
        start = np.minimum(start, table.off[index] + shape.literal)
    order = np.lexsort((start, table.sec[index]))
    near = (table.sec[index][order][1:] == table.sec[index][order][:-1]) & (start[order][1:] < end[order][:-1])
    for at in np.flatnonzero(near).tolist():
        for i in index[order[at : at + 2]].tolist():
            draft.reasons[i] = "it shares words with another chosen site"


def by_time(draft: Draft) -> None:
    """Sites that run before the boot CPU has the structure that the target reads."""
    far, image = draft.arch.far, draft.image
    if far is None or (not draft.target.own and draft.target.entry.kernel_toc is None):
        return
    start, ready = image.symbols.value(far.start), image.symbols.value(far.ready)
    early = {va for name in far.early if (va := image.symbols.value(name)) is not None}
    if start is None or ready is None:
        draft.remarks.append(f"what runs before the paca exists is not known: no {far.start} or no {far.ready} here")
    else:
        through = {va: image.symbols.value(name) for va, name in linker_stubs(image).items()}
        found, why = far.runs_before(image.code, lambda va: through.get(va) or va, start, ready)
        early |= found
        if why:
            draft.remarks.append(f"what runs before the paca exists is not fully known: {why}")
    at = np.array(sorted(early), dtype=np.uint64)
    table = draft.table
    hits = np.flatnonzero(draft.request.chosen & (np.isin(table.entry_va, at) | np.isin(table.local_va, at)))
    why = f"before {far.ready} is done, when {draft.target.name} finds no paca"
    if draft.request.force_early and len(hits):
        draft.remarks.append(f"forced: {len(hits)} sites run {why}")
        return
    for i in hits.tolist():
        draft.reasons.setdefault(i, f"it runs {why} (--force-early overrides)")


def by_reach(draft: Draft, placed: Slots | None, routes: Routes) -> None:
    """Sites whose branch, or whose stub's call, does not reach; with the distances to everything that was tried."""
    index, arch = draft.open(), draft.arch
    call_va = draft.table.branch_va[index]
    if placed is not None and arch.site_stub is not None:
        for i in index[placed.va == 0].tolist():
            draft.reasons[i] = f"{OUT_OF_REACH}: no free stub slot that its branch reaches"
        call_va = placed.va + np.uint64(placed.literal + arch.site_stub.call_at)
    distance = trampolines.distances(call_va, routes.aim)
    for at in np.flatnonzero(~arch.call.reaches(distance)).tolist():
        others = "".join(f", {int(stub.va) - int(call_va[at]):+#x} to {stub.name}" for stub in routes.tried)
        draft.reasons.setdefault(
            int(index[at]),
            f"{OUT_OF_REACH}: {distance[at]:+#x} bytes to {draft.target.name}{others}, "
            f"a call spans {arch.call.low:+#x}..{arch.call.high:+#x}",
        )


def by_literal(draft: Draft, literal: int) -> None:
    """Sites whose eight bytes in front cannot take a pointer."""
    image, table, index = draft.image, draft.table, draft.open()
    if not len(index):
        return
    va = table.va[index] + np.uint64(literal)
    words = image.words(table.sec[index], table.off[index] + literal, 0, 2)
    moved = image.relocated(va, 8)
    full = ~draft.shape.old[0].matches(words).all(axis=1)
    for bad, why in ((va % 8 != 0, "is not 8-byte aligned"), (moved, "has a relocation"), (full, "is not empty")):
        for i, at in zip(index[bad].tolist(), va[bad].tolist(), strict=True):
            draft.reasons.setdefault(i, f"its ops literal at {at:#x} {why}")


def unpatchable(table: SiteTable, chosen: Mask, reasons: dict[int, str]) -> PlanError:
    """One error for all sites that stand in the way; its `details` list every one."""
    lines = [f"{_label(table, i)}: {reason}" for i, reason in sorted(reasons.items())]
    reach = all(reason.startswith(OUT_OF_REACH) for reason in reasons.values())
    return (ReachError if reach else PolicyError)(
        f"{len(reasons)} of {int(chosen.sum())} chosen sites cannot be patched", table.image.path,
        found="; ".join(lines[:N_SAMPLES]) + ("; …" if len(lines) > N_SAMPLES else ""),
        expected="all of them, or nothing is written",
        todo="--skip-unpatchable patches the others", details=tuple(lines),
    )  # fmt: skip


def _label(table: SiteTable, index: int) -> str:
    row = int(table.row[index])
    place = table.place_text(index)
    return f"{table.name(index) or 'unnamed site'} ({f'row {row}' if row >= 0 else 'no record'}, {place})"
