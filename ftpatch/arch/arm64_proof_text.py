"""arm64: which places the code of a file goes to or makes the address of, as the proof reads it.

Source: Arm ARM (DDI 0487) C4.1, by the encoding groups: bits 28:25 are 101x for branches, 100x for PC-relative
addresses and additions, x1x0 for loads and stores.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, U32

PAGE = 1 << 12
NEAR = 1 << 20  # bytes that all but b, bl and adrp reach
REACH = 24  # words behind an ADRP in which its page may become an address


def leaves(word: int) -> bool:
    """b; and the unconditional branches to a register, but for blr and its authenticated forms"""
    return word >> 26 == 0b000101 or (word >> 25 == 0b1101011 and word >> 21 & 15 not in (0b0001, 0b1001))


def names(words: U32, va: int, low: int, high: int) -> bool:
    """Whether an instruction goes to [low, high), loads from there, or makes an address there."""
    rows = np.flatnonzero((words & np.uint32(0x7C00_0000)) == np.uint32(0x1400_0000))  # b, bl
    if _any_to(4 * rows + 4 * _number(words[rows].astype(np.int64), 26), low - va, high - va):
        return True
    first = max((low - va - NEAR) // 4, 0)
    return _near(words[first : max((high - va + NEAR) // 4, 0)], va + 4 * first, low, high) or _by_page(
        words, va, low, high
    )


def _near(words: U32, va: int, low: int, high: int) -> bool:
    """The same of instructions that reach no farther than 1 MB."""
    wide, here = words.astype(np.int64), np.arange(len(words), dtype=np.int64) * 4
    compare = wide >> 25 & 63 == 0b011010  # cbz, cbnz
    condition = wide >> 24 == 0b01010100  # b.cond
    bit = wide >> 25 & 63 == 0b011011  # tbz, tbnz
    literal = wide >> 24 & 0b111011 == 0b011000  # ldr, ldrsw, prfm
    adr = wide >> 24 & 0b10011111 == 0b00010000
    far, close = compare | condition | literal, wide[bit] >> 5
    ends = (
        here[far] + 4 * _number(wide[far] >> 5, 19),
        here[bit] + 4 * _number(close, 14),
        here[adr] + _number((wide[adr] >> 5 & 0x7FFFF) << 2 | wide[adr] >> 29 & 3, 21),
    )
    return any(_any_to(end, low - va, high - va) for end in ends)


def _any_to(ends: I64, low: int, high: int) -> bool:
    return bool(((ends >= low) & (ends < high)).any())


def _by_page(words: U32, va: int, low: int, high: int) -> bool:
    """Whether an ADRP with an addition, load or store behind it makes an address in [low, high)."""
    rows = np.flatnonzero((words & np.uint32(0x9F00_0000)) == np.uint32(0x9000_0000))
    adrp = words[rows].astype(np.int64)
    pages = ((np.uint64(va) + (rows * 4).astype(np.uint64)) >> np.uint64(12)).astype(np.int64)
    pages += _number((adrp >> 5 & 0x7FFFF) << 2 | adrp >> 29 & 3, 21)
    for row, page in (
        zip(rows.tolist(), pages.tolist(), strict=True) if low >> 12 in pages or high - 1 >> 12 in pages else ()
    ):
        if page not in (low >> 12, high - 1 >> 12):
            continue
        for word in words[row + 1 : row + 1 + REACH].tolist():
            if word >> 5 & 31 != int(words[row]) & 31:
                continue
            field, base = word >> 10 & 0xFFF, page * PAGE
            if word >> 22 == 0b1001000100 and low <= base + field < high:
                return True
            if word >> 24 & 0b111011 == 0b111001 and any(low <= base + (field << k) < high for k in (word >> 30, 4)):
                return True
    return False


def _number(field: I64, width: int) -> I64:
    """A field of so many bits as a number with a sign."""
    field = field & (1 << width) - 1
    return np.where(field >> width - 1, field - (1 << width), field)
