"""Redirected functions of ppc64le, executed as their callers call them: two runs of each that has two entries.

    caller ─► local entry, r2: its TOC ───────┐
    caller ─► global entry, r12: that entry ──┴► site ─► [stub ─►] replacement ─► [stub ─►] caller

The replacement must be entered as if the caller had called it. A global entry wants its own address in r12. What a
stub does in between must not be seen: the frame above belongs to the caller, of which only 16(r1) may be written. A
stub that calls has a frame of its own, at least 32 bytes, with a back chain. The replacement then behaves as badly as
a C function may: r0, r3–r12, CTR, XER and LR are lost, with what lies below r1, and three words of the frame above
that belong to those who are called or to the stub that the loader made: 8(r1), 16(r1) and 24(r1). One of another file
leaves another TOC in r2. Back in the caller, r1, r13–r31, cr2–cr4 and its frame are as they were, r3 and r4 are the
replacement's results; r2 is what it was, unless the caller came in at the global entry: then it loads its own again.
Source: OpenPOWER ELFv2 ABI 1.5, 2.2.2 (registers), 2.2.3 (stack frame), 2.3.1 (the TOC at entries).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from subprocess import SubprocessError

import numpy as np

from ftpatch.arrays import U64, Mask
from ftpatch.proof.emulate import guest_ppc64le as g
from ftpatch.proof.emulate import qemu_sandbox
from ftpatch.proof.emulate.expectation import Outcome, RedirectExpectation, line
from ftpatch.proof.emulate.memory import Memory
from ftpatch.proof.emulate.process_ppc64le import (
    CR_KEPT,
    GAP,
    LOWEST,
    QEMU,
    SPAN,
    Process,
    Runs,
    apart,
    lowest_of,
    too_far,
)

MOST = 1 << 13  # functions of one process
SITE = 12  # bytes from a local entry on in which a site's first word lies
MIN_FRAME = 32
LD_R2_24 = 0xE841_0018
MAX_AGAIN = 3  # times that what comes behind code without end is executed in a process of its own
LOSES = (0, *range(3, 13), g.LR, g.CTR, g.XER)
GLOBALLY = ", entered at its global entry"


def run_redirects(memory: Memory, redirects: Sequence[RedirectExpectation], seed: int) -> Outcome:
    """Execute every redirected function; skipped where there is no QEMU."""
    if why := qemu_sandbox.why_not(QEMU):
        return Outcome(0, skipped=why)
    low = lowest_of(chain.from_iterable(map(_places, redirects)))
    failures: dict[int, str] = {}
    near = []
    for at, redirect in enumerate(redirects):
        if found := too_far(_places(redirect), low):
            failures[at] = line(redirect, "addresses too far apart", found, f"within {SPAN:#x}")
        else:
            near.append(at)
    random = np.random.default_rng(seed)
    todo, again = _batches(redirects, near), 0
    while todo:
        batch = _Batch(memory, redirects, todo.pop(), low, random)
        try:
            failed, rest = batch.run(again < MAX_AGAIN)
        except (OSError, SubprocessError) as reason:
            return Outcome(0, skipped=f"{QEMU} cannot be started, confined and in the memory that there is: {reason}")
        failures = failed | failures
        if rest:
            again += 1
            todo.append(rest)
    return Outcome(len(redirects), tuple(failures[at] for at in sorted(failures)))


def _places(redirect: RedirectExpectation) -> tuple[int, ...]:
    more = () if redirect.global_entry is None else (redirect.global_entry,)
    return (redirect.entry, redirect.target, *more)


def _batches(redirects: Sequence[RedirectExpectation], index: list[int]) -> list[list[int]]:
    """Indices of those that one process can execute: where one leads to another, the other waits."""
    entries = [(redirects[at].entry, redirects[at].global_entry) for at in index]
    target = np.array([redirects[at].target for at in index], dtype=np.uint64)
    first = np.array([min(one, one if two is None else two) for one, two in entries], dtype=np.uint64)
    last = np.array([max(one, two or 0) for one, two in entries], dtype=np.uint64)
    batches = [[index[at] for at in batch] for batch in apart(target, first, last + np.uint64(SITE))]
    return [batch[at : at + MOST] for batch in batches for at in range(0, len(batch), MOST)]


def _mask(values: Iterable[bool]) -> Mask:
    return np.array(list(values), dtype=bool)


class _Batch:
    """Redirected functions of one process, by index; a row for each run of each."""

    def __init__(
        self, memory: Memory, redirects: Sequence[RedirectExpectation], index: list[int], low: int,
        random: np.random.Generator,
    ) -> None:  # fmt: skip
        pairs = [(at, False) for at in index] + [(at, True) for at in index if redirects[at].global_entry is not None]
        pairs.sort()
        self.memory, self.index = memory, [at for at, _ in pairs]
        self.redirects = [redirects[at] for at in self.index]
        self.globally = _mask(globally for _, globally in pairs)  # which runs enter at the global entry
        self.framed = _mask(redirect.framed for redirect in self.redirects)
        self.by_global = _mask(redirect.by_global for redirect in self.redirects)
        outside = 1 << 64 if memory.outside is None else memory.outside
        self.elsewhere = _mask(redirect.target >= outside for redirect in self.redirects)  # with another TOC
        self.toc = memory.kernel_toc if memory.own_toc is None else memory.own_toc  # of the redirected functions
        self.entry = [
            redirect.entry if redirect.global_entry is None or not globally else redirect.global_entry
            for redirect, globally in zip(self.redirects, self.globally.tolist(), strict=True)
        ]
        self.process = Process(memory, low, set(self.entry), {one.target for one in self.redirects}, random)
        ends = [segment.va + len(segment.data) for segment in self.process.code]
        self.returns = (max(ends) + GAP) & -g.SEGMENT  # the callers' return addresses: a trap for each run
        self.rows = self._rows(random)

    def _rows(self, random: np.random.Generator) -> U64:
        """The registers of every run at its entry, and what the handler has to know of it."""
        n, moved = len(self.redirects), self.process.moved
        rows = self.process.start_rows(n, random)
        rows[:, g.LR] = np.uint64(self.returns) + np.arange(0, 4 * n, 4, dtype=np.uint64)
        rows[:, g.INLINE], rows[:, g.MASK] = 0, sum(1 << at for at in LOSES)
        rows[:, g.TARGET] = [moved(redirect.target) for redirect in self.redirects]
        rows[:, g.NIP] = [moved(entry) for entry in self.entry]
        rows[self.globally, 12] = rows[self.globally, g.NIP]
        two = _mask(redirect.global_entry is not None for redirect in self.redirects)
        if self.toc is not None:
            rows[two & ~self.globally, 2] = moved(self.toc)
        rows[self.framed, g.LOST] = 24
        rows[self.elsewhere, g.MASK] |= np.uint64(1 << 2)
        return rows

    def run(self, may_go_on: bool) -> tuple[dict[int, str], list[int]]:
        """(index of a function → its failure; those to execute again, behind one that does not end)."""
        traps = np.full(-(-len(self.rows) // (g.SEGMENT // 4)) * (g.SEGMENT // 4), g.TRAP, dtype="<u4")
        ran = self.process.run(self.rows, [g.Segment(self.returns, traps.tobytes(), g.READ | g.EXECUTE)])
        failures = _Judgement(self, ran).failures()
        running = self.index[ran.last] if ran.last < len(self.index) else self.index[-1]
        rest = sorted({at for at in self.index if at > running}) if may_go_on else []
        kept = {at: why for at, why in failures.items() if not rest or at <= running}
        return kept, rest


class _Judgement:
    """What the runs of a batch say; the first thing that is wrong with a function is told."""

    def __init__(self, batch: _Batch, ran: Runs) -> None:
        self.batch, self.ran, self.process = batch, ran, batch.process
        self.rows = batch.rows
        self.right: Mask = np.ones(len(self.rows), dtype=bool)  # rows of which nothing wrong is known
        self.why: dict[int, str] = {}  # by row
        self.n_stops = np.diff(ran.start)
        self.target, self.back = self._stop(0), self._stop(1)

    def _stop(self, at: int) -> U64:
        """The record of every run's stop `at`; another one where it has none."""
        stop: U64 = self.ran.records[np.minimum(self.ran.start[:-1] + at, len(self.ran.records) - 1)]
        return stop

    def failures(self) -> dict[int, str]:
        """Index of a function → its failure."""
        self._arrival(self.target, self.n_stops > 0, self.rows[:, g.TARGET], "the target")
        self._at_target()
        self._arrival(self.back, self.n_stops > 1, self.rows[:, g.LR], "the caller's return address")
        self._in_caller()
        failures: dict[int, str] = {}
        for row in sorted(self.why):
            failures.setdefault(self.batch.index[row], self.why[row])
        return failures

    def _at_target(self) -> None:
        framed, by_global, stop, rows = self.batch.framed, self.batch.by_global, self.target, self.rows
        self._frame(stop, "at the target", self.right, (0, 1, *range(3, g.N_FRAME)))
        r1 = stop[:, 1]
        own = (r1 % 16 == 0) & (r1 > g.STACK) & (r1 <= self.process.r1 - MIN_FRAME)
        self._fail(framed & ~own, "r1 at the target", r1, "an aligned frame of its own")
        self._same("0(r1), the back chain, at the target", stop[:, g.CHAIN], rows[:, 1], framed)
        self._fail(
            framed & (stop[:, g.LR] == rows[:, g.LR]), "LR at the target", stop[:, g.LR], "an address in the stub"
        )
        self._same("r1 at the target", r1, rows[:, 1], ~framed)
        self._same("LR at the target", stop[:, g.LR], rows[:, g.LR], ~framed)
        self._kept(stop, "at the target", (*range(3, 11), *range(13, 32)))
        self._same("r12 at the target", stop[:, 12], rows[:, g.TARGET], by_global)
        self._toc_at_target()
        self._restores_toc()

    def _toc_at_target(self) -> None:
        """A local entry wants its TOC; what has one entry leaves r2 as it finds it."""
        batch, expected = self.batch, self.rows[:, 2].copy()
        own = batch.globally | _mask(redirect.by_local for redirect in batch.redirects)  # which the global entry sets
        expected[own] = self.process.moved(batch.toc)
        known = ~own | (batch.toc is not None)
        self._same("r2 at the target", self.target[:, 2], expected, ~batch.by_global & known)

    def _restores_toc(self) -> None:
        """Behind a call over the loader's stub there is a nop in the file, without which the loader refuses it."""
        memory = self.batch.memory
        for row in np.flatnonzero(self.batch.framed & self.right & self.batch.elsewhere).tolist():
            behind = self.process.unmoved(int(self.target[row, g.LR]))
            call, word = (memory.word(va) or 0 for va in (behind - 4, behind))
            if call >> 26 == 18 and word != LD_R2_24:
                why = line(self.batch.redirects[row], f"the word behind the call at {behind - 4:#x}", word,
                           f"{LD_R2_24:#x}, ld r2,24(r1), which the loader writes over a nop")  # fmt: skip
                self._tell(row, why)

    def _in_caller(self) -> None:
        framed, stop, junk = self.batch.framed, self.back, self.process.junk
        where = "at the caller's return address"
        self._frame(stop, where, framed, (0, 1, *range(3, g.N_FRAME)))
        self._frame(stop, where, ~framed, (0, *range(3, g.N_FRAME)))
        self._same(f"r1 {where}", stop[:, 1], self.rows[:, 1], self.right)
        self._same(f"r2 {where}", stop[:, 2], self.rows[:, 2], ~self.batch.globally)
        for n in (3, 4):
            self._same(f"r{n} {where}", stop[:, n], np.full(len(self.rows), junk[n]), self.right)
        self._kept(stop, where, range(13, 32))

    def _arrival(self, stop: U64, there: Mask, to: U64, where: str) -> None:
        """That the runs stop at `to`. there: which have such a stop."""
        arrived = there & (stop[:, g.SIGNAL] == g.SIGTRAP) & (stop[:, g.NIP] == to)
        for row in np.flatnonzero(self.right & ~arrived).tolist():
            what = self._stopped(int(stop[row, g.SIGNAL]), int(stop[row, g.NIP])) if there[row] else self._ended(row)
            expected = self._shown(int(to[row]))
            self._tell(
                row, line(self.batch.redirects[row], f"never arrives at {where}{self._entered(row)}", what, expected)
            )

    def _stopped(self, signal: int, nip: int) -> str:
        if nip in self.rows[:, g.LR]:
            return "a return to a caller"
        return f"{self.process.signal(signal, self.process.unmoved(nip))} at {self._shown(nip)}"

    def _ended(self, row: int) -> str:
        return self.ran.ended if row <= self.ran.last else f"{self.ran.ended}, in an earlier site"

    def _frame(self, stop: U64, where: str, of: Mask, words: Sequence[int]) -> None:
        """That doublewords of the caller's frame are as they were."""
        frame = ~self.rows[:, g.COMPLEMENT]
        for at in words:
            self._same(f"{8 * at}(r1), the caller's, {where}", stop[:, g.FRAME + at], frame[:, at], of)

    def _kept(self, stop: U64, where: str, registers: Sequence[int]) -> None:
        for n in registers:
            self._same(f"r{n} {where}", stop[:, n], self.rows[:, n], self.right)
        kept = np.uint64(CR_KEPT)
        self._same(f"cr2–cr4 {where}", stop[:, g.CR] & kept, self.rows[:, g.CR] & kept, self.right)

    def _same(self, what: str, found: U64, expected: U64, of: Mask) -> None:
        """That the values of some runs are those expected."""
        for row in np.flatnonzero(of & self.right & (found != expected)).tolist():
            shown = self._shown(int(expected[row]))
            self._fail_row(row, what, int(found[row]), shown)

    def _fail(self, wrong: Mask, what: str, found: U64, expected: str) -> None:
        for row in np.flatnonzero(wrong & self.right).tolist():
            self._fail_row(row, what, int(found[row]), expected)

    def _fail_row(self, row: int, what: str, found: int, expected: str) -> None:
        redirect = self.batch.redirects[row]
        self._tell(row, line(redirect, f"{what}{self._entered(row)}", self._shown(found), expected))

    def _tell(self, row: int, why: str) -> None:
        self.why[row], self.right[row] = why, False

    def _entered(self, row: int) -> str:
        return GLOBALLY if self.batch.globally[row] else ""

    def _shown(self, value: int) -> str:
        """A value of the guest's, as an address of the file where it is one."""
        return f"{self.process.unmoved(value) if LOWEST <= value < self.batch.returns else value:#x}"
