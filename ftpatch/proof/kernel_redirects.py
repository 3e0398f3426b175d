"""Where the jumps of a linked kernel's redirected sites end.

    b ─► the replacement's entry
    b ─► adrp x16; add x16, x16, #lo12; br x16                                a veneer, arm64: beyond the jump's reach
    b ─► ld r12,K(r13); addis r12,r12,X; addi r12,r12,Y; mtctr r12; bctr      ppc64le: r12 is the replacement's address

A function with two entries is entered at the local one where r2 is the kernel's TOC already: by the jump of a function
that has two as well. The global one computes r2 from r12, which nothing but the stub sets.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ftpatch.arch.proof_tables import BIT64
from ftpatch.elf.image import Image
from ftpatch.kernel.init_text import in_init_text
from ftpatch.proof.call_targets import AREA, READ, VENEER, CallTargets
from ftpatch.proof.case import REDIRECTED, Case, Pairs
from ftpatch.proof.changes import Runs
from ftpatch.proof.decoders import both, branch_targets
from ftpatch.proof.emulate.expectation import RedirectExpectation
from ftpatch.proof.kernel_stubs import account_for_cleared, check_shared
from ftpatch.proof.redirects import (
    Landing,
    check_circles,
    check_replacement,
    function_at,
    function_of,
    keep_redirects,
    what_is_at,
    wrong_entry,
)
from ftpatch.sites.scan import Scan


@dataclass
class Landings:
    """Where jumps end in one of the two files, each place looked at once."""

    case: Case
    side: Scan
    _known: dict[int, Landing] = field(default_factory=dict)

    @property
    def image(self) -> Image:
        return self.side.image

    def at(self, va: int) -> Landing:
        if va not in self._known:
            self._known[va] = self._read(va)
        return self._known[va]

    def _read(self, va: int) -> Landing:
        for read in (self._function, self._veneer, self._far):
            if (landing := read(va)) is not None:
                return landing
        return Landing(why=what_is_at(self.image, va))

    def _function(self, va: int) -> Landing | None:
        return function_at(self.image, va)

    def _veneer(self, va: int) -> Landing | None:
        read = self.case.tables.veneer
        words = CallTargets(self.case, False, self.side).words(va, VENEER // 4) if read else []
        veneer = read(words, va) if read else None
        if veneer is None:
            return None
        end = function_at(self.image, veneer.target) or Landing(why=what_is_at(self.image, veneer.target))
        return replace(end, stub=(va, VENEER), indirect=True, why=end.why or veneer.fault)

    def _far(self, va: int) -> Landing | None:
        far, read, image = self.side.arch.far, self.case.tables.far, self.image
        stub = read(CallTargets(self.case, False, self.side).words(va, AREA // 4)) if read else None
        if far is None or stub is None:
            return None
        toc, first = image.symbols.value(far.toc), image.symbols.value(self.side.arch.entries[0])
        if toc is None or first is None:
            return None
        target = toc + stub[1] & BIT64
        end = function_at(image, target) or Landing(why=what_is_at(image, target))
        why = end.why
        if not why and end.entry != end.va:
            why = f"by a stub that enters {end.name} behind its global entry"
        if stub[0] != self.side.arch.read_entry(image.code(first, READ)).kernel_toc:
            why = why or f"by a stub that reads its TOC at {stub[0]}"
        areas = {image.symbols.value(name): name for name in far.areas}
        if va in areas:
            why = why or f"by {areas[va]}, which the kernel overwrites with a jump to its last entry"
        return replace(end, stub=(va, AREA), by_global=True, why=why)


def check_redirects(case: Case, pairs: Pairs, runs: Runs) -> None:
    """Every redirected site of the second file: where it leads, by which stub, and whether it may."""
    if not ((pairs.old == REDIRECTED) | (pairs.new == REDIRECTED)).any():
        return
    at = np.flatnonzero(pairs.new == REDIRECTED)
    landings = Landings(case, case.after)
    seen = both(case.arch, pairs.words[at][:, : case.arch.call.n_units])
    target = pairs.va(pairs.off)[at].view(np.int64) + seen.distance
    ends: dict[int, Landing] = {}
    for number, (i, va) in enumerate(zip(at.tolist(), target.view(np.uint64).tolist(), strict=True)):
        landing = landings.at(va)
        if why := seen.why[number] or landing.why or wrong_entry(pairs, i, landing):
            pairs.say("verify-branch", i, f"its jump goes to {va:#x}, {why}")
        elif why := _wrong_stub(case, pairs, i, landing):
            pairs.say("verify-stub", i, f"its jump goes to {va:#x}, {why}")
        else:
            ends[i] = landing
    stubs = {landing.stub for landing in (landings.at(va) for va in target.view(np.uint64).tolist()) if landing.stub}
    check_shared(case, runs, stubs)
    _account_for_removed_stubs(case, pairs, stubs)
    _check_pairs(case, pairs, ends)
    keep_redirects(case, pairs, ends)


def _wrong_stub(case: Case, pairs: Pairs, at: int, landing: Landing) -> str:
    """Why a jump must not go through its stub; empty where there is none, or it may."""
    if landing.stub is None:
        return ""
    freed = in_init_text(case.after.image, np.array([landing.stub[0], int(pairs.va(pairs.off)[at])], dtype=np.uint64))
    if freed[0] and not freed[1]:
        return "by a stub that is freed with init memory"
    pad, shape = case.tables.landing_pad, pairs.shape
    if landing.indirect and pad is not None and shape.skips and shape.skipped(case.before.sites.window).any():
        first = case.after.image.code(landing.entry, 1).tolist()
        if not first or not pad(first[0]):
            return f"by a veneer to {landing.name}, which begins with no landing pad for it"
    return ""


def _account_for_removed_stubs(case: Case, pairs: Pairs, used: set[tuple[int, int]]) -> None:
    """Stubs of sites that were redirected, where nothing goes through them any more and nothing is left of them."""
    known, image = Landings(case, case.before), case.before.image
    left = pairs.va(pairs.off)[(pairs.old == REDIRECTED) & pairs.differs].view(np.int64)
    for va in np.unique(branch_targets(image, left)).view(np.uint64).tolist() if len(left) else ():
        stub = known.at(va).stub
        if stub and stub not in used:
            account_for_cleared(case, *stub)


def _check_pairs(case: Case, pairs: Pairs, ends: dict[int, Landing]) -> None:
    """Whether each function may become the one that it leads to; what is to be seen when it is called."""
    image, va = case.after.image, pairs.va(pairs.off)
    places = np.array([[landing.va, int(va[i])] for i, landing in ends.items()], dtype=np.uint64).reshape(-1, 2)
    freed = in_init_text(image, places.reshape(-1)).reshape(-1, 2)
    for number, (i, landing) in enumerate(ends.items()):
        check_replacement(case, pairs, i, landing, bool(freed[number, 0] and not freed[number, 1]))
    circles = check_circles(pairs, ends)
    for i, landing in ends.items():
        own = function_of(pairs, i)
        if i in circles:  # which never end
            continue
        case.expectations.append(RedirectExpectation(
            pairs.name(i), own.local, landing.entry, by_global=landing.by_global and landing.two_entries,
            by_local=not landing.by_global and landing.two_entries, global_entry=own.va if own.two_entries else None,
        ))  # fmt: skip
