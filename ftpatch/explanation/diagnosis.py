"""What a splat means: the site that it names, in the file that booted if that is at hand, and the likeliest cause.

KASLR moves every address, so the site is looked for by function and offset. With the file it can be said whether the
kernel had to stop there: the same comparison that it makes is made over the file's words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arch import Arch, architectures
from ftpatch.arch.shape import Shape
from ftpatch.arrays import is_in
from ftpatch.explanation.splat import Splat
from ftpatch.kernel.boot import Bug, bugs_of
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import ENABLED, HALF, UNEXPECTED, SiteTable

LOW = 0x1000  # addresses below are 0 and what a kernel added to it
ENABLED_TODO = "drop the record (ftpatch enable does unless told --records keep), or ftpatch disable restores the NOPs"


@dataclass(frozen=True)
class Cause:
    """What makes ftrace give up."""

    rule: str  # the linter's name for it; "" where no file shows it
    text: str  # in words
    todo: str = ""  # what to do


CAUSES = {
    "null": Cause(
        "null-not-skipped", "a slot of the record table is 0, and this kernel adds to a record before it tests it",
        "write −4 with the relocation NONE, or cut the slot out (ftpatch drop does)",
    ),
    "unreadable": Cause("outside-text", "a record names an address that holds no kernel text", "ftpatch check FILE"),
    "protected": Cause("", "the kernel could not write its own text: it is protected there, or the mapping failed"),
    "enabled": Cause(
        "site-enabled", "the site is enabled on disk and its record is still in the table", ENABLED_TODO,
    ),
    "half": Cause(
        "site-half", "the first word of the site is rewritten on disk, in the form that a running kernel gives to a "
        "site that is off; on disk all words have to be as compiled", "ftpatch disable restores them",
    ),
    "twice": Cause(
        "duplicate", "two records name the site: the second finds what the first one made of it", "drop one of the two",
    ),
    "other": Cause(
        "unexpected-words", "the site holds neither what the compiler left nor a call", "look at what wrote there",
    ),
    "moved": Cause(
        "", "something else writes the site while the kernel runs (a live patch, BPF, a kprobe, another module), or it "
        "was enabled on disk in a form that passes the test at boot: a call behind an untouched NOP",
    ),
    "strange": Cause("", "something changed the site in memory before ftrace came to it"),
    "elsewhere": Cause(
        "", "this file has no such site: it is not the file that booted, or the function is in a module",
    ),
    "unknown": Cause("", "the message alone does not tell; give the kernel or module that printed it"),
}  # fmt: skip


@dataclass(frozen=True)
class Diagnosis:
    """What is known of one message, from its own words and, where there is one, from the file."""

    splat: Splat
    index: tuple[int, ...]  # sites of the file that the message may mean
    expected: int | None  # the word that the kernel wants
    found: int | None  # the word that it found instead
    cause: Cause
    foretold: bool = False  # the file shows that the kernel has to stop here
    notes: tuple[str, ...] = ()  # where message and file agree or do not


def diagnose(splat: Splat) -> Diagnosis:
    """The diagnosis without a file, by the words of the message alone."""
    expected, found = splat.expected, splat.found
    cause = _by_case(splat) or _by_words(splat)
    arch = _arch(splat)
    if arch is not None and arch.compares_first and found is None and splat.phase == "init":
        expected = arch.nop  # such a kernel prints the call's word, which it does not compare
    return Diagnosis(splat, (), expected, found, cause)


def diagnose_in(splat: Splat, scan: Scan) -> Diagnosis:
    """The diagnosis with the file that booted, or the module that was loaded."""
    table = scan.sites
    bugs = {bug.site: bug for bug in bugs_of(scan)}
    sites = _sites(splat, table)
    likely = [site for site in sites if site in bugs] or sites
    notes = _notes(splat, scan, sites, bugs)
    bug = bugs.get(likely[0]) if likely else None
    unnamed = splat.function is None and splat.ip is None
    by_site = _by_file(splat, table, bug) if sites else CAUSES["elsewhere"]
    cause = _by_case(splat) or (_by_words(splat) if unnamed else by_site)
    expected, found = splat.expected, splat.found
    if bug is not None and splat.phase in ("init", ""):
        expected, found = bug.expected if expected is None else expected, bug.found if found is None else found
    return Diagnosis(splat, tuple(likely), expected, found, cause, bug is not None, notes)


def _sites(splat: Splat, table: SiteTable) -> list[int]:
    """Sites of functions of that name whose call has the offset of the message; all of that name if none has it."""
    if splat.function is None:
        return []
    rows = table.image.symbols.rows_named(splat.function)
    functions = np.flatnonzero(is_in(table.image.functions.row, rows)).tolist()
    covered = np.zeros(len(table), dtype=bool)
    for function in functions:
        covered |= (table.func <= function) & (function < table.func_end)
    sites: list[int] = np.flatnonzero(covered).tolist()
    return [site for site in sites if _offset(table, site) == splat.offset] or sites


def _offset(table: SiteTable, site: int) -> int:
    """Bytes from the function's entry to the call."""
    return int(table.branch_va[site]) - int(table.entry_va[site])


