"""Damage to the record table of a kernel, its end, and what packs its relocations."""

from __future__ import annotations

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.sites.records import START, STOP
from tools.sabotage.victim import Damage, Mutation, Victim

RECORD = frozenset({"verify-record", "verify-order"})


def _live(victim: Victim) -> list[int]:
    """Slots that are live in the second file, away from the ends."""
    return np.flatnonzero(victim.records.live).tolist()[1:-1] if victim.linked else []


def _value(victim: Victim, slot: int, value: int) -> list[tuple[int, bytes]]:
    """Writes that make a live slot worth another value, in the way the table has values."""
    records = victim.records
    writes = []
    if records.rela[slot] >= 0:
        writes.append(victim.put(int(victim.after.rela[1][records.rela[slot]]) + 16, value, 8))
    if records.rela[slot] < 0 or records.word[slot] == records.value[slot]:
        writes.append(victim.put(int(records.slot[slot]), value, 8))
    return writes


def record_kept(victim: Victim) -> Damage | None:
    """The table as it was before, with its relocations and its end."""
    if not victim.linked or victim.before.symbols.value(START) is None:
        return None
    writes = [(int(edit["pos"]), bytes.fromhex(edit["old"])) for owner in ("record", "symbol", "end of")
              for edit in victim.edits(owner)]  # fmt: skip
    start, stop = (victim.before.symbols.value(name) or 0 for name in (START, STOP))
    rows, pos = victim.before.rela
    for row in np.flatnonzero(rows != victim.after.rela[0]).tolist():
        if start <= int(rows["r_offset"][row]) < stop:
            writes.append((int(pos[row]), rows[row : row + 1].tobytes()))
    return Damage(writes) if writes else None


def neighbour_dropped(victim: Victim) -> Damage | None:
    """A live slot becomes null, properly for its table, and its site stays as it is."""
    live = _live(victim)
    if not live:
        return None
    records, slot = victim.records, live[len(live) // 2]
    writes = [victim.put(int(records.slot[slot]), 0, 8)]
    if records.rela[slot] >= 0:
        minus4 = victim.journal["request"]["records"] == "minus4"
        writes = [victim.put(int(records.slot[slot]), -4 if minus4 else 0, 8)]
        writes.append((int(victim.after.rela[1][records.rela[slot]]), bytes(24)))
    return Damage(writes)


def first_live_dropped(victim: Victim) -> Damage | None:
    """Where zeros lead: one zero more, so that the table is in perfect order."""
    records = victim.records
    n = int(records.zero.sum())
    if not victim.linked or not n or not records.zero[:n].all() or n == len(records) or records.rela[n] >= 0:
        return None
    return Damage([victim.put(int(records.slot[n]), 0, 8)])


def record_off_by_4(victim: Victim) -> Damage | None:
    live = _live(victim)
    return Damage(_value(victim, live[0], int(victim.records.value[live[0]]) + 4)) if live else None


def order_broken(victim: Victim) -> Damage | None:
    live = _live(victim)
    if len(live) < 2:
        return None
    one, two = (int(victim.records.value[slot]) for slot in live[:2])
    return Damage(_value(victim, live[0], two) + _value(victim, live[1], one))


def record_twice(victim: Victim) -> Damage | None:
    live = _live(victim)
    return Damage(_value(victim, live[0], int(victim.records.value[live[1]]))) if len(live) > 1 else None


def zero_in_the_middle(victim: Victim) -> Damage | None:
    """The last leading zero changes places with the record behind it and two more."""
    records, n = victim.records, int(victim.records.zero.sum())
    if not victim.linked or not n or not records.zero[:n].all() or len(records) < n + 3 or records.rela[n] >= 0:
        return None
    values = [int(value) for value in records.value[n : n + 2]]
    return Damage([victim.put(int(records.slot[n - 1 + i]), value, 8) for i, value in enumerate([*values, 0])])


def slot_unrelocated(victim: Victim) -> Damage | None:
    """A live slot keeps its value in the file, and loses its relocation."""
    for slot in _live(victim):
        row = int(victim.records.rela[slot])
        if row >= 0:
            word = victim.put(int(victim.records.slot[slot]), int(victim.records.value[slot]), 8)
            return Damage([(int(victim.after.rela[1][row]), bytes(24)), word])
    return None


def slot_relocated_twice(victim: Victim) -> Damage | None:
    rows, pos = victim.after.rela
    free = np.flatnonzero((rows["r_offset"] == 0) & (rows["r_info"] == 0))
    slots = [slot for slot in _live(victim) if victim.records.rela[slot] >= 0]
    if not slots or not len(free):
        return None
    row = int(victim.records.rela[slots[0]])
    return Damage([(int(pos[free[-1]]), rows[row : row + 1].tobytes())])


def other_relocation(victim: Victim) -> Damage | None:
    """The addend of a relocation that has nothing to do with the patch."""
    if not victim.linked or not len(victim.after.rela[0]):
        return None
    rows, pos = victim.after.rela
    start, stop = (victim.after.symbols.value(name) or 0 for name in (START, STOP))
    places = rows["r_offset"]
    hit = np.flatnonzero((places != 0) & ((places < np.uint64(start)) | (places >= np.uint64(stop))))
    hit = hit[rows[hit] == victim.before.rela[0][hit]]
    return victim.flip(int(pos[hit[0]]) + 16, 8) if len(hit) else None


def packed_bit(victim: Victim) -> Damage | None:
    for sec in np.flatnonzero(victim.after.shdr["sh_type"] == t.SHT_RELR).tolist():
        size = int(victim.after.shdr["sh_size"][sec])
        if size >= 16:
            return victim.flip(victim.start(sec) + size - 3, 0x10)
    return None


def end_in_code(victim: Victim) -> Damage | None:
    edits = victim.edits("end of")
    return Damage([victim.put(int(edits[-1]["pos"]), victim.word(int(edits[-1]["pos"])) ^ 8 << 10)]) if edits else None


def end_not_moved_in_code(victim: Victim) -> Damage | None:
    edits = victim.edits("end of")
    return Damage([(int(edit["pos"]), bytes.fromhex(edit["old"])) for edit in edits]) if edits else None


def end_symbol(victim: Victim) -> Damage | None:
    rows = victim.after.symbols.rows_named(STOP)
    if not len(rows) or not len(victim.records):
        return None
    pos = victim.symbol(int(rows[0]), "st_value")
    return Damage([victim.put(pos, int.from_bytes(victim.read(pos, 8), "little") - 8, 8)])


KINDS = (
    Mutation("record kept", RECORD, record_kept),
    Mutation("neighbour's record dropped", RECORD, neighbour_dropped),
    Mutation("first live record dropped", RECORD, first_live_dropped),
    Mutation("record off by 4", RECORD, record_off_by_4),
    Mutation("records in another order", RECORD, order_broken),
    Mutation("record twice", RECORD, record_twice),
    Mutation("null slot in the middle", RECORD, zero_in_the_middle),
    Mutation("live slot unrelocated", RECORD, slot_unrelocated),
    Mutation("live slot relocated twice", RECORD, slot_relocated_twice),
    Mutation("foreign relocation's addend", frozenset({"verify-relocation"}), other_relocation),
    Mutation("RELR bit", frozenset({"verify-relocation", "verify-record"}), packed_bit),
    Mutation("table's end in ftrace_init", RECORD, end_in_code),
    Mutation("table's end not lowered in ftrace_init", RECORD, end_not_moved_in_code),
    Mutation("table's end by symbol", RECORD, end_symbol),
)
