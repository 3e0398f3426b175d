"""ppc64le programs: the stub by which sites call a C function, and what more than in a kernel must be kept.

A function of user space may be called with arguments in r3–r10, f1–f13 and v2–v13, with the static chain of a nested
function in r11, and with anybody's TOC in r2 where it has one entry. The stub keeps them all, and r12 and the condition
register, in a frame of its own on top of one for the patched function, so that a backtrace shows both:

    ▲ caller's frame                 16: caller's return address (r0)     ◄─ second argument of the hook
    │ frame of the patched function  16: back into the function (LR)      ◄─ first argument, less the length of the call
    ▼ frame of the stub              24: the TOC, for who calls through a .plt; 32: parameters of the hook;
                                     96: r2 … r12; 184: CR; 192: f1 … f13; 304: v2 … v13

The hook is called by its global entry with that address in r12, from which it makes its own TOC, whatever r2 is; an
import with what its slot holds, and so through a slot that is filled late. No site may call the stub of a .plt itself:
it writes r2 to 24(r1), and that word of the caller's frame may hold another TOC already, which the caller loads again.
Source: OpenPOWER ELFv2 ABI, 2.2.1 to 2.3.2, 4.2.5.3.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch.ppc64le_program_contract import keeps_contract, kept_registers
from ftpatch.arch.program_parts import HookCall, Programs
from ftpatch.arch.shape import Word
from ftpatch.arrays import U32

R_PPC64_GLOB_DAT, R_PPC64_JMP_SLOT, R_PPC64_IRELATIVE = 20, 21, 248
REACH = (1 << 31) - (1 << 16)
FRAME, GENERAL, CR, FLOATS, VECTORS = 496, 96, 184, 192, 304


def _each(word: int, registers: range, at: int, size: int) -> tuple[int, ...]:
    """A load or store of every register, one behind the other, at an offset from r1."""
    return tuple(word | n << 21 | at + size * (n - registers.start) for n in registers)


def _vectors(word: int) -> tuple[int, ...]:
    """The same for v2–v13, which take the offset from r0: li r0,off; and lvx or stvx vN,r1,r0."""
    return tuple(one for n in range(2, 14) for one in (0x3800_0000 | VECTORS + 16 * (n - 2), word | n << 21))


ENTER = (
    0xF801_0010,  # std   r0,16(r1)      where the patched function would put it, too
    0x7C08_02A6,  # mflr  r0
    0xF821_FFE1,  # stdu  r1,-32(r1)
    0xF801_0010,  # std   r0,16(r1)
    0xF821_0001 | -FRAME & 0xFFFC,  # stdu  r1,-496(r1)
    *_each(0xF801_0000, range(2, 13), GENERAL, 8),  # std   r2,96(r1) …
    0x7C00_0026,  # mfcr  r0
    0xF801_0000 | CR,  # std   r0,184(r1)
    *_each(0xD801_0000, range(1, 14), FLOATS, 8),  # stfd  f1,192(r1) …
    *_vectors(0x7C01_01CE),  # stvx  v2,r1,r0 …
    0x429F_0005,  # bcl   20,31,$+4
    0x7D88_02A6,  # mflr  r12
)
ADDIS, ADDI, LD = 0x3D8C_0000, 0x398C_0000, 0xE98C_0000  # addis r12,r12,ha; addi r12,r12,lo; ld r12,lo(r12)
CALL = (
    0x7D89_03A6,  # mtctr r12
    0xE861_0000 | FRAME + 16,  # ld    r3,512(r1)     first argument: the call's address
    0x3863_FFFC,  # addi  r3,r3,-4
    0xE881_0000 | FRAME + 32 + 16,  # ld    r4,544(r1)     second argument: where the function was called from
    0x4E80_0421,  # bctrl
)
LEAVE = (
    *_vectors(0x7C01_00CE),  # lvx   v2,r1,r0 …
    *_each(0xC801_0000, range(1, 14), FLOATS, 8),  # lfd   f1,192(r1) …
    0xE801_0000 | CR,  # ld    r0,184(r1)
    0x7C0F_F120,  # mtcrf 255,r0
    *_each(0xE801_0000, range(2, 13), GENERAL, 8),  # ld    r2,96(r1) …
    0x3821_0000 | FRAME,  # addi  r1,r1,496
    0xE801_0010,  # ld    r0,16(r1)
    0x7C09_03A6,  # mtctr r0
    0x3821_0020,  # addi  r1,r1,32
    0xE801_0010,  # ld    r0,16(r1)
    0x7C08_03A6,  # mtlr  r0
    0x4E80_0420,  # bctr
)


def stub(va: int, hook: HookCall, wide: bool) -> U32:
    """The words of the stub at `va`. No argument is in a register wider than v2–v13."""
    address = _address(va + 4 * (len(ENTER) - 1), hook)  # what bcl leaves in LR
    return np.array([*ENTER, *address, *CALL, *LEAVE], dtype=np.uint32)


DEEP_ENTER = (
    0xF841_0018,  # std   r2,24(r1)      a word behind the call may load it again, as after a stub of a .plt
    0x7C08_02A6,  # mflr  r0
    0xF801_0010,  # std   r0,16(r1)
    0xF821_FFA1,  # stdu  r1,-96(r1)
    0x7C03_0378,  # mr    r3,r0          first argument: the call's address
    0x3863_FFFC,  # addi  r3,r3,-4
    0xE881_0060,  # ld    r4,96(r1)      the frame of the patched function's caller
    0xE884_0010,  # ld    r4,16(r4)      second argument: where the function was called from
    0x429F_0005,  # bcl   20,31,$+4
    0x7D88_02A6,  # mflr  r12
)
DEEP_LEAVE = (
    0x7D89_03A6,  # mtctr r12
    0x4E80_0421,  # bctrl
    0x3821_0060,  # addi  r1,r1,96
    0xE841_0018,  # ld    r2,24(r1)
    0xE801_0010,  # ld    r0,16(r1)
    0x7C08_03A6,  # mtlr  r0
    0x4E80_0020,  # blr
)


def deep_stub(va: int, hook: HookCall, wide: bool) -> U32:
    """The words of the stub at `va` for the call that -pg makes of _mcount in a frame of the function's own: an
    ordinary one, which may change what any function may."""
    return np.array([*DEEP_ENTER, *_address(va + 4 * (len(DEEP_ENTER) - 1), hook), *DEEP_LEAVE], dtype=np.uint32)


def _address(place: int, hook: HookCall) -> tuple[int, int]:
    """The words that make r12 what the hook is entered with, from an address in it."""
    distance = hook.va - place
    return ADDIS | distance + 0x8000 >> 16 & 0xFFFF, (LD if hook.slot else ADDI) | distance & 0xFFFF


def toc(words: U32, va: int) -> int | None:
    """The TOC that a global entry at `va` sets up: addis r2,r12,ha; addi r2,r2,lo. None where it sets up none."""
    if len(words) < 2 or words[0] & 0xFFFF_0000 != 0x3C4C_0000 or words[1] & 0xFFFF_0000 != 0x3842_0000:
        return None
    high, low = ((int(word) & 0xFFFF ^ 0x8000) - 0x8000 for word in words[:2])
    return va + (high << 16) + low


PROGRAMS = Programs(
    stub=stub, reach=REACH, slot_reach=REACH, jump_slot=R_PPC64_JMP_SLOT, glob_dat=R_PPC64_GLOB_DAT,
    ifunc=R_PPC64_IRELATIVE, contract="r1-r11, f1-f13 and v2-v13 kept, LR := r0, return to the old LR",
    keeps_contract=keeps_contract, kept_registers=kept_registers,
    no_plt="a stub that writes r2 to the caller's frame, where the TOC of the caller may be",
    toc=toc, deep_stub=deep_stub, reload=Word(0xE841_0018, text="ld r2,24(r1)"),
)  # fmt: skip
