"""Rules about what somebody expects: an earlier build, a configuration, a list of functions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.elf.recovered import is_nameless
from ftpatch.elf.tables import STT_FUNC
from ftpatch.rules.case import Case, Hit
from ftpatch.sites.table import ENABLED, READY, STATUSES, STRIPPED, UNNAMED

MANY = 64  # functions of a module that are not all without sites by chance


def records_collapsed(case: Case) -> Iterator[Hit]:
    """A table that lost most of its records, or all."""
    live, before, n = int(case.records.live.sum()), case.context.live_before, len(case.records)
    calls = int(((case.table.row < 0) & (case.table.status == ENABLED)).sum())  # what ftpatch enabled has no record
    if before is not None and 2 * (live + calls) < before:
        yield Hit(f"{live} live records in {n} slots, {before} before", count=before - live)
    elif n and not live and not calls:
        yield Hit(f"all {n} slots are null", count=n)


def lost_record(case: Case) -> Iterator[Hit]:
    """Functions with a site that had a record in the earlier build and have none now."""
    before = case.context.before
    if before is None:
        return
    recorded = {before.name(row) for row in np.flatnonzero((before.status == READY) & (before.row >= 0)).tolist()}
    for name, section, offset in case.unrecorded:
        if name in recorded:
            text = f"{name} starts with the NOPs of a site; it had a record before and has none now"
            yield Hit(text, None, name, section, offset)


def config_mismatch(case: Case) -> Iterator[Hit]:
    """A file that is not of the configuration."""
    config, shape, arch = case.kconfig, case.table.shape, case.arch
    n, kernel = int(case.records.live.sum()), case.kind == "vmlinux"
    if config.get("DYNAMIC_FTRACE") != "y":
        if config and n:
            yield Hit(f"{n} records, and DYNAMIC_FTRACE is not set", count=n)
        return
    if not len(case.records):
        code = int((case.image.symbols.type == STT_FUNC).sum())
        if kernel or code >= MANY:
            yield Hit(f"DYNAMIC_FTRACE=y, and none of {code} functions has a record")
        return
    if shape is None or not n:
        return
    option, layouts = next(((name, layouts) for name, layouts in arch.layout_options if config.get(name) == "y"),
                           ("", ()))  # fmt: skip
    if option and shape.name not in layouts:
        yield Hit(f"{option}=y wants layout {' or '.join(layouts)}, {n} sites have {shape.name}", count=n)
    elif kernel and config.get(arch.skip_option) == "y" and not shape.skipped(case.table.window[case.live]).any():
        yield Hit(f"{arch.skip_option}=y, and none of {n} functions has {shape.skip_text}", count=n)


def must_trace(case: Case) -> Iterator[Hit]:
    """Functions on the list that cannot be traced."""
    table, symbols, names = case.table, case.image.symbols, tuple(dict.fromkeys(case.context.must))
    symbols.look_up(names)
    entries, ready = table.entries, (table.status == READY) & (table.row >= 0)
    stripped = np.isin(table.status, (STRIPPED, UNNAMED)).any()
    absent = "nothing has that name, and names are stripped" if stripped else "there is no such function"
    if is_nameless(case.image.recovered):
        absent = "whether it can is not known: the kernel has no names of functions"
    for name in names:
        rows = symbols.rows_named(name)
        functions = entries.functions_of(rows) if len(rows) else rows
        sites = entries.sites_of(entries.of_functions(functions)) if len(functions) else functions
        if not ready[sites].any():
            why = f"its site is {STATUSES[table.status[sites[0]]]}" if len(sites) else "it has no record"
            target = table.redirects.get(int(sites[0])) if len(sites) else None
            why = why if target is None else f"it is redirected to {target.name}"
            yield Hit(f"{name} must be traceable; {why if len(functions) else absent}", None, name)
