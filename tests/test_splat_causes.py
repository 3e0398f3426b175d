"""Messages as people reported them, of all machines and of kernels 2.6.32 to 7.2: which machine and cause, how sure.

Each is written anew after a public report or a kernel's source, with other names and addresses.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from ftpatch.explanation.causes import CAUSES
from ftpatch.explanation.diagnosis import Diagnosis, diagnose
from ftpatch.explanation.splat import parse

KEYS = {id(cause): key for key, cause in CAUSES.items()}
INIT, ON, OFF, UPDATE = (
    "Initializing ftrace call sites", "Setting ftrace call site to call ftrace function",
    "Setting ftrace call site to NOP", "Updating ftrace call site to call a different ftrace function",
)  # fmt: skip


class Case(NamedTuple):
    """One message, and what is right."""

    name: str
    text: str
    machine: str  # and by what it is told
    causes: str  # keys and certainties, the likeliest first
    actual: str = ""  # the instruction at the call


def bug(
    place: str,
    actual: str = "",
    phase: str = "",
    flags: str = "",
    tramp: str = "",
    *more: str,
    what: str = "failed to modify",
) -> str:
    """A message of these parts."""
    parts = ["------------[ ftrace bug ]------------", f"ftrace {what} ", place, actual and f" actual:   {actual}",
             phase, flags and f"ftrace record flags: {flags}", tramp and f" expected tramp: {tramp}",
             *more]  # fmt: skip
    return "\n".join(part for part in parts if part) + "\n"


ARM64 = "[<ffffa1b2c3d4e5f4>] frob_read+0x4/0xe0"
PPC = "[<c000000000a1b2c4>] frob_read+0xc/0xe0"
X86 = "[<ffffffff811c3a50>] frob_connect+0x0/0x4f0"
RISCV = "[<ffffffff80258910>] frob_show+0x0/0x46"
S390 = "[<0000000000a1b2c4>] frob_read+0x0/0xe0"
LOONG = "[<9000000000a1b2c4>] frob_read+0x4/0xe0"
ARM = "[<c0a1b2c4>] frob_read+0x8/0xe0"
FAULT, WRITE = "faulted on modifying", "faulted on writing"

CASES = (
    # -- what the kernel did not tell, and calls that a loader left
    Case("zeros tell no machine, the address does", bug("[<ffffa1b2c3d4e5f0>] f+0x8/0xe0", "00:00:00:00", INIT, "0"),
         "arm64 address", "zeros likely", "zeros"),
    Case("ppc64le: a module's call was never made a NOP",
         bug("[<c008000009321a64>] f+0xc/0x60 [m]", "1d:3d:00:48", ON, "80000001", "c000000000061fac"),
         "ppc64le bytes", "moved likely, kept-call possible", "bl 0xc008000009325780"),
    # -- arm64
    Case("arm64: a return", bug("[<ffffa1b2c3d4e5f0>] frob_init+0x8/0xe0 [frob]", "c0:03:5f:d6", INIT, "0"),
         "arm64 bytes", "return likely", "ret"),
    Case("arm64: an authenticated return", bug(ARM64, "ff:0b:5f:d6", INIT), "arm64 bytes", "return likely", "retaa"),
    Case("arm64: a call at boot", bug(ARM64, "82:e1:fd:97", INIT, "0"), "arm64 bytes", "enabled likely",
         "bl 0xffffa1b2c3cc6bfc"),
    Case("arm64: a call when it is to be traced", bug(ARM64, "82:e1:fd:97", ON, "80000001"), "arm64 bytes",
         "moved likely", "bl 0xffffa1b2c3cc6bfc"),
    Case("arm64: a NOP at boot, the first word rewritten", bug(ARM64, "1f:20:03:d5", INIT, "0"), "arm64 bytes",
         "half likely", "nop"),
    Case("arm64: a NOP when it is to be traced, and the kernel refused", bug(ARM64, "1f:20:03:d5", ON, "80000001"),
         "arm64 bytes", "as-wanted likely, moved possible", "nop"),
    Case("arm64: a NOP when tracing ends", bug(ARM64, "1f:20:03:d5", OFF, "80000000"), "arm64 bytes",
         "off-already likely, moved possible", "nop"),
    Case("arm64: an image loaded in part", bug("[<ffff800009f80030>] udp_init+0x8/0x74", "00:00:00:00", INIT, "0",
         "ffff80000802f3a8", "pstate: 600000c5 (nZCv daIF)"), "arm64 log", "zeros likely", "zeros"),
    Case("arm64: a landing pad", bug(ARM64, "5f:24:03:d5", INIT), "arm64 bytes", "shifted likely", "bti"),
    Case("arm64: a prologue", bug(ARM64, "fd:7b:bd:a9", INIT), "arm64 bytes", "shifted likely, other possible",
         "stp x29, x30, [sp, #…]!"),
    Case("arm64: paciasp", bug(ARM64, "3f:23:03:d5", INIT), "arm64 bytes", "shifted likely, other possible",
         "paciasp"),
    Case("arm64: a breakpoint", bug(ARM64, "80:00:20:d4", ON), "arm64 bytes", "trap likely", "brk"),
    Case("arm64: a jump", bug(ARM64, "00:01:00:14", ON), "arm64 bytes", "redirected likely, other possible",
         "b 0xffffa1b2c3d4e9f4"),
    Case("arm64: other code", bug(ARM64, "20:00:80:52", INIT, "0", "", "pstate: 600000c5"), "arm64 log",
         "other likely", "mov w0, #1"),
    Case("arm64: -pg, mov in front of a call", bug(ARM64, "e0:03:1e:aa", INIT), "arm64 bytes",
         "shifted likely, half possible", "mov x0, x30"),
    Case("arm64: text that could not be read or written", bug("[<ffff800008a1b2c4>] frob_read+0x4/0x2f8", "", OFF,
         "80000001", "ffff80000802f4b0", what=FAULT), "arm64 address", "gone certain"),
    Case("arm64: init text that was freed", bug("[<ffffc918fff403fc>] set_reset+0x8/0x24", "", ON, "80000001",
         "ffffc918fe22bd20", what=FAULT), "arm64 address", "gone certain"),
    Case("arm64: a constructor of KASAN in text that is not mapped", bug("[<ffffa00011bf393c>] _GLOBAL__sub_D_65535"
         "_0_frob+0x4/0x28", "", INIT, "0", "ffffa000100b3344", what=WRITE), "arm64 address", "protected certain"),
    Case("arm64: a null record", bug("[<0000000000000004>] 0x4", "", INIT, "0", what=FAULT), " ", "null certain"),
    # -- ppc64le, ppc64, ppc32
    Case("ppc64le: ftrace's own NOP of -pg", "ftrace-powerpc: Unexpected call sequence at 0000000020516279: 00000000 "
         "00000000\n" + bug("[<c0080000010e002c>] frob_addr+0x24/0x70 [frob]", "08:00:00:48", ON, "80000001",
                            "c000000000078f94"), "ppc64le log", "own-nop likely, moved possible", "b .+8"),
    Case("ppc64le: the same without the machine's line", bug(PPC, "08:00:00:48", ON), "ppc64le bytes",
         "own-nop likely, moved possible", "b .+8"),
    Case("ppc64: the same on a big-endian kernel", bug(PPC, "48:00:00:08", ON), "ppc64 bytes",
         "own-nop likely, moved possible", "b .+8"),
    Case("ppc64le: a call at boot", bug(PPC, "4d:6b:f0:4b", INIT), "ppc64le bytes", "enabled likely",
         "bl 0xc000000000921e10"),
    Case("ppc64: a call at boot", bug(PPC, "4b:f0:6b:4d", INIT), "ppc64 bytes",
         "early likely, callee possible", "bl 0xc000000000921e10"),
    Case("ppc32: a call when it is to be traced", bug("[<c0012340>] frob_read+0x8/0xe0", "48:00:12:01", ON, "80000001",
         "", "MSR:  00009032 <EE,ME,IR,DR,RI>  CR: 44000284"), "ppc32 log", "moved likely", "bl 0xc0013540"),
    Case("ppc64le: a return", bug(PPC, "20:00:80:4e", INIT), "ppc64le bytes", "return likely", "blr"),
    Case("ppc64le: mflr at the call's place", bug(PPC, "a6:02:08:7c", INIT), "ppc64le bytes",
         "shifted likely, half possible", "mflr r0"),
    Case("ppc64le: a stack frame", bug(PPC, "a1:ff:21:f8", INIT), "ppc64le bytes", "shifted likely, other possible",
         "stdu r1, …(r1)"),
    Case("ppc64le: a kprobe", bug(PPC, "08:00:e0:7f", ON), "ppc64le bytes", "trap likely", "trap"),
    Case("ppc64le: an address that is no kernel text", "ftrace-powerpc: 0xc0000000020b3d5c: No module provided for "
         "non-kernel address\n" + bug("[<c0000000020b3d5c>] 0xc0000000020b3d5c", "", INIT, "0", "c00000000008cef4",
                                      what=FAULT), "ppc64le log", "unreadable likely, unmapped possible"),
    Case("ppc64le: strict memory", "ftrace-powerpc: ftrace_modify_code:93 Error patching instruction "
         "at 0x00000000191a981a (frob_clear+0xc/0x290): -14\n" + bug("[<c000000000109c5c>] frob_clear+0xc/0x290", "",
                                                                    OFF, "0", "c0000000000714ec", what=WRITE),
         "ppc64le log", "protected certain"),
    Case("ppc64le: expected a call, found a NOP", "ftrace-powerpc: 0xc000000000002000: expected (bl) != found "
         "(60000000)\n", "ppc64le log", "off-already likely, moved possible"),
    # -- x86
    Case("x86: a kernel of 3.10, a call of a module that hooks", "WARNING: at kernel/trace/ftrace.c:1663 ftrace_bug"
         "+0x25d/0x270()\nftrace failed to modify\n" + X86 + "\n actual:   e8:1b:49:3c:00\n", "x86-64 bytes",
         "moved possible, early possible, callee possible", "call 0xffffffff81588370"),
    Case("x86: signs extended", bug(X86, "ffffffe8:6b:ffffffd9:01:21", ON, "80000001"), "x86-64 bytes",
         "moved likely", "call 0xffffffffa21e13c0"),
    Case("x86: a jump of a dispatcher of BPF", bug("[<ffffffffac3ea960>] frob_dispatcher_func+0x0/0x10",
         "ffffffe9:ffffff9b:76:ffffffb0:14", ON, "10000001", "ffffffffac3ea960"), "x86-64 bytes",
         "redirected likely, other possible", "jmp 0xffffffffc0ef2000"),
    Case("x86: a jump of a foreign module, in one line", "ftrace failed to modify [<ffffffff8126fee0>] SyS_frob+0x0/"
         "0x120\n actual: e9:4b:50:2e:3f\n", "x86-64 bytes", "redirected likely, other possible",
         "jmp 0xffffffffc0554f30"),
    Case("x86: objtool made the NOP that the kernel makes", bug("[<ffffffff81000660>] __frob_level+0x0/0x40",
         "0f:1f:44:00:00", INIT, "0", "ffffffff81056500"), "x86-64 bytes", "off-already likely, moved possible",
         "nopl 0(%rax,%rax,1)"),
    Case("x86: another NOP of an old kernel", bug(X86, "66:66:66:66:90", ON), "x86-64 bytes",
         "as-wanted likely, moved possible", "five-byte nop of K8"),
    Case("x86: a breakpoint in the first byte", bug(X86, "cc:1f:44:00:00", ON), "x86-64 bytes", "trap likely", "int3"),
    Case("x86: endbr, which a tool without IBT recorded", bug(X86, "f3:0f:1e:fa:e8", INIT), "x86-64 bytes",
         "shifted likely", "endbr64"),
    Case("x86: a call without its relocation", bug(X86, "e8:00:00:00:00", INIT, "2000000"), "x86-64 bytes",
         "unlinked likely", "call 0xffffffff811c3a55"),
    Case("x86: a call through memory", bug(X86, "ff:15:10:20:30", INIT), "x86-64 bytes", "through-memory likely",
         "call *…(%rip)"),
    Case("x86: a call through memory that a linker relaxed", bug(X86, "67:e8:10:20:30", INIT), "x86-64 bytes",
         "through-memory likely", "addr32 call"),
    Case("x86: another callee than the kernel's", bug(X86, "e8:ab:25:84:00", INIT, "0", "",
         " expected: e8:0b:25:84:00"), "x86-64 bytes", "callee likely, moved possible", "call 0xffffffff81a06000"),
    Case("x86: a prologue", bug(X86, "55:48:89:e5:41", INIT), "x86-64 bytes", "shifted likely, other possible",
         "push %rbp"),
    Case("x86: a return", bug(X86, "c3:cc:cc:cc:cc", INIT), "x86-64 bytes", "return likely", "ret"),
    Case("x86: other code, told by its registers", bug(X86, "31:c0:c3:0f:1f", INIT, "0", "",
         "RIP: 0010:ftrace_bug+0x1b0/0x1f0"), "x86-64 log", "other likely", "xor eax, eax; ret"),
    Case("x86 32-bit: a call", bug("[<c1012340>] frob_read+0x0/0xe0", "e8:fb:01:00:00", INIT), "x86 32-bit bytes",
         "callee likely, early possible", "call 0xc1012540"),
    # -- riscv
    Case("riscv: a module's text that is not there yet", bug("[<ffffffff030b7a7c>] 0xffffffff030b7a7c", "", INIT,
         "2000000", "ffffffff8001f840", "epc : ftrace_bug+0x278/0x2b0", what=FAULT), "riscv log",
         "unreadable likely, unmapped possible"),
    Case("riscv: init text that was freed", bug("[<ffffffff8102c0da>] pci_frob+0x0/0x80", "", UPDATE, "80100001",
         "ffffffff8000aa60", "Hardware name: riscv-virtio,qemu (DT)", what=WRITE), "riscv log", "protected certain"),
    Case("riscv: a kprobe in the second word", "00000000ebed457d: expected (ffdb0097 4f0080e7) but got (00100073 "
         "4f0080e7)\n" + bug(RISCV, "23:3c:11:fe:73:00:10:00", UPDATE, "e0000002"), "riscv bytes", "trap likely",
         "ebreak in the second word"),
    Case("riscv: the kernel looked four bytes beside", "00000000f8776803: expected (ffe00297 1a4282e7) but got "
         "(1a8282e7 f0227179)\n" + bug(RISCV, "97:02:e0:ff:e7:82:82:1a", UPDATE, "e0000002", "ffffffff800093cc"),
         "riscv bytes", "beside likely", "auipc t0; jalr t0 0xffffffff80058ab8"),
    Case("riscv: two NOPs at boot", bug(RISCV, "13:00:00:00:13:00:00:00", INIT), "riscv bytes",
         "off-already likely, moved possible", "nop; nop"),
    Case("riscv: a return", bug(RISCV, "67:80:00:00:13:00:00:00", INIT), "riscv bytes", "return likely", "ret"),
    Case("riscv: compressed, a prologue", bug(RISCV, "01:11:06:ec:22:e8:00:10", INIT), "riscv bytes",
         "shifted likely, other possible", "c.addi sp"),
    # -- s390
    Case("s390: a NOP when tracing ends", bug(S390, "c0:04:00:00:00:00", OFF), "s390 bytes",
         "off-already likely, moved possible", "brcl 0,0 (jgnop)"),
    Case("s390: a call at boot", bug(S390, "c0:05:00:00:01:00", INIT), "s390 bytes", "early likely, callee possible",
         "brasl 0xa1b4c4"),
    Case("s390: a call of another register", bug(S390, "c0:e5:ff:ff:ff:00", ON), "s390 bytes", "moved likely",
         "brasl 0xa1b0c4"),
    Case("s390: a prologue", bug(S390, "eb:6f:f0:48:00:24", INIT), "s390 bytes", "shifted likely, other possible",
         "stmg …(%r15)"),
    Case("s390: a return", bug(S390, "07:fe:07:07:07:07", INIT), "s390 bytes", "return likely", "br %r14"),
    Case("s390: a kprobe", bug(S390, "00:02:00:00:00:00", ON), "s390 bytes", "trap likely", "a breakpoint (0002)"),
    Case("s390: a jump", bug("[<000003ff801b2c40>] frob_init+0x0/0x70 [frob]", "c0:f4:00:00:00:10", ON), "s390 bytes",
         "redirected likely, other possible", "jg 0x3ff801b2c60"),
    # -- loongarch, arm
    Case("loongarch: a call at boot", bug(LOONG, "00:10:00:54", INIT), "loongarch bytes",
         "early likely, callee possible", "bl"),
    Case("loongarch: a return", bug(LOONG, "20:00:00:4c", INIT), "loongarch bytes", "return likely", "ret"),
    Case("arm: a call when it is to be traced", bug(ARM, "76:f8:ff:eb", ON), "arm 32-bit bytes", "moved likely",
         "bl 0xc0a194a4"),
    Case("arm: its own NOP", bug(ARM, "00:40:bd:e8", INIT), "arm 32-bit bytes", "own-nop likely, moved possible",
         "pop {lr}"),
    Case("arm: Thumb, a call of the loader's veneer, told by its flags", "PC is at ftrace_bug\nftrace failed to modify "
         "[<e9ef7006>] 0xe9ef7006\nactual: 02:f0:3b:fa\nftrace record flags: 0\n(0) expected tramp: c0314265\n",
         "arm 32-bit log", "callee likely, early possible", "bl (Thumb)"),
    # -- machines that cannot be told apart, and what only their code says
    Case("mips or riscv: a word of zeros is a NOP on one of them", bug("[<ffffffff80104ce8>] frob_read+0x8/0x20",
         "00:00:00:00", OFF), " ", "unknown possible"),
    Case("mips: the same with its registers", bug("[<ffffffff80104ce8>] frob_read+0x8/0x20", "00:00:00:00", OFF,
         "80000000", "", "epc   : ffffffff80104ce8 ftrace_bug+0x4/0x20"), "mips log",
         "off-already likely, moved possible", "nop"),
    Case("mips: a call", bug("[<80104ce8>] frob_read+0x8/0x20", "0c:04:12:34", ON), "mips bytes", "moved likely",
         "jal"),
    Case("ppc64le: no stub to ftrace", "ftrace-powerpc: No ftrace trampolines reachable from frob_read\n",
         "ppc64le log", "told certain"),
    Case("x86 by the number of bytes alone, the address hashed", bug("[<(____ptrval____)>] frob+0x0/0x8",
         "cc:1f:44:00:00", ON), "x86-64 or x86 32-bit bytes", "trap likely", "int3"),
    Case("arm64 by a word that no other machine has, the address hashed", bug("[<(____ptrval____)>] frob+0x4/0x8",
         "c0:03:5f:d6", INIT), "arm64 bytes", "return likely", "ret"),
    Case("a word that is something on several machines, the address hashed", bug("[<(____ptrval____)>] frob+0x4/0x8",
         "20:00:80:52", INIT), " ", "unknown possible"),
    Case("big-endian power, the address hashed", bug("[<(____ptrval____)>] frob+0x4/0x8", "48:00:00:08", ON),
         "ppc64 or ppc32 bytes", "own-nop likely, moved possible", "b .+8"),
    # -- what a message does not tell
    Case("the kernel's warning alone", "WARNING: CPU: 0 PID: 0 at kernel/trace/ftrace.c:2235 ftrace_bug+0x288/0x2b8\n",
         " ", "warning-only certain"),
    Case("the same, as 7.x writes it", "WARNING: kernel/trace/ftrace.c:2260 at ftrace_bug+0x600/0x960, CPU#0: init/1\n",
         " ", "warning-only certain"),
    Case("no bytes", bug(ARM64, "", INIT), "arm64 address", "unknown possible"),
    Case("bytes that are cut off", bug(ARM64, "c0:03:", INIT), "arm64 address", "unknown possible"),
    Case("bytes that are nothing on a machine that is not told", bug("[<(____ptrval____)>] f+0x4/0x8",
         "12:34:56:78", INIT), " ", "unknown possible"),
    Case("another error", bug(ARM64, "", ON, what="faulted on unknown error"), "arm64 address", "other-error certain"),
    Case("the head alone", "------------[ ftrace bug ]------------\n", " ", "unknown possible"),
    Case("mail that broke a line", bug(RISCV, "", "Updating ftrace call site to call a different ftrace functio=\nn",
         "80100001", what=WRITE), " ", "protected certain"),
)  # fmt: skip


def told_of(text: str) -> Diagnosis:
    (splat,) = parse(text)
    return diagnose(splat)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_reported_message_has_the_right_machine_and_causes(case: Case) -> None:
    told = told_of(case.text)
    causes = ", ".join(f"{KEYS[id(one.cause)]} {one.certainty}" for one in told.causes)
    assert (f"{told.origin.name} {told.origin.by}", causes, told.origin.actual.text) == (
        case.machine, case.causes, case.actual,
    )  # fmt: skip
