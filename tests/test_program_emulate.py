"""Sites of programs, executed: what a damaged stub loses is seen without reading the stub.

Each case changes one instruction of a sound stub, and names what is seen of it where a site is executed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import test_program_stubs as arm64
import test_program_stubs_ppc64le as ppc64le
import test_program_stubs_x86 as x86_64
from program_patch import Patch, symbol, with_calls
from test_verify import needs_qemu

from ftpatch.arch.program_proof import StubCall, program_proof
from ftpatch.proof.emulate import CallExpectation, emulate
from ftpatch.proof.emulate.program_memory import program_memory
from ftpatch.proof.program_imports import Imports
from ftpatch.recovered.image import open_image

SITE = "structure"
NOP = {"arm64": 0xD503_201F, "ppc64le": 0x6000_0000}


def seen(before: Path, code: bytes, folder: Path, call: int, deep: bool = False) -> list[str]:
    """What is wrong when the site is executed. call: bytes from the function's entry to the site's call."""
    patch, after = Patch(before, code), folder / "after"
    after.write_bytes(with_calls(patch.build(), before, {SITE: patch.code_va}))
    image, entry = open_image(str(after)), symbol(before, SITE)
    memory = program_memory(image, {va: slot.name for va, slot in Imports(image).slots.items()})
    size = 4 if image.arch.unit == 4 else 5
    start = entry + call if deep else entry
    hook = symbol(before, "hook")
    site = CallExpectation(SITE, start, entry + call, entry + call + size, patch.code_va, hook, deep)
    return list(emulate(image, image.arch, [site], memory=memory).failures)


def words(sound: list[int], old: int, new: int) -> bytes:
    assert sound.count(old) == 1, hex(old)
    return struct.pack(f"<{len(sound)}I", *(new if word == old else word for word in sound))


# In the stub for arm64: what becomes what → what is seen.
ARM64 = {
    "nothing": (0xA902_0FE2, 0xA902_0FE2, ""),
    "x2 not saved": (0xA902_0FE2, NOP["arm64"], "x2 behind the site"),
    "x18 not loaded": (0xA945_4BE8, 0xF940_2BE8, "x18 behind the site"),
    "q7 not saved": (0xAD06_1FE6, 0x3D80_33E6, "q7 behind the site"),
    "upper half of q0 lost": (0xAD43_07E0, 0xFD40_33E0, "q0 behind the site"),
    "sp": (0xA8C1_7BFD, 0xA8C2_7BFD, "sp behind the site"),
    "first argument": (0xD100_13C0, NOP["arm64"], "the first argument of the function"),
    "second argument": (0xAA09_03E1, NOP["arm64"], "the second argument of the function"),
    "alignment": (0xA9B2_7BFD, 0xA9B2_FBFD, "the stack pointer of the function"),
    "a call less": (arm64.HOOK, NOP["arm64"], "calls of the function"),
    "below the stack pointer": (0xA945_4BE8, 0xA97C_4BE8, "x8 behind the site"),  # ldp x8, x18, [sp, #-64]
}


@pytest.mark.parametrize("name", ARM64)
def test_what_a_stub_of_arm64_loses_is_seen(name: str, tmp_path: Path) -> None:
    old, new, what = ARM64[name]
    check(
        seen(arm64.PIE, words(arm64.stub(arm64.PATCH.code_va, symbol(arm64.PIE, "hook")), old, new), tmp_path, 4), what
    )


def check(failures: list[str], what: str) -> None:
    if not what:
        assert failures == []
    else:
        assert len(failures) == 1 and failures[0].startswith(f"{SITE}: {what}: found "), failures


PPC64LE = {
    "nothing": (0x3863_FFFC, 0x3863_FFFC, ""),
    "r2 not kept": (0xE801_0000 | 2 << 21 | 96, NOP["ppc64le"], "r2 behind the site"),
    "r11 not kept": (0xE801_0000 | 11 << 21 | 168, NOP["ppc64le"], "r11 behind the site"),
    "f1 not saved": (0xD801_0000 | 1 << 21 | 192, NOP["ppc64le"], "f1 behind the site"),
    "v13 not loaded": (0x7C01_00CE | 13 << 21, NOP["ppc64le"], "v13 behind the site"),
    "cr": (0x7C0F_F120, 0x3800_0000, ""),  # li r0,0: the C function itself keeps cr2–cr4
    "first argument": (0x3863_FFFC, NOP["ppc64le"], "the first argument of the function"),
    "second argument": (0xE881_0220, NOP["ppc64le"], "the second argument of the function"),
    "LR": (0x7C08_03A6, NOP["ppc64le"], "LR behind the site"),
    "a call less": (0x4E80_0421, NOP["ppc64le"], "calls of the function"),
}  # fmt: skip


@needs_qemu
@pytest.mark.parametrize("name", PPC64LE)
def test_what_a_stub_of_ppc64le_loses_is_seen(name: str, tmp_path: Path) -> None:
    old, new, what = PPC64LE[name]
    check(seen(ppc64le.PIE, words(ppc64le.SOUND, old, new), tmp_path, 4), what)


X86_64: dict[str, tuple[int, str, str, str]] = {
    "nothing": (0, "4152", "4152", ""),
    "r10 not kept": (1, "415a", "4159", "r10 behind the site"),
    "rax not kept": (1, "59 58", "58 59", "rax behind the site"),
    "xmm3 not saved": (0, "0f295c2430", "0f29542430", "xmm3 behind the site"),
    "first argument": (0, "4883ef05", "4883ef04", "the first argument of the function"),
    "second argument": (0, "488b7518", "488b7508", "the second argument of the function"),
    "alignment": (0, "4883e4f0", "4883ec08 4883e4f0 50", "the stack pointer of the function"),
}


@pytest.mark.parametrize("name", X86_64)
def test_what_a_stub_of_x86_64_loses_is_seen(name: str, tmp_path: Path) -> None:
    half, old, new, what = X86_64[name]
    halves = list(x86_64.NARROW)
    assert halves[half].count(old) == 1
    halves[half] = halves[half].replace(old, new)
    failures = seen(x86_64.PIE, x86_64.stub(x86_64.VA, x86_64.HOOK, (halves[0], halves[1])), tmp_path, 0)
    check(failures, what)


# For calls behind a prologue, of which arm64's and ppc64le's may change what any function may.
DEEP_ARM64 = [0xAA00_03E1, 0xD100_13C0]  # mov x1, x0; sub x0, x30, #4
DEEP_PPC64LE = [
    0xF841_0018, 0x7C08_02A6, 0xF801_0010, 0xF821_FFA1,  # std r2,24(r1); mflr r0; std r0,16(r1); stdu r1,-96(r1)
    0x7C03_0378, 0x3863_FFFC, 0xE881_0060, 0xE884_0010,  # mr r3,r0; addi r3,r3,-4; ld r4,96(r1); ld r4,16(r4)
    0x429F_0005, 0x7D88_02A6,  # bcl 20,31,$+4; mflr r12
]  # fmt: skip
DEEP_BACK = [
    0x7D89_03A6, 0x4E80_0421, 0x3821_0060, 0xE841_0018,  # mtctr r12; bctrl; addi r1,r1,96; ld r2,24(r1)
    0xE801_0010, 0x7C08_03A6, 0x4E80_0020,  # ld r0,16(r1); mtlr r0; blr
]  # fmt: skip


def deep_arm64() -> list[int]:
    va, hook = arm64.PATCH.code_va + 8, symbol(arm64.PIE, "hook")
    return [*DEEP_ARM64, 0x1400_0000 | hook - va >> 2 & 0x3FF_FFFF]


def deep_ppc64le() -> list[int]:
    distance = symbol(ppc64le.PIE, "hook") - (ppc64le.VA + 36)
    address = [0x3D8C_0000 | distance + 0x8000 >> 16 & 0xFFFF, 0x398C_0000 | distance & 0xFFFF]
    return [*DEEP_PPC64LE, *address, *DEEP_BACK]


DEEP = {
    "arm64": (arm64.PIE, deep_arm64, 0xAA00_03E1, "the second argument", "the second argument of the function"),
    "arm64 site": (arm64.PIE, deep_arm64, 0xD100_13C0, "the first argument", "the first argument of the function"),
    "ppc64le": (ppc64le.PIE, deep_ppc64le, 0xE884_0010, "the second argument", "the second argument of the function"),
    "ppc64le r2": (ppc64le.PIE, deep_ppc64le, 0xE841_0018, "it does not keep r2", "r2 behind the site"),
    "ppc64le lr": (ppc64le.PIE, deep_ppc64le, 0x7C08_03A6, "it does not return to where LR pointed", "never arrives "
                   "behind the site"),
}  # fmt: skip


@needs_qemu
@pytest.mark.parametrize("name", DEEP)
def test_what_a_stub_behind_a_prologue_loses_is_read_and_seen(name: str, tmp_path: Path) -> None:
    before, make, word, why, what = DEEP[name]
    sound, va = make(), Patch(before, b"").code_va
    machine = program_proof(open_image(str(before)).arch)
    assert machine is not None
    code = struct.pack(f"<{len(sound)}I", *sound)
    read = machine.read(code, va)
    assert (read.why, read.deep, read.call) == ("", True, StubCall(symbol(before, "hook"), False))
    assert seen(before, code, tmp_path, 4, deep=True) == []
    bad = words(sound, word, NOP[name.split()[0]])
    assert machine.read(bad, va).why.startswith(why)
    check(seen(before, bad, tmp_path, 4, deep=True), what)


def test_a_stub_of_x86_64_behind_a_prologue_finds_the_caller_by_rbp(tmp_path: Path) -> None:
    front, back = (half.replace("ff742408", "ff7508", 1) for half in x86_64.NARROW)
    code = x86_64.stub(x86_64.VA, x86_64.HOOK, (front, back))
    machine = program_proof(open_image(str(x86_64.PIE)).arch)
    assert machine is not None and machine.read(code, x86_64.VA).deep
    check(seen(x86_64.PIE, code, tmp_path, 0, deep=True), "")
    check(seen(x86_64.PIE, code, tmp_path, 0), "never arrives behind the site")  # rbp is its caller's there
    wrong = x86_64.stub(x86_64.VA, x86_64.HOOK)
    check(seen(x86_64.PIE, wrong, tmp_path, 0, deep=True), "the second argument of the function")


# Keeps what a kernel's trampoline must, and not what a function of user space is called with.
SPOILS = {"arm64": (arm64.PIE, 4, "d9"), "ppc64le": (ppc64le.PIE, 4, "r11"), "x86_64": (x86_64.PIE, 0, "r10")}


@needs_qemu
@pytest.mark.parametrize("name", SPOILS)
@pytest.mark.parametrize("function", ["direct", "spoils"])
def test_what_sites_call_is_executed_itself(name: str, function: str, tmp_path: Path) -> None:
    before, call, register = SPOILS[name]
    target = symbol(before, function) + 8 * (name == "ppc64le" and function == "direct")
    after, entry = tmp_path / "after", symbol(before, SITE)
    after.write_bytes(with_calls(before.read_bytes(), before, {SITE: target}))
    image = open_image(str(after))
    site = CallExpectation(SITE, entry, entry + call, entry + call + (4 if call else 5), target)
    failures = list(emulate(image, image.arch, [site], memory=program_memory(image, {})).failures)
    check(failures, "" if function == "direct" else f"{register} behind the site")


BAD: dict[str, Callable[[int], list[int]]] = {
    "a jump to itself": lambda va: [0x1400_0000],
    "a jump to nowhere": lambda va: [0xD61F_0000],
    "a call of itself": lambda va: [0x9400_0000],
    "no instruction": lambda va: [0],
}


@pytest.mark.parametrize("name", BAD)
def test_code_that_never_comes_back_is_told_in_one_line(name: str, tmp_path: Path) -> None:
    code = struct.pack("<I", BAD[name](arm64.PATCH.code_va)[0])
    failures = seen(arm64.PIE, code, tmp_path, 4)
    assert len(failures) == 1 and failures[0].startswith(f"{SITE}: never arrives behind the site: found a stop at 0x")
