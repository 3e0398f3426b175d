"""Rules about what somebody expects: an earlier build, a configuration, a list of functions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.arch.shape import Shape
from ftpatch.elf.tables import STT_FUNC
from ftpatch.rules.case import Case, Hit
from ftpatch.rules.objects import unrecorded
from ftpatch.sites.table import READY, STATUSES, SiteTable

MANY = 64  # functions of a module that are not all without sites by chance


def records_collapsed(case: Case) -> Iterator[Hit]:
    """A table that lost most of its records, or all."""
    records = case.slots()
    live, before = int(records.live.sum()), case.context.live_before
    calls = int((case.sites.row < 0).sum()) if case.sites is not None else 0  # what ftpatch enabled has no record
    if before is not None and 2 * (live + calls) < before:
        yield Hit(f"{live} live records in {len(records)} slots, {before} before", count=before - live)
    elif len(records) and not live and not calls:
        yield Hit(f"all {len(records)} slots are null", count=len(records))


def lost_site(case: Case) -> Iterator[Hit]:
    """Functions with a site that had a record in the earlier build and have none now."""
    if case.context.before is None or case.kind != "vmlinux":
        return
    known = _recorded_names(case.context.before)
    image = case.image
    for row in unrecorded(case).tolist():
        name = image.symbols.name(int(image.functions.row[row]))
        if name in known:
            sec, off = image.place(image.functions.va[row : row + 1])
            text = f"{name} starts with the NOPs of a site; it had a record before and has none now"
            yield Hit(text, None, name, image.names[int(sec[0])], int(off[0]))


def _recorded_names(table: SiteTable) -> set[str]:
    rows = np.flatnonzero((table.status == READY) & (table.row >= 0))
    return {name for row in rows.tolist() if (name := table.name(row))}


def config_mismatch(case: Case) -> Iterator[Hit]:
    """A file that is not of the configuration."""
    config, records = case.kconfig, case.slots()
    shape = case.table.shape if case.table is not None else None
    n, kernel = int(records.live.sum()), case.kind == "vmlinux"
    if config.get("DYNAMIC_FTRACE") != "y":
        if n:
            yield Hit(f"{n} records, and DYNAMIC_FTRACE is not set", count=n)
        return
    if not len(records):
        code = int((case.image.symbols.type == STT_FUNC).sum())
        if kernel or code >= MANY:
            yield Hit(f"DYNAMIC_FTRACE=y, and none of {code} functions has a record")
        return
    if shape is None or not n:
        return
    option, layouts = next((one for one in case.arch.layout_options if config.get(one[0]) == "y"), ("", ()))
    if option and shape.name not in layouts:
        yield Hit(f"{option}=y wants layout {' or '.join(layouts)}, {n} sites have {shape.name}", count=n)
    elif kernel and config.get(case.arch.skip_option) == "y" and not _skips(case, shape):
        yield Hit(f"{case.arch.skip_option}=y, and none of {n} functions has {shape.skip_text}", count=n)


def _skips(case: Case, shape: Shape) -> bool:
    return bool(shape.skipped(case.the().window[case.live]).any())


def must_trace(case: Case) -> Iterator[Hit]:
    """Functions on the list that cannot be traced."""
    table, image = case.the(), case.image
    functions = image.functions
    ready = np.isin(table.status, (READY,)) & (table.row >= 0)
    for name in case.context.must:
        rows = image.symbols.rows_named(name)
        at = np.flatnonzero(np.isin(functions.row, rows))
        held = (
            (table.func[:, None] <= at) & (at < table.func_end[:, None]) if len(at) else np.zeros((len(table), 1), bool)
        )
        mine = np.flatnonzero(held.any(axis=1))
        if ready[mine].any():
            continue
        why = f"its site is {STATUSES[table.status[mine[0]]]}" if len(mine) else "it has no record"
        yield Hit(f"{name} must be traceable; {why if len(at) else 'there is no such function'}", None, name)


FINDS = {
    "records-collapsed": records_collapsed,
    "lost-record": lost_site,
    "config-mismatch": config_mismatch,
    "must-trace": must_trace,
}
