"""Rules about how far calls reach, and about the stubs that sites out of line call from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import I64, U64, Mask
from ftpatch.document.reach import reach_of
from ftpatch.rules.case import Case, Hit
from ftpatch.sites.scan import Scan

TIGHT = 16  # a call has little room left where it may grow by less than a sixteenth of its reach


def _margins(case: Case) -> tuple[I64, I64]:
    """(rows of the site table, bytes that each call may still grow); empty where there is no target. A stub's row is
    −1."""
    reach = reach_of(Scan(case.image, case.slots(), case.the()), case.sound)
    return (np.zeros(0, np.int64), np.zeros(0, np.int64)) if reach is None else (reach.rows, reach.margin)


def out_of_reach(case: Case) -> Iterator[Hit]:
    """Calls that cannot be written."""
    if case.module is not None:
        from ftpatch.kernel.module_load import reach

        verdict = reach(case.module)
        if verdict.verdict == "refused":
            yield Hit(verdict.text)
        return
    index, margin = case.once("margins", _margins)
    bad = np.flatnonzero(margin < 0)
    if not len(bad):
        return
    far = int(-margin.min())
    if index[bad[0]] < 0:
        yield Hit(f"{len(bad)} stubs reach no trampoline, the worst is {far} bytes off", count=len(bad))
    for one in index[bad][index[bad] >= 0].tolist():
        yield Hit(f"row {case.the().row[one]} reaches no trampoline of the kernel; the worst is {far} bytes off", one)


def headroom(case: Case) -> Iterator[Hit]:
    """Calls that soon will not reach."""
    index, margin = case.once("margins", _margins)
    if len(margin) and 0 <= margin.min() < case.arch.call.high // TIGHT:
        worst = int(index[np.argmin(margin)])
        name = (case.the().name(worst) or case.the().place_text(worst)) if worst >= 0 else "a stub"
        yield Hit(
            f"{name} may move away by {int(margin.min())} bytes, of {case.arch.call.high}, until it reaches nothing"
        )


@dataclass(frozen=True)
class Area:
    """An array of stubs as its symbols tell: first va, number of stubs."""

    name: str
    va: int
    n: int


def _areas(case: Case) -> list[Area]:
    """The areas of stubs, those of text before the one of init text; an area without symbols has no stubs."""
    stub, image, found = case.arch.site_stub, case.image, []
    for name in (*stub.text, stub.init) if stub else ():
        va, count = image.symbols.value(name), image.symbols.value(f"{name}_count")
        pos = image.pos_of_va(count) if count is not None else -1
        found.append(Area(name, va or 0, int(image.word_at(np.array([pos]))[0]) if va and pos >= 0 else 0))
    return found


def _recorded(case: Case) -> tuple[U64, Mask]:
    """Site of every live record, and which are init text."""
    table = case.the()
    return table.body_va[case.sound], case.init[case.sound]


def stub_count(case: Case) -> Iterator[Hit]:
    """Fewer stubs than records."""
    shape = case.the().shape
    if shape is None or not shape.out_of_line:
        return
    *text, inner = _areas(case)
    _, init = _recorded(case)
    for what, n, have in (
        ("text", int((~init).sum()), sum(a.n for a in text)),
        ("init text", int(init.sum()), inner.n),
    ):
        if have < n:
            yield Hit(f"{have} stubs for {n} records of {what}", count=n - have)


def ool_reserve(case: Case) -> Iterator[Hit]:
    """Sites too far from the stubs at the end of the text for those kept at its start."""
    shape = case.the().shape
    stub = case.arch.site_stub
    if shape is None or not shape.out_of_line or stub is None:
        return
    near, end, _ = _areas(case)
    va, init = _recorded(case)
    limit = np.uint64(max(end.va - case.arch.call.high, 0))
    need = int((va[~init] < limit).sum())
    if need > near.n:
        advice = (need + need // 8 + 1023) // 1024 * 1024
        yield Hit(f"{need} sites of text cannot reach {end.name}, {near.n} stubs are reserved near them: "
                  f"set {stub.reserve_option} to {advice}", count=need - near.n)  # fmt: skip


FINDS = {
    "out-of-reach": out_of_reach,
    "headroom": headroom,
    "stub-count": stub_count,
    "ool-reserve": ool_reserve,
}
