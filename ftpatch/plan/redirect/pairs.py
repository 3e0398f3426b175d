"""Which function becomes which: the pairs of a command line, and the sites that they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ftpatch.arrays import Mask
from ftpatch.errors import SelectionError, UsageError
from ftpatch.inputs import read_input
from ftpatch.sites.scan import Scan
from ftpatch.sites.select import BOM, MAX_LIST, select


class Pair(NamedTuple):
    """A function and its replacement, as the user names them."""

    func: str  # a selector
    to: str


def read_pairs(maps: Sequence[str]) -> tuple[Pair, ...]:
    """The pairs of FOO=BAR, each, or @file with one a line and `#` comments. Raises UsageError or SelectionError."""
    pairs: list[Pair] = []
    for text in maps:
        pairs += [_pair(line, text) for line in (_lines(text[1:]) if text.startswith("@") else [text])]
    return tuple(dict.fromkeys(pairs))


def _lines(path: str) -> list[str]:
    content = read_input(path, MAX_LIST, "the list of pairs").decode("utf-8", "surrogateescape").removeprefix(BOM)
    lines = [line.split("#", 1)[0].strip() for line in content.split("\n")]
    if not any(lines):
        raise SelectionError("the list names no pair", path, expected="FOO=BAR, one a line")
    return [line for line in lines if line]


def _pair(line: str, source: str) -> Pair:
    func, equals, to = (part.strip() for part in line.rpartition("="))
    if not (func and equals and to):
        raise UsageError("not a pair", f"--map {source}", found=repr(line),
                         expected="FOO=BAR, a function and its replacement")  # fmt: skip
    return Pair(func, to)


def originals_of(scan: Scan, replacements: Mapping[int, str], texts: Sequence[str]) -> dict[int, str]:
    """Names for the old functions by site, from NAME where one function is redirected, or FOO=NAME, each.

    Raises UsageError or SelectionError.
    """
    names: dict[int, str] = {}
    for text in texts:
        where, (func, equals, name) = f"--keep-original {text}", text.rpartition("=")
        selected = select(scan.sites, [func], named=True).mask if equals else np.ones(len(scan.sites), dtype=bool)
        sites = [site for site in replacements if selected[site]]
        if len(sites) != 1:
            raise SelectionError("a name for one function's old code", where, expected="one",
                                 found=f"{len(sites)} redirected functions", todo="give FOO=NAME")  # fmt: skip
        if sites[0] in names:
            raise UsageError("two names for the old code of one function", where, found=f"{names[sites[0]]} and {name}")
        names[sites[0]] = name
    return names


def replacements_of(scan: Scan, chosen: Mask, pairs: Sequence[Pair]) -> dict[int, str]:
    """What each chosen site leads to. Raises SelectionError where a site is in two pairs that do not agree."""
    to: dict[int, str] = {}
    for pair in pairs:
        selected = select(scan.sites, [pair.func], named=True).mask & chosen
        for site in np.flatnonzero(selected).tolist():
            if to.setdefault(site, pair.to) != pair.to:
                name = scan.sites.name(site) or scan.sites.place_text(site)
                raise SelectionError("a function is to become two others", name, found=f"{to[site]} and {pair.to}",
                                     expected="one replacement")  # fmt: skip
    return to
