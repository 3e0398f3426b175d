"""x86_64 as the proof reads it.

Source: Intel SDM, volume 2, CALL, JMP, RET; System V ABI, AMD64 supplement, 4.4; arch/x86/kernel/module.c
__write_relocate_add(); arch/x86/kernel/ftrace_64.S, arch/x86/lib/retpoline.S.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch import proof_tables as t
from ftpatch.arrays import I64, U8, U32

CALL, JMP, RET = 0xE8, 0xE9, 0xC3
SIZE = 5  # bytes of a call or jump with a distance of 32 bits


def branches(code: U32) -> tuple[U8, I64]:
    """call and jmp: a byte, then the distance from behind the instruction. code: (n, 5) bytes."""
    kind = np.where(code[:, 0] == CALL, t.CALL, np.where(code[:, 0] == JMP, t.JUMP, t.NONE))
    field = np.ascontiguousarray(code[:, 1:SIZE].astype(np.uint8)).view("<i4")[:, 0]
    return kind.astype(np.uint8), field.astype(np.int64) + SIZE


def no_stub(va: int, target: int, toc: int | None) -> t.Stub:
    """Nothing: all that a module calls is in reach, so that its loader makes no stubs."""
    return t.Stub(())


# Relocation types as the module loader applies them: the distance counts from the relocated field itself, behind which
# the instruction may go on; that is in the addend.
APPLY: dict[int, t.Apply] = {
    1: t.pointer64,  # R_X86_64_64
    2: t.relative32,  # PC32
    4: t.relative32,  # PLT32
    10: t.value32,  # 32
    11: t.value32,  # 32S
    24: t.relative64,  # PC64
}


def conditional(byte: int) -> bool:
    """jcc with a distance of 8 bits"""
    return byte & 0xF0 == 0x70


TABLES = t.ProofTables(
    branches=branches,
    mnemonics={t.JUMP: "jmp", t.CALL: "call"},
    texts={},
    nop=0x0F_1F44_0000,  # nopl 0x0(%rax,%rax,1)
    ends=(RET,),
    conditional=conditional,
    returns=(),
    distance64=24,  # PC64
    emulator="x86_64",
    apply=APPLY,
    stub=no_stub,
    stub_size=0,
    # Everything lies in the upper 2 GiB, where code is called and data named by 32 bits.
    module_area=(0xFFFF_FFFF_A000_0000, 0xFFFF_FFFF_E000_0000),
    # As they lie in the file: arch/x86/kernel/ftrace_64.S, arch/x86/lib/retpoline.S.
    stand_ins={"__fentry__": bytes((RET,)), "__x86_return_thunk": bytes((RET,))},
    jump_type=4,  # R_X86_64_PLT32
    jump=0xE9_0000_0000,
    left=((0x0F, 0x1F, 0x44, 0x00, 0x00),),
)
