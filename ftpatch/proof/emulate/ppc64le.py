"""ppc64le in QEMU's user mode: one process runs all sites, by a small program (`guest_ppc64le`).

Unicorn has no usable little-endian PPC64. User mode has no kernel addresses, so everything is moved down by one
constant; branches and TOCs are relative, and pointers in the copied code are moved along.

At a target that is a kernel's trampoline r0 must hold the caller's return address and LR the return point; it returns
there with LR := r0, or with LR as it was where the site's branch is no call, so that a stub follows that moves r0
itself. r11, r12 and CTR are lost, in line r0 too. A C function is called with an aligned stack, and changes r0, r3–r12,
CTR, what lies below the stack pointer, and two words of the frame above it; one of another module also r2. In the end
LR, r1–r10, r13–r31, cr2–cr4 and the caller's frame must be as they were at entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from subprocess import SubprocessError

import numpy as np

from ftpatch.arch import hosts
from ftpatch.arch.proof_tables import BIT64
from ftpatch.arrays import I64, U64, distinct, is_in
from ftpatch.proof.emulate import guest_ppc64le as g
from ftpatch.proof.emulate import qemu_sandbox
from ftpatch.proof.emulate.expectation import (
    Outcome,
    RedirectExpectation,
    SiteExpectation,
    first_difference,
    line,
    wrong_ops,
)
from ftpatch.proof.emulate.memory import Memory
from ftpatch.proof.emulate.reach_ppc64le import SYSTEM_CALL, code_words

QEMU = hosts.QEMU_PPC64LE
LOWEST = 1 << 32  # the guest's address for the file's lowest one, down to 4 GiB
SPAN = 1 << 38  # of addresses that can be laid out
GAP = 1 << 20  # zero bytes that are loaded rather than a segment more
KERNEL_LOSES = (11, 12, g.CTR)
C_LOSES = (0, *range(3, 13), g.CTR)
PRESERVED = [(n, f"r{n}") for n in (*range(1, 11), *range(13, 32))]
CR_KEPT = 0x00FF_F000  # cr2, cr3, cr4
MOST = 1 << 14  # sites of one process: the records of each have 1.5 KB
SECONDS, PER_SITE = 20.0, 0.002
SIGNALS = {g.SIGILL: "an illegal instruction", g.SIGTRAP: "a trap", g.SIGBUS: "a bus error",
           g.SIGSEGV: "an access to nothing"}  # fmt: skip
Stop = list[int]  # a record of the guest's, with file addresses for NIP and LR


def run(memory: Memory, sites: Sequence[SiteExpectation], seed: int) -> Outcome:
    """Execute every site; skipped where there is no QEMU."""
    if why := qemu_sandbox.why_not(QEMU):
        return Outcome(0, skipped=why)
    low = min((min(site.entry, site.resume, site.target) for site in sites), default=0) & ~(LOWEST - 1)
    failures: dict[int, str] = {}
    places: list[int | None] = [None] * len(sites)
    near = []
    for at, site in enumerate(sites):
        if max(site.entry, site.resume, site.target) - low >= SPAN:
            failures[at] = line(site, "addresses too far apart", f"{low:#x} and {site.target:#x}", f"within {SPAN:#x}")
        else:
            near.append(at)
    random = np.random.default_rng(seed)
    batches = [batch[at : at + MOST] for batch in _apart(sites, near) for at in range(0, len(batch), MOST)]
    for batch in batches:
        try:
            failures |= _Batch(memory, sites, batch, low, random).run(places)
        except (OSError, SubprocessError) as reason:
            return Outcome(0, skipped=f"{QEMU} cannot be started, confined and in the memory that there is: {reason}")
    failures = wrong_ops(memory, sites, places) | failures
    return Outcome(len(sites), tuple(failures[at] for at in sorted(failures)))


def run_redirects(memory: Memory, redirects: Sequence[RedirectExpectation], seed: int) -> Outcome:
    """Execute every redirected function."""
    return Outcome(0, skipped="redirected functions are not executed on this machine yet")


def _apart(sites: Sequence[SiteExpectation], index: list[int]) -> list[list[int]]:
    """The sites in batches, in none of which one's target lies in what another executes: a trap stands there."""
    todo, batches = index, []
    while todo:
        targets = distinct(np.array([sites[at].target for at in todo], dtype=np.uint64))
        entry = np.array([sites[at].entry for at in todo], dtype=np.uint64)
        resume = np.array([sites[at].resume for at in todo], dtype=np.uint64)
        own = np.array([sites[at].entry <= sites[at].target < sites[at].resume for at in todo])
        hit = np.searchsorted(targets, resume) - np.searchsorted(targets, entry) > own
        good = [at for at, bad in zip(todo, hit, strict=True) if not bad] or todo[:1]
        batches.append(good)
        taken = set(good)
        todo = [at for at in todo if at not in taken]
    return batches


