"""A little program of ours that runs sites of ppc64le programs under qemu-ppc64le, vector registers included.

Behind each site, and where each function begins that is called, stands a `trap`. So a run is a sequence of signals, and
the one handler does everything: it writes down the registers as they were, and sets those with which execution goes on.

    the program's own trap ─► start of the first site
    trap of a function ─► return from the worst function that the ABI allows
    trap behind the site, any other signal, too many functions ─► start of the next site

A row of the table is what a site starts with: 48 doublewords of a Linux pt_regs, f0–f31, v0–v31, the address behind the
site, and 16 of the stack from the caller's stack pointer on. A record, written at each signal, is the same without the
address; in places of pt_regs that nobody needs it has the back chain, the signal, the site's index and the stage.
Encodings: Power ISA 3.1, book I. Frame: arch/powerpc/include/uapi/asm/ptrace.h and sigcontext.h.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import U64
from ftpatch.elf import tables as t
from ftpatch.proof.emulate.guest_ppc64le import EXECUTE, READ, SA_ONSTACK, SA_SIGINFO, WRITE, Segment

BASES = tuple(n << 28 for n in range(2, 8))  # where all of it may lie, so that a `lis` forms the address of the state
STATE, CODE, ALT_STACK, STACK, TABLE = 0, 0x1_0000, 0x2_0000, 0x3_0000, 0x4_0000  # from there
SIZE, STACK_SIZE, ALT_SIZE, PAGE = 1 << 27, 1 << 16, 1 << 16, 1 << 12
NIP, CTR, LR, XER, CR = 32, 35, 36, 37, 38  # in a row and a record
CHAIN, SIGNAL, INDEX, STAGE = 42, 43, 44, 45  # in a record
FLOATS, VECTORS, FRAME, N_RECORD = 48, 80, 144, 160  # doublewords: f0 in one each, v0 in two, the lower one first
RESUME, ROW_FRAME, N_ROW = 144, 145, 161  # of a row
N_JUNK = 144
LOADS_STATE = (0, 22)  # words that load the upper half of the state's address

# Words, and what they are; labels end in a colon.
PROGRAM = (
    0x3FC0_2100, 0x3800_00B9, 0x387E_0040, 0x3880_0000,  # start: lis 30,0x2100; li 0,185; addi 3,30,64; li 4,0
    0x4400_0002,  # sc
    0x3BA0_0004, 0x4800_0021,  # li 29,4; bl one
    0x3BA0_0005, 0x4800_0019,  # li 29,5; bl one
    0x3BA0_0007, 0x4800_0011,  # li 29,7; bl one
    0x3BA0_000B, 0x4800_0009,  # li 29,11; bl one
    0x7FE0_0008,  # trap
    0x3800_00AD, 0x7FA3_EB78, 0x389E_0060, 0x38A0_0000,  # one: li 0,173; mr 3,29; addi 4,30,96; li 5,0
    0x38C0_0008, 0x4400_0002,  # li 6,8; sc
    0x4E80_0020,  # blr
    0x3BE5_00E8, 0x3FC0_2100, 0xEBBE_0000, 0xEB9E_0008,  # handler: addi 31,5,232; lis 30,0x2100; ld 29,0(30); …
    0xEB7E_0010, 0xF87F_0158, 0xFB7F_0160, 0xFB9F_0168,  # ld 27,16(30); std 3,344(31); std 27,352(31); std 28,360(31)
    0xEB5F_0008, 0xE8BE_0018, 0x7C3A_2840, 0x4180_0018,  # ld 26,8(31); ld 5,24(30); cmpld 26,5; blt said
    0xE8BE_0020, 0x7C3A_2840, 0x4181_000C,  # ld 5,32(30); cmpld 26,5; bgt said
    0xE8BA_0000, 0xF8BF_0150,  # ld 5,0(26); std 5,336(31)
    0x3800_0004, 0x3860_0001, 0x7FE4_FB78, 0x38A0_0280,  # said: li 0,4; li 3,1; mr 4,31; li 5,640
    0x4400_0002,  # sc
    0x3800_0004, 0x3860_0001, 0xE89F_0288, 0x38A0_0200,  # li 0,4; li 3,1; ld 4,648(31); li 5,512
    0x4400_0002,  # sc
    0x3800_0004, 0x3860_0001, 0xE89D_0008, 0x38A0_0080,  # li 0,4; li 3,1; ld 4,8(29); li 5,128
    0x4400_0002,  # sc
    0x2C3C_0000, 0x4182_0130,  # cmpdi 28,0; beq launch
    0xE87F_0158, 0x2C23_0005, 0x4082_0114,  # ld 3,344(31); cmpdi 3,5; bne next
    0xE87F_0100, 0xE89D_0480, 0x7C23_2000, 0x4182_0104,  # ld 3,256(31); ld 4,1152(29); cmpd 3,4; beq next
    0xE87E_0030, 0x3863_0001, 0xF87E_0030, 0x2C23_0010,  # ld 3,48(30); addi 3,3,1; std 3,48(30); cmpdi 3,16
    0x4080_00F0,  # bge next
    0xE89F_0120, 0xF89F_0100, 0x38DE_0080, 0xE886_0120,  # ld 4,288(31); std 4,256(31); addi 6,30,128; ld 4,288(6)
    0xF89F_0120, 0xE886_0118, 0xF89F_0118, 0xE886_0128,  # std 4,288(31); ld 4,280(6); std 4,280(31); ld 4,296(6)
    0xF89F_0128, 0xE886_0000, 0xF89F_0000, 0x38E6_0008,  # std 4,296(31); ld 4,0(6); std 4,0(31); addi 7,6,8
    0x391F_0008, 0x3920_000B, 0x7D29_03A6,  # addi 8,31,8; li 9,11; mtctr 9
    0xE887_0009, 0xF888_0009, 0x4200_FFF8,  # general: ldu 4,8(7); stdu 4,8(8); bdnz general
    0xE89F_0130, 0xE8A6_0130, 0x3CE0_00FF, 0x60E7_F000,  # ld 4,304(31); ld 5,304(6); lis 7,0xff; ori 7,7,0xf000
    0x7C84_3838, 0x7CA5_3878, 0x7C84_2B78, 0xF89F_0130,  # and 4,4,7; andc 5,5,7; or 4,4,5; std 4,304(31)
    0x38FE_01F8, 0x391F_0178, 0x3920_000E, 0x7D29_03A6,  # addi 7,30,504; addi 8,31,376; li 9,14; mtctr 9
    0xE887_0009, 0xF888_0009, 0x4200_FFF8,  # float: ldu 4,8(7); stdu 4,8(8); bdnz float
    0x38FE_02F8, 0xE91F_0288, 0x3908_FFF8, 0x3920_0028,  # addi 7,30,760; ld 8,648(31); addi 8,8,-8; li 9,40
    0x7D29_03A6,  # mtctr 9
    0xE887_0009, 0xF888_0009, 0x4200_FFF8,  # vector: ldu 4,8(7); stdu 4,8(8); bdnz vector
    0xE8BE_0018, 0x7C3A_2840, 0x4180_003C,  # ld 5,24(30); cmpld 26,5; blt done
    0xE8BE_0020, 0x7C3A_2840, 0x4181_0030,  # ld 5,32(30); cmpld 26,5; bgt done
    0xE886_0000, 0xF89A_0008, 0xF89A_0010, 0xF89A_0018,  # ld 4,0(6); std 4,8(26); std 4,16(26); std 4,24(26)
    0x38E6_FFF8, 0x391A_FEF8, 0x3920_0020, 0x7D29_03A6,  # addi 7,6,-8; addi 8,26,-264; li 9,32; mtctr 9
    0xE887_0009, 0xF888_0009, 0x4200_FFF8,  # dirty: ldu 4,8(7); stdu 4,8(8); bdnz dirty
    0x4E80_0020,  # done: blr
    0x3B7B_0001, 0xFB7E_0010, 0x3BBD_0508, 0xFBBE_0000,  # next: addi 27,27,1; …; addi 29,29,1288; std 29,0(30)
    0xE89E_0028, 0x7C3B_2000, 0x4182_00AC,  # launch: ld 4,40(30); cmpd 27,4; beq exit
    0x3B80_0001, 0xFB9E_0008, 0x3880_0000, 0xF89E_0030,  # li 28,1; std 28,8(30); li 4,0; std 4,48(30)
    0x389D_FFF8, 0x38BF_FFF8, 0x38C0_0021, 0x7CC9_03A6,  # addi 4,29,-8; addi 5,31,-8; li 6,33; mtctr 6
    0xE8E4_0009, 0xF8E5_0009, 0x4200_FFF8,  # first: ldu 7,8(4); stdu 7,8(5); bdnz first
    0x3884_0010, 0x38A5_0010, 0x38C0_0004, 0x7CC9_03A6,  # addi 4,4,16; addi 5,5,16; li 6,4; mtctr 6
    0xE8E4_0009, 0xF8E5_0009, 0x4200_FFF8,  # second: ldu 7,8(4); stdu 7,8(5); bdnz second
    0x389D_0178, 0x38BF_0178, 0x38C0_0020, 0x7CC9_03A6,  # addi 4,29,376; addi 5,31,376; li 6,32; mtctr 6
    0xE8E4_0009, 0xF8E5_0009, 0x4200_FFF8,  # floats: ldu 7,8(4); stdu 7,8(5); bdnz floats
    0x389D_0278, 0xE8BF_0288, 0x38A5_FFF8, 0x38C0_0040,  # addi 4,29,632; ld 5,648(31); addi 5,5,-8; li 6,64
    0x7CC9_03A6,  # mtctr 6
    0xE8E4_0009, 0xF8E5_0009, 0x4200_FFF8,  # vectors: ldu 7,8(4); stdu 7,8(5); bdnz vectors
    0x389D_0480, 0xE8BD_0008, 0x38A5_FFF8, 0x38C0_0010,  # addi 4,29,1152; ld 5,8(29); addi 5,5,-8; li 6,16
    0x7CC9_03A6,  # mtctr 6
    0xE8E4_0009, 0xF8E5_0009, 0x4200_FFF8,  # frame: ldu 7,8(4); stdu 7,8(5); bdnz frame
    0x4E80_0020,  # blr
    0x3800_00EA, 0x3860_0000, 0x4400_0002,  # exit: li 0,234; li 3,0; sc
)  # fmt: skip
HANDLER = CODE + 4 * 21


def program(base: int, rows: U64, junk: U64, stack: bytes) -> list[Segment]:
    """The segments of the program. rows: (n, N_ROW); junk: what worst functions leave in registers."""
    state = np.zeros(160 + N_JUNK, dtype="<u8")
    # row, stage, index, lowest and highest r1, n
    state[:6] = base + TABLE, 0, 0, base + STACK + 1024, base + STACK + STACK_SIZE - 256, len(rows)
    state[8:11] = base + ALT_STACK, 0, ALT_SIZE
    state[12:16] = base + HANDLER, SA_SIGINFO | SA_ONSTACK, 0, 0
    state[16 : 16 + N_JUNK] = junk
    code = np.array(PROGRAM, dtype="<u4")
    code[list(LOADS_STATE)] = code[list(LOADS_STATE)] & 0xFFFF_0000 | base >> 16
    return [
        Segment(base + STATE, state.tobytes(), READ | WRITE),
        Segment(base + CODE, code.tobytes(), READ | EXECUTE),
        Segment(base + ALT_STACK, bytes(ALT_SIZE), READ | WRITE),
        Segment(base + STACK, stack, READ | WRITE),
        Segment(base + TABLE, rows.astype("<u8").tobytes(), READ),
    ]


def elf(base: int, segments: list[Segment]) -> bytes:
    """An ELF file of these segments, which start at multiples of a page."""
    head = np.zeros(1, t.EHDR)
    head["e_ident"][0, :7] = np.frombuffer(b"\x7fELF\2\1\1", dtype=np.uint8)
    head["e_type"], head["e_machine"], head["e_entry"], head["e_flags"] = t.ET_EXEC, 21, base + CODE, 2  # ELFv2
    head["e_version"], head["e_phoff"], head["e_ehsize"] = 1, t.EHDR.itemsize, t.EHDR.itemsize
    head["e_phentsize"], head["e_phnum"], head["e_shentsize"] = t.PHDR.itemsize, len(segments), t.SHDR.itemsize
    rows = np.zeros(len(segments), t.PHDR)
    content = bytearray(t.EHDR.itemsize + rows.nbytes)
    for number, segment in enumerate(sorted(segments, key=lambda segment: segment.va)):
        content += bytes(-len(content) % PAGE)
        size = len(segment.data)
        rows[number] = t.PT_LOAD, segment.flags, len(content), segment.va, segment.va, size, size, PAGE
        content += segment.data
    content[: t.EHDR.itemsize] = head.tobytes()
    content[t.EHDR.itemsize : t.EHDR.itemsize + rows.nbytes] = rows.tobytes()
    return bytes(content)
