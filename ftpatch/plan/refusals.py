"""Why a chosen site cannot be changed: one function per kind of obstacle, each adding reasons to a draft.

A site with a reason is left out, or refuses the whole request.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.arrays import I64, Mask, distinct, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.code_lists import listed
from ftpatch.elf.identity import linker_stubs
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import Relocations, relocations_of, touched, touching
from ftpatch.errors import PolicyError, ReachError
from ftpatch.kernel.init_text import in_init_text
from ftpatch.plan.request import Draft
from ftpatch.plan.routes import Calls, distances
from ftpatch.plan.stub_room import why_guarded
from ftpatch.plan.targets import Target
from ftpatch.sites.callees import addresses_of
from ftpatch.sites.layout import require_still_shown
from ftpatch.sites.profiler_calls import knows
from ftpatch.sites.table import ENABLED, HALF, NULL, OUTSIDE, READY, UNEXPECTED, UNLISTED, UNRECORDED, UNTOUCHED

WHY_NOT = {
    ENABLED: "already enabled",
    HALF: "half enabled: the first word is rewritten, the call is missing",
    NULL: "a null slot names no function",
    OUTSIDE: "the record points outside the text of this file",
    UNRECORDED: "no record names its call, so that the kernel does not know the site (--unrecorded takes it)",
}
OTHER = "unexpected words, or not at a function's entry"
NOT_ENABLED = "not enabled"
# what to do where all chosen sites are refused for one reason, so that there are no others to patch
NOTHING_TO_DO = {
    WHY_NOT[ENABLED]: "there is nothing to do; ftpatch disable and restore are the ways back",
    NOT_ENABLED: "there is nothing to undo; ftpatch scan --sites --status enabled lists what is enabled",
}
OUT_OF_REACH = "out of reach"
NO_PLACE = ", no free padding for a stub"
N_SAMPLES, N_PLACES = 3, 4


def refuse_unless_skipped(draft: Draft) -> None:
    """Refuse the whole request where some site stands in the way, unless the user allows to leave it out.

    One error for all such sites; its `details` list every one.
    """
    if not draft.reasons or draft.request.skip_unpatchable:
        return
    sites, lines = draft.scan.sites, []
    for i, reason in sorted(draft.reasons.items()):
        row = f"row {int(sites.row[i])}" if sites.row[i] >= 0 else "no record"
        lines.append(f"{sites.name(i) or 'unnamed site'} ({row}, {sites.place_text(i)}): {reason}")
    reach = all(reason.startswith(OUT_OF_REACH) for reason in draft.reasons.values())
    n_chosen, reasons = int(draft.request.chosen.sum()), set(draft.reasons.values())
    todo = "--skip-unpatchable patches the others"
    if len(draft.reasons) == n_chosen and len(reasons) == 1:
        todo = NOTHING_TO_DO.get(reasons.pop(), todo)
    raise (ReachError if reach else PolicyError)(
        f"{len(draft.reasons)} of {n_chosen} chosen sites cannot be patched", draft.scan.image.path,
        found="; ".join(lines[:N_SAMPLES]) + ("; …" if len(lines) > N_SAMPLES else ""),
        expected="all of them, or nothing is written",
        todo=todo, details=tuple(lines),
    )  # fmt: skip


def require_layout_shown(draft: Draft, gone: Mask) -> None:
    """Refuse to take out the records by which alone the layout of the sites is told, unless the user tells it. gone:
    slots that leave."""
    scan, n = draft.scan, len(draft.scan.records)
    if gone.any() and not scan.sites.forced:
        require_still_shown(scan.image, scan.records, scan.sites.window[:n], scan.sites.va[:n], gone, draft.shape)


# -- the state of sites and records ------------------------------------------------------------------------------------


def refuse_wrong_states(draft: Draft, patchable: tuple[int, ...] = UNTOUCHED) -> None:
    """Sites whose state, or whose record's state, forbids a patch. patchable: the states that do not."""
    sites, records, chosen = draft.scan.sites, draft.scan.records, draft.request.chosen
    may = (*patchable, *UNLISTED) if draft.takes_unrecorded else patchable
    for i in np.flatnonzero(chosen & ~np.isin(sites.status, may)).tolist():
        target = sites.redirects.get(i)
        other = sites.calls_another(i)
        draft.reasons[i] = (
            f"already redirected to {target.name}" if target
            else f"its call has no single relocation to {other}" if other
            else WHY_NOT.get(int(sites.status[i]), OTHER)
        )  # fmt: skip
    called, image = draft.shape.called, draft.scan.image
    if called and image.linked and not addresses_of(image, called) and not knows(image, called):
        # They were told by what most sites call, which neither verify nor disable would take for it.
        calls = chosen & draft.shape.branch.ends(sites.body())
        draft.refuse(np.flatnonzero(calls), f"it calls what may be {draft.shape.called}: this file has no such symbol")
    if draft.scan.arch.echoes and draft.scan.image.kind == "vmlinux":
        # The kernel may read either of the two, so that a record must leave both.
        lone = (records.rela < 0) & (records.carrier == "mixed")
        odd = (records.word != records.value) | lone
        draft.refuse(np.flatnonzero(chosen[: len(odd)] & odd), "its record's word and relocation disagree")


