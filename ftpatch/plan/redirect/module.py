"""`redirect` for modules: the first word of a function's patch site becomes a jump, whose relocation names where to.

    site ── b ──► replacement                   R_AARCH64_JUMP26, R_PPC64_REL24; the loader adds what the distance needs
    site ── b ──► stub in .text.ftpatch ──►     ppc64le: the replacement computes its TOC from r12, which the site does
                                                not have; or it is in another file, and has another TOC

A symbol `ftpatch_redirected_FOO` stands at every function that leads elsewhere, so that the file itself tells which
ones do: a jump at a function's entry may be the compiler's own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ftpatch.arrays import U32
from ftpatch.elf.editor import Editor
from ftpatch.elf.function_types import FunctionTypes
from ftpatch.elf.image import Image
from ftpatch.kernel.module import Module
from ftpatch.plan import notes, refusals
from ftpatch.plan.caller_registers import refuse_relied_registers
from ftpatch.plan.module.addition import Addition, Call
from ftpatch.plan.module.loadable import require_loadable
from ftpatch.plan.module.records import CUT, cut_records, edits_of, require_way
from ftpatch.plan.plan import RECORD_OUTCOMES, Plan, PlanSummary, Redirect
from ftpatch.plan.redirect.arguments import refuse_memory_arguments
from ftpatch.plan.redirect.in_module import Finder, ModuleReplacement
from ftpatch.plan.redirect.module_jumps import Jumps
from ftpatch.plan.redirect.recursion import refuse_hooks, warn_of_recursion
from ftpatch.plan.redirect.refusals import refuse_loops, refuse_lost_toc, refuse_wrong_substitutes
from ftpatch.plan.request import Draft, RedirectRequest, new_draft
from ftpatch.plan.routes import no_calls
from ftpatch.sites.scan import Scan


def plan_module_redirect(scan: Scan, request: RedirectRequest) -> Plan:
    """Decide everything. Raises a PlanError, or an UnsupportedError where the layout cannot be changed at all."""
    draft, module, modules = new_draft(scan, request), Module(scan), scan.arch.modules
    assert modules is not None  # other machines were refused
    require_way(request.records, ("auto", "shrink"), scan.image.path)
    checked = require_loadable(module, request.against)
    kernel = request.against.kernel
    if request.patch is not None and modules.linking is not None:  # before its functions are looked at
        from ftpatch.plan.link.agree import require_object

        require_object(module, request.patch, modules.linking)
    types = FunctionTypes(scan.image, kernel.image if kernel else None)
    finder = Finder(module, request.against, types, request.patch)
    known = {text: finder.find(text) for text in dict.fromkeys(request.replacements.values())}
    goals = {site: known[text] for site, text in request.replacements.items()}
    refusals.refuse_wrong_states(draft)
    refusals.refuse_duplicate_records(draft)
    refusals.refuse_relocated(draft)
    refusals.refuse_overlaps(draft, with_literal=False)
    refuse_relied_registers(draft, 0, "its replacement", request.force_signature, "--force-signature")
    signatures = _refuse_wrong_goals(draft, request, types, goals)
    refusals.refuse_unless_skipped(draft)

    # From here on nothing is refused for a single site.
    jumps = Jumps(Addition(Editor(scan.image), module, modules), modules, goals)
    # in front of what the object puts behind the records that stay
    cut_records(jumps.addition.editor, scan.records, draft.gone(draft.open()))
    if request.patch is not None:
        checked += _link(draft, request, jumps, request.patch)
    return _assemble(draft, jumps, signatures, checked)


def _link(draft: Draft, request: RedirectRequest, jumps: Jumps, patch: Image) -> list[str]:
    """Link the object into the module, with entries to the old functions that it calls; what is to be said of that.

    Raises what `carry` raises."""
    from ftpatch.plan.link.carry import carry
    from ftpatch.plan.link.original import keep_original

    editor, module = jumps.addition.editor, jumps.addition.module
    index, kept = draft.open().tolist(), request.keep_original
    originals = {kept[site]: keep_original(editor, module, site, kept[site]) for site in index if site in kept}
    carried = carry(editor, module, patch, request.against, originals)
    jumps.carried = carried.rows
    draft.warnings += carried.warnings
    undefined = {patch.symbols.name(row) for row in np.flatnonzero(patch.symbols.shndx == 0).tolist()}
    draft.warnings += [f"{patch.path} does not use {name} of --keep-original" for name in originals
                       if name not in undefined]  # fmt: skip
    draft.warnings += _leads_back(draft, carried.uses, jumps, patch)
    if not any(jumps.goals[site].carried for site in index):
        draft.warnings.append(f"no function leads to one of {patch.path}")
    return list(carried.notes)


def _leads_back(draft: Draft, uses: frozenset[tuple[int, int]], jumps: Jumps, patch: Image) -> list[str]:
    """What to say of an object that calls a function by the name whose calls lead to the object."""
    sites, image = draft.scan.sites, draft.scan.image
    told = []
    for site in draft.open().tolist():
        place = int(sites.sec[site]), int(sites.entry_va[site] - image.base[sites.sec[site]])
        if place in uses and jumps.goals[site].carried:
            told.append(f"{patch.path} uses {sites.name(site)}, which leads back to {jumps.goals[site].name}: "
                        "--keep-original gives the old function a name")  # fmt: skip
    return told


def _refuse_wrong_goals(
    draft: Draft, request: RedirectRequest, types: FunctionTypes, goals: Mapping[int, ModuleReplacement]
) -> dict[int, str]:
    """Sites whose replacement cannot be one; what is known of the signatures, by site, for reports."""
    sites, names = draft.scan.sites, draft.scan.image.names
    refuse_loops(draft, {site: goal.va for site, goal in goals.items()})
    for site, goal in goals.items():
        if goal.init and not names[sites.sec[site]].startswith(".init"):
            draft.refuse(np.array([site]), f"{goal.name} is init text, which is freed once the module runs")
    substitutes = {site: goal.substitute for site, goal in goals.items()}
    refuse_lost_toc(draft, substitutes)
    signatures = refuse_wrong_substitutes(draft, request, types, substitutes)
    warn_of_recursion(draft, substitutes)
    refuse_hooks(draft, {site: goal.va for site, goal in goals.items()})
    if draft.scan.arch.modules is not None and draft.scan.arch.modules.entries is not None:
        outside = {site: goal.substitute for site, goal in goals.items() if goal.outside}
        refuse_memory_arguments(draft, request, types, outside, signatures)
    return signatures


def _assemble(draft: Draft, jumps: Jumps, signatures: Mapping[int, str], checked: list[str]) -> Plan:
    """The plan, after its changes were made in the editor."""
    index, scan, editor = draft.open(), draft.scan, jumps.addition.editor
    gone, n = draft.gone(index), len(index)
    words = _words(draft)
    calls: tuple[Call, ...] = jumps.make(draft.shape, index, words) if n else ()
    names = [jumps.name(jumps.goals[site]) for site in index.tolist()]
    lines = [*notes.REDIRECTS, *jumps.addition.notes, *checked, *dict.fromkeys(draft.remarks)] if n else []
    return Plan(
        verb="redirect", scan=scan, chosen=draft.request.chosen, reasons=draft.reasons, index=index, new_words=words,
        stub=tuple(call.stub for call in calls), stub_why=tuple(call.why for call in calls),
        record=tuple(np.where(scan.sites.row[index] >= 0, RECORD_OUTCOMES["shrink"], "none").tolist()),
        calls=no_calls(n), gone=gone, returned=index[:0], edits=edits_of(editor), notes=tuple(lines),
        summary=PlanSummary("shrink", CUT, ", ".join(dict.fromkeys(names))),
        redirects=tuple(
            Redirect(name, None, signatures[site]) for site, name in zip(index.tolist(), names, strict=True)
        ),
        warnings=(*draft.warnings, *notes.still_broken(scan, gone)),
    )  # fmt: skip


def _words(draft: Draft) -> U32:
    """The sites' new words: a jump over no distance, as its relocation holds where it goes."""
    jump, words = draft.scan.arch.jump, draft.scan.sites.body()[draft.open()]
    assert jump is not None
    words[:, 0] = jump.encode(np.zeros(1, dtype=np.int64))
    return words
