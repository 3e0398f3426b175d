"""Instructions that stand at patch sites, or where a wrong record points, on every machine that has ftrace: tables.

`site_bytes` reads what a kernel prints of a site by them.
Source: the instructions of arch/*/include/asm/ftrace.h and arch/*/kernel/ftrace.c (Linux 4.4 to 7.2); Arm ARM, Power
ISA 3.1, Intel SDM volume 2, RISC-V unprivileged ISA, z/Architecture POP, LoongArch volume 1, MIPS64 volume II.
"""

from __future__ import annotations

from typing import NamedTuple

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


WORD, ALL8 = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF
BRANCH26 = (0, 26, 4)  # arm64

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
MIPS = (
    Known(0x0000_0000, WORD, NOP, "nop"),
    Known(0x03E0_0008, WORD, RETURN, "jr ra"),
    Known(0x03E0_0825, WORD, FIRST, "move at, ra"),
    Known(0x03E0_082D, WORD, FIRST, "move at, ra"),
    Known(0x0C00_0000, 0xFC00_0000, CALL, "jal"),
    Known(0x1000_0000, 0xFFFF_0000, OWN_NOP, "b"),
    Known(0x3C03_0000, 0xFFFF_0000, ENTRY, "lui v1, …"),
    Known(0x27BD_0000, 0xFFFF_0000, ENTRY, "addiu sp, sp, …"),
    Known(0x67BD_0000, 0xFFFF_0000, ENTRY, "daddiu sp, sp, …"),
    Known(0x0000_000D, 0xFC00_003F, TRAP, "break"),
)
