"""arm64: how its compilers lay out patch sites, and how its kernels use them.

A traced function starts with two NOPs (behind a `bti c` where it may be called indirectly). The kernel rewrites them to

    mov  x9, x30            the caller's return address is parked in x9, which is dead at a function's entry
    bl   ftrace_caller      x30 now points behind the call

and ftrace_caller returns with x30 := x9 to where x30 pointed. There is no push, because the stack pointer must stay
16-byte aligned and an unwinder would have to know of it.

Where the kernel is built with CALL_OPS, eight more bytes stand in front of the function: two NOPs in the file, in
the running kernel a pointer to the ftrace_ops that the site serves. ftrace_caller finds them from its return
address, `(x30 & ~7) − 16`, and has no check for NULL: a site that is enabled on disk must have that pointer filled,
or must enter ftrace_caller behind the load.

    -fpatchable-function-entry=2           record ─► nop nop                          symbol = record
    the same with BTI                      bti c, record ─► nop nop                   symbol = record − 4
    -fpatchable-function-entry=4,2         record ─► [ops pointer], nop nop           symbol = record + 8
    the same with BTI                      record ─► [ops pointer], bti c, nop nop    symbol = record + 8
    -pg                                    record ─► bl _mcount, somewhere in the prologue

A kCFI type hash may precede the symbol; it is never touched.
Encodings: Arm Architecture Reference Manual for A-profile (DDI 0487), C6.2.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch import Arch, fillers
from ftpatch.arch.arm64_fronts import FRONTS
from ftpatch.arch.arm64_fronts import PADS as PADS_IN_FRONT
from ftpatch.arch.arm64_log import LOG
from ftpatch.arch.arm64_module import ASSEMBLY, LOADER, MODULES
from ftpatch.arch.arm64_static_calls import STATIC_CALLS
from ftpatch.arch.arm64_veneer import ADD_IMM, ADRP, BTI_C, ERRATUM_843419, VENEER, adrp, adrp_target
from ftpatch.arch.parts import AddressPair, Entry, FlatImage, OpsThunk, TableEnd
from ftpatch.arch.shape import Branch, Shape, Word
from ftpatch.arrays import U32, U64

NOP = Word(0xD503_201F, text="nop")
ANY_BTI = Word(0xD503_241F, 0xFFFF_FF3F, "bti {c,j,jc}")
MOV_X9_X30 = Word(0xAA1E_03E9, text="mov x9, x30")
BL = Branch(Word(0x9400_0000, 0xFC00_0000, "bl"), 26)
B = Branch(Word(0x1400_0000, 0xFC00_0000, "b"), 26)
BRK = Word(0xD420_0000, 0xFFE0_001F, "brk")
B_COND = Branch(Word(0x5400_0000, 0xFF00_0010, "b.cond"), 19, lsb=5)
CBZ = Branch(Word(0x3400_0000, 0x7E00_0000, "cbz, cbnz"), 19, lsb=5)
TBZ = Branch(Word(0x3600_0000, 0x7E00_0000, "tbz, tbnz"), 14, lsb=5)
AND_LR_7 = Word(0x927D_F3C0, 0xFFFF_FFE0, "and Xd, x30, #~7")
LDUR_16 = Word(0xF85F_0000, 0xFFFF_FC00, "ldur Xt, [Xn, #-16]")
LDR_UIMM = Word(0xF940_0000, 0xFFC0_0000, "ldr Xt, [Xn, #imm]")
THUNK = (BTI_C, ADRP, ADD_IMM, B.word)
READ_AHEAD = 16  # words of ftrace_caller that are looked at for the ops load

SHAPES = (
    Shape(
        "callops", entry=8, start=2, old=(NOP, NOP), new=(MOV_X9_X30, BL.word), branch=BL, skips=((ANY_BTI,),),
        skip_at=2, literal=0,
        text="two NOPs behind the entry, an ops pointer in front of it (-fpatchable-function-entry=4,2)",
        skip_text="a BTI in front of the site",
        source="arch/arm64/kernel/ftrace.c ftrace_call_adjust(), CONFIG_DYNAMIC_FTRACE_WITH_CALL_OPS; Debian 6.12",
    ),
    Shape(
        "pfe2", entry=0, start=0, old=(NOP, NOP), new=(MOV_X9_X30, BL.word), branch=BL, skips=((ANY_BTI,),), skip_at=-1,
        adjust=4,
        text="two NOPs at the entry (-fpatchable-function-entry=2)", skip_text="a BTI in front of the site",
        source="arch/arm64/include/asm/ftrace.h ftrace_call_adjust(), -fpatchable-function-entry=2; Debian 6.1",
    ),
    Shape(
        "mcount", entry=0, start=0, old=(BL.word,), new=(BL.word,), branch=BL, called="_mcount", nops=(NOP,),
        anywhere=True, library=True, adjust=0,
        text="bl _mcount behind the prologue (-pg)",
        source="scripts/recordmcount.c, gcc -pg (kernels before 5.5, and later ones without WITH_REGS/WITH_ARGS)",
    ),
)  # fmt: skip


def read_entry(words: U32) -> Entry:
    """What a kernel trampoline does first, from its first instruction words.

    Source: arch/arm64/kernel/entry-ftrace.S, SYM_CODE_START(ftrace_caller) (Linux 6.12).
    """
    at = int(ANY_BTI.matches(words[:1]).any())
    register = int(words[at]) & 31 if len(words) > at else 0
    if words[at : at + 2].tolist() != [AND_LR_7.bits | register, LDUR_16.bits | register << 5 | register]:
        return Entry(literal=False)
    behind = words[at + 2 : at + READ_AHEAD]
    loads = behind[LDR_UIMM.matches(behind) & (behind >> np.uint32(5) & np.uint32(31) == np.uint32(register))].tolist()
    direct = (loads[0] >> 10 & 0xFFF) * 8 if loads else 0
    return Entry(literal=True, register=register, resume=4 * (at + 2), direct_call=direct)


def thunk(va: int, ops: int, entry_va: int, entry: Entry) -> U32:
    """The words of a shared stub at `va` that loads the address of `ops` where `entry` would have loaded a literal,
    and enters the trampoline behind that load. Position-independent; an AssertionError where it cannot reach."""
    n, page = entry.register, adrp(va + 4, ops, entry.register)
    add = ADD_IMM.bits | (ops & 0xFFF) << 10 | n << 5 | n
    branch = B.encode(np.array([entry_va + entry.resume - (va + 12)], dtype=np.int64))[0]
    return np.array([BTI_C.bits, page, add, branch], dtype=np.uint32)


def thunk_leads_to(words: U32, va: int) -> int | None:
    """Where a stub of `thunk`'s words at `va` enters a trampoline; None where the words are no such stub."""
    if len(words) < 4 or not all(word.matches(words[i : i + 1])[0] for i, word in enumerate(THUNK)):
        return None
    register = int(words[1]) & 31
    if int(words[2]) & 0x3FF != register << 5 | register:
        return None
    return va + 12 + int(B.decode(words[3:4])[0])


