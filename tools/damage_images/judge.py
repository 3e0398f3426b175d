"""Whether what is said of a damaged kernel is right: equal to what is said of the sound one, but for what was damaged.

What no check can find is counted apart: a name that became another one in its order, an address that moved between its
neighbours. All else that differs is wrong.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ftpatch.sites.scan import Scan
from ftpatch.sites.table import STATUSES
from tools.damage_images.kernels import Sound

SAME, OWN, NAMES, ADDRESSES, NOTHING = ("the same", "but for damaged sites", "but for names in damaged bytes",
                                        "but for addresses in damaged bytes", "no symbols")  # fmt: skip
WRONG, REFUSED = "wrong", "refused"
BOUNDS = {"__start_mcount_loc", "__stop_mcount_loc"}
WINDOW = 32  # bytes around a site that are looked at to judge it
NAMING = ("names", "token_table", "token_index", "seqs_of_names")
MAP = 63  # words that one word of packed relocations is about


class Site(NamedTuple):
    """A row of the record table, as far as an answer tells it."""

    record: int
    status: str
    function: str | None


@dataclass(frozen=True, eq=False)
class Answer:
    """What a scan says."""

    source: str
    data: bytes
    places: dict[str, tuple[int, ...]]  # addresses by name, ascending
    letters: bytes
    sites: list[Site]
    pos: list[int]  # of each site in the file

    @classmethod
    def of(cls, scan: Scan) -> Answer:
        recovered, sites, places = scan.image.recovered, scan.sites, defaultdict(list)
        if recovered is not None:
            symbols = recovered.symbols
            text, starts = symbols.strtab, symbols.rows["st_name"].tolist()
            for start, va in zip(starts, symbols.rows["st_value"].tolist(), strict=True):
                places[text[start : text.index(b"\0", start)].decode("latin-1")].append(va)
        letters = b"" if recovered is None or recovered.letters is None else recovered.letters.tobytes()
        rows = zip(sites.va.tolist(), sites.status.tolist(), strict=True)
        named = [Site(va, STATUSES[status], sites.name(i)) for i, (va, status) in enumerate(rows)]
        source = "none" if recovered is None else recovered.source
        addresses = {name: tuple(sorted(vas)) for name, vas in places.items()}
        return cls(source, scan.image.data.tobytes(), addresses, letters, named, sites.pos.tolist())


def moved_back(right: Answer, said: Answer, slides: tuple[int, ...]) -> Answer:
    """What is said of a dump, which is placed where the kernel ran, as if that were where it is linked."""
    start, there = right.places.get("_stext", (0,))[0], said.places.get("_stext", (0,))[0]
    slide = there - start
    if slide not in slides:
        return said
    places = {name: tuple(va - slide for va in vas) for name, vas in said.places.items()}
    sites = [site._replace(record=site.record - slide) for site in said.sites]
    return replace(said, places=places, sites=sites)


def judged(sound: Sound, right: Answer, said: Answer) -> tuple[str, str]:
    """(what kind of answer it is, what is wrong with it; empty where nothing is)."""
    touched = _touched(sound, said)
    missing = right.places.keys() - said.places.keys()
    moved = {name for name, vas in right.places.items() if name in said.places and not set(vas) <= {*said.places[name]}}
    more = {name for name, vas in said.places.items() if len(vas) > len(right.places.get(name, ()))}
    if "code alone" in sound.name:  # the table's ends have no names of their own
        moved -= BOUNDS
    rows = _differing(right, said)
    if said.source == "none" and right.source != "none":
        return _nameless(right, said, touched)
    odd = bool(missing or moved or more or right.letters != said.letters)
    if not odd and not rows:
        return SAME, ""
    wrong = _wrong_symbols(touched, missing, moved, more, right.letters != said.letters)
    if wrong:
        return WRONG, f"{wrong}: {_some(right, said, missing | moved | more)}; damaged: {dict(touched.parts)}"
    if rows and not _own(right, rows, said, touched, missing | moved | more):
        i = rows[0]
        pair = f"{right.sites[i : i + 1]} became {said.sites[i : i + 1]} of {len(said.sites)}"
        return WRONG, f"{len(rows)} sites differ, {i} of {len(right.sites)}: {pair}; damaged: {dict(touched.parts)}"
    return (ADDRESSES if moved else NAMES if odd else OWN), ""


def _nameless(right: Answer, said: Answer, touched: _Touched) -> tuple[str, str]:
    """What is said of a kernel whose names are not found: its sites are right, and named by their addresses."""
    named = [site.function for site in said.sites if site.function in right.places]
    if named:
        return WRONG, f"functions are named without symbols: {named[:3]}"
    status = {site.record: site.status for site in right.sites}
    odd = [site for site in said.sites if status.get(site.record, "") not in (site.status, "weak-leftover")]
    n_damaged = 2 * touched.parts.get("records", 0) + touched.parts.get("code", 0) + touched.parts.get("init code", 0)
    lost = sum(site.record > 0 for site in right.sites) - len(said.sites)
    if max(len(odd), lost) > n_damaged + MAP * touched.parts.get("relocations", 0):
        return WRONG, f"{len(odd)} sites differ without symbols, {lost} are not there: {odd[:1]}; {dict(touched.parts)}"
    return NOTHING, ""


@dataclass(frozen=True)
class _Touched:
    """What was damaged: how many words of each part, and which positions."""

    parts: dict[str, int]
    positions: frozenset[int]

    def near(self, pos: int) -> bool:
        return any(at in self.positions for at in range(pos - WINDOW, pos + WINDOW))


def _touched(sound: Sound, said: Answer) -> _Touched:
    """Files whose length changed were damaged in no place that could be an excuse."""
    if len(said.data) < len(sound.data):
        return _Touched({}, frozenset())
    octets = [np.frombuffer(data[: len(sound.data)], np.uint8) for data in (sound.data, said.data)]
    positions = np.flatnonzero(octets[0] != octets[1]).tolist()
    words = defaultdict(set)
    for pos in positions:
        words[sound.part_of(pos)].add(pos >> 2)
    return _Touched({name: len(some) for name, some in words.items()}, frozenset(positions))


def _wrong_symbols(touched: _Touched, missing: set[str], moved: set[str], more: set[str], letters: bool) -> str:
    """Which differences in symbols no damage explains."""
    naming = sum(touched.parts.get(part, 0) for part in NAMING)
    if (missing or letters or more) and not naming:
        return f"{len(missing)} names are not there, {len(more)} are new"
    placing = sum(touched.parts.get(part, 0) for part in ("offsets", "relocations"))
    if len(moved) > placing:
        return f"{len(moved)} symbols at other addresses"
    return ""


def _differing(right: Answer, said: Answer) -> list[int]:
    """The sites that are not told as they are. A table that is found by its structure may begin or end elsewhere, where
    its first or last sites are damaged: these are compared by their addresses."""
    if len(right.sites) == len(said.sites):
        return [i for i, (one, other) in enumerate(zip(right.sites, said.sites, strict=True)) if one != other]
    told = {site.record: site for site in said.sites if site.record}
    more = len(told.keys() - {site.record for site in right.sites})
    rows = [i for i, site in enumerate(right.sites) if site.record and told.get(site.record) != site]
    return [*rows, *[len(right.sites)] * more]


def _own(right: Answer, rows: list[int], said: Answer, touched: _Touched, names: set[str]) -> bool:
    """Whether each site that differs is one that was damaged, or whose function was."""
    slots, moving = touched.parts.get("records", 0), touched.parts.get("relocations", 0)
    left = 0
    for i in rows:
        same = len(right.sites) == len(said.sites)
        functions = {right.sites[i].function, said.sites[i].function} if same else set()
        left += i == len(right.sites) or not (touched.near(right.pos[i]) or functions & names)
    letters = right.letters != said.letters  # a function that became data has no site
    naming = sum(touched.parts.get(part, 0) for part in NAMING) if letters else 0
    return left <= 2 * slots + MAP * moving + naming


def _some(right: Answer, said: Answer, names: set[str]) -> str:
    rows = [f"{name} {[*map(hex, right.places.get(name, ()))]} became {[*map(hex, said.places.get(name, ()))]}"
            for name in sorted(names)[:2]]  # fmt: skip
    return ", ".join(rows)
