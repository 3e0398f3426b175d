"""ppc64le modules: the code that a patch brings along, because the loader offers no name for its own trampolines.

A module has a TOC of its own, and a site cannot know whose TOC r2 holds: functions without a global entry are called
with anybody's. So the hook's stub computes the module's TOC itself, keeps the incoming one in its own frame, and calls
by a `bl` with a NOP behind it, which the loader turns into the reload of r2 where the hook lives elsewhere.

A redirected function's replacement of another file is called, not jumped to: the loader's stub for it writes r2 to
24(r1), and that word of the caller's frame may hold another TOC already, which the caller loads again.

Source: arch/powerpc/kernel/module_64.c apply_relocate_add(), restore_r2(); ELFv2 ABI, 2.2.2 (stack frame), 3.5.3.
"""

from __future__ import annotations

from collections.abc import Container

from ftpatch.arch.parts import Assembly, Code, Fixup, Loader, ModuleEntries, Modules
from ftpatch.arch.ppc64le_link import LINKING
from ftpatch.arrays import I64, U64, Mask

R_PPC64_REL24, R_PPC64_REL64, R_PPC64_REL16_LO, R_PPC64_REL16_HA = 10, 44, 250, 252

OPS_FUNCTION = Code((
    0x4E80_0020,  # blr
))  # fmt: skip

TOC_FROM = 68  # bytes from the TOC word to the address that the code finds out about itself

SAVE = (
    0, 0,         # .TOC. minus the address behind the bcl
    0xF801_0010,  # std   r0,16(r1)      r0: the caller's return address
    0x7C08_02A6,  # mflr  r0
    0xF821_FFE1,  # stdu  r1,-32(r1)     a frame for the patched function, so that a backtrace shows it
    0xF801_0010,  # std   r0,16(r1)      back into the function
    0xF821_FF71,  # stdu  r1,-144(r1)
    0xF841_0028,  # std   r2,40(r1)
    0xF861_0030,  # std   r3,48(r1)
    0xF881_0038,  # std   r4,56(r1)
    0xF8A1_0040,  # std   r5,64(r1)
    0xF8C1_0048,  # std   r6,72(r1)
    0xF8E1_0050,  # std   r7,80(r1)
    0xF901_0058,  # std   r8,88(r1)
    0xF921_0060,  # std   r9,96(r1)
    0xF941_0068,  # std   r10,104(r1)
    0x429F_0005,  # bcl   20,31,$+4
    0x7D88_02A6,  # mflr  r12
    0xE84C_FFBC,  # ld    r2,-68(r12)
    0x7C42_6214,  # add   r2,r2,r12
)  # fmt: skip
IN_LINE = (
    0xE861_00A0,  # ld    r3,160(r1)     first argument: the call's address, as ftrace counts it
    0x3863_FFFC,  # addi  r3,r3,-4
)
OUT_OF_LINE = (
    0xE861_00A0,  # ld    r3,160(r1)     behind the call in the site's stub; one word further stands
    0x8083_0004,  # lwz   r4,4(r3)       the branch behind the site, which tells where the site is
    0x5484_302E,  # slwi  r4,r4,6
    0x7C84_07B4,  # extsw r4,r4
    0x7C84_3674,  # sradi r4,r4,6
    0x7C63_2214,  # add   r3,r3,r4
    0x3803_0004,  # addi  r0,r3,4        return there and not through the site's stub, with the same LR, so that
    0xF801_00A0,  # std   r0,160(r1)     a backtrace shows the function itself
)
CALL = (
    0xE881_00C0,  # ld    r4,192(r1)     second argument: where the function was called from
    0x4800_0001,  # bl    hook
    0x6000_0000,  # nop
    0xE841_0028,  # ld    r2,40(r1)
    0xE861_0030,  # ld    r3,48(r1)
    0xE881_0038,  # ld    r4,56(r1)
    0xE8A1_0040,  # ld    r5,64(r1)
    0xE8C1_0048,  # ld    r6,72(r1)
    0xE8E1_0050,  # ld    r7,80(r1)
    0xE901_0058,  # ld    r8,88(r1)
    0xE921_0060,  # ld    r9,96(r1)
    0xE941_0068,  # ld    r10,104(r1)
    0x3821_0090,  # addi  r1,r1,144
    0xE801_0010,  # ld    r0,16(r1)
    0x7C09_03A6,  # mtctr r0
    0x3821_0020,  # addi  r1,r1,32
    0xE801_0010,  # ld    r0,16(r1)
    0x7C08_03A6,  # mtlr  r0
    0x4E80_0420,  # bctr
)


