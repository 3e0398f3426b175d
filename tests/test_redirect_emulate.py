"""Redirected functions, executed: what arrives at the replacement, and what its caller finds when it has returned."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from test_link_proof import Made

from ftpatch.arch.ppc64le_proof import TABLES
from ftpatch.arch.proof_tables import Link
from ftpatch.elf.relocations import relocations_of
from ftpatch.proof.emulate import (
    Outcome,
    RedirectExpectation,
    SiteExpectation,
    arm64,
    emulate,
    process_ppc64le,
    qemu_sandbox,
    redirects_ppc64le,
)
from ftpatch.proof.emulate.loader import Loaded, load_module
from ftpatch.proof.emulate.memory import Block, Memory, Moved
from ftpatch.recovered.image import open_image

TESTDATA = Path(__file__).resolve().parent.parent / "testdata"

NOT_HERE = qemu_sandbox.why_not(process_ppc64le.QEMU)
needs_qemu = pytest.mark.skipif(bool(NOT_HERE), reason=f"{NOT_HERE} – apt install qemu-user runs it")

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


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 1, 0, 2, 1, 2)])
def test_functions_that_lead_to_each_other_hold_in_any_order(order: tuple[int, ...]) -> None:
    """Unicorn keeps translated code, without the stop that it gets where it is a target."""
    va = [ENTRY + 0x100 * n for n in range(4)]
    memory = memory_of({here: [b(here, there)] for here, there in zip(va, [*va[1:], TARGET], strict=True)})
    expected = [RedirectExpectation(f"f{n}", va[n], va[n + 1]) for n in order]
    assert arm64.run_redirects(memory, expected, 1) == Outcome(len(order))


def test_no_redirects_is_nothing_executed() -> None:
    assert arm64.run_redirects(memory_of({ENTRY: JUMP}), [], 1) == Outcome(0)


# -- ppc64le -------------------------------------------------------------------------------------------------------

FOO, PLT, BAR, AWAY, TOC = (0xC000_0000_0001_0000, 0xC000_0000_0003_0000, 0xC000_0000_0002_0000,
                            0xC000_0010_0000_0000, 0xC000_0000_0005_8100)  # fmt: skip
APART, STUB = 0x200, 0x100  # from one case's function to the next one's, and to its own stub
MFLR_R0, MTLR_R0, BCTR, BLR, PPC_NOP = 0x7C08_02A6, 0x7C08_03A6, 0x4E80_0420, 0x4E80_0020, 0x6000_0000
MTCTR_R12, HERE, MFLR_R12, LD_R2_24 = 0x7D89_03A6, 0x429F_0005, 0x7D88_02A6, 0xE841_0018
LINK = 1
END = 1 << 64  # of all addresses
Code = Callable[[int], list[int]]  # va of the first word → the words


def branch(va: int, to: int, link: int = 0) -> int:
    return 0x4800_0000 | to - va & 0x03FF_FFFC | link


def setting(base: int, to: int, register: int = 12, source: int = 12) -> list[int]:
    """addis register,source,@ha; addi register,register,@l: `to`, where `base` is in source."""
    off, at = to - base, register << 21
    low = 0x3800_0000 | at | register << 16 | off & 0xFFFF
    return [0x3C00_0000 | at | source << 16 | off + 0x8000 >> 16 & 0xFFFF, low]


def framed(va: int) -> list[int]:
    """The stub that calls what is in another file, as it is loaded: the nop behind its call is a load."""
    return [MFLR_R0, 0xF801_0010, 0xF821_FFD1, 0xF841_0028, branch(va + 16, PLT, LINK), LD_R2_24,
            0xE841_0028, 0x3821_0030, 0xE801_0010, MTLR_R0, BLR]  # fmt: skip


def sets_toc(va: int) -> list[int]:
    """Its form for a function with one entry: r2 is set to the file's TOC before the call."""
    words = framed(va)
    return [*words[:4], HERE, MFLR_R12, *setting(va + 20, TOC, 2), branch(va + 32, PLT, LINK), *words[5:]]


def far(va: int) -> list[int]:
    return [0xE98D_0010, *setting(TOC, BAR), MTCTR_R12, BCTR]  # ld r12,16(r13): the kernel's TOC


