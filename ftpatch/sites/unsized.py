"""Whether a name in code is a function's, where no sizes tell it: kallsyms has labels of assembly as it has functions.

A record says so. Without one, a label in front of a call or jump looks as a function does whose record an earlier patch
took away. But functions begin at multiples of what the compiler was told, and go on behind their sites.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ftpatch.arrays import I64, U64, Mask, is_in
from ftpatch.elf.image import Image
from ftpatch.elf.tables import LAST_VA, Symbols
from ftpatch.sites.table import NAMELESS, SiteTable

ALIGNMENTS = (64, 32, 16, 8, 4)  # bytes
USUAL = 0.99  # of the functions that have a site begin at such multiples: a few are assembly


def may_be_functions(known: SiteTable, entry: U64, sec: I64, off: I64) -> Mask:
    """Which entries may be functions'. known: sites with records; off: byte offset of the first byte behind the site
    of each."""
    image = known.image
    named = known.entry_va[known.func < known.func_end]
    usual = next((n for n in ALIGNMENTS if len(named) and (named % np.uint64(n) == 0).mean() >= USUAL), 1)
    return np.asarray((entry % np.uint64(usual) == 0) & ~_ends_there(image, sec, off) & ~_returns(image, sec, off))


def _ends_there(image: Image, sec: I64, off: I64) -> Mask:
    """Where filling or another jump stands."""
    jump, ends = image.arch.jump, np.zeros(len(sec), dtype=bool)
    if jump is not None:
        ends |= jump.word.matches(image.words(sec, off, 0, 1)[:, 0])
    for filler in image.arch.fillers.pieces:
        unit = image.arch.unit
        units = np.frombuffer(filler, np.uint8 if unit == 1 else "<u4").astype(np.uint32)
        ends |= (image.words(sec, off, 0, len(units)) == units).all(axis=1)
    return ends


def _returns(image: Image, sec: I64, off: I64) -> Mask:
    """Where the jump in front of a place is what the kernel has for a return."""
    jump, forms = image.arch.jump, image.arch.static_calls
    thunk = image.symbols.value(forms.thunk) if forms is not None and forms.thunk else None
    if jump is None or thunk is None:
        return np.zeros(len(sec), dtype=bool)
    at = off - image.arch.unit * jump.n_units
    units = image.words(sec, at, 0, jump.n_units)
    distance = jump.decode(units[:, 0] if jump.n_units == 1 else units)
    return np.asarray(
        jump.word.matches(units[:, 0])
        & (image.va(sec, at).view(np.int64) + distance == np.uint64(thunk).astype(np.int64))
    )


def bounded(known: SiteTable) -> SiteTable:
    """The same sites in an image whose functions end at the latest where a record names code without a symbol."""
    image, shape, functions = known.image, known.shape, known.image.functions
    nameless = is_in(known.status, NAMELESS)
    if functions.sized or image.recovered is None or shape is None or not nameless.any():
        return known
    starts = np.sort(known.va[nameless] + shape.to_entry(known.window[nameless]).view(np.uint64))
    symbols, row = image.recovered.symbols, functions.row
    following = np.append(starts, np.uint64(LAST_VA))[np.searchsorted(starts, functions.va, side="right")]
    rows = symbols.rows.copy()
    rows["st_size"][row] = np.minimum(rows["st_size"][row], following - functions.va)
    recovered = image.recovered._replace(symbols=Symbols(rows, symbols.strtab, symbols.shndx))
    return replace(known, image=replace(image, recovered=recovered))
