"""arm64 object files that are linked into a module: the relocations that its loader applies, and what code must keep.

Code for modules is compiled without PIC: addresses are formed by adrp and a low part, which span 4 GB, and calls by bl,
for which the loader has its PLT. A GOT is something that only a linker makes.

Source: arch/arm64/kernel/module.c apply_relocate_add(); numbers from arch/arm64/include/asm/elf.h and the ELF ABI of
the Arm 64-bit architecture (AAELF64), 5.7.
"""

from __future__ import annotations

from ftpatch.arch.parts import Applied, Code, Linking, NotApplied, Protection

BTI_C, BTI_J, BTI_JC, PACIASP, PACIBSP = 0xD503_245F, 0xD503_249F, 0xD503_24DF, 0xD503_233F, 0xD503_237F
PIC = "position-independent code, which needs a GOT"
NO_PIC = "compile with -fno-pic, as the kernel does"

APPLIED = {
    257: Applied("R_AARCH64_ABS64", absent=True),
    260: Applied("R_AARCH64_PREL64"),
    261: Applied("R_AARCH64_PREL32"),
    264: Applied("R_AARCH64_MOVW_UABS_G0_NC", absent=True),
    266: Applied("R_AARCH64_MOVW_UABS_G1_NC", absent=True),
    268: Applied("R_AARCH64_MOVW_UABS_G2_NC", absent=True),
    269: Applied("R_AARCH64_MOVW_UABS_G3", absent=True),
    273: Applied("R_AARCH64_LD_PREL_LO19", reach=1 << 20),
    274: Applied("R_AARCH64_ADR_PREL_LO21", reach=1 << 20),
    275: Applied("R_AARCH64_ADR_PREL_PG_HI21"),
    276: Applied("R_AARCH64_ADR_PREL_PG_HI21_NC"),
    277: Applied("R_AARCH64_ADD_ABS_LO12_NC"),
    278: Applied("R_AARCH64_LDST8_ABS_LO12_NC"),
    279: Applied("R_AARCH64_TSTBR14", reach=1 << 15),
    280: Applied("R_AARCH64_CONDBR19", reach=1 << 20),
    282: Applied("R_AARCH64_JUMP26", absent=True),
    283: Applied("R_AARCH64_CALL26", absent=True),
    284: Applied("R_AARCH64_LDST16_ABS_LO12_NC"),
    285: Applied("R_AARCH64_LDST32_ABS_LO12_NC"),
    286: Applied("R_AARCH64_LDST64_ABS_LO12_NC"),
    299: Applied("R_AARCH64_LDST128_ABS_LO12_NC"),
}  # fmt: skip

LINKING = Linking(
    applied=APPLIED,
    not_applied=(
        NotApplied(258, 259, "an address in less than 64 bits", "use pointers"),
        NotApplied(262, 262, "a distance in 16 bits", "use 32 bits at least"),
        NotApplied(263, 272, "an address in less than 64 bits", "compile with -mcmodel=small"),
        NotApplied(287, 293, "distances that are put together by movw", "compile with -mcmodel=small"),
        NotApplied(300, 313, PIC, NO_PIC),
        NotApplied(314, 315, PIC, NO_PIC),
        NotApplied(512, 573, "thread-local variables, which a kernel does not have", "use per-cpu variables"),
        NotApplied(1024, 1040, "what only linked files have", "give the object as the compiler made it"),
    ),
    nothing=(0, 256),
    branches=(279, 280, 282, 283),
    entry=Code((BTI_C,)),  # it may be called by pointer; without BTI it is a hint that does nothing
    landing=(BTI_C, BTI_J, BTI_JC, PACIASP, PACIBSP),
    pads=Protection((BTI_C, BTI_J, BTI_JC), "begin with bti", "-mbranch-protection=standard"),
    protections=(
        Protection((PACIASP, PACIBSP), "sign their return address", "-mbranch-protection=pac-ret"),
        # str x30, [x18], #8; x18 is 0 where the kernel makes no such stack
        Protection(
            (0xF800_865E,), "keep their return address on the shadow call stack", "-fsanitize=shadow-call-stack", True
        ),
    ),
    saves=(
        (0xA980_7BFD, 0xFFC0_7FFF),  # stp x29, x30, [sp, #-n]!
        (0xA900_7BFD, 0xFFC0_7FFF),  # stp x29, x30, [sp, #n]
        (0xF800_0FFE, 0xFFE0_0FFF),  # str x30, [sp, #-n]!
    ),
    # Arm ARM C4.1: data processing (scalar floating-point, advanced SIMD); loads of SIMD&FP registers have bit 26 set
    user_registers=((0x0E00_0000, 0x0E00_0000), (0x0C00_0000, 0x0E00_0000)),
    integers_only="-mgeneral-regs-only",
    own_sections=(".plt", ".init.plt", ".text.ftrace_trampoline", ".init.text.ftrace_trampoline"),
    appended=(".altinstructions",),
    small_code="compile without -ffunction-sections and with -mcmodel=small",
)