def refuse_duplicate_records(draft: Draft) -> None:
    """Sites that another live record names too: that record would stay, or leave its site twice."""
    sites = draft.scan.sites
    site_va, n_records = np.unique(sites.body_va[(sites.sec >= 0) & (sites.row >= 0)], return_counts=True)
    shared = (sites.sec >= 0) & np.isin(sites.body_va, site_va[n_records > 1])
    draft.refuse(np.flatnonzero(draft.request.chosen & shared), "several records name this site")


def refuse_other_records(draft: Draft) -> None:
    """Sites that another live record names too, which was not chosen: it would stay, and the site with it."""
    sites, chosen = draft.scan.sites, draft.request.chosen
    stays = np.unique(sites.body_va[(sites.sec >= 0) & (sites.row >= 0) & ~chosen])
    shared = (sites.sec >= 0) & np.isin(sites.body_va, stays)
    draft.refuse(np.flatnonzero(chosen & shared), "another record names this site, and was not chosen")


def refuse_without_record(draft: Draft) -> None:
    """Sites that have no record to drop."""
    sites = draft.scan.sites
    lone = (sites.row < 0) | (sites.status == NULL)
    draft.refuse(np.flatnonzero(draft.request.chosen & lone), "it has no record")


def require_core_record(draft: Draft, gone: Mask) -> None:
    """Refuse where no record of text that stays would be left, on machines whose kernels want one."""
    image, live, sites = draft.scan.image, draft.scan.records.live, draft.scan.sites
    if not draft.scan.arch.core_record or not image.linked or not gone.any():
        return
    core = live & ~in_init_text(image, sites.va[: len(live)]) & (sites.status[: len(live)] != OUTSIDE)
    if (core & ~gone).any():
        return
    raise PolicyError(
        "no live record would stay in core text", image.path, found=f"all {int(core.sum())} of them leave",
        expected="at least one: when init memory is freed with an empty list, or one of init text alone, the kernel "
        "reads beside it, and who reads available_filter_functions may stop it",
        todo="leave out one function outside init text: --func '!NAME'",
    )  # fmt: skip


# -- what lies around a site -------------------------------------------------------------------------------------------


