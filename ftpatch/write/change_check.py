"""The check after `drop` and `disable` wrote: the result is read from zero and held against the plan."""

from __future__ import annotations

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arrays import I64
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of, touched
from ftpatch.plan.plan import Plan
from ftpatch.sites.records import read_records
from ftpatch.sites.table import READY, read_sites
from ftpatch.write.verify import check_bytes, failed


def check_change(before: Image, after: Image, arch: Arch, plan: Plan) -> None:
    """Raise ApplyError where the written file is not what the plan says."""
    check_bytes(before, after, plan.edits)
    records = read_records(after)
    found = _places(records.sec[records.live], records.off[records.live])
    planned = _places(*plan.live_places())
    if not np.array_equal(found, planned):
        raise failed(after, "the records", f"{len(found)} live records, planned {len(planned)}, or other places")
    table, index = plan.scan.sites, plan.index
    words = after.words(table.sec[index], table.off[index] + table.site[index], 0, plan.new_words.shape[1])
    if not np.array_equal(words, plan.new_words):
        raise failed(after, "the site words", "other words than planned")
    if plan.verb == "drop" or table.shape is None or not len(index):
        return
    if not before.linked:
        _check_unrelocated(after, plan)
    if not table.shape.called:
        sites = read_sites(after, records, table.forced)
        ready = _places(sites.sec[sites.status == READY], sites.off[sites.status == READY])
        if not np.isin(_places(table.sec[index], table.off[index]), ready).all():
            raise failed(after, "the site table", "a disabled function that does not read as ready")


def _places(sec: I64, off: I64) -> I64:
    """Places as sorted numbers."""
    found: I64 = np.sort((sec << 40) + off)
    return found


def _check_unrelocated(after: Image, plan: Plan) -> None:
    """No loader will write into the words of a disabled site any more."""
    table, index = plan.scan.sites, plan.index
    for sec in np.unique(table.sec[index]).tolist():
        mine = index[table.sec[index] == sec]
        start = table.off[mine] + table.site[mine]
        if touched(relocations_of(after, sec), start, 4 * plan.new_words.shape[1]).any():
            raise failed(after, "the relocations", f"one that still writes into a site of {after.names[sec]}")
