"""The proof of a patched file: what became of the first one on the way to the second, by reading both from zero.

Nothing that plans or writes is asked, and no journal is needed; where one is given, it is held against the files too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ftpatch.arch import architectures
from ftpatch.arrays import I64
from ftpatch.container.file_bytes import is_elf
from ftpatch.document.journal import Journal
from ftpatch.elf.image import Image
from ftpatch.elf.kind import PROGRAMS
from ftpatch.errors import ChangedError, FtpatchError, RecordError, ShapeError, UnsupportedError, UsageError
from ftpatch.finding import Finding
from ftpatch.progress import Progress, silent
from ftpatch.proof import kernel_calls, kernel_redirects, module_calls
from ftpatch.proof.boundaries import check_boundaries
from ftpatch.proof.caller_registers import check_callers
from ftpatch.proof.case import (
    NO_CALLS,
    NO_PLACES,
    NO_REDIRECTS,
    Case,
    Import,
    Intent,
    SiteCalls,
    SiteRedirects,
    StaticCallee,
)
from ftpatch.proof.changes import NO_RUNS, Runs, count_kinds, differences, report_unexplained
from ftpatch.proof.emulate import emulate
from ftpatch.proof.emulate.expectation import Outcome
from ftpatch.proof.journal import check_journal, intent_of
from ftpatch.proof.kept_relocations import check_kept_relocations
from ftpatch.proof.layers import check_layers
from ftpatch.proof.lief_check import NOT_INSTALLED, read_again
from ftpatch.proof.linked import summary
from ftpatch.proof.linked_objects import check_objects
from ftpatch.proof.linked_relocations import check_originals
from ftpatch.proof.listed_code import check_listed_code
from ftpatch.proof.module_imports import Loader, check_imports
from ftpatch.proof.module_relocations import check_relocations
from ftpatch.proof.object import check_object
from ftpatch.proof.pairs import pair_up
from ftpatch.proof.program import check_program
from ftpatch.proof.record_table import account_for_slots, check_records
from ftpatch.proof.recorded import check_recording, is_recording
from ftpatch.proof.recorded_sections import record_secs
from ftpatch.proof.sections import check_sections
from ftpatch.proof.site_words import check_restored, check_words
from ftpatch.proof.stale import check_stale
from ftpatch.proof.static_calls import check_static_calls
from ftpatch.proof.table_end import check_end
from ftpatch.proof.trailer import check_trailer
from ftpatch.recovered.records_in_code import bounded_as
from ftpatch.sites.reading import read_sites
from ftpatch.sites.records import read_records
from ftpatch.sites.scan import Scan

NO_ROWS = np.zeros(0, np.int64)
RULES = {RecordError: "verify-record", ShapeError: "verify-site"}


@dataclass(frozen=True)
class Checks:
    """How much is looked at."""

    execute: bool = True  # run the patched sites in an emulator
    emulation_required: bool = False  # that something was not executed is a finding
    deep: bool | None = False  # have lief read a kernel, too, as it always does with modules; None: not even those
    layout: str | None = None  # of both files; None: as they tell it
    loader: Loader | None = None  # what a module will meet, where that is known
    objects: tuple[Image, ...] = ()  # that were linked into a module, where they are at hand
    progress: Progress = silent  # of the sites that are executed


@dataclass(frozen=True)
class Proof:
    """What was found."""

    before: Scan
    after: Image
    findings: tuple[Finding, ...]
    reader: str  # who read the files a second time, or why nobody did
    outcome: Outcome  # of the emulation
    kinds: Mapping[str, int] = field(default_factory=dict)  # how many edits of each kind were recognised
    live: tuple[int, int] = (0, 0)  # records before and after
    slots: tuple[int, int] = (0, 0)  # slots of the record table before and after
    runs: Runs = NO_RUNS  # where the files differ
    changed: I64 = field(default_factory=lambda: NO_ROWS)  # file positions of the sites that changed, ascending
    calls: SiteCalls = NO_CALLS  # what the enabled sites of the second file call
    redirects: SiteRedirects = NO_REDIRECTS  # what its redirected sites lead to
    gone: I64 = field(default_factory=lambda: NO_ROWS)  # rows of the first file's records that left
    returned: tuple[I64, I64] = NO_PLACES  # (section, offset) of the records that came back
    unclaimed: tuple[str, ...] = ()  # sites of which one execution shows nothing, and why
    notes: tuple[str, ...] = ()
    callees: Mapping[str, int] = field(default_factory=dict)  # what the enabled sites call, by name: how many of them
    ops: Mapping[str, int] = field(default_factory=dict)  # the ftrace_ops that a kernel's sites serve, likewise
    replacements: Mapping[str, int] = field(default_factory=dict)  # what the redirected functions lead to, likewise
    imports: tuple[Import, ...] = ()  # what a module uses of other files that it did not use before
    depends: tuple[str, ...] = ()  # names that its depends= gained
    set_calls: Mapping[str, StaticCallee] = field(default_factory=dict)  # static calls that changed, by key
    unlooked: str = ""  # which of these were held against no kernel, and why

    @property
    def missing(self) -> tuple[str, ...]:
        """What belongs to a whole proof and was not done, and why."""
        n, why = len(self.calls.pos) + len(self.redirects.pos), self.outcome.skipped
        unseen = len(self.unclaimed)
        reasons = [f"{n} site{'s' * (n != 1)} not executed: {why}"] if n and why else []
        if unseen and not why:
            reasons.append(f"{unseen} site{'s' * (unseen != 1)} not executed: one run does not show what they do")
        if not self.after.linked and NOT_INSTALLED in self.reader:
            reasons.append(f"no second reader: {NOT_INSTALLED}")
        return tuple(reasons + [self.unlooked] * bool(self.unlooked))


def prove(
    before: Scan, after: Image, journal: Journal | None = None, intent: Intent | None = None, checks: Checks = Checks()
) -> Proof:
    """Hold two files against each other. journal: of the run that made the second from the first; intent: what was
    wished, where no journal says it.

    Raises UsageError where they are not of one kind; what the readers say against the second is a finding.
    """
    image = before.image
    if (image.arch, image.kind) != (after.arch, after.kind):
        raise UsageError("the two files are not of one kind", after.path, found=f"{after.kind} of {after.arch.name}",
                         expected=f"{image.kind} of {image.arch.name}",
                         todo="name a file, and what was made of it")  # fmt: skip
    if (forms := [_form(side) for side in (image, after)])[0] != forms[1]:
        raise UsageError("the two files are not of one kind", after.path, found=forms[1], expected=forms[0],
                         todo="ftpatch image makes a flat kernel of a vmlinux")  # fmt: skip
    if not before.arch.proof:
        raise UnsupportedError(f"verifying {before.arch.name} is not supported", image.path,
                               expected=", ".join(arch.name for arch in architectures() if arch.proof))  # fmt: skip
    after = bounded_as(after, image)
    try:
        before, second = _both(before, after, checks.layout)
    except ChangedError:  # nothing is known of the file
        raise
    except FtpatchError as error:
        return _unreadable(before, after, error)
    kernel = checks.loader.kernel.image if checks.loader is not None and not image.linked else None
    case = Case(before.arch, before, second, intent_of(journal) if journal is not None else intent, kernel)
    runs = differences(image, after)
    case.objects = checks.objects
    reader = _check(case, runs, journal, checks.deep)
    check_callers(case)
    unlooked = check_imports(case, checks.loader)
    outcome = _emulated(case, checks)
    changed = np.sort(case.pairs.pos[case.pairs.differs]) if case.pairs is not None else NO_ROWS
    old, new = before.records, second.records
    return Proof(
        before, after, case.all_findings(), reader, outcome, kinds=dict(case.kinds), runs=runs, changed=changed,
        live=(int(old.live.sum()), int(new.live.sum())), slots=(len(old), len(new)), calls=case.calls,
        redirects=case.redirects, gone=case.gone,
        returned=case.returned, unclaimed=tuple(case.unclaimed), notes=tuple(case.notes), callees=dict(case.callees),
        ops=dict(case.ops), replacements=dict(case.replacements), imports=case.imports, depends=case.depends,
        unlooked=unlooked, set_calls=dict(case.set_calls),
    )  # fmt: skip


def _form(image: Image) -> str:
    return "an ELF file" if is_elf(image.data) else "a flat kernel"


def _both(before: Scan, after: Image, layout: str | None) -> tuple[Scan, Scan]:
    """Both files in one layout: that of the file with more records, which tell it."""
    records = read_records(after)
    if layout is None and int(records.live.sum()) > int(before.records.live.sum()):
        sites = read_sites(after, records)
        name = sites.shape.name if sites.shape else None
        again = read_sites(before.image, before.records, name)
        return Scan(before.image, before.records, again), Scan(after, records, sites)
    name = before.sites.shape.name if before.sites.shape else layout
    return before, Scan(after, records, read_sites(after, records, name))


def _unreadable(before: Scan, after: Image, error: FtpatchError) -> Proof:
    text = f"the second file's sites cannot be read: {error}"
    finding = Finding(RULES.get(type(error), "verify-section"), "error", text, after.path)
    n, slots = int(before.records.live.sum()), len(before.records)
    return Proof(before, after, (finding,), "none, as the file cannot be read",
                 Outcome(0, skipped="the file cannot be read"), live=(n, 0), slots=(slots, 0))  # fmt: skip


def _check(case: Case, runs: Runs, journal: Journal | None, deep: bool | None) -> str:
    """All checks but the emulation; who read the files a second time."""
    before, after = case.before.image, case.after.image
    if before.linked and before.kind not in PROGRAMS and len(before.data) != len(after.data):
        case.say("verify-byte", f"the file has {len(after.data)} bytes, it had {len(before.data)}",
                 pos=min(len(before.data), len(after.data)))  # fmt: skip
    if before.kind in PROGRAMS:
        check_program(case)
    elif _records_came(case):
        case.mended = frozenset(record_secs(before))
        check_recording(case, runs)
    elif _has_sections(case) if before.linked else check_sections(case):
        _check_sites(case, runs)
    check_layers(case)
    check_trailer(case, bool(len(runs.start)) or len(before.data) != len(after.data))
    report_unexplained(case, runs)
    count_kinds(case, runs)
    if journal is not None:
        check_journal(case, runs, journal)
    return read_again(case, deep)


def _records_came(case: Case) -> bool:
    """Whether the second file is the first with other records: as a plan or a journal says, else as both show."""
    if case.intent is not None:
        return case.intent.recording
    return is_recording(case.before.image, case.after.image)


def _has_sections(case: Case) -> bool:
    """Whether a linked file still has the sections that its places are told by."""
    before, after = (len(side.image.shdr) for side in (case.before, case.after))
    if after < before:
        case.say("verify-section", f"{after} sections, there were {before}", pos=0)
    return after >= before


def _check_sites(case: Case, runs: Runs) -> None:
    """The sites' words; what their calls lead to, with stubs and ops pointers; the record table; the relocations."""
    if case.before.image.kind == "object":
        check_object(case)
        return
    pairs = case.pairs = pair_up(case)
    ops, linked = NO_PLACES, case.before.image.linked
    if pairs is not None:
        check_words(case, pairs)
        check_boundaries(case, pairs)
        if linked:
            ops = kernel_calls.check_calls(case, pairs, runs)
            kernel_redirects.check_redirects(case, pairs, runs)
            check_listed_code(case, pairs)
            check_restored(case, pairs)
        else:
            module_calls.check_calls(case, pairs)
    check_records(case, pairs)
    account_for_slots(case)
    check_static_calls(case, runs)
    if linked:
        check_end(case)
        static = np.array(case.static_pointers, dtype=np.uint64).view(np.int64)
        kernel_calls.check_relocations(case, *(np.concatenate([part, static]) for part in ops))
        check_kept_relocations(case, pairs)
    else:
        check_relocations(case, pairs)
        check_originals(case, pairs)
        if case.objects:
            check_objects(case, case.objects)
        elif text := summary(case.after.image, case.linked):
            case.notes.append(text)
        check_stale(case, pairs)


def _emulated(case: Case, checks: Checks) -> Outcome:
    if not checks.execute:
        return Outcome(0, skipped="not asked for")
    if case.expect_later is not None:
        case.expect_later()
    outcome = Outcome(0)
    if case.expectations:
        with checks.progress(len(case.expectations)) as advance:
            outcome = emulate(case.after.image, case.arch, case.expectations, memory=case.memory, advance=advance)
    for line in outcome.failures:
        case.say("verify-emulation", line, function=line.partition(":")[0])
    if checks.emulation_required and outcome.skipped:
        case.say("verify-emulation", f"not emulated: {outcome.skipped}")
    for line in case.unclaimed if checks.emulation_required else ():
        case.say("verify-emulation", f"not emulated: {line}", function=line.partition(":")[0])
    return outcome
