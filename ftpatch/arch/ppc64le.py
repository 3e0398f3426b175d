"""ppc64le (ELFv2): how its compilers lay out patch sites, and how its kernels use them.

A function may have two entries. Callers from elsewhere come in at the global one with its address in r12, and its first
two words compute r2, the TOC pointer; callers that share the TOC skip them and use the local entry. Sites belong to
the local one. An enabled site saves the caller's return address in r0 and calls:

    mflr r0                  LR, the caller's return address, is kept in r0
    bl   ftrace_caller       LR now points behind the call

    -pg -mprofile-kernel                  local entry ─► mflr r0, [std r0,16(r1),] record ─► bl _mcount     live on disk
    -fpatchable-function-entry=2          local entry = record ─► nop nop
    -fpatchable-function-entry=1          local entry = record ─► nop, which becomes `b stub`; out of line:
                                          [ops pointer,] mflr r0, bl ftrace_caller, mtlr r0, b behind the site
    clang's =1, =2 (LLVM issue 163706)    record = global entry, nops at the local one
    gcc 12's =2                           record = global entry ─► nop nop, then the set-up of r2: off by 8, broken
    N,M with M > 0                        record ─► M NOPs between the entries

A `bl` spans ±32 MB, less than a kernel: far sites go through a trampoline that finds the kernel's TOC in the paca
(r13), so it works from modules' TOCs too, but not before the boot CPU has a paca.
Encodings: Power ISA 3.1, book I; ABI: OpenPOWER ELFv2, 2.3.2 and 3.4.1.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch import Arch, fillers
from ftpatch.arch.parts import Entry, FarCalls, SiteStub
from ftpatch.arch.ppc64le_abi import in_registers, ways_out
from ftpatch.arch.ppc64le_fronts import FRONTS
from ftpatch.arch.ppc64le_log import LOG
from ftpatch.arch.ppc64le_module import ASSEMBLY, LOADER, MODULES
from ftpatch.arch.ppc64le_plt import plt_slot
from ftpatch.arch.ppc64le_walk import BL, B, runs_before
from ftpatch.arch.shape import Shape, Word
from ftpatch.arrays import I64, U8, U32, U64, Mask

NOP = Word(0x6000_0000, text="nop")
MFLR_R0 = Word(0x7C08_02A6, text="mflr r0")
MTLR_R0 = Word(0x7C08_03A6, text="mtlr r0")
STD_R0_16 = Word(0xF801_0010, text="std r0,16(r1)")
ADDIS_R2 = Word(0x3C4C_0000, 0xFFFF_0000, "addis r2,r12,X")
LIS_R2 = Word(0x3C40_0000, 0xFFFF_0000, "lis r2,X")
ADDI_R2 = Word(0x3842_0000, 0xFFFF_0000, "addi r2,r2,Y")
LD_R2_M8 = Word(0xE84C_FFF8, text="ld r2,-8(r12)")
ADD_R2 = Word(0x7C42_6214, text="add r2,r2,r12")
LD_R2_R13 = Word(0xE84D_0000, 0xFFFF_0003, "ld r2,X(r13)")
LD_R12_R13 = Word(0xE98D_0000, text="ld r12,X(r13)")
LD_M16_R11 = Word(0xE80B_FFF0, 0xFC1F_FFFF, "ld rX,-16(r11)")
MTCTR_R12 = Word(0x7D89_03A6, text="mtctr r12")
BCTR = Word(0x4E80_0420, text="bctr")
SETS_R2 = ((ADDIS_R2, ADDI_R2), (LIS_R2, ADDI_R2), (LD_R2_M8, ADD_R2))
READ_AHEAD = 64  # words of ftrace_caller in which its constants are looked for

STUB = (MFLR_R0, BL.word, MTLR_R0, B.word)
FAR_STUB = (  # what a jump to a place relative to the kernel's TOC consists of
    Word(0xE98D_0000, 0xFFFF_0003, "ld r12,X(r13)"), Word(0x3D8C_0000, 0xFFFF_0000, "addis r12,r12,X"),
    Word(0x398C_0000, 0xFFFF_0000, "addi r12,r12,Y"), MTCTR_R12, BCTR,
)  # fmt: skip

SHAPES = (
    Shape(
        "mprofile", entry=-4, start=0, lead=MFLR_R0, old=(BL.word,), new=(BL.word,), branch=BL, skips=((STD_R0_16,),),
        skip_at=-1, called="_mcount", nops=(NOP,), adjust=0,
        text="mflr r0; bl _mcount at the local entry (-mprofile-kernel)",
        skip_text="gcc 5's std r0,16(r1) in front of the call",
        source="arch/powerpc/kernel/trace/ftrace_64_pg.c, gcc -mprofile-kernel; Debian 6.1",
    ),
    Shape(
        "pfe2", entry=0, start=0, old=(NOP, NOP), new=(MFLR_R0, BL.word), branch=BL, adjust=4,
        text="two NOPs at the local entry (-fpatchable-function-entry=2)",
        source="arch/powerpc/kernel/trace/ftrace.c ftrace_call_adjust(), -fpatchable-function-entry=2; Debian 6.12",
    ),
    Shape(
        "pfe2-clang", entry=0, start=0, old=(NOP, NOP), new=(MFLR_R0, BL.word), branch=BL, skips=SETS_R2,
        at_global=True, site_local=True, program=True,
        text="two NOPs at the local entry, records at the global one, as clang makes them", skip_text="two entries",
        source="clang's records at the global entry (LLVM issue 163706), -fpatchable-function-entry=2",
    ),
    Shape(
        "ool", entry=0, start=0, old=(NOP,), new=(B.word,), branch=B, adjust=0, stub=STUB,
        text="one NOP at the local entry, calls in stubs out of line (-fpatchable-function-entry=1)",
        source="arch/powerpc/kernel/trace/ftrace.c ftrace_init_ool_stub(), CONFIG_PPC_FTRACE_OUT_OF_LINE; Debian 7.2",
    ),
    Shape(
        "pfe-between", entry=8, start=2, old=(NOP, NOP), new=(MFLR_R0, BL.word), branch=BL,
        refusal="NOPs between the global and the local entry (N,M): no kernel patches those",
        text="NOPs between the entries (-fpatchable-function-entry=N,M)",
        source="gcc -fpatchable-function-entry=4,2 on ELFv2",
    ),
    Shape(
        "ool-global", entry=0, start=0, old=(NOP,), new=(B.word,), branch=B, skips=SETS_R2, at_global=True,
        site_local=True, adjust=0,
        stub=STUB, text="one NOP at the local entry, records at the global one, as clang makes them",
        skip_text="two entries",
        source="clang's records at the global entry (LLVM issue 163706); ftrace_call_adjust()",
    ),
    Shape(
        "pfe2-global", entry=0, start=0, old=(NOP, NOP), new=(MFLR_R0, BL.word), branch=BL, at_global=True,
        refusal="the NOPs stand in front of the set-up of r2, which is then off by 8: code that gcc 12 breaks",
        text="NOPs at the global entry, as gcc 12 makes them: broken code",
        source="gcc 12 -fpatchable-function-entry=2; arch/powerpc/tools/gcc-check-fpatchable-function-entry.sh",
    ),
    Shape(
        "mcount", entry=0, start=0, old=(BL.word,), new=(BL.word,), branch=BL, called="_mcount", nops=(NOP,),
        anywhere=True, library=True, adjust=0,
        text="bl _mcount behind the prologue (-pg)",
        source="gcc -pg without -mprofile-kernel",
    ),
)  # fmt: skip


def read_entry(words: U32) -> Entry:
    """What a kernel trampoline reads, from its first instruction words: the ops pointer in front of the stub it was
    called from, direct_call in the ops, the kernel's TOC in the paca.

    Source: arch/powerpc/kernel/trace/ftrace_entry.S ftrace_regs_entry (Linux 6.12, 7.2).
    """
    words = words[:READ_AHEAD]
    kernel_toc = next((word & 0xFFFC for word in words[LD_R2_R13.matches(words)].tolist()), None)
    loads = np.flatnonzero(LD_M16_R11.matches(words)).tolist()
    if not loads:
        return Entry(literal=False, kernel_toc=kernel_toc)
    near = words[loads[0] : loads[0] + 4].tolist()
    load = 0xE800_0000 | (near[0] >> 21 & 31) << 16  # ld rX,D(the register that the ops are in)
    direct = next((word & 0xFFFC for word in near[1:] if word & 0xFC1F_0003 == load), 0)
    return Entry(literal=True, direct_call=direct, kernel_toc=kernel_toc)


def far_stub(target: int, toc: int, kernel_toc: int) -> U32:
    """The five words by which the kernel's own trampolines go to `target`: relative to the TOC, hence the same at every
    address and under every relocation. An AssertionError where the target is no 2 GB neighbour of the TOC.

    Source: arch/powerpc/kernel/trace/ftrace.c ftrace_dyn_arch_init() and module_64.c (ftrace_stub_insns).
    """
    distance = target - toc
    if not -0x8000_8000 <= distance < 0x7FFF_8000:
        raise AssertionError("a trampoline out of the TOC's reach was to be written")
    addis, addi = 0x3D8C_0000 | distance + 0x8000 >> 16 & 0xFFFF, 0x398C_0000 | distance & 0xFFFF  # r12,r12,…
    return np.array([LD_R12_R13.bits | kernel_toc, addis, addi, MTCTR_R12.bits, BCTR.bits], dtype=np.uint32)


def leads_to(words: U32, toc: int) -> int | None:
    """Where a stub of `far_stub`'s words jumps to; None where the words are no such stub."""
    if len(words) < len(FAR_STUB) or not all(word.matches(words[i : i + 1])[0] for i, word in enumerate(FAR_STUB)):
        return None
    high, low = ((int(word) & 0xFFFF ^ 0x8000) - 0x8000 for word in words[1:3])
    return toc + (high << 16) + low & 0xFFFF_FFFF_FFFF_FFFF


