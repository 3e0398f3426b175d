"""How far calls are from where they go, as a histogram with the limits of a call drawn in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftpatch.report.results import clean
from ftpatch.report.text.lines import mib, number

if TYPE_CHECKING:
    from ftpatch.document.types import ReachObject

WIDTH, HEIGHT = 1000.0, 160.0
AIR = 0.04  # of the width, at each side
N_BINS = 64  # at most
N_TICKS = 8  # at most
# what the bars of a state are about, where its name would say something else of their sites
SAID = {"ready": "within reach", "far": "out of reach", "call": "called directly", "via-stub": "called through a stub"}
NEAR = 4  # a limit is drawn where it is if it is at most so many times as far away as the farthest call


@dataclass(frozen=True)
class Bar:
    """Calls of one state whose distances are from `low` to below `high`."""

    x: float
    y: float
    width: float
    height: float
    state: str
    low: int
    high: int
    n: int
    title: str


@dataclass(frozen=True)
class Limit:
    """How far a call reaches to one side; at the edge of the drawing where it is beyond that."""

    x: float
    label: str
    outside: bool


@dataclass(frozen=True)
class Tick:
    x: float
    label: str


@dataclass(frozen=True)
class Distances:
    title: str
    text: str
    width: float
    height: float
    bars: tuple[Bar, ...]
    limits: tuple[Limit, ...]
    ticks: tuple[Tick, ...]
    column: str  # of the table of sites that has these distances; empty for none


@dataclass(frozen=True)
class Bins:
    """Counts of one histogram, by state."""

    low: int
    step: int
    counts: dict[str, list[int]]  # of equal length

    @property
    def high(self) -> int:
        """The upper edge of the last bin."""
        return self.low + self.step * len(next(iter(self.counts.values())))


def of_reach(reach: ReachObject, column: str, remark: str = "") -> Distances | None:
    """The distances of all calls of a file to the tracer's entry. column: of the page's table that has those of
    sites; remark: behind the title."""
    if "distances" not in reach or "backward" not in reach:
        return None
    found, name = reach["distances"], clean(reach["target"])
    within = [n - far for n, far in zip(found["counts"], found["beyond"], strict=True)]
    bins = Bins(found["low"], found["step"], {"ready": within, "far": found["beyond"]})
    stubs = reach.get("calls_from") == "stubs"
    calls = "calls of stubs" if stubs else "sites"
    text = f"{calls} are at most {mib(reach['max_distance'])} from {name}; {reach['beyond']} beyond its reach"
    far = [f"{clean(area)}: {n} beyond" for area, n in reach.get("trampolines", {}).items()]
    limits = reach["backward"], reach["limit"]
    return drawn(f"Distances to {name}{remark}", "; ".join([text, *far]), bins, limits, "" if stubs else column)


def of_sites(distances: Sequence[int | None], states: Sequence[str], reach: ReachObject | None) -> Distances | None:
    """The distances of the calls that a run made; None where it made none whose distance is known."""
    known = [(away, state) for away, state in zip(distances, states, strict=True) if away is not None]
    if not known:
        return None
    low, high = min(away for away, _ in known), max(away for away, _ in known)
    step = 1 << max((high - low) // N_BINS, 1).bit_length()
    first = low // step
    n_bins = high // step - first + 1
    counts = {state: [0] * n_bins for state in dict.fromkeys(state for _, state in known)}
    for away, state in known:
        counts[state][away // step - first] += 1
    limits = (reach["backward"], reach["limit"]) if reach and "backward" in reach else None
    farthest = max(abs(low), abs(high))
    text = f"{number(len(known), 'call')} of this run, at most {mib(farthest)} from where they go"
    return drawn("Distances of the calls of this run", text, Bins(first * step, step, counts), limits, "distance")


def drawn(title: str, text: str, bins: Bins, limits: tuple[int, int] | None, column: str) -> Distances:
    """The histogram with its axis."""
    low, high = bins.low, bins.high
    farthest = max(abs(low), abs(high))
    near = [limit for limit in limits or () if abs(limit) <= NEAR * farthest]
    low, high = min([low, *near]), max([high, *near])
    air = (high - low) * AIR
    left, span = low - air, (high - low) + 2 * air

    def x_of(value: float) -> float:
        return round((value - left) / span * WIDTH, 2)

    edges = [Limit(x_of(limit), f"a call reaches {_signed(limit)}", False) for limit in near]
    edges += [
        Limit(0.0 if limit < 0 else WIDTH, f"a call reaches {_signed(limit)}", True)
        for limit in limits or ()
        if limit not in near
    ]
    return Distances(title, text, WIDTH, HEIGHT, _bars(bins, x_of), tuple(edges), _ticks(low, high, x_of), column)


def _bars(bins: Bins, x_of: Callable[[float], float]) -> tuple[Bar, ...]:
    """The bars, those of one bin on top of each other."""
    columns = list(zip(*bins.counts.values(), strict=True))
    most = max(map(sum, columns))
    bars: list[Bar] = []
    for i, column in enumerate(columns):
        low, y = bins.low + i * bins.step, HEIGHT
        x, width = x_of(low), x_of(low + bins.step) - x_of(low)
        for state, n in zip(bins.counts, column, strict=True):
            if n:
                height = max(1.0, round(n / most * HEIGHT, 2))  # one call among thousands is seen, too
                y = max(0.0, y - height)
                title = f"{n} {SAID.get(state, state)}: {_signed(low)} to {_signed(low + bins.step)}"
                bars.append(Bar(x, round(y, 2), round(width, 2), height, state, low, low + bins.step, n, title))
    return tuple(bars)


def _ticks(low: int, high: int, x_of: Callable[[float], float]) -> tuple[Tick, ...]:
    """Round distances along the axis."""
    step = 1 << max((high - low) // N_TICKS, 1).bit_length()
    return tuple(Tick(x_of(value), _signed(value)) for value in range(-(-low // step) * step, high + 1, step))


def _signed(n: int) -> str:
    """Bytes with their direction: `+24.9 MiB`, `-512 bytes`, `0`."""
    if not n:
        return "0"
    size = f"{abs(n) / (1 << 20):.1f} MiB" if abs(n) >= 1 << 20 else (
        f"{abs(n) / (1 << 10):.1f} KiB" if abs(n) >= 1 << 10 else f"{abs(n)} bytes")  # fmt: skip
    return f"{'+' if n > 0 else '-'}{size}"
