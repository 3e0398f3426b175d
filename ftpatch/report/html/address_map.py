"""The address map: the sections of code to scale, one behind the other, and below them a lane for each state of sites.

Sections keep their proportions; what lies between two of them is shrunk to a gap. A lane is cut into bins of equal
width, and a cell says how many sites of its state are in a bin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ftpatch.arrays import I64, U64
from ftpatch.report.html.columns import number
from ftpatch.report.results import clean
from ftpatch.report.text.lines import number as counted

if TYPE_CHECKING:
    from ftpatch.document.text_sections import TextSectionRow

WIDTH = 1000.0  # of the drawing; the page stretches it
GAP, GAPS = 6.0, 200.0  # between two sections that are apart; between all of them, at most
BIN = 4.0  # of a cell
LEAST = 1.0  # of a section, however short it is
MOST_SECTIONS = 200  # that are drawn
TOP, LANE, LANE_GAP = 34.0, 16.0, 6.0  # where lanes begin below the sections; height of one, and between two
LEVELS = 4  # of density
TICK = 110.0  # between two labels of addresses, at least


@dataclass(frozen=True)
class MapSection:
    """One section of code. address_to: behind its last byte."""

    name: str
    shndx: int
    address_from: str
    address_to: str
    x: float
    width: float
    n: int  # sites
    title: str


@dataclass(frozen=True)
class Cell:
    """The sites of one state in one bin."""

    x: float
    width: float
    level: int  # 1 to LEVELS, by how many there are
    first: int  # row of the first of them in the table of the page
    n: int
    address_from: str
    address_to: str
    shndx: int
    title: str


@dataclass(frozen=True)
class Lane:
    state: str
    n: int
    y: float
    height: float
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Tick:
    x: float
    label: str


@dataclass(frozen=True)
class Map:
    width: float
    height: float
    sections: tuple[MapSection, ...]
    lanes: tuple[Lane, ...]
    ticks: tuple[Tick, ...]
    text: str
    left_out: str
    relocatable: bool  # addresses are offsets in their sections


@dataclass(frozen=True)
class Placed:
    """The sites that have a place, as columns."""

    row: I64  # in the table of the page
    shndx: I64
    address: U64  # va; of relocatable files the offset in the section
    state: Sequence[str]


def placed(shndx: Sequence[int | None], address: Sequence[int | None], state: Sequence[str]) -> Placed:
    """The columns of those rows that have a place."""
    rows = [row for row, where in enumerate(address) if where is not None and shndx[row] is not None]
    return Placed(
        np.array(rows, dtype=np.int64),
        np.array([shndx[row] for row in rows], dtype=np.int64),
        np.array([address[row] for row in rows], dtype=np.uint64),
        [state[row] for row in rows],
    )


def map_of(sections: Sequence[TextSectionRow], sites: Placed, what: str = "site") -> Map | None:
    """The map; None where nothing could be drawn in it."""
    if not sections or not len(sites.row):
        return None
    relocatable = sections[0]["address"] is None
    n_of = Counter(sites.shndx.tolist())
    shown, left = _shown(sections, n_of)
    drawn = _drawn(shown, n_of, what)
    index = np.full(max(max(row["shndx"] for row in sections), int(sites.shndx.max())) + 1, -1)
    index[[section.shndx for section in drawn]] = np.arange(len(drawn))
    low = np.array([int(section.address_from, 16) for section in drawn], dtype=np.uint64)
    size = np.array([row["size"] for row in shown], dtype=np.uint64)
    at = index[sites.shndx]
    inside = (at >= 0) & (sites.address - low[at] < size[at])  # what lies in front wraps, and is not less
    lanes = _lanes(drawn, size, sites, np.where(inside, at, -1), what)
    n = int(inside.sum())
    text = f"{counted(n, what)} in {counted(len(drawn), 'section')} of code"
    notes = [left] if left else []
    if n < len(sites.row):
        notes.append(f"{counted(len(sites.row) - n, what)} outside of these")
    height = lanes[-1].y + LANE + LANE_GAP if lanes else TOP
    return Map(WIDTH, height, drawn, lanes, _ticks(drawn, size, relocatable), text, "; ".join(notes), relocatable)


def _shown(sections: Sequence[TextSectionRow], n_of: Counter[int]) -> tuple[list[TextSectionRow], str]:
    """The sections that are drawn, by address or number, and what is said of others."""
    order = sorted(sections, key=lambda row: (number(row["address"]) or 0, row["shndx"]))
    if len(order) <= MOST_SECTIONS:
        return order, ""
    most = sorted(order, key=lambda row: -n_of[row["shndx"]])[:MOST_SECTIONS]
    kept = {row["shndx"] for row in most}
    left = sum(n for sec, n in n_of.items() if sec not in kept)
    text = f"{len(order) - MOST_SECTIONS} more sections, with {counted(left, 'site')}, are not drawn: the table has all"
    return [row for row in order if row["shndx"] in kept], text


def _drawn(rows: Sequence[TextSectionRow], n_of: Counter[int], what: str) -> tuple[MapSection, ...]:
    """The sections with their places in the drawing."""
    apart = [row["address"] is None or _end(before) != int(row["address"], 16)
             for before, row in pairwise(rows)]  # fmt: skip
    gap = min(GAP, GAPS / max(sum(apart), 1))
    room = WIDTH - gap * sum(apart)
    total = sum(row["size"] for row in rows)
    widths = [max(LEAST if len(rows) <= MOST_SECTIONS // 2 else 0.0, room * row["size"] / total) for row in rows]
    scale = room / sum(widths)
    made: list[MapSection] = []
    x = 0.0
    for i, (row, width) in enumerate(zip(rows, widths, strict=True)):
        x += gap if i and apart[i - 1] else 0.0
        low, name, n = number(row["address"]) or 0, clean(row["section"]), n_of[row["shndx"]]
        title = f"{name}: {row['size']} bytes, {counted(n, what)}"
        made.append(MapSection(name, row["shndx"], _hex(low, row), _hex(low + row["size"], row), round(x, 2),
                               round(width * scale, 2), n, title))  # fmt: skip
        x += width * scale
    return tuple(made)


def _end(row: TextSectionRow) -> int:
    return (number(row["address"]) or 0) + row["size"]


def _hex(value: int, row: TextSectionRow) -> str:
    """An address of a linked file with all digits, an offset without zeros."""
    return f"0x{value:x}" if row["address"] is None else f"0x{value:016x}"


def _lanes(
    sections: Sequence[MapSection], size: U64, sites: Placed, at: I64, what: str
) -> tuple[Lane, ...]:  # fmt: skip
    """A lane for each state, the most frequent first. at: section of each site, −1 for none."""
    n_bins = np.maximum(1, np.round(np.array([section.width for section in sections]) / BIN)).astype(np.int64)
    start = np.cumsum(n_bins) - n_bins
    low = np.array([int(section.address_from, 16) for section in sections], dtype=np.uint64)
    step = -(-size.astype(object) // n_bins)  # Python's numbers: a section may have any size
    per_bin = np.array([int(value) for value in step], dtype=np.uint64)
    bins = np.where(at >= 0, start[at] + ((sites.address - low[at]) // per_bin[at]).astype(np.int64), -1)
    states = np.array(sites.state, dtype=object)
    lanes: list[Lane] = []
    counts = Counter(states[at >= 0].tolist())
    for state, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        rows = np.flatnonzero((states == state) & (at >= 0))
        rows = rows[np.lexsort((sites.address[rows], bins[rows]))]
        found, first, n_of = np.unique(bins[rows], return_index=True, return_counts=True)
        most = int(n_of.max())
        cells = []
        for number_of_bin, i, n_sites in zip(found.tolist(), first.tolist(), n_of.tolist(), strict=True):
            sec = int(at[rows[i]])
            section, k = sections[sec], number_of_bin - int(start[sec])
            width = section.width / int(n_bins[sec])
            begin = int(low[sec]) + k * int(per_bin[sec])
            end = min(begin + int(per_bin[sec]), int(section.address_to, 16))
            digits = len(section.address_to) - 2 if int(section.address_from, 16) else 0
            reach = f"0x{begin:0{digits}x}", f"0x{end:0{digits}x}"
            title = f"{counted(n_sites, what)} {state} in {section.name} {reach[0]}–{reach[1]}"
            level = -(-LEVELS * n_sites // most)
            cells.append(Cell(round(section.x + k * width, 2), round(width, 2), level, int(sites.row[rows[i]]), n_sites,
                              *reach, section.shndx, title))  # fmt: skip
        y = TOP + len(lanes) * (LANE + LANE_GAP)
        lanes.append(Lane(state, n, y, LANE, tuple(cells)))
    return tuple(lanes)


def _ticks(sections: Sequence[MapSection], size: U64, relocatable: bool) -> tuple[Tick, ...]:
    """Addresses where sections begin, as far as there is room, and round distances from there in long ones."""
    ticks: list[Tick] = []
    free = 0.0
    for section, n_bytes in zip(sections, size.tolist(), strict=True):
        if section.x < free:
            continue
        ticks.append(Tick(section.x, section.name if relocatable else section.address_from))
        n = int(section.width // TICK)
        free = section.x + TICK
        if n > 1:
            step = 1 << max((n_bytes // n - 1).bit_length(), 0)
            for k in range(1, n_bytes // step + 1):
                x = section.x + section.width * k * step / n_bytes
                if x >= free and x <= section.x + section.width - TICK / 2:
                    ticks.append(Tick(round(x, 2), f"+{_size(k * step)}"))
                    free = x + TICK
    return tuple(ticks)


def _size(n: int) -> str:
    """Bytes in the greatest unit that divides them."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if n and not n & ((1 << shift) - 1):
            return f"{n >> shift} {unit}"
    return f"{n} bytes"
