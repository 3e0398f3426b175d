"""The letters that nm gives symbols: what kind of section a symbol is in, and whether other files see it.

    T t  code          D d  data         R r  read-only data    B b  no bytes in the file    A a  an absolute number
    W w  weak          V v  weak data    C    common            U    undefined               N n  not loaded

A small letter is local to its file; of weak ones it says that they are undefined. `i` is chosen when a program is
loaded, `u` unique in a process, `?` none of all this. Which it is follows from binding, type and section alone.
Source: GNU binutils 2.40, bfd/syms.c bfd_decode_symclass(), bfd/elf.c _bfd_elf_make_section_from_shdr().
"""

from __future__ import annotations

import re

import numpy as np

from ftpatch.arrays import I64, U8, Mask, Rows, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image

SHN_COMMON = 0xFFF2
STT_COMMON, STB_UNIQUE = 5, 10
# sections that linkers for PE files fill have letters of their own, whatever file they are in
PE_SECTION = re.compile(r"\.(?:drectve|([ei])data|(p)data)(?:[.$0-9].*)?", re.DOTALL)
# sections that are told by their names: those that are loaded are not asked
DEBUG_SECTION = re.compile(r"\.(?:debug|zdebug|line|stab|gnu\.debuglto_\.debug_|gnu\.linkonce\.wi\.|gdb_index$)")
# what binutils do not count as sections where nothing loads them
TABLES = (t.SHT_SYMTAB, t.SHT_SYMTAB_SHNDX, t.SHT_RELA, t.SHT_REL)
BYTE = {letter: ord(letter) for letter in "tdrbNnaWwVvCUiu?"}


def letters_of(image: Image, symbols: t.Symbols) -> U8:
    """nm's letter of each symbol, as a byte."""
    rows, bind, kind = symbols.rows, symbols.bind, symbols.type
    nowhere = symbols.shndx == t.SHN_UNDEF
    undefined = nowhere & is_in(rows["st_shndx"], (t.SHN_UNDEF, t.SHN_XINDEX))
    weak, data = bind == t.STB_WEAK, is_in(kind, (t.STT_OBJECT, STT_COMMON))
    of_section = np.append(section_letters(image), np.uint8(BYTE["a"]))  # NO_SECTION is the last: absolute
    # a number that no section has counts as absolute
    letter = of_section[np.where(nowhere & ~undefined, t.NO_SECTION, symbols.shndx)]
    letter[bind == t.STB_GLOBAL] -= 32  # in upper case
    letter[letter == BYTE["?"] - 32] = BYTE["?"]
    for which, text in (
        (~is_in(bind, (t.STB_LOCAL, t.STB_GLOBAL)), "?"),
        (bind == STB_UNIQUE, "u"),
        (weak, "W"),
        (weak & data, "V"),
        (kind == t.STT_GNU_IFUNC, "i"),
        (undefined, "U"),
        (undefined & weak, "w"),
        (undefined & weak & data, "v"),
        (rows["st_shndx"] == SHN_COMMON, "C"),
    ):
        letter[which] = BYTE[text]
    return letter


def section_letters(image: Image) -> U8:
    """The letter of a local symbol in each section."""
    return np.array([_section_letter(head, name) for head, name in zip(image.shdr, image.names, strict=True)], np.uint8)


def _section_letter(head: Rows, name: str) -> int:
    if match := PE_SECTION.fullmatch(name):
        return ord(match[1] or match[2] or "i")
    kind, flags = int(head["sh_type"]), int(head["sh_flags"])
    has_bytes, loaded = kind != t.SHT_NOBITS, bool(flags & t.SHF_ALLOC)
    if kind in TABLES and not loaded:
        return BYTE["a"]
    if flags & t.SHF_EXECINSTR:
        return BYTE["t"]
    if loaded and has_bytes:
        return BYTE["d" if flags & t.SHF_WRITE else "r"]
    if not has_bytes:
        return BYTE["b"]
    if not loaded and DEBUG_SECTION.match(name):
        return BYTE["N"]
    return BYTE["?" if flags & t.SHF_WRITE else "n"]


def has_line(image: Image, symbols: t.Symbols) -> Mask:
    """Which symbols nm lists: not those of sections and files, nor marks in code that only disassemblers read."""
    listed = ~is_in(symbols.type, (t.STT_SECTION, t.STT_FILE))
    listed[:1] = False  # the first row of every table is empty
    sign = image.arch.code_marks
    if sign:
        listed[_marks(symbols, symbols.rows_beginning(sign))] = False
    return listed


def _marks(symbols: t.Symbols, rows: I64) -> I64:
    """Those of the rows whose names are two characters long, or go on with a dot."""
    text = np.frombuffer(symbols.strtab + bytes(2), np.uint8)
    third = text[symbols.rows["st_name"][rows].astype(np.int64) + 2]
    return np.asarray(rows[(third == 0) | (third == ord("."))])
