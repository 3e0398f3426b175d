"""Whether a hook comes back to a function that calls it: then neither ever returns.

Only direct calls and jumps of this file's own functions are followed, by a .plt, too, and those of stubs that earlier
patches added.
Where instructions have any length, what looks like a branch counts where it goes to the beginning of a function.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.arch.program_parts import Programs
from ftpatch.arrays import U64, is_in
from ftpatch.elf.image import Image
from ftpatch.elf.program_editor import SECTION
from ftpatch.plan.program.imports import own_behind_stubs

MAX_FUNCTIONS = 1 << 14  # that are looked at
MAX_UNITS = 1 << 20  # of one function's code
STUB = 512  # bytes of code that no symbol has


def chain_to(image: Image, programs: Programs, start: int, wanted: frozenset[int]) -> list[str]:
    """Names of the functions by which code at `start` comes to one of the addresses; empty where it does not.

    wanted: entries of functions, global or local.
    """
    functions, came_from, todo = image.functions, {start: 0}, [start]
    stubs, through = image.base[image.sections_named(SECTION)], own_behind_stubs(image, programs)
    plt = np.array(list(through), dtype=np.uint64)
    entries = np.concatenate([functions.va, functions.local, stubs, plt])
    while todo and len(came_from) < MAX_FUNCTIONS:
        va = todo.pop(0)
        for branch in _called(image, va, entries):
            to = through.get(branch, branch)
            if to in wanted:
                return [*_way(image, va, came_from), _name(image, to)]
            if to not in came_from:
                came_from[to] = va
                todo.append(to)
    return []


def _called(image: Image, va: int, entries: U64) -> Iterator[int]:
    """Where the direct branches of the function or stub at `va` go, if that is the entry of one."""
    inside = int(image.functions.containing(np.array([va], dtype=np.uint64))[0])
    size = int(image.functions.end[inside]) - va if inside >= 0 else STUB
    code = image.code(va, min(size // image.arch.unit, MAX_UNITS))
    for branch in (image.arch.call, image.arch.jump):
        if branch is not None:
            place, distance = branch.find(code)
            with np.errstate(over="ignore"):
                to = np.uint64(va) + (place + distance).view(np.uint64)
            yield from (int(entry) for entry in to[is_in(to, entries)])


def _way(image: Image, va: int, came_from: dict[int, int]) -> list[str]:
    way = []
    while va:
        way.append(_name(image, va))
        va = came_from[va]
    return way[::-1]


def _name(image: Image, va: int) -> str:
    inside = int(image.functions.containing(np.array([va], dtype=np.uint64))[0])
    return image.symbols.name(int(image.functions.row[inside])) if inside >= 0 else hex(va)
