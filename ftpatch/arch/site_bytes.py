"""What the bytes of a site are that a kernel prints (` actual:   1f:20:03:d5`), on every machine that has ftrace.

A log need not say which machine it is from. How many bytes it prints, at which address, and what instruction they are
tells it nearly always: five on x86, six on s390, eight on riscv, an instruction word elsewhere. Machines whose files
this program does not read are here for that reason, and for nothing else.

Source: MCOUNT_INSN_SIZE and the instructions of arch/*/include/asm/ftrace.h and arch/*/kernel/ftrace.c (Linux 4.4 to
7.2); Arm ARM, Power ISA 3.1, Intel SDM volume 2, RISC-V unprivileged ISA, z/Architecture POP, LoongArch volume 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

# What such an instruction is to ftrace.
NOP = "nop"  # a site that is off
CALL, JUMP = "call", "jump"
OWN_NOP = "own-nop"  # what ftrace itself writes where a compiler's call was (-pg)
FIRST = "first"  # the word in front of the call
LANDING = "landing"  # a landing pad, which stands in front of a site
RETURN = "return"
TRAP = "trap"  # a breakpoint
ENTRY = "entry"  # the function's own first code
ZEROS = "zeros"
UNKNOWN = "unknown"


class Known(NamedTuple):
    """An instruction that is known, of bytes as one number, the first byte of an instruction's number foremost."""

    bits: int
    mask: int
    kind: str
    text: str  # as assembly writes it; {to} stands for where it leads
    field: tuple[int, int, int] = (0, 0, 0)  # its distance: lowest bit, width in bits, bytes of one step
    base: int = 0  # bytes from the instruction's start to where the distance counts from


class Machine(NamedTuple):
    """One machine, as its messages show it."""

    name: str
    sizes: tuple[int, ...]  # bytes that its kernels print of a site
    order: Literal["little", "big"]  # of the bytes in an instruction word
    known: tuple[Known, ...]  # the first that fits holds
    addresses: tuple[tuple[int, int], ...]  # [first, end) where its kernels and their modules lie
    # (text, pattern of module `re` in a line that has that text) that only logs of this machine have
    signs: tuple[tuple[str, str], ...] = ()
    capstone: tuple[str, ...] = ()  # names of capstone's constants, for what is not `known`
    family: str = ""  # machines of one family print the same lines, and signs in a log may mean any of them
    compiled_calls: bool = False  # what compilers leave at a site is a call, which a kernel looks for at boot
    pair: bool = False  # eight bytes are two words, the first in the upper half of the number


class Reading(NamedTuple):
    """What the bytes of a site are."""

    kind: str
    text: str  # as assembly writes it, or "" where that is not known
    to: int | None = None  # where a call or jump leads


WORD, ALL8 = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF
BRANCH26 = (0, 26, 4)  # arm64
KERNEL64 = 0xFFFF_FFFF_8000_0000  # the last 2 GiB, where x86 and riscv have the kernel and its modules
ENDS = 1 << 64

