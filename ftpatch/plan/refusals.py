"""Why a chosen site cannot be changed: one function per kind of obstacle, each adding reasons to a draft.

The first reason against a site stands. A site with a reason is left out, or refuses the whole request.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, Mask
from ftpatch.elf.identity import linker_stubs
from ftpatch.elf.relocations import Relocations, relocations_of, touched, touching
from ftpatch.errors import PolicyError, ReachError
from ftpatch.plan.ool_slots import Slots
from ftpatch.plan.request import Draft
from ftpatch.plan.routes import Routes, distances
from ftpatch.plan.targets import Target
from ftpatch.sites.table import ENABLED, HALF, LEFTOVER, NULL, OUTSIDE, READY, SiteTable

WHY_NOT = {
    ENABLED: "already enabled",
    HALF: "half enabled: the first word is rewritten, the call is missing",
    NULL: "a null slot names no function",
    OUTSIDE: "the record points outside the text of this file",
}
OTHER = "unexpected words, or not at a function's entry"
SHARED = "several records name this site"
NO_RECORD = "it has no record"
NOT_ENABLED = "not enabled"
OUT_OF_REACH = "out of reach"
N_SAMPLES = 3


def refuse_unless_skipped(draft: Draft) -> None:
    """Refuse the whole request where some site stands in the way, unless the user allows to leave it out.

    One error for all such sites; its `details` list every one.
    """
    if not draft.reasons or draft.request.skip_unpatchable:
        return
    lines = [f"{_label(draft.sites, i)}: {reason}" for i, reason in sorted(draft.reasons.items())]
    reach = all(reason.startswith(OUT_OF_REACH) for reason in draft.reasons.values())
    raise (ReachError if reach else PolicyError)(
        f"{len(draft.reasons)} of {int(draft.request.chosen.sum())} chosen sites cannot be patched", draft.image.path,
        found="; ".join(lines[:N_SAMPLES]) + ("; …" if len(lines) > N_SAMPLES else ""),
        expected="all of them, or nothing is written",
        todo="--skip-unpatchable patches the others", details=tuple(lines),
    )  # fmt: skip


def _label(sites: SiteTable, index: int) -> str:
    row = int(sites.row[index])
    place = sites.place_text(index)
    return f"{sites.name(index) or 'unnamed site'} ({f'row {row}' if row >= 0 else 'no record'}, {place})"


# -- the state of sites and records ------------------------------------------------------------------------------------


def refuse_wrong_states(draft: Draft) -> None:
    """Sites whose state, or whose record's state, forbids a patch."""
    sites, records, chosen = draft.sites, draft.records, draft.request.chosen
    for i in np.flatnonzero(chosen & (sites.status != READY) & (sites.status != LEFTOVER)).tolist():
        draft.reasons[i] = WHY_NOT.get(int(sites.status[i]), OTHER)
    if draft.arch.echoes and not records.in_sections:
        # The kernel may read either of the two, so that a record must leave both.
        odd = np.zeros(len(sites), dtype=bool)
        lone = (records.rela < 0) & (records.carrier == "mixed")
        odd[: len(records)] = (records.word != records.value) | lone
        for i in np.flatnonzero(chosen & odd).tolist():
            draft.reasons.setdefault(i, "its record's word and relocation disagree")


def refuse_duplicate_records(draft: Draft) -> None:
    """Sites that another live record names too: that record would stay, or leave its site twice."""
    for i in np.flatnonzero(draft.request.chosen & _shared(draft.sites)).tolist():
        draft.reasons.setdefault(i, SHARED)


def _shared(sites: SiteTable) -> Mask:
    """Sites that several records name."""
    known = np.flatnonzero((sites.sec >= 0) & (sites.row >= 0))
    site, times = np.unique(sites.body_va[known], return_counts=True)
    shared: Mask = np.isin(sites.body_va, site[times > 1]) & (sites.sec >= 0)
    return shared


