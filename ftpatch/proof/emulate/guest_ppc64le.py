"""A little program of ours that runs sites under qemu-ppc64le: its code, its data, and the ELF file around it.

Where a site's target is, and behind its site, stands a `trap`. So a run is a sequence of signals, and the one handler
does everything: it writes down the registers as they were, and then sets those with which execution goes on.

    stage 0   the program's own trap ─► start of the first site
    stage 1   stop at the target ─► returned from it; stop elsewhere ─► start of the next site
    stage 2   stop behind the site, or anywhere else ─► start of the next site

Per stop it writes a record of 64 doublewords: 48 of a Linux pt_regs (back chain, signal, site and stage in places that
nobody needs), and 16 of the stack from the caller's stack pointer on.
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
NIP, MSR, CTR, LR, XER, CR, CHAIN, SIGNAL, INDEX, STAGE, FRAME = (
    32,
    33,
    35,
    36,
    37,
    38,
    42,
    43,
    44,
    45,
    48,
)  # in a record
N_RECORD, N_FRAME = 64, 16  # doublewords
COMPLEMENT = slice(14, 14 + N_FRAME)  # the registers of a row of which the caller's frame is the complement
TARGET, INLINE, MASK, LOST, N_ROW = 39, 40, 41, 42, 43  # of a row, whose first places are those of a record
N_REGISTERS = 40
TRAP = 0x7FE0_0008
SIGILL, SIGTRAP, SIGBUS, SIGSEGV = 4, 5, 7, 11
SA_SIGINFO, SA_ONSTACK = 0x4, 0x0800_0000

# Words, and what they are; labels end in a colon, notes stand behind a dash.
PROGRAM = (
    0x3FC0_1100,  # start: lis r30,0x1100 – r30: the state
    0x3800_00B9, 0x387E_0040, 0x3880_0000, 0x4400_0002,  # li r0,185; addi r3,r30,0x40; li r4,0; sc – sigaltstack(&ss)
    0x3BA0_0004, 0x4800_0021, 0x3BA0_0005, 0x4800_0019,  # li r29,4; bl one; li r29,5; bl one – for SIGILL and SIGTRAP
    0x3BA0_0007, 0x4800_0011, 0x3BA0_000B, 0x4800_0009,  # li r29,7; bl one; li r29,11; bl one – for SIGBUS and SIGSEGV
    0x7FE0_0008,  # trap
    0x3800_00AD, 0x7FA3_EB78, 0x389E_0060, 0x38A0_0000,  # one: li r0,173; mr r3,r29; addi r4,r30,0x60; li r5,0
    0x38C0_0008, 0x4400_0002, 0x4E80_0020,  # li r6,8; sc; blr – rt_sigaction(r29, &act, 0, 8)
    0x3BE5_00E8, 0x3FC0_1100,  # handler: addi r31,r5,232; lis r30,0x1100
    0xEBBE_0000, 0xEB9E_0008, 0xEB7E_0010,  # ld r29,0(r30); ld r28,8(r30); ld r27,16(r30) – row, stage, index
    0xF87F_0158, 0xFB7F_0160, 0xFB9F_0168,  # std r3,344(r31); std r27,352(r31); std r28,360(r31) – signal, index, stage
    0xE89F_0008, 0xE8BE_0020, 0x7C24_2840, 0x4180_0018,  # ld r4,8(r31); ld r5,32(r30); cmpld r4,r5; blt said
    0xE8BE_0018, 0x7C24_2840, 0x4181_000C,  # ld r5,24(r30); cmpld r4,r5; bgt said – r1 is in the stack
    0xE8A4_0000, 0xF8BF_0150,  # ld r5,0(r4); std r5,336(r31) – the back chain
    0x3800_0004, 0x3860_0001, 0x7FE4_FB78,  # said: li r0,4; li r3,1; mr r4,r31 – write(1, registers, 384)
    0x38A0_0180, 0x4400_0002,  # li r5,384; sc
    0x3800_0004, 0x3860_0001, 0xE89E_0018,  # li r0,4; li r3,1; ld r4,24(r30) – write(1, caller's frame, 128)
    0x38A0_0080, 0x4400_0002,  # li r5,128; sc
    0x2C3C_0001, 0x4082_00B8,  # cmpdi r28,1; bne next
    0xE89D_0138, 0xE8BF_0100, 0x7C24_2800, 0x4082_00A8,  # ld r4,312(r29); ld r5,256(r31); cmpd r4,r5; bne next – target
    0x3B80_0002, 0xFB9E_0008,  # li r28,2; std r28,8(r30) – stage 2
    0xE89F_0120, 0xF89F_0100,  # ld r4,288(r31); std r4,256(r31) – go on at LR
    0xE8BD_0140, 0x7C24_2800, 0x4082_0014,  # ld r5,320(r29); cmpd r4,r5; bne keep – back to an inline site?
    0xE89F_0000, 0xF89F_0120,  # ld r4,0(r31); std r4,288(r31) – LR := r0
    0xE89E_0080, 0xF89F_0000,  # ld r4,128(r30); std r4,0(r31) – r0 := junk
    0xE97D_0148, 0x389E_0078, 0x38BF_FFF8,  # keep: ld r11,328(r29); addi r4,r30,0x78; addi r5,r31,-8 – mask, junk
    0x38C0_0028, 0x7CC9_03A6,  # li r6,40; mtctr r6
    0xE8E4_0009, 0xE905_0008, 0x7169_0001,  # mix: ldu r7,8(r4); ld r8,8(r5); andi. r9,r11,1
    0x4182_0008, 0x7CE8_3B78,  # beq old; mr r8,r7 – junk where the mask says so
    0xF905_0009, 0x796B_F842, 0x4200_FFE4,  # old: stdu r8,8(r5); srdi r11,r11,1; bdnz mix
    0xE89F_0008, 0xE8BE_0020, 0x7C24_2840, 0x4180_0034,  # ld r4,8(r31); ld r5,32(r30); cmpld r4,r5; blt done
    0xE8BE_0018, 0x7C24_2840, 0x4181_0028,  # ld r5,24(r30); cmpld r4,r5; bgt done
    0xF8E4_0008, 0xF8E4_0010,  # std r7,8(r4); std r7,16(r4) – two words of the frame above
    0xE93D_0150, 0x7CE4_492A,  # ld r9,336(r29); stdx r7,r4,r9 – and a third one
    0x38A4_FEF8, 0x38C0_0020, 0x7CC9_03A6,  # addi r5,r4,-264; li r6,32; mtctr r6
    0xF8E5_0009, 0x4200_FFFC,  # dirty: stdu r7,8(r5); bdnz dirty – what lies below r1
    0x4E80_0020,  # done: blr
    0x2C3C_0000, 0x4182_0014,  # next: cmpdi r28,0; beq launch
    0x3B7B_0001, 0xFB7E_0010,  # addi r27,r27,1; std r27,16(r30)
    0x3BBD_0158, 0xFBBE_0000,  # addi r29,r29,344; std r29,0(r30) – next index
    0xE89E_0028, 0x7C3B_2000, 0x4182_006C,  # launch: ld r4,40(r30); cmpd r27,r4; beq exit – next row
    0x3B80_0001, 0xFB9E_0008,  # li r28,1; std r28,8(r30)
    0x389D_FFF8, 0x38BF_FFF8, 0x38C0_0021, 0x7CC9_03A6,  # addi r4,r29,-8; addi r5,r31,-8; li r6,33; mtctr r6 – stage 1
    0xE8E4_0009, 0xF8E5_0009, 0x4200_FFF8,  # first: ldu r7,8(r4); stdu r7,8(r5); bdnz first
    0x3884_0010, 0x38A5_0010, 0x38C0_0004, 0x7CC9_03A6,  # addi r4,r4,16; addi r5,r5,16; li r6,4; mtctr r6 – ctr to cr
    0xE8E4_0009, 0xF8E5_0009, 0x4200_FFF8,  # second: ldu r7,8(r4); stdu r7,8(r5); bdnz second
    0xE8BE_0018, 0x389D_0068, 0x38A5_FFF8,  # ld r5,24(r30); addi r4,r29,104; addi r5,r5,-8
    0x38C0_0010, 0x7CC9_03A6,  # li r6,16; mtctr r6
    0xE8E4_0009, 0x7CE7_38F8, 0xF8E5_0009, 0x4200_FFF4,  # fill: ldu r7,8(r4); not r7,r7; stdu r7,8(r5); bdnz fill
    0x4E80_0020,  # blr – the caller's frame is the complement of r14–r29
    0x3800_00EA, 0x3860_0000, 0x4400_0002,  # exit: li r0,234; li r3,0; sc – exit_group(0)
)  # fmt: skip
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
