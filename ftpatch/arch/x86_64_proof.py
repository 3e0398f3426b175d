"""x86_64 as the proof reads it.

Source: Intel SDM, volume 2, CALL, JMP, RET; System V ABI, AMD64 supplement, 4.4; arch/x86/kernel/module.c
__write_relocate_add(); arch/x86/kernel/ftrace_64.S, arch/x86/lib/retpoline.S.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ftpatch.arch import proof_tables as t
from ftpatch.arrays import I64, U8, U32

CALL, JMP, RET = 0xE8, 0xE9, 0xC3
SIZE = 5  # bytes of a call or jump with a distance of 32 bits


def branches(code: U32) -> tuple[U8, I64]:
    """call and jmp: a byte, then the distance from behind the instruction. code: (n, 5) bytes."""
    kind = np.where(code[:, 0] == CALL, t.CALL, np.where(code[:, 0] == JMP, t.JUMP, t.NONE))
    distance = np.ascontiguousarray(code[:, 1:SIZE].astype(np.uint8)).view("<i4")[:, 0]
    return kind.astype(np.uint8), distance.astype(np.int64) + SIZE


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


# -- what modules tell of their code -----------------------------------------------------------------------------------

RBP = 5  # number of the register
ORC_SP, ORC_BP, ORC_PREV_SP = 5, 4, 1  # numbers of what distances count from: ORC_REG_*
ENDS = (RET, 0xCC)  # ret; int3
PUSH, POP, SAME, FRAME, ALIGN, FROM_FRAME, ADD = range(7)
# How an instruction begins, how long it is, and what it does to the stack pointer or to rbp.
STEPS = (
    *((bytes((0x50 + n,)), 1, PUSH) for n in range(8)),  # push %rax, … %rdi
    *((bytes((0x41, 0x50 + n)), 2, PUSH) for n in range(8)),  # push %r8, … %r15
    (bytes.fromhex("ff7424"), 4, PUSH),  # push disp8(%rsp)
    *((bytes((0x58 + n,)), 1, POP) for n in range(8)),  # pop %rax, … %rdi
    *((bytes((0x41, 0x58 + n)), 2, POP) for n in range(8)),  # pop %r8, … %r15
    (bytes.fromhex("4889e5"), 3, FRAME),  # mov %rsp, %rbp
    (bytes.fromhex("4883e4f0"), 4, ALIGN),  # and $-16, %rsp
    (bytes.fromhex("488d65"), 4, FROM_FRAME),  # lea disp8(%rbp), %rsp
    (bytes.fromhex("4883c4"), 4, ADD),  # add $imm8, %rsp
    (bytes.fromhex("488b7d"), 4, SAME),  # mov disp8(%rbp), %rdi
    (bytes.fromhex("488b75"), 4, SAME),  # mov disp8(%rbp), %rsi
    (bytes.fromhex("4883ef"), 4, SAME),  # sub $imm8, %rdi
    (bytes((CALL,)), SIZE, SAME), (bytes((JMP,)), SIZE, SAME), (bytes((RET,)), 1, SAME),
    (b"\x90", 1, SAME), (b"\xcc", 1, SAME),  # nop; int3
)  # fmt: skip


@dataclass
class _Stack:
    """What is known of rsp and rbp while code is followed; as in `Walked`."""

    sp: int | None = 8  # the return address has been pushed
    fp: int | None = None
    saved: int | None = None
    pushed: dict[int, tuple[int | None, int | None]] = field(default_factory=dict)  # where rbp lies → fp and saved then

    def step(self, code: bytes, what: int, rbp: bool) -> bool:
        """Follow one instruction; False where that cannot be. rbp: it is what is pushed or popped."""
        number = int.from_bytes(code[-1:], "little", signed=True)
        if what == SAME:
            return code[0] not in (RET, JMP) or (self.sp == 8 and self.saved is None)  # else it returns elsewhere
        if what == FROM_FRAME:
            self.sp = None if self.fp is None else self.fp - number
            return self.sp is not None
        if self.sp is None:
            return False
        if what == PUSH:
            self.sp += 8
            if rbp:
                self.pushed[self.sp] = self.fp, self.saved
                self.saved = self.sp if self.saved is None else self.saved
        elif what == POP:
            if rbp and self.sp not in self.pushed:
                return False
            if rbp:
                self.fp, self.saved = self.pushed.pop(self.sp)
            self.sp -= 8
        elif what == FRAME:
            self.fp = self.sp
        else:
            self.sp = None if what == ALIGN else self.sp - number
        return True


def walk(code: bytes) -> list[t.Walked] | None:
    """Follow rsp and rbp through code that pushes, pops and keeps a frame; None where it does more."""
    stack, walked, at = _Stack(), [], 0
    while at < len(code):
        walked.append(t.Walked(at, stack.sp, stack.fp, stack.saved))
        size, what = next(((size, what) for start, size, what in STEPS if code.startswith(start, at)), (0, SAME))
        one = code[at : at + size]
        if len(one) != size or not size or not stack.step(one, what, one in (b"\x55", b"\x5d")):
            return None
        at += size
    return walked


def tells(row: bytes, is_true: t.Walked) -> bool:
    """Whether a row of ORC says where the caller's stack pointer and rbp are. Source: arch/x86/kernel/unwind_orc.c"""
    size, saved = (int.from_bytes(row[at : at + 2], "little", signed=True) for at in (0, 2))
    base = {ORC_SP: is_true.sp, ORC_BP: is_true.fp}.get(row[4] & 15)
    if base is None or base != size:
        return False
    if row[4] >> 4 == ORC_PREV_SP:
        return is_true.saved is not None and saved == -is_true.saved
    return row[4] >> 4 == 0 and saved == 0 and is_true.fp is None and is_true.saved is None


