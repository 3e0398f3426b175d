"""Trampolines and what only looks like one: hand-assembled words, each with its mnemonic."""

from __future__ import annotations

import numpy as np
import pytest

from ftpatch.arch.arm64_contract import keeps_contract
from ftpatch.arrays import U32

AT = 0xFFFF_8000_8000_1000

MOV_X10_X30 = 0xAA1E03EA  # mov x10, x30
MOV_X30_X9 = 0xAA0903FE  # mov x30, x9
RET_X10 = 0xD65F0140  # ret x10
RET_X9 = 0xD65F0120  # ret x9
RET = 0xD65F03C0  # ret
BR_X10 = 0xD61F0140  # br x10
BTI_C = 0xD503245F  # bti c
NOP = 0xD503201F  # nop
PACIASP, AUTIASP = 0xD503233F, 0xD50323BF
PACIBSP, AUTIBSP = 0xD503237F, 0xD50323FF
MINIMAL = (MOV_X10_X30, MOV_X30_X9, RET_X10)
SUB_SP_16 = 0xD10043FF  # sub sp, sp, #16
ADD_SP_16 = 0x910043FF  # add sp, sp, #16
BL_OUT = 0x94000400  # bl .+0x1000
STP_FP = 0xA9BF7BFD  # stp x29, x30, [sp, #-16]!
LDP_FP = 0xA8C17BFD  # ldp x29, x30, [sp], #16
MOV_X29_SP = 0x910003FD  # mov x29, sp

# samples/ftrace/ftrace-direct.c, arm64: my_tramp
SAMPLE = (
    BTI_C,
    0xD10083FF,  # sub sp, sp, #32
    0xA9007BE9,  # stp x9, x30, [sp]
    0xF9000BE0,  # str x0, [sp, #16]
    BL_OUT,
    0xA94027FE,  # ldp x30, x9, [sp]
    0xF9400BE0,  # ldr x0, [sp, #16]
    0x910083FF,  # add sp, sp, #32
    RET_X9,
)
SAVE = (  # the registers that a C function may change, in a frame of 96 bytes
    0xD10183FF,  # sub sp, sp, #96
    0xA90007E0,  # stp x0, x1, [sp]
    0xA9010FE2,  # stp x2, x3, [sp, #16]
    0xA90217E4,  # stp x4, x5, [sp, #32]
    0xA9031FE6,  # stp x6, x7, [sp, #48]
    0xF90023E8,  # str x8, [sp, #64]
    0xA9057BE9,  # stp x9, x30, [sp, #80]
)
RESTORE = (
    0xA94007E0,  # ldp x0, x1, [sp]
    0xA9410FE2,  # ldp x2, x3, [sp, #16]
    0xA94217E4,  # ldp x4, x5, [sp, #32]
    0xA9431FE6,  # ldp x6, x7, [sp, #48]
    0xF94023E8,  # ldr x8, [sp, #64]
    0xA94527FE,  # ldp x30, x9, [sp, #80]
    0x910183FF,  # add sp, sp, #96
)
FULL = (BTI_C, *SAVE, BL_OUT, *RESTORE, RET_X9)


def judge(*words: int) -> str:
    """The reason why these words at AT are no trampoline; empty where they are one."""

    def read(va: int, n: int) -> U32:
        first = (va - AT) // 4
        return np.array(words[first : first + n] if 0 <= first < len(words) else (), dtype=np.uint32)

    return keeps_contract(read, AT)


@pytest.mark.parametrize(
    "words",
    [
        MINIMAL,
        (BTI_C, *MINIMAL),
        (MOV_X10_X30, MOV_X30_X9, BR_X10),
        FULL,
        # nothing moved but by way of the frame: stp x29, x30, [sp, #-16]!; mov x29, sp; ldp x29, x10, [sp], #16
        (STP_FP, MOV_X29_SP, 0xA8C12BFD, MOV_X30_X9, RET_X10),
        # x30 signed while it lies in the frame, as a compiler with PAC does
        (MOV_X10_X30, PACIASP, AUTIASP, MOV_X30_X9, RET_X10),
        (PACIASP, STP_FP, LDP_FP, AUTIASP, *MINIMAL),
        (PACIBSP, STP_FP, LDP_FP, AUTIBSP, *MINIMAL),
        # two paths, both sound: cbz x11, .+16
        (0xB400008B, *MINIMAL, *MINIMAL),
        # sp restored from the frame pointer: stp fp; mov x29, sp; sub sp, #16; mov sp, x29; ldp fp
        (STP_FP, MOV_X29_SP, SUB_SP_16, 0x910003BF, LDP_FP, *MINIMAL),
        # a branch over a word that is none: b .+8
        (0x14000002, 0, *MINIMAL),
        # scratch registers may change: movz x11, #1; movz x17, #2
        (0xD280002B, 0xD2800051, *MINIMAL),
    ],
    ids=[
        "minimal", "bti", "br", "samples/ftrace", "frame", "pac in registers", "pac a", "pac b", "two paths", "mov sp",
        "branch over data", "scratch",
    ],
)  # fmt: skip
def test_code_that_keeps_the_contract_is_accepted(words: tuple[int, ...]) -> None:
    assert judge(*words) == ""