def site_stub(call: I64, back: I64) -> U32:
    """(n, 4) words of out-of-line stubs. call: bytes from the stub's second word to where it calls; back: from its
    fourth word to behind the site. Source: arch/powerpc/kernel/trace/ftrace.c ftrace_init_ool_stub()."""
    words = np.empty((len(call), 4), dtype=np.uint32)
    words[:, 0], words[:, 2] = MFLR_R0.bits, MTLR_R0.bits
    words[:, 1], words[:, 3] = BL.encode(call), B.encode(back)
    return words


def local_entry(st_other: U8) -> U64:
    """Bytes from each function's symbol to its local entry. Source: ELFv2 ABI, 3.4.1 (STO_PPC64_LOCAL_MASK)."""
    return (np.uint64(1) << (st_other >> 5).astype(np.uint64)) >> np.uint64(2) << np.uint64(2)


def loses_toc(st_other: U8) -> Mask:
    """Functions that use r2 for anything: code relative to the program counter. Source: ELFv2 ABI 1.5, 3.4.1."""
    return np.asarray(st_other >> 5 == 1)


def skips_zero(words: U32) -> bool:
    """Whether the loop over the records, from ftrace_process_locs' words, tests a value before it adjusts it.

    The newer order loads a record into r3 and compares it with 0 at once; the older one hands it to
    ftrace_call_adjust first. Source: kernel/trace/ftrace.c, Linux commit 6eeca746fa5f ("ftrace: Test mcount_loc addr
    before calling ftrace_call_addr()").
    """
    for at in np.flatnonzero((words & np.uint32(0xFFE0_0003)) == np.uint32(0xE860_0000)):  # ld r3,D(rP)
        for word in words[at + 1 : at + 4].tolist():
            if word & 0xFC7F_FFFF == 0x2C23_0000:  # cmpdi crN,r3,0
                return True
            if word >> 26 in (16, 18, 19):  # a branch comes first
                break
    return False


