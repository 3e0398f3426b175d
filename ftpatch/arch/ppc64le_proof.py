"""ppc64le as the proof reads it.

Source: Power ISA 3.1, book I, 2.4 (branches) and 3.3; OpenPOWER ELFv2, 3.5; arch/powerpc/kernel/module_64.c
apply_relocate_add(), create_stub(), restore_r2().
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ftpatch.arch import proof_tables as t
from ftpatch.arrays import I64, U8, U32

NOP, BLR, BCTR, LD_R2_24 = 0x6000_0000, 0x4E80_0020, 0x4E80_0420, 0xE841_0018
MFLR_R0, MTLR_R0 = 0x7C08_02A6, 0x7C08_03A6
LD_R12, ADDIS_R12, ADDI_R12, MTCTR_R12 = 0xE98D_0000, 0x3D8C_0000, 0x398C_0000, 0x7D89_03A6
LD_R2_R12, ADD_R2_R12, ADDIS_R2_R12, ADDI_R2_R2 = 0xE84C_0000, 0x7C42_6214, 0x3C4C_0000, 0x3842_0000
HERE = 0x429F_0005  # bcl 20,31,$+4: always taken, to learn the address


def branches(words: U32) -> tuple[U8, I64]:
    """b and bl: opcode 18, relative; the lowest bit tells a call."""
    wide = words.astype(np.int64)
    relative = (wide >> 26 == 18) & (wide & 2 == 0)
    kind = np.where(relative, np.where(wide & 1, t.CALL, t.JUMP), t.NONE)
    return kind.astype(np.uint8), ((wide & 0x03FF_FFFC) ^ 0x0200_0000) - 0x0200_0000


def conditional(word: int) -> bool:
    return word >> 26 == 16 and word != HERE


def low_half(word: int) -> int:
    """The immediate in the lower half of a word, with its sign."""
    return (word & 0xFFFF ^ 0x8000) - 0x8000


def far(words: Sequence[int]) -> tuple[int, int] | None:
    """ld r12,K(r13); addis r12,r12,X; addi r12,r12,Y; mtctr r12; bctr: (K, X:Y)"""
    if len(words) < 5:
        return None
    shape = [words[0] & 0xFFFF_0003, words[1] >> 16, words[2] >> 16, *words[3:5]]
    if shape != [LD_R12, ADDIS_R12 >> 16, ADDI_R12 >> 16, MTCTR_R12, BCTR]:
        return None
    return words[0] & 0xFFFC, (low_half(words[1]) << 16) + low_half(words[2])


def loses_toc(st_other: int) -> bool:
    """STO_PPC64_LOCAL of 1: one entry, and r2 is a register like any other. Source: ELFv2 ABI, 3.4.1."""
    return st_other >> 5 == 1


def writes_toc(word: int) -> bool:
    """std rX,24(r1)"""
    return word & 0xFC1F_FFFF == 0xF801_0018


def makes_frame(word: int) -> bool:
    """stdu r1,-X(r1)"""
    return word & 0xFFFF_8003 == 0xF821_8001


LR_LOST = "the return address is lost"
R12_WRONG = "r12 is not the address of the global entry"
CALLERS = "24(r1) is a word of the caller's frame then, which may hold another TOC pointer"
TOC_LOST, TOC_WRONG = "the caller's r2 is lost", "r2 is not the module's TOC pointer"
CALLS = (
    t.StubWord(MFLR_R0, "mflr r0", LR_LOST),
    t.StubWord(0xF801_0010, "std r0,16(r1)", LR_LOST),
    t.StubWord(0xF821_FFD1, "stdu r1,-48(r1)", CALLERS),
    t.StubWord(0xF841_0028, "std r2,40(r1)", TOC_LOST),
)
SETS_TOC = (
    t.StubWord(HERE, "bcl 20,31,$+4", TOC_WRONG),
    t.StubWord(0x7D88_02A6, "mflr r12", TOC_WRONG),
    t.StubWord(0x3C4C_0000, "addis r2,r12,0", TOC_WRONG),
    t.StubWord(0x3842_0000, "addi r2,r2,0", TOC_WRONG),
)
RETURNS = (
    t.StubWord(0x4800_0001, "bl $+0", "the replacement is not called"),
    t.StubWord(NOP, "nop", "the loader refuses a call without one, which becomes the load of r2"),
    t.StubWord(0xE841_0028, "ld r2,40(r1)", TOC_LOST),
    t.StubWord(0x3821_0030, "addi r1,r1,48", "r1 is not the caller's"),
    t.StubWord(0xE801_0010, "ld r0,16(r1)", LR_LOST),
    t.StubWord(MTLR_R0, "mtlr r0", LR_LOST),
    t.StubWord(BLR, "blr", "it does not return"),
)
REDIRECT_STUBS = (
    t.RedirectStub("", "enters a global entry with its address in r12", (
        t.StubWord(MFLR_R0, "mflr r0", LR_LOST),
        t.StubWord(HERE, "bcl 20,31,$+4", R12_WRONG),
        t.StubWord(0x7D88_02A6, "mflr r12", R12_WRONG),
        t.StubWord(MTLR_R0, "mtlr r0", LR_LOST),
        t.StubWord(ADDIS_R12, "addis r12,r12,0", R12_WRONG),
        t.StubWord(ADDI_R12, "addi r12,r12,0", R12_WRONG),
        t.StubWord(MTCTR_R12, "mtctr r12", "it goes nowhere that is known"),
        t.StubWord(BCTR, "bctr", "it does not enter the replacement"),
    ), enters=t.Halves(8, 16, 20)),
    t.RedirectStub("", "calls from a frame of its own", CALLS + RETURNS, call=16),
    t.RedirectStub("toc_", "calls from a frame of its own, with the module's TOC pointer",
                   CALLS + SETS_TOC + RETURNS, own_toc=t.Halves(20, 24, 28), call=32),
)  # fmt: skip


# -- the module loader -------------------------------------------------------------------------------------------------


def stub(va: int, target: int, toc: int | None) -> t.Stub:
    """struct ppc64_stub_entry: seven words of code, a magic number, the function's address."""
    to = va - (toc or 0)
    return t.Stub((
        0x3D62_0000 | to + 0x8000 >> 16 & 0xFFFF,  # addis r11,r2,va@ha
        0x396B_0000 | to & 0xFFFF,                 # addi  r11,r11,va@l
        0xF841_0018,                               # std   r2,24(r1)
        0xE98B_0020,                               # ld    r12,32(r11)
        0x7D89_03A6,                               # mtctr r12
        0x4E80_0420,                               # bctr
        0, 0x7374_7562, target & 0xFFFF_FFFF, target >> 32,
    ), pointer=32)  # fmt: skip


