"""arm64: NOPs in front of a function's entry, and the pad that makes a hook of them which one word turns on and off.

    record ─► mov  x9, x30            the caller's return address
              bl   TARGET
              mov  x30, x9            left out where TARGET returns as the kernel's trampolines do, with x30 := x9
              b    behind the site
              nop                     what is left over
     entry ─► [bti c]
      site ─► nop, or b record        the switch

With the return address on the stack TARGET may use x9: `stp x29, x30, [sp, #-16]!` is in front of the call, and
`ldp x29, x30, [sp], #16` behind it. The pad is entered by a direct branch alone, which needs no `bti`.
"""

from __future__ import annotations

from ftpatch.arch.fronts import PAD_BEFORE, PADDING, PadForm, Pads
from ftpatch.arch.shape import Branch, Shape, Word

NOP = Word(0xD503_201F, text="nop")
ANY_BTI = Word(0xD503_241F, 0xFFFF_FF3F, "bti {c,j,jc}")
MOV_X9_X30 = Word(0xAA1E_03E9, text="mov x9, x30")
MOV_X30_X9 = Word(0xAA09_03FE, text="mov x30, x9")
PUSH = Word(0xA9BF_7BFD, text="stp x29, x30, [sp, #-16]!")
POP = Word(0xA8C1_7BFD, text="ldp x29, x30, [sp], #16")
BL = Branch(Word(0x9400_0000, 0xFC00_0000, "bl"), 26)
B = Branch(Word(0x1400_0000, 0xFC00_0000, "b"), 26)

SHORT = "one NOP is too short for a call that keeps the return address: -fpatchable-function-entry=2 has room for it"
NOTHING = "there are no NOPs behind the entry, so that nothing can lead to those in front of it"
SOURCE = "gcc and clang -fpatchable-function-entry=N,M"

KEPT = "x0-x8, x18-x29, v0-v7, sp"

FRONTS = (
    Shape(
        "pfe-front", entry=0, start=0, old=(NOP, NOP), new=(MOV_X9_X30, BL.word), branch=BL, skips=((ANY_BTI,),),
        text="two NOPs behind the entry, others in front of it (-fpatchable-function-entry=N,M, N − M > 1)",
        skip_text="a BTI in front of the site", source=SOURCE,
    ),
    Shape(
        PAD_BEFORE, entry=0, start=0, old=(NOP,), new=(B.word,), branch=B, skips=((ANY_BTI,),), switch=True,
        text="one NOP behind the entry, a switch, and a pad in front of it (-fpatchable-function-entry=N,N-1)",
        skip_text="a BTI in front of the site", source=SOURCE,
    ),
    Shape(
        PADDING, entry=0, start=0, old=(), new=(), branch=B, skips=((ANY_BTI,),), refusal=NOTHING,
        text="NOPs in front of the entry alone: padding, no sites (-fpatchable-function-entry=N,N)",
        skip_text="a BTI at the entry", source=SOURCE,
    ),
    Shape(
        "pfe1", entry=0, start=0, old=(NOP,), new=(BL.word,), branch=BL, skips=((ANY_BTI,),), skip_at=-1, refusal=SHORT,
        text="one NOP at the entry (-fpatchable-function-entry=1)", skip_text="a BTI in front of the site",
        source=SOURCE,
    ),
)  # fmt: skip

PADS = Pads(
    forms=(
        PadForm("register", (MOV_X9_X30, BL.word, B.word), 1, returns=True,
                contract=f"{KEPT} kept, x30 := x9, return to the old x30"),
        PadForm("register", (MOV_X9_X30, BL.word, MOV_X30_X9, B.word), 1, returns=False,
                contract=f"{KEPT} and x9 kept, return to x30"),
        PadForm("stack", (PUSH, BL.word, POP, B.word), 1, returns=False, contract=f"{KEPT} kept, return to x30"),
    ),
    back=B,
)  # fmt: skip
