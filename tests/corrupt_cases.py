"""Corrupted files as a table: each is a good fixture with a few bytes changed, and the whole answer that it gets."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from elfedit import (
    ABS64,
    ALLOC,
    CALLOPS,
    EHDR,
    EXEC,
    FAR,
    KERNELS,
    MASK64,
    MODULE,
    OBJECT,
    OOL,
    PFE2,
    PHDR,
    PHDR_SIZE,
    PROGRAM,
    RELA_SIZE,
    SHDR,
    SHDR_SIZE,
    SHT_NOBITS,
    SHT_RELA,
    SHT_RELR,
    SYM,
    WORD,
    Elf,
    Layout,
)  # fmt: skip

Build = Callable[[Elf], object]
Answer = tuple[int, str | None]  # exit code and refusal; None where either is not known


@dataclass(frozen=True)
class Case:
    """One corrupted file."""

    id: str
    fixture: str
    build: Build
    scan: Answer | None  # what scan answers, where it is known
    enable: Answer | None  # what `enable` of `choice` answers
    choice: tuple[str, ...]
    facts: tuple[tuple[str, Any], ...]  # figures of scan's report: a path through the JSON, and the value


def case(
    id_: str, fixture: str, build: Build, scan: Answer | str | None = None, enable: Answer | str | None = None, /, *,
    choice: str = "vfs_read", **facts: Any,
) -> Case:  # fmt: skip
    """scan: a text is a refusal with exit code 3; enable: a text is one with exit code 5."""
    words = tuple(word for name in choice.split() for word in (("--func", name) if name[:1] != "-" else (name,)))
    return Case(id_, fixture, build, (3, scan) if isinstance(scan, str) else scan,
                (5, enable) if isinstance(enable, str) else enable, words, tuple(facts.items()))  # fmt: skip


OK = DONE = (0, "")

# -- every field of a row --------------------------------------------------------------------------------------

WRONG: dict[str, Callable[[int], int]] = {
    "is-0": lambda _: 0,
    "is-1": lambda _: 1,
    "is-max": lambda _: MASK64,
    "plus-1": lambda value: value + 1,
    "minus-1": lambda value: value - 1,
}


def fields(prefix: str, fixture: str, layout: Layout, at: Callable[[Elf], int], only: str = "") -> list[Case]:
    """Every field of one row set to every wrong value; values that it has already make no case."""
    found, good = [], Elf(fixture)
    for field, (_, kind) in layout.items():
        mask = (1 << 8 * struct.calcsize(kind)) - 1
        value, seen = good.get(layout, at(good), field), set[int]()
        for name, wrong in WRONG.items():
            bad = wrong(value) & mask
            if bad == value or bad in seen:
                continue
            seen.add(bad)

            def build(elf: Elf, field: str = field, bad: int = bad) -> object:
                return elf.put(layout, at(elf), field, bad)

            id_ = f"{fixture}-{prefix}-{field}-{name}"
            found.append(case(id_, fixture, build))
    return found


def section_fields(fixture: str, *sections: str) -> list[Case]:
    return [
        one
        for section in sections
        for one in fields(section.strip("._"), fixture, SHDR, lambda elf, s=section: elf.header(elf.sec(s)))  # type: ignore[misc]
    ]


HEADERS = [
    *fields("ehdr", CALLOPS, EHDR, lambda _: 0),
    *fields("ehdr", MODULE, EHDR, lambda _: 0),
    *fields("ehdr", PROGRAM, EHDR, lambda _: 0),
    *fields("phdr0", CALLOPS, PHDR, lambda elf: elf.get(EHDR, 0, "e_phoff")),
    *fields("phdr2", EXEC, PHDR, lambda elf: elf.get(EHDR, 0, "e_phoff") + 2 * PHDR_SIZE),
]
SECTIONS = [
    *section_fields(CALLOPS, ".text", ".init.data", ".symtab", ".strtab", ".shstrtab", ".rela.dyn", ".relr.dyn"),
    *section_fields(PFE2, ".rela.dyn"),
    *section_fields(EXEC, ".init.data"),
    *section_fields(MODULE, ".text", ".symtab", "__patchable_function_entries", ".rela__patchable_function_entries"),
    *section_fields(OBJECT, ".rela__patchable_function_entries"),
    *section_fields(PROGRAM, "__patchable_function_entries", ".rela.dyn"),
]


# -- changes ---------------------------------------------------------------------------------------------------

DATA_VA, NOWHERE = 0xFFFF800080021000, 0x1000
READ_PFE2, WRITE_PFE2 = 0xFFFF8000800007E4, 0xFFFF8000800008C0  # vfs_read and vfs_write in vmlinux-exec
READ_ROW, N_SLOTS = 13, 19
SLOT_0 = 0xFFFF800080020010  # __start_mcount_loc of the arm64 fixtures
CODE = (".head.text", ".text", ".init.text")


def ehdr(**fields: int) -> Build:
    return lambda elf: elf.ehdr(**fields)


def sh(section: str, **fields: int) -> Build:
    return lambda elf: elf.sh(section, **fields)


def text_moved_to_the_end(elf: Elf) -> Elf:
    pos, size = elf.of_sec(".text", "sh_offset"), elf.of_sec(".text", "sh_size")
    return elf.sh(".text", sh_offset=elf.append(bytes(elf.raw[pos : pos + size])))


def sym(symbol: str, **fields: int) -> Build:
    return lambda elf: elf.sym(symbol, **fields)


def rela(section: str, n: int, **fields: int) -> Build:
    return lambda elf: elf.rela(section, n, **fields)


def moved(symbol: str, by: int) -> Build:
    return lambda elf: elf.sym(symbol, st_value=elf.value(symbol) + by)


def both(*builds: Build) -> Build:
    return lambda elf: [build(elf) for build in builds]


def in_section_0(**fields: int) -> Build:
    """Where ELF keeps what its header has no room for."""
    return lambda elf: [elf.put(SHDR, elf.header(0), field, value) for field, value in fields.items()]


def slot_is(n: int, *values: int) -> Build:
    return lambda elf: elf.words(elf.slot(n), *values)


def bounds(start: int, stop: int) -> Build:
    """The record table's symbols moved by so many bytes."""

    def build(elf: Elf) -> object:
        one, two = elf.value("__start_mcount_loc") + start, elf.value("__stop_mcount_loc") + stop
        return elf.sym("__start_mcount_loc", st_value=one).sym("__stop_mcount_loc", st_value=two)

    return build


def bounds_at(start: int, stop: int) -> Build:
    return lambda elf: elf.sym("__start_mcount_loc", st_value=start).sym("__stop_mcount_loc", st_value=stop)


def relr_is(*words: int) -> Build:
    """The first words of the packed table, and its size."""

    def build(elf: Elf) -> object:
        elf.words(elf.of_sec(".relr.dyn", "sh_offset"), *words)
        return elf.sh(".relr.dyn", sh_size=8 * len(words))

    return build


def never_ends(elf: Elf) -> object:
    """A second packed table, of bitmaps from the first slot on to far behind the last."""
    table = struct.pack("<Q", elf.value("__start_mcount_loc")) + struct.pack("<Q", MASK64) * 4000
    return elf.add(table, sh_type=SHT_RELR, sh_entsize=8)


def second_relr(words: list[int], name: str = "") -> Build:
    """A second packed table."""
    return lambda elf: elf.add(struct.pack(f"<{len(words)}Q", *words), sh_type=SHT_RELR, sh_entsize=8,
                               sh_name=elf.name_at(name) if name else 0)  # fmt: skip


def relr_table_twice(elf: Elf) -> object:
    return elf.add(b"", sh_type=SHT_RELR, sh_entsize=8, sh_size=48, sh_offset=elf.of_sec(".relr.dyn", "sh_offset"))


def second_rela(elf: Elf) -> object:
    good = {field: elf.of_sec(".rela.dyn", field) for field in ("sh_name", "sh_offset", "sh_size", "sh_flags")}
    good["sh_addr"] = elf.of_sec(".bss", "sh_addr") + 0x10000
    return elf.add(b"", sh_type=SHT_RELA, sh_entsize=RELA_SIZE, **good)


def same_slot_twice(row: int) -> Build:
    """Relocation `row` fills vfs_read's slot, as another one does already."""

    def build(elf: Elf) -> object:
        slot = elf.value("__start_mcount_loc") + 8 * READ_ROW
        return elf.rela(".rela.dyn", row, r_offset=slot, r_addend=READ_PFE2)

    return build


