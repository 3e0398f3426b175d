"""The patch sites of x86_64, as bytes: those of kernels, and those that only programs and shared objects have.

A kernel's record names `call __fentry__` or a NOP of five bytes. Programs are built with more options:

    90 90 90 90 90 …        gcc -fpatchable-function-entry=N: N NOPs of one byte; five of them can hold a call
    0f 1f 44 00 08          clang =5: one NOP of N bytes, from 11 on several, the first as long as the processor
    2e 66 0f 1f 84 …        likes them (-march=…): 7, 10 or 15 bytes. A call would leave its tail behind, so that
                            NOPs fill what is in front of the call
    ff 15 rel32             gcc -pg in code for a PIE or shared object: call *__fentry__@GOTPCREL(%rip)
    67 e8 rel32             what a linker makes of that where the function is in the same file (static programs)

Encodings: Intel SDM, volume 2, NOP and CALL; System V ABI, AMD64 supplement, B.2 (relaxed GOTPCRELX).
Source: gcc's config/i386/i386.cc x86_function_profiler(); LLVM's X86MCInstLower.cpp emitNop().
"""

from __future__ import annotations

from ftpatch.arch.shape import ANY, Branch, Shape, Word

NOP5 = bytes.fromhex("0f1f440000")
ENDBR64 = bytes.fromhex("f30f1efa")

CALL = Branch(Word(0xE8, 0xFF, "call"), 32, lsb=8, scale=1, size=5, unit=1, base=5)
JMP = Branch(Word(0xE9, 0xFF, "jmp"), 32, lsb=8, scale=1, size=5, unit=1, base=5)
CALL_SLOT = Branch(Word(0xFF, 0xFF, "call"), 32, lsb=16, scale=1, size=6, unit=1, base=6)
REST = (ANY, ANY, ANY, ANY)  # the distance
CALL_BYTES = (CALL.word, *REST)
ADDR32 = Word(0x67, 0xFF, "addr32")  # a prefix without an effect
SLOT_CALL_BYTES, RELAXED_BYTES = (CALL_SLOT.word, Word(0x15, 0xFF), *REST), (ADDR32, *CALL_BYTES)


def units(code: bytes) -> tuple[Word, ...]:
    """Each byte as what is looked for."""
    return tuple(Word(byte, 0xFF) for byte in code)


# the NOP of each length, without what it adds to its address: the SDM's table of recommended NOPs, and longer ones
NOPS = {1: "90", 2: "6690", 3: "0f1f00", 4: "0f1f4000", 5: "0f1f440000", 6: "660f1f440000", 7: "0f1f8000000000",
        8: "0f1f840000000000", 9: "660f1f840000000000", 10: "2e660f1f840000000000"}  # fmt: skip
# clang's: they add 8 or 0x200
LONG_NOPS = {
    5: "0f1f440008", 6: "660f1f440008", 7: "0f1f8000020000", 8: "0f1f840000020000", 9: "660f1f840000020000",
    **{10 + more: "66" * more + "2e660f1f840000020000" for more in range(6)},
}  # fmt: skip
NOP6 = units(bytes.fromhex(NOPS[6]))
BEHIND_ENDBR64 = "an endbr64 in front of the site"


def _long_nop(size: int) -> Shape:
    """The sites whose first NOP has so many bytes; where all of them are gcc's or shorter, another layout is first."""
    front = NOPS[size - CALL.size] if size > CALL.size else ""
    return Shape(
        f"nop{size}", entry=0, start=0, old=units(bytes.fromhex(LONG_NOPS[size])), also=(units(b"\x90" * size),),
        new=(*units(bytes.fromhex(front)), *CALL_BYTES), branch=CALL, skips=(units(ENDBR64),), skip_at=-4,
        program=True,
        text=f"a NOP of {size} bytes at the entry (clang -fpatchable-function-entry=N)",
        skip_text=BEHIND_ENDBR64, source="LLVM's X86MCInstLower.cpp emitNop()",
    )  # fmt: skip


SHAPES = (
    Shape(
        "fentry", entry=0, start=0, old=CALL_BYTES, also=(units(NOP5),), new=CALL_BYTES, branch=CALL,
        called="__fentry__", nops=units(NOP5), straight=True, skips=(units(ENDBR64),), skip_at=-4, adjust=0,
        text="call __fentry__, or a NOP of five bytes, at the entry (-pg -mfentry)",
        skip_text=BEHIND_ENDBR64,
        source="arch/x86/kernel/ftrace.c ftrace_make_nop(), gcc -pg -mfentry; Debian 6.12",
    ),
    Shape(
        "pfe5", entry=0, start=0, old=units(b"\x90" * 5), new=CALL_BYTES, branch=CALL, skips=(units(ENDBR64),),
        skip_at=-4, program=True,
        text="five or more NOPs of one byte at the entry (gcc -fpatchable-function-entry=N)", skip_text=BEHIND_ENDBR64,
        source="gcc's default_print_patchable_function_entry()",
    ),
    *(_long_nop(size) for size in sorted(LONG_NOPS, reverse=True)),
    Shape(
        "fentry-got", entry=0, start=0, old=SLOT_CALL_BYTES, also=(RELAXED_BYTES,), new=RELAXED_BYTES, branch=CALL,
        called="__fentry__", nops=NOP6, through=CALL_SLOT, skips=(units(ENDBR64),), skip_at=-4, program=True,
        text="call *__fentry__@GOTPCREL(%rip), or addr32 call __fentry__, at the entry (-pg -mfentry of a program)",
        skip_text=BEHIND_ENDBR64,
        source="gcc's x86_function_profiler(); ld's elf_x86_64_convert_load_reloc()",
    ),
    Shape(
        "pfe-short", entry=0, start=0, old=(Word(0x90, 0xFF, "nop"), ANY), also=(units(b"\x66\x90"),
        units(b"\x0f\x1f")), new=(ANY, ANY), branch=CALL, skips=(units(ENDBR64),), skip_at=-4, program=True,
        refusal="some sites have fewer than the five bytes of NOPs that a call takes: "
        "-fpatchable-function-entry=5 is enough",
        text="fewer than five bytes of NOPs at the entry (-fpatchable-function-entry=1 … 4)",
        skip_text=BEHIND_ENDBR64, source="gcc's default_print_patchable_function_entry(); LLVM's emitNop()",
    ),
    Shape(
        "mcount", entry=0, start=0, old=CALL_BYTES, also=(units(NOP5),), new=CALL_BYTES, branch=CALL, called="mcount",
        nops=units(NOP5), straight=True, anywhere=True, adjust=0,
        text="call mcount behind the prologue (-pg)",
        source="scripts/recordmcount.c, gcc -pg without -mfentry (kernels before 3.19)",
    ),
    Shape(
        "mcount-got", entry=0, start=0, old=SLOT_CALL_BYTES, also=(RELAXED_BYTES,), new=RELAXED_BYTES, branch=CALL,
        called="mcount", nops=NOP6, through=CALL_SLOT, anywhere=True, program=True,
        text="call *mcount@GOTPCREL(%rip), or addr32 call mcount, behind the prologue (-pg of a program)",
        source="gcc's x86_function_profiler()",
    ),
)  # fmt: skip
