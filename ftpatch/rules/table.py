"""Rules about the record table itself: its ends, its slots, their relocations and their order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.arrays import I64
from ftpatch.errors import RecordError
from ftpatch.kernel.record_loop import tests_zero_first
from ftpatch.rules.case import Case, Hit
from ftpatch.rules.words import some

LOST = ("names no symbol", "not defined here")  # of RecordErrors: records whose function is gone
FEW = 3  # records out of order that are no order of a linker
MOVED = ("two relocations", "across two slots", "another type", "outside the section's slots")


def table_ends(case: Case) -> Iterator[Hit]:
    """The table cannot be read at all."""
    error = case.trouble
    if isinstance(error, RecordError) and not any(part in error.what for part in (*LOST, *MOVED)):
        yield Hit(_sentence(error))


def slot_relocation(case: Case) -> Iterator[Hit]:
    """Slots that the loader would fill twice, or not although it fills the others."""
    if isinstance(case.trouble, RecordError):
        if any(part in case.trouble.what for part in MOVED):
            yield Hit(_sentence(case.trouble))
        return
    records = case.records
    if records is None or not case.image.linked:
        return
    covered = (records.rela >= 0) | records.relr
    bare = np.flatnonzero(records.live & ~covered)
    if covered.any():
        for row in bare.tolist():
            value, others = int(records.value[row]), int(covered.sum())
            text = (
                f"row {row} ({value:#x}) has no relocation, {others} other slots have one: wrong once the kernel moves"
            )
            yield Hit(text, row)


def word_ignored(case: Case) -> Iterator[Hit]:
    """Slots whose word differs from the addend that replaces it."""
    records = case.slots()
    wanted = records.value if case.arch.echoes else np.zeros(len(records), dtype=np.uint64)
    odd = (records.rela >= 0) & (records.word != wanted) & (records.word != records.value)
    for row in np.flatnonzero(odd).tolist():
        text = (
            f"row {row} holds {int(records.word[row]):#x}, its relocation writes {int(records.value[row]):#x} over it"
        )
        yield Hit(text, row)


def duplicate(case: Case) -> Iterator[Hit]:
    """Live records that name a place which an earlier row names."""
    records = case.slots()
    rows = np.flatnonzero(records.live & (records.sec >= 0))
    va = case.image.va(records.sec[rows], records.off[rows])
    order = np.argsort(va, kind="stable")
    again = np.flatnonzero(va[order][1:] == va[order][:-1])
    for one in again.tolist():
        first, second = int(rows[order[one]]), int(rows[order[one + 1]])
        yield Hit(f"rows {first} and {second} name the same place {int(va[order[one]]):#x}", second)


def _sorted_at_build(case: Case) -> bool:
    """Whether the table was sorted by the build and will not be by the kernel: its configuration says so, or zeros
    lead it and hardly a record is out of order (one in forty descends where the order is the linker's)."""
    known = case.kconfig.get("BUILDTIME_MCOUNT_SORT")
    records = case.slots()
    if known or "DYNAMIC_FTRACE" in case.kconfig:
        return known == "y"
    if case.arch.max_offset is not None or not len(records) or not records.zero[0]:
        return False  # ppc64 always sorts at boot
    return len(_descents(case)) <= max(FEW, int(records.live.sum()) // 100)


def _descents(case: Case) -> I64:
    """Rows of live records that are less than the live one in front of them."""
    records = case.slots()
    rows = np.flatnonzero(records.live)
    value = records.value[rows]
    return rows[1:][value[1:] < value[:-1]]


def unsorted(case: Case) -> Iterator[Hit]:
    """Records out of order in a table that the kernel takes as sorted."""
    if _sorted_at_build(case):
        records = case.slots()
        for row in _descents(case).tolist():
            last = int(records.value[:row][records.live[:row]][-1])
            yield Hit(
                f"row {row} ({int(records.value[row]):#x}) is less than the record in front of it ({last:#x})", row
            )


def null_after_live(case: Case) -> Iterator[Hit]:
    """Null slots between the live ones of a table whose zeros lead."""
    records = case.slots()
    if records.live.any() and _sorted_at_build(case):
        first = int(np.argmax(records.live))
        for row in (first + np.flatnonzero(records.null[first:])).tolist():
            yield Hit(f"row {row} is null behind {int(records.live[:row].sum())} live records", row)


def null_not_skipped(case: Case) -> Iterator[Hit]:
    """Zeros that the kernel adjusts before it tests them."""
    records, shape = case.slots(), case.the().shape
    if shape is None or shape.adjust == 0 or shape.called or not records.zero.any():
        return
    if records.zero[0] or tests_zero_first(case.image):
        return
    for row in np.flatnonzero(records.zero).tolist():
        yield Hit(f"row {row} is 0; this kernel adds {shape.adjust or 4} before it tests for 0", row)


def record_lost(case: Case) -> Iterator[Hit]:
    """Slots of a relocatable file that no relocation fills any more."""
    if isinstance(case.trouble, RecordError):
        if any(part in case.trouble.what for part in LOST):
            yield Hit(_sentence(case.trouble))
    elif case.records is not None and not case.image.linked:
        for row in np.flatnonzero(case.records.null).tolist():
            yield Hit(f"row {row} has no relocation: its function is gone, the loader reads 0", row)


def _sentence(error: RecordError) -> str:
    return error.what + (f": {error.found}" if error.found else "")


def only_init(case: Case) -> Iterator[Hit]:
    """Every record is init text."""
    index = np.flatnonzero(case.live)
    if len(index) and case.init[index].all():
        yield Hit(f"all {len(index)} live records are init text: {some(case, index)}", count=len(index))


FINDS = {
    "table-ends": table_ends,
    "slot-relocation": slot_relocation,
    "word-ignored": word_ignored,
    "duplicate": duplicate,
    "unsorted": unsorted,
    "null-after-live": null_after_live,
    "null-not-skipped": null_not_skipped,
    "record-lost": record_lost,
    "only-init": only_init,
}