def section_behind_the_end(n: int) -> Build:
    """A nameless section that ends `n` bytes behind the file."""

    def build(elf: Elf) -> object:
        at = elf.header(elf.add(b"", sh_type=1))
        return elf.put(SHDR, at, "sh_size", len(elf.raw) - elf.get(SHDR, at, "sh_offset") + n)

    return build


# -- refusals --------------------------------------------------------------------------------------------------

NO_SITE = (
    "vfs_read: the function has no patch site: found a symbol without record, expected a traceable function – "
    "it is notrace, assembly, or was dropped from the table"
)
NOTHING = (
    "vfs_read: nothing of that name: found no patch site, expected a function, see ftpatch scan --sites – it may be "
    "inlined, renamed by the compiler (.isra, .constprop), or in a module"
)
STRIPPED = (
    "no symbol table: found a stripped ELF file, expected .symtab – use the vmlinux of the build tree or of the debug "
    "package (stripping debug info alone is fine)"
)
NO_MACHINE = (
    "machine not supported: found e_machine {}, expected 183 (arm64), 21 (ppc64le), 62 (x86_64) – give a kernel, "
    "module or object of one of these"
)
NO_SHRINK = (
    "ftrace_init: the table cannot shrink: found 0 places that form its end 0xffff8000800200a8, expected exactly one – "
    "--records null or minus4, if this kernel accepts them"
)
PFE, RELA_PFE = "__patchable_function_entries", ".rela__patchable_function_entries"
ELSEWHERE = "a section and its segment lie at different places in the file"
TABLE, SECTION_14 = "record table 0xffff800080020010..0xffff8000800200a8: ", f"section 14 {PFE}: "
NOT_ONE = "the record table does not lie in one section of the file"
NO_FIT = "the ends of the record table do not fit: found {} bytes, expected a positive multiple of 8, aligned"
OUTSIDE_SLOTS = "a record's relocation lies outside the section's slots"
REPEATS = ".relr.dyn: RELR table covers the same words more than once: found {} places"
LITERAL = "vfs_read (row 12, .text+0x3b8): its ops literal at 0xffff8000800007b0"
SEVERAL = "several records name this site"
NO_CODE = "--target ftrace_caller: the target is no code of this file: found "
NO_OPS = "--ops list: not an ftrace_ops: found {}, expected an object in a data section"
NO_FUNCTION = "{}: no such symbol: found nothing of that name in .symtab, expected a defined symbol"
ONLY_REGS_CALLER = f"{NO_FUNCTION.format('ftrace_caller')} – did you mean ftrace_regs_caller?"


def outside(what: str, found: str, size: int) -> str:
    return (
        f"{what} lies outside the file: found bytes {found}, expected at most {size:#x} – the file is truncated or "
        "corrupt"
    )


def share(one: str, other: str) -> str:
    return f"sections overlap in the file: found {one} and {other} share bytes"


def behind(section: str, found: str) -> str:
    return f"section {section} ends behind the last address: found {found}"


def ragged(section: str, size: int, row: int) -> str:
    return f"section {section} is {size} bytes long, which is no multiple of its {row}-byte rows"


def small_ops(type_: int, size: int, least: int) -> str:
    return (
        f"--ops list: not an ftrace_ops: found symbol type {type_}, {size} bytes, expected an object of at least "
        f"{least} bytes: direct_call is read at {least - 8}"
    )


def no_fit(found: str, expected: str, layout: str) -> str:
    return (
        f"ftrace_caller does not fit the layout of the sites: found {found} load of an ops pointer in ftrace_caller, "
        f"expected {expected} load of one in layout {layout} – is --layout forced wrongly, or is this another kernel's "
        "vmlinux?"
    )


def unpatchable(*reasons: str, n: int = 1) -> str:
    """Each reason begins with the site."""
    return (
        f"{n} of {n} chosen sites cannot be patched: found {'; '.join(reasons)}, expected all of them, or nothing is "
        "written – --skip-unpatchable patches the others"
    )


# -- the table -------------------------------------------------------------------------------------------------

