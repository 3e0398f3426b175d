"""Rules about the record table itself: its ends, its slots, their relocations and their order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.errors import RecordError
from ftpatch.kernel.boot import tests_zero_first
from ftpatch.rules.case import Case, Hit

# which rule reports a RecordError, by a part of its message; `table-ends` those that are not here
REPORTED_BY = {
    "its records name nothing": "symbols-stripped", "names no symbol": "record-lost", "not defined here": "record-lost",
    "two relocations": "slot-relocation", "across two slots": "slot-relocation",
    "another type": "slot-relocation", "outside the section's slots": "slot-relocation",
}  # fmt: skip


def _unreadable(case: Case, rule: str) -> Iterator[Hit]:
    """Why the table cannot be read, if this rule reports it."""
    error = case.trouble
    if not isinstance(error, RecordError):
        return
    if rule == next((rule for part, rule in REPORTED_BY.items() if part in error.what), "table-ends"):
        yield Hit(error.what + (f": {error.found}" if error.found else ""))


def table_ends(case: Case) -> Iterator[Hit]:
    """The table cannot be read at all."""
    return _unreadable(case, "table-ends")


def slot_relocation(case: Case) -> Iterator[Hit]:
    """Slots that the loader would fill twice, or not although it fills the others."""
    yield from _unreadable(case, "slot-relocation")
    records = case.records
    covered = (records.rela >= 0) | records.relr
    n = int(covered.sum())
    if case.image.linked and n:
        for row in np.flatnonzero(records.live & ~covered).tolist():
            slot = f"row {row} ({int(records.value[row]):#x})"
            yield Hit(f"{slot} has no relocation, {n} other slots have one: wrong once the kernel moves", row)


def word_ignored(case: Case) -> Iterator[Hit]:
    """Slots whose word differs from the addend that replaces it."""
    records = case.records
    usual = records.value if case.arch.echoes else np.zeros(len(records), dtype=np.uint64)
    odd = (records.rela >= 0) & (records.word != usual) & (records.word != records.value)
    for row in np.flatnonzero(odd).tolist():
        word, value = int(records.word[row]), int(records.value[row])
        yield Hit(f"row {row} holds {word:#x}, its relocation writes {value:#x} over it", row)


def duplicate(case: Case) -> Iterator[Hit]:
    """Live records that name a place which an earlier row names."""
    records = case.records
    rows = np.flatnonzero(records.live & (records.sec >= 0))
    va = case.image.va(records.sec[rows], records.off[rows])
    order = np.argsort(va, kind="stable")
    rows, va = rows[order], va[order]
    for at in np.flatnonzero(va[1:] == va[:-1]).tolist():
        yield Hit(f"rows {rows[at]} and {rows[at + 1]} name the same place {int(va[at]):#x}", int(rows[at + 1]))


def _sorted_at_build(case: Case) -> bool:
    """Whether the table was sorted by the build and will not be by the kernel: its configuration says so, or it shows
    that itself."""
    option = case.kconfig.get("BUILDTIME_MCOUNT_SORT")
    if option or "DYNAMIC_FTRACE" in case.kconfig:
        return option == "y"
    return not case.arch.sorts_at_boot and case.records.zeros_lead


def unsorted(case: Case) -> Iterator[Hit]:
    """Records out of order in a table that the kernel takes as sorted."""
    records = case.records
    for row in records.descents.tolist() if _sorted_at_build(case) else ():
        value, last = int(records.value[row]), int(records.value[:row][records.live[:row]][-1])
        yield Hit(f"row {row} ({value:#x}) is less than the record in front of it ({last:#x})", row)


def null_after_live(case: Case) -> Iterator[Hit]:
    """Null slots between the live ones of a table whose zeros lead."""
    records = case.records
    if records.live.any() and _sorted_at_build(case):
        first = int(np.argmax(records.live))
        for row in (first + np.flatnonzero(records.null[first:])).tolist():
            yield Hit(f"row {row} is null behind {int(records.live[:row].sum())} live records", row)


def null_not_skipped(case: Case) -> Iterator[Hit]:
    """Zeros that the kernel adjusts before it tests them."""
    records, shape = case.records, case.table.shape
    if shape is None or shape.adjust == 0 or shape.called or not records.zero.any():
        return
    if records.zero[0] or tests_zero_first(case.image):
        return
    for row in np.flatnonzero(records.zero).tolist():
        yield Hit(f"row {row} is 0; this kernel adds {shape.adjust or 4} before it tests for 0", row)


def record_lost(case: Case) -> Iterator[Hit]:
    """Slots of a relocatable file that no relocation fills any more."""
    yield from _unreadable(case, "record-lost")
    for row in np.flatnonzero(case.records.null).tolist() if not case.image.linked else ():
        yield Hit(f"row {row} has no relocation: its function is gone, the loader reads 0", row)


def symbols_stripped(case: Case) -> Iterator[Hit]:
    """A relocatable file without symbols, whose records name nothing."""
    return _unreadable(case, "symbols-stripped")


def only_init(case: Case) -> Iterator[Hit]:
    """Every record is init text."""
    index = np.flatnonzero(case.live)
    if len(index) and case.init[index].all():
        yield Hit(f"all {len(index)} live records are init text: {case.some(index)}", count=len(index))
