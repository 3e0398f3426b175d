"""ppc64le object files that are linked into a module: the relocations that its loader applies, and what code must keep.

A module has one TOC pointer, which follows from the place of its own .toc; that of an object is carried as data, and
everything in it is named by its distance from that pointer, which 32 bits hold. Code that a function of another file is
called from has a nop behind the bl, where the loader puts the reload of r2.

Source: arch/powerpc/kernel/module_64.c apply_relocate_add(), my_r2(), restore_r2(), module_frob_arch_sections();
numbers from arch/powerpc/include/uapi/asm/elf.h and the 64-bit ELF V2 ABI, 3.5.3.
"""

from __future__ import annotations

from ftpatch.arch.parts import Applied, Code, Fixup, Linking, NotApplied

MFLR_R0, STD_LR = 0x7C08_02A6, 0xF801_0010
GOT, NO_GOT = "position-independent code with a GOT of its own", "compile with -fno-pic, as the kernel does"
SMALL = "a TOC of 64 KB (-mcmodel=small), which the module's is not known to be"
PCREL = "another TOC model (-mpcrel), whose functions do not keep r2"
R_PPC64_REL24, R_PPC64_REL64 = 10, 44

APPLIED = {
    10: Applied("R_PPC64_REL24", absent=True),
    26: Applied("R_PPC64_REL32", outside=False),
    38: Applied("R_PPC64_ADDR64", absent=True),
    44: Applied("R_PPC64_REL64"),
    48: Applied("R_PPC64_TOC16_LO", outside=False),
    50: Applied("R_PPC64_TOC16_HA", outside=False),
    51: Applied("R_PPC64_TOC", named=False),
    64: Applied("R_PPC64_TOC16_LO_DS", outside=False),
    109: Applied("R_PPC64_TOCSAVE", named=False),
    118: Applied("R_PPC64_ENTRY", named=False),
    250: Applied("R_PPC64_REL16_LO", outside=False),
    252: Applied("R_PPC64_REL16_HA", outside=False),
}  # fmt: skip

LINKING = Linking(
    applied=APPLIED,
    not_applied=(
        NotApplied(1, 6, "an address in less than 64 bits", "use pointers"),
        NotApplied(7, 9, "a branch of 16 KB to another section", "compile with -mcmodel=medium"),
        NotApplied(11, 13, "a conditional branch to another section", "compile without -ffunction-sections"),
        NotApplied(14, 17, GOT, NO_GOT),
        NotApplied(19, 22, "what only linked files have", "give the object as the compiler made it"),
        NotApplied(27, 31, GOT, NO_GOT),
        NotApplied(39, 42, "an address in immediates", "compile with -mcmodel=medium or large"),
        NotApplied(45, 46, GOT, NO_GOT),
        NotApplied(47, 47, SMALL, "compile with -mcmodel=large, as the kernel does"),
        NotApplied(52, 62, GOT, NO_GOT),
        NotApplied(63, 63, SMALL, "compile with -mcmodel=large, as the kernel does"),
        NotApplied(65, 66, GOT, NO_GOT),
        NotApplied(67, 108, "thread-local variables, which a kernel does not have", "use per-cpu variables"),
        NotApplied(116, 117, PCREL, "compile with -mno-pcrel"),
        NotApplied(119, 122, "calls through a PLT (-fno-plt)", "compile without -fno-plt and with -fno-pic"),
        NotApplied(123, 151, PCREL, "compile with -mno-pcrel"),
        NotApplied(247, 248, "functions that are chosen when they are first called (IFUNC)", "call one by name"),
    ),
    nothing=(0,),
    branches=(R_PPC64_REL24,),
    entry=Code(()),
    entry_pair=Code(
        (
            0, 0,         # .TOC. minus the address of what follows
            0xE84C_FFF8,  # ld  r2,-8(r12)
            0x7C42_6214,  # add r2,r2,r12
        ),
        8, (Fixup(0, R_PPC64_REL64, "toc", -8),),
    ),
    pair_other=3 << 5,  # the local entry is two instructions behind
    repeated=(MFLR_R0, STD_LR),
    user_registers=(
        (0xC000_0000, 0xF000_0000),  # lfs, lfd
        # single precision; VSX. Double precision (0xFC...) looks like the distances in a jump table.
        (0xEC00_0000, 0xFC00_0000), (0xF000_0000, 0xFC00_0000),
        (0x7C00_00CE, 0xFC00_07FF), (0x7C00_0698, 0xFC00_07FE), (0x7C00_0166, 0xFC00_07FE),  # lvx, lxvd2x, mtvsrd
        (0xF400_0001, 0xFC00_0007),  # lxv
    ),
    integers_only="-msoft-float -mno-altivec -mno-vsx",
    abi_mask=3,
    abi=(0, 2),  # 0: an object without code that tells
    own_sections=(".stubs",),
    no_link="compile with -fno-optimize-sibling-calls",
    small_code="declare it extern, and not static or hidden; compile with -mcmodel=large, as the kernel does",
    appended=(
        "__ftr_fixup", "__mmu_ftr_fixup", "__fw_ftr_fixup", "__lwsync_fixup", "__barrier_nospec_fixup",
        "__spec_barrier_fixup",
    ),
)  # fmt: skip