def refuse_overlaps(draft: Draft, with_literal: bool) -> None:
    """Sites that share words with another one: what the first writes is not what the second finds.

    with_literal: whether the pointer in front of a site is written, too.
    """
    sites, shape = draft.scan.sites, draft.shape
    changes = np.zeros(len(sites), dtype=bool)
    changes[draft.open()] = True
    # A site that stays must find its words, too: the kernel looks at every record at boot.
    stays = (sites.row >= 0) & np.isin(sites.status, (READY, ENABLED, HALF, UNEXPECTED)) & ~changes
    index = np.flatnonzero(changes | stays)
    start = sites.off[index] + sites.site[index]
    end = start + shape.size
    if with_literal and shape.literal is not None:
        start = np.where(changes[index], np.minimum(start, sites.off[index] + shape.literal), start)
    order = np.lexsort((start, sites.sec[index]))
    start, end, index = start[order], end[order], index[order]
    near = (sites.sec[index[1:]] == sites.sec[index[:-1]]) & (start[1:] < end[:-1])
    for at in np.flatnonzero(near).tolist():
        pair = index[at : at + 2].tolist()
        other = "another chosen site" if changes[pair].all() else "a site that stays"
        draft.reasons |= {i: f"it shares words with {other}" for i in pair if changes[i]}


def refuse_listed_code(draft: Draft) -> None:
    """Sites of a kernel whose code it rewrites at boot, by a list of its own: it expects there what the build left."""
    sites, index = draft.scan.sites, draft.open()
    for code_list in draft.scan.arch.code_lists:
        if not code_list.harmless and len(index):
            hit = listed(draft.scan.image, code_list, sites.body_va[index], draft.shape.size)
            why = f"{code_list.section} lists its code, which the kernel rewrites at boot: {code_list.what}"
            draft.refuse(index[hit], why)


def refuse_full_literals(draft: Draft) -> None:
    """Sites whose eight bytes in front cannot take a pointer; none where the layout has no pointer there."""
    literal, index, image, sites = draft.shape.literal, draft.open(), draft.scan.image, draft.scan.sites
    if literal is None or not len(index):
        return
    sec, off = sites.sec[index], sites.off[index] + literal
    full = ~draft.shape.old[0].matches(image.words(sec, off, 0, 2)).all(axis=1)
    va = (sites.va[index].view(np.int64) + literal).view(np.uint64)
    if image.linked:
        odd, moved = va % np.uint64(8) != 0, image.relocated(va, 8)
    else:
        odd = (off % 8 != 0) | (image.shdr["sh_addralign"][sec] % np.uint64(8) != 0)
        parts = [some[touched(rows, sites.off[some] + literal, 8)] for some, rows in _by_section(draft, index)]
        moved = np.isin(index, np.concatenate(parts))
    for bad, why in ((odd, "is not 8-byte aligned"), (moved, "has a relocation"), (full, "is not empty")):
        for at in np.flatnonzero(bad).tolist():
            place = f"{int(va[at]):#x}" if image.linked else f"{image.names[sec[at]]}+{int(off[at]):#x}"
            draft.refuse(index[at : at + 1], f"its ops literal at {place} {why}")


def _by_section(draft: Draft, index: I64) -> Iterator[tuple[I64, Relocations]]:
    """Sites of a module, section by section, with all that the loader will write into it."""
    sec = draft.scan.sites.sec[index]
    for number in distinct(sec).tolist():
        yield index[sec == number], relocations_of(draft.scan.image, number)


def _addends(image: Image, rows: Relocations, of: Mask) -> I64:
    """What some relocations add to their symbols."""
    addend = np.zeros(int(of.sum()), dtype=np.int64)
    for table in distinct(rows.table[of]).tolist():
        here = rows.table[of] == table
        addend[here] = image.rows(table, t.RELA)["r_addend"][rows.row[of][here]]
    return addend


