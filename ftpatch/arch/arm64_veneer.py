"""arm64: the stub that carries a branch beyond ±128 MB, and what tells that padding in the text is not code.

    adrp  x16, target
    add   x16, x16, #lo12
    br    x16

x16 and x17 are free between a caller and its callee (AAPCS64, 6.1.1: a linker may put such a stub between any two
functions); at a patch site x9 to x17 are, so that a call through it is as good as a straight one: `bl` sets x30 to
behind the site, and nothing here changes it. It holds no address, only a distance, so that it moves with the kernel.
What reaches it is a direct branch, so it needs no landing pad; its target does, in a kernel that guards indirect jumps,
where `br x16` may enter a `bti c`.
Source: Arm ARM (DDI 0487) C4.1, C6.2.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch.parts import Veneer
from ftpatch.arch.shape import Word
from ftpatch.arrays import I64, U32

ADRP = Word(0x9000_0000, 0x9F00_0000, "adrp")
ADD_IMM = Word(0x9100_0000, 0xFFC0_0000, "add Xd, Xn, #imm12")
BR_X16 = Word(0xD61F_0200, text="br x16")
BTI_C = Word(0xD503_245F, text="bti c")
ERRATUM_843419 = (0xFF8, 0xFFC)  # page offsets where an ADRP may misbehave on Cortex-A53
# what `br x16` may enter: no plain `bti`, which takes no jump at all
PADS = (
    BTI_C,
    Word(0xD503_249F, text="bti j"),
    Word(0xD503_24DF, text="bti jc"),
    Word(0xD503_233F, text="paciasp"),
    Word(0xD503_237F, text="pacibsp"),
)
# instructions that the one behind them is not executed after. No brk: behind that of a WARN() the kernel goes on.
ENDS = (
    Word(0x1400_0000, 0xFC00_0000, "b"),
    Word(0xD61F_0000, 0xFFFF_FC1F, "br"),
    Word(0xD65F_0000, 0xFFFF_FC1F, "ret"),
    Word(0xD65F_0BFF, 0xFFFF_FBFF, "retaa, retab"),
    Word(0xD61F_0800, 0xFEFF_F800, "braa, brab, braaz, brabz"),
    Word(0xD69F_03E0, text="eret"),
)
# what names a place by its distance in words: (instructions, lowest bit and width of the distance)
NAMING = (
    (Word(0x1400_0000, 0x7C00_0000, "b, bl"), 0, 26),
    (Word(0x5400_0000, 0xFF00_0000, "b.cond"), 5, 19),
    (Word(0x3400_0000, 0x7E00_0000, "cbz, cbnz"), 5, 19),
    (Word(0x3600_0000, 0x7E00_0000, "tbz, tbnz"), 5, 14),
    (Word(0x1800_0000, 0x3B00_0000, "ldr Xt, label"), 5, 19),
)
ADR = Word(0x1000_0000, 0x9F00_0000, "adr")
BY_LOW_BITS = 16  # words behind an ADRP in which its page is made an address


def adrp(va: int, target: int, register: int) -> int:
    """The word `adrp Xregister, target` at `va`."""
    pages = (target >> 12) - (va >> 12)
    if not -(1 << 20) <= pages < 1 << 20:
        raise AssertionError("an adrp out of reach was to be encoded")
    return ADRP.bits | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5 | register


def adrp_target(word: int, va: int) -> int:
    """The page address that an ADRP word at `va` forms."""
    pages = (word >> 29 & 3) | (word >> 5 & 0x7FFFF) << 2
    return (va & ~0xFFF) + ((pages ^ 1 << 20) - (1 << 20) << 12)


def veneer(va: int, target: int) -> U32:
    """The words of a stub at `va` that goes on to `target`; it may be branched to from anywhere."""
    add = ADD_IMM.bits | (target & 0xFFF) << 10 | 16 << 5 | 16
    return np.array([adrp(va, target, 16), add, BR_X16.bits], dtype=np.uint32)


def leads_to(words: U32, va: int) -> int | None:
    """Where a stub of `veneer`'s words at `va` goes on; None where the words are no such stub."""
    if len(words) < 3 or int(words[0]) & 0x9F00_001F != ADRP.bits | 16 or int(words[2]) != BR_X16.bits:
        return None
    if int(words[1]) & 0xFFC0_03FF != ADD_IMM.bits | 16 << 5 | 16:
        return None
    return adrp_target(int(words[0]), va) + (int(words[1]) >> 10 & 0xFFF) & 0xFFFF_FFFF_FFFF_FFFF


def named(words: U32, va: int, starts: I64, ends: I64) -> I64:
    """Which of some places, ascending indices, instructions name: as the end of a branch, or as an address.

    words: code from `va` on; starts, ends: va of each place and behind it, ascending, as int64.
    """
    to, code, at = [np.zeros(0, dtype=np.int64)], words, None
    if np.count_nonzero(words) * 2 < len(words):  # a synthetic image is mostly padding
        at = np.flatnonzero(words)
        code = words[at]

    def rows_of(word: Word) -> tuple[I64, I64]:
        """(va, word) of each instruction of a kind."""
        rows = np.flatnonzero((code & np.uint32(word.mask)) == np.uint32(word.bits))
        return va + 4 * (rows if at is None else at[rows]), code[rows].astype(np.int64)

    for word, lsb, width in NAMING:
        here, wide = rows_of(word)
        to.append(here + 4 * _signed(wide >> lsb, width))
    here, wide = rows_of(ADR)
    to.append(here + _signed(wide >> 29 & 3 | (wide >> 5 & 0x7FFFF) << 2, 21))
    here, wide = rows_of(ADRP)
    pages = (here & ~0xFFF) + (_signed(wide >> 29 & 3 | (wide >> 5 & 0x7FFFF) << 2, 21) << 12)
    span = np.flatnonzero((pages > starts[0] - 0x1000) & (pages < ends[-1]))
    near = np.searchsorted(ends, pages[span], side="right") < np.searchsorted(starts, pages[span] + 0x1000)
    for row in span[near].tolist():  # few name the pages that hold a place
        to.append(_with_low_bits(words, (int(here[row]) - va) // 4, int(pages[row])))
    end = np.concatenate(to)
    end = end[(end >= starts[0]) & (end < ends[-1])]  # nearly all are elsewhere
    place = np.searchsorted(starts, end, side="right") - 1
    inside = (place >= 0) & (end < ends[place])  # −1 is the last place, and not meant
    return np.unique(place[inside])


def _signed(field: I64, width: int) -> I64:
    """Numbers of so many bits, with their sign."""
    sign = np.int64(1 << width - 1)
    return np.asarray(((field & ((1 << width) - 1)) ^ sign) - sign)


def _with_low_bits(words: U32, at: int, page: int) -> I64:
    """Addresses that the ADRP at an index, of that page, may form with the adds, loads and stores behind it."""
    register, ends = int(words[at]) & 31, []
    for word in words[at + 1 : at + 1 + BY_LOW_BITS].tolist():
        if word >> 5 & 31 != register:
            continue
        if word & ADD_IMM.mask == ADD_IMM.bits:
            ends.append(page + (word >> 10 & 0xFFF))
        elif word & 0x3B00_0000 == 0x3900_0000:  # a load or store with an unsigned offset, in units of what it moves
            ends += [page + ((word >> 10 & 0xFFF) << scale) for scale in (word >> 30, 4)]
    return np.array(ends, dtype=np.int64)


VENEER = Veneer(veneer, 12, (1 << 32) - (1 << 12), ERRATUM_843419, leads_to, PADS, named, ENDS)
