"""The stubs by which ppc64le programs call imported functions: which word of the .plt each reads.

    [std r2,24(r1);]  ld r12,lo(r2)                           relative to the TOC, which is .got + 0x8000
    [std r2,24(r1);]  addis rX,r2,ha ; ld r12,lo(rX)          X: 11 or 12
    pld r12,distance(pc)                                      code without a TOC (Power 10)
    mflr r12; bcl 20,31,$+4; mflr r11; mtlr r12;  ld r12,lo(r11)  or  addis r12,r11,ha ; ld r12,lo(r12)
                                                              the same for older processors, relative to the mflr r11

Source: OpenPOWER ELFv2 ABI, 4.2.5.3; bfd/elf64-ppc.c build_plt_stub() (GNU Binutils 2.40).
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, U32, U64

STD_R2_24 = 0xF841_0018  # std r2,24(r1)
OWN_ADDRESS = (0x7D88_02A6, 0x429F_0005, 0x7D68_02A6, 0x7D88_03A6)  # mflr r12; bcl 20,31,$+4; mflr r11; mtlr r12
TOC = 0x8000  # bytes from .got to where r2 points


def plt_slot(words: U32, va: U64, got: int) -> U64:
    """The address of the word that each stub reads; 0 where the code is no such stub. words: (n, 6 or more)."""
    finds_itself = (words[:, :4] == np.array(OWN_ADDRESS, dtype=np.uint32)).all(axis=1)
    start = np.where(finds_itself, 4, words[:, 0] == STD_R2_24).astype(np.int64)
    first, second = (np.take_along_axis(words, start[:, None] + step, axis=1)[:, 0].astype(np.int64) for step in (0, 1))
    base = np.where(finds_itself, va.view(np.int64) + 8, got + TOC)  # what the register holds, and which one it is
    register = np.where(finds_itself, 11, 2) << 16
    near = first & 0xFFFF_0003 == 0xE980_0000 | register  # ld r12,D(register)
    far = (first & 0xFC1F_0000 == 0x3C00_0000 | register) & (
        second & 0xFFFF_0003 == 0xE980_0000 | (first >> 21 & 31) << 16
    )
    pc_relative = (first & 0xFFFC_0000 == 0x0410_0000) & (second & 0xFFFF_0000 == 0xE580_0000)
    slot = np.zeros(len(words), dtype=np.int64)
    slot[near] = (base + _signed(first, 16))[near]
    slot[far] = (base + (_signed(first, 16) << 16) + _signed(second, 16))[far]
    distance = _signed((first & 0x3_FFFF) << 16 | second & 0xFFFF, 34)
    slot[pc_relative] = (va.view(np.int64) + 4 * start + distance)[pc_relative]
    return slot.view(np.uint64)


def _signed(numbers: I64, width: int) -> I64:
    """The lowest bits of numbers as numbers with a sign."""
    half = 1 << width - 1
    return np.asarray((numbers & (1 << width) - 1 ^ half) - half)