SPECIAL = [
    # the ELF header and its counts
    case("class-is-32-bit", CALLOPS, ehdr(ei_class=1),
         (4, "not a 64-bit ELF file: found EI_CLASS 1, expected 2 (ELFCLASS64) – give the vmlinux of a 64-bit kernel")),
    case("data-is-big-endian", CALLOPS, ehdr(ei_data=2), (4, "not a little-endian ELF file: found EI_DATA 2, expected "
         "1 (ELFDATA2LSB) – give the vmlinux of a little-endian kernel")),
    case("type-is-core", CALLOPS, ehdr(e_type=4),
         "not a kernel, module, object or program: found e_type 4 (a core or crash dump), expected ET_REL, ET_EXEC or "
         "ET_DYN – give the vmlinux of the kernel that crashed"),
    case("machine-is-s390", CALLOPS, ehdr(e_machine=22), (4, NO_MACHINE.format("22 (s390)"))),
    case("machine-is-nobody", MODULE, ehdr(e_machine=0x7777), (4, NO_MACHINE.format("30583 (unknown)"))),
    case("no-section-headers", CALLOPS, ehdr(e_shoff=0),
         "neither kallsyms nor records in the kernel – give the vmlinux of the same build"),
    case("section-headers-outside", CALLOPS, ehdr(e_shoff=0x100000),
         outside("section header table", "0x100000..0x1003c0", 0x5138)),
    case("section-headers-end-one-row-late", MODULE, ehdr(e_shnum=24),
         outside("section header table", "0xdc0..0x13c0", 0x1380)),
    case("section-header-rows-of-40-bytes", MODULE, ehdr(e_shentsize=40), "wrong e_shentsize: found 40, expected 64"),
    case("program-header-rows-of-32-bytes", CALLOPS, ehdr(e_phentsize=32), "wrong e_phentsize: found 32, expected 56"),
    case("program-headers-outside", CALLOPS, ehdr(e_phoff=0x100000),
         outside("program header table", "0x100000..0x1000e0", 0x5138)),
    case("no-sections-at-all", CALLOPS, ehdr(e_shnum=0), "e_shstrndx names no string table: found section 13 of 0"),
    case("section-count-in-section-0", CALLOPS, both(in_section_0(sh_size=15), ehdr(e_shnum=0)), OK, DONE,
         summary__live=16),
    case("section-count-in-section-0-is-huge", CALLOPS, both(in_section_0(sh_size=1 << 58), ehdr(e_shnum=0)),
         outside("section header table", "0x4d78..0x10000000000004d78", 0x5138)),
    case("section-count-in-section-0-is-max", CALLOPS, both(in_section_0(sh_size=MASK64), ehdr(e_shnum=0)),
         outside("section header table", "0x4d78..0x400000000000004d38", 0x5138)),
    case("name-table-index-in-section-0", CALLOPS, both(in_section_0(sh_link=13), ehdr(e_shstrndx=0xFFFF)), OK, DONE,
         summary__live=16),
    case("name-table-index-in-section-0-is-huge", CALLOPS, both(in_section_0(sh_link=1 << 31), ehdr(e_shstrndx=0xFFFF)),
         "e_shstrndx names no string table: found section 2147483648 of 15"),
    case("name-table-is-no-string-table", CALLOPS, ehdr(e_shstrndx=2),
         "e_shstrndx names no string table: found section 2 of 15"),
    case("segment-count-in-section-0", CALLOPS, both(in_section_0(sh_info=4), ehdr(e_phnum=0xFFFF)), OK, DONE,
         summary__live=16),
    case("segment-count-in-section-0-is-0", CALLOPS, ehdr(e_phnum=0xFFFF), OK, DONE),
    case("segment-count-in-section-0-is-max", CALLOPS, both(in_section_0(sh_info=MASK64), ehdr(e_phnum=0xFFFF)),
         outside("program header table", "0x40..0x3800000008", 0x5138)),
    # sections
    case("section-name-outside", CALLOPS, sh(".text", sh_name=0x7A),
         "a section's name lies outside the name table: found 0x7a"),
    case("section-names-without-nul", CALLOPS, lambda elf: elf.fill(".shstrtab", b"A")),
    case("text-outside", CALLOPS, sh(".text", sh_offset=0x100000),
         outside("section .text", "0x100000 + 0x5a8", 0x5138)),
    case("section-up-to-the-last-byte", MODULE, section_behind_the_end(0), OK, summary__live=6),
    case("section-one-byte-behind-the-last", MODULE, section_behind_the_end(1),
         outside("section 23", "0x1380 + 0x601", 0x1980)),
    case("text-size-wraps", CALLOPS, sh(".text", sh_size=MASK64),
         outside("section .text", "0x1400 + 0xffffffffffffffff", 0x5138)),
    case("text-overlaps-rodata", CALLOPS, sh(".text", sh_size=0x700), share(".text", ".rodata")),
    case("text-overlaps-rodata-by-a-byte", CALLOPS, sh(".text", sh_size=0x601), share(".text", ".rodata")),
    case("text-at-the-end-of-the-address-space", CALLOPS, sh(".text", sh_addr=MASK64 - 7),
         behind(".text", "0xfffffffffffffff8 + 0x5a8")),
    case("text-up-to-the-last-byte-but-one-of-the-address-space", CALLOPS, sh(".text", sh_addr=MASK64 - 0x5A8), OK,
         NO_SITE),
    case("data-over-text", CALLOPS, sh(".data", sh_addr=0xFFFF800080000400),
         f"{ELSEWHERE}: found .data at 0x4000, expected 0x1400, from where it is loaded"),
    # a kernel is loaded by its segments: the patch of a section that lies elsewhere would never run
    case("text-at-another-place-than-its-segment", CALLOPS, text_moved_to_the_end,
         f"{ELSEWHERE}: found .text at 0x5140, expected 0x1400, from where it is loaded"),
    case("text-of-a-ppc64le-kernel-at-another-place-than-its-segment", OOL, text_moved_to_the_end,
         f"{ELSEWHERE}: found .text at 0x4dc0, expected 0x1200, from where it is loaded"),
    case("all-sections-at-0", CALLOPS, lambda elf: [elf.put(SHDR, elf.header(i), "sh_addr", 0) for i in range(15)],
         "sections overlap in memory: found .head.text ends behind .text's start"),
    case("text-without-flags", CALLOPS, sh(".text", sh_flags=0), OK, NO_SITE),
    case("text-not-executable", CALLOPS, sh(".text", sh_flags=ALLOC), OK, NO_CODE + "0xffff800080000400"),
    case("nothing-executable", CALLOPS, both(*[sh(name, sh_flags=ALLOC) for name in CODE]),
         "no text at all: found no executable section, expected a kernel, module or object"),
    case("text-nobits", CALLOPS, both(*[sh(name, sh_type=SHT_NOBITS) for name in CODE]),
         "text without contents: found a debug-only file (NOBITS text), expected code – use the file that it is the "
         "debug companion of"),
    case("records-nobits", CALLOPS, sh(".init.data", sh_type=SHT_NOBITS), TABLE + NOT_ONE),
    case("records-section-cut-short", CALLOPS, sh(".init.data", sh_size=0xA0), TABLE + NOT_ONE),
    case("bss-behind-the-last-address", CALLOPS, sh(".bss", sh_size=1 << 63),
         behind(".bss", "0xffff800080021030 + 0x8000000000000000")),
    case("bss-huge", CALLOPS, sh(".bss", sh_size=1 << 46), OK, DONE, summary__live=16),
    case("every-section-links-to-itself", CALLOPS,
         lambda elf: [elf.put(SHDR, elf.header(i), "sh_link", i) for i in range(15)],
         "the symbol table's sh_link names no string table: found section 12"),
    case("symbols-and-strings-link-in-a-circle", CALLOPS, sh(".strtab", sh_link=12), OK, DONE, summary__live=16),
    case("symbols-link-to-no-section", MODULE, sh(".symtab", sh_link=99),
         "the symbol table's sh_link names no string table: found section 99"),
    case("symbols-info-max", MODULE, sh(".symtab", sh_info=MASK64), OK, summary__live=6),
    case("symbols-in-rows-of-16-bytes", CALLOPS, sh(".symtab", sh_entsize=16),
         "section .symtab: wrong sh_entsize: found 16, expected 24"),
    case("symbols-end-inside-a-row", CALLOPS, sh(".symtab", sh_size=0x92F), ragged(".symtab", 2351, 24)),
    case("relocations-in-rows-of-16-bytes", PFE2, sh(".rela.dyn", sh_entsize=16),
         "section .rela.dyn: wrong sh_entsize: found 16, expected 24"),
    case("relocations-end-inside-a-row", PFE2, sh(".rela.dyn", sh_size=0x257), ragged(".rela.dyn", 599, 24)),
    case("packed-relocations-in-rows-of-4-bytes", CALLOPS, sh(".relr.dyn", sh_entsize=4),
         "section .relr.dyn: wrong sh_entsize: found 4, expected 8"),
    case("packed-relocations-end-inside-a-row", CALLOPS, sh(".relr.dyn", sh_size=0x2F), ragged(".relr.dyn", 47, 8)),
    case("two-sections-of-one-name", OBJECT, lambda elf: elf.sh(".init.text", sh_name=elf.name_at(".text")), OK,
         summary__by_section={".text": 8}),
    case("relocation-table-twice", CALLOPS, second_rela, share(".rela.dyn", ".rela.dyn")),
    case("records-lie-on-their-relocations", PFE2,
         lambda elf: elf.sh(".init.data", sh_offset=elf.of_sec(".rela.dyn", "sh_offset")),
         share(".init.data", ".rela.dyn")),
    # symbols
    case("no-symbol-table", CALLOPS, sh(".symtab", sh_type=1), (5, STRIPPED)),
    case("empty-symbol-table", CALLOPS, sh(".symtab", sh_size=0), (5, STRIPPED)),
    case("no-name-for-any-symbol", CALLOPS, sh(".strtab", sh_size=0), OK, NOTHING, summary__slots=0),
    case("symbol-names-without-last-nul", CALLOPS, sh(".strtab", sh_size=0x3A1), OK, DONE),
    case("function-name-outside", CALLOPS, sym("vfs_read", st_name=MASK64), OK, NOTHING, sites__12__function="",
         sites__12__status="ready"),
    case("function-in-no-section", CALLOPS, sym("vfs_read", st_shndx=0x4000), OK, NO_SITE, sites__12__function=None),
    case("function-in-the-section-of-common-symbols", CALLOPS, sym("vfs_read", st_shndx=0xFFF2), OK, NO_SITE,
         sites__12__function=None),
    case("function-with-an-extended-section-index-of-nowhere", CALLOPS, sym("vfs_read", st_shndx=0xFFFF),
         "symbols use SHN_XINDEX but there is no SHT_SYMTAB_SHNDX table for them"),
    case("function-at-the-end-of-the-address-space", CALLOPS, sym("vfs_read", st_value=MASK64), OK, NO_SITE,
         sites__12__function=None),
    case("function-one-byte-away", CALLOPS, moved("vfs_read", 1), OK, NO_SITE, sites__12__function=None),
    case("function-of-no-size", CALLOPS, sym("vfs_read", st_size=0), OK, DONE, sites__12__function="vfs_read"),
    case("function-without-end", CALLOPS, sym("vfs_read", st_size=MASK64), OK, DONE, sites__12__function="vfs_read"),
    case("every-function-at-0", CALLOPS,
         lambda elf: [elf.put(SYM, at, "st_value", 0) for at in elf.symbols() if elf.raw[at + 4] & 15 == 2], OK,
         NO_SITE),
    case("trampoline-in-no-section", CALLOPS, sym("ftrace_caller", st_shndx=0), OK,
         "ftrace_caller: no such symbol: found nothing of that name in .symtab, expected a defined symbol"),
    case("trampoline-in-data", CALLOPS, sym("ftrace_caller", st_value=DATA_VA), OK, NO_CODE + "0xffff800080021000"),
    case("trampoline-nowhere", CALLOPS, sym("ftrace_caller", st_value=NOWHERE), OK, NO_CODE + "0x1000"),
    case("trampoline-misaligned", CALLOPS, moved("ftrace_caller", 2), OK, NO_CODE + "0xffff800080000402"),
    case("trampoline-is-another-function", CALLOPS,
         lambda elf: elf.sym("ftrace_caller", st_value=elf.value("asm_nops")), OK, no_fit("no", "a", "callops")),
    case("ops-nowhere", CALLOPS, sym("ftrace_list_ops", st_value=NOWHERE), OK, NO_OPS.format("0x1000")),
    case("ops-at-0", CALLOPS, sym("ftrace_list_ops", st_value=0), OK, NO_OPS.format("0x0")),
    case("ops-too-small", CALLOPS, sym("ftrace_list_ops", st_size=80), OK, small_ops(1, 80, 88)),
    case("ops-is-a-function", CALLOPS, sym("ftrace_list_ops", st_info=0x12), OK, small_ops(2, 96, 88)),
    case("init-without-code", EXEC, sym("ftrace_init", st_size=0), OK, NO_SHRINK),
    case("init-without-end", EXEC, sym("ftrace_init", st_size=MASK64), OK, DONE),
    case("init-nowhere", EXEC, sym("ftrace_init", st_value=NOWHERE), OK, NO_SHRINK),
    case("init-misaligned", EXEC, moved("ftrace_init", 2), OK, NO_SHRINK),
    # the bounds of the record table
    case("bounds-reversed", CALLOPS, bounds(0x98, -0x98),
         f"record table 0xffff8000800200a8..0xffff800080020010: {NO_FIT.format(-152)}"),
    case("bounds-equal", CALLOPS, bounds(0x98, 0), OK, NO_SITE, summary__slots=0),
    case("bounds-not-a-multiple", CALLOPS, bounds(0, -4),
         f"record table 0xffff800080020010..0xffff8000800200a4: {NO_FIT.format(148)}"),
    case("bounds-misaligned", CALLOPS, bounds(4, -4),
         f"record table 0xffff800080020014..0xffff8000800200a4: {NO_FIT.format(144)}"),
    case("bounds-huge", CALLOPS, bounds(0, 1 << 40), "record table 0xffff800080020010..0xffff8100800200a8: " + NOT_ONE),
    case("bounds-from-0-to-max", CALLOPS, bounds_at(0, MASK64 & ~7),
         "record table 0x0..0xfffffffffffffff8: " + NOT_ONE),
    case("bounds-at-the-end-of-the-address-space", CALLOPS, bounds_at(MASK64 - 15, MASK64 - 7),
         "record table 0xfffffffffffffff0..0xfffffffffffffff8: " + NOT_ONE),
    case("bounds-nowhere", EXEC, bounds_at(0x1000, 0x1008), "record table 0x1000..0x1008: " + NOT_ONE),
    case("bounds-in-bss", EXEC, bounds_at(0xFFFF800080021020, 0xFFFF800080021028),
         "record table 0xffff800080021020..0xffff800080021028: " + NOT_ONE),
    case("bounds-across-two-sections", EXEC, bounds_at(0xFFFF800080000950, 0xFFFF800080000A10),
         "record table 0xffff800080000950..0xffff800080000a10: " + NOT_ONE),
    case("bounds-one-slot-less", EXEC, bounds(0, -8), OK, NO_SHRINK.replace("0a8", "0a0"), summary__slots=18),
    case("bounds-one-slot-more", EXEC, bounds(-8, 0), OK, DONE, summary__slots=20),
    case("bounds-one-slot-behind-the-section", EXEC, bounds(0, 8),
         "record table 0xffff800080020010..0xffff8000800200b0: " + NOT_ONE),
    case("bounds-in-text", EXEC, bounds_at(0xFFFF800080000400, 0xFFFF800080000440), OK, NO_SITE),
    case("bounds-start-undefined", EXEC, sym("__start_mcount_loc", st_shndx=0),
         "only one end of the record table is named: no symbol __start_mcount_loc"),
    case("bounds-stop-undefined", EXEC, sym("__stop_mcount_loc", st_shndx=0),
         "only one end of the record table is named: no symbol __stop_mcount_loc"),
    case("bounds-both-undefined", EXEC, both(*[sym(f"__{end}_mcount_loc", st_shndx=0) for end in ("start", "stop")]),
         OK, NO_SITE, summary__slots=0),
    case("bounds-named-twice", EXEC,
         lambda elf: elf.sym("vfs_write", st_name=elf.get(SYM, elf.symbol("__stop_mcount_loc"), "st_name")),
         "symbol __stop_mcount_loc has several values: found 0xffff8000800008c0, 0xffff8000800200a8"),
    # record values
    case("record-in-data", EXEC, slot_is(13, DATA_VA), OK, NO_SITE, sites__13__status="outside-text"),
    case("record-nowhere", EXEC, slot_is(13, NOWHERE), OK, NO_SITE, sites__13__status="outside-text"),
    case("record-in-bss", EXEC, slot_is(13, 0xFFFF800080021100), OK, NO_SITE, sites__13__status="outside-text"),
    case("record-max", EXEC, slot_is(13, MASK64), OK, NO_SITE, sites__13__status="outside-text"),
    case("record-one-byte-late", EXEC, slot_is(13, READ_PFE2 + 1), OK, NO_SITE, sites__13__status="unexpected"),
    case("record-two-bytes-late", EXEC, slot_is(13, READ_PFE2 + 2), OK, NO_SITE, sites__13__status="unexpected"),
    case("record-one-word-late", EXEC, slot_is(13, READ_PFE2 + 4), OK, NO_SITE, sites__13__status="unexpected"),
    case("record-one-word-early", EXEC, slot_is(13, READ_PFE2 - 4), OK, NO_SITE, sites__13__status="unexpected"),
    case("record-on-the-last-word-of-text", EXEC, slot_is(13, 0xFFFF8000800009BC), OK, NO_SITE,
         sites__13__status="unexpected"),
    case("record-on-the-last-byte-of-text", EXEC, slot_is(13, 0xFFFF8000800009BF), OK, NO_SITE,
         sites__13__status="unexpected"),
    case("record-just-behind-text", EXEC, slot_is(13, 0xFFFF8000800009C0), OK, NO_SITE,
         sites__13__status="outside-text"),
    case("record-0", EXEC, slot_is(13, 0), OK, NO_SITE, sites__13__status="null"),
    case("record-minus-4", EXEC, slot_is(13, MASK64 - 3), OK, NO_SITE, sites__13__status="null"),
    case("record-of-vfs-read-twice", EXEC, slot_is(0, READ_PFE2), OK,
         unpatchable(f"vfs_read (row 0, .text+0x3e4): {SEVERAL}", f"vfs_read (row 13, .text+0x3e4): {SEVERAL}", n=2)),
    case("record-of-vfs-write-twice", EXEC, slot_is(0, WRITE_PFE2), OK, DONE),
    case("records-all-the-same", EXEC, slot_is(0, *[READ_PFE2] * 19), OK,
         unpatchable(*[f"vfs_read (row {n}, .text+0x3e4): {SEVERAL}" for n in range(3)], "…", n=19)),
    case("records-all-in-data", EXEC, slot_is(0, *[DATA_VA] * 19), OK, NO_SITE,
         summary__by_status={"outside-text": 19}),
    case("records-all-0", EXEC, slot_is(0, *[0] * 19), OK, NO_SITE, summary__null=19),
    case("records-all-of-asm-nops-plus-4", EXEC, lambda elf: elf.words(elf.slot(0), *[elf.value("asm_nops") + 4] * 19),
         OK, NO_SITE),
    case("records-half-of-another-layout", CALLOPS,
         lambda elf: elf.words(elf.slot(3), *[elf.get(WORD, elf.slot(n), "word") + 8 for n in range(3, 19)]), OK,
         no_fit("a", "no", "pfe2")),
    # relocations of a kernel
    case("relocation-across-two-slots", PFE2, rela(".rela.dyn", 10, r_offset=SLOT_0 + 4),
         TABLE + "a relocation lies across two slots: found 0xffff800080020014"),
    case("relocation-into-the-first-slot-from-before", PFE2, rela(".rela.dyn", 24, r_offset=SLOT_0 - 4),
         TABLE + "a relocation lies across two slots: found 0xffff80008002000c"),
    case("relocation-of-another-type", PFE2, rela(".rela.dyn", 16, r_info=ABS64), OK, NO_SITE),
    case("relocation-addend-nowhere", PFE2, rela(".rela.dyn", 16, r_addend=NOWHERE), OK, NO_SITE,
         sites__13__status="outside-text"),
    case("relocation-addend-0", PFE2, rela(".rela.dyn", 16, r_addend=0), OK, NO_SITE, sites__13__status="null"),
    case("relocation-addend-minus-4", PFE2, rela(".rela.dyn", 16, r_addend=MASK64 - 3), OK, NO_SITE,
         sites__13__status="outside-text"),
    case("relocation-of-a-slot-twice-first", PFE2, same_slot_twice(0),
         TABLE + "a slot has two relocations: found slot 13"),
    case("relocation-of-a-slot-twice-last", PFE2, same_slot_twice(24),
         TABLE + "a slot has two relocations: found slot 13"),
    case("relocation-removed", PFE2, rela(".rela.dyn", 16, r_offset=0, r_info=0, r_addend=0), OK, NO_SITE,
         sites__13__status="null"),
    case("relocation-and-packed-relocation-of-one-slot", CALLOPS,
         rela(".rela.dyn", 0, r_offset=SLOT_0 + 8 * 12, r_addend=0xFFFF8000800007B0),
         TABLE + "a slot has two relocations: found slot 12"),
    case("relocation-of-the-ops-literal", CALLOPS, rela(".rela.dyn", 0, r_offset=0xFFFF8000800007B0), OK,
         unpatchable(f"{LITERAL} has a relocation")),
    case("relocation-into-the-ops-literal", CALLOPS, rela(".rela.dyn", 0, r_offset=0xFFFF8000800007B4), OK,
         unpatchable(f"{LITERAL} has a relocation")),
    case("no-free-relocation", CALLOPS, sh(".rela.dyn", sh_size=0x30), OK, DONE),
    case("ops-literal-not-empty", CALLOPS, lambda elf: elf.words(elf.pos(0xFFFF8000800007B0), 1), OK,
         unpatchable(f"{LITERAL} is not empty")),
    # RELR
    case("relr-starts-with-a-bitmap", CALLOPS, relr_is(0x7FFFF),
         ".relr.dyn: RELR table starts with a bitmap: found 0x000000000007ffff, expected an address"),
    case("relr-empty", CALLOPS, relr_is(), OK, DONE, carrier="word"),
    case("relr-of-zeros", CALLOPS, relr_is(0, 0, 0, 0, 0, 0), OK, DONE, carrier="word"),
    case("relr-address-max", CALLOPS, relr_is(MASK64 - 1, MASK64, MASK64), OK, DONE, carrier="word"),
    case("relr-wraps-round-the-address-space", CALLOPS, relr_is(MASK64 - 1, *[MASK64] * 5), OK, DONE, carrier="word"),
    case("relr-half-of-the-slots", CALLOPS, relr_is(0xFFFF800080020010, 0xFFF), OK, DONE, carrier="mixed"),
    case("relr-places-between-slots", CALLOPS, relr_is(0xFFFF800080020014, 0x7FFFF),
         TABLE + "a relocation lies across two slots: found 0xffff800080020014"),
    case("relr-repeats-one-window", CALLOPS, second_relr([SLOT_0, MASK64] * 1000, ".relr.dyn"), REPEATS.format(19000)),
    case("relr-repeats-one-address", CALLOPS, second_relr([SLOT_0] * 4000, ".relr.dyn"), REPEATS.format(4000)),
    case("relr-of-a-nameless-section-repeats-one-window", CALLOPS, second_relr([SLOT_0, MASK64] * 1000), (3, None)),
    case("relr-never-ends", CALLOPS, both(sh(".relr.dyn", sh_size=0), never_ends), OK, DONE, summary__live=16),
    case("relr-never-ends-and-another-one", CALLOPS, never_ends, TABLE + "a slot has two relocations: found slot 0"),
    case("relr-table-twice", CALLOPS, relr_table_twice, share(".relr.dyn", "15")),
    # objects and modules
    case("record-section-not-a-multiple", MODULE, sh(PFE, sh_size=0x2C),
         SECTION_14 + "the record section holds no whole number of slots: found 44 bytes"),
    case("record-section-shorter-than-its-relocations", MODULE, sh(PFE, sh_size=0x28), SECTION_14 + OUTSIDE_SLOTS),
    case("record-section-longer-than-its-relocations", MODULE, sh(PFE, sh_size=0x48), OK),
    case("record-section-nobits", MODULE, sh(PFE, sh_type=SHT_NOBITS), OK, summary__slots=0),
    case("record-relocations-for-another-section", MODULE, sh(RELA_PFE, sh_info=2), OK),
    case("record-relocations-for-no-section", MODULE, sh(RELA_PFE, sh_info=MASK64), OK),
    case("record-relocations-end-inside-a-row", MODULE, sh(RELA_PFE, sh_size=0x8F),
         ragged(".rela__patchable_function_entries", 143, 24)),
    case("record-relocations-in-rows-of-16-bytes", MODULE, sh(RELA_PFE, sh_entsize=16),
         "section .rela__patchable_function_entries: wrong sh_entsize: found 16, expected 24"),
    case("record-relocations-of-another-type", MODULE, sh(RELA_PFE, sh_type=9), OK),
    case("record-relocation-across-two-slots", MODULE, rela(RELA_PFE, 1, r_offset=4), SECTION_14 + OUTSIDE_SLOTS),
    case("record-relocation-behind-the-slots", MODULE, rela(RELA_PFE, 1, r_offset=0x30), SECTION_14 + OUTSIDE_SLOTS),
    case("record-relocation-at-max", MODULE, rela(RELA_PFE, 1, r_offset=MASK64 - 7), SECTION_14 + OUTSIDE_SLOTS),
    case("record-relocation-to-no-symbol", MODULE, rela(RELA_PFE, 1, r_info=46 << 32 | ABS64),
         SECTION_14 + "a record's relocation names no symbol of this file: found symbol 46, expected less than 46"),
    case("record-relocation-to-symbol-max", MODULE, rela(RELA_PFE, 1, r_info=0xFFFFFFFF << 32 | ABS64),
         SECTION_14 + "a record's relocation names no symbol of this file: found symbol 4294967295, expected less than "
         "46"),
    case("record-relocation-to-symbol-0", MODULE, rela(RELA_PFE, 1, r_info=ABS64),
         SECTION_14 + "a record names a symbol that is not defined here: found slot 1"),
    case("record-relocation-of-a-foreign-type", MODULE,
         lambda elf: elf.rela(RELA_PFE, 1, r_info=elf.relocation(RELA_PFE, 1, "r_info") & ~0xFFFF | 258),
         SECTION_14 + "a record has a relocation of another type: found type 258, expected type 257, a 64-bit address"),
    case("record-relocation-addend-behind-the-section", MODULE, rela(RELA_PFE, 1, r_addend=0x10000), OK,
         sites__1__status="unexpected"),
    case("record-relocation-addend-negative", MODULE, rela(RELA_PFE, 1, r_addend=MASK64 - 7), OK,
         sites__1__status="unexpected"),
    case("record-relocation-twice-for-one-slot", MODULE, rela(RELA_PFE, 1, r_offset=0),
         SECTION_14 + "a slot has two relocations: found slot 0"),
    case("module-without-symbols", MODULE, sh(".symtab", sh_type=1),
         "its records name nothing: found no symbol table: all symbols and relocations are stripped, expected .symtab "
         "– strip with --strip-debug alone (INSTALL_MOD_STRIP=1); no kernel loads the module"),
    case("object-with-bss-larger-than-the-file", OBJECT, sh(".bss", sh_size=1 << 32), OK,
         summary__by_status={"ready": 8}),
    case("object-record-in-another-section", OBJECT, rela(RELA_PFE, 0, r_info=3 << 32 | ABS64), OK),
    # programs
    case("program-records-at-the-end-of-the-address-space", PROGRAM, sh(PFE, sh_addr=MASK64 - 7),
         behind(PFE, "0xfffffffffffffff8 + 0x20")),
    case("program-records-end-at-the-end-of-the-address-space", PROGRAM, sh(PFE, sh_addr=MASK64 - 31),
         behind(PFE, "0xffffffffffffffe0 + 0x20")),
    case("program-records-not-a-multiple", PROGRAM, sh(PFE, sh_size=0x1C),
         f"record table 0x2000..0x201c: {NO_FIT.format(28)}"),
    case("program-records-not-loaded", PROGRAM, sh(PFE, sh_flags=0), "record table 0x2000..0x2020: " + NOT_ONE),
    case("program-records-empty", PROGRAM, sh(PFE, sh_size=0), OK, summary__slots=0),
]  # fmt: skip