def here(va: int) -> list[int]:
    return [MFLR_R0, HERE, MFLR_R12, MTLR_R0, *setting(va + 8, BAR), MTCTR_R12, BCTR]


def changed(code: Code, words: Mapping[int, int]) -> Code:
    return lambda va: [words.get(at, word) for at, word in enumerate(code(va))]


def behind(*words: int, code: Code = far) -> Code:
    return lambda va: [*words, *code(va + 4 * len(words))]


def to(target: int, link: int = 0) -> Code:
    return lambda va: [branch(va, target, link)]


class Case(NamedTuple):
    """A redirected function."""

    name: str
    site: Code | None  # the words from its local entry on; None: a jump to its stub
    stub: Code | None
    target: int
    failure: str = ""  # without the name; ? for what is random, names for addresses
    two: bool = False  # whether it has a global entry, two words before
    by_global: bool = False
    by_local: bool = False
    framed: bool = False

    def expectation(self, va: int) -> RedirectExpectation:
        entry, other = (va + 8, va) if self.two else (va, None)
        return RedirectExpectation(self.name, entry, self.target, self.by_global, self.by_local, self.framed, other)

    def code(self, va: int) -> dict[int, list[int]]:
        words = setting(va, TOC, 2) if self.two else []
        entry = va + 4 * len(words)
        site = self.site(entry) if self.site else [branch(entry, va + STUB)]
        return {va: [*words, *site]} | ({va + STUB: self.stub(va + STUB)} if self.stub else {})


def of_kernel(name: str, site: Code | None, stub: Code | None, target: int, failure: str = "", **more: bool) -> Case:
    local = target == BAR + 8
    return Case(name, site, stub, target, failure, more.get("two", False), more.get("by_global", False), local)


def calls(name: str, changes: Mapping[int, int] | Code, failure: str = "", two: bool = True) -> Case:
    """The stub with a frame, and its words that are changed; or another one."""
    stub = changes if callable(changes) else changed(framed, changes)
    return Case(name, None, stub, AWAY, failure, two, by_global=True, framed=True)


NOT_BACK = "never arrives at the caller's return address: found an access to nothing at ?, expected ?"
NOT_THERE = "never arrives at the target: found an access to nothing at ?, expected "
WRONG_R2 = "r2 at the caller's return address: found ?, expected TOC"
SPOILT = "24(r1), the caller's, at the target: found TOC, expected ?"

