"""Choices that are made before a file is read: functions from a scanned file to its chosen sites."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ftpatch.arrays import Mask
from ftpatch.errors import UsageError
from ftpatch.sites.scan import Scan

Choose = Callable[[Scan], tuple[Mask, tuple[str, ...]]]  # the chosen sites, and what to say of the choice


def by_selectors(
    func: Sequence[str], status: Sequence[str] = (), section: Sequence[str] = (), unrecorded: bool = False
) -> Choose:
    """A function from a scanned file to the sites that the selectors choose. Raises UsageError where there are none."""
    if not (func or status or section or unrecorded):
        raise UsageError("nothing is chosen", todo="--func NAME chooses functions, --func '*' all of them")

    def choose(scan: Scan) -> tuple[Mask, tuple[str, ...]]:
        from ftpatch.sites import select

        selection = select.select(scan.sites, func, status, section, named=True, unrecorded=unrecorded)
        return selection.mask, selection.notes

    return choose


def no_site(scan: Scan) -> tuple[Mask, tuple[str, ...]]:
    """None of the sites: the choice of verbs that are about something else."""
    return np.zeros(len(scan.sites), dtype=bool), ()


def all_but(func: Sequence[str]) -> Choose:
    """Every site with a live record but those of the selectors."""
    kept_by = by_selectors(func)

    def choose(scan: Scan) -> tuple[Mask, tuple[str, ...]]:
        kept, notes = kept_by(scan)
        has_record = scan.sites.row >= 0
        has_record[: len(scan.records)] &= scan.records.live  # the first sites are the table's slots, null ones too
        return has_record & ~kept, notes

    return choose