# -- ppc64le: stubs out of line, far calls, early boot ---------------------------------------------------------

AREAS = ("ftrace_ool_stub_text", "ftrace_ool_stub_text_end", "ftrace_ool_stub_inittext")
ROW, READ = 16, 0xC000000000000A68  # vfs_read in vmlinux-ool
PPC_NOP = 0x6000_0000
LAST_TEXT, LAST_INIT = 0xC000000000000DC0, 0xC000000000001BA0  # the last slots of the areas that end them
KERNEL_TEXT, KERNEL_DATA = 0xC000000000000400, 0xC000000000002400


def word_is(va: int, *words: int) -> Build:
    return lambda elf: struct.pack_into(f"<{len(words)}I", elf.raw, elf.pos(va), *words)


def count_is(area: str, n: int) -> Build:
    return lambda elf: word_is(elf.value(area + "_count"), n)(elf)


def words_at(symbol: str, offset: int, *words: int) -> Build:
    return lambda elf: word_is(elf.value(symbol) + offset, *words)(elf)


def calls(symbol: str, offset: int, *targets: str) -> Build:
    """A `bl` to each of the targets, one behind the other."""

    def build(elf: Elf) -> object:
        first = elf.value(symbol) + offset
        distances = [elf.value(name) - first - 4 * n for n, name in enumerate(targets)]
        return word_is(first, *[0x4800_0001 | distance & 0x3FF_FFFC for distance in distances])(elf)

    return build