ARM64 = (
    Known(0xD503_201F, WORD, NOP, "nop"),
    Known(0xAA1E_03E9, WORD, FIRST, "mov x9, x30"),
    Known(0xAA1E_03E0, WORD, FIRST, "mov x0, x30"),
    Known(0xD65F_03C0, WORD, RETURN, "ret"),
    Known(0xD65F_0BFF, 0xFFFF_FBFF, RETURN, "retaa"),
    Known(0xD503_241F, 0xFFFF_FF3F, LANDING, "bti"),
    Known(0xD503_233F, 0xFFFF_FFBF, ENTRY, "paciasp"),
    Known(0x9400_0000, 0xFC00_0000, CALL, "bl {to}", BRANCH26),
    Known(0x1400_0000, 0xFC00_0000, JUMP, "b {to}", BRANCH26),
    Known(0xD420_0000, 0xFFE0_001F, TRAP, "brk"),
    Known(0xA980_7BFD, 0xFFC0_7FFF, ENTRY, "stp x29, x30, [sp, #…]!"),
    Known(0xD100_03FF, 0xFF80_03FF, ENTRY, "sub sp, sp, #…"),
)
POWER = (
    Known(0x6000_0000, WORD, NOP, "nop"),
    Known(0x4800_0008, WORD, OWN_NOP, "b .+8"),
    Known(0x7C08_02A6, WORD, FIRST, "mflr r0"),
    Known(0x7D88_02A6, WORD, FIRST, "mflr r12"),
    Known(0x4E80_0020, WORD, RETURN, "blr"),
    Known(0x7FE0_0008, WORD, TRAP, "trap"),
    Known(0x4800_0001, 0xFC00_0003, CALL, "bl {to}", (2, 24, 4)),
    Known(0x4800_0000, 0xFC00_0003, JUMP, "b {to}", (2, 24, 4)),
    Known(0xF821_0001, 0xFFFF_0003, ENTRY, "stdu r1, …(r1)"),
    Known(0x9421_0000, 0xFFFF_0000, ENTRY, "stwu r1, …(r1)"),
    Known(0xF801_0010, WORD, ENTRY, "std r0, 16(r1)"),
    Known(0x9001_0004, WORD, ENTRY, "stw r0, 4(r1)"),
    Known(0x3C4C_0000, 0xFFFF_0000, ENTRY, "addis r2, r12, …"),
    Known(0x3842_0000, 0xFFFF_0000, ENTRY, "addi r2, r2, …"),
)
REL32 = (0, 32, 1)
X86 = (  # the first byte foremost; distances are little-endian, which `_distance` knows by their width
    *(Known(bits, 0xFF_FFFF_FFFF, NOP, text) for bits, text in (
        (0x0F_1F44_0000, "nopl 0(%rax,%rax,1)"), (0x66_6666_6690, "five-byte nop of K8"),
        (0x66_6690_6690, "five-byte nop of K8"), (0x3E_8D74_2600, "lea 0(%esi,%eiz,1), %esi: the nop of old i386"),
        (0x90_9090_9090, "five one-byte nops"),
    )),
    Known(0xE9_0300_0000, 0xFF_FFFF_FFFF, OWN_NOP, "jmp .+8"),
    Known(0xE8 << 32, 0xFF << 32, CALL, "call {to}", REL32, 5),
    Known(0xE9 << 32, 0xFF << 32, JUMP, "jmp {to}", REL32, 5),
    Known(0xCC << 32, 0xFF << 32, TRAP, "int3"),
    Known(0xC3 << 32, 0xFF << 32, RETURN, "ret"),
    Known(0xF3_0F1E_FA00, 0xFF_FFFF_FF00, LANDING, "endbr64"),
    Known(0xF3_0F1E_FB00, 0xFF_FFFF_FF00, LANDING, "endbr32"),
    Known(0xFF_1500_0000, 0xFF_FF00_0000, CALL, "call *…(%rip)"),
    Known(0x67_E800_0000, 0xFF_FF00_0000, CALL, "addr32 call"),
    Known(0xEB << 32, 0xFF << 32, JUMP, "jmp (short)"),
    Known(0x55 << 32, 0xFF << 32, ENTRY, "push %rbp"),
    Known(0x41_5000_0000, 0xFF_F800_0000, ENTRY, "push (r8 to r15)"),
    Known(0x48_89E5_0000, 0xFF_FFFF_0000, ENTRY, "mov %rsp, %rbp"),
    Known(0x48_83EC_0000, 0xFF_FFFF_0000, ENTRY, "sub $…, %rsp"),
)  # fmt: skip
S390 = (
    Known(0xC004_0000_0000, 0xFFFF_FFFF_FFFF, NOP, "brcl 0,0 (jgnop)"),
    Known(0xC0F4_0000_0000, 0xFFFF_0000_0000, JUMP, "jg {to}", (0, 32, 2)),
    Known(0xC004_0000_0000, 0xFFFF_0000_0000, NOP, "jgnop {to}", (0, 32, 2)),
    Known(0xC005_0000_0000, 0xFF0F_0000_0000, CALL, "brasl {to}", (0, 32, 2)),
    Known(0x0002_0000_0000, 0xFFFF_0000_0000, TRAP, "a breakpoint (0002)"),
    Known(0x07FE_0000_0000, 0xFFFF_0000_0000, RETURN, "br %r14"),
    Known(0x0700_0000_0000, 0xFF00_0000_0000, NOP, "two-byte nops (bcr 0)"),
    Known(0xEB00_0000_0024, 0xFF00_0000_00FF, ENTRY, "stmg …(%r15)"),
)
RISCV = (  # of two words, the first in front
    Known(0x0000_0013_0000_0013, ALL8, NOP, "nop; nop"),
    Known(0x0001_0001_0001_0001, ALL8, NOP, "four two-byte nops (c.nop)"),
    Known(0x0000_0297_0002_82E7, 0x0000_0FFF_000F_FFFF, CALL, "auipc t0; jalr t0 {to}", (-1, 32, 1)),
    Known(0x0000_0097_0000_80E7, 0x0000_0FFF_000F_FFFF, CALL, "auipc ra; jalr ra {to}", (-1, 32, 1)),
    Known(0x0000_0297_0000_0013, 0x0000_0FFF_FFFF_FFFF, FIRST, "auipc t0; nop"),
    Known(0x0000_8067_0000_0000, WORD << 32, RETURN, "ret"),
    Known(0x0000_8082_0000_0000, 0x0000_FFFF_0000_0000, RETURN, "c.ret"),
    Known(0x0010_0073_0000_0000, WORD << 32, TRAP, "ebreak"),
    Known(0x0000_9002_0000_0000, 0x0000_FFFF_0000_0000, TRAP, "c.ebreak"),
    Known(0x0000_0000_0010_0073, WORD, TRAP, "ebreak in the second word"),
    Known(0x0000_0013_0000_0000, WORD << 32, NOP, "nop, and other code"),
    Known(0x0000_00EF_0000_0000, 0x0000_0FFF_0000_0000, CALL, "jal ra"),
    Known(0x0000_7101_0000_0000, 0x0000_EF83_0000_0000, ENTRY, "c.addi16sp sp"),
    Known(0x0000_1101_0000_0000, 0x0000_FF83_0000_0000, ENTRY, "c.addi sp"),
)
RISCV_WORD = (
    Known(0x0000_0013, WORD, NOP, "nop"),
    Known(0x0001_0001, WORD, NOP, "two two-byte nops (c.nop)"),
    Known(0x0000_0297, 0xFFF, FIRST, "auipc t0"),
    Known(0x0002_82E7, 0xF_FFFF, CALL, "jalr t0"),
    Known(0x0000_8067, WORD, RETURN, "ret"),
)
LOONGARCH = (
    Known(0x0340_0000, WORD, NOP, "nop"),
    Known(0x0015_002C, WORD, FIRST, "move t0, ra"),
    Known(0x4C00_0020, WORD, RETURN, "ret"),
    Known(0x5400_0000, 0xFC00_0000, CALL, "bl"),
    Known(0x5000_0000, 0xFC00_0000, JUMP, "b"),
    Known(0x002A_0000, 0xFFFF_8000, TRAP, "break"),
    Known(0x02C0_0063, 0xFFC0_03FF, ENTRY, "addi.d sp, sp, …"),
)
ARM = (
    Known(0xE1A0_0000, WORD, NOP, "nop (mov r0, r0)"),
    Known(0xE320_F000, WORD, NOP, "nop"),
    Known(0xE8BD_4000, WORD, OWN_NOP, "pop {lr}"),
    Known(0xE49D_E004, WORD, OWN_NOP, "pop {lr}"),
    Known(0xEB04_F85D, WORD, OWN_NOP, "pop.w {lr}"),
    Known(0xE52D_E004, WORD, FIRST, "push {lr}"),
    Known(0xE12F_FF1E, WORD, RETURN, "bx lr"),
    Known(0xEB00_0000, 0xFF00_0000, CALL, "bl {to}", (0, 24, 4), 8),
    Known(0xEA00_0000, 0xFF00_0000, JUMP, "b {to}", (0, 24, 4), 8),
    Known(0xD000_F000, 0xD000_F800, CALL, "bl (Thumb)"),
    Known(0xE92D_0000, 0xFFFF_0000, ENTRY, "push {…}"),
)
HIGH32 = ((0x8000_0000, 1 << 32),)
MACHINES = (
    Machine("arm64", (4,), "little", ARM64, ((0xFFF0 << 48, KERNEL64),),
            (("pstate", r"\bpstate ?: [0-9a-f]{8}"), ("ESR = ", r"\bESR = 0x"), ("aarch64", r"\baarch64\b"),
             ("arm64", r"[-.]arm64\b")),
            ("CS_ARCH_ARM64",)),
    Machine("ppc64le", (4,), "little", POWER, ((0xC << 60, 0xE << 60),),
            (("MSR:", r"\bMSR: .*\bSF\b.*\bLE\b"), ("powerpc64le", "powerpc64le"), ("ppc64le", r"\bppc64le\b"),
             ("ppc64el", r"\bppc64el\b")),
            ("CS_ARCH_PPC", "CS_MODE_64", "CS_MODE_LITTLE_ENDIAN"), "power"),
    Machine("ppc64", (4,), "big", POWER, ((0xC << 60, 0xE << 60),),
            (("MSR:", r"\bMSR: .*<(?=[^>]*\bSF\b)(?![^>]*\bLE\b)[^>]*>"), ("ppc64", r"\bppc64\b")),
            ("CS_ARCH_PPC", "CS_MODE_64", "CS_MODE_BIG_ENDIAN"), "power"),
    Machine("ppc32", (4,), "big", POWER, HIGH32, (("MSR:", r"\bMSR: .*<(?![^>]*\bSF\b)[^>]*>"),),
            ("CS_ARCH_PPC", "CS_MODE_32", "CS_MODE_BIG_ENDIAN"), "power"),
    Machine("x86-64", (5,), "big", X86, ((KERNEL64, ENDS),),
            (("RIP", r"\bRIP: 00[0-9a-f]{2}:"), ("RIP", r"\bRIP  ?\[?<"), ("RAX:", r"\bRAX: [0-9a-f]{16}"),
             ("x86_64", r"\bx86_64\b"), ("amd64", r"[-.]amd64\b")),
            ("CS_ARCH_X86", "CS_MODE_64"), compiled_calls=True),
    Machine("x86 32-bit", (5,), "big", X86, HIGH32, (("EIP: ", r"\bEIP: "), ("i686", r"\bi686\b")),
            ("CS_ARCH_X86", "CS_MODE_32"), compiled_calls=True),
    Machine("s390", (6,), "big", S390, ((0x1_0000, 1 << 53),),
            (("Krnl ", r"\bKrnl (?:PSW|GPRS|Code)\b"), ("s390", r"\bs390x?\b")),
            ("CS_ARCH_SYSZ", "CS_MODE_BIG_ENDIAN")),
    Machine("riscv", (8,), "little", RISCV, ((0xFFFF_FFD0 << 32, ENDS),),
            (("epc", r"\bepc ?: [0-9a-f]{8}"), ("epc", r"\bepc ?: \w+\+0x"), ("riscv", r"\briscv(?:64)?\b")),
            ("CS_ARCH_RISCV", "CS_MODE_RISCV64"),
            pair=True),
    Machine("riscv", (4,), "little", RISCV_WORD, ((0xFFFF_FFD0 << 32, ENDS),), (),
            ("CS_ARCH_RISCV", "CS_MODE_RISCV64")),
    Machine("loongarch", (4,), "little", LOONGARCH, ((0x9 << 60, 0xA << 60),),
            (("ERA: ", r"\bERA: [0-9a-f]{16}"), ("ESTAT: ", r"\bESTAT: [0-9a-f]{8}"),
             ("loongarch", r"\bloongarch(?:64)?\b"))),
    Machine("arm 32-bit", (4,), "little", ARM, HIGH32, (("PC is at ", r"\bPC is at \w"), ("armv7", r"\barmv7l?\b"),
             ("unwind_back", "unwind_backtrace")),
            ("CS_ARCH_ARM", "CS_MODE_ARM"), compiled_calls=True),
)  # fmt: skip


