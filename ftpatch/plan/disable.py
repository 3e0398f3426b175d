"""`disable`: enabled sites get the words back that the compiler left, and their records, by what the file shows.

    kernel   old words; ops pointers and stubs are emptied, with their relocations; records return to null slots
    module   old words; relocations of calls and pointers are cut; records return behind the others. What the patch
             brought along stays in the file, unused: only the patch's journal can take that back, too

A layout whose sites are calls in the file has no words to go back to: its sites become NOPs, and lose their records.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, U8, U32, U64
from ftpatch.elf import tables as t
from ftpatch.elf.editor import Editor
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of
from ftpatch.plan import ool_slots, records_back, records_out, refusals
from ftpatch.plan.edits import Edits, Group, as_bytes, group
from ftpatch.plan.module import records as module_records
from ftpatch.plan.plan import RECORD_OUTCOMES, Plan, PlanSummary, no_calls
from ftpatch.plan.records_out import RecordEdits
from ftpatch.plan.request import DisableRequest, Draft, patchable_shape
from ftpatch.plan.routes import free_rows
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import OURS

BECOMES_NOP = (
    "a call of {called} becomes a NOP and its record leaves: a NOP that has a record would kill ftrace at boot"
)
STAYS = "symbols and sections of the patch stay in the file, unused: ftpatch restore with its journal removes them"


def plan_disable(scan: Scan, request: DisableRequest) -> Plan:
    """Sites get their old words and records back. Raises a PlanError where that cannot be."""
    draft = Draft(scan, patchable_shape(scan), request)
    refusals.refuse_not_enabled(draft)
    refusals.refuse_duplicate_records(draft)
    if not scan.image.linked:
        refusals.refuse_other_relocations(draft)
    refusals.refuse_unless_skipped(draft)

    # From here on nothing is refused for a single site.
    index, shape, row = draft.open(), draft.shape, scan.sites.row
    words = _original_words(draft, len(index))
    # An enabled site has its record only where it was kept, or where sites are calls in the file.
    recorded, lone = index[row[index] >= 0], index[row[index] < 0]
    gone = draft.gone(recorded if shape.called else recorded[:0])
    returned = lone[:0] if shape.called else lone
    edits, out = (_kernel_edits if scan.image.linked else _module_edits)(draft, index, words, returned)
    told = [BECOMES_NOP.format(called=shape.called)] if shape.called else []
    told += [STAYS] if not scan.image.linked else []
    with_record, without = (RECORD_OUTCOMES[out.way], "none") if shape.called else ("kept", "returned")
    n = len(index)
    return Plan(
        verb="disable", scan=scan, chosen=request.chosen, reasons=draft.reasons, index=index, new_words=words,
        stub=("",) * n, stub_why=("",) * n,
        record=tuple(with_record if slot >= 0 else without for slot in row[index].tolist()), calls=no_calls(n),
        gone=gone, returned=returned, slot_values=out.values,
        summary=PlanSummary(out.way, out.why), edits=edits, notes=tuple(told) if n else (), warnings=out.warnings,
    )  # fmt: skip


def _original_words(draft: Draft, n: int) -> U32:
    """The words of n sites as the compiler left them; NOPs where it left calls."""
    words = np.empty((n, len(draft.shape.old)), dtype=np.uint32)
    words[:] = [draft.arch.nop if draft.shape.called else word.bits for word in draft.shape.old]
    return words


# -- kernels -----------------------------------------------------------------------------------------------------------


def _kernel_edits(draft: Draft, index: I64, words: U32, returned: I64) -> tuple[Edits, RecordEdits]:
    """The edits of a kernel, and what becomes of its records."""
    scan, image, shape = draft.scan, draft.image, draft.shape
    pointers, rows = _empty_pointers(draft, index)
    groups = [group("site", image.data, index, scan.sites.pos[index], as_bytes(words)), *pointers]
    out = RecordEdits("return", records_back.RETURNED, scan.records.value)
    unused = rows
    if shape.called:  # a NOP cannot have a record there
        recorded = index[scan.sites.row[index] >= 0]
        out = records_out.take_out(scan, shape, draft.gone(recorded), "auto")
        unused = np.concatenate([rows, out.freed])
    elif len(returned):
        if shape.out_of_line and draft.arch.site_stub is not None:
            ool_slots.require_free(scan, draft.arch.site_stub, returned, _stub_slots(draft, index))
        out = records_back.give_back(scan, scan.sites.va[returned], np.concatenate([rows, free_rows(image).rows]))
        unused = out.freed[np.isin(out.freed, rows)]  # the others were free before, and all zero
    return Edits([*groups, *out.groups, records_out.to_none(image, unused)]), out


def _empty_pointers(draft: Draft, index: I64) -> tuple[list[Group], I64]:
    """Edits that empty the sites' ops pointers and stubs, and the relocation rows that nothing uses then."""
    image, arch, shape = draft.image, draft.arch, draft.shape
    if len(index) and shape.out_of_line and arch.site_stub is not None:
        size = arch.site_stub.size + ool_slots.stub_literal(image)
        start = _stub_slots(draft, index)
        return [_filled(image, "stub", index, start, np.zeros((len(index), size), np.uint8))], _rows(image, start, size)
    if len(index) and shape.literal is not None:
        va = (draft.sites.va[index].view(np.int64) + shape.literal).view(np.uint64)
        # The compiler left NOPs there; the pointer's relocation goes, so that nothing is written at boot.
        nops = as_bytes(np.full((len(index), 2), arch.nop, dtype=np.uint32))
        return [_filled(image, "literal", index, va, nops)], _rows(image, va, 8)
    return [], np.zeros(0, np.int64)