def refuse_relocated(draft: Draft) -> None:
    """Sites of a module with a relocation on their words, other than the call that the layout itself has."""
    scan, shape, modules = draft.scan, draft.shape, draft.scan.arch.modules
    for index, rows in _by_section(draft, draft.open()):
        start = scan.sites.off[index] + scan.sites.site[index]
        if not shape.called:
            draft.refuse(index[touched(rows, start, shape.size)], "a relocation writes into its words")
        elif modules is not None:
            called = np.isin(rows.symbol, scan.image.symbols.rows_named(shape.called))
            called[called] = _addends(scan.image, rows, called) == shape.branch.relocated_by
            calls = rows.off[called & is_in(rows.kind, (modules.branch, *modules.calls))]
            single = touching(rows, start, shape.branch.size) == 1
            right = single & np.isin(start + shape.branch.relocated_at, calls)
            if shape.also:  # a build tool made a NOP of the call, and its relocation does nothing any more
                applied = Relocations(*(column[rows.kind != scan.arch.none] for column in rows))
                right |= ~shape.branch.ends(scan.sites.body()[index]) & ~touched(applied, start, shape.size)
            draft.refuse(index[~right], f"its call has no single relocation to {shape.called}")


def refuse_other_relocations(draft: Draft) -> None:
    """Enabled sites of a module into which more relocations write than that of the call."""
    sites, shape = draft.scan.sites, draft.shape
    for index, rows in _by_section(draft, np.flatnonzero(draft.request.chosen & (sites.sec >= 0))):
        start = sites.off[index] + sites.site[index]
        branch = start + (sites.branch_va - sites.body_va)[index].view(np.int64)
        branch += shape.branch.relocated_at
        n_calls = np.searchsorted(rows.off, branch, side="right") - np.searchsorted(rows.off, branch)
        more = touching(rows, start, shape.size) > n_calls
        draft.refuse(index[more], "a relocation beside that of its call writes into its words")


# -- when it runs, and how far its call reaches ------------------------------------------------------------------------


def refuse_sites_too_early(draft: Draft, target: Target, force: bool) -> None:
    """Sites that run before the boot CPU has the structure that the target reads."""
    if target.own or target.entry.kernel_toc is not None:
        refuse_before_paca(draft, np.flatnonzero(draft.request.chosen), target.name, force)


def refuse_before_paca(draft: Draft, index: I64, reader: str, force: bool) -> None:
    """Those of the sites `index` that run before the boot CPU has the structure that `reader` reads."""
    far, image, sites = draft.scan.arch.far, draft.scan.image, draft.scan.sites
    if far is None:
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
    early_va = np.array(sorted(early), dtype=np.uint64)
    runs_early = np.isin(sites.entry_va, early_va) | np.isin(sites.local_va, early_va)
    index = index[runs_early[index]]
    why = f"before {far.ready} is done, when {reader} finds no paca"
    if not force:
        draft.refuse(index, f"it runs {why} (--force-early overrides)")
    elif len(index):
        draft.remarks.append(f"forced: {len(index)} sites run {why}")


def refuse_out_of_reach(draft: Draft, target: Target, calls: Calls) -> None:
    """Sites whose branch, or whose stub's call, does not reach; with the distances to everything that was tried."""
    index, call = draft.open(), draft.scan.arch.call
    if draft.shape.out_of_line:
        draft.refuse(index[calls.slot == 0], f"{OUT_OF_REACH}: no free stub slot that its branch reaches")
    has_veneers = draft.scan.arch.veneer is not None and draft.scan.image.kind == "vmlinux"
    distance, to_target = distances(calls.call_va, calls.call_to), distances(calls.call_va, np.uint64(target.va))
    for at in np.flatnonzero(~call.reaches(distance)).tolist():
        ahead = {stub: stub.va - int(calls.call_va[at]) for stub in calls.tried}
        near = sorted(ahead, key=lambda stub: abs(ahead[stub]))[:N_PLACES]
        shown = "".join(f", {ahead[stub]:+#x} to {stub.name}" for stub in ahead if stub in near)
        straight = int(calls.call_to[at]) == target.va  # a thunk has a landing pad
        guarded = why_guarded(draft.scan, target.va, target.name, "call") if straight and has_veneers else ""
        span = f"a call spans {call.low:+#x}..{call.high:+#x}"
        reason = guarded or f"{to_target[at]:+#x} bytes to {target.name}{shown or NO_PLACE * has_veneers}, {span}"
        reason = f"{OUT_OF_REACH}: {reason}"
        draft.refuse(index[at : at + 1], reason)
