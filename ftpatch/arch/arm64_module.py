"""arm64 modules: the loader's own jump to ftrace_caller, and the code that a patch may bring along.

The loader makes room for jumps in `.text.ftrace_trampoline` (and `.init.text.ftrace_trampoline`, where that exists) and
fills them before any code of the module runs, whatever stands there in the file. A call relocation to a symbol at
offset 0 of that section therefore reaches ftrace_caller, which is not exported, at every distance.

    [0] adrp x16, page ; add x16, x16, #lo12 ; br x16      ftrace_caller
    [1] the same                                           ftrace_regs_caller, in kernels that have that entry

Source: arch/arm64/kernel/module.c module_init_ftrace_plt(), arch/arm64/kernel/ftrace.c get_ftrace_plt() (6.1, 6.12).
"""

from __future__ import annotations

from collections.abc import Container

from ftpatch.arch.arm64_link import LINKING
from ftpatch.arch.parts import Assembly, Code, Fixup, Loader, Modules
from ftpatch.arrays import I64, U64, Mask, distinct

R_AARCH64_JUMP26, R_AARCH64_CALL26 = 282, 283
TRAMPOLINES = (".text.ftrace_trampoline", ".init.text.ftrace_trampoline")

OPS_FUNCTION = Code((
    0xD503_245F,  # bti c
    0xD65F_03C0,  # ret
))  # fmt: skip

# Two frame records, the caller's and the patched function's, so that a backtrace from the hook shows both.
HOOK = Code(
    (
        0xD503_245F,  # bti  c
        0xA9BF_27FD,  # stp  x29, x9, [sp, #-16]!      x9: the caller's return address
        0x9100_03FD,  # mov  x29, sp
        0xA9BA_7BFD,  # stp  x29, x30, [sp, #-96]!     x30: back into the function
        0x9100_03FD,  # mov  x29, sp
        0xA901_07E0,  # stp  x0, x1, [sp, #16]
        0xA902_0FE2,  # stp  x2, x3, [sp, #32]
        0xA903_17E4,  # stp  x4, x5, [sp, #48]
        0xA904_1FE6,  # stp  x6, x7, [sp, #64]
        0xF900_2BE8,  # str  x8, [sp, #80]
        0xD100_13C0,  # sub  x0, x30, #4               first argument: the call's address, as ftrace counts it
        0xAA09_03E1,  # mov  x1, x9                    second argument: where the function was called from
        0x9400_0000,  # bl   hook
        0xA941_07E0,  # ldp  x0, x1, [sp, #16]
        0xA942_0FE2,  # ldp  x2, x3, [sp, #32]
        0xA943_17E4,  # ldp  x4, x5, [sp, #48]
        0xA944_1FE6,  # ldp  x6, x7, [sp, #64]
        0xF940_2BE8,  # ldr  x8, [sp, #80]
        0xA8C6_27FD,  # ldp  x29, x9, [sp], #96
        0xA8C1_7BFD,  # ldp  x29, x30, [sp], #16
        0xD65F_0120,  # ret  x9
    ),
    fixups=(Fixup(48, R_AARCH64_CALL26, "hook"),),
)


def hook(out_of_line: bool, sections: Container[str]) -> Code:
    """The stub that calls a C function; sites are never out of line here, and code is the same in all modules."""
    assert not out_of_line
    return HOOK


MODULES = Modules(
    R_AARCH64_CALL26, TRAMPOLINES, jump=12, ops_function=OPS_FUNCTION, hook=hook, jump_type=R_AARCH64_JUMP26,
    linking=LINKING,
)  # fmt: skip


def stubs_for(info: U64, addend: I64, same_section: Mask) -> int:
    """PLT entries that the loader reserves for the calls of one section: one per target elsewhere, and one for every
    call with an addend. Source: arch/arm64/kernel/module-plts.c count_plts()."""
    info, addend = info[~same_section], addend[~same_section]
    return int((addend != 0).sum()) + len(distinct(info[addend == 0]))


LOADER = Loader(
    calls=(R_AARCH64_JUMP26, R_AARCH64_CALL26), stubs_for=stubs_for, from_code_only=True, init_apart=True,
    always=(".plt", ".init.plt"), traced=TRAMPOLINES, stub=12,
)  # fmt: skip

ASSEMBLY = Assembly(
    keystone=("KS_ARCH_ARM64", "KS_MODE_LITTLE_ENDIAN"),
    comment=r"//.*|^\s*#.*",
    registers=r"[wx]\d+|w?sp|[wx]zr|lr|fp|[lra]s[lr]|ror|[su]xt[bhwx]|eq|ne|cs|hs|cc|lo|mi|pl|v[sc]|hi|ls|g[et]|l[et]"
    r"|al|j?c|j|(?:ish|osh|nsh)(?:ld|st)?|sy|ld|st|p(?:ld|st)l[123](?:keep|strm)|nzcv|daif(?:set|clr)?|\w+_el[0-3]",
    branches=r"b|bl|b\.\w+|cbn?z|tbn?z", jump="b", call="bl", jump_type=R_AARCH64_JUMP26,
    leads=("adr", "ldr", "ldrsw"),
    hints={
        "bti": "hint #32", "bti c": "hint #34", "bti j": "hint #36", "bti jc": "hint #38", "xpaclri": "hint #7",
        "paciasp": "hint #25", "autiasp": "hint #29", "pacibsp": "hint #27", "autibsp": "hint #31",
    },
)  # fmt: skip
