"""Direct branches to given places, wherever they are in the code of a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ftpatch.arch.shape import Branch
from ftpatch.arrays import I64, U32, is_in
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of

CHUNK = 1 << 20  # bytes of code that are looked at at once


class Branches(NamedTuple):
    """One row per branch, in the order of its place."""

    sec: I64
    off: I64
    kind: I64  # which of the branches that were asked for


def branches_to(
    image: Image, branches: Sequence[Branch], symbols: I64, relocated: tuple[int, ...]
) -> Branches:  # fmt: skip
    """Every one of these branches in code that goes to the start of one of the symbols.

    relocated: types of their relocations, for ET_REL. In code of bytes, what looks like such a branch may be the inside
    of an instruction: one in four billion does by chance for each symbol and each byte that begins a branch.
    """
    parts = [Branches(*3 * (np.zeros(0, dtype=np.int64),))]
    for sec in np.flatnonzero(image.executable).tolist() if len(symbols) else ():
        parts += (
            _linked(image, branches, symbols, sec)
            if image.linked
            else _relocated(image, branches, symbols, sec, relocated)
        )
    found = Branches(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    order = np.lexsort((found.off, found.sec))
    return Branches(*(column[order] for column in found))


def _linked(image: Image, branches: Sequence[Branch], symbols: I64, sec: int) -> list[Branches]:
    targets = image.symbols.rows["st_value"][symbols[image.symbols.shndx[symbols] > 0]]
    unit, base, code = image.arch.unit, image.base[sec], image.content(sec)
    overlap = max(branch.size for branch in branches) - unit  # what begins in one chunk may end in the next
    parts: list[Branches] = []
    for start in range(0, len(code) if len(targets) else 0, CHUNK):
        bytes_of = code[start : start + CHUNK + overlap]
        units: U32 = (bytes_of if unit == 1 else bytes_of[: len(bytes_of) & ~3].view("<u4")).astype(np.uint32)
        for kind, branch in enumerate(branches):
            at, distance = branch.find(units)
            at, distance = at[at < CHUNK], distance[at < CHUNK]
            with np.errstate(over="ignore"):
                to = ((base + (start + at).view(np.uint64)).view(np.int64) + distance).view(np.uint64)
            hit = start + at[is_in(to, targets)]
            parts.append(Branches(np.full(len(hit), sec), hit, np.full(len(hit), kind)))
    return parts


def _relocated(
    image: Image, branches: Sequence[Branch], symbols: I64, sec: int, kinds: tuple[int, ...]
) -> list[Branches]:
    relocations = relocations_of(image, sec)
    field = relocations.off[is_in(relocations.symbol, symbols) & is_in(relocations.kind, kinds)]
    parts: list[Branches] = []
    for kind, branch in enumerate(branches):  # another instruction takes the address
        off = field - branch.relocated_at
        units = image.words(np.full(len(off), sec), off, 0, 1)[:, 0]
        hit = off[branch.word.matches(units)]
        parts.append(Branches(np.full(len(hit), sec), hit, np.full(len(hit), kind)))
    return parts
