"""Trampolines for ppc64le sites and what only looks like one: hand-assembled words, each with its mnemonic."""

from __future__ import annotations

import numpy as np
import pytest

from ftpatch.arch.ppc64le_contract import keeps_contract
from ftpatch.arrays import U32

AT = 0xC000_0000_0000_1000

NOP = 0x60000000
BLR = 0x4E800020
BCTR = 0x4E800420
BCTRL = 0x4E800421
MFLR_R12, MFLR_R0, MFLR_R11 = 0x7D8802A6, 0x7C0802A6, 0x7D6802A6
MTCTR_R12, MTCTR_R11, MTLR_R0 = 0x7D8903A6, 0x7D6903A6, 0x7C0803A6
MINIMAL = (MFLR_R12, MTCTR_R12, MTLR_R0, BCTR)
STDU_32, STDU_96 = 0xF821FFE1, 0xF821FFA1  # stdu r1,-32(r1); stdu r1,-96(r1)
ADDI_32, ADDI_96 = 0x38210020, 0x38210060  # addi r1,r1,32; addi r1,r1,96
STD_R0_16, LD_R0_16 = 0xF8010010, 0xE8010010  # 16(r1)
BL_OUT = 0x48001001  # bl .+0x1000


def std(register: int, at: int, base: int = 1) -> int:
    """std rS,D(rA): DS form (Power ISA, book I, 3.3.3)."""
    return 62 << 26 | register << 21 | base << 16 | at & 0xFFFC


def ld(register: int, at: int, base: int = 1) -> int:
    """ld rT,D(rA): DS form (3.3.2)."""
    return 58 << 26 | register << 21 | base << 16 | at & 0xFFFC


def addi(register: int, base: int, value: int) -> int:
    return 14 << 26 | register << 21 | base << 16 | value & 0xFFFF


# As samples/ftrace/ftrace-direct-too.c does it: a frame for the traced function with its return address, one of our
# own with the arguments; the way back in the own LR slot.
ENTER = (
    STD_R0_16,
    STDU_32,
    MFLR_R0,
    STD_R0_16,
    0xF821FF81,  # stdu r1,-128(r1)
    std(2, 24),
    *(std(n, 8 + 8 * n) for n in range(3, 11)),  # 32..88
)
LEAVE = (
    *(ld(n, 8 + 8 * n) for n in range(3, 11)),
    ld(2, 24),
    0x38210080,  # addi r1,r1,128
    ld(11, 16),
    MTCTR_R11,
    ADDI_32,
    LD_R0_16,
    MTLR_R0,
    BCTR,
)
# our call's parameter area must not hold what we want back: frames of 192 bytes with the arguments at 96 and up
ENTER_FAR = (
    STD_R0_16,
    STDU_32,
    MFLR_R0,
    STD_R0_16,
    0xF821FF41,  # stdu r1,-192(r1)
    std(2, 160),
    *(std(n, 72 + 8 * n) for n in range(3, 11)),  # 96..152
)
LEAVE_FAR = (
    *(ld(n, 72 + 8 * n) for n in range(3, 11)),
    ld(2, 160),
    0x382100C0,  # addi r1,r1,192
    ld(11, 16),
    MTCTR_R11,
    ADDI_32,
    LD_R0_16,
    MTLR_R0,
    BCTR,
)
FRAMED = (*ENTER_FAR, BL_OUT, NOP, *LEAVE_FAR)
INDIRECT = (*ENTER_FAR, ld(12, 0, 3), MTCTR_R12, BCTRL, *LEAVE_FAR)
LEAVE_OOL = (*LEAVE_FAR[:-2], 0x7D6803A6, BLR)  # mtlr r11; blr, with r0 the caller's return address


def judge(*words: int, out_of_line: bool = False) -> str:
    """The reason why these words at AT are no trampoline; empty where they are one."""

    def read(va: int, n: int) -> U32:
        first = (va - AT) // 4
        return np.array(words[first : first + n] if 0 <= first < len(words) else (), dtype=np.uint32)

    return keeps_contract(read, AT, out_of_line)