def machines_named(name: str, size: int | None = None) -> tuple[Machine, ...]:
    """Those of that name that print `size` bytes of a site; of every size, where None is asked for."""
    return tuple(one for one in MACHINES if one.name == name and (size is None or size in one.sizes))


def number(machine: Machine, code: bytes) -> int:
    """Bytes of code as the number by which the machine's documents name them: a word, or the first byte foremost."""
    if machine.pair and len(code) == 8:
        return int.from_bytes(code[:4], "little") << 32 | int.from_bytes(code[4:], "little")
    return int.from_bytes(code, machine.order)


def reading(machine: Machine, code: bytes, va: int | None = None) -> Reading:
    """What the bytes of a site at `va` are; kind UNKNOWN where they are nothing that ftrace or a compiler puts there.

    A site that is cut off is not read: fewer bytes than the machine prints are nothing.
    """
    if len(code) not in machine.sizes:
        return Reading(UNKNOWN, "")
    if not any(code):
        return Reading(ZEROS, "zeros")
    value = number(machine, code)
    for known in machine.known:
        if value & known.mask == known.bits:
            to = _target(machine, known, value, code, va)
            text = known.text.replace("{to}", f"0x{to:x}" if to is not None else "").strip()
            return Reading(known.kind, text, to)
    return Reading(UNKNOWN, "")


