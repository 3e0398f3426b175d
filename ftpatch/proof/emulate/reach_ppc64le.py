"""Which instructions of a file a site may execute: only these are copied to where they can be.

Direct branches are followed, both ways where they have a condition; returns and computed branches end a path: what a
trampoline computes is the target, where execution stops. Around each instruction a few more words are copied, for the
constants that stubs keep beside their code. System calls are not copied, so that a site that comes to one stops there.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ftpatch.arrays import U32, U64, Mask
from ftpatch.proof.emulate.memory import Memory

MAX_WORDS = 1 << 21  # in all: some fifty for each site of a kernel
BEFORE, BEHIND = 6, 8  # words
SYSTEM_CALL = 17  # primary opcode of sc and scv


def code_words(memory: Memory, entries: Iterable[int], stops: set[int]) -> tuple[U64, U32]:
    """(va, word) of all that may be executed from the entries on, up to the stops, and of what is beside it."""
    seen = _followed(memory, entries, stops)
    va = _around(np.sort(np.fromiter(seen, dtype=np.uint64, count=len(seen))))
    word, there = memory.words(va)
    there &= ~system_calls(word)
    return va[there], word[there]


def _around(va: U64) -> U64:
    """The places of some words, ascending, and of those up to BEFORE in front and BEHIND behind each of them."""
    if not len(va):
        return va
    cut = np.flatnonzero(np.diff(va) > np.uint64(4 * (BEFORE + BEHIND + 1)))  # nearer ones share what is between them
    first, last = va[np.append(0, cut + 1)], va[np.append(cut, len(va) - 1)]
    n = ((last - first) >> np.uint64(2)).astype(np.int64) + BEFORE + BEHIND + 1
    step = np.arange(int(n.sum())) - np.repeat(np.cumsum(n) - n, n) - BEFORE
    with np.errstate(over="ignore"):
        places: U64 = np.repeat(first, n) + (4 * step).view(np.uint64)
    return places


def system_calls(word: U32) -> Mask:
    """Which words call the operating system."""
    return np.asarray((word >> np.uint32(26)) == SYSTEM_CALL)


def _followed(memory: Memory, entries: Iterable[int], stops: set[int]) -> set[int]:
    seen: set[int] = set()
    todo = list(entries)
    while todo and len(seen) < MAX_WORDS:
        va = todo.pop()
        while va not in seen and va not in stops:
            word = memory.word(va)
            if word is None:
                break
            seen.add(va)
            opcode = word >> 26
            if opcode == 18 and not word & 2:  # b, bl
                todo.append(va + ((word & 0x03FF_FFFC ^ 0x0200_0000) - 0x0200_0000))
                if not word & 1:
                    break
            elif opcode == 16 and not word & 2:  # bc
                todo.append(va + ((word & 0xFFFC ^ 0x8000) - 0x8000))
            elif opcode == 19 and word & 0x7FE in (0x20, 0x420) and not word & 1 and word >> 21 & 0b10100 == 0b10100:
                break  # blr, bctr
            elif opcode in (0, SYSTEM_CALL):
                break
            va += 4
    return seen
