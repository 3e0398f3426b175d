"""arm64 programs: the stub by which sites call a C function, and what more than in a kernel must be kept.

A function of user space may be called with arguments in x0–x7 and v0–v7, with the place of its result in x8 and with
the static chain of a nested function in x18 (gcc). The stub keeps them all, v0–v7 whole, and lies between two frame
records, the caller's and the patched function's, so that a backtrace by x29 shows both:

    ▲ caller's frame
    │ x29, caller's return address (x9)        ◄─ second argument of the hook
    │ x29, back into the function (x30)        ◄─ first argument, less the length of the call
    │ x0 … x8, x18
    ▼ q0 … q7

Sites lie in front of a `paciasp`, so that x30 holds no signature yet. The stub returns by a `ret`, as a guarded control
stack wants it, and is reached by direct calls alone, which need no `bti c`. An import is called as a stub of the .plt
does it, with the slot's address in x16, so that a slot works which is filled when it is first used.
Source: AAPCS64, 6.1.1, 6.1.2, 6.8; ELF for the Arm 64-bit Architecture (AAELF64), STO_AARCH64_VARIANT_PCS.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch.arm64 import BL, LDR_UIMM
from ftpatch.arch.arm64_contract import program_keeps_contract, program_kept_registers, returns_plainly
from ftpatch.arch.arm64_veneer import ADD_IMM, adrp
from ftpatch.arch.program_parts import HookCall, Programs
from ftpatch.arrays import U8, U32, Mask

R_AARCH64_GLOB_DAT, R_AARCH64_JUMP_SLOT, R_AARCH64_IRELATIVE = 1025, 1026, 1032
STO_VARIANT_PCS = 0x80
REACH, SLOT_REACH = (1 << 27) - (1 << 13), (1 << 32) - (1 << 13)  # of bl and adrp, from anywhere in the stub

FIRST = 0xD100_13C0  # sub  x0, x30, #4: the call's address; of pads add  x0, x30, #…: the function's entry
ENTER = (
    0xA9BF_27FD,  # stp  x29, x9, [sp, #-16]!
    0x9100_03FD,  # mov  x29, sp
    0xA9B2_7BFD,  # stp  x29, x30, [sp, #-224]!
    0x9100_03FD,  # mov  x29, sp
    0xA901_07E0,  # stp  x0, x1, [sp, #16]
    0xA902_0FE2,  # stp  x2, x3, [sp, #32]
    0xA903_17E4,  # stp  x4, x5, [sp, #48]
    0xA904_1FE6,  # stp  x6, x7, [sp, #64]
    0xA905_4BE8,  # stp  x8, x18, [sp, #80]
    0xAD03_07E0,  # stp  q0, q1, [sp, #96]
    0xAD04_0FE2,  # stp  q2, q3, [sp, #128]
    0xAD05_17E4,  # stp  q4, q5, [sp, #160]
    0xAD06_1FE6,  # stp  q6, q7, [sp, #192]
    FIRST,
    0xAA09_03E1,  # mov  x1, x9                    second argument: where the function was called from
)
LEAVE = (
    0xAD43_07E0,  # ldp  q0, q1, [sp, #96]
    0xAD44_0FE2,  # ldp  q2, q3, [sp, #128]
    0xAD45_17E4,  # ldp  q4, q5, [sp, #160]
    0xAD46_1FE6,  # ldp  q6, q7, [sp, #192]
    0xA941_07E0,  # ldp  x0, x1, [sp, #16]
    0xA942_0FE2,  # ldp  x2, x3, [sp, #32]
    0xA943_17E4,  # ldp  x4, x5, [sp, #48]
    0xA944_1FE6,  # ldp  x6, x7, [sp, #64]
    0xA945_4BE8,  # ldp  x8, x18, [sp, #80]
    0xA8CE_27FD,  # ldp  x29, x9, [sp], #224
    0xA8C1_7BFD,  # ldp  x29, x30, [sp], #16
    0xD65F_0120,  # ret  x9
)
DEEP = (
    0xAA00_03E1,  # mov  x1, x0                    second argument: where the function was called from
    0xD100_13C0,  # sub  x0, x30, #4               first argument: the call's address
)
BLR_X17, BR_X17, LINK = 0xD63F_0220, 0xD61F_0220, 1 << 31  # what makes a bl of a b


def stub(va: int, hook: HookCall, wide: bool) -> U32:
    """The words of the stub at `va`. No argument is in a register wider than q0–q7: see `variant`."""
    first = FIRST if hook.entry is None else ADD_IMM.bits | hook.entry << 10 | 30 << 5
    enter = [first if word == FIRST else word for word in ENTER]
    return np.array([*enter, *_call(va + 4 * len(ENTER), hook), *LEAVE], dtype=np.uint32)


def _call(va: int, hook: HookCall) -> list[int]:
    """The words at `va` that call the hook."""
    if not hook.slot:
        return [int(BL.encode(np.array([hook.va - va], dtype=np.int64))[0])]
    low, x16 = hook.va & 0xFFF, 16 << 5
    return [
        adrp(va, hook.va, 16),
        LDR_UIMM.bits | low // 8 << 10 | x16 | 17,  # ldr x17, [x16, #low]
        ADD_IMM.bits | low << 10 | x16 | 16,  # add x16, x16, #low
        BLR_X17,
    ]


def deep_stub(va: int, hook: HookCall, wide: bool) -> U32:
    """The words of the stub at `va` for the call that -pg makes of _mcount: an ordinary one, with where the caller goes
    on in x0, so that the stub jumps to the hook, which returns behind it."""
    call = _call(va + 4 * len(DEEP), hook)
    call[-1] = BR_X17 if hook.slot else call[-1] & ~LINK
    return np.array([*DEEP, *call], dtype=np.uint32)


def variant(st_other: U8) -> Mask:
    """Functions with arguments or kept registers beyond those of the base standard: SVE, vector calls."""
    return np.asarray(st_other & STO_VARIANT_PCS != 0)


PROGRAMS = Programs(
    stub=stub, reach=REACH, slot_reach=SLOT_REACH, jump_slot=R_AARCH64_JUMP_SLOT, glob_dat=R_AARCH64_GLOB_DAT,
    ifunc=R_AARCH64_IRELATIVE,
    contract="x0-x8, x18-x29, v0-v15 and sp kept, x30 := x9, return to the old x30",
    keeps_contract=program_keeps_contract, returns_plainly=returns_plainly, variant=variant,
    deep_stub=deep_stub,
    kept_registers=program_kept_registers,
)  # fmt: skip
