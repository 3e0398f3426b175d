"""Which sites belong to which function symbols, for many questions at once.

Symbols at one address share their sites, so both are counted by entry: 300,000 names of one address are one entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ftpatch.arrays import FEW, I64, Mask, distinct
from ftpatch.elf.functions import Functions


@dataclass(frozen=True, eq=False, repr=False)
class Entries:
    """The addresses at which both a site and function symbols are."""

    functions: Functions
    func: I64  # per site, as in the site table: index of the first function at its entry
    func_end: I64  # behind the last

    @cached_property
    def _first(self) -> I64:
        """The first function of each entry, ascending."""
        return distinct(self.func[self.func < self.func_end])

    @cached_property
    def _end(self) -> I64:
        """Behind the last function of each entry."""
        end = np.zeros(len(self._first), dtype=np.int64)
        named = self.func < self.func_end
        end[self._of_sites[named]] = self.func_end[named]
        return end

    @cached_property
    def _of_sites(self) -> I64:
        """The entry of each site; −1 without one."""
        return np.where(self.func < self.func_end, np.searchsorted(self._first, self.func), -1)

    @cached_property
    def _by_entry(self) -> tuple[I64, I64]:
        """The sites in the order of their entries, and where those of each entry begin; of the last, where they end."""
        order = np.argsort(self._of_sites, kind="stable")
        return order, np.searchsorted(self._of_sites[order], np.arange(len(self._first) + 1))

    @cached_property
    def _of_symbols(self) -> I64:
        """Index of the function that each symbol row is; −1 for other symbols."""
        index = np.full(int(self.functions.row.max(initial=-1)) + 1, -1, dtype=np.int64)
        index[self.functions.row] = np.arange(len(self.functions.row))
        return index

    def functions_of(self, rows: I64) -> I64:
        """The functions that these symbol rows are."""
        index = self._of_symbols[rows[rows < len(self._of_symbols)]]
        return index[index >= 0]

    def of_functions(self, index: I64) -> I64:
        """The entries at which these functions are, ascending; functions without a site have none."""
        entry = np.searchsorted(self._first, index, side="right") - 1
        here = entry >= 0
        here[here] = index[here] < self._end[entry[here]]
        return distinct(entry[here])

    def sites_of(self, entries: I64) -> I64:
        """Every site of these entries, ascending."""
        order, begin = self._by_entry
        if len(entries) <= FEW:
            pieces = [order[begin[entry] : begin[entry + 1]] for entry in entries.tolist()]
            return np.sort(np.concatenate(pieces)) if len(pieces) > 1 else (pieces or [order[:0]])[0]
        wanted: Mask = np.zeros(len(self._first) + 1, dtype=bool)  # the last stands for sites without an entry
        wanted[entries] = True
        return np.flatnonzero(wanted[self._of_sites])

    def first_sites(self) -> tuple[I64, I64]:
        """Every function at which a site is, ascending, and the first of its sites."""
        order, begin = self._by_entry
        sizes = self._end - self._first
        ends = np.cumsum(sizes)
        functions = np.arange(int(sizes.sum())) + np.repeat(self._first - (ends - sizes), sizes)
        return functions, np.repeat(order[begin[:-1]], sizes)

    def spans(self) -> list[tuple[int, int]]:
        """First function of each entry, and behind the last."""
        return list(zip(self._first.tolist(), self._end.tolist(), strict=True))
