"""The end of the record table in a linked kernel: its symbol, and the instructions by which ftrace_init forms it."""

from __future__ import annotations

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.proof.case import Case
from ftpatch.sites.records import SLOT, STOP

INIT, MAX_WORDS = "ftrace_init", 1 << 16


def check_end(case: Case) -> None:
    """Where the table has another number of slots now, code and symbol must say so, and nothing else may."""
    old, new = case.before.records, case.after.records
    if len(old) == len(new) or not old.start:
        return
    image = case.before.image
    if new.start != old.start:
        case.say("verify-record", f"the record table begins at {new.start:#x}, it began at {old.start:#x}")
        return
    rows = image.symbols.rows_named(STOP)
    tabs = np.flatnonzero(image.shdr["sh_type"] == t.SHT_SYMTAB)
    if len(tabs):  # else there is none to move
        case.account_for("symbol", int(image.shdr["sh_offset"][int(tabs[0])]) + t.SYM.itemsize * rows + 8, 8)
    ends = [records.start + SLOT * len(records) for records in (old, new)]
    row = image.symbols.defined(INIT)
    va = int(image.symbols.rows["st_value"][row]) if row is not None else 0
    n = int(min(image.symbols.rows["st_size"][row] // 4, MAX_WORDS)) if row is not None else 0
    before, after = (side.image.code(va, n) for side in (case.before, case.after))
    address = case.tables.address_pairs
    places = address.find(before, va, ends[0]) if address else []
    if address is None or len(places) != 1 or len(after) != len(before):
        case.say("verify-record", f"the table's end moved from {ends[0]:#x} to {ends[1]:#x}, and {INIT} is not seen to "
                 f"form it ({len(places)} places)")  # fmt: skip
        return
    first, second = places[0]
    case.account_for("end of the table", image.pos_of_va(va) + 4 * np.array(places[0], dtype=np.int64), 4)
    old_pair, new_pair = ((int(words[first]), int(words[second])) for words in (before, after))
    same, made = address.same_else(old_pair, new_pair), address.formed(*new_pair, va + 4 * first)
    if not same or made != ends[1]:
        case.say("verify-record", f"{INIT} takes {made:#x} for the end of the record table, which is {ends[1]:#x}",
                 function=INIT, pos=image.pos_of_va(va) + 4 * second)  # fmt: skip
