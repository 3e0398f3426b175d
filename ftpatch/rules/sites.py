"""Rules about the words of a site, and who else writes there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.elf.relocations import relocations_of, touched
from ftpatch.plan.targets import READ
from ftpatch.rules.case import Case, Hit, first
from ftpatch.rules.patchers import others
from ftpatch.sites.evidence import callees_of
from ftpatch.sites.table import ENABLED, HALF, UNEXPECTED, UNTOUCHED


def unexpected_words(case: Case) -> Iterator[Hit]:
    """Sites of functions that hold neither the NOPs nor the call."""
    table, odd = case.table, case.live_with(UNEXPECTED)
    usual = table.shape.code_text if table.shape else "a site"
    for site in odd[case.named[odd]].tolist():
        other = table.calls_another(site)
        but = f"which the loader lets call another function than {other}" if other else f"not {usual}"
        yield Hit(f"row {table.row[site]} has {case.words(site)}, {but}", site)


def record_without_nops(case: Case) -> Iterator[Hit]:
    """Records of code that is neither a site nor in a function."""
    table, odd = case.table, case.live_with(UNEXPECTED)
    for site in odd[~case.named[odd] & ~case.image.functions.inside(table.va[odd])].tolist():
        yield Hit(f"row {table.row[site]} names {table.place_text(site)}: {case.words(site)}, in no function", site)


def site_enabled(case: Case) -> Iterator[Hit]:
    """Sites that are calls already although their record is live."""
    for site in case.live_with(ENABLED).tolist():
        row, target = case.table.row[site], case.table.redirects.get(site)
        what = "a call" if target is None else f"a jump to {target.name}"
        yield Hit(f"row {row} is {what} in the file ({case.words(site)}) and still has its record", site)


def site_half(case: Case) -> Iterator[Hit]:
    """Sites of which only the first word was rewritten."""
    for site in case.live_with(HALF).tolist():
        yield Hit(f"row {case.table.row[site]} is half rewritten: {case.words(site)}", site)


def without_record(case: Case) -> Iterator[Hit]:
    """Sites that an earlier patch enabled."""
    callees = callees_of(case.table)
    names = list(dict.fromkeys(callee.name for callee in callees.values()))
    how_sure = "" if all(callee.sure for callee in callees.values()) else "likely "
    if callees:
        text = (
            f"{len(callees)} sites call without a record, the first is {case.some(np.array([min(callees)]))}: "
            f"{how_sure}an earlier patch (they call {first(names)})"
        )
        yield Hit(text, count=len(callees))


def literal_missing(case: Case) -> Iterator[Hit]:
    """Calls of an entry that loads an ops pointer which is not there."""
    image, table, shape = case.image, case.table, case.table.shape
    if shape is None or shape.literal is None or not (table.row < 0).any():
        return
    index = np.flatnonzero((table.row < 0) & (table.status == ENABLED) & ~table.redirected)
    target = table.branch_va[index].view(np.int64) + shape.branch.distance(table.body()[index])
    entries = [image.symbols.value(name) for name in case.arch.entries]
    reads = [va for va in entries if va is not None and case.arch.read_entry(image.code(va, READ)).literal]
    index = index[np.isin(target.view(np.uint64), np.array(reads, dtype=np.uint64))]
    va = table.va[index] + np.uint64(shape.literal)
    nops = image.words(table.sec[index], table.off[index] + shape.literal, 0, 2) == np.uint32(case.arch.nop)
    for site in index[nops.all(axis=1) & ~image.relocated(va, 8)].tolist():
        yield Hit(f"{table.name(site)} calls an entry that loads the pointer in front of it: two NOPs", site)


def not_atomic(case: Case) -> Iterator[Hit]:
    """Records whose words no single store replaces."""
    records, unit, n = case.records, case.arch.unit, len(case.records)
    over = case.table.off[:n] % unit
    for row in np.flatnonzero(records.live & (case.table.sec[:n] >= 0) & (over != 0)).tolist():
        yield Hit(f"row {row} lies at {over[row]} mod {unit}: no store replaces its word at once", row)


def site_shared(case: Case) -> Iterator[Hit]:
    """Sites with words that another part of the kernel rewrites."""
    table, index = case.table, case.live_with(*UNTOUCHED)
    low, high = table.body_va[index], table.branch_va[index] + np.uint64(case.arch.call.size)
    for name, start, end in others(case.image) if len(index) else ():
        if not len(start):
            continue
        order = np.argsort(start, kind="stable")
        start, end = start[order], np.maximum.accumulate(end[order])  # the furthest end of all that start before
        last = np.searchsorted(start, high) - 1
        for site in index[(last >= 0) & (end[np.maximum(last, 0)] > low)].tolist():
            yield Hit(f"row {table.row[site]}: {name} rewrites words of this site too", site)


def site_relocated(case: Case) -> Iterator[Hit]:
    """Sites with words that a loader writes."""
    image, table, shape = case.image, case.table, case.table.shape
    index = case.live_with(*UNTOUCHED)
    if shape is None or shape.called or not len(index):  # a call that is in the file has its relocation
        return
    if image.linked:
        hit = image.relocated(table.body_va[index], shape.size)
    else:
        hit = np.zeros(len(index), dtype=bool)
        for sec in np.unique(table.sec[index]).tolist():
            mine = table.sec[index] == sec
            hit[mine] = touched(relocations_of(image, sec), (table.off + table.site)[index[mine]], shape.size)
    for site in index[hit].tolist():
        yield Hit(f"row {table.row[site]}: a relocation writes into the words of this site", site)
