"""The address map: the sections of code to scale, one behind the other, and below them a lane for each state of sites.

Sections keep their proportions; what lies between two of them is shrunk to a gap. A lane is cut into bins of equal
width, and a cell says how many sites of its state are in a bin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ftpatch.arrays import I64, U64
from ftpatch.report.html.columns import cut, number
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
MOST_TICKS = 10  # sections that may have a label


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
        low, name, n = number(row["address"]) or 0, cut(row["section"]), n_of[row["shndx"]]
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


class Bins(NamedTuple):
    """How each section is cut: a value for each."""

    low: U64  # where it begins
    step: U64  # bytes of a bin
    start: I64  # number of its first bin

    def of(self, address: U64, at: I64) -> I64:
        """The bin of each address; at: its section, −1 for none."""
        return np.where(at >= 0, self.start[at] + ((address - self.low[at]) // self.step[at]).astype(np.int64), -1)


def _bins(sections: Sequence[MapSection], size: U64) -> Bins:
    """Bins of about the same width for all sections."""
    n = [max(1, round(section.width / BIN)) for section in sections]
    step = [-(-n_bytes // n_bins) for n_bytes, n_bins in zip(size.tolist(), n, strict=True)]
    low = [int(section.address_from, 16) for section in sections]
    return Bins(
        np.array(low, dtype=np.uint64),
        np.array(step, dtype=np.uint64),
        np.cumsum(n, dtype=np.int64) - np.array(n, dtype=np.int64),
    )


def _lanes(sections: Sequence[MapSection], size: U64, sites: Placed, at: I64, what: str) -> tuple[Lane, ...]:
    """A lane for each state, the most frequent first. at: section of each site, −1 for none."""
    bins = _bins(sections, size)
    bin_of, states = bins.of(sites.address, at), np.array(sites.state, dtype=object)
    counts = Counter(states[at >= 0].tolist())
    lanes: list[Lane] = []
    for state, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        rows = np.flatnonzero((states == state) & (at >= 0))
        rows = rows[np.lexsort((sites.address[rows], bin_of[rows]))]
        found, first, n_of = np.unique(bin_of[rows], return_index=True, return_counts=True)
        most, cells = int(n_of.max()), list[Cell]()
        for at_bin, row, n_sites in zip(found.tolist(), rows[first].tolist(), n_of.tolist(), strict=True):
            k = int(at[row])
            begin = int(bins.low[k]) + (at_bin - int(bins.start[k])) * int(bins.step[k])
            end = min(begin + int(bins.step[k]), int(sections[k].address_to, 16))
            level, said = -(-LEVELS * n_sites // most), f"{counted(n_sites, what)} {state}"
            cells.append(_cell(sections[k], (begin, end), (int(sites.row[row]), n_sites, level), said))
        y = TOP + len(lanes) * (LANE + LANE_GAP)
        lanes.append(Lane(state, n, y, LANE, tuple(cells)))
    return tuple(lanes)


def _cell(section: MapSection, reach: tuple[int, int], sites: tuple[int, int, int], said: str) -> Cell:
    """One cell. reach: first address and the one behind the last; sites: row of the first, how many, level."""
    low, high = int(section.address_from, 16), int(section.address_to, 16)
    scale = section.width / (high - low)
    first, n, level = sites
    digits = len(section.address_to) - 2 if low else 0  # as the section's own
    begin, end = (f"0x{value:0{digits}x}" for value in reach)
    title = f"{said} in {section.name} {begin}–{end}"
    x, width = section.x + scale * (reach[0] - low), scale * (reach[1] - reach[0])
    return Cell(round(x, 2), round(width, 2), level, first, n, begin, end, section.shndx, title)


def _ticks(sections: Sequence[MapSection], size: U64, relocatable: bool) -> tuple[Tick, ...]:
    """Where sections begin, the widest first as far as there is room, and round distances from there in wide ones."""
    ticks: list[Tick] = []

    def add(x: float, label: str) -> None:
        begin = _label_at(x)
        if all(abs(_label_at(tick.x) - begin) >= TICK for tick in ticks):
            ticks.append(Tick(round(x, 2), label))

    widest = sorted(zip(sections, size.tolist(), strict=True), key=lambda pair: -pair[0].width)
    for section, _ in widest[:MOST_TICKS]:
        add(section.x, section.name if relocatable else section.address_from)
    for section, n_bytes in widest[:MOST_TICKS]:
        n = int(section.width // TICK)
        step = 1 << max((n_bytes // n - 1).bit_length(), 0) if n > 1 else n_bytes
        for place in range(step, n_bytes, step):
            add(section.x + section.width * place / n_bytes, f"+{_size(place)}")
    return tuple(sorted(ticks, key=lambda tick: tick.x))


def _label_at(x: float) -> float:
    """Where the label of a tick begins: behind it, or in front of it at the end of the drawing."""
    return x if x <= WIDTH - TICK else x - TICK


def _size(n: int) -> str:
    """Bytes in the greatest unit that divides them."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if n and not n & ((1 << shift) - 1):
            return f"{n >> shift} {unit}"
    return f"{n} bytes"