def _stub_slots(draft: Draft, index: I64) -> U64:
    """va of the slot that each enabled site's branch leads into."""
    sites = draft.sites
    ahead = draft.shape.branch.decode(sites.body()[index, -1]) - ool_slots.stub_literal(draft.image)
    slot_va: U64 = (sites.branch_va[index].view(np.int64) + ahead).view(np.uint64)
    return slot_va


def _filled(image: Image, kind: str, index: I64, va: U64, new: U8) -> Group:
    sec, off = image.place(va)
    return group(kind, image.data, index, image.pos(sec, off), new)


def _rows(image: Image, va: U64, size: int) -> I64:
    """The dynamic relocations that touch the `size` bytes from each va, by file order."""
    places = image.rela[0]["r_offset"]  # in no order that may be relied upon
    order = np.argsort(va)
    near = np.searchsorted(va[order], places, side="right") - 1
    start = va[order][np.maximum(near, 0)]
    return np.flatnonzero((near >= 0) & (places >= start) & (places - start < np.uint64(size))).astype(np.int64)


# -- modules -----------------------------------------------------------------------------------------------------------


def _module_edits(draft: Draft, index: I64, words: U32, returned: I64) -> tuple[Edits, RecordEdits]:
    """The edits of a module, and what becomes of its records."""
    sites, records, editor = draft.sites, draft.records, Editor(draft.image)
    for site, row in zip(index.tolist(), words, strict=True):
        start = int(sites.off[site] + sites.site[site])
        editor.patch(int(sites.sec[site]), start, row.astype("<u4").tobytes(), "site", site)
    _forget_calls(draft, editor, index)
    if draft.shape.called:
        module_records.cut_records(editor, records, draft.gone(index))
    for site in returned.tolist():
        module_records.return_record(editor, draft.arch, sites, site)
    way, why = ("shrink", module_records.CUT) if draft.shape.called else ("return", module_records.RETURNED)
    return module_records.edits_of(draft.image, editor), RecordEdits(way, why, records.value[:0])


def _forget_calls(draft: Draft, editor: Editor, index: I64) -> None:
    """Cut the relocations of the sites' calls and ops pointers; a pointer's own bytes were never changed."""
    image, sites = draft.image, draft.sites
    for sec in np.unique(sites.sec[index]).tolist():
        mine = index[sites.sec[index] == sec]
        rows = relocations_of(image, sec)
        branch = (sites.branch_va[mine] - image.base[sec]).view(np.int64)
        hit = np.isin(rows.off, branch)  # a NOP wants no relocation, whoever made the call
        if draft.shape.literal is not None:
            ours = np.array(
                [image.symbols.name(symbol).startswith(OURS) for symbol in rows.symbol.tolist()], dtype=bool
            )
            hit |= ours & np.isin(rows.off, sites.off[mine] + draft.shape.literal)
        for table in np.unique(rows.table[hit]).tolist():
            cut = np.zeros(len(image.rows(table, t.RELA)), dtype=bool)
            cut[rows.row[hit & (rows.table == table)]] = True
            editor.cut_relocations(table, cut)