NO_X9 = "it does not return with the old x9 in x30, so the traced function would never return"
NOT_BACK = "it does not return to where x30 pointed"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((RET,), NO_X9),
        ((NOP, NOP, NOP, NOP, RET), NO_X9),
        ((STP_FP, MOV_X29_SP, BL_OUT, LDP_FP, RET), NO_X9),
        ((MOV_X30_X9, RET), NOT_BACK),
        ((MOV_X10_X30, MOV_X30_X9, RET_X9), NOT_BACK),
        ((0xD61F0220,), NOT_BACK),  # br x17
        ((0xF9402971, 0xD61F0220), NOT_BACK),  # ldr x17, [x11, #80]; br x17
        ((PACIASP, *MINIMAL), NOT_BACK),
        ((MOV_X10_X30, MOV_X30_X9, PACIASP, RET_X10), NO_X9),
        ((0xD2800000, *MINIMAL), "it changes x0"),  # mov x0, #0
        ((0xD2800013, *MINIMAL), "it changes x19"),  # mov x19, #0
        ((0xD2800012, *MINIMAL), "it changes x18"),  # mov x18, #0
        ((0xD2800000, 0xD2800008, *MINIMAL), "it changes x0, x8"),  # mov x0, #0; mov x8, #0
        ((0x910003FD, *MINIMAL), "it changes x29"),  # mov x29, sp
        ((SUB_SP_16, *MINIMAL), "it changes sp"),
        ((ADD_SP_16, *MINIMAL), "it changes sp"),
        # samples/ftrace with only x0 saved: the call may change x1..x8
        (SAMPLE, "it changes x1, x2, x3, x4, x5, x6, x7, x8"),
        # cbz x11, .+16: one path sound, the other a C function's return
        ((0xB400008B, *MINIMAL, RET), NO_X9),
        ((0xB400004B, RET, *MINIMAL), NO_X9),
        # b.eq .+16, tbz w11, #0, .+16
        ((0x54000080, *MINIMAL, RET), NO_X9),
        ((0x3600008B, *MINIMAL, RET), NO_X9),
        # a path that swaps the pair: ldp x9, x30 instead of x30, x9
        ((BTI_C, *SAVE, BL_OUT, *RESTORE[:5], 0xA9457BE9, RESTORE[6], RET_X9), NOT_BACK),
        ((0xF90003E0, *MINIMAL), f"it writes its caller's stack frame at {AT:#x}"),  # str x0, [sp]
        ((STP_FP, 0xF9000BE0, LDP_FP, *MINIMAL), f"it writes its caller's stack frame at {AT + 4:#x}"),  # [sp, #16]
        ((0x14000000,), "it is too long to be judged"),  # b .
        ((NOP, 0x17FFFFFF), "it is too long to be judged"),  # nop; b .-4
        ((NOP, NOP), f"it runs out of code at {AT + 8:#x}"),
        ((0x14000400,), f"it runs out of code at {AT + 0x1000:#x}"),  # b .+0x1000
        ((0xD4200000,), f"it executes 0xd4200000 at {AT:#x}"),  # brk #0
        ((0xD4000001,), f"it executes 0xd4000001 at {AT:#x}"),  # svc #0
        ((0xD65F0BFF,), f"it executes 0xd65f0bff at {AT:#x}"),  # retaa
        ((0x9100015F, *MINIMAL), f"it loads sp from a register at {AT:#x}"),  # mov sp, x10
        ((0x8B2163FF, *MINIMAL), f"it moves sp by a register at {AT:#x}"),  # add sp, sp, x1
        ((0x927CEDFF, *MINIMAL), f"it aligns sp at {AT:#x}"),  # and sp, x15, #~15
        ((0x3D8003E0, *MINIMAL), f"it uses the stack by 0x3d8003e0 at {AT:#x}, which is not followed"),  # str q0, [sp]
        ((0xB81FC3E0, *MINIMAL), f"it uses the stack by 0xb81fc3e0 at {AT:#x}, which is not followed"),  # stur w0
    ],
)  # fmt: skip
def test_code_that_breaks_the_contract_is_refused_with_its_reason(words: tuple[int, ...], reason: str) -> None:
    assert judge(*words) == reason