ARCH = Arch(
    name="ppc64le",
    e_machine=21,
    nop=NOP.bits,
    call=BL,
    shapes=SHAPES,
    fronts=FRONTS,
    relative=22,  # R_PPC64_RELATIVE
    irelative=248,  # R_PPC64_IRELATIVE
    relaxes_to_nops=True,  # OpenPOWER ELFv2 ABI, 3.7.4 (TLS) and 3.6.1 (TOC)
    none=0,  # R_PPC64_NONE; relocate() skips every type but RELATIVE and UADDR64
    abs64=38,  # R_PPC64_ADDR64
    abs32=1,  # R_PPC64_ADDR32
    tls=(78,),  # R_PPC64_DTPREL64
    wide=(38, 44, 51, 132),  # R_PPC64_ADDR64, REL64, TOC, PCREL34
    direct_calls=(10, 116),  # R_PPC64_REL24, REL24_NOTOC
    indirect_calls=(120, 122),  # R_PPC64_PLTCALL, PLTCALL_NOTOC
    plt_slot=plt_slot,
    echoes=True,
    entries=("ftrace_caller", "ftrace_regs_caller"),
    read_entry=read_entry,
    contract="r1-r10 kept, LR := r0, return to the old LR",
    library_contract="r1, r2, r13-r31 and cr2-cr4 kept, return to LR, as functions of C do",
    judge="ftpatch.arch.ppc64le_contract",
    registers="ftpatch.arch.ppc64le_registers",
    skips_zero=skips_zero,
    local_entry=local_entry,
    loses_toc=loses_toc,
    text_reaches_init=True,
    far=FarCalls(
        stub=far_stub, size=20, reach=0x7FFF_8000, areas=("ftrace_tramp_text", "ftrace_tramp_init"), toc=".TOC.",
        start="early_setup", ready="setup_paca", early=("early_setup", "initialise_paca", "fixup_boot_paca"),
        runs_before=runs_before, leads_to=leads_to,
    ),
    site_stub=SiteStub(
        code=site_stub, literal=8, size=16, call_at=4, back_at=12,
        text=("ftrace_ool_stub_text", "ftrace_ool_stub_text_end"), init="ftrace_ool_stub_inittext",
        reserve_option="PPC_FTRACE_OUT_OF_LINE_NUM_RESERVE",
    ),
    in_registers=in_registers,
    ways_out=ways_out,
    widens=True,  # ELFv2, 2.2.3.2
    loader=LOADER,
    modules=MODULES,
    assembly=ASSEMBLY,
    programs="ftpatch.arch.ppc64le_program",
    proof="ftpatch.arch.ppc64le_proof",
    dotted_names=True,  # arch/powerpc/kernel/module_64.c dedotify()
    boot="elf",
    layout_options=(  # arch/powerpc/Makefile
        ("PPC_FTRACE_OUT_OF_LINE", ("ool", "ool-global")), ("ARCH_USING_PATCHABLE_FUNCTION_ENTRY", ("pfe2",)),
        ("MPROFILE_KERNEL", ("mprofile",)), ("DYNAMIC_FTRACE", ("mcount",)),
    ),
    max_offset=16,  # FTRACE_MCOUNT_MAX_OFFSET
    sorts_at_boot=True,  # no HAVE_BUILDTIME_MCOUNT_SORT
    jump=B,
    global_entry=SETS_R2,
    jumps=("b", "bl"),
    capstone=("CS_ARCH_PPC", "CS_MODE_64", "CS_MODE_LITTLE_ENDIAN"),
    log=LOG,
    exchangeable=(NOP, Word(0x4800_0000, 0xFC00_0000, "b, bl")),  # Power ISA 3.1, book II, 1.8
    cache_line=128,
    fillers=fillers.PPC64LE,
    padding=rb"(?:\0\0[\0\x21\x42]\x60|\0{4})*",  # nop; ori r1,r1,0; ori r2,r2,0; zeros
)  # fmt: skip