class _Batch:
    """Sites of one process: indices into all sites; low: the address that goes to LOWEST."""

    def __init__(
        self, memory: Memory, sites: Sequence[SiteExpectation], index: list[int], low: int, random: np.random.Generator
    ) -> None:
        self.memory, self.index, self.random = memory, index, random
        self.sites = [sites[at] for at in index]
        self.down = LOWEST - low  # from an address of the file to the guest's
        self.r1 = g.STACK + g.STACK_SIZE // 2 + 16 * int(random.integers(0, 256))
        self.rows = self._rows()

    def moved(self, va: int | None) -> int:
        return (va or 0) + self.down & BIT64

    def _rows(self) -> U64:
        """The registers of every site at its entry, and what the handler has to know of it."""
        n = len(self.sites)
        rows = self.random.integers(0, 1 << 64, (n, g.N_ROW), dtype=np.uint64)
        rows[:, 1], rows[:, 13], rows[:, g.XER] = self.r1, g.PACA, 0
        rows[:, g.LR] &= np.uint64(BIT64 ^ 3)
        rows[:, g.CR] &= np.uint64(0xFFFF_FFFF)
        rows[:, g.NIP] = [self.moved(site.entry) for site in self.sites]
        # Where nothing is called, no address is the target's.
        rows[:, g.TARGET] = [BIT64 if site.target == site.resume else self.moved(site.target) for site in self.sites]
        rows[:, g.INLINE] = [
            0 if site.tail or not self._links(site) else self.moved(site.resume) for site in self.sites
        ]
        rows[:, g.MASK] = [self._loses(site) for site in self.sites]
        return rows

    def _loses(self, site: SiteExpectation) -> int:
        """Bits of the registers that the target changes."""
        lost: int = sum(1 << n for n in (C_LOSES if site.tail else KERNEL_LOSES))
        return lost | 1 << 2 if site.tail and self._outside(site) else lost

    def _links(self, site: SiteExpectation) -> bool:
        """Whether the site's branch is a call; where it is none, a stub out of line makes the call."""
        return bool((self.memory.word(site.resume - 4) or 0) & 1)

    def _outside(self, site: SiteExpectation) -> bool:
        """Whether the target, a C function, has another TOC than the stub that calls it."""
        return self.memory.outside is not None and site.target >= self.memory.outside

    def run(self, places: list[int | None]) -> dict[int, str]:
        """Index of a site → its failure. places: filled with where each target reads its ops pointer."""
        stack, junk = self.random.bytes(g.STACK_SIZE), self.random.integers(0, 1 << 64, g.N_REGISTERS, dtype=np.uint64)
        program = g.elf([*g.program(self.rows, junk, stack, self._paca()), *self._code()])
        ran = qemu_sandbox.run(QEMU, program, SECONDS + PER_SITE * len(self.sites))
        size = 8 * g.N_RECORD
        records = (
            np.frombuffer(ran.output, np.uint8)[: len(ran.output) // size * size].view("<u8").reshape(-1, g.N_RECORD)
        )
        if not len(records):  # the program's own trap comes before any code of the file: QEMU itself did not start
            raise SubprocessError(ran.stopped or "no output")
        up = np.uint64(-self.down & BIT64)
        with np.errstate(over="ignore"):
            records[:, g.NIP] += up
            records[:, g.LR] += up
        frame: Stop = list(np.frombuffer(stack, dtype="<u8")[(self.r1 - g.STACK) // 8 :][: g.N_FRAME].tolist())
        stops = _by_site(records[1:], len(self.sites))
        failures, late = {}, _first_without(stops)
        for at, site in enumerate(self.sites):
            start: Stop = self.rows[at].tolist()
            mine: list[Stop] = records[1 + stops[at] : 1 + stops[at + 1]].tolist()
            ended = ran.stopped or "an end of the process"
            why = self._judge(site, start, mine, frame, ended if at <= late else f"{ended}, in an earlier site")
            if why:
                failures[self.index[at]] = why
            elif site.ops is not None and site.target != site.resume:
                places[self.index[at]] = mine[0][g.LR] - 16 & BIT64
            frame = mine[-1][g.FRAME :] if mine else frame
        return failures

    def _paca(self) -> bytes:
        """Nothing but the kernel's TOC; everywhere, where it is not known where."""
        paca = np.zeros(g.PACA_SIZE // 8, dtype="<u8")
        if self.memory.kernel_toc is not None:
            where = slice(None) if self.memory.toc_at is None else slice(self.memory.toc_at // 8, None, len(paca))
            paca[where] = self.moved(self.memory.kernel_toc)
        return paca.tobytes()

    def _code(self) -> list[g.Segment]:
        """What may be executed of the file, with the traps, in a few segments."""
        stops = set(chain.from_iterable((site.target, site.resume) for site in self.sites))
        va, word = code_words(self.memory, (site.entry for site in self.sites), stops)
        traps = np.array(sorted(stops), dtype=np.uint64)
        page = distinct(np.concatenate([va, traps]) // np.uint64(g.SEGMENT)).astype(np.int64)
        runs = np.split(page, np.flatnonzero(np.diff(page) > GAP // g.SEGMENT) + 1)
        segments = []
        for pages in runs:
            first, n = int(pages[0]) * g.SEGMENT, (int(pages[-1]) - int(pages[0]) + 1) * g.SEGMENT
            content = np.zeros(n // 4, dtype="<u4")
            for places, words in ((va, word), (traps, np.full(len(traps), g.TRAP, np.uint32))):
                inside = (places >= np.uint64(first)) & (places < np.uint64(first + n))
                content[(places[inside] - np.uint64(first)) // np.uint64(4)] = words[inside]
            self._move_pointers(content, first, va)
            segments.append(g.Segment(self.moved(first), content.tobytes(), g.READ | g.EXECUTE))
        return segments

    def _move_pointers(self, content: np.ndarray[tuple[int], np.dtype[np.uint32]], first: int, va: U64) -> None:
        """Pointers beside the code that the loader fills lead to the guest's addresses."""
        filled = self.memory.moved.filled
        mine = filled[(filled >= np.uint64(first)) & (filled < np.uint64(first + 4 * len(content) - 4))]
        mine = mine[(mine % np.uint64(4) == 0) & is_in(mine, va) & is_in(mine + np.uint64(4), va)]
        value = self.memory.pointers(mine).value
        for place, pointer in zip(mine.tolist(), value.tolist(), strict=True):
            at = (place - first) // 4
            content[at], content[at + 1] = self.moved(pointer) & 0xFFFF_FFFF, self.moved(pointer) >> 32

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
        why = why or _kept(last, start, "behind the site")
        if not why and last[g.LR] + self.down & BIT64 != start[g.LR]:
            why = f"LR behind the site: found {last[g.LR] + self.down & BIT64:#x}, expected {start[g.LR]:#x}"
        for at, was in enumerate(frame):  # 8(r1) and 16(r1) are for those who are called
            if not why and at not in (1, 2) and last[g.FRAME + at] != was:
                why = f"{8 * at}(r1), the caller's, behind the site: found {last[g.FRAME + at]:#x}, expected {was:#x}"
        return f"{site.name}: {why}" if why else ""

    def _arrival(self, stop: Stop, to: int, where: str) -> str:
        if stop[g.SIGNAL] == g.SIGTRAP and stop[g.NIP] == to:
            return ""
        word = self.memory.word(stop[g.NIP])
        call = "a system call" if word is not None and word >> 26 == SYSTEM_CALL else ""
        signal = call or SIGNALS.get(stop[g.SIGNAL], f"signal {stop[g.SIGNAL]}")
        return f"never arrives at {where}: found {signal} at {stop[g.NIP]:#x}, expected {to:#x}"

    def _at_target(self, site: SiteExpectation, start: Stop, stop: Stop) -> str:
        """Why the target must not be entered with these registers; empty where it may."""
        if not site.tail:
            if stop[0] != start[g.LR]:
                return f"r0 at the target: found {stop[0]:#x}, expected {start[g.LR]:#x}, the caller's return address"
            if self._links(site) and stop[g.LR] != site.resume:
                return f"LR at the target: found {stop[g.LR]:#x}, expected {site.resume:#x}, behind the site"
            return _kept(stop, start, "at the target")
        if stop[1] % 16 or not g.STACK < stop[1] <= self.r1 - 32:
            return f"r1 at the target: found {stop[1]:#x}, expected an aligned frame of its own"
        n, expected = (12, site.target) if self._outside(site) else (2, self.memory.own_toc)
        if expected is not None and stop[n] != self.moved(expected):
            return f"r{n} at the target: found {stop[n] - self.down & BIT64:#x}, expected {expected:#x}"
        return ""


def _kept(stop: Stop, start: Stop, where: str) -> str:
    what = first_difference(stop, start, PRESERVED)
    if not what and (stop[g.CR] ^ start[g.CR]) & CR_KEPT:
        what = f"cr2–cr4: found {stop[g.CR] & CR_KEPT:#x}, expected {start[g.CR] & CR_KEPT:#x}"
    return f"{where} {what}" if what else ""


def _by_site(records: U64, n: int) -> I64:
    """First record of every site, and one past the last: the guest counts sites upwards."""
    return np.searchsorted(records[:, g.INDEX], np.arange(n + 1, dtype=np.uint64)).astype(np.int64)


def _first_without(stops: I64) -> int:
    """The site that was running when the process ended before its time."""
    without = np.flatnonzero(np.diff(stops) == 0)
    return int(without[0]) if len(without) else len(stops)
