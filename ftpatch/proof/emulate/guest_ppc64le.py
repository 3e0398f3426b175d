"""A little program of ours that runs sites under qemu-ppc64le: its code, its data, and the ELF file around it.

Where a site's target is, and behind its site, stands a `trap`. So a run is a sequence of signals, and the one handler
does everything: it writes down the registers as they were, and then sets those with which execution goes on.

    stage 0   the program's own trap ─► start of the first site
    stage 1   stop at the target ─► returned from it; stop elsewhere ─► start of the next site
    stage 2   stop behind the site, or anywhere else ─► start of the next site

Per stop it writes a record of 64 doublewords: 48 of a Linux pt_regs (signal, site and stage in the last places), and
16 of the stack from the caller's stack pointer on.
Encodings: Power ISA 3.1, book I. Frame: arch/powerpc/include/uapi/asm/ptrace.h; QEMU linux-user/ppc/signal.c.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import U64
from ftpatch.elf import tables as t

CODE, STATE, ALT_STACK, PACA, STACK, TABLE = (0x1000_0000, 0x1100_0000, 0x1101_0000, 0x1102_0000, 0x1103_0000,
                                             0x1200_0000)  # fmt: skip
PACA_SIZE, STACK_SIZE, ALT_SIZE, SEGMENT = 1 << 12, 1 << 16, 1 << 16, 1 << 16
NIP, MSR, CTR, LR, XER, CR, SIGNAL, INDEX, STAGE, FRAME = 32, 33, 35, 36, 37, 38, 43, 44, 45, 48  # in a record
N_RECORD, N_FRAME = 64, 16  # doublewords
TARGET, INLINE, MASK, N_ROW = 39, 40, 41, 42  # of a row, whose first places are those of a record
N_REGISTERS = 40
TRAP = 0x7FE0_0008
SIGILL, SIGTRAP, SIGBUS, SIGSEGV = 4, 5, 7, 11
SA_SIGINFO, SA_ONSTACK = 0x4, 0x0800_0000

PROGRAM = (
    # start:
    0x3FC0_1100,  # lis   r30,0x1100
    0x3800_00B9,  # li    r0,185        sigaltstack(&ss, 0)
    0x387E_0040,  # addi  r3,r30,0x40
    0x3880_0000,  # li    r4,0
    0x4400_0002,  # sc
    0x3BA0_0004,  # li    r29,4         SIGILL
    0x4800_0021,  # bl    one
    0x3BA0_0005,  # li    r29,5
    0x4800_0019,  # bl    one
    0x3BA0_0007,  # li    r29,7
    0x4800_0011,  # bl    one
    0x3BA0_000B,  # li    r29,11
    0x4800_0009,  # bl    one
    0x7FE0_0008,  # trap
    # one:
    0x3800_00AD,  # li    r0,173        rt_sigaction(n, &act, 0, 8)
    0x7FA3_EB78,  # mr    r3,r29
    0x389E_0060,  # addi  r4,r30,0x60
    0x38A0_0000,  # li    r5,0
    0x38C0_0008,  # li    r6,8
    0x4400_0002,  # sc
    0x4E80_0020,  # blr
    # handler:
    0x3BE5_00E8,  # addi  r31,r5,232
    0x3FC0_1100,  # lis   r30,0x1100
    0xEBBE_0000,  # ld    r29,0(r30)    row
    0xEB9E_0008,  # ld    r28,8(r30)    stage: 0 not started, 1 on the way, 2 on the way back
    0xEB7E_0010,  # ld    r27,16(r30)   index
    0xF87F_0158,  # std   r3,344(r31)   signal
    0xFB7F_0160,  # std   r27,352(r31)
    0xFB9F_0168,  # std   r28,360(r31)
    0x3800_0004,  # li    r0,4          write(1, registers, 384)
    0x3860_0001,  # li    r3,1
    0x7FE4_FB78,  # mr    r4,r31
    0x38A0_0180,  # li    r5,384
    0x4400_0002,  # sc
    0x3800_0004,  # li    r0,4          write(1, caller's frame, 128)
    0x3860_0001,  # li    r3,1
    0xE89E_0018,  # ld    r4,24(r30)
    0x38A0_0080,  # li    r5,128
    0x4400_0002,  # sc
    0x2C3C_0001,  # cmpdi r28,1
    0x4082_00B0,  # bne   next
    0xE89D_0138,  # ld    r4,312(r29)   target
    0xE8BF_0100,  # ld    r5,256(r31)   nip
    0x7C24_2800,  # cmpd  r4,r5
    0x4082_00A0,  # bne   next
    0x3B80_0002,  # li    r28,2
    0xFB9E_0008,  # std   r28,8(r30)
    0xE89F_0120,  # ld    r4,288(r31)   LR
    0xF89F_0100,  # std   r4,256(r31)
    0xE8BD_0140,  # ld    r5,320(r29)   return point of an inline trampoline, 0 for none
    0x7C24_2800,  # cmpd  r4,r5
    0x4082_0014,  # bne   keep
    0xE89F_0000,  # ld    r4,0(r31)     LR := r0
    0xF89F_0120,  # std   r4,288(r31)
    0xE89E_0080,  # ld    r4,128(r30)
    0xF89F_0000,  # std   r4,0(r31)
    # keep:
    0xE97D_0148,  # ld    r11,328(r29)  mask
    0x389E_0078,  # addi  r4,r30,0x78   junk - 8
    0x38BF_FFF8,  # addi  r5,r31,-8
    0x38C0_0028,  # li    r6,40
    0x7CC9_03A6,  # mtctr r6
    # mix:
    0xE8E4_0009,  # ldu   r7,8(r4)
    0xE905_0008,  # ld    r8,8(r5)
    0x7169_0001,  # andi. r9,r11,1
    0x4182_0008,  # beq   old
    0x7CE8_3B78,  # mr    r8,r7
    # old:
    0xF905_0009,  # stdu  r8,8(r5)
    0x796B_F842,  # srdi  r11,r11,1
    0x4200_FFE4,  # bdnz  mix
    0xE89F_0008,  # ld    r4,8(r31)     r1
    0xE8BE_0020,  # ld    r5,32(r30)    lowest
    0x7C24_2840,  # cmpld r4,r5
    0x4180_002C,  # blt   done
    0xE8BE_0018,  # ld    r5,24(r30)    entry r1
    0x7C24_2840,  # cmpld r4,r5
    0x4181_0020,  # bgt   done
    0xF8E4_0008,  # std   r7,8(r4)
    0xF8E4_0010,  # std   r7,16(r4)
    0x38A4_FEF8,  # addi  r5,r4,-264
    0x38C0_0020,  # li    r6,32
    0x7CC9_03A6,  # mtctr r6
    # dirty:
    0xF8E5_0009,  # stdu  r7,8(r5)
    0x4200_FFFC,  # bdnz  dirty
    # done:
    0x4E80_0020,  # blr
    # next:
    0x2C3C_0000,  # cmpdi r28,0
    0x4182_0014,  # beq   launch
    0x3B7B_0001,  # addi  r27,r27,1
    0xFB7E_0010,  # std   r27,16(r30)
    0x3BBD_0150,  # addi  r29,r29,336
    0xFBBE_0000,  # std   r29,0(r30)
    # launch:
    0xE89E_0028,  # ld    r4,40(r30)    number of sites
    0x7C3B_2000,  # cmpd  r27,r4
    0x4182_0048,  # beq   exit
    0x3B80_0001,  # li    r28,1
    0xFB9E_0008,  # std   r28,8(r30)
    0x389D_FFF8,  # addi  r4,r29,-8     r0-r31, nip
    0x38BF_FFF8,  # addi  r5,r31,-8
    0x38C0_0021,  # li    r6,33
    0x7CC9_03A6,  # mtctr r6
    # first:
    0xE8E4_0009,  # ldu   r7,8(r4)
    0xF8E5_0009,  # stdu  r7,8(r5)
    0x4200_FFF8,  # bdnz  first
    0x3884_0010,  # addi  r4,r4,16
    0x38A5_0010,  # addi  r5,r5,16
    0x38C0_0004,  # li    r6,4          ctr, lr, xer, cr
    0x7CC9_03A6,  # mtctr r6
    # second:
    0xE8E4_0009,  # ldu   r7,8(r4)
    0xF8E5_0009,  # stdu  r7,8(r5)
    0x4200_FFF8,  # bdnz  second
    0x4E80_0020,  # blr
    # exit:
    0x3800_00EA,  # li    r0,234        exit_group(0)
    0x3860_0000,  # li    r3,0
    0x4400_0002,  # sc
)
HANDLER = CODE + 4 * 21


@dataclass(frozen=True)
class Segment:
    """What is loaded at an address, and how: flags of a program header."""

    va: int
    data: bytes
    flags: int


READ, WRITE, EXECUTE = 4, 2, 1


def program(rows: U64, junk: U64, stack: bytes, paca: bytes) -> list[Segment]:
    """The segments of the program. rows: (n, N_ROW); junk: what a target leaves in registers that it may change."""
    state = np.zeros(SEGMENT // 8, dtype="<u8")
    state[:6] = TABLE, 0, 0, rows[0, 1], STACK + 1024, len(rows)  # row, stage, index, caller's r1, lowest r1, n
    state[8:11] = ALT_STACK, 0, ALT_SIZE
    state[12:16] = HANDLER, SA_SIGINFO | SA_ONSTACK, 0, 0
    state[16 : 16 + N_REGISTERS] = junk
    return [
        Segment(CODE, np.array(PROGRAM, dtype="<u4").tobytes(), READ | EXECUTE),
        Segment(STATE, state.tobytes() + bytes(ALT_SIZE), READ | WRITE),
        Segment(PACA, paca, READ),
        Segment(STACK, stack, READ | WRITE),
        Segment(TABLE, rows.astype("<u8").tobytes(), READ),
    ]


def elf(segments: list[Segment]) -> bytes:
    """An ELF file of these segments, which start at multiples of 64 KiB."""
    head = np.zeros(1, t.EHDR)
    size = t.EHDR.itemsize + t.PHDR.itemsize * len(segments)
    head["e_ident"][0, :7] = np.frombuffer(b"\x7fELF\2\1\1", dtype=np.uint8)
    head["e_type"], head["e_machine"], head["e_entry"], head["e_flags"] = t.ET_EXEC, 21, CODE, 2  # ELFv2
    head["e_version"], head["e_phoff"], head["e_ehsize"] = 1, t.EHDR.itemsize, t.EHDR.itemsize
    head["e_phentsize"], head["e_phnum"], head["e_shentsize"] = t.PHDR.itemsize, len(segments), t.SHDR.itemsize
    rows = np.zeros(len(segments), t.PHDR)
    parts, at = [head.tobytes(), b""], size
    for number, segment in enumerate(segments):
        parts.append(bytes(-at % SEGMENT))
        at += -at % SEGMENT
        rows[number] = (t.PT_LOAD, segment.flags, at, segment.va, segment.va, len(segment.data), len(segment.data),
                        SEGMENT)  # fmt: skip
        parts.append(segment.data)
        at += len(segment.data)
    parts[1] = rows.tobytes()
    return b"".join(parts)
