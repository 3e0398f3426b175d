"""Why a chosen site of a program cannot be changed: what kernels need not ask, one function per kind of obstacle."""

from __future__ import annotations

import numpy as np

from ftpatch.arch.program_parts import Programs
from ftpatch.arrays import I64, U8, Mask
from ftpatch.kernel.callee import STT_GNU_IFUNC
from ftpatch.plan import refusals
from ftpatch.plan.program.targets import ProgramTarget
from ftpatch.plan.request import Draft
from ftpatch.sites.table import UNRECORDED, UNTOUCHED, SiteTable

VARIANT = (
    "its callers expect more registers to be kept than others do, or pass arguments in wider ones (variant PCS), "
    "which neither a stub nor a hook keeps"
)
RESOLVER = (
    "it runs while the program is being relocated, to choose another function (an IFUNC's resolver): what a hook uses "
    "may not be there yet"
)
RELOCATED = "the dynamic linker writes into its words when the program starts (a text relocation)"


def refuse_sites(draft: Draft, programs: Programs, target: ProgramTarget) -> None:
    """Hold all reasons against the chosen sites of a program, but for how far their calls reach."""
    refusals.refuse_wrong_states(draft, (*UNTOUCHED, UNRECORDED))  # nobody needs a record of a program's site
    refusals.refuse_overlaps(draft, with_literal=False)
    _refuse_relocated(draft)
    refuse_variants(draft, programs)
    if target.hook:
        _refuse_not_at_entry(draft)
        _refuse_resolvers(draft, programs)
    else:
        _refuse_reloads(draft, programs)
    _refuse_other_toc(draft, programs, target)


def one_for_each(sites: SiteTable, chosen: Mask) -> Mask:
    """The chosen sites, each once: records of identical functions, of which a linker made one, name the same site."""
    chosen = chosen.copy()
    index = np.flatnonzero(chosen & (sites.sec >= 0))
    _, first = np.unique(sites.body_va[index], return_index=True)
    chosen[np.delete(index, first)] = False
    return chosen


def _refuse_resolvers(draft: Draft, programs: Programs) -> None:
    """Sites of functions that run while the program is being relocated, when neither imports nor thread-local data are
    there that a hook uses."""
    image, sites, index = draft.scan.image, draft.scan.sites, draft.open()
    rows, symbols = image.rela[0], image.symbols
    chosen_at_start = rows["r_addend"][(rows["r_info"] & np.uint64(0xFFFF_FFFF)) == np.uint64(programs.ifunc)]
    named = symbols.rows["st_value"][symbols.type == STT_GNU_IFUNC]
    resolvers = np.concatenate([chosen_at_start.view(np.uint64), named])
    at = np.isin(sites.entry_va[index], resolvers) | np.isin(sites.local_va[index], resolvers)
    draft.refuse(index[at], RESOLVER)


def _refuse_relocated(draft: Draft) -> None:
    sites, index = draft.scan.sites, draft.open()
    draft.refuse(index[draft.scan.image.relocated(sites.body_va[index], draft.shape.size)], RELOCATED)


def _refuse_not_at_entry(draft: Draft) -> None:
    """Sites in front of which their function has done something: gcc -mfentry pushes the static chain of a nested one,
    and a stub would take that for the caller."""
    sites, index = draft.scan.sites, draft.open()
    if draft.shape.anywhere:
        return
    entry = sites.va[index].view(np.int64) + draft.shape.to_entry(sites.window[index])
    at = (sites.entry_va if draft.shape.at_global else sites.local_va)[index].view(np.int64)
    named = sites.func[index] < sites.func_end[index]
    draft.refuse(index[named & (entry != at)], "it is not at its function's entry, where a hook could tell the caller")


def _refuse_reloads(draft: Draft, programs: Programs) -> None:
    """Sites behind whose call a register is loaded from where only a stub of a .plt puts it."""
    image, index, sites = draft.scan.image, draft.open(), draft.scan.sites
    if programs.reload is None or not draft.shape.library:
        return
    behind = sites.branch_va[index] + np.uint64(draft.shape.branch.size)
    words = image.words(*image.place(behind), 0, 1)[:, 0]
    what = f"{programs.reload.text} stands behind its call, which only a stub of the .plt prepares (see --hook)"
    draft.refuse(index[programs.reload.matches(words)], what)


def refuse_variants(draft: Draft, programs: Programs) -> None:
    """Sites of functions whose calling convention is not the usual one."""
    if programs.variant is None:
        return
    index = draft.open()
    draft.refuse(index[programs.variant(_st_other(draft, index))], VARIANT)


def _st_other(draft: Draft, index: I64) -> U8:
    """st_other of the function symbol at each site's entry; 0 where there is none."""
    sites, image = draft.scan.sites, draft.scan.image
    named = sites.func[index] < sites.func_end[index]
    other = np.zeros(len(index), dtype=np.uint8)
    other[named] = image.symbols.rows["st_other"][image.functions.row[sites.func[index][named]]]
    return other


def _refuse_other_toc(draft: Draft, programs: Programs, target: ProgramTarget) -> None:
    """Sites at which the TOC pointer may be another than the one that a directly called target needs."""
    image, index, sites = draft.scan.image, draft.open(), draft.scan.sites
    if programs.toc is None or target.own is None or target.hook:
        return
    wanted = programs.toc(image.code(target.own.va, 2), target.own.va)
    if wanted is None:
        return
    for site in index.tolist():
        va = int(sites.entry_va[site])
        found = programs.toc(image.code(va, 2), va)
        if found != wanted:
            what = "sets up none" if found is None else f"has {found:#x}"
            draft.refuse(np.array([site]), f"{target.name} needs TOC {wanted:#x}, its function {what} (see --hook)")