def refuse_without_record(draft: Draft) -> None:
    """Sites that have no record to drop."""
    lone = np.flatnonzero(draft.request.chosen & ((draft.sites.row < 0) | (draft.sites.status == NULL)))
    draft.reasons.update(dict.fromkeys(lone.tolist(), NO_RECORD))


def refuse_not_enabled(draft: Draft) -> None:
    """Sites that are not enabled; where the sites of a layout are calls in the file, those count as enabled."""
    states = (ENABLED, HALF, *((READY,) if draft.shape.called else ()))
    for i in np.flatnonzero(draft.request.chosen & ~np.isin(draft.sites.status, states)).tolist():
        state = int(draft.sites.status[i])
        draft.reasons[i] = NOT_ENABLED if state == READY else WHY_NOT.get(state, OTHER)


# -- what lies around a site -------------------------------------------------------------------------------------------


def refuse_overlaps(draft: Draft, with_literal: bool) -> None:
    """Sites that share words with another one: what the first writes is not what the second finds.

    with_literal: whether the pointer in front of a site is written, too.
    """
    sites, shape = draft.sites, draft.shape
    mine = np.zeros(len(sites), dtype=bool)
    mine[draft.open()] = True
    # A site that stays must find its words, too: the kernel looks at every record at boot.
    index = np.flatnonzero(mine | ((sites.row >= 0) & np.isin(sites.status, (READY, ENABLED)) & ~draft.request.chosen))
    start = sites.off[index] + sites.site[index]
    end = start + 4 * len(shape.old)
    if with_literal and shape.literal is not None:
        start = np.where(mine[index], np.minimum(start, sites.off[index] + shape.literal), start)
    order = np.lexsort((start, sites.sec[index]))
    near = (sites.sec[index][order][1:] == sites.sec[index][order][:-1]) & (start[order][1:] < end[order][:-1])
    for at in np.flatnonzero(near).tolist():
        pair = index[order[at : at + 2]].tolist()
        other = "another chosen site" if mine[pair].all() else "a site that stays"
        draft.reasons |= {i: f"it shares words with {other}" for i in pair if mine[i]}


def refuse_full_literals(draft: Draft) -> None:
    """Sites whose eight bytes in front cannot take a pointer; none where the layout has no pointer there."""
    literal, index = draft.shape.literal, draft.open()
    if literal is None or not len(index):
        return
    image, sec, off = draft.image, draft.sites.sec[index], draft.sites.off[index] + literal
    full = ~draft.shape.old[0].matches(image.words(sec, off, 0, 2)).all(axis=1)
    if image.linked:
        va = draft.sites.va[index] + np.uint64(literal)
        odd, moved = va % np.uint64(8) != 0, image.relocated(va, 8)
    else:
        odd = (off % 8 != 0) | (image.shdr["sh_addralign"][sec] % np.uint64(8) != 0)
        moved = np.zeros(len(index), dtype=bool)
        for one in np.unique(sec).tolist():
            moved[sec == one] = touched(relocations_of(image, one), off[sec == one], 8)
    for bad, why in ((odd, "is not 8-byte aligned"), (moved, "has a relocation"), (full, "is not empty")):
        for at in np.flatnonzero(bad).tolist():
            place = f"{int(va[at]):#x}" if image.linked else f"{image.names[sec[at]]}+{int(off[at]):#x}"
            draft.reasons.setdefault(int(index[at]), f"its ops literal at {place} {why}")


def refuse_relocated(draft: Draft) -> None:
    """Sites of a module with a relocation on their words, other than the call that the layout itself has."""
    sites, shape, index = draft.sites, draft.shape, draft.open()
    for sec in np.unique(sites.sec[index]).tolist():
        mine = index[sites.sec[index] == sec]
        rows = relocations_of(draft.image, sec)
        start = sites.off[mine] + sites.site[mine]
        if not shape.called:
            for i in mine[touched(rows, start, 4 * len(shape.old))].tolist():
                draft.reasons[i] = "a relocation writes into its words"
            continue
        for i in mine[~_called(draft, rows, start)].tolist():
            draft.reasons[i] = f"its call has no single relocation to {shape.called}"


