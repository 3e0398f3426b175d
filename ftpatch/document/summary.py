"""The figures of one image: counts, what the kernel will say of them at boot, and how far its calls reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ftpatch.arrays import Mask
from ftpatch.document.reach import margin_of, reach_of
from ftpatch.kernel.boot import at_boot
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import STATUSES, SiteTable

if TYPE_CHECKING:
    from ftpatch.document.types import BootObject, ReachObject, SummaryObject


def summary(scan: Scan, brief: bool = False) -> SummaryObject:
    """Counts of slots and sites. `boot` and `reach` are None where the file cannot tell; and if `brief`, as they cost
    more than all the rest."""
    records, table = scan.records, scan.sites
    live = np.zeros(len(table), dtype=bool)
    live[: len(records)] = records.live
    per_status = np.bincount(table.status[live]).tolist()
    return {
        "slots": len(records),
        "null": int(records.null.sum()),
        "live": int(records.live.sum()),
        "by_section": _by_section(table, live),
        "by_status": {STATUSES[state]: count for state, count in enumerate(per_status) if count},
        "without_record": int((table.row < 0).sum()),
        "with_skip": int(_with_skip(table, live).sum()),
        "boot": None if brief else _boot(scan, live),
        "reach": None if brief else _reach(scan, live),
    }


def _by_section(table: SiteTable, live: Mask) -> dict[str, int]:
    """Live sites by section name, which several sections may share, in the order of the sections."""
    found: dict[str, int] = {}
    for sec, count in enumerate(np.bincount(table.sec[live] + 1).tolist(), -1):
        if count:
            name = table.image.names[sec] if sec >= 0 else "(nowhere)"
            found[name] = found.get(name, 0) + count
    return found


def _with_skip(table: SiteTable, live: Mask) -> Mask:
    """Sites whose function starts with words that the layout leaves alone: a BTI on arm64, gcc 5's std on ppc64le."""
    if table.shape is None:
        return np.zeros(len(table), dtype=bool)
    return live & (table.sec >= 0) & table.shape.skipped(table.window)


def _boot(scan: Scan, live: Mask) -> BootObject | None:
    counts = at_boot(scan, live)
    return None if counts is None else {"allocating": counts["allocating"], "listed": counts["listed"]}


def _reach(scan: Scan, live: Mask) -> ReachObject | None:
    """How far the live sites are from the default target and, where branches are short, from the kernel's trampolines.

    max_distance, beyond: to the target; trampolines: how many sites lie beyond each of them; headroom: bytes that the
    text may still grow until some site reaches nothing.
    """
    reach = reach_of(scan, np.flatnonzero(live & (scan.sites.sec >= 0)))
    if reach is None:
        return None
    return {
        "target": reach.target,
        "max_distance": int(np.abs(reach.distance).max()),
        "limit": scan.arch.call.high,
        "beyond": int((margin_of(scan.arch, reach.distance) < 0).sum()),
        "trampolines": reach.beyond,
        "headroom": int(reach.margin.min()),
    }
