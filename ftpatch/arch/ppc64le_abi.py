"""How functions are called on ppc64le, as the ELFv2 ABI has it: where their arguments travel, and how they end.

    doubleword     0   1   2   3   4   5   6   7 │  8   9 …
    of a call      r3  r4  r5  r6  r7  r8  r9  r10  in the caller's frame, from 32(r1) + 64 on

Arguments are laid out as if all lay in memory, each from a doubleword on; the first eight doublewords are in registers
instead. A function that finds one of its arguments in its caller's frame breaks when a stub with a frame of its own
stands in between. So does one with `...`, which may store the registers in that frame.

Source: 64-Bit ELF V2 ABI, 2.2.3 (parameter passing, return values); gcc/config/rs6000/rs6000-call.cc.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ftpatch.arch.parts import Passed
from ftpatch.arrays import U32

REGISTERS, DOUBLEWORD = 8, 8  # doublewords of arguments in r3 to r10; bytes
FLOAT_REGISTERS = 13  # f1 to f13
IN_TWO_REGISTERS = 16  # bytes of an aggregate that is returned in r3 and r4; larger ones by a pointer in r3


def in_registers(result: Passed, parameters: Sequence[Passed]) -> list[bool | None]:
    """For each parameter: whether all of it travels in registers; None where that depends on its alignment.

    An aggregate that is aligned to 16 bytes begins at an even doubleword. Whether it is so aligned is not told, but one
    whose size is no multiple of 16 is not.
    """
    tight, loose, n_floats = _first(result), _first(result), 0
    answers: list[bool | None] = []
    for parameter in parameters:
        n = -(-parameter.size // DOUBLEWORD)
        if parameter.kind == "aggregate" and parameter.size and parameter.size % 16 == 0:
            loose += loose % 2
        tight, loose = tight + n, loose + n
        if parameter.kind == "float" and parameter.size <= DOUBLEWORD:
            n_floats += 1
            answers.append(n_floats <= FLOAT_REGISTERS)
        else:
            answers.append(True if loose <= REGISTERS or not n else None if tight <= REGISTERS else False)
    return answers


def _first(result: Passed) -> int:
    """The doubleword of the first argument: behind the place of the result, where the caller passes that."""
    return int(result.kind == "aggregate" and result.size > IN_TWO_REGISTERS)


TRAP = 0x7FE0_0008
RETURNS = (16, 528, 560, 18, 274)  # extended opcodes of bclr, bcctr, bctar, rfid, hrfid


def ways_out(words: U32) -> bool:
    """Whether a function's words have a return, an indirect jump, a jump to outside of them, or simply go on."""
    if len(words) > 3 and words[-3] == 0:  # a traceback table, which gcc makes but for -mtraceback=no
        words = words[:-3]
    if len(words) > 1 and words[-1] == 0x6000_0000 and words[-2] & np.uint32(0xFC00_0003) == 0x4800_0001:
        words = words[:-1]  # the nop behind a call
    if len(words) and words[-1] >> np.uint32(26) != 18 and words[-1] != TRAP:
        return True
    # calls (LK) come back
    opcode, link = words >> np.uint32(26), (words & np.uint32(1)).astype(bool)
    if ((opcode == 19) & ~link & np.isin(words >> np.uint32(1) & np.uint32(0x3FF), RETURNS)).any():
        return True
    for number, bits in ((18, 26), (16, 16)):  # b, bc
        at = np.flatnonzero((opcode == number) & ~link)
        field = words[at].astype(np.int64) & ((1 << bits) - 4)
        target = 4 * at + (field ^ 1 << bits - 1) - (1 << bits - 1)
        # An absolute address (AA) is outside.
        if ((target < 0) | (target >= 4 * len(words)) | (words[at] & np.uint32(2)).astype(bool)).any():
            return True
    return False
