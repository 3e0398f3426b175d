"""x86_64 programs: the stub by which sites call a C function, and what more than in a kernel must be kept.

A function of user space may be called with arguments in six general and eight vector registers, with the number of the
latter in al, and with the static chain of a nested function in r10. The stub keeps them and lies between two frames, as
that of modules does (see x86_64_module.py):

    ▲ caller's return address            ◄─ second argument of the hook
    │ back into the function             ◄─ first argument, less the length of the call
    │ caller's return address, caller's rbp     frame of the traced function
    │ back into the function, ▲ that frame      frame of the stub: rbp
    │ rax rcx rdx rsi rdi r8 r9 r10 r11
    ▼ aligned: xmm0 … xmm7

The upper parts of ymm0–ymm7 and zmm0–zmm7 hold arguments of functions alone that were compiled for AVX. A second form
of the stub saves them all by XSAVE, where the processor has it: CPUID tells, which costs more than the rest, above all
in a virtual machine. It serves files in which a function with a site has an instruction on such registers (see
x86_64_wide.py); other files keep the first form.

The stub is reached by direct calls, which need no endbr64; its return goes where the call came from, as a shadow stack
wants it. A red zone is below no function's entry. A slot of the .plt that is filled late works, too.
Source: System V ABI, AMD64 supplement, 3.2; Intel SDM, volume 1, 13 (XSAVE), volume 2, CPUID.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch.program_parts import HookCall, Programs
from ftpatch.arch.x86_64_module import LEAVE, RET, TWO_FRAMES
from ftpatch.arch.x86_64_program_contract import keeps_contract, kept_registers
from ftpatch.arch.x86_64_wide import is_wide, ways_out
from ftpatch.arrays import U32

R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT, R_X86_64_IRELATIVE = 6, 7, 37
REACH = (1 << 31) - (1 << 13)

CALLER = bytes.fromhex("ff742408")  # push 8(%rsp)        the caller's return address
DEEP_CALLER = bytes.fromhex("ff7508")  # push 8(%rbp)        the same, behind a function's prologue
ROOM = bytes.fromhex(
    "4881ec80000000"  # sub  $128, %rsp
    "4883e4f0"  # and  $-16, %rsp
)
SAVE = bytes.fromhex(
    "0f290424"  # movaps %xmm0, (%rsp)
    "0f294c2410" "0f29542420" "0f295c2430" "0f29642440" "0f296c2450" "0f29742460" "0f297c2470"  # … %xmm7, 112(%rsp)
)  # fmt: skip
ARGUMENTS = bytes.fromhex(
    "488b7d08"  # mov  8(%rbp), %rdi   first argument: the call's address
    "4883ef05"  # sub  $5, %rdi
    "488b7518"  # mov  24(%rbp), %rsi  second argument: where the function was called from
)
CALL, CALL_SLOT = bytes.fromhex("e8"), bytes.fromhex("ff15")  # call hook; call *slot(%rip)
RESTORE = bytes.fromhex(
    "0f280424"  # movaps (%rsp), %xmm0
    "0f284c2410" "0f28542420" "0f285c2430" "0f28642440" "0f286c2450" "0f28742460" "0f287c2470"  # … 112(%rsp), %xmm7
)  # fmt: skip
# The components that XSAVE saves: SSE, AVX, opmask, both of AVX-512's. In its standard form they end at byte 2688.
WIDE_ROOM = bytes.fromhex(
    "53"  # push %rbx                     which CPUID changes; the stub keeps the answer in it
    "4881ec800a0000"  # sub  $2688, %rsp
    "4883e4c0"  # and  $-64, %rsp
)
WIDE_ASK = bytes.fromhex(
    "b801000000"  # mov  $1, %eax
    "31c9"  # xor  %ecx, %ecx
    "0fa2"  # cpuid
    "89cb"  # mov  %ecx, %ebx
    "81e300000008"  # and  $1<<27, %ebx       OSXSAVE: the system lets programs use XSAVE
)
WIDE_HEADER = bytes.fromhex(
    "31c0"  # xor  %eax, %eax
    "4889842400020000" "4889842408020000" "4889842410020000" "4889842418020000"  # mov  %rax, 512(%rsp) …
    "4889842420020000" "4889842428020000" "4889842430020000" "4889842438020000"  # … 568(%rsp): the header
)  # fmt: skip
MASK = bytes.fromhex(
    "b8e6000000"  # mov  $0xe6, %eax
    "31d2"  # xor  %edx, %edx
)
XSAVE, XRSTOR = bytes.fromhex("480fae2424"), bytes.fromhex("480fae2c24")  # xsave64 (%rsp); xrstor64 (%rsp)
TEST = bytes.fromhex("85db")  # test %ebx, %ebx
WIDE_RBX = bytes.fromhex("488b5db0")  # mov  -80(%rbp), %rbx


def stub(va: int, hook: HookCall, wide: bool) -> U32:
    """The bytes of the stub at `va`."""
    return _stub(TWO_FRAMES, va, hook, wide)


def deep_stub(va: int, hook: HookCall, wide: bool) -> U32:
    """The same for the call that -pg makes of mcount behind `push %rbp; mov %rsp, %rbp`, with all arguments where they
    were at the function's entry."""
    return _stub(DEEP_CALLER + TWO_FRAMES[len(CALLER) :], va, hook, wide)


def _stub(enter: bytes, va: int, hook: HookCall, wide: bool) -> U32:
    if wide:
        save = WIDE_HEADER + MASK + XSAVE
        restore = MASK + XRSTOR
        front = enter + WIDE_ROOM + WIDE_ASK + _either(save, SAVE) + ARGUMENTS
        back = TEST + _either(restore, RESTORE) + WIDE_RBX + LEAVE + RET
    else:
        front, back = enter + ROOM + SAVE + ARGUMENTS, RESTORE + LEAVE + RET
    opcode = CALL_SLOT if hook.slot else CALL
    behind = va + len(front) + len(opcode) + 4
    code = front + opcode + (hook.va - behind).to_bytes(4, "little", signed=True) + back
    return np.frombuffer(code, dtype=np.uint8).astype(np.uint32)


def _either(first: bytes, second: bytes) -> bytes:
    """Code that does the first where the zero flag is clear, else the second."""
    skip = b"\xeb" + bytes((len(second),))  # jmp
    return b"\x74" + bytes((len(first) + len(skip),)) + first + skip + second  # je


PROGRAMS = Programs(
    stub=stub, reach=REACH, slot_reach=REACH, jump_slot=R_X86_64_JUMP_SLOT, glob_dat=R_X86_64_GLOB_DAT,
    ifunc=R_X86_64_IRELATIVE, contract="all registers but r11 kept, xmm0-xmm7 too, returns behind the call",
    keeps_contract=keeps_contract, wide=is_wide, ways_out=ways_out, deep_stub=deep_stub,
    kept_registers=kept_registers,
)  # fmt: skip