def segment_1(**fields: int) -> Build:
    return lambda elf: [elf.put(PHDR, elf.get(EHDR, 0, "e_phoff") + PHDR_SIZE, *one) for one in fields.items()]


def all_named(symbol: str) -> Build:
    """Every symbol has the name of that one."""
    return lambda elf: [
        elf.put(SYM, at, "st_name", elf.get(SYM, elf.symbol(symbol), "st_name")) for at in elf.symbols()
    ]


def without(symbol: str, size: int, bits: int, mask: int, new: int = PPC_NOP) -> Build:
    """The instructions of that pattern in `size` bytes of code become another one."""

    def build(elf: Elf) -> object:
        first, found = elf.pos(elf.value(symbol)), 0
        for at in range(first, first + size, 4):
            if struct.unpack_from("<I", elf.raw, at)[0] & mask == bits:
                struct.pack_into("<I", elf.raw, at, new)
                found += 1
        assert found
        return elf

    return build


def row_of(elf: Elf, va: int) -> int:
    """Row of the relocation at va."""
    n = elf.of_sec(".rela.dyn", "sh_size") // RELA_SIZE
    return next(row for row in range(n) if elf.relocation(".rela.dyn", row, "r_offset") == va)


def record_relocation(row: int, **fields: int) -> Build:
    """Change the relocation that fills slot `row`."""
    return lambda elf: elf.rela(".rela.dyn", row_of(elf, elf.value("__start_mcount_loc") + 8 * row), **fields)