def _rel24(link: t.Link, at: t.Spot) -> None:
    """bl, b: to the local entry within the module; over a stub to what is outside, with the TOC loaded again."""
    word, to = at.word(), at.value + at.local
    if at.outside:
        to = link.stub(at.value)
        if word & 1 and at.off + 8 <= len(at.content) and at.word(4) == NOP:
            at.put(LD_R2_24, more=4)
    at.put(word & 0xFC00_0003 | to - at.va & 0x03FF_FFFC)


def _half(of: str, toc: bool, ds: bool = False) -> t.Apply:
    """A 16-bit field: low, high or high adjusted; relative to the TOC or to the place."""

    def apply(link: t.Link, at: t.Spot) -> None:
        value = at.value - (link.toc or 0) if toc else at.value - at.va
        part = {"lo": value, "hi": value >> 16, "ha": value + 0x8000 >> 16}[of] & 0xFFFF
        old = int.from_bytes(at.content[at.off : at.off + 2], "little")
        at.put(old & 3 | part & 0xFFFC if ds else part, 2)

    return apply


def _entry(link: t.Link, at: t.Spot) -> None:
    """ld r2,-8(r12); add r2,r2,r12 becomes addis r2,r12; addi r2,r2 where the TOC is within 2 GiB."""
    distance = (link.toc or 0) - at.va
    if len(at.content) < at.off + 8 or at.word() & ~0xFFFC != LD_R2_R12 or at.word(4) != ADD_R2_R12:
        return
    if -0x8000_8000 <= distance < 0x7FFF_8000:
        at.put(ADDIS_R2_R12 | distance + 0x8000 >> 16 & 0xFFFF)
        at.put(ADDI_R2_R2 | distance & 0xFFFF, more=4)


def _toc(link: t.Link, at: t.Spot) -> None:
    at.put(link.toc or 0, 8)
    link.pointers[at.va] = link.toc or 0


APPLY: dict[int, t.Apply] = {
    10: _rel24,  # R_PPC64_REL24
    26: t.relative32,  # REL32
    38: t.pointer64,  # ADDR64
    44: t.relative64,  # REL64
    47: _half("lo", True),  # TOC16
    48: _half("lo", True),  # TOC16_LO
    49: _half("hi", True),  # TOC16_HI
    50: _half("ha", True),  # TOC16_HA
    51: _toc,  # TOC
    63: _half("lo", True, True),  # TOC16_DS
    64: _half("lo", True, True),  # TOC16_LO_DS
    118: _entry,  # ENTRY
    250: _half("lo", False),  # REL16_LO
    251: _half("hi", False),  # REL16_HI
    252: _half("ha", False),  # REL16_HA
}

TABLES = t.ProofTables(
    branches=branches,
    mnemonics={t.JUMP: "b", t.CALL: "bl"},
    texts={NOP: "nop", MFLR_R0: "mflr r0", MTLR_R0: "mtlr r0"},
    nop=NOP,
    ends=(BLR, BCTR),
    conditional=conditional,
    returns=((BLR,),),
    distance64=44,  # REL64
    emulator="ppc64le",
    apply=APPLY,
    stub=stub,
    stub_size=40,
    # Nothing reaches from one to the other.
    module_area=(0xC000_0010_0000_0000, 0xC000_0020_0000_0000),
    module_toc=True,
    object_sites=(  # bl; mflr r0 in front of it, each with REL24 or REL24_NOTOC
        t.ObjectSite(((bytes.fromhex("01000048"), (10, 116)),), bytes.fromhex("00000060")),
        t.ObjectSite(((bytes.fromhex("a602087c01000048"), (10, 116)),), bytes.fromhex("00000060") * 2),
    ),
    site_stub=(MFLR_R0, MTLR_R0, "mflr r0; bl; mtlr r0; b"),
    far=far,
    kept_entries=(
        t.KeptEntry((), (MFLR_R0, 0xF801_0010)),
        # ld r2,-8(r12); add r2,r2,r12
        t.KeptEntry((0xE84C_FFF8, 0x7C42_6214), (MFLR_R0, 0xF801_0010), (44, -8, -8)),
    ),
    jump=0x4800_0000,
    also_applied=(109, 118),  # TOCSAVE, ENTRY
    loses_toc=loses_toc,
    jump_type=10,  # R_PPC64_REL24
    halves=(252, 250),  # R_PPC64_REL16_HA, REL16_LO
    redirect_stubs=REDIRECT_STUBS,
    writes_toc=writes_toc,
    makes_frame=makes_frame,
)
