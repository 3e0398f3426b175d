"""arm64 as the proof reads it.

Source: Arm ARM (DDI 0487) C6.2; ELF for the Arm 64-bit Architecture, 5.7; arch/arm64/kernel/module.c
apply_relocate_add().
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ftpatch.arch import proof_tables as t
from ftpatch.arch.arm64_pad_proof import PAD_TEXTS, read_pad
from ftpatch.arch.arm64_proof_text import leaves, names
from ftpatch.arrays import I64, U8, U32

BTI_C, RET, RET_X9 = 0xD503_245F, 0xD65F_03C0, 0xD65F_0120
ADRP, ADD = (0x9F00_0000, 0x9000_0000), (0xFFC0_0000, 0x9100_0000)  # mask, and the bits under it
ERRATUM_843419 = (0xFF8, 0xFFC)  # offsets in a page where an ADRP may misbehave on Cortex-A53
VENEER = (0x9000_0010, 0x9100_0210, 0xD61F_0200)  # adrp x16; add x16, x16; br x16, less their immediates
APART = 32  # words that may lie between the two instructions that form an address


def branches(words: U32) -> tuple[U8, I64]:
    """b and bl: six bits, then the distance in words."""
    wide = words.astype(np.int64)
    kind = np.where(wide >> 26 == 0b000101, t.JUMP, np.where(wide >> 26 == 0b100101, t.CALL, t.NONE))
    return kind.astype(np.uint8), (((wide & 0x03FF_FFFF) ^ 0x0200_0000) - 0x0200_0000) * 4


def conditional(word: int) -> bool:
    """b.cond; cbz, cbnz; tbz, tbnz"""
    return word & 0xFF00_0010 == 0x5400_0000 or word & 0x7E00_0000 in (0x3400_0000, 0x3600_0000)


def formed(adrp: int, add: int, va: int) -> int:
    """The address that an ADRP at `va` and an ADD behind it form."""
    pages = (adrp >> 29 & 3) | (adrp >> 5 & 0x7FFFF) << 2
    pages = (pages ^ 1 << 20) - (1 << 20)
    return (va & ~0xFFF) + (pages << 12) + (add >> 10 & 0xFFF) & (1 << 64) - 1


def find_pairs(words: U32, va: int, value: int) -> list[tuple[int, int]]:
    """Word indices of every ADRP and ADD that form an address."""
    pairs = []
    for first in np.flatnonzero((words & np.uint32(ADRP[0])) == np.uint32(ADRP[1])).tolist():
        register = int(words[first]) & 31
        for second in range(first + 1, min(first + APART, len(words))):
            word = int(words[second])
            if word & ADD[0] == ADD[1] and word >> 5 & 31 == register:
                if formed(int(words[first]), word, va + 4 * first) == value:
                    pairs.append((first, second))
                break
    return pairs


def same_else(old: tuple[int, int], new: tuple[int, int]) -> bool:
    """Whether ADRP and ADD have the registers that they had."""
    return not (old[0] ^ new[0]) & (ADRP[0] | 31) and not (old[1] ^ new[1]) & 0xFFC0_03FF


def thunk(words: Sequence[int], va: int) -> t.Thunk | None:
    """[bti c]; adrp xN, ops; add xN, xN, #lo12; b into the kernel's entry"""
    if len(words) < 4 or words[1] & ADRP[0] != ADRP[1]:
        return None
    n = words[1] & 31
    kind, distance = branches(np.array(words[3:], dtype=np.uint32))
    if words[2] & ADD[0] != ADD[1] or words[2] & 31 != n or words[2] >> 5 & 31 != n or kind[0] != t.JUMP:
        return None
    fault = "" if words[0] == BTI_C else "by a thunk without a landing pad (bti c)"
    fault = fault or ("by a thunk whose adrp an erratum may hit" if va + 4 & 0xFFF in ERRATUM_843419 else "")
    return t.Thunk(n, formed(words[1], words[2], va + 4), va + 12 + int(distance[0]), fault)


def veneer(words: Sequence[int], va: int) -> t.Veneer | None:
    """adrp x16, target; add x16, x16, #lo12; br x16"""
    if len(words) < 3 or (words[0] & 0x9F00_001F, words[1] & 0xFFC0_03FF, words[2]) != VENEER:
        return None
    fault = "by a veneer whose adrp an erratum may hit" if va & 0xFFF in ERRATUM_843419 else ""
    return t.Veneer(formed(words[0], words[1], va), fault)


def landing_pad(word: int) -> bool:
    """bti c, j or jc; paciasp and pacibsp are as good as the first, see Arm ARM D8.4.5"""
    return word in (BTI_C, 0xD503_249F, 0xD503_24DF, 0xD503_233F, 0xD503_237F)


# -- the module loader -------------------------------------------------------------------------------------------------


def stub(va: int, target: int, toc: int | None) -> t.Stub:
    pages = (target >> 12) - (va >> 12)
    return t.Stub((
        0x9000_0010 | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5,  # adrp x16, target
        0x9100_0210 | (target & 0xFFF) << 10,                           # add  x16, x16, #lo12
        0xD61F_0200,                                                    # br   x16
    ))  # fmt: skip


