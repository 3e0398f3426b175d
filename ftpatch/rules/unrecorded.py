"""Rules about calls of the profiling function (-pg) that no record names."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.arrays import I64
from ftpatch.kernel.recorded import is_recorded
from ftpatch.rules.case import Case, Hit
from ftpatch.sites.profiler_calls import n_indirect, profiler_calls
from ftpatch.sites.table import ENABLED, UNRECORDED

FEW = 20  # calls that are found one by one


def _expected(case: Case) -> I64:
    """The calls without a record that a kernel's build would have made records of."""
    table = case.table
    index = np.flatnonzero(table.status == UNRECORDED)
    if not len(index):
        return index
    recorded = np.array([is_recorded(name) for name in case.image.names], dtype=bool)
    return np.asarray(index[recorded[table.sec[index]]])


def _has_records(case: Case) -> bool:
    """Whether the build made records: some are live, or were and are taken out by a patch."""
    return bool(case.records.live.any() or len(case.records) or (case.table.status == ENABLED).any())


def _called(case: Case) -> str:
    return case.table.shape.called if case.table.shape else ""


def _names(case: Case) -> list[str]:
    """What this machine's compilers call for -pg."""
    return list(dict.fromkeys(shape.called for shape in case.arch.shapes if shape.called))


def calls_without_records(case: Case) -> Iterator[Hit]:
    """A file whose functions all call the profiling function, and that has no record at all."""
    index = _expected(case)
    if len(index) and not _has_records(case):
        calls = "call" if len(index) == 1 else "calls"
        yield Hit(f"{len(index)} {calls} of {_called(case)} and no record: {case.some(index)}", count=len(index))
    elif case.table.shape is None:
        for called in _names(case):
            if n := n_indirect(case.image, called):
                options = case.arch.pointer_options
                text = f"{n} calls of {called} through a pointer ({options}): no tracer can switch such a call"
                yield Hit(text, count=n)


def call_without_record(case: Case) -> Iterator[Hit]:
    """Calls without a record in a file that has records of others."""
    index = _expected(case)
    index = index[case.named[index]]  # code of an overridden weak function has no name, and nothing calls it
    if not len(index) or not _has_records(case):
        return
    n = len(case.records)
    for site in index[:FEW].tolist() if len(index) <= FEW else ():
        name = case.table.name(site) or case.table.place_text(site)
        yield Hit(f"{name} calls {_called(case)} and has no record, one of {len(index)} beside {n} records", site)
    if len(index) > FEW:
        text = f"{len(index)} calls of {_called(case)} have no record, {n} records are there: {case.some(index)}"
        yield Hit(text, count=len(index))


def profiled_program(case: Case) -> Iterator[Hit]:
    """A program that is built for gprof."""
    index = np.flatnonzero(case.table.status == UNRECORDED)
    if len(index):
        yield Hit(f"{len(index)} functions call {_called(case)}: {case.some(index)}", count=len(index))


def foreign_calls(case: Case) -> Iterator[Hit]:
    """Calls of the profiling function in a file whose sites are of another kind."""
    shape = case.table.shape
    if shape is None or shape.called:
        return
    for called in _names(case):
        sec, off = profiler_calls(case.image, called)
        if len(sec):
            place = f"{case.image.names[int(sec[0])]}+{int(off[0]):#x}"
            text = f"{len(sec)} calls of {called} beside {shape.name} sites, the first at {place}"
            yield Hit(text, None, None, case.image.names[int(sec[0])], int(off[0]), count=len(sec))
