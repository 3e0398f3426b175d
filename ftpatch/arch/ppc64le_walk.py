"""Direct branches of ppc64le, and what a piece of code runs before it comes to some call."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ftpatch.arch.shape import Branch, Word
from ftpatch.arrays import U32

BL = Branch(Word(0x4800_0001, 0xFC00_0003, "bl"), 24, lsb=2)
B = Branch(Word(0x4800_0000, 0xFC00_0003, "b"), 24, lsb=2)
BC = Word(0x4000_0000, 0xFC00_0003, "bc")


def runs_before(
    read: Callable[[int, int], U32], leads_to: Callable[[int], int], start: int, stop: int
) -> tuple[set[int], str]:
    """Addresses of the functions that the code at `start` runs before `stop` has run, both included; and why the
    walk is not complete, empty where it is.

    read(va, n): up to n instruction words at va; leads_to(va): the function behind a linker's branch stub. Calls are
    followed into the callees; indirect ones cannot be. A call may go to the local entry of `stop`.
    """
    functions, todo, why = {start, stop}, [start, *([stop] if len(read(stop, 1)) else [])], ""
    while todo:
        calls, jumps, reason = _calls(read, leads_to, todo.pop(), stop)
        why = why or reason
        todo += [va for va in calls if va not in functions]
        functions |= calls | jumps
        if len(todo) > MAX_FUNCTIONS:
            return functions, "too many functions"
    return functions, why


LOCAL_ENTRY = 8  # bytes from the global to the local entry of a TOC function
MAX_FUNCTIONS, MAX_WORDS = 256, 1 << 14


def _calls(
    read: Callable[[int, int], U32], leads_to: Callable[[int], int], start: int, stop: int
) -> tuple[set[int], set[int], str]:
    """What one function calls on paths that have not reached `stop` yet, where it jumps (a tail call is one of these,
    and is followed on the spot), and why not all is known."""
    seen: set[int] = set()
    calls: set[int] = set()
    jumps: set[int] = set()
    todo, why, ends = [start], "", (stop, stop + LOCAL_ENTRY)
    while todo:
        va = todo.pop()
        while va not in seen:
            seen.add(va)
            words = read(va, 1)
            if not len(words) or len(seen) > MAX_WORDS:
                return calls, jumps, f"the code at {va:#x} cannot be read"
            word = int(words[0])
            if word & BL.word.mask == BL.word.bits:
                target = leads_to(va + int(BL.decode(words)[0]))
                if target in ends:
                    break
                calls.add(target)
            elif word & B.word.mask == B.word.bits:
                va = leads_to(va + int(B.decode(words)[0]))
                if va in ends:
                    break
                jumps.add(va)
                continue
            elif word & BC.mask == BC.bits:
                todo.append(va + ((word & 0xFFFC ^ 0x8000) - 0x8000))
            elif word >> 26 == 19 and word & 0x7FE in (0x20, 0x420):  # bclr, bcctr
                if word & 1 or (word & 0x400 and not _returns(read(va - 16, 4))):
                    why = f"an indirect {'call' if word & 1 else 'jump'} at {va:#x}"
                if not word & 1 and word >> 21 & 0b10100 == 0b10100:  # always taken: the path ends
                    break
            va += 4
    return calls, jumps, why


def _returns(words: U32) -> bool:
    """Whether CTR was loaded from LR in these words right before a `bctr`, so that it only returns, as _mcount does."""
    loads = (words[:-1] & np.uint32(0xFC1F_FFFF)) == np.uint32(0x7C08_02A6)  # mflr rN
    moves = words[1:] == (words[:-1] & np.uint32(0x03E0_0000) | np.uint32(0x7C09_03A6))  # mtctr rN
    return bool((loads & moves).any())
