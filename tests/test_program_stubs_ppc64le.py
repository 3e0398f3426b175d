"""`ftpatch verify` on ppc64le programs whose sites call a C function by a stub: files are made by hand."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from program_patch import Patch, findings, slot, symbol, with_calls
from test_program_proof import SMALL
from test_verify import needs_qemu, verify

PPC64LE = [SMALL / f"ppc64le-{kind}" for kind in ("pie", "exec", "so")]
PIE = PPC64LE[0]
SITES = ("work", "numbers", "vectors", "structure")
FRAME = 496


def all_of(word: int, registers: range, at: int) -> list[int]:
    """std, ld, stfd or lfd of registers, one behind the other from at(r1)."""
    return [word | n << 21 | at + 8 * (n - registers.start) for n in registers]


def vectors(word: int) -> list[int]:
    """li r0,304 + …; stvx or lvx vN,r1,r0"""
    return [one for n in range(2, 14) for one in (0x3800_0000 | 304 + 16 * (n - 2), word | n << 21)]


ENTER = [
    0xF801_0010, 0x7C08_02A6, 0xF821_FFE1, 0xF801_0010,  # std r0,16(r1); mflr r0; stdu r1,-32(r1); std r0,16(r1)
    0xF821_0001 | -FRAME & 0xFFFC,  # stdu r1,-496(r1)
    *all_of(0xF801_0000, range(2, 13), 96), 0x7C00_0026, 0xF801_00B8,  # std r2,96(r1) …; mfcr r0; std r0,184(r1)
    *all_of(0xD801_0000, range(1, 14), 192), *vectors(0x7C01_01CE),  # stfd f1,192(r1) …
    0x429F_0005, 0x7D88_02A6,  # bcl 20,31,$+4; mflr r12
]  # fmt: skip
CALL = [
    0x7D89_03A6,
    0xE861_0200,
    0x3863_FFFC,
    0xE881_0220,
    0x4E80_0421,  # mtctr r12; ld r3; addi r3,r3,-4; ld r4; bctrl
]
LEAVE = [
    *vectors(0x7C01_00CE), *all_of(0xC801_0000, range(1, 14), 192),
    0xE801_00B8, 0x7C0F_F120, *all_of(0xE801_0000, range(2, 13), 96),  # ld r0,184(r1); mtcrf 255,r0
    0x3821_0000 | FRAME, 0xE801_0010, 0x7C09_03A6,  # addi r1,r1,496; ld r0,16(r1); mtctr r0
    0x3821_0020, 0xE801_0010, 0x7C08_03A6, 0x4E80_0420,  # addi r1,r1,32; ld r0,16(r1); mtlr r0; bctr
]  # fmt: skip


def stub(va: int, hook: int, load: int = 0x398C_0000) -> list[int]:
    """load: addi r12,r12, or ld r12,0(r12)"""
    distance = hook - (va + 4 * (len(ENTER) - 1))
    return [*ENTER, 0x3D8C_0000 | distance + 0x8000 >> 16 & 0xFFFF, load | distance & 0xFFFF, *CALL, *LEAVE]


def hooked(before: Path, words: list[int], folder: Path) -> Path:
    patch = Patch(before, struct.pack(f"<{len(words)}I", *words))
    (folder / "after").write_bytes(with_calls(patch.build(), before, dict.fromkeys(SITES, patch.code_va)))
    return folder / "after"


@needs_qemu
@pytest.mark.parametrize("before", PPC64LE, ids=lambda path: path.name)
@pytest.mark.parametrize("hook", ["hook", "outside"])
def test_sites_that_call_a_c_function_by_a_stub_are_found_sound(before: Path, hook: str, tmp_path: Path) -> None:
    va = Patch(before, b"").code_va
    words = stub(va, symbol(before, hook)) if hook == "hook" else stub(va, slot(before, hook), 0xE98C_0000)
    proof = verify(before, hooked(before, words, tmp_path), "--require", "emulation")["proof"]
    assert proof["callees"] == {hook if hook == "hook" else "outside@plt": 4} and proof["emulated"] == 4


VA = Patch(PIE, b"").code_va
SOUND = stub(VA, symbol(PIE, "hook"))


def instead(old: int, new: int = 0x6000_0000) -> list[int]:
    assert SOUND.count(old) == 1, hex(old)
    return [new if word == old else word for word in SOUND]


STUBS = {
    "r11 not kept": (instead(0xE801_0000 | 11 << 21 | 168), "it does not keep r11"),
    "f13 not saved": (instead(0xD801_0000 | 13 << 21 | 288), "it does not keep f13"),
    "v2 not saved": (instead(0x7C01_01CE | 2 << 21), "it does not keep v2"),
    "v13 loaded into v12": (instead(0x7C01_00CE | 13 << 21, 0x7C01_00CE | 12 << 21), "it does not keep v12, v13"),
    "cr not kept": (instead(0x7C0F_F120), "it does not keep cr"),
    "another site": (instead(0x3863_FFFC), "the first argument of its call is not the address of the site's call"),
    "another caller": (
        instead(0xE881_0220, 0xE881_0200), "the second argument of its call is not where the function returns to"),
    "r12 not the function": (instead(0x7D89_03A6), "it calls what is in CTR at {call:#x}, which is no address that is "
                             "known"),
    "the caller's TOC word": ([SOUND[0], 0xF841_0018, *SOUND[1:]], "it uses its caller's frame, and goes on into a "
                              "function behind a site at the entry"),
    "another word of the caller's frame": (
        [SOUND[0], 0xF841_0020, *SOUND[1:]], "it writes beside its own stack frame at {va:#x}"),
    "returns to the caller": (instead(0x7C08_03A6), "it does not return with the old r0 in LR"),
    "a frame that is not aligned": (instead(0xF821_FFE1, 0xF821_FFE9), "it makes no frame of a multiple of 16 bytes at "
                                    "{frame:#x}"),
}  # fmt: skip


@pytest.mark.parametrize("name", STUBS)
def test_a_stub_that_loses_something_is_found(name: str, tmp_path: Path) -> None:
    words, why = STUBS[name]
    at = {"va": VA + 4, "frame": VA + 8, "call": VA + 4 * SOUND.index(0x4E80_0421)}
    found = findings(PIE, hooked(PIE, words, tmp_path))
    stubs = [text for rule, text in found if rule == "verify-stub"]
    assert stubs == [f"the new code at {VA:#x} is no stub that calls a C function: {why.format(**at)}"]


def test_a_function_that_changes_the_static_chain_is_no_target(tmp_path: Path) -> None:
    """`direct` keeps all; `spoils` what a kernel's trampoline must, and changes r11."""
    after = tmp_path / "after"
    to = {"work": symbol(PIE, "direct") + 8, "numbers": symbol(PIE, "spoils")}
    after.write_bytes(with_calls(PIE.read_bytes(), PIE, to))
    assert [text.partition(":")[0] for _, text in findings(PIE, after)] == ["numbers"]
