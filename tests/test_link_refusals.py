"""What cannot be linked into a module: each with its one line, before anything is written."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from elfwriter import (
    ABS,
    ALLOC,
    EXEC,
    FUNC,
    GLOBAL,
    MINI,
    NOBITS,
    NOP,
    NOTYPE,
    OBJECT,
    RELA,
    RET,
    WEAK,
    WRITE,
    Elf,
    as_code,
    parsed,
    rela,
    relocations_by_table,
)
from test_link import Case, Object, table

from ftpatch.errors import FtpatchError

COMMON, TLS, REL = 0xFFF2, 0x400, 9
PREL32 = 261
ABS64, ABS32, CALL26, CONDBR19, TSTBR14, ADRP, GOT_PAGE, TLS_DESC = 257, 258, 283, 280, 279, 275, 311, 562
ADDR64, REL24, REL32, TOC16_HA, TOC16_DS, GOT16_HA, REL24_NOTOC, REL14 = 38, 10, 26, 50, 63, 17, 116, 11
PPC_NOP, BL, B, BLR = 0x6000_0000, 0x4800_0001, 0x4800_0000, 0x4E80_0020
BL_ARM64 = 0x9400_0000

Change = Callable[[Object], object]


def section(name: str, flags: int = ALLOC | WRITE, **rest: object) -> Change:
    def change(made: Object) -> None:
        made.section(name, bytes(8), flags=flags, **{"align": 8, **rest})

    return change


def uses(kind: int, name: str = "ktime_get", shndx: int = 0, bind: int = GLOBAL, **rest: int) -> Change:
    """A relocation of .text for a symbol."""

    def change(made: Object) -> None:
        row = made.symbol(name, shndx, rest.pop("value", 0), 0, rest.pop("type", NOTYPE), bind)
        made.relocate(kind, row, **rest)

    return change


def defines(name: str, bind: int = GLOBAL, shndx: int = 1, type: int = FUNC, value: int = 0) -> Change:
    return lambda made: made.symbol(name, shndx, value, 8, type, bind)


def to_section(kind: int, name: str, flags: int) -> Change:
    """A relocation of .text for the start of another section."""

    def change(made: Object) -> None:
        sec = made.section(name, bytes(8), flags=flags, align=8)
        made.relocate(kind, made.symbol("there", sec, 0, 8, OBJECT))

    return change


def modinfo(text: bytes) -> Change:
    return lambda made: made.section(".modinfo", text + b"\0", flags=ALLOC)


def short_relocations(made: Object) -> None:
    made.section(".rel.text", bytes(16), type=REL, info=made.text)


def empty_relocated(made: Object) -> None:
    sec = made.section(".bss", type=NOBITS, size=8, flags=ALLOC | WRITE, align=8)
    made.section(".rela.bss", rela(0, ABS64, 0, made.fixed), type=RELA, info=sec, entsize=24)


def no_symbols(made: Object) -> None:
    made.symbols.clear()


def records(made: Object) -> None:
    """As -fpatchable-function-entry=2 makes them, where the module has four NOPs."""
    made.sections[made.text].data = as_code((NOP, NOP, RET))
    sec = made.section("__patchable_function_entries", bytes(8), flags=ALLOC | WRITE, align=8)
    made.section(".rela__patchable_function_entries", rela(0, ABS64, 0, made.fixed), type=RELA, info=sec, entsize=24)


def two_relocations(made: Object) -> None:
    made.relocate(ABS64, made.fixed)
    made.relocate(ABS64, made.fixed)


def refers_to_records(made: Object) -> None:
    made.sections[made.text].data = as_code((NOP, NOP, NOP, NOP, RET))
    made.sections[made.text].align = 8
    made.symbols[made.fixed - 1] = ("fixed", made.text, 8, 12, FUNC, GLOBAL)
    sec = made.section("__patchable_function_entries", bytes(8), flags=ALLOC | WRITE, align=8)
    made.section(".rela__patchable_function_entries", rela(0, ABS64, -8, made.fixed), type=RELA, info=sec, entsize=24)
    data = made.section(".data", bytes(8), flags=ALLOC | WRITE, align=8)
    row = made.symbol("", sec, 0, 0, 3, 0)
    made.section(".rela.data", rela(0, ABS64, 0, row), type=RELA, info=data, entsize=24)


def saves_unsigned(made: Object) -> None:
    made.sections[made.text].data = as_code((0xA9BF7BFD, RET))  # stp x29, x30, [sp, #-16]!


def bug_table(made: Object) -> None:
    sec = made.section("__bug_table", bytes(16), flags=ALLOC | WRITE, align=4)
    made.section(".rela__bug_table", rela(0, 261, 0, made.fixed), type=RELA, info=sec, entsize=24)


ONE = "fix.o: the object has a section that cannot be linked in: found"


def code(*words: int) -> Change:
    def change(made: Object) -> None:
        made.sections[made.text].data = as_code(words)

    return change


OBJECTS = [
    ("exports", section("__ksymtab_gpl"),
     "fix.o: the object has a section that cannot be linked in: found __ksymtab_gpl: exports, whose tables "
     "other modules are linked against, expected code and data – leave EXPORT_SYMBOL out of the object"),
    ("a module", section(".gnu.linkonce.this_module"),
     "fix.o: the object has a section that cannot be linked in: found .gnu.linkonce.this_module: a module, "
     "not an object, expected code and data – give the object of your own source file (gcc -c), not what "
     "modpost and ld made"),
    ("versions", section("__versions"),
     "fix.o: the object has a section that cannot be linked in: found __versions: a module, not an object, "
     "expected code and data – give the object of your own source file (gcc -c), not what modpost and ld made"),
    ("parameters", section("__param"),
     "fix.o: the object has a section that cannot be linked in: found __param: module parameters, which would "
     "need their place in /sys and .modinfo, expected code and data – use a variable of the module"),
    ("constructors", section(".init_array"),
     "fix.o: the object has a section that cannot be linked in: found .init_array: constructors, which only "
     "some kernels run, expected code and data – initialise in the function itself"),
    ("tracepoints", section("__tracepoints_ptrs"),
     "fix.o: the object has a section that cannot be linked in: found __tracepoints_ptrs: tracepoints of its "
     "own, which several tables and files in tracefs describe, expected code and data – use those of the module"),
    ("static calls", section(".static_call_sites"),
     "fix.o: the object has a section that cannot be linked in: found .static_call_sites: static calls of its "
     "own, which the loader sorts by key, expected code and data – call the function itself"),
    ("initcalls", section(".initcall6.init"),
     "fix.o: the object has a section that cannot be linked in: found .initcall6.init: an initcall of a "
     "kernel, expected code and data – compile with -DMODULE, and leave module_init out"),
    ("the loader's own", section(".plt", ALLOC | EXEC),
     "fix.o: the object has a section that cannot be linked in: found .plt: a section that the loader fills "
     "itself, expected code and data – leave it out"),
    ("a got", section(".got"),
     "fix.o: the object has a section that cannot be linked in: found .got: position-independent code with a "
     "GOT of its own, expected code and data – compile with -fno-pic"),
    ("an unknown table", section("my_table"),
     "fix.o: the object has a section that cannot be linked in: found my_table: a table for somebody who "
     "finds it by its name, expected code and data – leave it out"),
    ("thread-local", section(".tbss", ALLOC | WRITE | TLS, type=NOBITS, size=8),
     "fix.o: the object has a section that cannot be linked in: found .tbss: thread-local variables, expected "
     "none, as in every kernel – use per-cpu variables"),
    ("writable code", section(".text.patched", ALLOC | WRITE | EXEC),
     "fix.o: the object has a section that cannot be linked in: found .text.patched: writable code, expected "
     "code or data – newer kernels refuse modules with such a section"),
    ("aligned to 64 KiB", section(".data.big", align=1 << 16),
     "fix.o: the object has a section that cannot be linked in: found .data.big: an alignment of 0x10000, "
     "expected a power of two up to 0x1000 – a module's memory is not aligned to more than a page"),
    ("no power of two", section(".data.odd", align=24),
     "fix.o: the object has a section that cannot be linked in: found .data.odd: an alignment of 0x18, "
     "expected a power of two up to 0x1000 – a module's memory is not aligned to more than a page"),
    ("no bytes", section(".data.odd", type=0x7000_0001),
     "fix.o: the object has a section that cannot be linked in: found .data.odd: section type 0x70000001, "
     "expected bytes or room for them – leave it out"),
    ("absurd", section(".bss.huge", type=NOBITS, size=1 << 40),
     "fix.o: the object has a section that cannot be linked in: found .bss.huge: 1099511627776 bytes, "
     "expected at most 1073741824 – allocate memory at run time"),
    ("got relocation", uses(GOT_PAGE),
     "fix.o: .text+0x0: the module loader does not apply a relocation of the object: found type 311: "
     "position-independent code, which needs a GOT, expected code as kernels compile it for modules – compile "
     "with -fno-pic, as the kernel does"),
    ("tls relocation", uses(TLS_DESC),
     "fix.o: .text+0x0: the module loader does not apply a relocation of the object: found type 562: "
     "thread-local variables, which a kernel does not have, expected code as kernels compile it for modules – "
     "use per-cpu variables"),
    ("unknown relocation", uses(999),
     "fix.o: .text+0x0: the module loader does not apply a relocation of the object: found type 999, expected "
     "code as kernels compile it for modules"),
    ("32-bit address", uses(ABS32),
     "fix.o: .text+0x0: the module loader does not apply a relocation of the object: found type 258: an "
     "address in less than 64 bits, expected code as kernels compile it for modules – use pointers"),
    ("a branch to data", to_section(CALL26, ".data", ALLOC | WRITE),
     "fix.o: .text+0x0: the object branches to data: found there in .data.ftpatch.with.data, expected a "
     "function"),
    ("a far condition", to_section(CONDBR19, ".data", ALLOC | WRITE),
     "fix.o: .text+0x0: the object branches to data: found there in .data.ftpatch.with.data, expected a "
     "function"),
    ("absolute", uses(ABS64, "number", ABS, value=5),
     "fix.o: the object uses a symbol that is no place in a section: found number, st_shndx 0xfff1, expected "
     "functions and data – use a constant"),
    ("not loaded", to_section(ABS64, ".comment", 0),
     "fix.o: the object uses a section that is not loaded: found .comment by there, expected code and data"),
    ("discarded", to_section(ABS64, ".discard.x", ALLOC),
     "fix.o: the object uses a section that is not loaded: found .discard.x by there, expected code and data"),
    ("nobody has it", uses(CALL26, "nothing_like_it"),
     "--with fix.o: undefined symbol nothing_like_it: no such exported symbol: found nothing of that name, "
     "expected a symbol of the module, or one that the kernel or a module given by --against exports – "
     "--keep-original nothing_like_it, if it is to be the old function"),
    ("nearly", uses(CALL26, "mini_utill"),
     "--with fix.o: undefined symbol mini_utill: no such exported symbol: found nothing of that name, "
     "expected a symbol of the module, or one that the kernel or a module given by --against exports – "
     "mini_util is there"),
    ("outline atomics", uses(CALL26, "__aarch64_ldadd4_acq_rel"),
     "--with fix.o: undefined symbol __aarch64_ldadd4_acq_rel: no such exported symbol: found nothing of that "
     "name, expected a symbol of the module, or one that the kernel or a module given by --against exports – "
     "compile with -mno-outline-atomics, as the kernel does"),
    ("namespace", uses(CALL26, "spaced"),
     "--with fix.o: undefined symbol spaced: the module does not import the symbol's namespace: found SPACE, "
     "expected no namespace at all – use a symbol outside namespaces"),
    ("not in that file", uses(CALL26, "mini_step@mini_util.c"),
     "--with fix.o: undefined symbol mini_step@mini_util.c: the module has no symbol of this name there: "
     "found mini_step@mini_mod.c, expected mini_step@mini_util.c"),
    ("not in the module", uses(CALL26, "nothing@mini_util.c"),
     "--with fix.o: undefined symbol nothing@mini_util.c: the module has no symbol of this name: found "
     "nothing, expected nothing in the module – what other files define has no @ in its name"),
    ("not at that place", uses(CALL26, "mini_step@.text+0x4"),
     "--with fix.o: undefined symbol mini_step@.text+0x4: the module has no symbol of this name there: found "
     "mini_step@mini_mod.c, expected mini_step@.text+0x4"),
    ("weak and absent, near", uses(ADRP, "absent", bind=WEAK),
     "fix.o: .text+0x0: a weak symbol that nobody defines is taken for an address nearby: found "
     "R_AARCH64_ADR_PREL_PG_HI21 absent, expected a pointer or a call – define it, or leave it out"),
    ("init text", uses(CALL26, "mini_init"),
     "fix.o: .text+0x0: the object uses what is freed once the module runs: found mini_init in .init.text, "
     "expected code and data that stay – use it from __init code alone"),
    ("own init data", to_section(ABS64, ".init.data", ALLOC | WRITE),
     "fix.o: .text+0x0: the object uses what is freed once the module runs: found there in "
     ".init.data.ftpatch.with.init.data, expected code and data that stay – use it from __init code alone"),
    ("symbol 0", lambda made: made.relocate(ABS64, 0),
     "fix.o: the object uses a symbol that is no place in a section: found symbol 0, st_shndx 0x0, expected "
     "functions and data – use a constant"),
    ("no such symbol", lambda made: made.relocate(ABS64, 77),
     "fix.o: .text+0x0: a relocation names no symbol of this file: found symbol 77, expected less than 2"),
    ("a dot", section("."), f"{ONE} .: '.', expected a name – give the object as the compiler made it"),
    ("two in one place", two_relocations, "fix.o: .text+0x0: two relocations write one place: expected one"),
    ("own records", refers_to_records,
     "fix.o: the object refers to its own records of patch sites: found __patchable_function_entries, expected code "
     "and data – the loader puts them in another order"),
    ("outside its section", lambda made: made.relocate(ABS64, made.fixed, off=4),
     "fix.o: .text+0x4: a relocation lies outside its section: found 0x8 bytes"),
    ("between instructions", uses(CALL26, "ktime_get", off=2),
     "fix.o: .text+0x2: a branch lies between two instructions: found offset 0x2"),
    ("without addends", short_relocations,
     "fix.o: relocations without addends: found .text, expected SHT_RELA, as the machine's compilers make it"),
    ("clash with a function", defines("mini_work"),
     "fix.o: the object defines a symbol that the module has: found mini_work, which the module defines at "
     ".text+0x58, expected a new name – rename it, or make it static"),
    ("clash with a static one", defines("mini_step"),
     "fix.o: the object defines a symbol that the module has: found mini_step, which the module defines at "
     ".text+0x8, expected a new name – rename it, or make it static"),
    ("clash with an import", defines("_printk"),
     "fix.o: the object defines a symbol that the module has: found _printk, which the module imports, "
     "expected a new name – rename it, or make it static"),
    ("clash with an original", defines("old"),
     "fix.o: the object defines what --keep-original is to define: found old, expected a declaration alone – "
     "give --keep-original another name"),
    ("an init of its own", defines("init_module"),
     "fix.o: the object has a module_init or module_exit of its own: found init_module, expected functions "
     "that the module calls – leave them out: the loader runs the module's alone"),
    ("outside", lambda made: made.symbol("far", 1, 4, 8, OBJECT),
     "fix.o: a symbol lies outside its section: found far, up to 0xc, expected at most 0x8"),
    ("no function", defines("strange", type=15),
     "fix.o: the object has a symbol that is no function and no data: found strange, type 15, expected "
     "functions and data"),
    ("twice", defines("fixed"),
     "fix.o: the object defines a symbol twice: found fixed, expected one definition"),
    ("no bytes to change", empty_relocated,
     "fix.o: relocations for a section without bytes: found .bss, expected contents that they change"),
    ("ifunc", defines("chosen", type=10),
     "fix.o: the object has a function that is chosen when it is first called: found chosen, expected "
     "functions and data – no kernel knows such symbols"),
    ("odd common", lambda made: made.symbol("room", COMMON, 24, 8, OBJECT) and None,
     "fix.o: the object has a common symbol that cannot be placed: found room, aligned to 0x18, expected a "
     "power of two up to 0x1000"),
    ("stripped", no_symbols,
     "fix.o: no symbol table: found a stripped file, expected .symtab – give the object as the compiler made "
     "it"),
    ("licence", modinfo(b"license=Proprietary"),
     "fix.o: the object has another licence than the module: found license Proprietary, expected GPL – the "
     "loader gives symbols by the module's licence alone"),
    ("vermagic", modinfo(b"vermagic=6.6.6 SMP"),
     "fix.o: the object was built for another kernel than the module: found vermagic 6.6.6 SMP, expected "
     "0.0.0-mini SMP mod_unload aarch64"),
    ("import_ns", modinfo(b"import_ns=SPACE"),
     "fix.o: the object imports a namespace that the module does not: found SPACE, expected no namespace at "
     "all"),
    ("layout", records,
     "fix.o: the object's patch sites have another layout than the module's: found .text+0x8 is unexpected, "
     "expected sites of the layout callops, not enabled – compile with the kernel's own "
     "-fpatchable-function-entry"),
    ("unsigned", saves_unsigned,
     "fix.o: functions of the module sign their return address, and one of the object does not: found fixed, "
     "expected the same protection – compile with -mbranch-protection=pac-ret, as the kernel does"),
    ("shadow call stack", code(0xF800_865E, RET),
     "fix.o: functions of the object keep their return address on the shadow call stack, and none of the module does: "
     "found fixed, expected functions that the module's kernel can run – compile without "
     "-fsanitize=shadow-call-stack"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in OBJECTS], ids=[row[0] for row in OBJECTS])
def test_an_object_is_refused_in_one_line(change: Change, message: str, tmp_path: Path) -> None:
    case, made = Case(tmp_path), Object()
    change(made)
    assert case.refused(made.build(), **case.original("mini_work", "old")) == message


def ppc_object(*words: int) -> Object:
    return Object(machine=21, words=words or (PPC_NOP, BLR))


def both(*changes: Change) -> Change:
    def change(made: Object) -> None:
        for one in changes:
            one(made)

    return change


PPC_OBJECTS = [
    ("notoc", uses(REL24_NOTOC),
     "fix.o: .text+0x0: the module loader does not apply a relocation of the object: found type 116: another "
     "TOC model (-mpcrel), whose functions do not keep r2, expected code as kernels compile it for modules – "
     "compile with -mno-pcrel"),
    ("pcrel", uses(132),
     "fix.o: .text+0x0: the module loader does not apply a relocation of the object: found type 132: another "
     "TOC model (-mpcrel), whose functions do not keep r2, expected code as kernels compile it for modules – "
     "compile with -mno-pcrel"),
    ("small model", uses(TOC16_DS, "fixed_data", 1),
     "fix.o: .text+0x0: the module loader does not apply a relocation of the object: found type 63: a TOC of "
     "64 KB (-mcmodel=small), which the module's is not known to be, expected code as kernels compile it for "
     "modules – compile with -mcmodel=large, as the kernel does"),
    ("got", uses(GOT16_HA),
     "fix.o: .text+0x0: the module loader does not apply a relocation of the object: found type 17: "
     "position-independent code with a GOT of its own, expected code as kernels compile it for modules – "
     "compile with -fno-pic, as the kernel does"),
    ("conditional", uses(REL14),
     "fix.o: .text+0x0: the module loader does not apply a relocation of the object: found type 11: a "
     "conditional branch to another section, expected code as kernels compile it for modules – compile "
     "without -ffunction-sections"),
    ("ifunc relocation", uses(248),
     "fix.o: .text+0x0: the module loader does not apply a relocation of the object: found type 248: "
     "functions that are chosen when they are first called (IFUNC), expected code as kernels compile it for "
     "modules – call one by name"),
    ("toc of an import", uses(TOC16_HA),
     "fix.o: .text+0x0: a symbol of another file is taken for one nearby: found R_PPC64_TOC16_HA ktime_get, "
     "expected an address of 64 bits – declare it extern, and not static or hidden; compile with "
     "-mcmodel=large, as the kernel does"),
    ("distance to an import", uses(REL32),
     "fix.o: .text+0x0: a symbol of another file is taken for one nearby: found R_PPC64_REL32 ktime_get, "
     "expected an address of 64 bits – declare it extern, and not static or hidden; compile with "
     "-mcmodel=large, as the kernel does"),
    ("toc of what is nowhere", uses(TOC16_HA, "absent", bind=WEAK),
     "fix.o: .text+0x0: a weak symbol that nobody defines is taken for an address nearby: found "
     "R_PPC64_TOC16_HA absent, expected a pointer or a call – define it, or leave it out"),
    ("sibling call", both(code(B, BLR), uses(REL24)),
     "fix.o: .text+0x0: a jump out of the module would leave the caller with another TOC: found a branch "
     "without a link to ktime_get, expected a call – compile with -fno-optimize-sibling-calls"),
    ("no nop", both(code(BL, BLR), uses(REL24)),
     "fix.o: .text+0x0: a call out of the module has no room for the TOC to be loaded again: found a call of "
     "ktime_get alone, expected a nop behind it – declare the function extern, and not static or hidden"),
    ("nop behind the end", both(code(BLR, BL), uses(REL24, off=4)),
     "fix.o: .text+0x4: a call out of the module has no room for the TOC to be loaded again: found a call of "
     "ktime_get alone, expected a nop behind it – declare the function extern, and not static or hidden"),
    ("no bytes for gpr", both(code(BL, PPC_NOP), uses(REL24, "_savegpr0_29")),
     "--with fix.o: undefined symbol _savegpr0_29: no such exported symbol: found nothing of that name, "
     "expected a symbol of the module, or one that the kernel or a module given by --against exports – "
     "compile with -O2"),
    ("symbol 0 of a pointer", lambda made: made.relocate(ADDR64, 0),
     "fix.o: the object uses a symbol that is no place in a section: found symbol 0, st_shndx 0x0, expected "
     "functions and data – use a constant"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in PPC_OBJECTS], ids=[row[0] for row in PPC_OBJECTS])
def test_an_object_with_a_toc_is_refused_in_one_line(change: Change, message: str, tmp_path: Path) -> None:
    case, made = Case(tmp_path, "ppc64le"), ppc_object()
    change(made)
    assert case.refused(made.build(), **case.original("mini_work", "old")) == message


def changed(content: bytes, pos: int, new: bytes) -> bytes:
    return content[:pos] + new + content[pos + len(new) :]


def test_other_machines_and_abis_are_refused(tmp_path: Path) -> None:
    case = Case(tmp_path, "ppc64le", kernel=False)
    assert case.refused(Object().build()) == (
        "fix.o: the object is for another machine than the module: found arm64, expected ppc64le"
    )
    assert case.refused(changed(ppc_object().build(), 48, b"\1")) == (
        "fix.o: the object is for another ABI than the module: found ABI version 1, expected 0 or 2"
    )
    assert case.refused(Object(machine=21, e_type=2).build()) == (
        "fix.o: not an object file: found a linked file (e_type 2), expected what gcc -c makes"
    )
    content = ppc_object().build()
    symbols = parsed(content).get_section_by_name(".symtab")["sh_offset"]
    assert case.refused(changed(content, symbols + 24 + 5, b"\x20")) == (
        "fix.o: the object has functions of another TOC model: found fixed, which loses the TOC pointer, expected "
        "functions that keep it – compile with -mno-pcrel"
    )


def test_an_object_without_machine_code_is_refused(tmp_path: Path) -> None:
    compiled = Elf(e_type=1)  # with -flto
    compiled.section(".gnu.lto_.symtab", bytes(8))
    assert Case(tmp_path, kernel=False).refused(compiled.build()) == (
        "fix.o: no machine code: found what link-time optimisation goes on from, expected an object with code – "
        "compile it without -flto"
    )


def test_without_a_kernel_nothing_new_is_imported(tmp_path: Path) -> None:
    case, made = Case(tmp_path, kernel=False), Object()
    uses(CALL26)(made)
    assert case.refused(made.build()) == (
        "--with fix.o: undefined symbol ktime_get: the module does not use this symbol yet: found no kernel to look "
        "for it, expected a symbol that the module defines or uses – --against VMLINUX shows whether it may be used, "
        "and its version"
    )
    uses(CALL26, "_printk")(made := Object())
    assert case.link(made.build()).carried.notes[1:] == (f"no function of {tmp_path}/fix.o has a record: none of them "
                                                         "can be traced",)  # fmt: skip


def test_rows_of_another_length_are_refused(tmp_path: Path) -> None:
    """A bug table without file names beside one with them: the loader would read all of it in one way."""
    more = table("__bug_table", 12, [rela(0, PREL32, 0, 18), rela(4, PREL32, 0, 18)], 23)
    case, made = Case(tmp_path, more=more), Object()
    sec = made.section("__bug_table", bytes(8), flags=ALLOC | WRITE, align=4)
    made.section(".rela__bug_table", rela(0, PREL32, 0, made.fixed), type=RELA, info=sec, entsize=24)
    assert case.refused(made.build()) == (
        "fix.o: the object's __bug_table has rows of another form than the module's: found 1 relocations in 8 bytes, "
        "expected rows as in the module's 2 relocations in 12 bytes – compile with the headers and the configuration "
        "of the module's kernel"
    )


def test_several_symbols_of_a_name_are_told_apart(tmp_path: Path) -> None:
    """Two source files of the module have a static function of one name."""
    case = Case(tmp_path)
    content = (MINI / "mini.ko").read_bytes()
    table = parsed(content).get_section_by_name(".symtab")
    rows = {row.name: number for number, row in enumerate(table.iter_symbols())}
    start = [table["sh_offset"] + 24 * rows[name] for name in ("mini_step", "mini_probe_one")]
    case.open(changed(content, start[1], content[start[0] : start[0] + 4]))
    uses(CALL26, "mini_step")(made := Object())
    assert case.refused(made.build()) == (
        "--with fix.o: undefined symbol mini_step: the module has several symbols of this name: found "
        "mini_step@mini_mod.c, mini_step@mini_util.c, expected one of them – spell it mini_step@mini_mod.c in the "
        "object"
    )
    for name in ("mini_step@mini_mod.c", "mini_step@.text+0x8"):
        case.open(case.content)
        uses(CALL26, name)(made := Object())
        linked = case.link(made.build())
        (row,) = (row for name, some in relocations_by_table(linked.after) if name == ".rela.text.ftpatch.with.text"
                  for row in some)  # fmt: skip
        assert row.symbol == "mini_step"
        assert linked.carried.symbols["fixed"] == rows["mini_work"] + 1


@pytest.mark.parametrize("arch", ["arm64", "ppc64le"])
def test_a_damaged_object_is_refused_or_linked(arch: str, tmp_path: Path) -> None:
    """Whatever the object is, there is a line for it."""
    content = (MINI.parent / "link" / f"{arch}.o").read_bytes()
    chance, n_refused = random.Random(20261130), 0
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(chance.choice((1, 1, 2, 8))):
            damaged[chance.randrange(len(damaged))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        case = Case(tmp_path, arch, kernel=False)
        try:
            case.link(bytes(damaged), **case.original("mini_step", "old_step"))
        except FtpatchError as refused:
            n_refused += 1
            assert "\n" not in str(refused)
    assert n_refused > 100


def test_an_object_of_absurd_size_is_refused_at_once(tmp_path: Path) -> None:
    case, made = Case(tmp_path, kernel=False), Object()
    for _ in range(1000):
        made.section(".text", as_code((RET,)), flags=ALLOC | EXEC, align=4)
    assert case.refused(made.build()) == (
        "fix.o: the object has too many sections: found 1001, expected at most 1000 – compile without "
        "-ffunction-sections and -fdata-sections"
    )
    made = Object()
    made.symbols += [("some", made.text, 0, 4, FUNC, GLOBAL)] * 32768
    assert case.refused(made.build()) == "fix.o: the object has too many symbols: found 32770, expected at most 32768"


def test_many_symbols_of_one_name_take_no_longer_than_others(tmp_path: Path) -> None:
    case, made = Case(tmp_path, kernel=False), Object()
    made.symbols[:0] = [("same", made.text, 0, 4, FUNC, 0)] * 5000
    names = [row.name for row in parsed(case.link(made.build()).after).get_section_by_name(".symtab").iter_symbols()]
    assert names[-5001:-4998] == ["ftpatch_with.same", "ftpatch_with.same.2", "ftpatch_with.same.3"]
    assert len(set(names[-5001:])) == 5001
