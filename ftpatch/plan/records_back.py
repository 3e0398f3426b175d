"""How a record returns to the table that it left: the inverse of `records_out`, by what the file shows.

A slot that the kernel skips takes the record again: one of the leading zeros, the others closing up in order; a zero
in the middle; or a −4. Where values live in relocations the slot gets one back, from the entries that are all zero. A
table that was cut shorter has no such slot: only a journal can undo that.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping

import numpy as np

from ftpatch.arrays import I64, U64
from ftpatch.elf import tables as t
from ftpatch.errors import PolicyError
from ftpatch.plan import kept_relocations
from ftpatch.plan.edits import Group, as_bytes
from ftpatch.plan.records_out import RecordEdits, record_group, relocation_group, rewrite
from ftpatch.sites.records import SLOT, RecordTable
from ftpatch.sites.scan import Scan

RETURNED = "sites get their records back, in slots that the kernel skips now"
BY_JOURNAL = "ftpatch restore with the patch's journal undoes it"


def give_back(scan: Scan, added: U64, rows: I64) -> RecordEdits:
    """Put records for the addresses `added` into free slots.

    rows: entries of the relocation table that may be filled, best first; `freed` of the result: those left over.
    Raises PolicyError where slots or entries are missing.
    """
    image, records = scan.image, scan.records
    # A table that was cut shorter could grow again, but nobody knows what lies behind it now.
    if len(added) > int(records.null.sum()):
        raise PolicyError("the record table has no free slot for a record to return to", image.path,
                          found=f"{int(records.null.sum())} null slots", expected=str(len(added)),
                          todo=BY_JOURNAL)  # fmt: skip
    values = _placed(records, np.sort(added), kept_relocations.own_slots(scan))
    changed = values != records.value
    wants = changed & (values != 0)
    carrier = records.carrier
    # RELR covers slots by their place: one outside it would need a relocation of another kind than its neighbours.
    if carrier == "mixed" or records.relr[wants].any() != (carrier == "relr" and bool(wants.any())):
        raise PolicyError("the record table's slots are filled in different ways", image.path, found=carrier,
                          todo=BY_JOURNAL)  # fmt: skip
    unrelocated = changed & (records.rela < 0) & (carrier == "rela")
    groups = (*rewrite(scan, values, changed & ~unrelocated), kept_relocations.of_slots(scan, values))
    if carrier != "rela":
        return RecordEdits("return", RETURNED, groups, rows)
    filled, rows = _with_relocations(scan, values, np.flatnonzero(unrelocated), rows)
    return RecordEdits("return", RETURNED, (*groups, *filled), rows)


def _placed(records: RecordTable, added: U64, own: Mapping[int, int]) -> U64:
    """The table's values with the added ones, ascending, in slots that were null.

    own: the slots that some had, by value.
    """
    zero, n_zero = records.zero, int(records.zero.sum())
    live = records.value[records.live]
    ascending = bool(np.all(live[1:] >= live[:-1]))
    # As the build's sort leaves them: zeros first, then the records in order. Both must hold afterwards, too.
    leading = n_zero > 0 and bool(zero[:n_zero].all()) and n_zero == int(records.null.sum())
    if leading and ascending and records.uniform:
        merged = np.sort(np.concatenate([live, added]))
        return np.concatenate([np.zeros(len(records) - len(merged), np.uint64), merged])
    values, free = records.value.copy(), records.null.copy()
    order = np.flatnonzero(records.live)
    # Zeros that lead a table in no order are filled from behind: so are the last records, and all of them ascend.
    for value in (added[::-1] if leading else added).tolist():
        # a slot between the neighbours that the record had, if the table is in order
        near = int(np.searchsorted(live, np.uint64(value))) if ascending else 0
        low = int(order[near - 1]) + 1 if near else 0
        inside = np.flatnonzero(free[low:])
        at = low + int(inside[0]) if len(inside) else int(np.flatnonzero(free)[0])
        if value in own and free[own[value]]:
            at = own[value]
        elif leading:  # the zeros stay in front of a table that is in no order
            at = int(np.flatnonzero(free)[-1])
        values[at], free[at] = value, False
    return values


def _with_relocations(scan: Scan, values: U64, slots: I64, rows: I64) -> tuple[tuple[Group, Group], I64]:
    """Edits that give slots an R_*_RELATIVE with their value as addend; and the rows left over."""
    image, records = scan.image, scan.records
    if len(slots) > len(rows):
        raise PolicyError("no free relocation entry for a record to return to", image.path, found=str(len(rows)),
                          expected=str(len(slots)), todo=BY_JOURNAL)  # fmt: skip
    used, left = _fitting(scan, rows, slots)
    new = np.zeros(len(slots), dtype=t.RELA)
    new["r_offset"] = np.uint64(records.start) + (SLOT * slots).astype(np.uint64)
    new["r_info"], new["r_addend"] = scan.arch.relative, values[slots].view(np.int64)
    # Some linkers repeat the addend in the word, others leave it 0; the returning slots look like the rest.
    repeats = bool((records.word == records.value)[records.live].any())
    words = values if repeats else np.zeros(len(records), np.uint64)
    return (relocation_group(image, used, as_bytes(new)), record_group(scan, slots, words)), left


def _fitting(scan: Scan, rows: I64, slots: I64) -> tuple[I64, I64]:
    """A row for each slot: where the slot's own was, if the table is in order of its places; and the other rows."""
    places, free = scan.image.rela[0]["r_offset"], sorted(rows.tolist())
    filled = np.flatnonzero(places)
    filled = filled[~np.isin(filled, rows)]
    near = np.searchsorted(places[filled], np.uint64(scan.records.start) + (SLOT * slots).astype(np.uint64))
    bounds = np.concatenate(([-1], filled, [len(places)]))
    used = np.zeros(len(slots), dtype=np.int64)
    for number in range(len(slots) - 1, -1, -1):  # from behind: neighbours fill up towards the front
        at = bisect.bisect_left(free, int(bounds[near[number] + 1])) - 1
        own = at >= 0 and free[at] > int(bounds[near[number]])
        used[number] = free.pop(at if own else 0)
    return used, np.array(free, dtype=np.int64)