def record_is(row: int, value: int) -> Build:
    """Both the word of a slot and its relocation."""
    return both(record_relocation(row, r_addend=value), slot_is(row, value))


def relocation_at(symbol: str, offset: int) -> Build:
    """The relocation of b_ctor, which no record needs, is there instead; without a symbol, at an address."""

    def build(elf: Elf) -> object:
        va = (elf.value(symbol) if symbol else 0) + offset
        return elf.rela(".rela.dyn", row_of(elf, elf.value("b_ctor")), r_offset=va)

    return build


TRAMPS = ("ftrace_tramp_text", "ftrace_tramp_init")
TOC_LOAD = (0xE84D_0000, 0xFFFF_0003)  # ld r2,X(r13)
OPS_LOAD = (0xE80B_FFF0, 0xFC1F_FFFF)  # ld rX,-16(r11)
CALL = (0x4800_0001, 0xFC00_0003)  # bl

SIZES = {AREAS[0]: (4, 96), AREAS[1]: (17, 408), AREAS[2]: (11, 264)}  # slots and bytes
NOT_EMPTY = (
    "a stub slot that the kernel will hand out is not empty: found ftrace_ool_stub_text_end – another tool patched "
    "this image"
)
READ_SITE, LATE_SITE = "vfs_read (row 16, .text+0x868)", "b_late (row 31, .init.text+0x658)"
NO_SLOT = "out of reach: no free stub slot that its branch reaches"
EARLY = "it runs before setup_paca is done, when ftrace_caller finds no paca (--force-early overrides)"
FAR_AWAY = "b_late (row 31, .init.text+0xbf8): out of reach: -0x2000330 bytes to ftrace_caller, "
SPAN = "a call spans -0x2000000..+0x1fffffc"
TABLE_PPC = "record table 0xc000000000001c10..0xc000000000001d10: "
NO_FREE_SLOT = unpatchable(f"{READ_SITE}: {NO_SLOT}")
NOT_A_SITE = unpatchable(f"{READ_SITE}: unexpected words, or not at a function's entry")
DISAGREE = unpatchable(f"{READ_SITE}: its record's word and relocation disagree")
TOO_FAR = unpatchable(FAR_AWAY + SPAN)
TAIL_TOO_FAR = unpatchable(f"{FAR_AWAY}-0x200003c to text tail, {SPAN}")
NO_TRAMPS = both(*[sym(name, st_shndx=0) for name in TRAMPS])


def unfit(area: str, size: int | None = None, n: int | None = None, each: int = 24) -> str:
    n, size = SIZES[area][0] if n is None else n, SIZES[area][1] if size is None else size
    return (
        f"{area}: an area of out-of-line stubs does not fit the kernel's code: found {size} bytes for {n} stubs, "
        f"expected {each} bytes each"
    )


def missing(area: str) -> str:
    return f"an area of out-of-line stubs is missing: found no {area} with its count"


NO_OPS_IN_STUBS = unfit(AREAS[0], each=16)

