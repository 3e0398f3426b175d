"""The figures of one image: counts, what the kernel will say of them at boot, and how far its calls reach."""

from __future__ import annotations

from typing import Any

import numpy as np

from ftpatch.arch import Arch
from ftpatch.elf.image import Image
from ftpatch.elf.tables import Mask
from ftpatch.records import RecordTable
from ftpatch.sites import OUTSIDE, STATUSES, SiteTable


def summary(image: Image, arch: Arch, records: RecordTable, table: SiteTable) -> dict[str, Any]:
    """Counts of slots and sites; `boot` and `reach` are None where the file cannot tell."""
    live = np.zeros(len(table), dtype=bool)
    live[: len(records)] = records.live
    secs, per_section = np.unique(table.sec[live], return_counts=True)
    states, per_status = np.unique(table.status[live], return_counts=True)
    names = [image.names[sec] if sec >= 0 else "(nowhere)" for sec in secs.tolist()]
    return {
        "slots": len(records),
        "null": int(records.null.sum()),
        "live": int(records.live.sum()),
        "by_section": dict(zip(names, per_section.tolist(), strict=True)),
        "by_status": {
            STATUSES[state]: count for state, count in zip(states.tolist(), per_status.tolist(), strict=True)
        },
        "without_record": int((table.row < 0).sum()),
        "with_bti": int(_with_bti(table, live).sum()) if table.shape and table.shape.skip else 0,
        "boot": _boot(image, records, table, live),
        "reach": _reach(image, arch, table, live),
    }


def _with_bti(table: SiteTable, live: Mask) -> Mask:
    assert table.shape is not None
    return live & (table.sec >= 0) & table.shape.skips(table.window)


def _boot(image: Image, records: RecordTable, table: SiteTable, live: Mask) -> dict[str, int] | None:
    """What dmesg and available_filter_functions will count.

    Every kernel counts the slots that it does not recognise as zero before it adjusts them; functions of init text are
    listed until init memory is freed.
    """
    if image.kind != "vmlinux" or not len(records):
        return None
    kept = live & (table.status != OUTSIDE)
    begin, end = image.symbols.value("__init_begin"), image.symbols.value("__init_end")
    if begin is not None and end is not None:
        kept &= ~((table.va >= np.uint64(begin)) & (table.va < np.uint64(end)))
    return {"allocating": int((~records.zero).sum()), "listed": int(kept.sum())}


def _reach(image: Image, arch: Arch, table: SiteTable, live: Mask) -> dict[str, Any] | None:
    """Greatest distance between a live site and the default target, and how many sites lie beyond the branch."""
    target = image.symbols.value(arch.entries[0])
    live = live & (table.sec >= 0)
    if target is None or table.shape is None or not live.any():
        return None
    distance = np.uint64(target).astype(np.int64) - table.branch_va[live].view(np.int64)
    return {
        "target": arch.entries[0],
        "max_distance": int(np.abs(distance).max()),
        "limit": arch.branch.high,
        "beyond": int((~arch.branch.reaches(distance)).sum()),
    }