KERNEL = [
    of_kernel("local entry", to(BAR + 8), None, BAR + 8, two=True),
    of_kernel("one entry from two", to(BAR), None, BAR, two=True),
    of_kernel("one entry from one", to(BAR), None, BAR),
    of_kernel("mprofile", behind(MFLR_R0, code=to(BAR)), None, BAR),
    of_kernel("mprofile, two", behind(MFLR_R0, code=to(BAR + 8)), None, BAR + 8, two=True),
    of_kernel("far stub", None, far, BAR, by_global=True),
    of_kernel("far stub, two", None, far, BAR, two=True, by_global=True),
    of_kernel("r12 is free where nobody reads it", None, behind(0x7C4C_1378, code=to(BAR)), BAR),
    of_kernel("one word past the entry", to(BAR + 12), None, BAR + 8,
              "never arrives at the target: found an illegal instruction at BAR+0xc, expected BAR+0x8", two=True),
    of_kernel("b to a global entry", to(BAR), None, BAR, "r12 at the target: found ?, expected BAR", two=True,
              by_global=True),
    of_kernel("a local entry from one entry", to(BAR + 8), None, BAR + 8, "r2 at the target: found ?, expected TOC"),
    of_kernel("a stub to the second word", None, lambda va: [0xE98D_0010, *setting(TOC, BAR + 4), MTCTR_R12, BCTR], BAR,
              "never arrives at the target: found an illegal instruction at BAR+0x4, expected BAR", by_global=True),
    of_kernel("another word of the paca", None, changed(far, {0: 0xE98D_0018}), BAR, f"{NOT_THERE}BAR", by_global=True),
    of_kernel("r12 not set", None, to(BAR), BAR, "r12 at the target: found ?, expected BAR", by_global=True),
    of_kernel("bl", to(BAR, LINK), None, BAR, "LR at the target: found foo+0x4, expected ?"),
    of_kernel("std r2,24(r1)", None, behind(0xF841_0018), BAR,
              "24(r1), the caller's, at the target: found ?, expected ?", by_global=True),
    of_kernel("std r2,24(r1), two", None, behind(0xF841_0018), BAR, SPOILT, two=True, by_global=True),
    of_kernel("std r3,48(r1)", None, behind(0xF861_0030), BAR,
              "48(r1), the caller's, at the target: found ?, expected ?", by_global=True),
    of_kernel("std r0,16(r1)", None, behind(0xF801_0010), BAR, by_global=True),
    of_kernel("stdu r1,-32(r1)", None, behind(0xF821_FFE1), BAR, "r1 at the target: found ?, expected ?",
              by_global=True),
    of_kernel("li r10,0", None, behind(0x3940_0000), BAR, "r10 at the target: found 0x0, expected ?", by_global=True),
    of_kernel("li r13,0", None, behind(0x39A0_0000, code=to(BAR)), BAR, "r13 at the target: found 0x0, expected ?"),
    of_kernel("li r2,0", None, behind(0x3840_0000, code=to(BAR)), BAR, "r2 at the target: found 0x0, expected ?"),
    of_kernel("mtcrf 0x20,r1", None, behind(0x7C22_0120), BAR, "cr2–cr4 at the target: found ?, expected ?",
              by_global=True),
    of_kernel("not redirected", lambda va: [PPC_NOP, 0], None, BAR,
              "never arrives at the target: found an illegal instruction at foo+0x4, expected BAR"),
    of_kernel("blr at once", lambda va: [BLR], None, BAR,
              "never arrives at the target: found a return to a caller, expected BAR"),
    of_kernel("a word more in front", lambda va: [PPC_NOP, branch(va + 4, BAR + 8)], None, BAR + 8, two=True),
]  # fmt: skip
MODULE = [
    Case("by its own place", None, here, BAR, by_global=True),
    Case("by its own place, two", None, here, BAR, two=True, by_global=True),
    Case("LR not restored", None, changed(here, {3: PPC_NOP}), BAR, "LR at the target: found stub+0x8, expected ?",
         by_global=True),
    Case("elsewhere", None, lambda va: here(va + 4), BAR, "never arrives at the target: found an illegal "
         "instruction at BAR-0x4, expected BAR", by_global=True),
    calls("framed", {}),
    calls("framed, sets its TOC", sets_toc, two=False),
    calls("framed, sets its TOC, two", sets_toc),
    calls("framed, and r2 not set", framed,
          "never arrives at the target: found an access to nothing at PLT+0xc, expected AWAY", two=False),
    calls("no addi r1,r1,48", {7: PPC_NOP}, NOT_BACK),
    calls("addi r1,r1,32", {7: 0x3821_0020}, NOT_BACK),
    calls("no mtlr r0", {9: PPC_NOP}, NOT_BACK),
    calls("li r3,0 for mtlr r0", {9: 0x3860_0000}, NOT_BACK),
    calls("no ld r0,16(r1)", {8: PPC_NOP}, NOT_BACK),
    calls("no mflr r0", {0: PPC_NOP}, NOT_BACK),
    calls("no std r0,16(r1)", {1: PPC_NOP}, NOT_BACK),
    calls("no ld r2,40(r1)", {6: PPC_NOP}, WRONG_R2),
    calls("ld r2,32(r1)", {6: 0xE841_0020}, WRONG_R2),
    calls("ld r3,40(r1)", {6: 0xE861_0028}, WRONG_R2),
    calls("r2 where the loader's stub keeps it", {3: 0xF841_0018, 6: LD_R2_24}, WRONG_R2),
    calls("r2 below the frame", {3: 0xF841_FFF8, 6: 0xE841_FFF8}, WRONG_R2),
    calls("r2 above the frame", {3: 0xF841_0058}, "40(r1), the caller's, at the target: found TOC, expected ?"),
    calls("r2 in the caller's slot", {1: 0xF841_0018}, SPOILT),
    calls("the caller's back chain", {1: 0xF861_0000}, "0(r1), the caller's, at the target: found ?, expected ?"),
    calls("a frame of 16 bytes", {2: 0xF821_FFF1, 7: 0x3821_0010},
          "8(r1), the caller's, at the target: found TOC, expected ?"),
    calls("a frame of 16 bytes, and r2 not kept", {2: 0xF821_FFF1, 3: PPC_NOP, 4: PPC_NOP, 5: BLR},
          "never arrives at the target: found a return to a caller, expected AWAY"),
    calls("not aligned", {2: 0xF821_FFD9, 3: PPC_NOP},
          "r1 at the target: found ?, expected an aligned frame of its own"),
    calls("addi r1,r1,-48", {2: 0x3821_FFD0}, "0(r1), the back chain, at the target: found ?, expected ?"),
    calls("li r3,0", {0: 0x3860_0000}, "r3 at the target: found 0x0, expected ?"),
    calls("li r14,0", {0: 0x39C0_0000}, "r14 at the target: found 0x0, expected ?"),
    calls("no frame", {2: PPC_NOP, 3: PPC_NOP}, SPOILT),
    calls("a jump in a frame", lambda va: [*framed(va)[:4], branch(va + 16, PLT)],
          "LR at the target: found ?, expected an address in the stub"),
    calls("past the stub's first word", lambda va: [*framed(va)[:4], branch(va + 16, PLT + 4, LINK)],
          "never arrives at the target: found an access to nothing at PLT+0xc, expected AWAY"),
    calls("no nop in the file", {5: PPC_NOP}, "the word behind the call at stub+0x10: found 0x60000000, expected "
          "0xe8410018, ld r2,24(r1), which the loader writes over a nop"),
    calls("no blr", {10: PPC_NOP},
          "never arrives at the caller's return address: found an illegal instruction at stub+0x2c, expected ?"),
    calls("sc", {2: 0x4400_0002}, "never arrives at the target: found a system call at stub+0x8, expected AWAY"),
    calls("li r3,0 behind the call", lambda va: [*framed(va)[:8], 0x3860_0000, *framed(va)[8:]],
          "r3 at the caller's return address: found 0x0, expected ?"),
    calls("li r4,0 behind the call", lambda va: [*framed(va)[:8], 0x3880_0000, *framed(va)[8:]],
          "r4 at the caller's return address: found 0x0, expected ?"),
    calls("li r31,0 behind the call", lambda va: [*framed(va)[:8], 0x3BE0_0000, *framed(va)[8:]],
          "r31 at the caller's return address: found 0x0, expected ?"),
    calls("mtcrf 0x20,r1 behind the call", lambda va: [*framed(va)[:8], 0x7C22_0120, *framed(va)[8:]],
          "cr2–cr4 at the caller's return address: found ?, expected ?"),
    calls("std r2,24(r1) of the caller", lambda va: [*framed(va)[:8], 0xF841_0018, *framed(va)[8:]],
          "24(r1), the caller's, at the caller's return address: found TOC, expected ?"),
]  # fmt: skip