CODE_TABLES = t.CodeTables(
    kind=2,  # PC32
    lists={
        ".return_sites": lambda first, name: first == JMP and name == "__x86_return_thunk",
        ".call_sites": lambda first, name: first == CALL,
    },
    places=".orc_unwind_ip", rows=".orc_unwind", size=6, first=bytes((8, 0, 0, 0, ORC_SP)), walk=walk, tells=tells,
)  # fmt: skip


def static_trampoline(code: bytes, va: int) -> int | None:
    """jmp, or ret with int3 or nop behind it; then ud1 %esp,%ecx. Nothing executes what is behind the first."""
    if code[SIZE:] != bytes((0x0F, 0xB9, 0xCC)):
        return None
    if code[0] == JMP:
        return va + SIZE + int.from_bytes(code[1:SIZE], "little", signed=True) & t.BIT64
    return 0 if code[:SIZE] in (bytes((RET, *[0xCC] * 4)), bytes((RET, 0xCC, *[0x90] * 3))) else None


TABLES = t.ProofTables(
    branches=branches,
    mnemonics={t.JUMP: "jmp", t.CALL: "call"},
    texts={},
    nop=0x0F_1F44_0000,  # nopl 0x0(%rax,%rax,1)
    ends=ENDS,
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
    branch_field=(1, 4),
    object_sites=(
        t.ObjectSite(((b"\xe8\0\0\0\0", (2, 4)),), bytes((0x0F, 0x1F, 0x44, 0, 0))),  # PC32, PLT32
        # addr32 call; call through a word: GOTPCREL, GOTPCRELX
        t.ObjectSite(
            ((b"\x67\xe8\0\0\0\0", (2, 4)), (b"\xff\x15\0\0\0\0", (9, 41))), bytes((0x66, 0x0F, 0x1F, 0x44, 0, 0))
        ),
    ),
    code_tables=CODE_TABLES,
    return_thunks=("__x86_return_thunk",),
    jump_type=4,  # R_X86_64_PLT32
    jump=0xE9_0000_0000,
    left=((0x0F, 0x1F, 0x44, 0x00, 0x00),),
    # Source: arch/x86/include/asm/static_call.h, arch/x86/kernel/static_call.c (Linux 6.1, 6.12).
    static_trampoline=t.StaticTrampoline(
        8,
        SIZE,
        static_trampoline,
        field=1,
        thunk="__x86_return_thunk",
        returns=("__return_sites", "__return_sites_end"),
    ),
)
