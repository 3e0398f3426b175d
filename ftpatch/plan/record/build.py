"""The records of another build of the same sources, found again in this file: by place where the code is the same, else
by the name of the function.

Whatever the other build recorded, a place has its record here only where the words of a site are.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from ftpatch.arch.shape import MATCH_OLD, Shape, begins_with
from ftpatch.arrays import I64, Mask, is_in
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError, UsageError
from ftpatch.kernel.recorded import is_never_traced
from ftpatch.plan.record.entries import entries_of
from ftpatch.plan.record.places import NOWHERE, Places, joined
from ftpatch.sites.scan import Scan


class FromBuild(NamedTuple):
    """What another build's list comes to here."""

    places: Places
    left: dict[str, str]  # why functions of that list stay without a record, by name
    n_left: int  # records of that list that stay away
    n_untraced: int  # others, of exit functions: no kernel traces these


def places_from(image: Image, other: Scan, calls: Places) -> FromBuild:
    """The places that the other build records, as far as they are sites here. calls: of the profiling function here.

    Raises UsageError for a file of another machine, PolicyError for one without records.
    """
    if other.arch is not image.arch:
        raise UsageError("--from is for another machine", other.image.path, found=other.arch.name,
                         expected=image.arch.name)  # fmt: skip
    shape = other.sites.shape
    live = np.flatnonzero(other.records.live & (other.records.sec >= 0))
    if shape is None or not len(live):
        raise PolicyError("--from names a file without records", other.image.path, found="no record",
                          expected="an object or module of the same sources that has its records")  # fmt: skip
    if other.image.linked:
        raise UsageError("--from takes an object or module", other.image.path, found=other.image.kind,
                         expected="another build of the same object or module")  # fmt: skip
    recorded = Places(other.records.sec[live], other.records.off[live])
    here = _sections_here(image, other.image)
    target = here[recorded.sec]
    same = target >= 0
    by_place = Places(target[same], recorded.off[same])
    names, places = _by_name(image, other, live[~same], shape, calls)
    ready = are_sites(image, shape, by_place, calls)
    left = {_name(other, row): "no site where the other build has one" for row in live[same][~ready].tolist()}
    never = np.array([is_never_traced(name) for name in image.names], dtype=bool)
    found = joined(by_place.where(ready), places)
    untraced = never[found.sec]
    return FromBuild(found.where(~untraced), {**left, **names}, int((~ready).sum()) + len(names), int(untraced.sum()))


def are_sites(image: Image, shape: Shape, places: Places, calls: Places) -> Mask:
    """Which places are what a compiler leaves at a site of that layout."""
    window = image.window(*places)
    ready = np.asarray(shape.match(window) == MATCH_OLD)
    if shape.called:
        ready = is_in(places.key, calls.key) | (ready & begins_with(shape.body(window), shape.also))
    if shape.literal is not None:
        ready &= places.off % 8 == 0
    return ready


def _sections_here(image: Image, other: Image) -> I64:
    """Per section of the other file: the section of this one that has the same name and the same code; −1 for none."""
    here = np.full(len(other.shdr), -1, dtype=np.int64)
    for sec in np.flatnonzero(other.executable & (other.shdr["sh_size"] > 0)).tolist():
        same = [mine for mine in image.sections_named(other.names[sec]) if image.executable[mine]
                and np.array_equal(image.content(mine), other.content(sec))]  # fmt: skip
        if len(same) == 1:
            here[sec] = same[0]
    return here


def _name(other: Scan, row: int) -> str:
    return other.sites.name(row) or other.sites.place_text(row)


def _by_name(image: Image, other: Scan, rows: I64, shape: Shape, calls: Places) -> tuple[dict[str, str], Places]:
    """The sites of functions of the same names, and why others stay without."""
    left: dict[str, str] = {}
    if not len(rows):
        return left, NOWHERE
    wanted: dict[str, int] = defaultdict(int)
    for row in rows.tolist():
        wanted[_name(other, row)] += 1
    sec, off = [NOWHERE.sec], [NOWHERE.off]
    own = _sites_by_name(image, shape, calls)
    for name, n in wanted.items():
        mine = own.get(name, [])
        if len(mine) != n:
            why = f"{len(mine)} functions of that name have a site here, {n} in the other build"
            left[name] = why if mine else "no function of that name has a site here"
            continue
        sec.append(np.array([place[0] for place in mine], dtype=np.int64))
        off.append(np.array([place[1] for place in mine], dtype=np.int64))
    return left, Places(np.concatenate(sec), np.concatenate(off))


def _sites_by_name(image: Image, shape: Shape, calls: Places) -> dict[str, list[tuple[int, int]]]:
    """Every site of a function with a name."""
    functions, names = image.functions, defaultdict[str, list[tuple[int, int]]](list)
    if shape.called:
        index = functions.containing(image.va(*calls))
        places, index = calls.where(index >= 0), index[index >= 0]
    else:
        entries = entries_of(image, shape)
        places, index = entries.places.where(entries.ready), entries.first[entries.ready]
    low, high = functions.at(functions.va[index])
    for begin, end, sec, off in zip(low.tolist(), high.tolist(), *(part.tolist() for part in places), strict=True):
        for symbol in functions.row[begin:end].tolist():
            names[image.symbols.name(symbol)].append((sec, off))
    return names
