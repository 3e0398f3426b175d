"""Plans for kernels that take away or back: records leave the table with the code untouched (`drop`); enabled sites get
the words back that the compiler left, and their records (`disable`). Modules have their own way, in `module/`.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch import Arch, Shape, SiteStub
from ftpatch.arrays import I64, U32, U64, Mask
from ftpatch.elf.image import Image
from ftpatch.plan import notes, ool_slots, records_back, records_out, refusals, routes
from ftpatch.plan.change import Change, Undoing
from ftpatch.plan.edits import Edits, Group, as_bytes, group
from ftpatch.plan.outcome import FATES, Settled
from ftpatch.plan.request import leaving, patchable_shape
from ftpatch.sites.records import RecordTable
from ftpatch.sites.table import ENABLED, HALF, NULL, READY, SiteTable

NO_RECORD = "it has no record"
NOT_ENABLED = "not enabled"
RETURNED = "sites get their records back, in slots that the kernel skips now"
WITHOUT_RECORD = (
    "what has no record is not in ftrace's list: it can no longer be traced by name, kprobed through ftrace or "
    "live-patched"
)
STAYS_CALL = (
    "the sites of this layout are calls of {called} in the file; without a record the kernel leaves them as they are, "
    "which costs a call and a return each time"
)
BECOMES_NOP = (
    "a call of {called} becomes a NOP and its record leaves: a NOP that has a record would kill ftrace at boot"
)


def make_drop(image: Image, arch: Arch, records: RecordTable, table: SiteTable, request: Undoing) -> Change:
    """Records leave the table, code stays. Raises a PlanError where that cannot be."""
    shape = patchable_shape(image, table)
    reasons = no_record(table, request.chosen)
    refuse_unless_skipped(table, request, reasons)
    index = open_sites(request, reasons)
    gone = leaving(image, records, table, index, request.records == "keep")
    dropped = records_out.drop(image, arch, shape, records, gone, request.records)
    told = of_drop(shape, len(index), int(gone.sum()) - len(index))
    stays = records.live & ~gone
    return Change(
        "drop", table, records, request.chosen, reasons, index, np.zeros((len(index), 0), np.uint32),
        (FATES[dropped.way],) * len(index), gone, records.sec[stays], records.off[stays],
        Settled("", None, None, "none", dropped.way, dropped.why),
        Edits([*dropped.groups, records_out.to_none(image, dropped.freed)]),
        (*told, *((notes.BUILD_ID, notes.SIGNATURE) if len(index) else ())), dropped.warnings,
    )  # fmt: skip


def make_disable(image: Image, arch: Arch, records: RecordTable, table: SiteTable, request: Undoing) -> Change:
    """Sites get their old words and records back. Raises a PlanError where that cannot be."""
    shape = patchable_shape(image, table)
    reasons = not_enabled(table, shape, request.chosen)
    refuse_unless_skipped(table, request, reasons)
    index = open_sites(request, reasons)
    words = original_words(arch, shape, len(index))
    groups = [group("site", image.data, index, table.pos[index], as_bytes(words))]
    pointers, rows = _pointers(image, arch, shape, table, index)
    groups += pointers
    lone = index[table.row[index] < 0]
    gone = np.zeros(len(records), dtype=bool)
    added, left, settled = lone[:0], rows, Settled("", None, None, "none", "return", RETURNED)
    warnings: tuple[str, ...] = ()
    if shape.called:  # a NOP cannot have a record there
        gone = leaving(image, records, table, index[table.row[index] >= 0], False)
        dropped = records_out.drop(image, arch, shape, records, gone, request.records)
        groups += dropped.groups
        left = np.concatenate([rows, dropped.freed])
        settled, warnings = Settled("", None, None, "none", dropped.way, dropped.why), dropped.warnings
    elif len(lone):
        if shape.out_of_line and arch.site_stub is not None:
            emptied = _stub_slots(image, arch, arch.site_stub, shape, table, index)
            ool_slots.require_free(image, arch, arch.site_stub, table, records, lone, emptied)
        added = lone
        free = np.concatenate([rows, routes.slack(image).rows])
        back, left = records_back.give_back(image, arch, records, table.va[lone], free)
        groups += back
    groups.append(records_out.to_none(image, left[np.isin(left, rows) | bool(shape.called)]))
    stays = records.live & ~gone
    return Change(
        "disable", table, records, request.chosen, reasons, index, words,
        fates_of(table, shape, index, settled.records), gone,
        np.concatenate([records.sec[stays], table.sec[added]]), np.concatenate([records.off[stays], table.off[added]]),
        settled, Edits(groups), of_disable(shape, len(index)), warnings,
    )  # fmt: skip


# -- what kernels and modules share ------------------------------------------------------------------------------------


def open_sites(request: Undoing, reasons: dict[int, str]) -> I64:
    """The chosen sites without a reason against them."""
    index = np.flatnonzero(request.chosen)
    return index[~np.isin(index, list(reasons))]


def refuse_unless_skipped(table: SiteTable, request: Undoing, reasons: dict[int, str]) -> None:
    """Refuse the whole request where some site stands in the way, unless the user allows to leave it out."""
    if reasons and not request.skip_unpatchable:
        raise refusals.unpatchable(table, request.chosen, reasons)


def no_record(table: SiteTable, chosen: Mask) -> dict[int, str]:
    """Reasons against chosen sites that have no record to drop."""
    lone = np.flatnonzero(chosen & ((table.row < 0) | (table.status == NULL)))
    return dict.fromkeys(lone.tolist(), NO_RECORD)


def not_enabled(table: SiteTable, shape: Shape, chosen: Mask) -> dict[int, str]:
    """Reasons against chosen sites that are not enabled, or not one record's alone; where sites are calls in the file,
    those count as enabled."""
    live = np.isin(table.status, (ENABLED, HALF, *((READY,) if shape.called else ())))
    found = {}
    for i in np.flatnonzero(chosen & ~live).tolist():
        state = int(table.status[i])
        found[i] = NOT_ENABLED if state == READY else refusals.WHY_NOT.get(state, refusals.OTHER)
    for i in np.flatnonzero(chosen & live & refusals.shared(table)).tolist():
        found[i] = refusals.SHARED
    return found


def original_words(arch: Arch, shape: Shape, n: int) -> U32:
    """The words of n sites as the compiler left them; NOPs where it left calls."""
    words = np.empty((n, len(shape.old)), dtype=np.uint32)
    words[:] = [arch.nop if shape.called else word.bits for word in shape.old]
    return words


def fates_of(table: SiteTable, shape: Shape, index: I64, way: str) -> tuple[str, ...]:
    """What becomes of the record of each disabled site."""
    with_record, without = (FATES[way], "none") if shape.called else ("kept", "returned")
    return tuple(with_record if row >= 0 else without for row in table.row[index].tolist())


def of_drop(shape: Shape, n: int, more: int) -> tuple[str, ...]:
    """What to tell of n dropped records. more: those that leave besides."""
    if not n:
        return ()
    return (
        WITHOUT_RECORD,
        *([f"{more} {notes.ONLY_INIT}"] if more else []),
        *([STAYS_CALL.format(called=shape.called)] if shape.called else []),
    )


def of_disable(shape: Shape, n: int) -> tuple[str, ...]:
    """What to tell of n disabled sites."""
    return (BECOMES_NOP.format(called=shape.called),) if n and shape.called else ()


# -- a kernel's pointers -----------------------------------------------------------------------------------------------


def _pointers(image: Image, arch: Arch, shape: Shape, table: SiteTable, index: I64) -> tuple[list[Group], I64]:
    """Edits that empty the sites' ops pointers and stubs, and the relocation rows that nothing uses then."""
    none = np.zeros(0, np.int64)
    if not len(index):
        return [], none
    if shape.out_of_line and arch.site_stub is not None:
        size = arch.site_stub.size + ool_slots.stub_literal(image, arch, arch.site_stub)
        start = _stub_slots(image, arch, arch.site_stub, shape, table, index)
        return [_filled(image, "stub", index, start, np.zeros((len(index), size), np.uint8))], _rows(image, start, size)
    if shape.literal is None:
        return [], none
    va = (table.va[index].view(np.int64) + shape.literal).view(np.uint64)
    nops = as_bytes(np.full((len(index), 2), arch.nop, dtype=np.uint32))
    return [_filled(image, "literal", index, va, nops)], _rows(image, va, 8)


def _stub_slots(image: Image, arch: Arch, stub: SiteStub, shape: Shape, table: SiteTable, index: I64) -> U64:
    """va of the slot that each enabled site's branch leads into."""
    ahead = shape.branch.decode(table.body()[index, -1]) - ool_slots.stub_literal(image, arch, stub)
    found: U64 = (table.branch_va[index].view(np.int64) + ahead).view(np.uint64)
    return found


def _filled(
    image: Image, kind: str, index: I64, va: U64, new: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
) -> Group:
    sec, off = image.place(va)
    return group(kind, image.data, index, image.pos(sec, off), new)


def _rows(image: Image, va: U64, size: int) -> I64:
    """The dynamic relocations that touch the `size` bytes from each va, by file order."""
    places = image.rela[0]["r_offset"]
    order = np.argsort(va)
    near = np.searchsorted(va[order], places, side="right") - 1
    start = va[order][np.maximum(near, 0)]
    return np.flatnonzero((near >= 0) & (places >= start) & (places - start < np.uint64(size))).astype(np.int64)
