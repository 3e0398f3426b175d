"""Trampolines of programs: what must be kept there and need not in a kernel; and what tells wide arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from ftpatch.arch import architectures
from ftpatch.arch.program_parts import Programs, programs_of
from ftpatch.arch.x86_64_wide import is_wide, ways_out
from ftpatch.arrays import U32

AT = 0x10000


def programs(name: str) -> Programs:
    found = programs_of(next(arch for arch in architectures() if arch.name == name))
    assert found is not None
    return found


def reader(units: Sequence[int], unit: int) -> Callable[[int, int], U32]:
    code = np.array(units, dtype=np.uint32)
    return lambda va, n: code[(va - AT) // unit : (va - AT) // unit + n] if va >= AT else code[:0]


# -- arm64 -------------------------------------------------------------------------------------------------------------

RETURNS = (0xAA1E03EA, 0xAA0903FE, 0xD65F0140)  # mov x10, x30; mov x30, x9; ret x10
SAVES = (
    0xA9BE7BFD, 0xF9000BE9,  # stp x29, x30, [sp, #-32]!; str x9, [sp, #16]
    *(0xA9BF0000 | n + 1 << 10 | 31 << 5 | n for n in (0, 2, 4, 6)),  # stp xN, xN+1, [sp, #-16]!
    0xA9BF4BE8,  # stp x8, x18, [sp, #-16]!
)  # fmt: skip
VECTORS_SAVED = tuple(0xADBF0000 | n + 1 << 10 | 31 << 5 | n for n in (0, 2, 4, 6))  # stp qN, qN+1, [sp, #-32]!
VECTORS_BACK = tuple(0xACC10000 | n + 1 << 10 | 31 << 5 | n for n in (6, 4, 2, 0))  # ldp qN, qN+1, [sp], #32
BACK = (
    0xA8C14BE8,  # ldp x8, x18, [sp], #16
    *(0xA8C10000 | n + 1 << 10 | 31 << 5 | n for n in (6, 4, 2, 0)),  # ldp xN, xN+1, [sp], #16
    0xF9400BE9, 0xA8C22BFD,  # ldr x9, [sp, #16]; ldp x29, x10, [sp], #32
    0xAA0903FE, 0xD65F0140,  # mov x30, x9; ret x10
)  # fmt: skip
CALL = (0x94000400,)  # bl .+0x1000
ALL = ", ".join(f"v{n}" for n in range(8))

ARM64 = {
    "it returns at once": (RETURNS, ""),
    "it saves all around a call": ((*SAVES, *VECTORS_SAVED, *CALL, *VECTORS_BACK, *BACK), ""),
    "it saves general registers alone": ((*SAVES, *CALL, *BACK), f"it changes {ALL}"),
    "two vectors come back in the wrong order": (
        (*SAVES, *VECTORS_SAVED, *CALL, *VECTORS_BACK[:3], 0xACC103E1, *BACK), "it changes v0, v1"),  # ldp q1, q0
    "an argument": ((0x4F000400, *RETURNS), "it changes x0, v0"),  # movi v0.4s, #0
    "what a function keeps": ((*RETURNS[:2], 0x6F00E409, RETURNS[2]), "it changes v9"),  # movi v9.2d, #0
    "a scratch vector": ((0x6F00E410, *RETURNS), ""),  # movi v16.2d, #0
    # what is not followed exactly may change every register that its word names
    "a load of three": (
        (*RETURNS[:2], 0x4C406126, RETURNS[2]), "it changes x0, x6, x24, v6, v7, v8, v9"),  # ld1 {v6.16b-v8.16b}, [x9]
    "SVE": ((0x2538C000, *RETURNS), "it executes 0x2538c000 at 0x10000, which is not followed"),  # mov z0.b, #0
    "the static chain": ((0xD2800012, *RETURNS), "it changes x18"),  # mov x18, #0
}  # fmt: skip


@pytest.mark.parametrize("name", ARM64)
def test_arm64(name: str) -> None:
    words, reason = ARM64[name]
    assert programs("arm64").keeps_contract(reader(words, 4), AT) == reason


# -- x86_64 ------------------------------------------------------------------------------------------------------------

PUSHES = "505152565741504151 41524153 4881ec88000000"
STORES = "0f110424 0f114c2410 0f11542420 0f115c2430 0f11642440 0f116c2450 0f11742460 0f117c2470"
LOADS = "0f100424 0f104c2410 0f10542420 0f105c2430 0f10642440 0f106c2450 0f10742460 0f107c2470"
POPS = "4881c488000000 415b415a41594158 5f5e5a5958 c3"

X86_64 = {
    "it returns at once": ("c3", ""),
    "it saves all around a call": (f"{PUSHES} {STORES} e8fb0f0000 {LOADS} {POPS}", ""),
    "aligned moves and those of integers": (
        f"{PUSHES} {STORES.replace('0f11', '0f29')} e8fb0f0000 {LOADS.replace('0f10', 'f30f6f')} {POPS}", ""),
    "it saves general registers alone": (
        f"{PUSHES} e8fb0f0000 {POPS}", "it changes " + ", ".join(f"xmm{n}" for n in range(8))),
    "one comes back from another's place": (
        f"{PUSHES} {STORES} e8fb0f0000 {LOADS.replace('0f10642440', '0f10642450')} {POPS}", "it changes xmm4"),
    "the static chain": ("4d31d2 c3", "it changes r10"),  # xor %r10, %r10
    "what a .plt may change": ("4d31db c3", ""),  # xor %r11, %r11
    "arithmetic on vectors": ("0f57c0 c3", "it executes 0f57c0c3 at 0x10000, which is not followed"),  # xorps
}  # fmt: skip


@pytest.mark.parametrize("name", X86_64)
def test_x86_64(name: str) -> None:
    code, reason = X86_64[name]
    assert programs("x86_64").keeps_contract(reader(list(bytes.fromhex(code)), 1), AT) == reason


def units(code: str) -> U32:
    return np.frombuffer(bytes.fromhex(code), dtype=np.uint8).astype(np.uint32)


# Code, whether it is on ymm or zmm registers.
WIDE = {
    "c5fc58c1 c3": True,  # vaddps %ymm1, %ymm0, %ymm0
    "c5f858c1 c3": False,  # vaddps %xmm1, %xmm0, %xmm0
    "c4e27d18c0 c3": True,  # vbroadcastss %xmm0, %ymm0
    "62f17c4858c1 c3": True,  # vaddps %zmm1, %zmm0, %zmm0
    "62f17c0858c1 c3": False,  # the same on %xmm, in the long form
    "62f17c1858c1 c3": True,  # with rounding, which is for 512 bits alone
    "b8c5fc58c1 c3": False,  # mov $0xc158fcc5, %eax
    "48b8c5fc58c1c5fc58c1 c3": False,  # movabs
    "6681c7c5fc c3": False,  # add $0xfcc5, %di
    "f687c5fc58c105 c3": False,  # testb $5, -0x3ea7033b(%rdi)
    "f697c5fc58c1 c3": False,  # notb the same
    "c5f877 c3": False,  # vzeroupper
    "06c5": True,  # no instruction of 64-bit code
    "c5": True,  # cut off
}


@pytest.mark.parametrize("code", WIDE)
def test_wide_instructions_are_told_from_their_bytes_elsewhere(code: str) -> None:
    assert is_wide(units(code)) == WIDE[code]


# Code, whether it may be left.
LEFT = {
    "c3": True, "f3c3": True, "c20800": True, "ebfe": False, "83c001ebfb": False, "e800000000": False,
    "e8000000000f0b": False, "ffe0": True, "41ffe3": True, "3effe0": True, "ffd0ebfc": False, "e900000000": True,
    "0f8400000000ebf8": False, "0f8400100000ebf8": True, "90": True, "f4": False, "7400ebfe": False, "74fe": False,
    "06": True,
}  # fmt: skip


@pytest.mark.parametrize("code", LEFT)
def test_a_function_that_cannot_be_left_is_told(code: str) -> None:
    assert ways_out(units(code)) == LEFT[code]


# -- ppc64le -----------------------------------------------------------------------------------------------------------

TAKES = (0x7D8802A6, 0x7D8903A6, 0x7C0803A6)  # mflr r12; mtctr r12; mtlr r0
BCTR, BLR, BL = 0x4E800420, 0x4E800020, 0x48001001

PPC64LE = {
    "it returns at once": ((*TAKES, BCTR), ""),
    "a function of C": ((BLR,), "it does not return with the old r0 in LR, so the traced function would never return"),
    "a call": ((BL, *TAKES, BCTR), "it calls other code at 0x10000, which may change f1-f13 and v2-v13"),
    "the static chain": ((0x39600000, *TAKES, BCTR), "it changes r11"),  # li r11,0
    "a load of a float": ((0xC8210000, *TAKES, BCTR), "it executes 0xc8210000 at 0x10000, which is not followed"),
    "a load of a vector": ((0x7D80F8CE, *TAKES, BCTR), "it executes 0x7d80f8ce at 0x10000, which is not followed"),
    "a move to a vector": ((0x7C210166, *TAKES, BCTR), "it executes 0x7c210166 at 0x10000, which is not followed"),
    "an indexed load of an integer": ((0x7D8C202E, *TAKES, BCTR), ""),  # lwzx r12,r12,r4
}


@pytest.mark.parametrize("name", PPC64LE)
def test_ppc64le(name: str) -> None:
    words, reason = PPC64LE[name]
    assert programs("ppc64le").keeps_contract(reader(words, 4), AT) == reason
