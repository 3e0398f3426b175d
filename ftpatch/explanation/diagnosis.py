"""What a splat means: the site that it names, in the file that booted if that is at hand, and the likeliest causes.

KASLR moves every address, so the site is looked for by function and offset. With the file it can be said whether the
kernel had to stop there: the same comparison that it makes is made over the file's words; and whether what the kernel
found is what the file holds: then the file is the fault, else something changed the text in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import is_in
from ftpatch.explanation import evidence
from ftpatch.explanation.causes import CAUSES, CERTAIN, LIKELY, POSSIBLE, Cause, Weighed, by_case, causes_of
from ftpatch.explanation.machine import Origin, origin_of
from ftpatch.explanation.message import Splat
from ftpatch.kernel.boot import Bug, bugs_of
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import ENABLED, HALF, READY, UNEXPECTED, SiteTable

BY_STATUS = {ENABLED: "enabled", HALF: "half", UNEXPECTED: "other"}


@dataclass(frozen=True)
class Diagnosis:
    """What is known of one message, from its own words and, where there is one, from the file."""

    splat: Splat
    origin: Origin  # the machine, and what the bytes are
    index: tuple[int, ...]  # sites of the file that the message may mean
    expected: int | None  # the word that the kernel wants
    found: int | None  # the word that it found instead
    causes: tuple[Weighed, ...]  # the likeliest first
    foretold: bool = False  # the file shows that the kernel has to stop here
    notes: tuple[str, ...] = ()  # where message and file agree or do not, and what is missing

    @property
    def cause(self) -> Cause:
        """The likeliest one."""
        return self.causes[0].cause

    @property
    def certainty(self) -> str:
        """How sure that is."""
        return self.causes[0].certainty


def diagnose(splat: Splat) -> Diagnosis:
    """The diagnosis without a file, by the words of the message alone."""
    origin = origin_of(splat)
    expected, arch = splat.expected if splat.expected is not None else origin.wanted_number, origin.arch
    if arch is not None and arch.compares_first and splat.found is None and splat.phase == "init" and splat.actual:
        expected = arch.nop  # such a kernel prints the call's word, which it does not compare
    notes = (*evidence.about_message(splat, origin),)
    return Diagnosis(splat, origin, (), expected, splat.found, causes_of(splat, origin), notes=notes)


def diagnose_in(splat: Splat, scan: Scan, bugs: dict[int, Bug] | None = None) -> Diagnosis:
    """The diagnosis with the file that booted, or the module that was loaded. bugs: `bugs_by_site`, where known."""
    table, origin = scan.sites, origin_of(splat, scan.arch.name)
    bugs = bugs_by_site(scan) if bugs is None else bugs
    fits = evidence.fits(splat, origin, scan)
    sites = [] if fits.other_file else sites_of(splat, table)
    likely = [site for site in sites if site in bugs] or sites
    bug = bugs.get(likely[0]) if likely else None
    expected = splat.expected if splat.expected is not None else origin.wanted_number
    found = splat.found
    if bug is not None and splat.phase in ("init", ""):
        expected, found = bug.expected if expected is None else expected, bug.found if found is None else found
    notes = (*evidence.about_message(splat, origin), *fits.notes,
             *(() if fits.other_file else _notes(splat, origin, scan, sites, bugs)))  # fmt: skip
    causes = tuple(_weigh(splat, origin, scan, likely, bug, fits))
    return Diagnosis(splat, origin, tuple(likely), expected, found, causes, bug is not None, notes)


def bugs_by_site(scan: Scan) -> dict[int, Bug]:
    """What each site of a file would raise at boot."""
    return {bug.site: bug for bug in bugs_of(scan)}


def sites_of(splat: Splat, table: SiteTable) -> list[int]:
    """Sites of functions of that name whose call has the offset of the message; all of that name if none has it."""
    if splat.function is None:
        return []
    rows = table.image.symbols.rows_named(splat.function)
    functions = np.flatnonzero(is_in(table.image.functions.row, rows)).tolist()
    covered = np.zeros(len(table), dtype=bool)
    for function in functions:
        covered |= (table.func <= function) & (function < table.func_end)
    sites: list[int] = np.flatnonzero(covered).tolist()
    return [site for site in sites if offset_of(table, site) == splat.offset] or sites


def offset_of(table: SiteTable, site: int) -> int:
    """Bytes from the function's entry to the call."""
    call_at = table.shape.call_at if table.shape else 0  # where the kernel has its call, whatever the file has there
    return int(table.body_va[site]) + call_at - int(table.entry_va[site])


