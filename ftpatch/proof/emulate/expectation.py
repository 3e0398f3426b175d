"""What is expected of a site, what became of it, and the checks that no machine changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ftpatch.errors import printable
from ftpatch.proof.emulate.memory import Memory

FRAME = 128  # bytes from the caller's stack pointer upwards that must stay as they were


@dataclass(frozen=True)
class SiteExpectation:
    """What one enabled site must do when its function is called."""

    name: str  # of the function, for messages
    entry: int  # va of its local entry
    resume: int  # va of the first original instruction behind the site
    target: int  # va where execution must arrive; `resume` where a stub does all by itself
    ops: int | None  # va of the object that the target will find; None where it looks for none
    tail: bool = False  # the target is a C function, called by a stub: it changes what such a function may change
    # the site itself calls as any code calls a function of C: `entry` is the site, behind the prologue
    library: bool = False


@dataclass(frozen=True)
class RedirectExpectation:
    """What one redirected function must do when it is called: the replacement is entered as if it had been called."""

    name: str  # of the function, for messages
    entry: int  # va of its local entry, where callers come in that share its TOC; its only one, where it has one
    target: int  # va of the replacement's entry at which execution must arrive
    by_global: bool = False  # that is a global entry, which computes its TOC from r12: its address must be there
    by_local: bool = False  # that is the local entry of a function with two: its file's TOC must be in r2
    framed: bool = False  # a stub calls it, in a frame of its own, and returns to the function's caller
    # va of the function's global entry, where it has two: others come in there, with its address in r12
    global_entry: int | None = None


@dataclass(frozen=True)
class CallExpectation:
    """What one enabled site of a program must do when its function is called."""

    name: str  # of the function, for messages
    entry: int  # va of its local entry
    call: int  # va of the site's call
    resume: int  # va of the first original instruction behind it
    target: int  # va where the call leads, which is executed
    function: int | None = None  # va of the C function that this calls, once; None where it is the target that counts
    deep: bool = False  # the call stands behind the prologue, and is what is executed first


@dataclass(frozen=True)
class PadExpectation:
    """What a switch must do, on or off, and the pad in front of its function's entry."""

    name: str  # of the function, for messages
    entry: int  # va of its local entry
    resume: int  # va of the first original instruction behind the switch
    target: int  # va that the pad calls
    start: int  # va of the pad's first instruction
    behind: int  # va behind the pad's call, where the target returns to
    form: str  # who brings the return address back: "target", "pad" from a register, "stack"
    on: bool  # whether the switch leads to the pad


Expectation = SiteExpectation | RedirectExpectation | CallExpectation | PadExpectation


@dataclass(frozen=True)
class Outcome:
    """What an emulator saw."""

    n: int  # sites executed
    failures: tuple[str, ...] = ()  # a line each
    skipped: str = ""  # why nothing was executed; empty where it was


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """What was seen in several runs: of the same emulator, so that it is missing in all or in none."""
    skipped = next((outcome.skipped for outcome in outcomes if outcome.skipped), "")
    failures = chain.from_iterable(outcome.failures for outcome in outcomes)
    return Outcome(sum(outcome.n for outcome in outcomes), tuple(failures), skipped)


def with_pads(calls: Outcome, pads: Outcome) -> Outcome:
    """What was seen of the same switches in two ways."""
    return Outcome(pads.n, (*calls.failures, *pads.failures), pads.skipped)


def line(site: Expectation, what: str, found: int | str, expected: int | str) -> str:
    """One failure: name, what, found, expected."""
    shown = [f"{value:#x}" if isinstance(value, int) else value for value in (found, expected)]
    return printable(f"{site.name}: {what}: found {shown[0]}, expected {shown[1]}")


def first_difference(registers: Sequence[int], expected: Sequence[int], names: Iterable[tuple[int, str]]) -> str | None:
    """The first register of `names` (index, name) that differs, as the end of a sentence."""
    for at, name in names:
        if registers[at] != expected[at]:
            return f"{name}: found {registers[at]:#x}, expected {expected[at]:#x}"
    return None


def wrong_ops(memory: Memory, sites: Sequence[SiteExpectation], places: Sequence[int | None]) -> dict[int, str]:
    """Index of a site → why the ops pointer, which its target reads at `places`, is not the one that is expected.

    places: None where a site names no ops or its target finds them elsewhere.
    """
    known = [(sites[at], at, place) for at, place in enumerate(places) if place is not None]
    read = memory.pointers(np.array([place for _, _, place in known], dtype=np.uint64))
    failures = {}
    for (site, at, place), value, right, there in zip(
        known, read.value.tolist(), read.right, read.present, strict=True
    ):
        if site.ops is None:
            continue
        if not there:
            failures[at] = line(site, "no ops pointer where the target reads it", f"nothing at {place:#x}", site.ops)
        elif value != site.ops:
            failures[at] = line(site, f"the ops pointer at {place:#x}", value, site.ops)
        elif not right:
            failures[at] = line(site, f"the ops pointer at {place:#x} as the kernel moves", "no relocation, or two",
                                "one relocation" if memory.moves else "none")  # fmt: skip
    return failures
