"""ppc64le: NOPs in front of a function's entry, of which it may have two.

gcc 13 and newer leaves those "in front" between the global entry's set-up of r2 and the local entry, where a function
has both, else in front of the symbol: either way right before the local entry, which all callers pass. A switch there
could lead to a pad in front of it only if the pad let those pass who come in by the global entry: its first word would
have to be a jump over it. Nobody makes such pads yet, so that single NOPs are refused in words.

gcc 12 leaves all of them in front of the set-up of r2, which is then wrong: its records name global entries.
"""

from __future__ import annotations

from ftpatch.arch.fronts import PAD_BEFORE, PADDING
from ftpatch.arch.shape import Branch, Shape, Word

NOP = Word(0x6000_0000, text="nop")
MFLR_R0 = Word(0x7C08_02A6, text="mflr r0")
BL = Branch(Word(0x4800_0001, 0xFC00_0003, "bl"), 24, lsb=2)
B = Branch(Word(0x4800_0000, 0xFC00_0003, "b"), 24, lsb=2)
BROKEN = "the NOPs stand in front of the set-up of r2, which is then off: code that gcc 12 breaks"
NO_SWITCH = (
    "the NOPs in front of the local entry lie behind the global one: whoever comes in there would run through a pad, "
    "on or off; -fpatchable-function-entry=N,M with N - M = 2 has whole sites"
)
NOTHING = "there are no NOPs behind the entry, so that nothing can lead to those in front of it"
SOURCE = "gcc's rs6000_print_patchable_function_entry()"

FRONTS = (
    Shape(
        "pfe-front-global", entry=0, start=0, old=(NOP, NOP), new=(MFLR_R0, BL.word), branch=BL, at_global=True,
        refusal=BROKEN, text="NOPs on both sides of the global entry, as gcc 12 makes them: broken code", source=SOURCE,
    ),
    Shape(
        "pfe-front", entry=0, start=0, old=(NOP, NOP), new=(MFLR_R0, BL.word), branch=BL,
        text="two NOPs at the local entry, others in front of it (-fpatchable-function-entry=N,M, N − M > 1)",
        source=SOURCE,
    ),
    Shape(
        PAD_BEFORE, entry=0, start=0, old=(NOP,), new=(B.word,), branch=B, refusal=NO_SWITCH,
        text="one NOP at the local entry, others in front of it (-fpatchable-function-entry=N,N-1)", source=SOURCE,
    ),
    Shape(
        f"{PADDING}-global", entry=0, start=0, old=(), new=(), branch=B, at_global=True, refusal=NOTHING,
        text="NOPs in front of the global entry alone: padding, no sites (-fpatchable-function-entry=N,N)",
        source=SOURCE,
    ),
    Shape(
        PADDING, entry=0, start=0, old=(), new=(), branch=B, refusal=NOTHING,
        text="NOPs in front of the entry alone: padding, no sites (-fpatchable-function-entry=N,N)", source=SOURCE,
    ),
)  # fmt: skip
