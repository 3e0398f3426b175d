"""`disable`: enabled sites get the words back that the compiler left, and their records, by what the file shows.

    kernel   old words; ops pointers and stubs are emptied, with their relocations; records return to null slots
    module   old words; relocations of calls and pointers are cut; records return behind the others. What the patch
             brought along stays in the file, unused: only the patch's journal can take that back, too

A layout whose sites are calls in the file, through stubs of the linker's, has no words to go back to: its sites become
NOPs, and lose their records. Where no such stubs are, sites get back what the file's other sites are: the call, or the
NOP that a build tool made of all.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, U32, U64, Mask
from ftpatch.elf import tables as t
from ftpatch.elf.editor import Editor
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of
from ftpatch.plan import kept_relocations, ool_slots, records_back, records_out, refusals
from ftpatch.plan.edits import Edits, as_bytes, code_bytes, group, group_at
from ftpatch.plan.module import calls_back
from ftpatch.plan.module import records as module_records
from ftpatch.plan.not_enabled import refuse_not_enabled
from ftpatch.plan.plan import RECORD_OUTCOMES, Plan, PlanSummary
from ftpatch.plan.records_out import RecordEdits
from ftpatch.plan.redirect.undo import (
    emptied_stubs,
    loses_records,
    refuse_mixture,
    refuse_unknown_words,
    restored_words,
)
from ftpatch.plan.request import DisableRequest, Draft, new_draft
from ftpatch.plan.routes import no_calls
from ftpatch.sites.matching import OURS
from ftpatch.sites.scan import Scan

POINTER = 8  # bytes of an ops pointer
BECOMES_NOP = (
    "a call of {called} becomes a NOP and its record leaves: a NOP that has a record would kill ftrace at boot"
)
STAYS = "symbols and sections of the patch stay in the file, unused: ftpatch restore with its journal removes them"


def plan_disable(scan: Scan, request: DisableRequest) -> Plan:
    """Sites get their old words and records back. Raises a PlanError where that cannot be."""
    draft = new_draft(scan, request)
    refuse_not_enabled(draft)
    refusals.refuse_duplicate_records(draft)
    if not scan.image.linked:
        refusals.refuse_other_relocations(draft)
    else:
        refuse_unknown_words(draft)
        refuse_mixture(draft)
        refusals.refuse_listed_code(draft)
        kept_relocations.refuse_other_relocations(draft)
    refusals.refuse_unless_skipped(draft)

    # From here on nothing is refused for a single site.
    index, called = draft.open(), draft.shape.called
    retires = loses_records(draft)
    words = np.empty((len(index), len(draft.shape.old)), dtype=np.uint32)
    words[:] = [word.bits for word in (draft.shape.nops if retires else draft.shape.old)]
    if called and not retires:
        words = restored_words(draft) if scan.image.linked else calls_back.compiled_code(draft)
    # An enabled site has its record only where it was kept, or where sites are calls in the file.
    has_record = scan.sites.row[index] >= 0
    gone = draft.gone(index[has_record & retires])
    returned = index[~has_record & (not retires)]
    edits, out = (_kernel_edits if scan.image.linked else _module_edits)(draft, words, gone, returned)
    with_record, without = (RECORD_OUTCOMES[out.way], "none") if retires else ("kept", "returned")
    lines = ([BECOMES_NOP.format(called=called)] if retires else []) + ([] if scan.image.linked else [STAYS])
    n = len(index)
    return Plan(
        verb="disable", scan=scan, chosen=request.chosen, reasons=draft.reasons, index=index, new_words=words,
        stub=("",) * n, stub_why=("",) * n, record=tuple(np.where(has_record, with_record, without).tolist()),
        calls=no_calls(n), gone=gone, returned=returned,
        summary=PlanSummary(out.way, out.why), edits=edits, notes=tuple(lines) if n else (), warnings=out.warnings,
    )  # fmt: skip


# -- kernels -----------------------------------------------------------------------------------------------------------


def _kernel_edits(draft: Draft, words: U32, gone: Mask, returned: I64) -> tuple[Edits, RecordEdits]:
    """The edits of a kernel, and what becomes of its records."""
    scan, image, shape, index = draft.scan, draft.scan.image, draft.shape, draft.open()
    stub, unused, slots = scan.arch.site_stub, np.zeros(0, np.int64), np.zeros(0, np.uint64)
    groups = [group("site", image.data, index, scan.sites.pos[index], code_bytes(words, shape.unit))]
    groups.append(kept_relocations.of_calls(scan, index[shape.branch.ends(words)], shape.called))
    redirected = scan.sites.redirected[index]
    groups += emptied_stubs(scan, index)
    index = index[~redirected]  # no pointer and no stub of its own belongs to a redirected one
    if len(index) and shape.out_of_line and stub is not None:
        # The slot of each site's stub: its branch leads behind the ops pointer in it.
        literal, ahead = ool_slots.stub_literal(image), shape.branch.distance(scan.sites.body()[index])
        slots = (scan.sites.branch_va[index].view(np.int64) + ahead - literal).view(np.uint64)
        size = stub.size + literal
        groups.append(group_at("stub", image, index, slots, np.zeros((len(index), size), np.uint8)))
        unused = _rows_into(image, slots, size)
    elif len(index) and shape.literal is not None:
        va = (scan.sites.va[index].view(np.int64) + shape.literal).view(np.uint64)
        # The compiler left NOPs there; the pointer's relocation goes, so that nothing is written at boot.
        nops = as_bytes(np.full((len(index), 2), scan.arch.nop, dtype=np.uint32))
        groups.append(group_at("literal", image, index, va, nops))
        unused = _rows_into(image, va, POINTER)
    out = RecordEdits("return", records_back.RETURNED)
    if loses_records(draft):  # a NOP cannot have a record there
        out = records_out.take_out(scan, shape, gone, "auto")
        unused = np.concatenate([unused, out.freed])
    elif len(returned):
        if shape.out_of_line and stub is not None:
            ool_slots.require_free(scan, stub, returned, slots)
        rows = np.concatenate([unused, records_out.free_rows(image)])
        out = records_back.give_back(scan, scan.sites.va[returned], rows)
        unused = out.freed[np.isin(out.freed, unused)]  # the others were free before, and all zero
    return Edits([*groups, *out.groups, records_out.to_none(image, unused)]), out


def _rows_into(image: Image, va: U64, size: int) -> I64:
    """The dynamic relocations that touch the `size` bytes from each va, by file order."""
    places = image.rela[0]["r_offset"]  # in no order that may be relied upon
    order = np.argsort(va)
    near = np.searchsorted(va[order], places, side="right") - 1
    start = va[order][np.maximum(near, 0)]
    return np.flatnonzero((near >= 0) & (places >= start) & (places - start < np.uint64(size))).astype(np.int64)


# -- modules -----------------------------------------------------------------------------------------------------------


def _module_edits(draft: Draft, words: U32, gone: Mask, returned: I64) -> tuple[Edits, RecordEdits]:
    """The edits of a module, and what becomes of its records."""
    scan, sites, index, editor = draft.scan, draft.scan.sites, draft.open(), Editor(draft.scan.image)
    for site, site_words in zip(index.tolist(), words, strict=True):
        start = int(sites.off[site] + sites.site[site])
        code = code_bytes(site_words[None, :], draft.shape.unit).tobytes()
        editor.patch(int(sites.sec[site]), start, code, "site", site)
    put_back = calls_back.give_back if draft.shape.straight else _cut_calls
    for sec in np.unique(sites.sec[index]).tolist():
        put_back(draft, editor, sec, index[sites.sec[index] == sec])
    retires = loses_records(draft)
    if retires:
        module_records.cut_records(editor, scan.records, gone)
    for site in returned.tolist():
        module_records.return_record(editor, sites, site)
    way, why = ("shrink", module_records.CUT) if retires else ("return", module_records.RETURNED)
    return module_records.edits_of(editor), RecordEdits(way, why)


def _cut_calls(draft: Draft, editor: Editor, sec: int, index: I64) -> None:
    """Cut the relocations of one section's calls and ops pointers; a pointer's own bytes were never changed."""
    image, sites, literal = draft.scan.image, draft.scan.sites, draft.shape.literal
    rows = relocations_of(image, sec)
    branch = (sites.branch_va[index] - image.base[sec]).view(np.int64)
    cut = np.isin(rows.off, branch)  # a NOP wants no relocation, whoever made the call
    if literal is not None:
        by_patch = np.array([image.symbols.name(row).startswith(OURS) for row in rows.symbol.tolist()], dtype=bool)
        cut |= by_patch & np.isin(rows.off, sites.off[index] + literal)
    for table in np.unique(rows.table[cut]).tolist():
        gone = np.zeros(len(image.rows(table, t.RELA)), dtype=bool)
        gone[rows.row[cut & (rows.table == table)]] = True
        editor.cut_relocations(table, gone)
