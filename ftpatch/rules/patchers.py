"""Who else rewrites code at run time: static keys, static calls and alternatives, from their tables.

    __jump_table       16 bytes: s32 code, s32 target, s64 key      each relative to its own field
    .static_call_sites 8 bytes: s32 code, s32 key                   each relative to its own field
    .altinstructions   12 bytes: s32 code, s32 replacement, u16 feature, u8 length of code, u8 of the other
                       14 bytes: the same with a u32 of features and flags     x86 since Linux 6.3

In relocatable files the first field is a relocation. A row is as long as all of the table says: every one names code.
Source: include/linux/jump_label.h; arch/arm64/include/asm/alternative.h and arch/x86's, struct alt_instr.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.arch.shape import begins_with
from ftpatch.arrays import U8, U64
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.sites import static_calls

# name, section of a module, bounds in a kernel
KEYS = ("a static key", "__jump_table", "__start___jump_table", "__stop___jump_table")
KEY_ROW = 16  # bytes
CALLS = ("a static call", static_calls.SECTION, static_calls.START, static_calls.STOP)
ALTERNATIVES = ("an alternative", ".altinstructions", "__alt_instructions", "__alt_instructions_end")


def others(image: Image) -> Iterator[tuple[str, U64, U64]]:
    """(who, first va, end va) of all code that each mechanism rewrites, in the order of its table."""
    name, section, low, high = KEYS
    for start, _ in _table(image, section, low, high, KEY_ROW):
        yield name, start, start + _size_of_keys(image, start)
    name, section, low, high = CALLS
    if image.arch.static_calls is not None and image.arch.static_calls.sites:
        for start, _ in _table(image, section, low, high, static_calls.ENTRY):
            yield name, start, start + np.uint64(image.arch.call.size)
    name, section, low, high = ALTERNATIVES
    size = int(image.shdr["sh_size"][image.sections_named(section)].sum())
    for row, length in image.arch.alternatives:
        parts = list(_table(image, section, low, high, row))
        n = sum(len(start) for start, _ in parts)
        right = all(image.executable[image.place(start)[0]].all() for start, _ in parts) and n * row == size
        if right or (row, length) == image.arch.alternatives[-1]:
            yield from ((name, start, start + rows[:, length].astype(np.uint64)) for start, rows in parts)
            return


def _size_of_keys(image: Image, start: U64) -> U64:
    """Bytes of the code of each static key: a call's, or less where the machine has short jumps."""
    sizes = np.full(len(start), image.arch.call.size, dtype=np.uint64)
    for code in image.arch.short_keys:
        sizes[begins_with(image.words(*image.place(start), 0, len(code)), (code,))] = len(code) * image.arch.unit
    return sizes


def _table(image: Image, section: str, low: str, high: str, row: int) -> Iterator[tuple[U64, U8]]:
    return _linked(image, low, high, row) if image.linked else _relocated(image, section, row)


def _linked(image: Image, low: str, high: str, row: int) -> Iterator[tuple[U64, U8]]:
    first, last = image.symbols.value(low), image.symbols.value(high)
    if first is None or last is None or last <= first or (last - first) % row:
        return
    pos = image.pos_of_va(first)
    if pos < 0 or pos + last - first > len(image.data):
        return
    rows = image.data[pos : pos + last - first].reshape(-1, row)
    field = np.uint64(first) + np.arange(len(rows), dtype=np.uint64) * np.uint64(row)
    code = np.ascontiguousarray(rows[:, :4]).view("<i4").reshape(-1).astype(np.int64)
    yield field + code.view(np.uint64), rows


def _relocated(image: Image, section: str, row: int) -> Iterator[tuple[U64, U8]]:
    kinds, targets = image.shdr["sh_type"], image.shdr["sh_info"]
    for sec in image.sections_named(section):
        content = image.content(sec)
        rows = content[: len(content) // row * row].reshape(-1, row)
        for table in np.flatnonzero((kinds == t.SHT_RELA) & (targets == sec)).tolist():
            rela = image.rows(table, t.RELA)
            rela = rela[(rela["r_offset"] % np.uint64(row) == 0) & (rela["r_offset"] < np.uint64(rows.size))]
            rela = rela[rela["r_info"] >> 32 < len(image.symbols.rows)]
            symbol = rela["r_info"] >> 32
            place = image.symbols.shndx[symbol]
            off = image.symbols.rows["st_value"][symbol].view(np.int64) + rela["r_addend"]
            number = rela["r_offset"].view(np.int64) // row
            known = place > 0
            yield image.va(place[known], off[known]), rows[number[known]]