# -- causes --------------------------------------------------------------------------------------------------------


def _weigh(
    splat: Splat, origin: Origin, scan: Scan, sites: list[int], bug: Bug | None, fits: evidence.Fit
) -> list[Weighed]:
    """The causes by message and file together. sites: those that are meant, likeliest first."""
    alone = list(causes_of(splat, origin))
    if fits.other_file:
        return [Weighed(CAUSES["elsewhere"], CERTAIN), *_lowered(alone)]
    case = by_case(splat)
    if case or (splat.function is None and splat.ip is None):
        return alone
    table = scan.sites
    if not sites:
        known = splat.function is not None and len(scan.image.symbols.rows_named(splat.function)) > 0
        return [Weighed(CAUSES["dropped" if known else "elsewhere"], LIKELY), *_lowered(alone)]
    exact = offset_of(table, sites[0]) == splat.offset
    same = evidence.same_words(splat, origin, scan, sites[0]) if exact else None
    if bug is not None and splat.phase in ("init", ""):
        shown = (
            "redirected-on-disk" if table.redirected[bug.site] else BY_STATUS.get(int(table.status[bug.site]), "twice")
        )
        by_file = Weighed(CAUSES[shown], CERTAIN if same else LIKELY)
        return [by_file, *(one for one in _lowered(alone) if one.cause is not by_file.cause and not same)]
    if same is False and int(table.status[sites[0]]) == READY:
        return _changed_in_memory(splat, alone)
    return alone


def _changed_in_memory(splat: Splat, alone: list[Weighed]) -> list[Weighed]:
    """The file holds the site as compiled, the kernel found something else: it came later, or the file is another."""
    if splat.phase in ("on", "off", "update"):
        return alone
    if any(one.cause.rule not in ("", "unexpected-words") for one in alone):  # of the file that booted
        return [*alone, Weighed(CAUSES["strange"], POSSIBLE)]
    return [Weighed(CAUSES["strange"], LIKELY), *_lowered(alone)]


def _lowered(causes: list[Weighed]) -> list[Weighed]:
    """The causes of a message where something else is likelier; those that say nothing left out."""
    return [Weighed(one.cause, POSSIBLE) for one in causes if one.cause is not CAUSES["unknown"]]


# -- notes ---------------------------------------------------------------------------------------------------------


def _notes(splat: Splat, origin: Origin, scan: Scan, sites: list[int], bugs: dict[int, Bug]) -> tuple[str, ...]:
    """Where message and file agree or do not, about the site."""
    notes, table = [], scan.sites
    if len(sites) > 1:
        notes.append(f"{len(sites)} functions of this file have that name; the kernel's message does not tell which")
    exact = [site for site in sites if offset_of(table, site) == splat.offset]
    if sites and not exact:
        notes.append(_no_such_offset(splat, table, sites[0]))
    same = [evidence.same_words(splat, origin, scan, site) for site in exact]
    if same and same[0] is not None:
        there = evidence.number_at(scan, exact[0])
        notes.append("the file holds the very word there that the kernel found" if True in same
                     else f"the file holds another word there: {scan.arch.text(there or 0)}")  # fmt: skip
    if exact and exact[0] in table.redirects and exact[0] not in bugs:
        leads = f"the function is redirected to {table.redirects[exact[0]].name}, and no record names it"
        notes.append(f"in this file {leads}: it is not the file that booted")
    elif exact and exact[0] not in bugs and splat.phase == "init":
        notes.append("in this file the site is as the compiler left it: it is not the file that booted")
    notes += evidence.about_addresses(splat, origin, scan, exact)
    if sites and splat.what.startswith("faulted") and evidence.in_freed_text(scan, sites[0]):
        notes.append("the site is in init text of this file, which is freed when boot or loading ends")
    if bugs and not set(sites) & set(bugs):
        notes.append(
            f"the file has {len(bugs)} other sites that would stop the kernel, {bugs[min(bugs)].function} first"
        )
    return tuple(notes)


def _no_such_offset(splat: Splat, table: SiteTable, site: int) -> str:
    """The function's call is elsewhere: by how much tells what is wrong."""
    by = offset_of(table, site) - splat.offset
    return ("no call of this function is at that offset: another build, or another layout"
            + (f" (this file has it {by:+#x} bytes from there)" if abs(by) <= evidence.NEAR else ""))  # fmt: skip