def plt_slot(words: U32, va: U64, got: int) -> U64:
    """Where each stub of a .plt reads its target: `[bti c;] adrp x16, page; ldr x17, [x16, #lo12]`; 0 where none is."""
    start = BTI_C.matches(words[:, 0]).astype(np.int64)
    page, load = (np.take_along_axis(words, start[:, None] + step, axis=1)[:, 0].astype(np.int64) for step in (0, 1))
    pages = (page >> 29 & 3 | page >> 3 & 0x1F_FFFC ^ 1 << 20) - (1 << 20)
    slot = ((va.view(np.int64) + 4 * start) & ~0xFFF) + (pages << 12) + (load >> 10 & 0xFFF) * 8
    stub = (page & 0x9F00_001F == 0x9000_0010) & (load & 0xFFC0_03FF == 0xF940_0211)
    return np.where(stub, slot, 0).view(np.uint64)


def find_pairs(words: U32, va: int, value: int | None) -> list[AddressPair]:
    """Every `adrp Xn; add Xd, Xn, #lo12` in one function (its words, its va) that forms `value`; None: all of them.

    A pair is private when the ADRP's result serves this ADD alone: the same register is overwritten by it, no
    instruction between the two names it, none of them is a branch, and no branch of the function lands between.
    The search follows the words as they stand, past branches, so that it rather finds too much.
    """
    targets = _branch_targets(words)
    pairs = []
    for first in np.flatnonzero(ADRP.matches(words)).tolist():
        register, page = int(words[first]) & 31, adrp_target(int(words[first]), va + 4 * first)
        private = True
        for second, word in enumerate(words[first + 1 :].tolist(), first + 1):
            private &= second not in targets
            adds, formed = (
                word & ADD_IMM.mask == ADD_IMM.bits and word >> 5 & 31 == register,
                page + (word >> 10 & 0xFFF),
            )
            if adds and value in (formed, None):
                pairs.append(AddressPair(first, second, register, formed, private and word & 31 == register))
            if _overwrites(word, register):
                break
            private &= not (adds or _leaves(word) or _names(word, register))
    return pairs


def _overwrites(word: int, register: int) -> bool:
    """Whether the register surely holds something else behind this instruction."""
    if word & BL.word.mask == BL.word.bits or word & 0xFFFF_FC1F == 0xD63F_0000:  # bl, blr
        return register <= 18 or register == 30
    if _leaves(word):
        return word & 0xFFF0_0000 == 0xD530_0000 and word & 31 == register  # mrs
    return word & 31 == register and not _stores(word)


def _names(word: int, register: int) -> bool:
    """Whether one of the fields that may name a register names this one. ADR and ADRP have the first of them only."""
    if word & 0x1F00_0000 == 0x1000_0000:
        return word & 31 == register
    return register in (word & 31, word >> 5 & 31, word >> 10 & 31, word >> 16 & 31)


def _stores(word: int) -> bool:
    """Whether the word is a store, whose first register is read: loads and stores with the load bit clear."""
    return word >> 25 & 0b101 == 0b100 and not word >> 22 & 1


