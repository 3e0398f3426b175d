"""Where symbols end of which only the beginnings are known: where the next begins, less what fills the space between.

What is left of overridden weak functions has no symbol: it stays with the function in front of it.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, U64, Mask
from ftpatch.elf.image import Image

WORD = 4  # bytes of an instruction, where NOPs are put behind calls, and to which sizes are rounded up
TAIL, HALF = 16, 8  # bytes that are compared at once: the longest filler has as many
MAX_ROUNDS = 16  # pieces of a filling: functions begin at multiples of 64 bytes at most


def sizes_of(image: Image, va: U64, sec: I64, code: Mask) -> U64:
    """Bytes of each symbol, 0 where it is in no section. code: which of them are functions."""
    known = np.flatnonzero(sec >= 0)
    sizes = np.zeros(len(va), dtype=np.uint64)
    if not len(known):
        return sizes
    end = image.base[sec[known]] + image.shdr["sh_size"][sec[known]]
    starts = np.unique(va[known])
    after = np.searchsorted(starts, va[known], side="right")
    following = np.where(after < len(starts), starts[np.minimum(after, len(starts) - 1)], end)
    sizes[known] = np.minimum(following, end) - va[known]
    functions = np.flatnonzero(code & (sec >= 0))
    sizes[functions] = _without_filling(image, va[functions], sizes[functions].view(np.int64)).view(np.uint64)
    return sizes


def _without_filling(image: Image, va: U64, size: I64) -> I64:
    """Bytes of functions up to the last that is no filling; of what is nothing else, all."""
    start = image.pos(*image.place(va))
    fillers = [(len(filler), *_halves(filler)) for filler in image.arch.fillers.pieces]
    left = np.where(start >= TAIL, size, 0)
    going = np.flatnonzero(left > 0)
    for _ in range(MAX_ROUNDS):
        if not len(going):
            break
        front, last = image.data.rows(start[going] + left[going] - TAIL, TAIL).view("<u8").T
        cut = np.zeros(len(going), dtype=np.int64)
        for n, wanted_front, wanted_last in fillers:
            shift = np.uint64(8 * max(HALF - n, 0))
            same = (cut == 0) & (last >> shift == wanted_last) & (left[going] >= n)
            if n > HALF:
                same[same] = front[same] >> np.uint64(8 * (TAIL - n)) == wanted_front
            cut[same] = n
        left[going] -= cut
        going = going[(cut > 0) & (left[going] > 0)]
    for row in going.tolist():  # a few at the ends of sections, and areas that wait for code
        used = np.flatnonzero(image.data[int(start[row]) : int(start[row] + left[row])])
        left[row] = (int(used[-1]) // WORD + 1) * WORD if len(used) else 0
    return _with_nop_behind_call(image, start, np.where(left > 0, left, size), size)


def _with_nop_behind_call(image: Image, start: I64, left: I64, size: I64) -> I64:
    """The sizes, with a NOP that was cut off and belongs to a call."""
    nop = image.arch.fillers.behind_call
    if nop is None:
        return left
    cut = np.flatnonzero((left < size) & (start + left >= WORD))
    words = image.data.rows((start + left)[cut] - WORD, 2 * WORD).view("<u4").astype(np.uint32)
    calls = image.arch.call.word.matches(words[:, 0]) & (words[:, 1] == np.uint32(nop))
    left[cut[calls]] += WORD
    return left


def _halves(filler: bytes) -> tuple[np.uint64, np.uint64]:
    """A filler's bytes as two numbers: what lies in front of its last eight, and these."""
    return np.uint64(int.from_bytes(filler[:-HALF], "little")), np.uint64(int.from_bytes(filler[-HALF:], "little"))