def _branch26(link: t.Link, at: t.Spot) -> None:
    """bl, b: over a stub where the target is out of reach."""
    distance = at.value - at.va
    if not -(1 << 27) <= distance < 1 << 27:
        distance = link.stub(at.value) - at.va
    at.put(at.word() & 0xFC00_0000 | distance >> 2 & 0x03FF_FFFF)


def _branch(shift: int, width: int) -> t.Apply:
    def apply(link: t.Link, at: t.Spot) -> None:
        mask = (1 << width) - 1 << shift
        at.put(at.word() & ~mask | at.value - at.va >> 2 << shift & mask)

    return apply


def _adr(page: int) -> t.Apply:
    def apply(link: t.Link, at: t.Spot) -> None:
        distance = (at.value >> page) - (at.va >> page)
        at.put(at.word() & 0x9F00_001F | (distance & 3) << 29 | (distance >> 2 & 0x7FFFF) << 5)

    return apply


def _lo12(scale: int) -> Callable[[t.Link, t.Spot], None]:
    def apply(link: t.Link, at: t.Spot) -> None:
        at.put(at.word() & ~(0xFFF << 10) | (at.value & 0xFFF) >> scale << 10)

    return apply


APPLY: dict[int, t.Apply] = {
    257: t.pointer64,  # R_AARCH64_ABS64
    260: t.relative64,  # PREL64
    261: t.relative32,  # PREL32
    274: _adr(0),  # ADR_PREL_LO21
    275: _adr(12),  # ADR_PREL_PG_HI21
    276: _adr(12),  # ADR_PREL_PG_HI21_NC
    277: _lo12(0),  # ADD_ABS_LO12_NC
    278: _lo12(0),  # LDST8_ABS_LO12_NC
    279: _branch(5, 14),  # TSTBR14
    280: _branch(5, 19),  # CONDBR19
    282: _branch26,  # JUMP26
    283: _branch26,  # CALL26
    284: _lo12(1),  # LDST16_ABS_LO12_NC
    285: _lo12(2),  # LDST32_ABS_LO12_NC
    286: _lo12(3),  # LDST64_ABS_LO12_NC
    299: _lo12(4),  # LDST128_ABS_LO12_NC
}


def static_literal(code: bytes, va: int) -> int | None:
    """bti c; adrp x16; ldr x16, [x16, …]; br x16."""
    words = [int.from_bytes(code[at : at + 4], "little") for at in range(0, 16, 4)]
    adrp, load = words[1], words[2]
    if (words[0], words[3]) != (BTI_C, 0xD61F_0200) or adrp & 0x9F00_001F != 0x9000_0010:
        return None
    if load & 0xFFC0_03FF != 0xF940_0210:
        return None
    pages = (adrp >> 5 & 0x7_FFFF) << 2 | adrp >> 29 & 3
    pages -= (pages & 1 << 20) << 1
    return (va + 4 & ~0xFFF) + (pages << 12) + (load >> 10 & 0xFFF) * 8 & t.BIT64


def no_jump(code: bytes, va: int) -> int | None:
    """Trampolines of static calls go nowhere by their code."""
    return None


TABLES = t.ProofTables(
    branches=branches,
    mnemonics={t.JUMP: "b", t.CALL: "bl"},
    texts={0xD503_201F: "nop", 0xAA1E_03E9: "mov x9, x30", BTI_C: "bti c"} | PAD_TEXTS,
    also={"hint #0x22": "bti c"},  # capstone 4
    pad=read_pad,
    nop=0xD503_201F,
    ends=(RET, RET_X9),
    conditional=conditional,
    returns=((BTI_C, RET),),
    distance64=260,  # PREL64
    emulator="arm64",
    # Source: arch/arm64/include/asm/static_call.h (Linux 7.x); the relocation is that of the adrp.
    static_trampoline=t.StaticTrampoline(16, 0, no_jump, field=4, thunk="", returns=("", ""), reads=static_literal),
    apply=APPLY,
    stub=stub,
    stub_size=12,
    # An ADRP reaches from one to the other, as in a kernel.
    module_area=(0xFFFF_8000_0100_0000, 0xFFFF_8000_4100_0000),
    thunk=thunk,
    veneer=veneer,
    leaves=leaves,
    names=names,
    landing_pad=landing_pad,
    jump_type=282,  # R_AARCH64_JUMP26
    object_sites=(  # bl; mov x9, x30 in front of it, each with CALL26
        t.ObjectSite(((bytes.fromhex("00000094"), (283,)),), bytes.fromhex("1f2003d5")),
        t.ObjectSite(((bytes.fromhex("e9031eaa00000094"), (283,)),), bytes.fromhex("1f2003d5") * 2),
    ),
    kept_entries=(t.KeptEntry((BTI_C,)),),
    jump=0x1400_0000,
    also_applied=(264, 266, 268, 269, 273),  # MOVW_UABS_G0_NC, G1_NC, G2_NC, G3, LD_PREL_LO19
    address_pairs=t.AddressPairs(find_pairs, formed, same_else),
)