PPC64LE = [
    case("ool-untouched-but-for-the-flags-of-the-machine", OOL, ehdr(e_flags=0), OK, DONE),
    # the areas of stubs
    *[case(f"ool-count-of-{area}-is-{n:#x}", OOL, count_is(area, n), OK, unfit(area, n=n))
      for area in AREAS for n in (0, 1, 100, 0xFFFF_FFFF)],
    *[case(f"ool-size-of-{area}-is-{n:#x}", OOL, sym(area, st_size=n), OK, unfit(area, n))
      for area in AREAS for n in (0, 8, MASK64)],
    *[case(f"ool-no-{area}", OOL, sym(area, st_shndx=0), OK, missing(area)) for area in AREAS],
    *[case(f"ool-no-{area}-count", OOL, sym(f"{area}_count", st_shndx=0), OK, missing(area)) for area in AREAS],
    case("ool-count-in-bss", OOL, sym(AREAS[1] + "_count", st_value=0xC000000000002800), OK, missing(AREAS[1])),
    case("ool-count-at-max", OOL, sym(AREAS[1] + "_count", st_value=MASK64), OK, missing(AREAS[1])),
    case("ool-count-misaligned", OOL, moved(AREAS[1] + "_count", 1), OK, unfit(AREAS[1], n=0)),
    case("ool-count-on-the-last-byte-of-data", OOL, sym(AREAS[1] + "_count", st_value=0xC000000000002747), OK,
         unfit(AREAS[1], n=192)),
    case("ool-area-in-data", OOL, sym(AREAS[1], st_value=KERNEL_DATA), OK, NOT_EMPTY),
    case("ool-area-in-bss", OOL, sym(AREAS[1], st_value=0xC000000000002800), OK, unfit(AREAS[1])),
    case("ool-area-nowhere", OOL, sym(AREAS[1], st_value=NOWHERE), OK, unfit(AREAS[1])),
    case("ool-area-at-max", OOL, sym(AREAS[1], st_value=MASK64), OK, unfit(AREAS[1])),
    case("ool-area-misaligned", OOL, moved(AREAS[1], 2), OK, (5, None)),
    case("ool-area-over-functions", OOL, sym(AREAS[1], st_value=KERNEL_TEXT), OK, (5, None)),
    case("ool-area-one-slot-down", OOL, moved(AREAS[1], -24), OK, NOT_EMPTY),
    case("ool-area-one-slot-up", OOL, moved(AREAS[1], 24), OK, DONE),
    case("ool-area-over-another", OOL, lambda elf: elf.sym(AREAS[0], st_value=elf.value(AREAS[1])), OK),
    case("ool-slot-that-is-handed-out-not-empty", OOL, word_is(0xC000000000000C40, 1), OK, NOT_EMPTY),
    case("ool-only-free-slot-not-empty", OOL, word_is(LAST_TEXT + 8, 1), OK, NO_FREE_SLOT),
    case("ool-relocation-in-the-only-free-slot", OOL, relocation_at("", LAST_TEXT), OK, NO_FREE_SLOT),
    case("ool-relocation-in-the-middle-of-the-only-free-slot", OOL, relocation_at("", LAST_TEXT + 16), OK,
         NO_FREE_SLOT),
    case("ool-relocation-into-the-only-free-slot-from-before", OOL, relocation_at("", LAST_TEXT - 4), OK, NOT_EMPTY),
    case("ool-relocation-in-the-only-free-slot-of-init-text", OOL, relocation_at("", LAST_INIT), OK,
         unpatchable(f"{LATE_SITE}: {NO_SLOT}"), choice="b_late"),
    # records whose word and relocation disagree
    case("ool-word-of-the-record-is-0", OOL, slot_is(ROW, 0), OK, DISAGREE),
    case("ool-word-of-the-record-is-the-next-one", OOL, slot_is(ROW, READ + 4), OK, DISAGREE),
    case("ool-word-of-another-record-is-0", OOL, slot_is(ROW - 1, 0), OK),
    case("ool-relocation-of-the-record-is-another-one", OOL, record_relocation(ROW, r_addend=READ + 4), OK, NO_SITE),
    case("ool-relocation-of-the-record-is-none", OOL, record_relocation(ROW, r_info=0), OK, DISAGREE),
    case("ool-relocation-of-the-record-is-unaligned", OOL, record_relocation(ROW, r_info=43), OK, DISAGREE),
    case("ool-relocation-of-the-record-has-a-symbol", OOL, record_relocation(ROW, r_info=1 << 32 | 22), OK),
    case("ool-relocation-of-the-record-is-elsewhere", OOL, record_relocation(ROW, r_offset=KERNEL_DATA), OK, DISAGREE),
    case("ool-two-relocations-of-one-record", OOL, relocation_at("__start_mcount_loc", 8 * ROW),
         TABLE_PPC + "a slot has two relocations: found slot 16"),
    case("ool-relocation-across-two-records", OOL, relocation_at("__start_mcount_loc", 4),
         TABLE_PPC + "a relocation lies across two slots: found 0xc000000000001c14"),
    case("ool-relocations-not-loaded", OOL, sh(".rela.dyn", sh_flags=0), OK, DONE),
    case("ool-relocations-in-rows-of-16-bytes", OOL, sh(".rela.dyn", sh_entsize=16),
         "section .rela.dyn: wrong sh_entsize: found 16, expected 24"),
    case("ool-all-records-the-same", OOL, both(*[record_is(n, READ) for n in range(32)]), OK,
         unpatchable(*[f"vfs_read (row {n}, .text+0x868): {SEVERAL}" for n in range(3)], "…", n=32)),
    case("ool-record-in-the-big-endian-code-of-the-head", OOL, record_is(ROW, 0xC000000000000010), OK, NO_SITE),
    case("ool-no-records", OOL, lambda elf: elf.sym("__stop_mcount_loc", st_value=elf.value("__start_mcount_loc")), OK,
         NO_SITE, summary__slots=0),
    # the site
    case("ool-site-is-a-branch-to-nowhere", OOL, word_is(READ, 0x4800_0400), OK, NOT_A_SITE),
    case("ool-site-is-a-branch-to-itself", OOL, word_is(READ, 0x4800_0000), OK, NOT_A_SITE),
    case("ool-site-is-the-end-of-a-stub", OOL,
         both(word_is(READ, 0x4800_0000 | LAST_TEXT + 8 - READ),
              word_is(LAST_TEXT + 8, 0x7C08_02A6, 0x4800_0001, 0x7C08_03A6, 0x4BFF_FFF0)),
         OK, NOT_A_SITE),
    *[case(f"ool-st-other-of-the-function-is-{n << 5:#x}", OOL, sym("vfs_read", st_other=n << 5), OK, NO_SITE)
      for n in (0, 1, 2, 4, 7)],
    # the trampoline
    case("ool-trampoline-without-its-load-of-the-ops", OOL, without("ftrace_caller", 0xA8, *OPS_LOAD), OK,
         NO_OPS_IN_STUBS),
    case("ool-trampoline-without-its-load-of-the-toc", OOL, without("ftrace_caller", 0xA8, *TOC_LOAD), OK, DONE),
    case("ool-trampoline-of-zeros", OOL, words_at("ftrace_caller", 0, *[0] * 42), OK, NO_OPS_IN_STUBS),
    case("ool-trampoline-of-ones", OOL, words_at("ftrace_caller", 0, *[0xFFFF_FFFF] * 42), OK, NO_OPS_IN_STUBS),
    case("ool-trampoline-missing", OOL, sym("ftrace_caller", st_shndx=0), OK, ONLY_REGS_CALLER),
    case("ool-trampoline-on-the-last-word-of-text", OOL, sym("ftrace_caller", st_value=0xC000000000000E54), OK,
         NO_OPS_IN_STUBS),
    case("ool-trampoline-in-the-head", OOL, sym("ftrace_caller", st_value=0xC000000000000010), OK, NO_OPS_IN_STUBS),
    case("ool-ops-missing", OOL, sym("ftrace_list_ops", st_shndx=0), OK, NO_FUNCTION.format("ftrace_list_ops")),
    case("ool-ops-too-small", OOL, sym("ftrace_list_ops", st_size=207), OK, small_ops(1, 207, 208)),
    case("ool-ops-just-large-enough", OOL, sym("ftrace_list_ops", st_size=208), OK, DONE),
    case("ool-ops-at-max", OOL, sym("ftrace_list_ops", st_value=MASK64), OK, NO_OPS.format("0xffffffffffffffff")),
    case("ool-ops-without-end", OOL, sym("ftrace_list_ops", st_size=MASK64), OK, NO_OPS.format("0xc000000000000f30")),
    # init text
    *[case(f"ool-{symbol.strip('_')}-is-{value:#x}", OOL, sym(symbol, st_value=value), OK)
      for symbol in ("_sinittext", "_einittext", "__init_begin") for value in (0, MASK64)],
    case("ool-init-text-without-bounds", OOL,
         both(*[sym(name, st_shndx=0) for name in ("_sinittext", "_einittext", "__init_begin", "__init_end")]), OK,
         (5, None)),
    # early boot
    case("ool-early-setup-missing", OOL, sym("early_setup", st_shndx=0), OK, DONE),
    case("ool-setup-paca-missing", OOL, sym("setup_paca", st_shndx=0), OK, DONE),
    case("ool-early-functions-are-refused-without-early-setup", OOL, sym("early_setup", st_shndx=0), OK,
         unpatchable(f"fixup_boot_paca (row 30, .init.text+0x640): {EARLY}"), choice="fixup_boot_paca"),
    case("ool-early-setup-in-data", OOL, sym("early_setup", st_value=KERNEL_DATA), OK, DONE),
    case("ool-early-setup-at-max", OOL, sym("early_setup", st_value=MASK64), OK, DONE),
    case("ool-early-setup-is-a-loop", OOL, words_at("early_setup", 0x1C, 0x4800_0000), OK, DONE),
    case("ool-early-setup-calls-itself", OOL, words_at("early_setup", 0x1C, 0x4BFF_FFE5), OK, DONE),
    case("ool-early-setup-calls-nothing", OOL, without("early_setup", 0x98, *CALL), OK, DONE),
    case("ool-early-setup-calls-everything", OOL,
         calls("early_setup", 12, "vfs_write", "start_kernel", "b_late", "ftrace_caller", "vfs_read", "setup_paca"), OK,
         unpatchable(f"{READ_SITE}: {EARLY}")),
    case("ool-early-setup-jumps-out-of-the-kernel", OOL, words_at("early_setup", 0x1C, 0x49FF_FFFC), OK, DONE),
    # far calls
    case("far-no-toc", FAR, sym(".TOC.", st_shndx=0), OK, TOO_FAR, choice="b_late"),
    case("far-no-toc-is-needed-nearby", FAR, sym(".TOC.", st_shndx=0), OK, DONE),
    *[case(f"far-toc-is-{value:#x}", FAR, sym(".TOC.", st_value=value), OK, TOO_FAR, choice="b_late")
      for value in (0, MASK64, 0xC000000080010000, 1 << 63)],
    case("far-trampoline-without-its-load-of-the-toc", FAR, without("ftrace_caller", 0xC4, *TOC_LOAD), OK, TOO_FAR,
         choice="b_late"),
    case("far-trampoline-with-another-load-of-the-toc", FAR, without("ftrace_caller", 0xC4, *TOC_LOAD, 0xE84D_7FFC), OK,
         DONE, choice="b_late"),
    case("far-trampoline-missing", FAR, sym("ftrace_caller", st_shndx=0), OK, ONLY_REGS_CALLER, choice="b_late"),
    case("far-no-trampoline-with-registers", FAR, sym("ftrace_regs_caller", st_shndx=0), OK, DONE, choice="b_late"),
    case("far-trampoline-with-registers-nowhere", FAR, sym("ftrace_regs_caller", st_value=NOWHERE), OK,
         choice="b_late"),
    case("far-no-trampolines-of-the-kernel", FAR, NO_TRAMPS, OK, DONE, choice="b_late"),
    case("far-trampolines-not-empty", FAR, both(*[words_at(name, 0, 1) for name in TRAMPS]), OK, DONE, choice="b_late"),
    case("far-trampolines-not-empty-at-their-ends", FAR, both(*[words_at(name, 16, 1) for name in TRAMPS]), OK, DONE,
         choice="b_late"),
    *[case(f"far-trampolines-at-{value:#x}", FAR, both(*[sym(name, st_value=value) for name in TRAMPS]), OK,
           choice="b_late") for value in (0, NOWHERE, MASK64, MASK64 - 15, 0xC000000002001800, 0xC000000002000C52)],
    case("far-relocation-into-the-trampoline", FAR, relocation_at(TRAMPS[1], 12), OK, DONE, choice="b_late"),
    case("far-nothing-is-free", FAR,
         both(*[words_at(name, 0, 1) for name in TRAMPS],
              lambda elf: elf.raw.__setitem__(slice(0x2404, 0x3000), b"\xff" * 0xBFC)),
         OK, TAIL_TOO_FAR.replace("3c", "1c"), choice="b_late"),
    *[case(f"far-{symbol.strip('_')}-is-{value:#x}", FAR, both(NO_TRAMPS, sym(symbol, st_value=value)), OK,
           choice="b_late") for symbol in ("__init_begin", "_etext") for value in (0, 1, MASK64)],
    case("far-no-init-begin", FAR, both(*[sym(name, st_shndx=0) for name in (*TRAMPS, "__init_begin")]), OK,
         TAIL_TOO_FAR, choice="b_late"),
    case("segment-from-the-last-bytes-on", CALLOPS, segment_1(p_offset=MASK64),
         f"{ELSEWHERE}: found .init.text at 0x2000, expected 0xffffffffffffffff, from where it is loaded"),
    case("object-record-in-front-of-its-section", OBJECT, rela(RELA_PFE, 0, r_addend=MASK64 - 1), OK,
         sites__0__offset=None, sites__0__status="unexpected"),
    case("module-with-an-empty-build-id", MODULE, lambda elf: elf.raw.__setitem__(
         elf.of_sec(".note.gnu.build-id", "sh_offset") + 4, 0), OK, build_id=None),
    case("segment-at-another-place-than-its-sections", CALLOPS, segment_1(p_offset=0x3000),
         f"{ELSEWHERE}: found .init.text at 0x2000, expected 0x3000, from where it is loaded"),
    case("far-segments-missing", FAR, both(NO_TRAMPS, ehdr(e_phnum=0)), OK, TAIL_TOO_FAR, choice="b_late"),
    *[case(f"far-segment-{field}-is-{value:#x}", FAR, both(NO_TRAMPS, segment_1(**{field: value})), choice="b_late")
      for field in ("p_offset", "p_vaddr", "p_filesz") for value in (0, MASK64)],
    case("far-linker-stubs-of-one-name-to-nowhere", FAR, all_named("00000033.long_branch.island"), OK),
]  # fmt: skip

