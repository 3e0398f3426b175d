"""`disable` for programs: enabled sites get the words back that the compiler or linker left, and nothing else changes.

A layout of NOPs has one form, or some, of which the file's untouched sites show theirs. Where sites are calls of a
profiling function (-pg), those say how such a call is made here; where none is left, the slot that the dynamic linker
fills with its address does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ftpatch.arch.program_parts import Programs
from ftpatch.arrays import I64, U32
from ftpatch.elf.program_editor import SECTION
from ftpatch.plan import refusals
from ftpatch.plan.edits import Edits, code_bytes, group
from ftpatch.plan.not_enabled import refuse_not_enabled
from ftpatch.plan.plan import RECORD_OUTCOMES, Plan, PlanSummary
from ftpatch.plan.program.enable import KEPT, new_program_draft
from ftpatch.plan.program.imports import find_import
from ftpatch.plan.request import DisableRequest, Draft
from ftpatch.plan.routes import distances, no_calls
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import UNRECORDED, UNTOUCHED

BY_JOURNAL = "ftpatch restore with the journal of the patch knows"
STAYS = "the segment that the patch added stays in the file, unused: ftpatch restore with its journal removes it"
OTHER_NOPS = f"untouched sites of this file are different NOPs: what these were is not told, {BY_JOURNAL}"


class _Form(NamedTuple):
    """What a site was before it was patched."""

    kind: str  # `nop`, `call` of a function or stub, or `slot`: a call through the word that holds its address
    va: int = 0  # of the function, stub or word
    nop: tuple[int, ...] = ()  # units of code
    front: tuple[int, ...] = ()  # units in front of the call that are part of it


def plan_program_disable(scan: Scan, request: DisableRequest, programs: Programs) -> Plan:
    """Sites get their old words back. Raises a PlanError where that cannot be."""
    draft = new_program_draft(scan, request)
    refuse_not_enabled(draft)
    form = _form(draft, programs)
    if form is None:
        called = draft.shape.called
        draft.refuse(draft.open(), f"its call of {called} cannot be restored: no untouched site shows it; {BY_JOURNAL}")
    refusals.refuse_unless_skipped(draft)

    # From here on nothing is refused for a single site.
    index = draft.open()
    words = _words(draft, index, form)
    n, lines = len(index), [STAYS] if scan.image.sections_named(SECTION) else []
    edits = Edits([group("site", scan.image.data, index, scan.sites.pos[index], code_bytes(words, draft.shape.unit))])
    return Plan(
        verb="disable", scan=scan, chosen=draft.request.chosen, reasons=draft.reasons, index=index, new_words=words,
        stub=("",) * n, stub_why=("",) * n,
        record=tuple(np.where(scan.sites.row[index] >= 0, RECORD_OUTCOMES["keep"], "none").tolist()),
        calls=no_calls(n), gone=draft.gone(index[:0]), returned=index[:0], summary=PlanSummary("keep", KEPT),
        edits=edits, notes=(*(lines if n else ()), *draft.remarks),
    )  # fmt: skip


def _form(draft: Draft, programs: Programs) -> _Form | None:
    """What the open sites were; None where the file does not tell."""
    scan, shape = draft.scan, draft.shape
    sites = scan.sites
    left = np.flatnonzero(np.isin(sites.status, (*UNTOUCHED, UNRECORDED)) & (sites.sec >= 0))
    forms = {_form_of(draft, site, body) for site, body in zip(left.tolist(), sites.body()[left], strict=True)}
    if len(forms) == 1:
        return forms.pop()
    if not shape.called:
        if forms:
            draft.remarks.append(OTHER_NOPS)
        return _Form("nop", nop=tuple(word.bits for word in shape.old))
    found = None if forms else find_import(scan.image, programs, shape.called)
    if found is None or (shape.through is None and not found.plt):
        return None
    if shape.through is None:
        return _Form("call", found.plt)
    return _Form("slot", found.slot, front=tuple(word.bits for word in shape.old))


def _form_of(draft: Draft, site: int, body: U32) -> _Form:
    """What an untouched site is."""
    shape, va = draft.shape, int(draft.scan.sites.body_va[site])
    units, row = tuple(body.tolist()), body[None, :]
    if shape.through is not None and bool(shape.through.ends(row)[0]):
        start = len(units) - shape.through.n_units
        return _Form("slot", va + start * shape.unit + int(shape.through.distance(row)[0]), front=_first(draft, units))
    if shape.called and bool(shape.branch.ends(row)[0]):
        start = len(units) - shape.branch.n_units
        return _Form("call", va + start * shape.unit + int(shape.branch.distance(row)[0]), front=units[:start])
    return _Form("nop", nop=units)


def _first(draft: Draft, units: tuple[int, ...]) -> tuple[int, ...]:
    """The units of a call through a slot, without the distance."""
    assert draft.shape.through is not None
    return (*units[: len(units) - draft.shape.through.width // (8 * draft.shape.unit)],)


def _words(draft: Draft, index: I64, form: _Form | None) -> U32:
    """The code that the sites `index` had."""
    shape, sites = draft.shape, draft.scan.sites
    words = np.zeros((len(index), len(shape.new)), dtype=np.uint32)
    if form is None or not len(index):
        return words
    if form.kind == "nop":
        words[:] = form.nop
        return words
    branch = shape.branch if form.kind == "call" or shape.through is None else shape.through
    start = len(shape.new) - branch.n_units
    va = sites.body_va[index] + np.uint64(start * shape.unit)
    words[:, start:] = branch.encode(distances(va, np.uint64(form.va))).reshape(len(index), -1)
    words[:, : len(form.front)] = form.front
    return words
