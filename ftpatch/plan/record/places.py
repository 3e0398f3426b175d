"""Places in code that records name, as sets of columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ftpatch.arrays import I64, Mask, first_of_each, is_in
from ftpatch.sites.records import RecordTable


class Places(NamedTuple):
    """One row a place: where a record points."""

    sec: I64  # section
    off: I64  # byte offset in it

    @property
    def key(self) -> I64:
        """One number for each place, in the order of sections and offsets."""
        key: I64 = self.sec << 40 | self.off
        return key

    def where(self, which: Mask | I64) -> Places:
        return Places(self.sec[which], self.off[which])

    def by_section(self) -> Iterator[tuple[int, I64]]:
        """Each section of code, and the offsets in it, ascending."""
        ordered = self.where(np.argsort(self.key, kind="stable"))
        secs, first = np.unique(ordered.sec, return_index=True)
        yield from zip(secs.tolist(), np.split(ordered.off, first[1:]), strict=True) if len(secs) else ()

    def without(self, others: Places) -> Places:
        """Those that are not among others."""
        return self.where(~is_in(self.key, others.key))

    def ordered(self) -> Places:
        """Each place once, by section and offset."""
        once = self.where(first_of_each(self.key))
        return once.where(np.argsort(once.key, kind="stable"))


NOWHERE = Places(np.zeros(0, np.int64), np.zeros(0, np.int64))


def as_records(places: Places) -> RecordTable:
    """A table as if the file had records of these places."""
    none, n = np.zeros(len(places.sec), dtype=np.int64), len(places.sec)
    return RecordTable(
        slot=none, word=none.view(np.uint64), rela=none, relr=np.zeros(n, dtype=bool), value=places.off.view(np.uint64),
        sec=places.sec, off=places.off, start=0, in_sections=True,
    )  # fmt: skip


def joined(*parts: Places) -> Places:
    """All places of several sets."""
    return Places(np.concatenate([part.sec for part in parts]), np.concatenate([part.off for part in parts]))
