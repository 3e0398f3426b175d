"""Redirected functions, executed: what arrives at the replacement, and what its caller finds when it has returned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from ftpatch.proof.emulate import Outcome, RedirectExpectation, arm64
from ftpatch.proof.emulate.memory import Block, Memory

# -- arm64 ---------------------------------------------------------------------------------------------------------

ENTRY, VENEER, TARGET = 0xFFFF_8000_0001_0000, 0xFFFF_8000_0001_4000, 0xFFFF_8000_0002_0040
BTI_C, NOP, PACI_SP = 0xD503_245F, 0xD503_201F, 0xD503_233F
ADRP, ADD, BR = 0x9000_0070, 0x9101_0210, 0xD61F_0200  # adrp x16, TARGET; add x16, x16, #0x40; br x16
NEVER = "f: never arrives at the target: found a stop at "


def b(va: int, target: int) -> int:
    return 0x1400_0000 | (target - va >> 2) & 0x03FF_FFFF


def memory_of(code: Mapping[int, Sequence[int]]) -> Memory:
    blocks = [Block(va, np.array(words, dtype="<u4").view(np.uint8)) for va, words in sorted(code.items())]
    return Memory(tuple(blocks))


def arm(code: Mapping[int, Sequence[int]], pad: int = BTI_C) -> str:
    """The failure of one function, or nothing; a second one, which is good, must not suffer."""
    good = ENTRY + 0x800
    memory = memory_of({TARGET: [pad, NOP], good: [BTI_C, b(good + 4, TARGET)], **code})
    expected = [RedirectExpectation("f", ENTRY, TARGET), RedirectExpectation("g", good, TARGET)]
    outcome = arm64.run_redirects(memory, expected, 1)
    assert outcome.n == 2 and not outcome.skipped
    assert not any(failure.startswith("g") for failure in outcome.failures)
    return "".join(outcome.failures)


JUMP, VIA = [b(ENTRY, TARGET), NOP], [b(ENTRY, VENEER), NOP]
JUMP_BTI, VIA_BTI = [BTI_C, b(ENTRY + 4, TARGET), NOP], [BTI_C, b(ENTRY + 4, VENEER), NOP]


@pytest.mark.parametrize("code", [
    {ENTRY: JUMP}, {ENTRY: JUMP_BTI}, {ENTRY: VIA, VENEER: [ADRP, ADD, BR]}, {ENTRY: VIA_BTI, VENEER: [ADRP, ADD, BR]},
    {ENTRY: VIA_BTI, VENEER: [b(VENEER, VENEER + 16), 0, 0, 0, b(VENEER + 16, TARGET)]},
    {ENTRY: VIA, VENEER: [ADRP | 1, ADD | 0x21, BR | 0x20]},
])  # fmt: skip
def test_a_jump_to_the_replacement_holds(code: dict[int, list[int]]) -> None:
    assert arm(code) == ""


@pytest.mark.parametrize(("code", "failure"), [
    ({ENTRY: [b(ENTRY, TARGET + 4)]}, f"{NEVER}{TARGET + 8:#x} (Unhandled CPU exception (UC_ERR_EXCEPTION)), "
                                      f"expected {TARGET:#x}"),
    ({ENTRY: [NOP, NOP]}, f"{NEVER}{ENTRY + 8:#x} (Unhandled CPU exception (UC_ERR_EXCEPTION)), "
                          f"expected {TARGET:#x}"),
    ({ENTRY: [b(ENTRY, ENTRY)]}, f"{NEVER}{ENTRY:#x}, expected {TARGET:#x}"),
    ({ENTRY: VIA, VENEER: [0xF900_0BE0, ADRP, ADD, BR]},  # str x0, [sp, #16]
     "f: memory written on the way to the target: found +16 from sp, expected none"),
    ({ENTRY: VIA, VENEER: [0xF81F_03E0, ADRP, ADD, BR]},  # stur x0, [sp, #-16]
     "f: memory written on the way to the target: found -16 from sp, expected none"),
    ({ENTRY: VIA_BTI, VENEER: [0xA9BF_7BFD, 0xA8C1_7BFD, b(VENEER + 8, TARGET)]},  # stp x29, x30, [sp, #-16]!; ldp
     "f: memory written on the way to the target: found -16 from sp, expected none"),
])  # fmt: skip
def test_a_wrong_jump_fails(code: dict[int, list[int]], failure: str) -> None:
    assert arm(code) == failure


@pytest.mark.parametrize(("word", "register"), [
    (0xD280_0000, "x0"), (0xD280_0008, "x8"), (0xD280_0009, "x9"), (0xD280_000F, "x15"),  # mov xN, #0
    (0xD280_0012, "x18"), (0xD280_0013, "x19"), (0xD280_001D, "x29"), (0xD280_001E, "x30"),
    (0x9100_43FF, "sp"),  # add sp, sp, #16
])  # fmt: skip
def test_a_register_that_is_lost_fails(word: int, register: str) -> None:
    why = arm({ENTRY: VIA, VENEER: [word, ADRP, ADD, BR]})
    start = r"f: at the target " + register + ": found 0x"
    assert why.startswith(start if register == "sp" else start + "0, expected 0x")


def test_a_call_instead_of_a_jump_fails() -> None:
    """With `bl` the replacement would return into the function's old body."""
    why = arm({ENTRY: [JUMP[0] | 1 << 31, NOP]})
    assert why.startswith(f"f: at the target x30: found {ENTRY + 4:#x}, expected 0x")


NO_PAD = "f: the target of an indirect jump begins with: found {:#x}, expected a landing pad"


@pytest.mark.parametrize(("entry", "pad", "failure"), [
    (VIA_BTI, PACI_SP, ""),
    (VIA_BTI, NOP, NO_PAD.format(NOP)),
    (VIA, NOP, ""),  # a kernel that guards nothing
    (JUMP_BTI, NOP, ""),  # a direct jump needs none
])  # fmt: skip
def test_an_indirect_jump_needs_a_landing_pad(entry: list[int], pad: int, failure: str) -> None:
    assert arm({ENTRY: entry, VENEER: [ADRP, ADD, BR]}, pad) == failure


def test_every_function_of_a_run_is_told_of_once() -> None:
    code = {ENTRY + 0x100 * n: [b(ENTRY + 0x100 * n, TARGET + 4 * (n % 2))] for n in range(6)}
    expected = [RedirectExpectation(f"f{n}", ENTRY + 0x100 * n, TARGET) for n in range(6)]
    outcome = arm64.run_redirects(memory_of({TARGET: [BTI_C, 0], **code}), expected, 1)
    assert outcome.n == 6 and [line.partition(":")[0] for line in outcome.failures] == ["f1", "f3", "f5"]


def test_no_redirects_is_nothing_executed() -> None:
    assert arm64.run_redirects(memory_of({ENTRY: JUMP}), [], 1) == Outcome(0)