def ppc_memory(code: Mapping[int, Sequence[int]], kernel: bool) -> Memory:
    """That of a kernel; or of a module, whose loader made a stub to AWAY."""
    if kernel:
        return Memory(memory_of(code).blocks, kernel_toc=TOC, toc_at=16)
    link = Link(PLT, TOC, TABLES.stub)
    link.stub(AWAY)
    blocks = memory_of({**code, PLT: np.frombuffer(bytes(link.stubs), dtype="<u4").tolist()}).blocks
    places, values = (np.array(list(of), dtype=np.uint64) for of in (link.pointers, link.pointers.values()))
    return Memory(blocks, Moved(places, values, places[:0]), True, own_toc=TOC, outside=AWAY)


@cache
def outcomes(kernel: bool) -> dict[str, str]:
    """Name of a case → its failure, with names for addresses: all of them are executed in one process."""
    cases = {FOO + APART * at: case for at, case in enumerate(KERNEL if kernel else MODULE)}
    memory = ppc_memory({va: words for at, case in cases.items() for va, words in case.code(at).items()}, kernel)
    outcome = redirects_ppc64le.run_redirects(memory, [case.expectation(va) for va, case in cases.items()], 1)
    assert outcome.n == len(cases) and not outcome.skipped
    by_name = dict(line.split(": ", 1) for line in outcome.failures)
    return {case.name: named(by_name.get(case.name, ""), va) for va, case in cases.items()}