@pytest.mark.parametrize(
    "words",
    [
        MINIMAL,
        (NOP, *MINIMAL),
        FRAMED,
        INDIRECT,
        (*ENTER, *LEAVE),  # frames, but no call
        # r1 restored by the back chain: stdu r1,-32(r1); ld r1,0(r1)
        (STDU_32, 0xE8210000, *MINIMAL),
        # LR kept in the caller's frame, where a callee may: mflr r12; std r12,16(r1); ld r11,16(r1); mtctr r11
        (MFLR_R12, std(12, 16), ld(11, 16), MTCTR_R11, MTLR_R0, BCTR),
        # mr r11,r12 in both spellings: or r11,r12,r12; addi r11,r12,0
        (MFLR_R12, 0x7D8B6378, MTCTR_R11, MTLR_R0, BCTR),
        (MFLR_R12, addi(11, 12, 0), MTCTR_R11, MTLR_R0, BCTR),
        # b .+8 over a word that is none
        (0x48000008, 0, *MINIMAL),
        # cmpdi r3,0; beq .+20; two sound paths
        (0x2C230000, 0x41820014, *MINIMAL, *MINIMAL),
        # scratch registers may change: li r11,1; li r12,2
        (addi(11, 0, 1), addi(12, 0, 2), *MINIMAL),
        # ftrace_enabled byte: lbz r11,564(r13); cmpdi r11,0
        (0x896D0234, 0x2C2B0000, *MINIMAL),
    ],
    ids=[
        "minimal", "nop", "framed", "indirect", "frames", "back chain", "lr save", "mr", "addi 0", "over data",
        "two paths", "scratch", "enabled",
    ],
)  # fmt: skip
def test_code_that_keeps_the_contract_is_accepted(words: tuple[int, ...]) -> None:
    assert judge(*words) == ""


NO_R0 = "it does not return with the old r0 in LR, so the traced function would never return"
NOT_BACK = "it does not return to where LR pointed"
LOST_R0 = "it does not keep r0, the caller's return address"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((BLR,), NO_R0),
        ((NOP, NOP, BLR), NO_R0),
        ((MTLR_R0, BLR), NOT_BACK),
        ((BCTR,), NOT_BACK),
        ((MFLR_R12, MTCTR_R12, BCTR), NO_R0),
        ((ld(12, 200, 12), MTCTR_R12, BCTR), NOT_BACK),
        ((addi(2, 2, 8), *MINIMAL), "it changes r2"),
        ((ld(2, 16, 13), *MINIMAL), "it changes r2"),
        ((addi(3, 0, 0), *MINIMAL), "it changes r3"),
        ((addi(31, 0, 0), *MINIMAL), "it changes r31"),
        ((addi(13, 0, 0), *MINIMAL), "it changes r13"),
        ((addi(14, 1, 0), *MINIMAL), "it changes r14"),
        ((0x7C7F1B78, *MINIMAL), "it changes r31"),  # mr r31,r3
        ((addi(3, 0, 0), addi(10, 0, 0), *MINIMAL), "it changes r3, r10"),
        ((STDU_32, *MINIMAL), "it changes r1"),
        ((ADDI_32, *MINIMAL), "it changes r1"),
        ((STDU_96, ADDI_32, *MINIMAL), "it changes r1"),
        # only the arguments r4..r10 saved
        ((*ENTER_FAR[:6], *ENTER_FAR[7:], BL_OUT, NOP, *LEAVE_FAR), "it changes r3"),
        ((*ENTER_FAR, BL_OUT, NOP, *LEAVE_FAR[1:]), "it changes r3"),
        # r3 in our frame's LR slot, where the callee may write
        ((*ENTER_FAR[:6], std(3, 16), *ENTER_FAR[7:], BL_OUT, NOP, ld(3, 16), *LEAVE_FAR[1:]), "it changes r3"),
        # CTR set before the call: ld r11,208(r1); mtctr r11
        ((*ENTER_FAR, ld(11, 208), MTCTR_R11, BL_OUT, NOP, *LEAVE_FAR[:10], *LEAVE_FAR[12:]), NOT_BACK),
        # a C function: mflr r0; std r0,16(r1); stdu; bl; addi; ld r0,16(r1); mtlr r0; blr. The old r0 is lost
        ((MFLR_R0, STD_R0_16, STDU_32, BL_OUT, ADDI_32, LD_R0_16, MTLR_R0, BLR), NO_R0),
        ((std(0, 0), *MINIMAL), f"it writes its caller's stack frame at {AT:#x}"),
        ((std(0, 8), *MINIMAL), f"it writes its caller's stack frame at {AT:#x}"),
        ((std(2, 24), *MINIMAL), f"it writes its caller's stack frame at {AT:#x}"),
        ((STDU_32, std(3, 32), ADDI_32, *MINIMAL), f"it writes its caller's stack frame at {AT + 4:#x}"),
        ((STDU_32, std(2, 56), ADDI_32, *MINIMAL), f"it writes its caller's stack frame at {AT + 4:#x}"),
        # through a copy of r1: addi r11,r1,32; std r3,0(r11)
        ((addi(11, 1, 32), std(3, 0, 11), *MINIMAL), f"it writes its caller's stack frame at {AT + 4:#x}"),
        # beqlr before LR is right; then a sound path
        ((0x2C230000, 0x4D820020, *MINIMAL), NO_R0),
        # bne+ to a blr behind a sound path
        ((0x2C230000, 0x40820014, *MINIMAL, BLR), NO_R0),
        ((0x2C230000, 0x40820008, BLR, *MINIMAL), NO_R0),
        ((0x48000000,), "it is too long to be judged"),  # b .
        ((NOP, 0x4BFFFFFC), "it is too long to be judged"),  # nop; b .-4
        ((NOP, NOP), f"it runs out of code at {AT + 8:#x}"),
        ((0x48001000,), f"it runs out of code at {AT + 0x1000:#x}"),
        ((0x48001002,), f"it branches to an absolute address at {AT:#x}"),  # ba
        ((0x44000002,), f"it executes 0x44000002 at {AT:#x}, which is not followed"),  # sc
        ((0x06100000, 0x39800000), f"it executes 0x06100000 at {AT:#x}, which is not followed"),  # pla r12
        ((0x429F0009, *MINIMAL), f"it executes 0x429f0009 at {AT:#x}"),  # bcl 20,31,.+8
        ((0x90010008, *MINIMAL), f"it uses the stack by 0x90010008 at {AT:#x}, which is not followed"),  # stw r0,8(r1)
        ((0xBD810000, *MINIMAL), None),  # stmw r12,0(r1)
        ((0xB9810000, *MINIMAL), f"it executes 0xb9810000 at {AT:#x}, which is not followed"),  # lmw r12,0(r1)
        ((0xF96B0001, *MINIMAL), f"it executes 0xf96b0001 at {AT:#x}, which is not followed"),  # stdu r11,0(r11)
    ],
)  # fmt: skip
def test_code_that_breaks_the_contract_is_refused_with_its_reason(words: tuple[int, ...], reason: str | None) -> None:
    if reason is None:
        assert judge(*words) != ""
    else:
        assert judge(*words) == reason


