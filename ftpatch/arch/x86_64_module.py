"""x86_64 modules: the stub that calls a hook, and what the module's tables have to say of it.

ftrace_caller is not exported, and the loader lays down no jump to it, so that a site of a module calls a C function by
a stub that the module brings along. The stub keeps all that a function may change, and sits between two frames, so that
a stack walk by frame pointers shows the traced function as well as its caller:

    ▲ caller's return address            ◄─ second argument of the hook
    │ back into the function             ◄─ first argument, less the length of the call
    │ caller's return address, caller's rbp     frame of the traced function
    │ back into the function, ▲ that frame      frame of the stub: rbp
    │ rax rcx rdx rsi rdi r8 r9 r10 r11
    ▼ aligned to 16 bytes

Flags are nobody's at a function's entry. Kernel code asks for a stack aligned to 8 bytes, the ABI for 16.

What kernels want to know of code is in tables of each module, which get rows for the stub where the module has them:

    .return_sites                 jumps to __x86_return_thunk, which the loader turns into the return that is safe on
                                  this processor; in a module without that table a return is a `ret`
    .call_sites                   direct calls, which count the depth of calls where the processor wants that. The thunk
                                  for it is put in front of the callee, where functions have 16 bytes of padding
    .orc_unwind_ip, .orc_unwind   for stack walks: where the caller is found, from each instruction on

An endbr64 is for what is called indirectly, which the stub never is.

Source: arch/x86/kernel/alternative.c apply_returns(), callthunks.c patch_call(), unwind_orc.c orc_find(),
unwind_module_init(), module.c module_finalize(); arch/x86/include/asm/orc_types.h (Linux 6.1, 6.12).
"""

from __future__ import annotations

from collections.abc import Container

from ftpatch.arch.code_lists import Frame, Listed, UnwindTables
from ftpatch.arch.parts import Code, Fixup, Loader, Modules

R_X86_64_NONE, R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32 = 0, 1, 2, 4
R_X86_64_32, R_X86_64_32S, R_X86_64_PC64 = 10, 11, 24
RETURN_THUNK, RETURN_SITES, CALL_SITES = "__x86_return_thunk", ".return_sites", ".call_sites"

OPS_FUNCTION = Code((0xC3, 0xCC), unit=1)  # ret; int3

PADDING = bytes.fromhex("90") * 16  # nop: room for a call thunk
TWO_FRAMES = bytes.fromhex(  # of the traced function and of the stub, and what a function may be called with
    "ff742408"  # push 8(%rsp)        the caller's return address
    "55"  # push %rbp
    "4889e5"  # mov  %rsp, %rbp
    "ff742410"  # push 16(%rsp)       back into the function
    "55"  # push %rbp
    "4889e5"  # mov  %rsp, %rbp
    "50" "51" "52" "56" "57"  # push %rax, %rcx, %rdx, %rsi, %rdi
    "4150" "4151" "4152" "4153"  # push %r8, %r9, %r10, %r11
)  # fmt: skip
ENTER = TWO_FRAMES + bytes.fromhex(
    "4883e4f0"  # and  $-16, %rsp
    "488b7d08"  # mov  8(%rbp), %rdi   first argument: the call's address, as ftrace counts it
    "4883ef05"  # sub  $5, %rdi
    "488b7528"  # mov  40(%rbp), %rsi  second argument: where the function was called from
)  # fmt: skip
CALL = bytes.fromhex("e800000000")  # call hook
LEAVE = bytes.fromhex(
    "488d65b8"  # lea  -72(%rbp), %rsp
    "415b" "415a" "4159" "4158"  # pop  %r11, %r10, %r9, %r8
    "5f" "5e" "5a" "59" "58"  # pop  %rdi, %rsi, %rdx, %rcx, %rax
    "5d"  # pop  %rbp
    "4883c408"  # add  $8, %rsp
    "5d"  # pop  %rbp
    "4883c408"  # add  $8, %rsp
)  # fmt: skip
RET = bytes.fromhex("c3cc")  # ret; int3, for a processor that goes straight on
JMP_THUNK = bytes.fromhex("e900000000cc")  # jmp __x86_return_thunk; int3