def named(why: str, va: int) -> str:
    """A failure with names for the addresses of its case, and ? for what is random."""
    places = {TOC: "TOC", AWAY: "AWAY", PLT: "PLT", BAR: "BAR", va + STUB: "stub", va: "foo"}

    def name(match: re.Match[str]) -> str:
        value = int(match.group(), 16)
        start = min(places, key=lambda start: abs(value - start))
        if abs(value - start) < STUB:
            return places[start] + (f"{value - start:+#x}" if value != start else "")
        return match.group() if value in (0, PPC_NOP, LD_R2_24) else "?"

    return re.sub("0x[0-9a-f]+", name, why)


@needs_qemu
@pytest.mark.parametrize("case", KERNEL, ids=lambda case: case.name)
def test_a_redirect_in_a_kernel(case: Case) -> None:
    assert outcomes(True)[case.name] == case.failure


@needs_qemu
@pytest.mark.parametrize("case", MODULE, ids=lambda case: case.name)
def test_a_redirect_in_a_module(case: Case) -> None:
    assert outcomes(False)[case.name] == case.failure


# Bits of words of the stub that change nothing that anybody sees: mftb for mfspr; addic, which sets a carry; a reserved
# bit; and of blr the link bit, the hints, and a condition that BO does not ask for.
HARMLESS = {(0, 6), (7, 27), (9, 0), (10, 0), *((10, bit) for bit in range(11, 25))}


@needs_qemu
def test_every_other_bit_of_the_stub_with_a_frame_matters() -> None:
    bits = [(at, bit) for at in range(len(framed(0))) for bit in range(32)]
    places = {FOO + 0x10_0000 + APART * n: at_bit for n, at_bit in enumerate(bits)}
    code: dict[int, list[int]] = {}
    expected = []
    for va, (at, bit) in places.items():
        case = calls(f"{at} {bit}", {at: framed(va + STUB)[at] ^ 1 << bit})
        code |= case.code(va)
        expected.append(case.expectation(va))
    outcome = ppc(code, *expected)
    assert outcome.n == 32 * 11
    seen = {tuple(map(int, why.partition(":")[0].split())) for why in outcome.failures}
    assert set(bits) - seen <= HARMLESS


def ppc(code: Mapping[int, Sequence[int]], *expected: RedirectExpectation, kernel: bool = False) -> Outcome:
    return redirects_ppc64le.run_redirects(ppc_memory(code, kernel), expected, 1)


@needs_qemu
def test_a_jump_to_another_file_spoils_the_callers_toc_slot() -> None:
    """The form without a frame: the loader's stub keeps r2 in 24(r1), which is a slot of the caller's frame, where that
    may keep a TOC of its own."""
    code = {FOO: [*setting(FOO, TOC, 2), branch(FOO + 8, PLT)]}
    (why,) = ppc(code, RedirectExpectation("f", FOO + 8, AWAY, by_global=True, global_entry=FOO)).failures
    assert re.fullmatch(rf"f: 24\(r1\), the caller's, at the target: found {TOC:#x}, expected 0x[0-9a-f]+", why)


@needs_qemu
def test_a_jump_to_another_file_without_a_frame_loses_the_callers_toc() -> None:
    """Without the store the slot is kept, but a caller that shares the function's TOC never loads its own again."""
    memory = memory_of({FOO: [*setting(FOO, TOC, 2), *here(FOO + 8)]})
    expected = RedirectExpectation("f", FOO + 8, BAR, by_global=True, global_entry=FOO)
    outcome = redirects_ppc64le.run_redirects(replace(memory, own_toc=TOC, outside=BAR), [expected], 1)
    assert [named(why, FOO) for why in outcome.failures] == [f"f: {WRONG_R2}"]


@needs_qemu
def test_the_toc_that_a_global_entry_sets_is_seen() -> None:
    """Entered at its local entry all is well; a caller from another file comes with another r2."""
    code = {FOO: [PPC_NOP, PPC_NOP, branch(FOO + 8, BAR + 8)]}
    expected = RedirectExpectation("f", FOO + 8, BAR + 8, by_local=True, global_entry=FOO)
    (why,) = ppc(code, expected, kernel=True).failures
    assert named(why, FOO) == "f: r2 at the target, entered at its global entry: found ?, expected TOC"


