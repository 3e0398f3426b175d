"""Who gives static calls another function while a kernel runs.

`static_call_update(NAME, func)` is a call of `__static_call_update` with the key's address as its first argument, or,
early in the boot, of `__static_call_update_early` with that of the trampoline. Where the argument is a constant, the
code in front of the call shows it. Tracepoints, security modules and BPF dispatchers read it from their own data: such
calls may set any key that something points to. Source: include/linux/static_call.h; arch/x86 static_call.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ftpatch.arch.static_call_forms import AddressLoad
from ftpatch.arrays import I64, U8, U64
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of
from ftpatch.kernel.init_text import in_init_code
from ftpatch.sites.branches import branches_to
from ftpatch.sites.place_names import names_around
from ftpatch.sites.static_calls import StaticCallTable
from ftpatch.sites.static_keys import named_at

UPDATES = ("__static_call_update", "__static_call_update_early")
NOBODY = "no function"  # what holds a call that no symbol's bounds hold


class Updater(NamedTuple):
    """A function that gives keys other functions."""

    function: str
    init: bool  # of boot code


class Updates(NamedTuple):
    """All calls of a file that give a key another function."""

    by_key: dict[int, list[Updater]]  # row of the key → who names it
    others: dict[Updater, int]  # calls whose key is no constant, by the function that holds them


def updates_of(table: StaticCallTable) -> Updates | None:
    """The updates of a file; None where the kernels of its machine update in another way."""
    image = table.image
    forms = image.arch.static_calls
    if forms is None or not forms.first_argument:
        return None
    arch = image.arch
    names = np.concatenate([image.symbols.rows_named(name) for name in UPDATES])
    branches = [branch for branch in (arch.call, arch.jump) if branch is not None]
    sec, off, _ = branches_to(image, branches, names, arch.direct_calls)
    functions, init = names_around(image, sec, off), in_init_code(image, sec, off).tolist()
    starts = _starts(image, sec, off)
    found = Updates({}, {})
    loads: dict[tuple[int, int], list[tuple[int, int]]] = {}  # per function: (offset, key) of what it passes
    before: dict[tuple[int, int], int] = {}  # where its call before this one is
    for i, place in enumerate(zip(sec.tolist(), starts.tolist(), strict=True)):  # about a hundred calls
        updater = Updater(functions[i] or NOBODY, init[i])
        at, first = int(off[i]), max(before.get(place, 0), place[1])
        if place not in loads:
            loads[place] = _loads(table, *place, _end(image, *place))
        passed = [key for where, key in loads[place] if first <= where < at]
        for key in dict.fromkeys(passed):
            known = found.by_key.setdefault(key, [])
            if updater not in known:
                known.append(updater)
        if not passed:
            found.others[updater] = found.others.get(updater, 0) + 1
        before[place] = at
    return found


def _starts(image: Image, sec: I64, off: I64) -> I64:
    """Offset in its section of the function around each place; of the place itself where none is."""
    functions = image.functions
    around = functions.containing(image.va(sec, off))
    if not len(functions.va):
        return off
    return np.where(around >= 0, (functions.va[around] - image.base[sec]).view(np.int64), off)


def _end(image: Image, sec: int, start: int) -> int:
    """Offset of the end of the function that begins there; the section's end at most."""
    functions = image.functions
    base, size = int(image.base[sec]), int(image.shdr["sh_size"][sec])
    low, high = functions.at(np.array([base + start & 0xFFFF_FFFF_FFFF_FFFF], dtype=np.uint64))
    ends = functions.end[int(low[0]) : int(high[0])]
    return min(int(ends.max()) - base, size) if len(ends) else start


def _loads(table: StaticCallTable, sec: int, start: int, end: int) -> list[tuple[int, int]]:
    """(offset in the section, row of the key) of everything in a function that passes a key or its trampoline."""
    image, static = table.image, table.image.arch.static_calls
    start = max(start, 0)  # a damaged function may begin in front of its section
    code = image.content(sec)[start:end]
    found: list[tuple[int, int]] = []
    for load in static.first_argument if static else ():
        at = start + _places(code, load)
        keys = _keys_at(table, sec, at, load)
        found += [(where, key) for where, key in zip(at.tolist(), keys, strict=True) if key is not None]
    return sorted(found)


def _places(code: U8, load: AddressLoad) -> I64:
    """Where in the code the instruction begins that loads an address."""
    n = len(code) - load.size + 1
    fits = np.ones(max(n, 0), dtype=bool)
    for i, byte in enumerate(load.code):
        fits &= code[i : i + n] == byte if n > 0 else fits
    return np.flatnonzero(fits)


def _keys_at(table: StaticCallTable, sec: int, at: I64, load: AddressLoad) -> Iterator[int | None]:
    """The key whose address, or whose trampoline's, each instruction loads; None for another address."""
    image, rows = table.image, table.rows_by_place
    field = at + len(load.code)
    if image.linked:
        words = image.data.rows(image.pos(np.full(len(at), sec), field), 4).view("<i4").reshape(-1).astype(np.int64)
        base = image.va(np.full(len(at), sec), at).view(np.int64) + load.size if load.relative else 0
        with np.errstate(over="ignore"):
            va: U64 = np.asarray(words + base).view(np.uint64)
        target, off = image.place(va)
        symbol = np.full(len(at), -1)
    else:
        target, off, symbol = named_at(image, relocations_of(image, sec), field)
        off = off + (load.size - len(load.code) if load.relative else 0)
    for place, name in zip(zip(target.tolist(), off.tolist(), strict=True), symbol.tolist(), strict=True):
        yield rows.get(place) if place[0] >= 0 else table.rows_by_symbol.get(name)
