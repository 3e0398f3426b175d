"""Which addresses the entries of debug information cover: those of units, of functions, of blocks in them.

Source: DWARF 5, 2.17.3, 6.1.2, 7.21 and 7.25; DWARF 4, 2.17.3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np

from ftpatch.arrays import I64, U64, Rows
from ftpatch.elf import debug_numbers as n
from ftpatch.elf import tables as t
from ftpatch.elf.debug_entries import DAMAGE, DebugSections, Entry, Unit
from ftpatch.elf.debug_sections import extent
from ftpatch.errors import ChangedError

# Entries of .debug_rnglists.
END, BASE_ADDRESSX, STARTX_ENDX, STARTX_LENGTH, OFFSET_PAIR, BASE_ADDRESS, START_END, START_LENGTH = range(8)
MAX_SPANS, MAX_LIST = 1 << 12, 1 << 16  # of one entry; bytes of its list. The units of vmlinux files have up to 600
MAX_ITEM = 40  # bytes of a list for each span: a base address and the longest item
MAX_ALL = 1 << 18  # spans of all units of a file; those of vmlinux files have 6,000
MAX_UNITS = 1 << 16  # of one file; Debian's vmlinux files have 2,500, an allyesconfig kernel some 30,000
ADDRESSES = np.dtype([("start", "<u8"), ("size", "<u8")])
SPAN = np.dtype([("start", "<u8"), ("size", "<u8"), ("unit", "<i8")])  # code of the unit at a position of .debug_info

Span = tuple[int, int]  # [first va, va behind the last)


def extents(debug: DebugSections) -> Iterator[Span]:
    """[first byte, end) of every unit in .debug_info, up to the first that contradicts the section."""
    at, info = 0, debug.section(".debug_info")
    for _ in range(MAX_UNITS):
        if at + 12 > len(info):
            return
        end = extent(info, at)[0]
        if not at < end <= len(info):
            return
        yield at, end
        at = end


@dataclass(eq=False)
class UnitSpans:
    """Which units have code where: what .debug_aranges lists, and what units that are not listed say themselves (clang
    makes no such section). Both are read when they are first asked for, and kept."""

    debug: DebugSections

    def units_with(self, low: int, high: int) -> list[int]:
        """Positions of the units that have code in [low, high)."""
        high = min(high, t.LAST_VA)
        for rows in (self._listed, self._unlisted):
            there = (rows["start"] < np.uint64(high)) & (rows["start"] + rows["size"] > np.uint64(low))
            if there.any():
                return list(dict.fromkeys(rows["unit"][there].tolist()))
        return []

    def holders(self, va: U64, near: int) -> I64:
        """Position of the unit that has each va, or whose code begins at most `near` bytes behind it; −1: none has."""
        rows = self._listed
        found = _holders(rows, va, 0)
        if (found < 0).any():
            rows = np.concatenate([rows, self._unlisted])
            for reach in (0, near):
                missing = found < 0
                found[missing] = _holders(rows, va[missing], reach)
        return found

    @cached_property
    def _listed(self) -> Rows:
        sets = list(_listed(self.debug))
        rows = np.zeros(sum(len(addresses) for _, addresses in sets), SPAN)
        at = 0
        for unit, addresses in sets:
            part = rows[at : at + len(addresses)]
            part["start"], part["size"], part["unit"] = addresses["start"], addresses["size"], unit
            at += len(addresses)
        return rows

    @cached_property
    def _unlisted(self) -> Rows:
        listed = {unit for unit, _ in _listed(self.debug)}
        rows = ((low, high - low, pos) for pos, _ in extents(self.debug) if pos not in listed
                for low, high in _unit_spans(self.debug, pos))  # fmt: skip
        plausible = (row for row in rows if row[0] >= 0 and row[1] > 0 and row[0] + row[1] <= t.LAST_VA)
        return np.array(list(islice(plausible, MAX_ALL)), SPAN)


def _holders(rows: Rows, va: U64, near: int) -> I64:
    """The unit whose span each va is in or, with `near`, at most that many bytes in front of; −1: none."""
    rows = rows[rows["size"] > 0]
    if not len(rows):
        return np.full(len(va), -1, dtype=np.int64)
    rows = rows[np.argsort(rows["start"], kind="stable")]
    behind = np.searchsorted(rows["start"], va, side="right")
    before = rows[np.maximum(behind - 1, 0)]
    unit = np.where((behind > 0) & (va - before["start"] < before["size"]), before["unit"], -1)
    if near:
        following = rows[np.minimum(behind, len(rows) - 1)]
        soon = (unit < 0) & (behind < len(rows)) & (following["start"] - va <= np.uint64(near))
        unit = np.where(soon, following["unit"], unit)
    return np.asarray(unit, dtype=np.int64)


def _unit_spans(debug: DebugSections, pos: int) -> list[Span]:
    try:
        unit = Unit(debug, pos)
        return spans_of(unit, unit.root)
    except ChangedError:  # says nothing of the debug information
        raise
    except DAMAGE:
        return []


def _listed(debug: DebugSections) -> Iterator[tuple[int, Rows]]:
    """(unit, its addresses) of every set in .debug_aranges, up to the first that contradicts the section."""
    section, at = debug.section(".debug_aranges"), 0
    data = section.peek(0, len(section))
    while at + 16 <= len(data):
        end, version_at = extent(section, at)
        wide = version_at == at + 12
        if not version_at + 12 <= end <= len(data):
            return
        version, unit, address_size, _ = struct.unpack_from("<HQBB" if wide else "<HIBB", data, version_at)
        if version != 2 or address_size != 8:
            return
        first = version_at + (12 if wide else 8)
        first += -(first - at) % ADDRESSES.itemsize  # rows are aligned in their set
        yield unit, np.frombuffer(data, ADDRESSES, max(end - first, 0) // ADDRESSES.itemsize, first)
        at = end


def spans_of(unit: Unit, entry: Entry, most: int = MAX_SPANS) -> list[Span]:
    """The code that an entry covers; nothing for declarations and abstract functions. most: spans that are read."""
    numbers = entry.numbers
    if n.DW_AT_RANGES in numbers:
        base = unit.root.numbers.get(n.DW_AT_LOW_PC, 0)
        read = _ranges if unit.version < 5 else _rnglist
        spans = list(islice(read(unit, numbers[n.DW_AT_RANGES], base, min(MAX_LIST, MAX_ITEM * most)), most))
        unit.debug.steps.take(len(spans))
        return spans
    if n.DW_AT_LOW_PC not in numbers:
        return []
    low = numbers[n.DW_AT_LOW_PC]
    return [(low, numbers.get(n.DW_AT_HIGH_PC, low + 1))]


def _ranges(unit: Unit, pos: int, base: int, size: int) -> Iterator[Span]:
    """A list in .debug_ranges: pairs of offsets from the base, which one beginning with all ones changes."""
    data = unit.debug.section(".debug_ranges").peek(pos, pos + size)
    for start, end in struct.iter_unpack("<QQ", data[: len(data) & ~15]):
        if (start, end) == (0, 0):
            return
        if start == (1 << 64) - 1:
            base = end
        else:
            yield base + start, base + end


def _rnglist(unit: Unit, pos: int, base: int, size: int) -> Iterator[Span]:
    """A list in .debug_rnglists. size: bytes of it that are read, at most."""
    data = unit.debug.section(".debug_rnglists").peek(pos, pos + size)
    at = 0
    while data[at] != END:
        kind, at, operands = data[at], at + 1, []
        if kind > START_LENGTH:
            raise ValueError(f"range list entry {kind}")
        addresses = {BASE_ADDRESS: 1, START_END: 2, START_LENGTH: 1}.get(kind, 0)  # of eight bytes each, in front
        for _ in range(addresses):
            operands.append(struct.unpack_from("<Q", data, at)[0])
            at += 8
        for _ in range({BASE_ADDRESS: 0, START_END: 0, BASE_ADDRESSX: 1, START_LENGTH: 1}.get(kind, 2)):
            number, at = n.uleb(data, at)
            operands.append(number)
        if kind in (BASE_ADDRESSX, STARTX_ENDX, STARTX_LENGTH):
            operands[0] = unit.address(operands[0])
        if kind == STARTX_ENDX:
            operands[1] = unit.address(operands[1])
        if kind in (BASE_ADDRESSX, BASE_ADDRESS):
            base = operands[0]
        elif kind == OFFSET_PAIR:
            yield base + operands[0], base + operands[1]
        else:
            length = kind in (STARTX_LENGTH, START_LENGTH)
            yield operands[0], operands[1] + (operands[0] if length else 0)
