"""The function symbols of an image by address, for questions like "who starts here" and "who holds this address"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ftpatch.arrays import I64, U8, U64, Mask, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.tables import Symbols

MAX_RANKED = 1 << 16  # symbols at one address that are put in the order of their names
MAX_NESTING = 64  # functions that overlap one address; compilers and linkers make two or three


@dataclass(frozen=True, eq=False, repr=False)
class Functions:
    """Every defined function symbol of the image, sorted by address; equal ones keep kallsyms' order."""

    row: I64  # symbol table row
    # [va, end): st_value and st_value + st_size
    va: U64
    end: U64
    local: U64  # va of the local entry, on machines whose functions have two; else `va` itself
    reach: U64  # the greatest `end` so far: tells that an address lies inside some function although functions overlap
    sized: bool = True  # whether `end` is from the file; else it is where the next symbol is, which may be too far

    def bounds(self, index: int) -> tuple[int, int]:
        """[va, end) of one function."""
        return int(self.va[index]), int(self.end[index])

    def at(self, va: U64) -> tuple[I64, I64]:
        """First and one-past-last index of the functions whose symbol is at each va (equal: none)."""
        low = np.searchsorted(self.va, va, side="left")
        if not len(self.va):
            return low, low.copy()
        near = np.minimum(low, len(self.va) - 1)
        return low, np.where(self.va[near] == va, self._of_one_va[1][near], low)

    def at_local(self, va: U64) -> tuple[I64, I64]:
        """As `at`, for the functions whose local entry is at each va."""
        if self.local is self.va or not len(self.va):
            return self.at(va)
        order, local = self._by_local
        place = np.minimum(np.searchsorted(local, va), len(order) - 1)
        known, near = local[place] == va, order[place]
        low, high = self._of_one_va
        return np.where(known, low[near], 0), np.where(known, high[near], 0)

    @cached_property
    def _by_local(self) -> tuple[I64, U64]:
        """The functions in the order of their local entries, and these."""
        order = np.argsort(self.local, kind="stable")
        return order, self.local[order]

    @cached_property
    def _of_one_va(self) -> tuple[I64, I64]:
        """Per function: first and one-past-last index of those at its address. Looked up, where a search takes long."""
        change = np.flatnonzero(self.va[1:] != self.va[:-1]) + 1
        low, high = np.concatenate(([0], change)), np.append(change, len(self.va))
        return np.repeat(low, high - low), np.repeat(high, high - low)

    def inside(self, va: U64) -> Mask:
        """Whether each va lies in [st_value, st_value + st_size) of some function."""
        before = np.searchsorted(self.va, va, side="right") - 1
        return np.asarray((before >= 0) & (self.reach[before] > va)) if len(self.va) else np.zeros(len(va), bool)

    def may_begin(self, va: U64) -> Mask:
        """Whether a function without a symbol may begin at each va, as far as the symbols around it tell."""
        return ~self.inside(va) if self.sized else ~is_in(va, self.va)

    def containing(self, va: U64) -> I64:
        """Index of the nearest function whose bounds hold each va; −1 if none does."""
        index = np.searchsorted(self.va, va, side="right") - 1
        index[~self.inside(va)] = -1
        if not len(self.va):
            return index
        for _ in range(MAX_NESTING):  # steps back over functions that ended before va, all sites at once
            ended = (index >= 0) & (self.end[index] <= va)
            if not ended.any():
                return index if self.sized else self._first_of(index)
            index[ended] -= 1
        index[ended] = -1
        return index

    def _first_of(self, index: I64) -> I64:
        """Of the functions at one address the first, as the kernel names it: without sizes all are equally long."""
        return np.where(index >= 0, self._of_one_va[0][index], -1)


def functions_of(
    symbols: Symbols, base: U64, local_entry: Callable[[U8], U64] | None, padding: tuple[str, ...] = (),
    sized: bool = True,
) -> Functions:  # fmt: skip
    """Function symbols by address; base: what to add to st_value, per section (zeros in a linked file);
    local_entry: the machine's reading of st_other, None where functions have one entry; padding: how the names begin
    of symbols that are no functions, see `Arch.padding_names`; sized: whether st_size is the file's own.

    Of equal addresses the name that kallsyms would pick comes first: not weak, fewest leading underscores, then in a
    linked file as `nm -n` has them, by name (Linux scripts/kallsyms.c compare_symbols), else symbol table order.
    """
    row = np.flatnonzero((symbols.type == t.STT_FUNC) & (symbols.shndx > 0))
    for start in padding:
        row = row[~symbols.begin_with(row, start)]
    va = base[symbols.shndx[row]] + symbols.rows["st_value"][row]
    order = np.argsort(va)
    row, va = row[order], va[order]
    _kallsyms_order(symbols, row, va, linked=not base.any())
    local = va if local_entry is None else va + local_entry(symbols.rows["st_other"][row])
    end = va + np.minimum(symbols.rows["st_size"][row], np.uint64(1 << 40))
    reach = np.maximum.accumulate(end) if len(end) else end
    return Functions(row, va, end, local, reach, sized)


def _kallsyms_order(symbols: Symbols, row: I64, va: U64, linked: bool) -> None:
    """Sort, in place, each run of equal addresses; a kernel has a few dozen. In very long ones weak ones come last."""
    same = np.flatnonzero(va[1:] == va[:-1])
    starts = same[np.concatenate(([True], np.diff(same) > 1))] if len(same) else same
    for start in starts:
        stop = int(np.searchsorted(va, va[start], side="right"))
        if stop - start > MAX_RANKED:  # a name is a Python object: these would take a multiple of the file
            rows = np.sort(row[start:stop])
            row[start:stop] = rows[np.argsort(symbols.bind[rows] == t.STB_WEAK, kind="stable")]
            continue

        def rank(r: int) -> tuple[bool, int, str, int]:
            name = symbols.name(r)
            return (bool(symbols.bind[r] == t.STB_WEAK), len(name) - len(name.lstrip("_")), name if linked else "", r)

        row[start:stop] = sorted((int(r) for r in row[start:stop]), key=rank)