# -- cut, and changed at random --------------------------------------------------------------------------------


def cut_at(end: int) -> Build:
    return lambda elf: elf.raw.__delitem__(slice(end, None))


def truncated(fixture: str) -> list[Case]:
    """The file cut inside every header and table, and beside their ends."""
    elf = Elf(fixture)
    size, shoff = len(elf.raw), elf.get(EHDR, 0, "e_shoff")
    ends = {4, 5, 6, 15, 16, 17, 40, 63, 64, 65, 64 + 20, 64 + PHDR_SIZE, size // 2, size - 1, shoff - 1, shoff}
    for index in range(elf.n_sections()):
        at = elf.header(index)
        ends |= {at + 1, at + 32, at + SHDR_SIZE - 1}
        if elf.get(SHDR, at, "sh_type") not in (0, SHT_NOBITS):
            first, length = elf.get(SHDR, at, "sh_offset"), elf.get(SHDR, at, "sh_size")
            ends |= {first, first + 1, first + length // 2, first + length - 1}
    table = shoff, shoff + SHDR_SIZE * elf.n_sections()
    found = []
    for end in sorted(end for end in ends if 4 <= end < size):
        message = None
        if end < 16:
            message = outside("ELF header", "0x0..0x10", end)
        elif end < 64:
            message = outside("ELF header", "0x0..0x40", end)
        elif end < table[1]:
            message = outside("section header table", f"{table[0]:#x}..{table[1]:#x}", end)
        found.append(case(f"{fixture}-cut-at-{end:#x}", fixture, cut_at(end), (3, message)))
    return found


TRUNCATED = [one for fixture in (CALLOPS, MODULE) for one in truncated(fixture)]


def flipped(seed: int) -> Case:
    """One to eight random bytes of headers, symbols, relocations and records changed; the seed says which."""
    chance = random.Random(seed)
    fixture = chance.choice((CALLOPS, PFE2, EXEC, MODULE, OBJECT, PROGRAM))

    def build(elf: Elf) -> object:
        chance = random.Random(seed)
        chance.choice(range(6))
        table = elf.get(EHDR, 0, "e_shoff"), SHDR_SIZE * elf.n_sections()
        areas = [(0, 64), (64, PHDR_SIZE * elf.get(EHDR, 0, "e_phnum")), table, table]
        for index in range(elf.n_sections()):
            at = elf.header(index)
            if elf.get(SHDR, at, "sh_type") in (2, 3, SHT_RELA, SHT_RELR):
                areas.append((elf.get(SHDR, at, "sh_offset"), elf.get(SHDR, at, "sh_size")))
        if fixture in KERNELS:
            areas.append((elf.slot(0), 8 * N_SLOTS))
        for _ in range(chance.randint(1, 8)):
            first, size = chance.choice([area for area in areas if area[1]])
            at = first + chance.randrange(size)
            # the magic and the two bytes behind it have cases of their own; here they would hide the rest
            if at >= 6:
                elf.raw[at] ^= chance.choice((1, 0x80, 0xFF, chance.randrange(1, 256)))
        return elf

    return case(f"{fixture}-flips-{seed}", fixture, build)


FLIPPED = [flipped(seed) for seed in range(150)]


def flipped_code(seed: int) -> Case:
    """Some words of ftrace_caller, the early functions, the stubs and the tables of a ppc64le kernel changed."""
    chance = random.Random(1000 + seed)
    fixture = chance.choice((OOL, FAR))
    choice = chance.choice(("vfs_read", "b_late", "b_mid asm_toc", "* --skip-unpatchable", "* --force-early"))

    def build(elf: Elf) -> object:
        chance = random.Random(seed)
        spots = [elf.pos(elf.value(name)) for name in ("ftrace_caller", "early_setup", "initialise_paca", *TRAMPS)]
        spots += [elf.pos(elf.value(name)) - 8 for name in AREAS] if fixture == OOL else []
        spots += [elf.of_sec(".rela.dyn", "sh_offset"), elf.slot(0), elf.of_sec(".symtab", "sh_offset"), elf.header(0)]
        sizes = [0x80] * (len(spots) - 4) + [RELA_SIZE * 40, 256, elf.of_sec(".symtab", "sh_size"), SHDR_SIZE * 21]
        for _ in range(chance.randint(1, 6)):
            which = chance.randrange(len(spots))
            at = spots[which] + chance.randrange(sizes[which])
            elf.raw[at] ^= chance.choice((1, 4, 0x80, 0xFF, chance.randrange(1, 256)))
        return elf

    return case(f"{fixture}-code-{seed}", fixture, build, choice=choice)


FLIPPED_CODE = [flipped_code(seed) for seed in range(80)]

CASES = [*HEADERS, *SECTIONS, *SPECIAL, *PPC64LE, *TRUNCATED, *FLIPPED, *FLIPPED_CODE]