@needs_qemu
def test_functions_that_lead_to_each_other_are_executed_apart() -> None:
    """A trap stands at a target, which another function begins with: of a ring of nine, four at a time."""
    va = [FOO + 0x100 * n for n in range(9)]
    pairs = list(zip(va, [*va[1:], va[0]], strict=True))
    expected = [RedirectExpectation(f"f{n}", *pair) for n, pair in enumerate(pairs)]
    assert ppc({at: [branch(at, there)] for at, there in pairs}, *expected, kernel=True) == Outcome(9)
    assert [len(batch) for batch in redirects_ppc64le._batches(expected, list(range(9)))] == [4, 4, 1]


@needs_qemu
def test_code_without_end_is_named_and_the_next_function_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_ppc64le, "SECONDS", 1.0)
    va = [FOO + 0x100 * n for n in range(3)]
    code = dict(zip(va, ([branch(FOO, FOO)], [branch(va[1], BAR + 4)], [branch(va[2], BAR)]), strict=True))
    outcome = ppc(code, *(RedirectExpectation(f"f{n}", at, BAR) for n, at in enumerate(va)), kernel=True)
    assert outcome == Outcome(3, (
        f"f0: never arrives at the target: found no end within 1 s, expected {BAR:#x}",
        f"f1: never arrives at the target: found an illegal instruction at {BAR + 4:#x}, expected {BAR:#x}",
    ))  # fmt: skip


@needs_qemu
def test_a_stub_without_end_behind_its_call_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_ppc64le, "SECONDS", 1.0)
    monkeypatch.setattr(redirects_ppc64le, "MAX_AGAIN", 0)
    other = FOO + 0x8000
    without_end = [*setting(FOO, TOC, 2), *framed(FOO + 8)[:6], branch(FOO + 32, FOO + 32)]
    expected = [RedirectExpectation("f", FOO + 8, AWAY, by_global=True, framed=True, global_entry=FOO),
                RedirectExpectation("g", other, BAR)]  # fmt: skip
    first, second = ppc({FOO: without_end, other: [branch(other, BAR)]}, *expected).failures
    assert named(first, FOO) == "f: never arrives at the caller's return address: found no end within 1 s, expected ?"
    assert second == f"g: never arrives at the target: found no end within 1 s, in an earlier site, expected {BAR:#x}"


@needs_qemu
def test_addresses_too_far_apart_are_a_failure_of_their_own() -> None:
    far_away = FOO + (1 << 40)
    outcome = ppc(
        {FOO: [branch(FOO, BAR)]}, RedirectExpectation("f", FOO, far_away), RedirectExpectation("g", FOO, BAR)
    )
    assert outcome == Outcome(2, ("f: addresses too far apart: found 0xc000000000000000 and 0xc000010000010000, "
                                  "expected within 0x4000000000",))  # fmt: skip


@needs_qemu
def test_one_function_that_is_far_from_all_others_is_the_only_one_that_fails() -> None:
    code = {FOO + 0x100 * n: [branch(FOO + 0x100 * n, BAR)] for n in range(3)}
    stray = RedirectExpectation("f", 0, 0)
    outcome = ppc(code, *(RedirectExpectation(f"g{n}", va, BAR) for n, va in enumerate(code)), stray)
    assert outcome == Outcome(4, ("f: addresses too far apart: found 0xc000000000000000 and 0x0, "
                                  "expected within 0x4000000000",))  # fmt: skip


@needs_qemu
@pytest.mark.parametrize(("entry", "target", "found"), [
    (END - 4, END - 8, "a return to a caller"), (0, 4, "an illegal instruction at 0x8"),
])  # fmt: skip
def test_addresses_at_either_end_are_no_trouble(entry: int, target: int, found: str) -> None:
    """What lies around them wraps over the end of all addresses, where there is code, too."""
    memory = memory_of({END - 4: [BLR], 0: [branch(0, 8)]})
    outcome = redirects_ppc64le.run_redirects(memory, [RedirectExpectation("f", entry, target)], 1)
    assert outcome.failures == (f"f: never arrives at the target: found {found}, expected {target:#x}",)


