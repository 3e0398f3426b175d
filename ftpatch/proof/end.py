"""The end of the record table in a linked kernel: its symbol, and the instructions by which ftrace_init forms it."""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import U32
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.proof.aims import formed
from ftpatch.proof.case import Case
from ftpatch.sites.records import SLOT, STOP

INIT, MAX_WORDS, APART = "ftrace_init", 1 << 16, 32
ADRP, ADD = (0x9F00_0000, 0x9000_0000), (0xFFC0_0000, 0x9100_0000)


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
    case.own("symbol", int(image.shdr["sh_offset"][int(tabs[0])]) + t.SYM.itemsize * rows + 8, 8)
    ends = [records.start + SLOT * len(records) for records in (old, new)]
    row = image.symbols.defined(INIT)
    va = int(image.symbols.rows["st_value"][row]) if row is not None else 0
    n = int(min(image.symbols.rows["st_size"][row] // 4, MAX_WORDS)) if row is not None else 0
    before, after = (side.image.code(va, n) for side in (case.before, case.after))
    found = _pairs(before, va, ends[0]) if case.arch.table_end else []
    if len(found) != 1 or len(after) != len(before):
        case.say("verify-record", f"the table's end moved from {ends[0]:#x} to {ends[1]:#x}, and {INIT} is not seen to "
                 f"form it ({len(found)} places)")  # fmt: skip
        return
    first, second = found[0]
    case.own("end of the table", image.pos_of_va(va) + 4 * np.array(found[0], dtype=np.int64), 4)
    same = all((int(a) ^ int(b)) & mask == 0 for a, b, mask in (
        (before[first], after[first], ADRP[0] | 31), (before[second], after[second], 0xFFC0_03FF)
    ))  # fmt: skip
    made = formed(int(after[first]), int(after[second]), va + 4 * first)
    if not same or made != ends[1]:
        case.say("verify-record", f"{INIT} takes {made:#x} for the end of the record table, which is {ends[1]:#x}",
                 function=INIT, pos=_pos(image, va, second))  # fmt: skip


def _pos(image: Image, va: int, word: int) -> int:
    return image.pos_of_va(va) + 4 * word


def _pairs(words: U32, va: int, value: int) -> list[tuple[int, int]]:
    """Word indices of every ADRP and ADD that form an address."""
    found = []
    for first in np.flatnonzero((words & np.uint32(ADRP[0])) == np.uint32(ADRP[1])).tolist():
        register = int(words[first]) & 31
        for second in range(first + 1, min(first + APART, len(words))):
            word = int(words[second])
            if word & ADD[0] == ADD[1] and word >> 5 & 31 == register:
                if formed(int(words[first]), word, va + 4 * first) == value:
                    found.append((first, second))
                break
    return found
