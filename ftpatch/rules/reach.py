"""Rules about how far calls reach, and about the stubs that sites out of line call from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ftpatch.rules.case import Case, Hit

TIGHT = 16  # a call has little room left where it may grow by less than a sixteenth of its reach


def out_of_reach(case: Case) -> Iterator[Hit]:
    """Calls that cannot be written."""
    if case.module is not None:
        from ftpatch.kernel.module_load import reach

        check = reach(case.module)
        if check.verdict == "refused":
            yield Hit(check.text)
    elif case.reach is not None:
        bad = case.reach.rows[case.reach.margin < 0].tolist()
        far = -int(case.reach.margin.min(initial=0))
        if bad and bad[0] < 0:  # the rows of stubs
            yield Hit(f"{len(bad)} stubs reach no trampoline, the worst is {far} bytes off", count=len(bad))
        for site in (row for row in bad if row >= 0):
            text = f"row {case.table.row[site]} reaches no trampoline of the kernel; the worst is {far} bytes off"
            yield Hit(text, site)


def headroom(case: Case) -> Iterator[Hit]:
    """Calls that soon will not reach."""
    reach, high = case.reach, case.arch.call.high
    if reach is not None and len(reach.margin) and 0 <= reach.margin.min() < high // TIGHT:
        row = reach.rows[[np.argmin(reach.margin)]]
        name, left = case.some(row) if row[0] >= 0 else "a stub", int(reach.margin.min())
        yield Hit(f"{name} may move away by {left} bytes, of {high}, until it reaches nothing")


class Area(NamedTuple):
    """An array of stubs by its symbols; 0 and 0 where there are none."""

    name: str
    va: int  # of the first stub
    n: int  # stubs


def _areas(case: Case) -> list[Area]:
    """The areas of stubs, those of text before the one of init text."""
    stub, image, areas = case.arch.site_stub, case.image, []
    for name in (*stub.text, stub.init) if stub else ():
        va, count = image.symbols.value(name), image.symbols.value(f"{name}_count")
        pos = image.pos_of_va(count) if count is not None else -1
        areas.append(Area(name, va or 0, int(image.word_at(np.array([pos]))[0]) if va and pos >= 0 else 0))
    return areas


def stub_count(case: Case) -> Iterator[Hit]:
    """Fewer stubs than records."""
    if case.table.shape is None or not case.table.shape.out_of_line:
        return
    *text, inner = _areas(case)
    init = int(case.init[case.sound].sum())
    for what, n, present in (
        ("text", len(case.sound) - init, sum(area.n for area in text)),
        ("init text", init, inner.n),
    ):
        if present < n:
            yield Hit(f"{present} stubs for {n} records of {what}", count=n - present)


def ool_reserve(case: Case) -> Iterator[Hit]:
    """Sites too far from the stubs at the end of the text for those kept at its start."""
    shape, stub = case.table.shape, case.arch.site_stub
    if shape is None or not shape.out_of_line or stub is None:
        return
    near, end, _ = _areas(case)
    va = case.table.body_va[case.sound[~case.init[case.sound]]]
    need = int((va < np.uint64(max(end.va - case.arch.call.high, 0))).sum())
    if need > near.n:
        advice = (need + need // 8 + 1023) // 1024 * 1024  # an eighth more, as the kernel grows
        text = f"{need} sites of text cannot reach {end.name}, {near.n} stubs are reserved near them: "
        yield Hit(text + f"set {stub.reserve_option} to {advice}", count=need - near.n)