def test_without_qemu_nothing_is_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    outcome = ppc({FOO: [branch(FOO, BAR)]}, RedirectExpectation("f", FOO, BAR))
    assert outcome == Outcome(0, skipped="no qemu-ppc64le (Debian package qemu-user)")


# -- whole files ---------------------------------------------------------------------------------------------------

Ftpatch = Callable[..., str]


def local_entry(other: int) -> int:
    """Bytes from the global to the local entry (ELFv2 ABI 3.4.1)."""
    return (1 << (other >> 5)) >> 2 << 2


def function_of(loaded: Loaded, name: str) -> tuple[int, int, int]:
    """(section, va of the symbol, va of its local entry) of a function of the module; of another file's, −1 and a va
    for both."""
    symbols, image = loaded.image.symbols, loaded.image
    row = symbols.defined(name)
    if row is None:
        return -1, loaded.fakes[name], loaded.fakes[name]
    sec, value = int(symbols.shndx[row]), int(symbols.rows["st_value"][row])
    va = loaded.base[sec] + value
    more = local_entry(int(symbols.rows["st_other"][row])) if image.arch.name == "ppc64le" else 0
    return sec, va, va + more


def module_expectation(loaded: Loaded, foo: str, bar: str) -> RedirectExpectation:
    """What a function of a module must do that became another one, by the ABI alone."""
    (_, va, local), (sec, bar_va, bar_local) = function_of(loaded, foo), function_of(loaded, bar)
    other = va if va != local else None
    if loaded.memory.own_toc is None:
        return RedirectExpectation(foo, local, bar_va)
    if sec < 0:
        return RedirectExpectation(foo, local, bar_va, by_global=True, framed=True, global_entry=other)
    if bar_va == bar_local:
        return RedirectExpectation(foo, local, bar_va, global_entry=other)
    if other is None:
        return RedirectExpectation(foo, local, bar_va, by_global=True)
    return RedirectExpectation(foo, local, bar_local, by_local=True, global_entry=other)


def module_outcome(path: Path, pairs: Sequence[tuple[str, str]]) -> Outcome:
    image = open_image(str(path))
    loaded = load_module(image, image.arch)
    return emulate(image, image.arch, [module_expectation(loaded, *pair) for pair in pairs], memory=loaded.memory)


ARM_PAIRS = [("mini_step", "_printk"), ("mini_work", "mini_untraced"), ("mini_util", "mini_untraced"),
             ("mini_init", "mini_util"), ("mini_probe_one", "_printk")]  # fmt: skip
PPC_PAIRS = [("mini_step", "_printk"), ("mini_work", "mini_untraced"), ("mini_complain", "mini_untraced"),
             ("mini_init", "mini_untraced"), ("mini_probe_one", "_printk"), ("mini_first", "mini_util")]  # fmt: skip


@pytest.mark.parametrize(("module", "pairs"), [
    ("mini/mini.ko", ARM_PAIRS),
    pytest.param("mini-ppc64le/mini.ko", PPC_PAIRS, marks=needs_qemu),
    # from one entry: to another file, to a function with two
    pytest.param("mini-ppc64le/mini.ko", [("mini_util", "_printk")], marks=needs_qemu),
    pytest.param("mini-ppc64le/mini.ko", [("mini_util", "mini_untraced")], marks=needs_qemu),
])  # fmt: skip
def test_the_redirected_functions_of_a_module_hold(
    module: str, pairs: list[tuple[str, str]], tmp_path: Path, ftpatch: Ftpatch
) -> None:
    maps = [word for pair in pairs for word in ("--map", "=".join(pair))]
    out = tmp_path / "out.ko"
    ftpatch("redirect", TESTDATA / module, *maps, "--assume-register-args", "-o", out)
    assert module_outcome(out, pairs) == Outcome(len(pairs))


