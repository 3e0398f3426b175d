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

from ftpatch.elf.image import open_image
from ftpatch.proof.emulate import CallExpectation, emulate
from ftpatch.proof.emulate.program_memory import program_memory
from ftpatch.proof.program_imports import Imports

SITE = "structure"
NOP = {"arm64": 0xD503_201F, "ppc64le": 0x6000_0000}


def seen(before: Path, code: bytes, folder: Path, call: int) -> list[str]:
    """What is wrong when the site is executed. call: bytes from the function's entry to the site's call."""
    patch, after = Patch(before, code), folder / "after"
    after.write_bytes(with_calls(patch.build(), before, {SITE: patch.code_va}))
    image, entry = open_image(str(after)), symbol(before, SITE)
    memory = program_memory(image, {va: slot.name for va, slot in Imports(image).slots.items()})
    size = 4 if image.arch.unit == 4 else 5
    site = CallExpectation(SITE, entry, entry + call, entry + call + size, patch.code_va, symbol(before, "hook"))
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
    "second argument": (0, "488b7528", "488b7508", "the second argument of the function"),
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