def _notes(splat: Splat, scan: Scan, sites: list[int], bugs: dict[int, Bug]) -> tuple[str, ...]:
    """Where message and file agree or do not."""
    notes, arch, table = [], scan.arch, scan.sites
    if splat.machine and splat.machine != arch.name:
        notes.append(f"the message is from {splat.machine}, the file is for {arch.name}")
    if len(sites) > 1:
        notes.append(f"{len(sites)} functions of this file have that name; the kernel's message does not tell which")
    exact = [site for site in sites if _offset(table, site) == splat.offset]
    if sites and not exact:
        notes.append("no call of this function is at that offset: another build, or another layout")
    words = arch.numbers(table.body()) if table.shape else table.body()
    if splat.actual is not None and words[exact].size:  # a file without a layout has no words of sites
        there = words[exact, -1].tolist()
        notes.append("the file holds the very word there that the kernel found" if splat.actual in there
                     else f"the file holds another word there: {arch.text(there[0])}")  # fmt: skip
    if exact and exact[0] not in bugs and splat.phase == "init":
        notes.append("in this file the site is as the compiler left it: it is not the file that booted")
    if splat.ip is not None and exact and table.image.linked and splat.ip != int(table.branch_va[exact[0]]):
        notes.append(f"the kernel ran {splat.ip - int(table.branch_va[exact[0]]):+#x} bytes from where it was linked")
    if bugs and not set(sites) & set(bugs):
        notes.append(
            f"the file has {len(bugs)} other sites that would stop the kernel, {bugs[min(bugs)].function} first"
        )
    return tuple(notes)


def _by_case(splat: Splat) -> Cause | None:
    """Causes that the kernel's own words settle."""
    if splat.what == "faulted on writing":
        return CAUSES["protected"]
    if splat.what.startswith("faulted"):
        return CAUSES["null" if splat.function is None and (splat.ip or 0) < LOW else "unreadable"]
    return None


def _by_file(splat: Splat, table: SiteTable, bug: Bug | None) -> Cause:
    """What the site of the file shows. bug: what it would raise at boot."""
    if bug is None:
        by_words = _by_words(splat)
        return by_words if by_words.rule not in ("", "unexpected-words") else CAUSES["strange"]
    kinds = {ENABLED: "enabled", HALF: "half", UNEXPECTED: "other"}
    return CAUSES[kinds.get(int(table.status[bug.site]), "twice")]


def _by_words(splat: Splat) -> Cause:
    """What the words of the message show, for a machine that they tell."""
    arch = _arch(splat)
    first, call = splat.found, splat.actual if splat.actual is not None else splat.found
    if arch is None or call is None:
        return CAUSES["unknown"]
    if splat.phase in ("on", "off", "update"):
        return CAUSES["moved"]
    if any(_is_call(call, shape) for shape in arch.shapes if not shape.refusal):
        return CAUSES["enabled"]
    starts = {shape.new[0].bits for shape in arch.shapes if shape.call_at}
    if call == arch.nop and (first in starts or (first is None and arch.compares_first)):
        return CAUSES["half"]
    return CAUSES["other"]


def _is_call(number: int, shape: Shape) -> bool:
    """Whether code, as a number of `Arch.numbers`, is the branch that enabling writes."""
    first = number >> 8 * (shape.branch.size - shape.unit)
    return first & shape.branch.word.mask == shape.branch.word.bits


def _arch(splat: Splat) -> Arch | None:
    """The machine that the message is from, where it tells."""
    return next((arch for arch in architectures() if arch.name == splat.machine), None)