@needs_qemu
def test_a_jump_by_relocation_to_another_file_spoils_the_callers_toc_slot(tmp_path: Path, ftpatch: Ftpatch) -> None:
    """A module whose site's own relocation names the export. Its loader takes it, as the compiler's sibling calls."""
    out, spoilt = tmp_path / "out.ko", tmp_path / "spoilt.ko"
    ftpatch("redirect", TESTDATA / "mini-ppc64le/mini.ko", "--func", "mini_step", "--to", "_printk",
            "--assume-register-args", "-o", out)  # fmt: skip
    image = open_image(str(out))
    site = image.symbols.defined("mini_step")
    assert site is not None
    sec, off = int(image.symbols.shndx[site]), int(image.symbols.rows["st_value"][site]) + 8
    rows = relocations_of(image, sec)
    (at,) = np.flatnonzero(rows.off == off).tolist()
    pos = int(image.shdr["sh_offset"][rows.table[at]]) + 24 * int(rows.row[at])
    content = bytearray(out.read_bytes())
    export = image.symbols.rows_named("_printk").tolist()[0]
    content[pos + 8 : pos + 24] = (export << 32 | 10).to_bytes(8, "little") + bytes(8)  # R_PPC64_REL24, addend 0
    spoilt.write_bytes(content)
    image = open_image(str(spoilt))
    loaded = load_module(image, image.arch)
    expected = replace(module_expectation(loaded, "mini_step", "_printk"), framed=False)
    (why,) = emulate(image, image.arch, [expected], memory=loaded.memory).failures
    toc = loaded.memory.own_toc
    assert re.fullmatch(rf"mini_step: 24\(r1\), the caller's, at the target: found {toc:#x}, expected 0x[0-9a-f]+", why)


@needs_qemu
def test_global_entries_of_a_loaded_module_find_its_toc() -> None:
    """The loader writes addis and addi over the load of the distance to the TOC, where that is near enough."""
    image = open_image(str(TESTDATA / "mini-ppc64le/mini.ko"))
    loaded = load_module(image, image.arch)
    _, va, local = function_of(loaded, "mini_step")
    words = [loaded.memory.word(va), loaded.memory.word(va + 4)]
    assert local == va + 8 and loaded.memory.own_toc is not None
    assert words == setting(va, loaded.memory.own_toc, 2)


@pytest.mark.parametrize("name", ["callops", "callops-bti", "pfe2", "pfe2-bti"])
def test_both_kinds_of_sites_are_counted_together(name: str) -> None:
    """Of one call both are executed, and each failure is told."""
    image = open_image(str(TESTDATA / f"mini/vmlinux-{name}"))
    va = image.symbols.value("vfs_read")
    assert va is not None
    expected: list[SiteExpectation | RedirectExpectation] = [
        SiteExpectation("vfs_read", va, va, va, None),
        RedirectExpectation("vfs_read", va, va),
        RedirectExpectation("vfs_read", va, 0),
    ]
    outcome = emulate(image, image.arch, expected)
    assert outcome.n == 3 and len(outcome.failures) == 1
    assert outcome.failures[0].startswith("vfs_read: never arrives at the target: found ")


@pytest.mark.parametrize("arch", ["arm64", pytest.param("ppc64le", marks=needs_qemu)])
def test_an_object_that_was_linked_in_is_entered_and_so_is_the_old_function(arch: str, tmp_path: Path) -> None:
    """The redirect leads to a function of the object; what that calls by --keep-original arrives behind the site."""
    made = Made(tmp_path, arch)
    assert made.code == 0
    image = open_image(str(made.after))
    loaded = load_module(image, image.arch)
    _, foo, _ = function_of(loaded, "mini_step")
    _, old, old_local = function_of(loaded, "old_step")
    first = (loaded.memory.word(foo) == BTI_C) + 1 if arch == "arm64" else 3  # words up to the site's first
    kept = RedirectExpectation("old_step", old_local, foo + 4 * first, by_local=arch == "ppc64le",
                               global_entry=old if old != old_local else None)  # fmt: skip
    expected = [module_expectation(loaded, "mini_step", "fixed_step"), kept]
    assert emulate(image, image.arch, expected, memory=loaded.memory) == Outcome(2)
    wrong = replace(kept, target=kept.target - 4)  # the redirect itself
    (why,) = emulate(image, image.arch, [wrong], memory=loaded.memory).failures
    assert why.startswith("old_step: never arrives at the target: found ")
