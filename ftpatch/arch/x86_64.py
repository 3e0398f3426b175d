"""x86_64: how its compilers lay out patch sites, and how its kernels use them.

Instructions have any length and lie at any address, so a site is bytes and not words. A traced function begins with a
call of five bytes, or with the NOP that the kernel or a build tool makes of it:

    e8 rel32                call __fentry__, which returns at once       gcc -pg -mfentry
    0f 1f 44 00 00          nopl 0x0(%rax,%rax,1)                        -mnop-mcount, objtool --mnop

    f3 0f 1e fa             endbr64, where the function may be called indirectly and the kernel is built for IBT
    call or NOP  ◄─ record  symbol = record − 4 behind an endbr64, else record

An enabled site calls ftrace_caller instead. The caller's return address lies on the stack above the one that the call
pushes, so that nothing has to be saved in front of it. ftrace_caller keeps every register and returns behind the call.

Programs have more kinds of sites, which x86_64_shapes.py lists.

`-fpatchable-function-entry=16,16` puts padding in front of functions, for call thunks and FineIBT. Its section
`__patchable_function_entries` names that padding, which ftrace never looks at: the records are in `__mcount_loc`.
Encodings: Intel SDM, volume 2; AMD64 APM, volume 3.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch import Arch, fillers
from ftpatch.arch.code_lists import CodeList
from ftpatch.arch.parts import Entry
from ftpatch.arch.shape import ANY, Branch, Word, begins_with
from ftpatch.arch.static_call_forms import AddressLoad, StaticCallForm, StaticCalls
from ftpatch.arch.x86_64_fronts import FRONTS
from ftpatch.arch.x86_64_log import LOG
from ftpatch.arch.x86_64_module import LOADER, MODULES
from ftpatch.arch.x86_64_shapes import CALL, CALL_BYTES, ENDBR64, JMP, NOP5, SHAPES, units
from ftpatch.arrays import U32, U64

JMP_SLOT = Branch(Word(0xFF, 0xFF, "jmp"), 32, lsb=16, scale=1, size=6, unit=1, base=6)
JMP_BYTES = (JMP.word, ANY, ANY, ANY, ANY)
JCC = Branch(Word(0x0F, 0xFF, "jcc"), 32, lsb=16, scale=1, size=6, unit=1, base=6)
JCC_BYTES = (JCC.word, Word(0x80, 0xF0), ANY, ANY, ANY, ANY)


# Source: arch/x86/kernel/static_call.c __static_call_transform() (Linux 6.12).
STATIC_CALL_SITES = (
    StaticCallForm("call", CALL_BYTES, CALL),
    StaticCallForm("tail", JMP_BYTES, JMP),
    StaticCallForm("conditional", JCC_BYTES, JCC),
    StaticCallForm("nop", units(NOP5)),
    StaticCallForm("return0", units(bytes.fromhex("2e2e2e31c0"))),  # cs cs cs xor %eax,%eax
    StaticCallForm("return", units(bytes.fromhex("c3cccccccc"))),  # ret; int3 …
)
# Source: arch/x86/include/asm/static_call.h ARCH_DEFINE_STATIC_CALL_TRAMP() and its kin (Linux 6.1, 6.12).
STATIC_CALL_TRAMPOLINES = (
    StaticCallForm("jump", JMP_BYTES, JMP),
    StaticCallForm("null", (Word(0xC3, 0xFF, "ret"), Word(0xCC, 0xFF, "int3"), ANY, ANY, ANY)),
    StaticCallForm("return0", (*units(bytes.fromhex("31c0c3")), ANY, ANY)),  # xor %eax,%eax; ret
)


def plt_slot(code: U32, va: U64, got: int) -> U64:
    """Where the word is that each stub jumps through; 0 for what is no such stub. code: (n, bytes) of stubs at va.

    Source: binutils' bfd/elf64-x86-64.c: `jmp *slot(%rip)`, behind an endbr64 or a `bnd` or both.
    """
    slots = np.zeros(len(va), dtype=np.uint64)
    for front in (b"", ENDBR64, b"\xf2", ENDBR64 + b"\xf2"):
        size = len(front) + JMP_SLOT.size
        jumps = begins_with(code, (units(front + b"\xff\x25"),))
        distance = JMP_SLOT.decode(code[:, len(front) : size]).view(np.uint64)
        slots = np.where(jumps, va + np.uint64(len(front)) + distance, slots)
    return slots


def read_entry(words: U32) -> Entry:
    """ftrace_caller reads its ops from its own copy of the trampoline: nothing at the site names them.

    Source: arch/x86/kernel/ftrace_64.S SYM_FUNC_START(ftrace_caller), create_trampoline() (Linux 6.12).
    """
    return Entry(literal=False)


FIRST_ARGUMENT = (
    AddressLoad(bytes.fromhex("48c7c7"), 7, relative=False),  # mov $imm32,%rdi
    AddressLoad(bytes.fromhex("488d3d"), 7, relative=True),  # lea disp32(%rip),%rdi
)

# Source: arch/x86/kernel/callthunks.c patch_call(); arch/x86/kernel/alternative.c apply_returns(), apply_retpolines(),
# alternatives_smp_unlock(); kernel/static_call_inline.c; include/linux/jump_label.h.
CODE_LISTS = (
    CodeList(
        ".call_sites", 4, "a call of the callee's padding, which counts the depth of calls",
        harmless="where the processor needs it (retbleed=stuff) such a call enters the padding in front of the callee, "
        "which counts the depth of calls and goes on into it",
    ),
    CodeList(".return_sites", 4, "the return that the processor needs"),
    CodeList(".retpoline_sites", 4, "an indirect call or jump"),
    CodeList(".smp_locks", 4, "a lock prefix, or none where there is one processor"),
    CodeList("static_call_sites", 8, "a call of what the static call's key says"),
    CodeList("__jump_table", 16, "a jump or a NOP, as the static key says"),
)  # fmt: skip

ARCH = Arch(
    name="x86_64",
    e_machine=62,
    short_nop=0x90,
    nop=int.from_bytes(NOP5),
    call=CALL,
    shapes=SHAPES,
    fronts=FRONTS,
    front_nop=0x90,
    unwinds_from_entry=True,
    relative=8,  # R_X86_64_RELATIVE
    irelative=37,  # R_X86_64_IRELATIVE
    none=0,  # R_X86_64_NONE
    abs64=1,  # R_X86_64_64
    abs32=10,  # R_X86_64_32
    wide=(1, 8, 24),  # R_X86_64_64, RELATIVE, PC64
    direct_calls=(2, 4),  # R_X86_64_PC32, PLT32
    indirect_calls=(1, 9, 41),  # R_X86_64_64 in a movabs, GOTPCREL, GOTPCRELX
    plt_slot=plt_slot,
    pointer_options="-fpic, -mcmodel=large",
    tls=(17,),  # R_X86_64_DTPOFF64
    entries=("ftrace_caller", "ftrace_regs_caller"),
    read_entry=read_entry,
    max_offset=4,  # FTRACE_MCOUNT_MAX_OFFSET: the endbr64; 0 without CONFIG_X86_KERNEL_IBT, where no record is at 1..4
    contract="all registers but r10 and r11 kept, returns behind the call",
    judge="ftpatch.arch.x86_64_contract",
    registers="ftpatch.arch.x86_64_registers",
    listed=(1, 10, 11),  # R_X86_64_64, 32, 32S
    code_lists=CODE_LISTS,
    core_record=True,  # kernel/trace/ftrace.c ftrace_free_mem(), which looks in front of an empty list
    padded=True,
    padding_names=("__pfx_", "__cfi_"),  # objtool's; clang's -fsanitize=kcfi
    log=LOG,
    jump=JMP,
    # int3 behind the jump of a thunk; ud2; ud1 and "SCT", the marks of a static call's trampoline
    ends=(units(b"\xcc"), units(b"\x0f\x0b"), units(b"\x0f\xb9"), units(b"SCT")),
    # ret, or jmp to the return thunk: kernel/trace/trace.h has functions that are empty without their options
    idle=(units(b"\xc3"), (JMP.word,), (*units(ENDBR64), *units(b"\xc3")), (*units(ENDBR64), JMP.word)),
    jumps=("jmp", "call"),
    capstone=("CS_ARCH_X86", "CS_MODE_64"),
    cache_line=64,
    # nopl and nopw of every length; nop; int3
    fillers=fillers.X86_64,
    padding=rb"(?:\x66*\x2e?\x0f\x1f(?:\0|\x40.|\x44..|\x80....|\x84.....)|\x66*\x90|\xcc)*",
    alternatives=((14, 12), (12, 10)),  # struct alt_instr of arch/x86/include/asm/alternative.h, Linux 6.3 and before
    short_keys=((Word(0xEB, 0xFF), ANY), units(b"\x66\x90")),  # arch/x86/kernel/jump_label.c, Linux 5.14
    boot="elf",  # by its PVH note: Documentation/arch/x86/boot.rst, include/xen/interface/elfnote.h
    static_calls=StaticCalls(
        STATIC_CALL_SITES, STATIC_CALL_TRAMPOLINES, size=8, signature=units(bytes.fromhex("0fb9cc")), signature_at=5,
        thunk="__x86_return_thunk", distance=2,  # R_X86_64_PC32
        first_argument=FIRST_ARGUMENT,
        register_jumps="__x86_indirect_",
        null=bytes.fromhex("c3cccccccc"),  # ret; int3 …: __static_call_transform() has it as retinsn
        return_sites=("__return_sites", "__return_sites_end", ".return_sites"),
    ),
    loader=LOADER,
    modules=MODULES,
    programs="ftpatch.arch.x86_64_program",
    proof="ftpatch.arch.x86_64_proof",
    layout_options=(  # arch/x86/Kconfig
        ("HAVE_FENTRY", ("fentry",)), ("DYNAMIC_FTRACE", ("mcount",)),
    ),
)  # fmt: skip
