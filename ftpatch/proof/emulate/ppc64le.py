"""ppc64le in QEMU's user mode: one process runs all sites, by a small program (`guest_ppc64le`).

Unicorn has no usable little-endian PPC64.

At a target that is a kernel's trampoline r0 must hold the caller's return address and LR the return point; it returns
there with LR := r0, or with LR as it was where the site's branch is no call, so that a stub follows that moves r0
itself. r11, r12 and CTR are lost, in line r0 too. A C function is called with an aligned stack, and changes r0, r3–r12,
CTR, what lies below the stack pointer, and two words of the frame above it; one of another module also r2. In the end
LR, r1–r10, r13–r31, cr2–cr4 and the caller's frame must be as they were at entry. Where a site's call is an ordinary
one, it is executed from the site on: a C function must be entered with LR behind it, and r1, r2, r13–r31 and cr2–cr4
must be as they were; 8(r1), 16(r1) and 24(r1) of the function's own frame are for such calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from subprocess import SubprocessError

import numpy as np

from ftpatch.arch.proof_tables import BIT64
from ftpatch.arrays import U64
from ftpatch.progress import Advance, unseen
from ftpatch.proof.emulate import guest_ppc64le as g
from ftpatch.proof.emulate import qemu_sandbox
from ftpatch.proof.emulate.expectation import Outcome, SiteExpectation, first_difference, line, wrong_ops
from ftpatch.proof.emulate.memory import Memory
from ftpatch.proof.emulate.process_ppc64le import CR_KEPT, QEMU, SPAN, Process, apart, lowest_of, too_far
from ftpatch.proof.emulate.redirects_ppc64le import run_redirects

__all__ = ["QEMU", "run", "run_redirects"]

KERNEL_LOSES = (11, 12, g.CTR)
C_LOSES = (0, *range(3, 13), g.CTR)
KEPT_BY_C = [(n, f"r{n}") for n in (1, 2, *range(13, 32))]
PRESERVED = [(n, f"r{n}") for n in (*range(1, 11), *range(13, 32))]
MOST = 1 << 14  # sites of one process: the records of each have 1.5 KB
Stop = list[int]  # a record of the guest's, with file addresses for NIP and LR


def run(memory: Memory, sites: Sequence[SiteExpectation], seed: int, advance: Advance = unseen) -> Outcome:
    """Execute every site; skipped where there is no QEMU."""
    if why := qemu_sandbox.why_not(QEMU):
        return Outcome(0, skipped=why)
    low = lowest_of(chain.from_iterable((site.entry, site.resume, site.target) for site in sites))
    failures: dict[int, str] = {}
    places: list[int | None] = [None] * len(sites)
    near = []
    for at, site in enumerate(sites):
        if found := too_far((site.entry, site.resume, site.target), low):
            failures[at] = line(site, "addresses too far apart", found, f"within {SPAN:#x}")
        else:
            near.append(at)
    random = np.random.default_rng(seed)
    batches = [batch[at : at + MOST] for batch in _apart(sites, near) for at in range(0, len(batch), MOST)]
    for batch in batches:
        try:
            failures |= _Batch(memory, sites, batch, low, random).run(places)
            advance(len(batch))
        except (OSError, SubprocessError) as reason:
            return Outcome(0, skipped=f"{QEMU} cannot be started, confined and in the memory that there is: {reason}")
    failures = wrong_ops(memory, sites, places) | failures
    return Outcome(len(sites), tuple(failures[at] for at in sorted(failures)))


def _apart(sites: Sequence[SiteExpectation], index: list[int]) -> list[list[int]]:
    """The sites in batches that one process can execute."""
    target, entry, resume = (
        np.array([getattr(sites[at], of) for at in index], dtype=np.uint64) for of in ("target", "entry", "resume")
    )
    return [[index[at] for at in batch] for batch in apart(target, entry, resume)]


class _Batch:
    """Sites of one process: indices into all sites; low: the address that goes to the guest's lowest."""

    def __init__(
        self, memory: Memory, sites: Sequence[SiteExpectation], index: list[int], low: int, random: np.random.Generator
    ) -> None:
        self.memory, self.index = memory, index
        self.sites = [sites[at] for at in index]
        stops = set(chain.from_iterable((site.target, site.resume) for site in self.sites))
        self.process = Process(memory, low, (site.entry for site in self.sites), stops, random)
        self.rows = self._rows(random)

    def _rows(self, random: np.random.Generator) -> U64:
        """The registers of every site at its entry, and what the handler has to know of it."""
        rows, moved = self.process.start_rows(len(self.sites), random), self.process.moved
        rows[:, g.NIP] = [moved(site.entry) for site in self.sites]
        # Where nothing is called, no address is the target's.
        rows[:, g.TARGET] = [BIT64 if site.target == site.resume else moved(site.target) for site in self.sites]
        rows[:, g.INLINE] = [0 if site.tail or site.library or not self._links(site) else moved(site.resume)
                              for site in self.sites]  # fmt: skip
        rows[:, g.MASK] = [self._loses(site) for site in self.sites]
        return rows

    def _loses(self, site: SiteExpectation) -> int:
        """Bits of the registers that the target changes."""
        lost: int = sum(1 << n for n in (C_LOSES if site.tail or site.library else KERNEL_LOSES))
        return lost | 1 << 2 if (site.tail or site.library) and self._outside(site) else lost

    def _links(self, site: SiteExpectation) -> bool:
        """Whether the site's branch is a call; where it is none, a stub out of line makes the call."""
        return bool((self.memory.word(site.resume - 4) or 0) & 1)

    def _outside(self, site: SiteExpectation) -> bool:
        """Whether the target, a C function, has another TOC than the stub that calls it."""
        return self.memory.outside is not None and site.target >= self.memory.outside

    def run(self, places: list[int | None]) -> dict[int, str]:
        """Index of a site → its failure. places: filled with where each target reads its ops pointer."""
        ran = self.process.run(self.rows)
        records, start_of, running = ran.records, ran.start, ran.last  # before its addresses change
        up = np.uint64(self.process.unmoved(0))
        with np.errstate(over="ignore"):
            records[:, g.NIP] += up
            records[:, g.LR] += up
        failures = {}
        for at, site in enumerate(self.sites):
            start: Stop = self.rows[at].tolist()
            mine: list[Stop] = records[start_of[at] : start_of[at + 1]].tolist()
            frame: Stop = (~self.rows[at, g.COMPLEMENT]).tolist()
            ended = ran.ended if at <= running else f"{ran.ended}, in an earlier site"
            why = self._judge(site, start, mine, frame, ended)
            if why:
                failures[self.index[at]] = why
            elif site.ops is not None and site.target != site.resume:
                places[self.index[at]] = mine[0][g.LR] - 16 & BIT64
        return failures

    def _judge(self, site: SiteExpectation, start: Stop, stops: list[Stop], frame: Stop, stopped: str) -> str:
        """Why the site does not hold; empty where it does."""
        calls = site.target != site.resume
        if not stops:
            return line(site, "never arrives at the target", stopped, site.target)
        first, last = stops[0], stops[-1]
        why = self._arrival(first, site.target, "the target") or self._at_target(site, start, first) if calls else ""
        if why:
            return f"{site.name}: {why}"
        if calls and len(stops) < 2:
            return line(site, "never arrives behind the site", stopped, site.resume)
        why = self._arrival(last, site.resume, "the instruction behind the site")
        why = why or _kept(last, start, "behind the site", KEPT_BY_C if site.library else PRESERVED)
        if not why and not site.library and self.process.moved(last[g.LR]) != start[g.LR]:
            why = f"LR behind the site: found {self.process.moved(last[g.LR]):#x}, expected {start[g.LR]:#x}"
        for at, was in enumerate(frame):  # 8(r1) and 16(r1) are for those who are called
            if not why and at not in ((1, 2, 3) if site.library else (1, 2)) and last[g.FRAME + at] != was:
                why = f"{8 * at}(r1), the caller's, behind the site: found {last[g.FRAME + at]:#x}, expected {was:#x}"
        return f"{site.name}: {why}" if why else ""

    def _arrival(self, stop: Stop, to: int, where: str) -> str:
        if stop[g.SIGNAL] == g.SIGTRAP and stop[g.NIP] == to:
            return ""
        signal = self.process.signal(stop[g.SIGNAL], stop[g.NIP])
        return f"never arrives at {where}: found {signal} at {stop[g.NIP]:#x}, expected {to:#x}"

    def _at_target(self, site: SiteExpectation, start: Stop, stop: Stop) -> str:
        """Why the target must not be entered with these registers; empty where it may."""
        if site.library:
            if stop[g.LR] != site.resume:
                return f"LR at the target: found {stop[g.LR]:#x}, expected {site.resume:#x}, behind the site"
            kept = [at for at in PRESERVED if at[0] != 2 or not self._outside(site)]
            return _kept(stop, start, "at the target", kept)
        if not site.tail:
            if stop[0] != start[g.LR]:
                return f"r0 at the target: found {stop[0]:#x}, expected {start[g.LR]:#x}, the caller's return address"
            if self._links(site) and stop[g.LR] != site.resume:
                return f"LR at the target: found {stop[g.LR]:#x}, expected {site.resume:#x}, behind the site"
            return _kept(stop, start, "at the target")
        if stop[1] % 16 or not g.STACK < stop[1] <= self.process.r1 - 32:
            return f"r1 at the target: found {stop[1]:#x}, expected an aligned frame of its own"
        n, expected = (12, site.target) if self._outside(site) else (2, self.memory.own_toc)
        if expected is not None and stop[n] != self.process.moved(expected):
            return f"r{n} at the target: found {self.process.unmoved(stop[n]):#x}, expected {expected:#x}"
        return ""


def _kept(stop: Stop, start: Stop, where: str, registers: Sequence[tuple[int, str]] = PRESERVED) -> str:
    what = first_difference(stop, start, registers)
    if not what and (stop[g.CR] ^ start[g.CR]) & CR_KEPT:
        what = f"cr2–cr4: found {stop[g.CR] & CR_KEPT:#x}, expected {start[g.CR] & CR_KEPT:#x}"
    return f"{where} {what}" if what else ""