@pytest.mark.parametrize(
    "words", [(BLR,), (NOP, BLR), (*ENTER_FAR, BL_OUT, NOP, *LEAVE_OOL), (0x4D820020, BLR)],
    ids=["blr", "nop blr", "framed", "beqlr"],
)  # fmt: skip
def test_out_of_line_a_plain_return_is_enough(words: tuple[int, ...]) -> None:
    """The stub behind the call moves r0 to LR itself."""
    assert judge(*words, out_of_line=True) == ""
    assert judge(*words) != ""


def test_out_of_line_the_minimal_one_is_right_too() -> None:
    assert judge(*MINIMAL, out_of_line=True) == ""


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((addi(0, 0, 0), BLR), LOST_R0),
        ((MFLR_R0, BLR), LOST_R0),
        ((MTLR_R0, BLR), NOT_BACK),
        ((addi(2, 0, 0), BLR), "it changes r2"),
        ((STDU_32, BLR), "it changes r1"),
        ((0x2C230000, 0x4D820020, addi(3, 0, 0), BLR), "it changes r3"),  # beqlr; li r3,0; blr
    ],
)
def test_out_of_line_what_the_stub_needs_is_kept(words: tuple[int, ...], reason: str) -> None:
    assert judge(*words, out_of_line=True) == reason


UNSURE = {
    # std r3,-8(r1); li r3,0; ld r3,-8(r1) without a frame
    "read below r1": (std(3, -8), addi(3, 0, 0), ld(3, -8), *MINIMAL),
    # std r3,-4(r1): bytes -4 to 3 of the caller's frame
    "store across entry r1": (std(3, -4), *MINIMAL),
    "lwa": (STDU_32, std(3, 24), ld(3, 24) | 2, ADDI_32, *MINIMAL),
    "half overwritten": (STDU_32, std(3, 16), std(4, 20), ld(3, 16), ADDI_32, *MINIMAL),
    # bdnz .+4 counts CTR down: bctr then misses by one
    "bdnz": (MFLR_R12, MTCTR_R12, MTLR_R0, 0x42000004, BCTR),
    "bdnzlr": (MFLR_R12, MTCTR_R12, MTLR_R0, 0x4E000020, BCTR),
    # the callee of an indirect call computes r2 from r12 at its global entry and does not give ours back
    "bctrl and r2": (*ENTER_FAR, ld(12, 0, 3), MTCTR_R12, BCTRL, *LEAVE_FAR[:8], *LEAVE_FAR[9:]),
    # bctar goes to TAR, wherever that is (Power ISA, 2.4, bctar: opcode 19, XO 560)
    "bctar": (0x4E800460, *MINIMAL),
    "rfid": (0x4C000024, *MINIMAL),
    # lq r12,0(r4) loads r12 and r13; lq r0,0(r4) loads r0 and r1
    "lq r12": (0xE1840000, *MINIMAL),
    # cr2 to cr4 are non-volatile (ELFv2 ABI, 2.2.3.2): cmpdi cr2,r3,0; mtcrf 0xff,r12
    "cr2": (0x2D230000, *MINIMAL),
    "mtcr": (MFLR_R12, MTCTR_R12, 0x7D8FF120, MTLR_R0, BCTR),
    "ldu below": (0xE8610009, *MINIMAL),  # ldu r3,8(r1)
    "stdx": (0x7C6B092A, *MINIMAL),  # stdx r3,r11,r1
}