def test_a_loop_with_a_sound_exit_is_too_long_not_wrong() -> None:
    loop = (0xD100056B, 0xB5FFFFEB)  # sub x11, x11, #1; cbnz x11, .-4
    assert judge(*loop, *MINIMAL) == "it is too long to be judged"


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(
            (0xF81F83E0, 0xD2800000, 0xF85F83E0, *MINIMAL),  # stur x0, [sp, #-8]; mov x0, #0; ldur x0, [sp, #-8]
            id="read below sp",
        ),
        pytest.param(
            # sub sp, #16; str x0, [sp]; mov x0, #0; add sp, #16; sub sp, #16; ldr x0, [sp]; add sp, #16
            (SUB_SP_16, 0xF90003E0, 0xD2800000, ADD_SP_16, SUB_SP_16, 0xF94003E0, ADD_SP_16, *MINIMAL),
            id="slot given up and read",
        ),
        pytest.param(
            (0xF81FC3E0, *MINIMAL),  # stur x0, [sp, #-4]: bytes −4..3 of the caller's frame
            id="store across entry sp",
        ),
        pytest.param(
            (MOV_X10_X30, MOV_X30_X9, 0xD503231F, RET_X10),  # paciaz
            id="paciaz",
        ),
        pytest.param(
            (MOV_X10_X30, MOV_X30_X9, PACIASP, AUTIBSP, RET_X10),
            id="two keys",
        ),
        pytest.param(
            (MOV_X10_X30, MOV_X30_X9, PACIASP, SUB_SP_16, AUTIASP, ADD_SP_16, RET_X10),
            id="two stack pointers",
        ),
    ],
)
def test_what_is_not_certain_is_not_shown(words: tuple[int, ...]) -> None:
    assert judge(*words) != ""


def test_the_samples_are_what_their_comments_say() -> None:
    """The hand-assembled words, read back by capstone."""
    import capstone

    engine = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)
    code = np.array(FULL, dtype="<u4").tobytes()
    assert [f"{one.mnemonic} {one.op_str}".strip() for one in engine.disasm(code, 0)] == [
        "bti c", "sub sp, sp, #0x60", "stp x0, x1, [sp]", "stp x2, x3, [sp, #0x10]", "stp x4, x5, [sp, #0x20]",
        "stp x6, x7, [sp, #0x30]", "str x8, [sp, #0x40]", "stp x9, x30, [sp, #0x50]", "bl #0x1020",
        "ldp x0, x1, [sp]", "ldp x2, x3, [sp, #0x10]", "ldp x4, x5, [sp, #0x20]", "ldp x6, x7, [sp, #0x30]",
        "ldr x8, [sp, #0x40]", "ldp x30, x9, [sp, #0x50]", "add sp, sp, #0x60", "ret x9",
    ]  # fmt: skip


def judge_ends(*words: int) -> str:
    """As `judge`, with the site's home 0x100 and a known trampoline 0x200 behind the code's start."""

    def read(va: int, n: int) -> U32:
        first = (va - AT) // 4
        return np.array(words[first : first + n] if 0 <= first < len(words) else (), dtype=np.uint32)

    return keeps_contract(read, AT, False, AT + 0x100, AT + 0x200)


def b(at: int, to: int) -> int:
    """b, as the at-th word."""
    return 0x1400_0000 | (to - 4 * at) >> 2 & 0x03FF_FFFF


def test_a_path_may_end_behind_the_site() -> None:
    assert judge_ends(MOV_X30_X9, b(1, 0x100)) == ""
    assert judge_ends(SUB_SP_16, MOV_X30_X9, b(2, 0x100)) == "it changes sp"
    assert judge_ends(NOP, b(1, 0x100)) == (
        "it does not return with the old x9 in x30, so the traced function would never return"
    )
    assert judge_ends(*SAVE, BL_OUT, *RESTORE, MOV_X30_X9, b(16, 0x100)) == (
        "it does not return with the old x9 in x30, so the traced function would never return"
    )


def test_a_path_may_end_at_a_known_trampoline_with_all_as_at_entry() -> None:
    assert judge_ends(NOP, b(1, 0x200)) == ""
    assert judge_ends(MOV_X10_X30, b(1, 0x200)) == ""
    assert judge_ends(MOV_X30_X9, b(1, 0x200)) == "it goes to the target without x9 and x30 as they were"
    assert judge_ends(SUB_SP_16, b(1, 0x200)) == "it changes sp"
    assert judge_ends(NOP, b(1, 0x204)) == f"it runs out of code at {AT + 0x204:#x}"