def _called(draft: Draft, rows: Relocations, start: I64) -> Mask:
    """Whether nothing but one call of the layout's function is relocated at each site. start: offsets of the calls."""
    assert draft.arch.modules is not None
    right = np.isin(rows.symbol, draft.image.symbols.rows_named(draft.shape.called))
    calls = rows.off[right & (rows.kind == draft.arch.modules.branch)]
    return np.asarray((touching(rows, start, 4) == 1) & np.isin(start, calls))


def refuse_other_relocations(draft: Draft) -> None:
    """Enabled sites of a module into which more relocations write than that of the call."""
    sites, shape = draft.sites, draft.shape
    placed = draft.request.chosen & (sites.sec >= 0)
    for sec in np.unique(sites.sec[placed]).tolist():
        mine = np.flatnonzero(placed & (sites.sec == sec))
        rows, start = relocations_of(draft.image, sec), sites.off[mine] + sites.site[mine]
        branch = start + 4 * (len(shape.new) - 1)
        calls = np.searchsorted(rows.off, branch, side="right") - np.searchsorted(rows.off, branch)
        for i in mine[touching(rows, start, 4 * len(shape.old)) > calls].tolist():
            draft.reasons.setdefault(i, "a relocation beside that of its call writes into its words")


# -- when it runs, and how far its call reaches ------------------------------------------------------------------------


def refuse_sites_too_early(draft: Draft, target: Target, force: bool) -> None:
    """Sites that run before the boot CPU has the structure that the target reads."""
    far, image, sites = draft.arch.far, draft.image, draft.sites
    if far is None or (not target.own and target.entry.kernel_toc is None):
        return
    start, ready = image.symbols.value(far.start), image.symbols.value(far.ready)
    early = {va for name in far.early if (va := image.symbols.value(name)) is not None}
    if start is None or ready is None:
        draft.remarks.append(f"what runs before the paca exists is not known: no {far.start} or no {far.ready} here")
    else:
        through = {va: image.symbols.value(name) for va, name in linker_stubs(image).items()}
        walked, why = far.runs_before(image.code, lambda va: through.get(va) or va, start, ready)
        early |= walked
        if why:
            draft.remarks.append(f"what runs before the paca exists is not fully known: {why}")
    at = np.array(sorted(early), dtype=np.uint64)
    hits = np.flatnonzero(draft.request.chosen & (np.isin(sites.entry_va, at) | np.isin(sites.local_va, at)))
    why = f"before {far.ready} is done, when {target.name} finds no paca"
    if force and len(hits):
        draft.remarks.append(f"forced: {len(hits)} sites run {why}")
        return
    for i in hits.tolist():
        draft.reasons.setdefault(i, f"it runs {why} (--force-early overrides)")


def refuse_out_of_reach(draft: Draft, target: Target, slots: Slots | None, routes: Routes) -> None:
    """Sites whose branch, or whose stub's call, does not reach; with the distances to everything that was tried."""
    index, arch = draft.open(), draft.arch
    call_va = draft.sites.branch_va[index]
    if slots is not None and arch.site_stub is not None:
        for i in index[slots.va == 0].tolist():
            draft.reasons[i] = f"{OUT_OF_REACH}: no free stub slot that its branch reaches"
        call_va = slots.va + np.uint64(slots.literal + arch.site_stub.call_at)
    distance = distances(call_va, routes.call_to)
    for at in np.flatnonzero(~arch.call.reaches(distance)).tolist():
        others = "".join(f", {int(stub.va) - int(call_va[at]):+#x} to {stub.name}" for stub in routes.tried)
        draft.reasons.setdefault(
            int(index[at]),
            f"{OUT_OF_REACH}: {distance[at]:+#x} bytes to {target.name}{others}, "
            f"a call spans {arch.call.low:+#x}..{arch.call.high:+#x}",
        )