def _target(machine: Machine, known: Known, value: int, code: bytes, va: int | None) -> int | None:
    """Where a branch leads; None for what is none, or without an address."""
    low, width, step = known.field
    if not width or va is None:
        return None
    if low < 0:  # auipc and jalr of riscv: the upper 20 bits in one word, a signed rest in the other
        distance = _signed((value >> 32 & 0xFFFF_F000) + _signed(value >> 20 & 0xFFF, 12), 32)
    elif machine.name.startswith("x86"):
        distance = int.from_bytes(code[1:5], "little", signed=True)
    else:
        distance = _signed(value >> low & (1 << width) - 1, width) * step
    bits = 32 if va < 1 << 32 and machine.addresses == HIGH32 else 64
    return (va + known.base + distance) % (1 << bits)


def _signed(value: int, bits: int) -> int:
    return (value & (1 << bits) - 1) - ((value & 1 << bits - 1) << 1)


def family_of(name: str) -> tuple[Machine, ...]:
    """The machines of the family that a machine belongs to, itself first; none where it has no family."""
    family = next((machine.family for machine in MACHINES if machine.name == name and machine.family), "")
    members = [machine for machine in MACHINES if family and machine.family == family]
    return tuple(sorted(members, key=lambda machine: machine.name != name))


def has_code_at(machine: Machine, va: int | None) -> bool:
    """Whether kernels of that machine have code at an address; True where none is told."""
    return va is None or any(low <= va < end for low, end in machine.addresses)


def candidates(code: bytes | None, va: int | None) -> Iterator[tuple[Machine, Reading | None]]:
    """Machines that print so many bytes of a site, have code at that address, and to which these bytes mean something.

    code: None where the message has no bytes; va: None where it tells no address.
    """
    for machine in MACHINES:
        if not has_code_at(machine, va):
            continue
        if code is None:
            yield machine, None
        elif len(code) in machine.sizes:
            what = reading(machine, code, va)
            if what.kind != UNKNOWN:
                yield machine, what
