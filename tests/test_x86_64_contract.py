"""What a patch site of x86_64 may call, and what only looks like it: bytes, each row with its mnemonics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import capstone
import numpy as np
import pytest

from ftpatch.arch.x86_64_code import decoded
from ftpatch.arch.x86_64_contract import keeps_contract
from ftpatch.arrays import U32
from ftpatch.recovered.image import open_image
from tools.kernels import Kernel

X86_64 = Path(__file__).parent.parent / "testdata" / "x86_64"

AT = 0xFFFF_FFFF_8100_1000

RET = "c3"
ENDBR = "f30f1efa"
CALL_OUT = "e8fb0f0000"  # call .+0x1000
SAVE = "50515256574150415141524153"  # push rax, rcx, rdx, rsi, rdi, r8, r9, r10, r11
RESTORE = "415b415a415941585f5e5a5958"
PUSHF, POPF = "9c", "9d"


def judge(code: str, home: int | None = None, target: int | None = None) -> str:
    """Why these bytes at AT are no trampoline; empty where they are one."""
    held = bytes.fromhex(code)

    def read(va: int, n: int) -> U32:
        first = va - AT
        return np.array(list(held[first : first + n]) if 0 <= first < len(held) else [], dtype=np.uint32)

    return keeps_contract(read, AT, home=home, target=target)


@pytest.mark.parametrize(
    "code",
    [
        RET,
        "f3c3",  # rep ret
        ENDBR + RET,
        "90" * 9 + "0f1f440000" + "66900f1f00" + RET,  # NOPs of every length
        "eb01cc" + RET,  # jmp over int3
        "e900000000" + RET,  # jmp to a return thunk
        SAVE + CALL_OUT + RESTORE + RET,
        SAVE + "ff15f00f0000" + RESTORE + RET,  # call *0xff0(%rip)
        SAVE + "41ffd3" + RESTORE + RET,  # call *%r11
        PUSHF + SAVE + CALL_OUT + RESTORE + POPF + RET,
        "554889e5" + SAVE + CALL_OUT + RESTORE + "c9" + RET,  # push %rbp; mov %rsp,%rbp … leave
        "4883ec0848c7042400000000" + "4883c408" + RET,  # a slot that is written and given back
        "415b41ffe3",  # pop %r11; jmp *%r11
        "4989db41bb01000000" + RET,  # mov %rbx,%r11; mov $1,%r11d: r11 may be lost
        "5248c7c20000000048c1e203" + "5a" + RET,  # push %rdx; mov $0,%rdx; shl $3,%rdx; pop %rdx
        "5048c7c00000000048" + "85c0" + "7501" + "90" + "58" + RET,  # test of a number that is 0
        "e801000000cc4883c408" + RET,  # a call over int3, and its return address dropped
        "65ff0425f0000000" + RET,  # incl %gs:0xf0
        "f0ff05f00f0000" + RET,  # lock incl 0xff0(%rip)
        "4887d24887d2" + RET,  # xchg %rdx,%rdx, twice
    ],
)
def test_what_keeps_everything_is_a_trampoline(code: str) -> None:
    assert judge(code) == ""


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("31c0" + RET, "it changes rax"),  # xor %eax,%eax
        ("b801000000" + RET, "it changes rax"),  # mov $1,%eax
        (CALL_OUT + RET, "it changes rax, rcx, rdx, rsi, rdi, r8, r9"),
        ("50" + RET, "it does not return behind the call of the site"),
        ("58" + RET, "it does not return behind the call of the site"),  # pops what it should return to
        ("4883c408" + RET, "it does not return behind the call of the site"),
        ("ffe0", "it does not return behind the call of the site"),  # jmp *%rax
        ("4159" + "41ffe1", "it changes r9"),  # pop %r9; jmp *%r9
        ("c20800", "it executes c20800 at 0xffffffff81001000, which is not followed"),  # ret $8
        ("cc", "it executes cc at 0xffffffff81001000, which is not followed"),
        ("0f0b", "it executes 0f0b at 0xffffffff81001000, which is not followed"),
        ("fa" + RET, "it executes fac3 at 0xffffffff81001000, which is not followed"),  # cli
        ("cb", "it executes cb at 0xffffffff81001000, which is not followed"),  # a far return
        ("66c3", "it executes 66c3 at 0xffffffff81001000, which is not followed"),
        ("0fa2" + RET, "it executes 0fa2c3 at 0xffffffff81001000, which is not followed"),  # cpuid
        ("48", "it executes 48 at 0xffffffff81001000, which is not followed"),  # cut off
        ("90", "it runs out of code at 0xffffffff81001001"),
        ("ebfe", "it is too long to be judged"),  # jumps to itself
        ("48894c2408" + RET, "it writes its caller's stack frame at 0xffffffff81001000"),
        ("488944241048" + "83c408", "it writes its caller's stack frame at 0xffffffff81001000"),
        ("c644240701" + RET, "it does not return behind the call of the site"),  # a byte of the return address
        ("48c7042400000000" + RET, "it does not return behind the call of the site"),  # movq $0,(%rsp)
        ("4889e048890424" + RET, "it does not return behind the call of the site"),
        ("4889c4" + RET, "it loads rsp from a register or memory at 0xffffffff81001000"),  # mov %rax,%rsp
        ("4883e4f0" + RET, "it loads rsp from a register or memory at 0xffffffff81001000"),  # and $-16,%rsp
        ("89e4" + RET, "it loads rsp from a register or memory at 0xffffffff81001000"),  # mov %esp,%esp
        ("4889040c" + RET, "it uses the stack by an index at 0xffffffff81001000, which is not followed"),
        ("6a009d" + RET, "it loads flags at 0xffffffff81001002 that it had not saved"),  # push $0; popf
        (SAVE + RESTORE.replace("5a59", "595a") + RET, "it changes rcx, rdx"),  # popped in the wrong order
        (SAVE + CALL_OUT + RESTORE[:-2] + RET, "it does not return behind the call of the site"),  # one less
        ("4883ec0848890424" + "4883c4084883ec08" + "488b0424" + "4883c408" + RET, "it changes rax"),  # lost below rsp
        ("488944" + "24f8" + "488b4424f8" + RET, "it changes rax"),  # the kernel has no red zone
        ("7403" + "4831c0" + RET, "it changes rax"),  # on one of two ways
        ("505848" + "0fafc0" + RET, "it changes rax"),  # imul %rax,%rax
        ("48f7e0" + RET, "it changes rax, rdx"),  # mul %rax
        ("b401" + RET, "it changes rax"),  # mov $1,%ah
        ("40b601" + RET, "it changes rsi"),  # mov $1,%sil
        ("0f94c0" + RET, "it changes rax"),  # sete %al
        ("480f44c1" + RET, "it changes rax"),  # cmove %rcx,%rax
        ("0fb6c0" + RET, "it changes rax"),  # movzbl %al,%eax
        ("4863c0" + RET, "it changes rax"),  # movslq %eax,%rax
        ("488d0500000000" + RET, "it changes rax"),  # lea 0x0(%rip),%rax
        ("65488b042500000000" + RET, "it changes rax"),  # mov %gs:0x0,%rax
        ("4899" + RET, "it changes rdx"),  # cqto
    ],
)  # fmt: skip
def test_what_does_not_keep_the_contract_is_told_why(code: str, reason: str) -> None:
    assert judge(code) == reason


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("e9fb0f0000", ""),  # straight on to the target
        (SAVE + CALL_OUT + RESTORE + "e9dc0f0000", ""),
        ("50e9fa0f0000", "it changes rsp"),
        ("4883c408e9f70f0000", "it goes to the target without the return address on the stack"),
        ("31c0e9f90f0000", "it changes rax"),
    ],
)
def test_a_stub_may_go_on_to_a_trampoline_with_all_as_it_was(code: str, reason: str) -> None:
    assert judge(code, target=AT + 0x1000) == reason


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("4883c408e9f70f0000", ""),  # add $8,%rsp; jmp behind the site
        ("e9fb0f0000", "it changes rsp"),  # the return address is still there
    ],
)
def test_a_stub_may_jump_behind_its_site(code: str, reason: str) -> None:
    assert judge(code, home=AT + 0x1000) == reason


@pytest.mark.parametrize("name", ["vmlinux-fentry", "vmlinux-nop"])
def test_instructions_are_as_long_as_capstone_says(name: str) -> None:
    image = open_image(str(X86_64 / name))
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    n_known = 0
    for sec in np.flatnonzero(image.executable).tolist():
        code = image.content(sec).tobytes()
        for at, size, mnemonic, _ in engine.disasm_lite(code, 0):
            seen = decoded(code[at : at + 16])
            assert seen is None or seen.size == size, f"{mnemonic} at {at:#x}: {code[at : at + size].hex()}"
            n_known += seen is not None
    assert n_known > 150


C_CODE = "it changes rax, rcx, rdx, rsi, rdi, r8, r9"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("ftrace_caller", ""), ("ftrace_regs_caller", ""), ("__fentry__", ""), ("ftrace_stub", ""), ("vfs_read", C_CODE),
     ("notrace_helper", C_CODE)],
)  # fmt: skip
def test_entries_of_a_kernel_keep_the_contract_and_functions_of_c_do_not(name: str, reason: str) -> None:
    image = open_image(str(X86_64 / "vmlinux-fentry"))
    va = image.symbols.value(name)
    assert va is not None
    assert image.arch.keeps_contract(image.code, va, False) == reason


@pytest.mark.corpus
@pytest.mark.parametrize("debian", ["x86_64-6.12", "x86_64-6.1"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [("ftrace_caller", ""), ("ftrace_regs_caller", ""), ("__fentry__", ""), ("ftrace_stub", ""),
     ("return_to_handler", "it does not return behind the call of the site"),
     ("arch_rethook_trampoline", "it loads flags"), ("vfs_read", C_CODE)],
)  # fmt: skip
def test_entries_of_debian_kernels_keep_the_contract(
    kernel: Callable[[str], Kernel], debian: str, name: str, reason: str
) -> None:
    image = open_image(str(kernel(debian).vmlinux))
    va = image.symbols.value(name)
    assert va is not None
    assert image.arch.keeps_contract(image.code, va, False).partition(" at 0x")[0] == reason