def _leaves(word: int) -> bool:
    """Whether the word is a branch, an exception or a system instruction that is no hint."""
    return word >> 26 & 0b111 == 0b101 and word & 0xFFFF_F01F != 0xD503_201F


def _branch_targets(words: U32) -> set[int]:
    """Word indices that direct branches of the function go to."""
    targets: set[int] = set()
    for branch in (B, B_COND, CBZ, TBZ):
        offset, distance = branch.find(words)
        targets.update(((offset + distance) // 4).tolist())
    return targets


def set_pair(words: U32, va: int, pair: AddressPair, value: int) -> U32 | None:
    """The pair's two words forming `value` instead; None where that needs another page and the ADRP is shared."""
    page, add = int(words[pair.first]), int(words[pair.second])
    if value >> 12 != pair.value >> 12:
        if not pair.private:
            return None
        page = adrp(va + 4 * pair.first, value, pair.register)
    return np.array([page, add & ~(0xFFF << 10) | (value & 0xFFF) << 10], dtype=np.uint32)


def ways_out(words: U32) -> bool:
    """Whether a function's words have a return, an indirect jump, a jump to outside of them, or simply go on."""
    last = words[-1:]
    if not (BL.word.matches(last) | B.word.matches(last) | BRK.matches(last)).all():
        return True
    # br, ret, eret and their forms with pointer authentication; bit 21 makes blr of br
    if ((words & np.uint32(0xFE20_0000)) == np.uint32(0xD600_0000)).any():
        return True
    for branch in (B, B_COND, CBZ, TBZ):
        offset, distance = branch.find(words)
        target = offset + distance
        if ((target < 0) | (target >= 4 * len(words))).any():
            return True
    return False


# Source: Arm ARM (DDI 0487) B2.2.5, concurrent modification and execution of instructions.
EXCHANGEABLE = (
    NOP, B.word, BL.word, Word(0xD400_0001, 0xFFE0_001F, "svc"), BRK,
    Word(0xD400_0002, 0xFFE0_001F, "hvc"), Word(0xD400_0003, 0xFFE0_001F, "smc"),
)  # fmt: skip

ARCH = Arch(
    name="arm64",
    e_machine=183,
    nop=NOP.bits,
    call=BL,
    shapes=SHAPES,
    fronts=FRONTS,
    pads=PADS_IN_FRONT,
    relative=1027,  # R_AARCH64_RELATIVE
    irelative=1032,  # R_AARCH64_IRELATIVE
    code_marks="$",  # $x, $d, $d.realdata: AAELF64, 4.5.4
    none=0,  # R_AARCH64_NONE; relocate_kernel() skips every type but RELATIVE
    abs64=257,  # R_AARCH64_ABS64
    abs32=258,  # R_AARCH64_ABS32
    tls=(1029,),  # R_AARCH64_TLS_DTPREL
    wide=(257, 260),  # R_AARCH64_ABS64, PREL64
    direct_calls=(283,),  # R_AARCH64_CALL26
    plt_slot=plt_slot,
    echoes=False,  # --no-apply-dynamic-relocs
    entries=("ftrace_caller", "ftrace_regs_caller"),
    read_entry=read_entry,
    contract="x0-x8, x18-x29 and sp kept, x30 := x9, return to the old x30",
    library_contract="x18-x29 and sp kept, return to x30, as functions of C do",
    judge="ftpatch.arch.arm64_contract",
    registers="ftpatch.arch.arm64_registers",
    ops_thunk=OpsThunk(thunk, 16, (1 << 32) - (1 << 12), ERRATUM_843419, thunk_leads_to),
    table_end=TableEnd(find_pairs, set_pair),
    boot=FlatImage(56, b"ARM\x64", r"ARM\x64", size_at=16),  # Documentation/arch/arm64/booting.rst
    layout_options=(  # arch/arm64/Makefile
        ("DYNAMIC_FTRACE_WITH_CALL_OPS", ("callops",)), ("DYNAMIC_FTRACE_WITH_ARGS", ("pfe2",)),
        ("DYNAMIC_FTRACE_WITH_REGS", ("pfe2",)), ("DYNAMIC_FTRACE", ("mcount",)),
    ),
    skip_option="ARM64_BTI_KERNEL",
    alternatives=((12, 10),),  # arch/arm64/include/asm/alternative.h struct alt_instr
    compares_first=True,  # ftrace_init_nop() of Linux 6.12
    jump=B,
    jumps=("b", "bl"),
    capstone=("CS_ARCH_ARM64", "CS_MODE_LITTLE_ENDIAN"),
    log=LOG,
    veneer=VENEER,
    exchangeable=EXCHANGEABLE,
    cache_line=64,
    fillers=fillers.ARM64,
    padding=rb"(?:\x1f\x20\x03\xd5|\0{4})*",  # nop; zeros
    loader=LOADER,
    modules=MODULES,
    assembly=ASSEMBLY,
    ways_out=ways_out,
    static_calls=STATIC_CALLS,
    programs="ftpatch.arch.arm64_program",
    proof="ftpatch.arch.arm64_proof",
)  # fmt: skip
