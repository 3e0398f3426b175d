"""Static calls of arm64: trampolines alone, which read their destination from memory.

Kernels that are built with CFI have them (Linux 7.x). Nothing records who calls, and nobody is rewritten:

    __SCT__NAME:  hint #34            bti c
                  adrp x16, literal
                  ldr  x16, [x16, :lo12:literal]
                  br   x16
    literal:      .quad FUNCTION      in .rodata, eight bytes that an update replaces by one store

A key is the function's pointer and nothing else. NULL and "return 0" both go to __static_call_return0.
Source: arch/arm64/include/asm/static_call.h, arch/arm64/kernel/static_call.c.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch.shape import Branch, Word
from ftpatch.arch.static_call_forms import LiteralLoad, StaticCallForm, StaticCalls
from ftpatch.arrays import U32, U64

BL = Branch(Word(0x9400_0000, 0xFC00_0000, "bl"), 26)
B = Branch(Word(0x1400_0000, 0xFC00_0000, "b"), 26)
BTI_C = Word(0xD503_245F, text="bti c")
ADRP_X16 = Word(0x9000_0010, 0x9F00_001F, "adrp x16, literal")
LDR_X16 = Word(0xF940_0210, 0xFFC0_03FF, "ldr x16, [x16, :lo12:literal]")
BR_X16 = Word(0xD61F_0200, text="br x16")


def literal(code: U32, va: U64) -> U64:
    """Where each trampoline reads its destination. code: (n, 4) words at each va."""
    page, load = code[:, 1].astype(np.int64), code[:, 2].astype(np.int64)
    pages = (page >> 29 & 3 | page >> 3 & 0x1F_FFFC ^ 1 << 20) - (1 << 20)
    address: U64 = ((va.view(np.int64) + 4 & ~0xFFF) + (pages << 12) + (load >> 10 & 0xFFF) * 8).view(np.uint64)
    return address


STATIC_CALLS = StaticCalls(
    sites=(StaticCallForm("call", (BL.word,), BL), StaticCallForm("tail", (B.word,), B)),
    trampolines=(
        StaticCallForm("jump", (BTI_C, ADRP_X16, LDR_X16, BR_X16), literal=LiteralLoad(literal, relocated_at=4)),
    ),
    size=16, inline=False, direct_branches=(283, 282),  # R_AARCH64_CALL26, JUMP26
)  # fmt: skip
