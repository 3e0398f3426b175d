"""The functions of a file that a compiler made of another: `elf/clone_names.py` tells them by their names."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

import numpy as np

from ftpatch.arrays import I64, is_in
from ftpatch.elf.clone_names import meaning
from ftpatch.elf.image import Image
from ftpatch.elf.tables import MAX_NAME, places_of
from ftpatch.sites.table import SiteTable

MAX_CLONES, MAX_PLACES = 64, 1 << 14  # of one function; strings that have its name and a dot
SHOWN = 3  # that a refusal names


class Clone(NamedTuple):
    """A function that a compiler made of another."""

    name: str
    text: str  # what it is
    whole: bool  # it is the function itself, not a part of it
    sites: tuple[int, ...]  # of the site table, at its entry


def clones_of(table: SiteTable, name: str) -> list[Clone]:
    """The functions that the compiler made of the one of this name: whole ones with a site first, then by name."""
    image = table.image
    found = []
    for clone in sorted(_names(image, name)):
        text, whole = meaning(name, clone)
        at = np.flatnonzero(is_in(image.functions.row, image.symbols.rows_named(clone)))
        if len(at):
            found.append(Clone(clone, text, whole, tuple(_sites(table, at))))
    return sorted(found, key=lambda clone: (not clone.whole, not clone.sites))


def _names(image: Image, name: str) -> set[str]:
    """Clones' names in the string table. Linkers merge tails: the name may begin in the middle of another string."""
    start, strtab, names = f"{name}.".encode("utf-8", "surrogateescape"), image.symbols.strtab, set()
    for at in islice(places_of(start, strtab), MAX_PLACES):
        end = strtab.find(b"\0", at, at + MAX_NAME)
        clone = strtab[at : end if end >= 0 else at].decode("utf-8", "backslashreplace")
        if meaning(name, clone)[0]:
            names.add(clone)
    return set(sorted(names)[:MAX_CLONES])


def _sites(table: SiteTable, functions: I64) -> list[int]:
    """Sites at whose entry one of these functions stands."""
    covered = np.zeros(len(table), dtype=bool)
    for function in functions.tolist():
        covered |= (table.func <= function) & (function < table.func_end)
    sites: list[int] = np.flatnonzero(covered).tolist()
    return sites


def proposal(table: SiteTable, selector: str) -> tuple[str, str]:
    """(what there is instead, what to write) where a name has no site and clones of it have; empty where none has."""
    name, at, file = selector.partition("@")
    found = [clone for clone in clones_of(table, name) if clone.sites]
    whole = [clone for clone in found if clone.whole]
    taken = whole or found
    if not taken:
        return "", ""
    listed = ", ".join(f"{clone.name} ({len(clone.sites)} sites)" if len(clone.sites) > 1 else clone.name
                       for clone in taken[:SHOWN])  # fmt: skip
    rest = f" and {len(taken) - SHOWN} more" if len(taken) > SHOWN else ""
    what = "made of it by the compiler" if whole else "parts of it only, entered by some of its callers"
    todo = "give " + " ".join(f"--func {clone.name}{at}{file}" for clone in taken[:SHOWN])
    return f"{listed}{rest}, {what}", todo
