"""Which code of a linked kernel is not executed as other code is, so that nothing may be added to it.

between symbols   X_text_start and X_text_end (X_text_begin): entry, idmap, hyp (nVHE, which runs at EL2 or is taken
                  from the host), kprobes, noinstr, exit, init and others
by section        .altinstr_replacement, .entry.text, .exit.text, .head.text, .rodata.text, .plt and others
alternatives      the code that the kernel copies over other code at boot, also where it lies between functions
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

import numpy as np

from ftpatch.arrays import I64, Mask
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image

BOUND = re.compile(r"(.*text)_(?:start|begin)")
SECTIONS = re.compile(r"altinst|entry|idmap|hyp|kprobes|noinstr|exit|head|rodata|fixup|tramp|vdso|plt|init")
INIT = re.compile(r"(?:__)?init_?text")
INIT_SECTION = ".init.text"
EXECUTABLE = 1  # PF_X
MAX_PARTS = 1 << 12  # names of parts of the text
# .altinstructions: its bounds; where in a row the distance to the new code stands, from itself
TABLE = (".altinstructions", "__alt_instructions", "__alt_instructions_end")
REPLACEMENT = 4


def special_ranges(image: Image, init: bool) -> list[tuple[int, int]]:
    """[start, end) of every part of the text that symbols bound. init: for code that init text alone will use."""
    symbols, ranges = image.symbols, []
    names = {name[at:] for name in _strings(symbols.strtab) for at in range(len(name)) if name.startswith("__", at)}
    symbols.look_up([*names, *(f"{bound[1]}_end" for name in names if (bound := BOUND.fullmatch(name)))])
    for name in sorted(names):
        bound = BOUND.fullmatch(name)
        if bound is None or (init and INIT.search(name)):
            continue
        start, end = symbols.value(name), symbols.value(f"{bound[1]}_end")
        if start is not None and end is not None and start < end:
            ranges.append((start, end))
    return ranges


def _strings(strtab: bytes) -> Iterator[str]:
    """The strings that end as the symbols in front of a part of the text do; a linker merges the tails of strings."""
    for tail in (b"text_start\0", b"text_begin\0"):
        for at in islice(t.places_of(tail, strtab), MAX_PARTS):
            start = strtab.rfind(b"\0", max(at - t.MAX_NAME, 0), at) + 1
            yield strtab[start : at + len(tail) - 1].decode("utf-8", "surrogateescape")


def special_sections(image: Image, init: bool) -> Mask:
    """Per section: its code is not for everyone, by its name."""
    names = image.names
    return np.array([bool(SECTIONS.search(name)) and not (init and name == INIT_SECTION) for name in names], dtype=bool)


def bounds_something(image: Image, row: int) -> bool:
    """Whether a symbol stands at the end of a part of the text that begins with another one: it claims nothing."""
    name = image.symbols.name(row)
    stem = name.removesuffix("_end")
    return stem != name and any(image.symbols.value(f"{stem}_{begin}") is not None for begin in ("start", "begin"))


def replacements(image: Image) -> tuple[I64, I64]:
    """(start, end) of the code that alternatives copy over other code, as int64."""
    content, first = _table(image)
    for row, length in reversed(image.arch.alternatives):
        if len(content) % row:
            continue
        rows = content.reshape(-1, row)
        fields = first + row * np.arange(len(rows), dtype=np.int64) + REPLACEMENT
        ahead = np.ascontiguousarray(rows[:, REPLACEMENT : REPLACEMENT + 4]).view("<i4").reshape(-1).astype(np.int64)
        start = fields + ahead
        return start, start + rows[:, length + 1].astype(np.int64)  # its length follows that of the old code
    nothing = np.zeros(0, dtype=np.int64)
    return nothing, nothing


def _table(image: Image) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], int]:
    """(bytes, va as a signed number) of the table of alternatives; no bytes where there is none."""
    section, low, high = TABLE
    for sec in image.sections_named(section):
        return image.content(sec), int(image.base[sec : sec + 1].view(np.int64)[0])
    start, end = image.symbols.value(low) or 0, image.symbols.value(high) or 0
    pos = image.pos_of_va(start) if start < end else -1
    content = image.data[pos : pos + end - start] if pos >= 0 else image.data[:0]
    return content, int(np.array([start], dtype=np.uint64).view(np.int64)[0])


def mapped_executable(image: Image, va: int, size: int) -> bool:
    """Whether bytes at an address are loaded from the file by an executable segment; a file without segments says no
    more than its sections do."""
    loads = image.phdr[image.phdr["p_type"] == t.PT_LOAD]
    start, end = loads["p_vaddr"], loads["p_vaddr"] + loads["p_filesz"]
    inside = (start <= np.uint64(va)) & (end >= np.uint64(va + size)) & (loads["p_flags"] & EXECUTABLE != 0)
    return bool(inside.any()) or not len(loads)
