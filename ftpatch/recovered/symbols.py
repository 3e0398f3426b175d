"""A kernel's own table of symbols as rows of an ELF symbol table, with what the code itself tells beside it.

kallsyms has an address, nm's letter and a name for each. It does not have sizes: a symbol ends where the next begins.
Which labels in code are functions it does not tell either: all are taken for such but those of the linker's script,
which only mark where something begins or ends.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, U8, Mask, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.recovered.kallsyms import Kallsyms
from ftpatch.recovered.marks import marks_of
from ftpatch.recovered.sizes import sizes_of

NO_SYMBOLS = t.Symbols(np.zeros(0, t.SYM), b"\0", np.zeros(0, np.int64))
TEXT, WEAK, WEAK_OBJECT, ABSOLUTE = b"tT", b"wW", b"vV", b"aA"


def unplaced(kallsyms: Kallsyms) -> t.Symbols:
    """The symbols without sections, for those who look for an address by its name."""
    n = len(kallsyms.va)
    rows = np.zeros(n, t.SYM)
    rows["st_name"], rows["st_value"] = kallsyms.starts, kallsyms.va
    rows["st_info"], rows["st_shndx"] = _info(kallsyms), t.SHN_ABS
    return t.Symbols(rows, kallsyms.strings, np.full(n, t.NO_SECTION, dtype=np.int64))


def _info(kallsyms: Kallsyms) -> U8:
    """st_info of each: what nm's letters say."""
    letter = kallsyms.letter
    weak = is_in(letter, np.frombuffer(WEAK + WEAK_OBJECT, np.uint8))
    bind = np.where(weak, t.STB_WEAK, np.where(letter < ord("a"), t.STB_GLOBAL, t.STB_LOCAL))
    code = is_in(letter, np.frombuffer(TEXT + WEAK, np.uint8))
    kind = np.where(code, t.STT_FUNC, np.where(is_in(letter, np.frombuffer(ABSOLUTE, np.uint8)), 0, t.STT_OBJECT))
    return np.asarray(bind << 4 | kind, dtype=np.uint8)


def placed(symbols: t.Symbols, image: Image) -> t.Symbols:
    """The symbols in the sections of an image, with sizes, and with the second entry that functions may have."""
    rows, va = symbols.rows.copy(), symbols.rows["st_value"].copy()
    absolute = (rows["st_info"] & 0xF == 0) | (va == 0)
    sec, off = image.place(va)
    sec = np.where(absolute, t.NO_SECTION, sec)
    code = (rows["st_info"] & 0xF) == t.STT_FUNC
    marks = marks_of(symbols.strtab, rows["st_name"].astype(np.int64), va, code)
    stub, far = image.arch.site_stub, image.arch.far
    for name in far.areas if far else ():  # of zeros that the kernel fills at boot
        marks[symbols.rows_named(name)] = True
    for name in (*stub.text, stub.init) if stub else ():  # which may be called like the end of something
        marks[symbols.rows_named(name)] = False
    code[code] = (sec[code] >= 0) & image.executable[np.maximum(sec[code], 0)] & ~marks[code]
    rows["st_info"][((rows["st_info"] & 0xF) == t.STT_FUNC) & ~code] &= 0xF0
    rows["st_size"] = sizes_of(image, va, sec, _whole(symbols, code, image))
    rows["st_size"][marks] = 0
    rows["st_shndx"] = np.where(sec >= 0, np.minimum(sec, t.SHN_LORESERVE - 1), t.SHN_ABS)
    functions = np.flatnonzero(code)
    rows["st_other"][functions] = _other(image, sec[functions], off[functions])
    return t.Symbols(rows, symbols.strtab, sec)


def _whole(symbols: t.Symbols, code: Mask, image: Image) -> Mask:
    """Which of these functions are functions, and no names of padding in front of one."""
    whole = code.copy()
    for start in image.arch.padding_names:
        whole[symbols.rows_beginning(start)] = False
    return whole


def _other(image: Image, sec: I64, off: I64) -> U8:
    """st_other of functions: whether the code between a global and a local entry stands at each."""
    other = np.zeros(len(sec), dtype=np.uint8)
    if image.arch.local_entry is None:
        return other
    distances = image.arch.local_entry(np.arange(256).astype(np.uint8))
    for code in image.arch.global_entry:
        words = image.words(sec, off, 0, len(code))
        there = np.logical_and.reduce([word.matches(words[:, i]) for i, word in enumerate(code)])
        other[there] = int(np.argmax(distances == image.arch.unit * len(code)))
    return other