@pytest.mark.parametrize("case", UNSURE)
def test_what_is_not_certain_is_not_shown(case: str) -> None:
    assert judge(*UNSURE[case]) != ""


def test_a_loop_with_a_sound_exit_is_too_long_not_wrong() -> None:
    loop = (0x2C2B0000, 0x4082FFFC)  # cmpdi r11,0; bne .-4
    assert judge(*loop, *MINIMAL) == "it is too long to be judged"


def test_the_samples_are_what_their_comments_say() -> None:
    """The hand-assembled words, read back by capstone."""
    import capstone

    engine = capstone.Cs(capstone.CS_ARCH_PPC, capstone.CS_MODE_64 | capstone.CS_MODE_LITTLE_ENDIAN)
    code = np.array([*MINIMAL, *ENTER_FAR[:7], BL_OUT, *LEAVE_FAR[8:]], dtype="<u4").tobytes()
    assert [f"{one.mnemonic} {one.op_str}".strip() for one in engine.disasm(code, 0)] == [
        "mflr r12", "mtctr r12", "mtlr r0", "bctr",
        "std r0, 0x10(r1)", "stdu r1, -0x20(r1)", "mflr r0", "std r0, 0x10(r1)", "stdu r1, -0xc0(r1)",
        "std r2, 0xa0(r1)", "std r3, 0x60(r1)", "bl 0x102c", "ld r2, 0xa0(r1)", "addi r1, r1, 0xc0",
        "ld r11, 0x10(r1)", "mtctr r11", "addi r1, r1, 0x20", "ld r0, 0x10(r1)", "mtlr r0", "bctr",
    ]  # fmt: skip


MR_R3_R4 = 0x7C832378  # mr r3,r4
BCL_NEXT = 0x429F0005  # bcl 20,31,$+4


def judge_ends(out_of_line: bool, *words: int) -> str:
    """As `judge`, with the site's home 0x100 and a known trampoline 0x200 behind the code's start."""

    def read(va: int, n: int) -> U32:
        first = (va - AT) // 4
        return np.array(words[first : first + n] if 0 <= first < len(words) else (), dtype=np.uint32)

    return keeps_contract(read, AT, out_of_line, AT + 0x100, AT + 0x200)


def b(at: int, to: int) -> int:
    """b, as the at-th word."""
    return 0x4800_0000 | to - 4 * at & 0x03FF_FFFC


@pytest.mark.parametrize("out_of_line", [False, True])
def test_a_path_may_end_behind_the_site(out_of_line: bool) -> None:
    """Nobody moves r0 to LR there, not even for a site that is out of line."""
    assert judge_ends(out_of_line, MTLR_R0, b(1, 0x100)) == ""
    assert judge_ends(out_of_line, NOP, b(1, 0x100)) == (
        "it goes behind the site without the old r0 in LR, so the traced function would never return"
    )
    assert judge_ends(out_of_line, MTLR_R0, MR_R3_R4, b(2, 0x100)) == "it changes r3"


@pytest.mark.parametrize("out_of_line", [False, True])
def test_a_path_may_end_at_a_known_trampoline_with_all_as_at_entry(out_of_line: bool) -> None:
    assert judge_ends(out_of_line, MFLR_R12, b(1, 0x200)) == ""
    assert judge_ends(out_of_line, MTLR_R0, b(1, 0x200)) == "it goes to the target without r0 and LR as they were"
    assert judge_ends(out_of_line, MFLR_R0, b(1, 0x200)) == "it goes to the target without r0 and LR as they were"
    assert judge_ends(out_of_line, STDU_32, b(1, 0x200)) == "it changes r1"


def test_learning_its_own_address_costs_lr() -> None:
    assert judge(MFLR_R11, BCL_NEXT, MFLR_R12, MTCTR_R11, MTLR_R0, BCTR) == ""
    assert judge(BCL_NEXT, *MINIMAL) == "it does not return to where LR pointed"
