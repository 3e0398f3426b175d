"""The tables by which a kernel moves itself to where it was loaded, found by what they must look like.

rela    rows of 24 bytes: the place, the type, what to write there. A run of them, of types that linkers write, their
        places side by side in memory; linkers leave empty rows between them
relr    words behind those, or alone: an even one is a place, each odd one a map of the 63 words behind it, ascending

Where the image is linked to need not be known for that: only how long it is.
Source: arch/arm64/kernel/pi/relocate.c relocate_kernel(); arch/powerpc/kernel/reloc_64.S relocate().
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arrays import I64, U64, Mask, is_in
from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf import tables as t
from ftpatch.errors import ElfError
from ftpatch.recovered.memory import Memory

WORD, ROW = 8, t.RELA.itemsize
FEW_ROWS, FEW_WORDS = 4, 64  # rows, or words, side by side that nothing else looks like
LONG_ROWS, BROKEN = 64, 1 << 13  # rows of a table that has no second one beside it, within so many bytes
MANY_ROWS = 8  # that are there all the same
MAX_SYMBOL = 1 << 20  # of a relocation in a linked kernel
NEIGHBOURS = 4  # numbers of types
MAX_RUNS, MAX_LONG = 1 << 12, 1 << 7  # that are looked at; of rows, which are few
ROWS_AT_ONCE = 1 << 14
MAX_TABLES = 8  # that may be packed ones
MAX_STARTS = 16  # places in a run of words where a packed table may begin
SAMPLE = 1 << 10  # places that are looked up
MAX_MAPS = 1 << 10  # behind the last address of a packed table
DT_RELA, DT_RELASZ, DT_RELAENT = 7, 8, 9
UPPER_HALF = np.uint64(1 << 63)


class Table(NamedTuple):
    """File positions [start, end) of a table."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


def find_rela(memory: Memory, arch: Arch) -> Table | None:
    """The longest run of rows by which a kernel relocates pointers in itself; None where there is none.

    ElfError where another one is beside it: rows between the two are damaged."""
    tables: list[Table] = []
    for first, words in _pieces(memory):
        for start, end in _runs(np.flatnonzero(words == np.uint64(arch.relative))):
            table = _whole(words, start, end, _extent(memory), (arch.abs64, *_dynamic(arch)))
            if table is not None:
                tables.append(Table(first + table.start, first + table.end))
    if not tables:
        return None
    best = _as_listed(memory, max(tables, key=lambda table: table.size))
    if best.size >= LONG_ROWS * ROW:
        _require_alone(memory, best, tables, arch.relative.to_bytes(WORD, "little"))
    return best


def _require_alone(memory: Memory, best: Table, tables: list[Table], kind: bytes) -> None:
    """ElfError where a part of a table is beside it, and not in it, or beyond the end of a flat kernel. kind: the word
    that its rows have, for those that moved by some bytes."""
    if len(memory.pos) == 1 and best.end + ROW > len(memory.data):
        raise ElfError("the file ends within the table of relocations", f"position {best.end:#x}",
                       todo="the file is not whole")  # fmt: skip
    gaps = [table.start - best.end if table.start >= best.end else best.start - table.end for table in tables]
    before, behind = (memory.data.peek(max(at, 0), at + BROKEN) for at in (best.start - BROKEN, best.end))
    n_rows = max(before.count(kind), behind.count(kind))
    if any(0 <= gap <= BROKEN for gap in gaps) or n_rows >= MANY_ROWS:
        raise ElfError("the table of relocations has rows that are none", f"position {best.start:#x} to {best.end:#x}",
                       found="more rows beside it", todo="the file is damaged")  # fmt: skip


def _dynamic(arch: Arch) -> range:
    """Types that linkers write beside that of base-relative pointers: every machine numbers them side by side."""
    return range(max(arch.relative - NEIGHBOURS, 1), arch.relative + NEIGHBOURS)


