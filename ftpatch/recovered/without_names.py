"""A kernel that has no names at all: its records by structure, its functions by their addresses.

Without kallsyms nothing says what is code. Pointers to places that look like patch sites, many of them side by side,
are the record table; text and init text are where these places lie. A function has its address for a name, which no
name in C looks like. Functions without a record, and whatever else is asked for by its name, are not known.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ftpatch.arch.shape import MATCH_NONE, WINDOW_BEFORE, Shape
from ftpatch.arrays import I64, U64, Mask, distinct, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.recovered import Recovered
from ftpatch.recovered.layout import Span, sections_of
from ftpatch.recovered.layout_names import CODE
from ftpatch.recovered.left_out import with_more
from ftpatch.recovered.memory import Memory
from ftpatch.recovered.records import BOUNDS, record_table, words_between
from ftpatch.recovered.records_words import EMPTY
from ftpatch.recovered.symbols import NO_SYMBOLS

MANY = 64  # records of a table
APART = 1 << 20  # bytes without a record between text and init text
TEXTS = (".text", ".init.text")  # in the order of the linker's script
ZEROS, PIECE = 64, 1 << 16  # bytes of zeros that end code, and how far they are looked for
SLOT, PAGE, LINE = 8, 1 << 12, 16
AT_ONCE = 1 << 18  # pointers that are looked at together


def with_addresses(image: Image, memory: Memory | None = None) -> Image | None:
    """The image with a symbol for each function that has a record, and the bounds of these; None where no table shows.

    memory: what is loaded where, of a kernel whose sections are not known.
    """
    nameless = replace(image, recovered=Recovered(NO_SYMBOLS, "none", memory is not None))
    if memory is not None:
        code = _code(nameless, memory)
        shdr, names = sections_of(memory, NO_SYMBOLS, image.arch, code)
        nameless = replace(nameless, shdr=shdr, names=names)
        if not code:
            return None
    table = record_table(nameless)
    return None if table is None else _named(nameless, table.start, table.stop)


def _code(image: Image, memory: Memory) -> list[Span]:
    """Where the code is that the longest run of pointers to sites names; nothing where there is no such run."""
    shdr, names = sections_of(memory, NO_SYMBOLS, image.arch)
    everything = replace(image, shdr=shdr.copy(), names=names)
    rows = everything.rela[0]
    rows = rows[(rows["r_info"] & np.uint64(0xFFFF_FFFF)) == np.uint64(image.arch.relative)]
    best = np.zeros(0, np.uint64)
    for va, pos, size in zip(memory.va.tolist(), memory.pos.tolist(), memory.size.tolist(), strict=True):
        words = memory.data[pos : pos + size - size % SLOT].view("<u8").astype(np.uint64)
        off = (rows["r_offset"] - np.uint64(va)).view(np.int64)
        inside = (off >= 0) & (off < SLOT * len(words)) & (off % SLOT == 0)
        words[off[inside] // SLOT] = rows["r_addend"][inside].view(np.uint64)
        at = memory.pos_of(words)
        index = np.flatnonzero((at >= WINDOW_BEFORE) & (words != 0))
        for shape in (shape for shape in image.arch.shapes if not shape.program):
            sites = np.zeros(len(words), dtype=bool)
            sites[index] = _are_sites(memory, shape, at[index])
            run = _longest(sites)
            best = words[run] if run.stop - run.start > len(best) else best
    return _spans(memory, best) if len(best) >= MANY else []


def _are_sites(memory: Memory, shape: Shape, pos: I64) -> Mask:
    """Which file positions look like those of records of a layout."""
    start, sites = pos - WINDOW_BEFORE, np.zeros(len(pos), dtype=bool)
    index = np.flatnonzero((start + shape.reads <= len(memory.data)) & (pos % shape.unit == 0))
    for first in range(0, len(index), AT_ONCE):
        some = index[first : first + AT_ONCE]
        octets = memory.data.rows(start[some], shape.reads)
        window = octets.astype(np.uint32) if shape.unit == 1 else octets.view("<u4").astype(np.uint32)
        sites[some] = shape.match(window) != MATCH_NONE
    return sites


def _longest(member: Mask) -> slice:
    """The longest run of members."""
    edge = np.flatnonzero(np.diff(np.concatenate(([0], member.astype(np.int8), [0]))))
    starts, ends = edge[::2], edge[1::2]
    longest = int(np.argmax(ends - starts)) if len(starts) else 0
    return slice(int(starts[longest]), int(ends[longest])) if len(starts) else slice(0, 0)


def _spans(memory: Memory, records: U64) -> list[Span]:
    """Text and init text around these places: from where the first piece begins, to zeros behind the last one."""
    places = distinct(records)
    breaks = np.flatnonzero(np.diff(places.view(np.int64)) > APART) + 1
    groups = np.split(places, breaks)
    spans = []
    for number, group in enumerate(groups):
        start = int(memory.va[memory.va <= group[0]][-1]) if number == 0 else int(group[0]) & -PAGE
        name = TEXTS[min(number, len(TEXTS) - 1)]
        spans.append(Span(name, start, _end_of_code(memory, int(group[-1])), CODE))
    return spans


def _end_of_code(memory: Memory, last: int) -> int:
    """Where zeros begin behind a place in code, or code is looked at no farther."""
    pos = int(memory.pos_of(np.array([last], dtype=np.uint64))[0])
    used = memory.data[pos : pos + PIECE] != 0
    runs = np.flatnonzero(~np.convolve(used, np.ones(ZEROS, dtype=np.int8)).astype(bool)[ZEROS - 1 : len(used)])
    return last + (int(runs[0]) if len(runs) else len(used)) & -LINE


def _named(image: Image, start: int, stop: int) -> Image:
    """The image with a function at each record's, named by its address, and the table's bounds."""
    flat = image.recovered is not None and image.recovered.flat
    entry = _entries(image, start, stop)
    texts = [f"0x{va:x}" for va in entry.tolist()]
    strtab = b"\0" + b"".join(text.encode() + b"\0" for text in texts)
    rows = np.zeros(len(entry), t.SYM)
    lengths = np.array([len(text) + 1 for text in texts], dtype=np.int64)
    rows["st_name"], rows["st_value"] = 1 + np.cumsum(lengths) - lengths, entry
    sec, off = image.place(entry)
    room = image.shdr["sh_size"][sec] - off.view(np.uint64)
    ahead = np.append(np.diff(entry), np.uint64(t.LAST_VA >> 1)) if len(entry) else entry
    rows["st_size"], rows["st_info"], rows["st_shndx"] = np.minimum(ahead, room), t.STB_LOCAL << 4 | t.STT_FUNC, sec
    functions = replace(image, recovered=Recovered(t.Symbols(rows, strtab, sec), "none", flat))
    return with_more(functions, dict(zip(BOUNDS, (start, stop), strict=True)))


def _entries(image: Image, start: int, stop: int) -> U64:
    """Where the functions of the records begin, under the layout that most of them have."""
    values = words_between(image, start, stop)
    values = values[~is_in(values, EMPTY)]
    sec, off = image.place(values)
    best, most = values[:0], 0
    for shape in (shape for shape in image.arch.shapes if not shape.program and not shape.anywhere):
        window = image.window(sec, off, shape.reads)
        fits = shape.match(window) != MATCH_NONE
        if int(fits.sum()) > most:
            most, best = int(fits.sum()), (values + shape.to_entry(window).view(np.uint64))[fits]
    best = distinct(best)
    return best[image.place(best)[0] >= 0]
