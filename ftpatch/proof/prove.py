"""The proof of a patched file: what became of the first one on the way to the second, by reading both from zero.

Nothing that plans or writes is asked, and no journal is needed; where one is given, it is held against the files too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ftpatch.arch import Arch, architectures
from ftpatch.document.journal import Journal
from ftpatch.elf.image import Image
from ftpatch.errors import FtpatchError, RecordError, ShapeError, UnsupportedError, UsageError
from ftpatch.proof.case import Case, Finding, Side
from ftpatch.proof.changes import Runs, count_kinds, differences, report_unowned
from ftpatch.proof.emulate import emulate
from ftpatch.proof.emulate.expectation import Outcome
from ftpatch.proof.journal import allow, check_journal
from ftpatch.proof.kernel import check_kernel
from ftpatch.proof.lief_check import read_again
from ftpatch.proof.module import check_module
from ftpatch.proof.trailer import check_trailer
from ftpatch.sites.records import read_records
from ftpatch.sites.table import read_sites

RULES = {RecordError: "verify-record", ShapeError: "verify-site"}


@dataclass(frozen=True)
class Proof:
    """What was found.

    kinds: how many edits of each kind were recognised; live, slots: records before and after; reader: who read the
    files a second time, or why nobody; outcome: of the emulation; unclaimed: sites that one run says nothing about.
    """

    before: Side
    arch: Arch
    after: Image
    findings: tuple[Finding, ...]
    kinds: Mapping[str, int]
    live: tuple[int, int]
    slots: tuple[int, int]
    reader: str
    outcome: Outcome
    unclaimed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def prove(
    before: Image, after: Image, arch: Arch, journal: Journal | None = None, deep: bool = False,
    layout: str | None = None, emulated: bool = False,
) -> Proof:  # fmt: skip
    """Hold two files against each other.

    journal: of the run that made the second from the first; deep: have a kernel read a second time; emulated: that
    nothing was emulated is a finding.

    Raises what the readers raise for the first file; what they say against the second is a finding.
    """
    if (before.e_machine, before.kind) != (after.e_machine, after.kind):
        raise UsageError("the two files are not of one kind", after.path, found=f"{after.kind} of machine "
                         f"{after.e_machine}", expected=f"{before.kind} of machine {before.e_machine}")  # fmt: skip
    if not arch.contract:
        raise UnsupportedError(f"verifying {arch.name} is not supported", before.path,
                               expected=", ".join(one.name for one in architectures() if one.contract))  # fmt: skip
    records = read_records(before)
    side = Side(before, records, read_sites(before, records, layout))
    try:
        after_records = read_records(after)
        one, two = _sites(side, after, arch, after_records, layout)
    except FtpatchError as error:
        return _unreadable(side, after, arch, error)
    case = Case(arch, one, two)
    if journal is not None:
        allow(case, journal)
    runs = differences(before.data, after.data)
    reader = _check(case, runs, journal, deep)
    outcome = _emulated(case, emulated)
    return Proof(
        one, arch, after, case.all_findings(), dict(case.kinds), (int(records.live.sum()),
        int(after_records.live.sum())), (len(records), len(after_records)), reader, outcome, tuple(case.unclaimed),
        tuple(case.notes),
    )  # fmt: skip


def _sites(side: Side, after: Image, arch: Arch, records: Any, layout: str | None) -> tuple[Side, Side]:
    """Both sides in one layout: that of the file with more records, which tell it."""
    if layout is None and int(records.live.sum()) > int(side.records.live.sum()):
        sites = read_sites(after, records)
        name = sites.shape.name if sites.shape else None
        again = read_sites(side.image, side.records, name)
        return Side(side.image, side.records, again), Side(after, records, sites)
    name = side.sites.shape.name if side.sites.shape else layout
    return side, Side(after, records, read_sites(after, records, name))


def _unreadable(side: Side, after: Image, arch: Arch, error: FtpatchError) -> Proof:
    finding = Finding(RULES.get(type(error), "verify-section"), f"the second file's sites cannot be read: {error}")
    n, slots = int(side.records.live.sum()), len(side.records)
    return Proof(side, arch, after, (finding,), {}, (n, 0), (slots, 0), "none, as the file cannot be read",
                 Outcome(0, skipped="the file cannot be read"))  # fmt: skip


def _check(case: Case, runs: Runs, journal: Journal | None, deep: bool) -> str:
    """All checks but the emulation; who read the files a second time."""
    before, after = case.before.image, case.after.image
    if before.linked:
        if len(before.data) != len(after.data):
            case.say("verify-byte", f"the file has {len(after.data)} bytes, it had {len(before.data)}",
                     pos=min(len(before.data), len(after.data)))  # fmt: skip
        check_kernel(case, runs)
    else:
        check_module(case)
    check_trailer(case, bool(len(runs.start)) or len(before.data) != len(after.data))
    report_unowned(case, runs)
    count_kinds(case, runs)
    if journal is not None:
        check_journal(case, runs, journal)
    return read_again(case, deep)


def _emulated(case: Case, required: bool) -> Outcome:
    outcome = emulate(case.after.image, case.arch, case.claims, memory=case.memory) if case.claims else Outcome(0)
    for line in outcome.failures:
        name = line.partition(":")[0]
        case.say("verify-emulation", line, function=name)
    if required and outcome.skipped:
        case.say("verify-emulation", f"not emulated: {outcome.skipped}")
    for line in case.unclaimed if required else ():
        case.say("verify-emulation", f"not emulated: {line}", function=line.partition(":")[0])
    return outcome