def _pieces(memory: Memory) -> Iterator[tuple[int, U64]]:
    """(file position, aligned words from there on) of each piece of memory."""
    for pos, size in zip(memory.pos.tolist(), memory.size.tolist(), strict=True):
        yield pos, memory.data[pos : pos + size - size % WORD].view("<u8")


def _extent(memory: Memory) -> np.uint64:
    """Bytes that the addresses of a kernel's data may span; more than twice its file has no kernel."""
    return np.uint64(2 * int(memory.size.sum()))


def _runs(info: I64) -> list[tuple[int, int]]:
    """(first row's first word, end) of all long runs of rows of the type that stands in these words."""
    runs = []
    for phase in range(3):
        mine = info[info % 3 == phase]
        breaks = np.flatnonzero(np.diff(mine) != 3)
        starts, last = np.concatenate(([0], breaks + 1)), np.append(breaks, len(mine) - 1)
        long = last - starts + 1 >= FEW_ROWS
        runs += [(int(mine[a]) - 1, int(mine[b]) + 2) for a, b in zip(starts[long], last[long], strict=True)]
    return sorted(((start, end) for start, end in runs if start >= 0), key=lambda run: run[0] - run[1])[:MAX_LONG]


def _whole(words: U64, start: int, end: int, extent: np.uint64, types: tuple[int, ...]) -> Table | None:
    """A run in bytes, with the rows behind it that are empty or of other types; None where it is no table."""
    if end > len(words):
        return None
    places = words[start:end:3]
    if places.max() - places.min() > extent or np.bitwise_or.reduce(places) & np.uint64(3):
        return None
    low, high = places.max() - np.minimum(extent, places.max()), places.min() + extent
    rest = words[end : end + (len(words) - end) // 3 * 3].reshape(-1, 3)
    n_rows = 0
    for first in range(0, len(rest), ROWS_AT_ONCE):
        part = rest[first : first + ROWS_AT_ONCE]
        empty = np.asarray(~part.any(axis=1))
        wrong = np.flatnonzero(~(empty | _is_row(part, low, high, types)))
        used = np.flatnonzero(~empty[: wrong[0] if len(wrong) else len(part)])
        n_rows = first + int(used[-1]) + 1 if len(used) else n_rows  # empty ones at the end may be anything
        if len(wrong):
            break
    return Table(WORD * start, WORD * (end + 3 * n_rows))


def _is_row(rows: U64, low: np.uint64, high: np.uint64, types: tuple[int, ...]) -> Mask:
    """Which rows have a place among those of the others, and a type and symbol as linkers write them."""
    kind, symbol = rows[:, 1] & np.uint64(0xFFFF_FFFF), rows[:, 1] >> np.uint64(32)
    place = (rows[:, 0] >= low) & (rows[:, 0] <= high)
    return np.asarray(place & is_in(kind, types) & (symbol < np.uint64(MAX_SYMBOL)))


def _as_listed(memory: Memory, table: Table) -> Table:
    """The table as the kernel's dynamic section has it, where there is one: its last rows may be empty."""
    for _, words in _pieces(memory):
        tag = np.flatnonzero(words[:-5] == np.uint64(DT_RELA))
        tag = tag[(words[tag + 2] == np.uint64(DT_RELASZ)) & (words[tag + 4] == np.uint64(DT_RELAENT))]
        for at in tag[words[tag + 5] == np.uint64(ROW)].tolist():
            start, size = int(memory.pos_of(words[at + 1 : at + 2])[0]), int(words[at + 3])
            inside = start <= table.start and table.end <= start + size <= len(memory.data)
            if start >= 0 and inside and size % ROW == 0 and (table.start - start) % ROW == 0:
                return Table(start, start + size)
    return table


def find_relr(memory: Memory, rela: Table | None) -> Table | None:
    """The longest packed table, behind the other one or anywhere, that moves addresses; None where there is none."""
    return next((table for table in packed_tables(memory, rela) if _moves_addresses(memory, table)), None)


def packed_tables(memory: Memory, rela: Table | None) -> list[Table]:
    """All that may be packed tables by their words alone: first the one behind the other table, then the longest."""
    tables, extent, after = [], _extent(memory), -1 if rela is None else rela.end + WORD - 1 & -WORD
    for pos, words in _pieces(memory):
        behind = (rela.end - pos) // WORD if rela is not None else 0
        for start, end in _relr_runs(words, behind):
            for _ in range(MAX_STARTS):
                n = _relr_length(words[start:end], extent)
                if n >= FEW_WORDS:
                    tables.append(Table(pos + WORD * start, pos + WORD * (start + n)))
                start += max(n, 1)
                if end - start < FEW_WORDS:
                    break
    return sorted(tables, key=lambda table: (table.start != after, -table.size))[:MAX_TABLES]


def packed_places(data: FileBytes, table: Table) -> U64:
    """The addresses that a packed table names; none where it names one twice."""
    words = data[table.start : table.end].view("<u8")
    end = min(int(words[words & np.uint64(1) == 0].max()) + MAX_MAPS * t.RELR_SPAN, t.LAST_VA)
    try:
        return np.concatenate([*t.relr_places(words, int(words[0]), end, "a packed table")])
    except ElfError:  # it moves words twice
        return words[:0]


def _relr_runs(words: U64, behind: int) -> list[tuple[int, int]]:
    """Runs of words of which the even ones are addresses, and some are odd. behind: one begins there at the earliest,
    if it goes on from there: the rows of the other table look like that, too."""
    member = (words & np.uint64(1) != 0) | ((words >= UPPER_HALF) & (words & np.uint64(WORD - 1) == 0))
    change = np.flatnonzero(member[1:] != member[:-1]) + 1
    starts = np.concatenate(([0], change))
    length = np.diff(np.append(starts, len(words)))
    mine = np.flatnonzero(member[starts] & (length >= FEW_WORDS)) if len(words) else np.zeros(0, np.int64)
    mine = mine[np.argsort(-length[mine], kind="stable")][:MAX_RUNS]
    found = []
    for start, size in zip(starts[mine].tolist(), length[mine].tolist(), strict=True):
        end = start + size
        start = behind if start < behind < end else start
        even = np.flatnonzero(words[start:end] & np.uint64(1) == 0)
        found += [(start + int(even[0]), end)] if 0 < len(even) < end - start else []  # a map alone maps nothing
    return found


def _relr_length(words: U64, extent: np.uint64) -> int:
    """How many words from the first on are a packed table: its addresses ascend, by no more than the kernel has, and
    maps stand between most of them; 0 where they are none."""
    if not len(words) or words[0] & np.uint64(WORD - 1) or words[0] == 0:
        return 0
    even = np.flatnonzero(words & np.uint64(1) == 0)
    place = words[even]
    wrong = (place - words[0] > extent) | (place & np.uint64(WORD - 1) != 0)
    wrong[1:] |= place[1:] <= place[:-1]
    first = np.flatnonzero(wrong)
    n, n_even = (int(even[first[0]]), int(first[0])) if len(first) else (len(words), len(even))
    return n if 2 * (n - n_even) >= n_even else 0


def _moves_addresses(memory: Memory, table: Table) -> bool:
    """Whether the words that a packed table moves are addresses of one kernel, all of a sample."""
    places = packed_places(memory.data, table)
    pos = memory.pos_of(places[:: max(len(places) // SAMPLE, 1)])
    if not len(pos) or (pos < 0).any():
        return False
    moved = memory.data.rows(pos, WORD).view("<u8").reshape(-1)
    moved = moved[moved != 0]
    return bool(len(moved)) and bool(moved.max() - moved.min() <= _extent(memory) and moved.min() >= UPPER_HALF)
