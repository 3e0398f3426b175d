"""Sites by address and by place, for one question or a hundred thousand: what is sorted once is searched after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np

from ftpatch.arrays import I64, U64, distinct, is_in
from ftpatch.errors import SelectionError
from ftpatch.sites.table import SiteTable


class _Section(NamedTuple):
    """The sites of the sections of one name, by where each begins."""

    sites: I64  # in the site table
    start: I64  # the entry or the record, whichever comes first: byte offset in the section
    call: I64  # the call, from which on a site ends
    longest: int  # bytes from start to call, at most


@dataclass(frozen=True, eq=False)
class Places:
    """A site table by its addresses and offsets."""

    table: SiteTable

    @cached_property
    def _by_va(self) -> tuple[U64, I64]:
        """Every address of every site (record, entry, first word to rewrite, call), ascending, and whose it is."""
        table = self.table
        index = np.flatnonzero(table.sec >= 0)
        va = np.concatenate([column[index] for column in (table.va, table.entry_va, table.body_va, table.branch_va)])
        order = np.argsort(va, kind="stable")
        return va[order], np.tile(index, 4)[order]

    def at(self, va: int) -> I64:
        """Sites that have this address. Raises SelectionError for a file that has none yet."""
        if not self.table.image.linked:
            raise SelectionError("addresses have no meaning in an unlinked file", hex(va),
                                 todo="use .section+0xOFF or row:N")  # fmt: skip
        known, index = self._by_va
        first, end = (np.searchsorted(known, np.uint64(va), side=side) for side in ("left", "right"))
        return distinct(index[first:end])

    def within(self, section: str, off: int) -> I64:
        """Sites of a section's name that cover this offset, from the entry or record to the call."""
        known = self._sections(section)
        first = np.searchsorted(known.start, off - known.longest, side="left")
        end = np.searchsorted(known.start, off, side="right")
        return np.sort(known.sites[first:end][known.call[first:end] >= off])

    @cached_property
    def _sections(self) -> Callable[[str], _Section]:
        return cache(self._section)

    def _section(self, name: str) -> _Section:
        table = self.table
        index = np.flatnonzero(is_in(table.sec, table.image.sections_named(name)))
        off = table.off[index]
        start = np.minimum(off, off + (table.entry_va - table.va)[index].view(np.int64))
        call = off + (table.branch_va - table.va)[index].view(np.int64)
        order = np.argsort(start, kind="stable")
        return _Section(index[order], start[order], call[order], int((call - start).max(initial=0)))