CALL_AT = len(PADDING + ENTER)
RETURN_AT = len(PADDING + ENTER + CALL + LEAVE)
OPERAND, BEHIND = 1, -4  # of call and jmp: where the distance stands, and that it counts from behind it

SAVED = 24  # bytes from the stack pointer that the caller has, down to its rbp
FRAMES = tuple(
    Frame(len(PADDING) + off, base, size, saved)
    for off, base, size, saved in (
        (-len(PADDING), "sp", 8, 0), (4, "sp", 16, 0), (5, "sp", 24, SAVED), (12, "sp", 32, SAVED),
        (13, "sp", 40, SAVED), (16, "fp", 40, SAVED),
        (RETURN_AT - len(PADDING) - 9, "sp", 32, SAVED), (RETURN_AT - len(PADDING) - 5, "sp", 24, SAVED),
        (RETURN_AT - len(PADDING) - 4, "sp", 16, 0), (RETURN_AT - len(PADDING), "sp", 8, 0),
    )
)  # fmt: skip


def hook(out_of_line: bool, sections: Container[str]) -> Code:
    """The stub that calls a C function as hook(site, caller), and returns as the module's own functions do."""
    assert not out_of_line
    thunk = RETURN_SITES in sections
    code = PADDING + ENTER + CALL + LEAVE + (JMP_THUNK if thunk else RET)
    fixups = [Fixup(CALL_AT + OPERAND, R_X86_64_PLT32, "hook", BEHIND)]
    listed = [Listed(CALL_SITES, CALL_AT)]
    if thunk:
        fixups.append(Fixup(RETURN_AT + OPERAND, R_X86_64_PLT32, RETURN_THUNK, BEHIND))
        listed.append(Listed(RETURN_SITES, RETURN_AT))
    frames = (*FRAMES, Frame(len(code), ""))
    return Code(tuple(code), len(PADDING), tuple(fixups), unit=1, listed=tuple(listed), frames=frames)


# A row of ORC: two signed distances of 16 bits, from a register to the caller's stack pointer and from there to its
# rbp; the two registers, four bits each; what kind of frame it is, which kernels number in different ways.
UNDEFINED, PREV_SP, BP, SP = 0, 1, 4, 5
ENTRY = bytes.fromhex("0800" "0000" "05")  # fmt: skip  # of a function: the caller's stack pointer is 8(%rsp)


def orc_row(frame: Frame, entry: bytes) -> bytes | None:
    """The row for a frame; entry: that of a function's first instruction, which tells the number of its kind."""
    if entry[: len(ENTRY)] != ENTRY:
        return None
    if not frame.base:
        return bytes(len(entry))
    registers = {"sp": SP, "fp": BP}[frame.base] | (PREV_SP if frame.saved else UNDEFINED) << 4
    rows = frame.size.to_bytes(2, "little") + (-frame.saved).to_bytes(2, "little", signed=True)
    return rows + bytes((registers,)) + entry[len(ENTRY) :]


MODULES = Modules(
    branch=R_X86_64_PLT32, trampolines=(), jump=0, ops_function=OPS_FUNCTION, hook=hook, jump_type=R_X86_64_PLT32,
    calls=(R_X86_64_PC32,), thunks=("__x86_indirect_", "__x86_return_"), distance=R_X86_64_PC32,
    unwind=UnwindTables(places=".orc_unwind_ip", rows=".orc_unwind", size=6, row=orc_row),
)  # fmt: skip

LOADER = Loader(
    applied=(
        R_X86_64_NONE, R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32, R_X86_64_32, R_X86_64_32S, R_X86_64_PC64,
    ),
    empty=True,
)  # fmt: skip