def hook(out_of_line: bool, sections: Container[str]) -> Code:
    """The stub that calls a C function as hook(site, caller); code is the same in all modules."""
    front = SAVE + (OUT_OF_LINE if out_of_line else IN_LINE)
    toc = Fixup(0, R_PPC64_REL64, "toc", -TOC_FROM)
    return Code(front + CALL, 8, (toc, Fixup(4 * (len(front) + 1), R_PPC64_REL24, "hook")))


# The addends of a pair of high and low half count from the halves to the address that `bcl` leaves in LR.
ENTER = Code(
    (
        0x7C08_02A6,  # mflr  r0
        0x429F_0005,  # bcl   20,31,$+4
        0x7D88_02A6,  # mflr  r12
        0x7C08_03A6,  # mtlr  r0
        0x3D8C_0000,  # addis r12,r12,replacement@ha
        0x398C_0000,  # addi  r12,r12,replacement@l
        0x7D89_03A6,  # mtctr r12
        0x4E80_0420,  # bctr                           into the global entry, which computes the TOC from r12
    ),
    fixups=(Fixup(16, R_PPC64_REL16_HA, "replacement", 8), Fixup(20, R_PPC64_REL16_LO, "replacement", 12)),
)
FRAME = (
    0x7C08_02A6,  # mflr  r0
    0xF801_0010,  # std   r0,16(r1)
    0xF821_FFD1,  # stdu  r1,-48(r1)   24(r1) is ours now: the loader's stub keeps the TOC there
    0xF841_0028,  # std   r2,40(r1)    the TOC that the caller has
)
OWN_TOC = (
    0x429F_0005,  # bcl   20,31,$+4
    0x7D88_02A6,  # mflr  r12
    0x3C4C_0000,  # addis r2,r12,.TOC.@ha
    0x3842_0000,  # addi  r2,r2,.TOC.@l
)
CALL_AND_RETURN = (
    0x4800_0001,  # bl    replacement
    0x6000_0000,  # nop                which the loader turns into ld r2,24(r1)
    0xE841_0028,  # ld    r2,40(r1)
    0x3821_0030,  # addi  r1,r1,48
    0xE801_0010,  # ld    r0,16(r1)
    0x7C08_03A6,  # mtlr  r0
    0x4E80_0020,  # blr
)
CALL_ELSEWHERE = Code(FRAME + CALL_AND_RETURN, fixups=(Fixup(16, R_PPC64_REL24, "replacement"),))
CALL_WITH_TOC = Code(
    FRAME + OWN_TOC + CALL_AND_RETURN,
    fixups=(
        Fixup(24, R_PPC64_REL16_HA, "toc", 4), Fixup(28, R_PPC64_REL16_LO, "toc", 8),
        Fixup(32, R_PPC64_REL24, "replacement"),
    ),
)  # fmt: skip

MODULES = Modules(
    branch=R_PPC64_REL24, trampolines=(), jump=0, ops_function=OPS_FUNCTION, hook=hook, jump_type=R_PPC64_REL24,
    toc=".TOC.", entries=ModuleEntries(ENTER, CALL_ELSEWHERE, CALL_WITH_TOC), linking=LINKING,
)  # fmt: skip


def stubs_for(info: U64, addend: I64, same_section: Mask) -> int:
    """Stubs that the loader reserves for the calls of one section: one per target and addend.

    Source: arch/powerpc/kernel/module_64.c get_stubs_size(), count_relocs()."""
    return len(set(zip(info.tolist(), addend.tolist(), strict=True)))


LOADER = Loader(
    calls=(R_PPC64_REL24,),
    stubs_for=stubs_for,
    always=(".stubs",),
    stub=40,  # sizeof(struct ppc64_stub_entry)
    ftrace=2,
    slot=24,  # sizeof(struct ftrace_ool_stub), of kernels with an ops pointer in it
)

ASSEMBLY = Assembly(
    keystone=("KS_ARCH_PPC", "KS_MODE_PPC64"),
    comment=r"//.*|#.*",
    registers=r"%?cr[0-7]|lt|gt|eq|so|un",
    branches=r"b(?:c|eq|ne|[lg][te]|so|ns|un|nu|[tf]|dn?z(?:[tf]|eq|ne)?)?l?a?[-+]?",
    jump="b",
    call="bl",
    jump_type=R_PPC64_REL24,
    number_prefix=r"(?<![\w.$%])(?:%?[rR](?=\d+\b)|%(?=\w))",
    numbered=r"[rR]\d+",
    masked="rlw",
)
