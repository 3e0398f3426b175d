"""arm64 pads as the proof reads them, instruction by instruction.

mov x9, x30; bl; b                                  the target returns with x30 := x9
mov x9, x30; bl; mov x30, x9; b                     the target keeps x9
stp x29, x30, [sp, #-16]!; bl; ldp x29, x30, [sp], #16; b
"""

from __future__ import annotations

from collections.abc import Sequence

from ftpatch.arch.proof_tables import BIT64, Pad

NOP, TO_X9, FROM_X9, PUSH, POP, CALL, JUMP = "nop", "to x9", "from x9", "push", "pop", "call", "jump"
EXACT = {0xD503_201F: NOP, 0xAA1E_03E9: TO_X9, 0xAA09_03FE: FROM_X9, 0xA9BF_7BFD: PUSH, 0xA8C1_7BFD: POP}
BY_TOP_BITS = {0b100101: CALL, 0b000101: JUMP}  # the upper six
CODE = {(TO_X9, CALL, JUMP): "target", (TO_X9, CALL, FROM_X9, JUMP): "pad", (PUSH, CALL, POP, JUMP): "stack"}
PAD_TEXTS = {
    0xAA09_03FE: "mov x30, x9",
    0xA9BF_7BFD: "stp x29, x30, [sp, #-0x10]!",
    0xA8C1_7BFD: "ldp x29, x30, [sp], #0x10",
}


def read_pad(words: Sequence[int], va: int) -> Pad:
    """What is in front of an entry. va: of the first word."""
    kinds = tuple(EXACT.get(word) or BY_TOP_BITS.get(word >> 26, f"{word:#010x}") for word in words)
    start = next((at for at, kind in enumerate(kinds) if kind != NOP), len(kinds))
    end = max((at + 1 for at, kind in enumerate(kinds) if kind != NOP), default=start)
    if start == end:
        return Pad()
    code = kinds[start:end]
    if code not in CODE:
        return Pad(f"{', '.join(code)}: no pad", start=start, end=end)
    call = start + 1
    return Pad("", CODE[code], start, call + 1, end, _to(words[call], va + 4 * call),
               _to(words[end - 1], va + 4 * (end - 1)))  # fmt: skip


def _to(word: int, va: int) -> int:
    """va that a branch leads to."""
    return va + ((word & 0x03FF_FFFF ^ 0x0200_0000) - 0x0200_0000) * 4 & BIT64
