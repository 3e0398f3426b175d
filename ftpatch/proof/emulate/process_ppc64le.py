"""One process of QEMU's user mode that executes a file's code: what it is loaded with, and what it says.

User mode has no kernel addresses, so everything is moved down by one constant; branches and TOCs are relative, and
pointers in the copied code are moved along.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from subprocess import SubprocessError

import numpy as np

from ftpatch.arch import hosts
from ftpatch.arch.proof_tables import BIT64
from ftpatch.arrays import I64, U64, distinct, is_in
from ftpatch.proof.emulate import guest_ppc64le as g
from ftpatch.proof.emulate import qemu_sandbox
from ftpatch.proof.emulate.memory import Memory
from ftpatch.proof.emulate.reach_ppc64le import SYSTEM_CALL, code_words

QEMU = hosts.QEMU_PPC64LE
LOWEST = 1 << 32  # the guest's address for the file's lowest one, down to 4 GiB
SPAN = 1 << 38  # of addresses that can be laid out
GAP = 1 << 20  # zero bytes that are loaded rather than a segment more
SECONDS, PER_RUN = 20.0, 0.002
SIGNALS = {g.SIGILL: "an illegal instruction", g.SIGTRAP: "a trap", g.SIGBUS: "a bus error",
           g.SIGSEGV: "an access to nothing"}  # fmt: skip
CR_KEPT = 0x00FF_F000  # cr2, cr3, cr4


def lowest_of(places: Iterable[int]) -> int:
    """The address of a file that goes to LOWEST: of all that are executed, without those that are far from most."""
    ordered = sorted(places)
    low = max(ordered[len(ordered) // 2] - SPAN // 2, 0) if ordered else 0
    return min((place for place in ordered if place >= low), default=0) & ~(LOWEST - 1)


def too_far(places: Sequence[int], low: int) -> str:
    """Two addresses that cannot be laid out in one process; empty where all can."""
    farthest = max(places, key=lambda place: abs(place - low))
    return f"{low:#x} and {farthest:#x}" if min(places) < low or max(places) - low >= SPAN else ""


def apart(target: U64, first: U64, end: U64) -> list[list[int]]:
    """Indices in batches, in none of which one's target lies in what another executes: a trap stands there.

    first, end: va of what each executes, for sure, in its own function.
    """
    targets, own = np.unique(target, return_inverse=True)
    low, high = np.searchsorted(targets, first), np.searchsorted(targets, end)
    todo, batches = list(range(len(target))), []
    while todo:
        trapped, executed = np.zeros(len(targets), dtype=bool), np.zeros(len(targets), dtype=bool)
        batch, rest = [], []
        for at, mine, start, stop in zip(
            todo, own[todo].tolist(), low[todo].tolist(), high[todo].tolist(), strict=True
        ):
            if executed[mine] or (start < stop and trapped[start:stop].any()):
                rest.append(at)
                continue
            batch.append(at)
            trapped[mine] = True
            executed[start:stop] = True
        todo = rest
        batches.append(batch)
    return batches


@dataclass(frozen=True)
class Runs:
    """What a process said: its records, with the guest's addresses."""

    records: U64  # (n, N_RECORD); the first is of the program's own trap
    target: U64  # of every run
    stopped: str  # why the process ended before its time; empty where it did not

    @cached_property
    def start(self) -> I64:
        """First record of every run, and one past the last: the guest counts runs upwards."""
        index = self.records[1:, g.INDEX]
        return 1 + np.searchsorted(index, np.arange(len(self.target) + 1, dtype=np.uint64)).astype(np.int64)

    @cached_property
    def last(self) -> int:
        """The run in which the process ended; the number of runs where it ended behind all of them."""
        index, stage, nip = (int(self.records[-1, at]) for at in (g.INDEX, g.STAGE, g.NIP))
        goes_on = stage == 0 or (stage == 1 and index < len(self.target) and nip == self.target[index])
        return index if goes_on else index + 1

    @property
    def ended(self) -> str:
        return self.stopped or "an end of the process"


class Process:
    """The code of a file in a process, moved down. low: the address that goes to LOWEST."""

    def __init__(
        self, memory: Memory, low: int, entries: Iterable[int], stops: set[int], random: np.random.Generator
    ) -> None:
        self.memory = memory
        self.down = LOWEST - low  # from an address of the file to the guest's
        self.r1 = g.STACK + g.STACK_SIZE // 2 + 16 * int(random.integers(0, 256))
        self.stack = random.bytes(g.STACK_SIZE)
        self.junk = random.integers(0, 1 << 64, g.N_REGISTERS, dtype=np.uint64)
        self.junk[g.XER] &= np.uint64(0xE000_0000)
        self.code = self._code(entries, stops)

    def moved(self, va: int | None) -> int:
        return (va or 0) + self.down & BIT64

    def unmoved(self, va: int) -> int:
        return va - self.down & BIT64

    def start_rows(self, n: int, random: np.random.Generator) -> U64:
        """Random registers for n runs, but those that a kernel has for itself."""
        rows = random.integers(0, 1 << 64, (n, g.N_ROW), dtype=np.uint64)
        rows[:, 1], rows[:, 13], rows[:, g.XER], rows[:, g.LOST] = self.r1, g.PACA, 0, 16
        rows[:, g.LR] &= np.uint64(BIT64 ^ 3)
        rows[:, g.CR] &= np.uint64(0xFFFF_FFFF)
        return rows

    def run(self, rows: U64, more: Iterable[g.Segment] = ()) -> Runs:
        """Execute all of it. Raises OSError or SubprocessError where QEMU cannot be started."""
        program = g.elf([*g.program(rows, self.junk, self.stack, self._paca()), *self.code, *more])
        ran = qemu_sandbox.run(QEMU, program, SECONDS + PER_RUN * len(rows))
        whole = len(ran.output) // (8 * g.N_RECORD) * 8 * g.N_RECORD
        records = np.frombuffer(ran.output, np.uint8)[:whole].view("<u8").reshape(-1, g.N_RECORD)
        if not len(records):  # the program's own trap comes before any code of the file: QEMU itself did not start
            raise SubprocessError(ran.stopped or "no output")
        return Runs(records, rows[:, g.TARGET], ran.stopped)

    def signal(self, number: int, va: int) -> str:
        """What stopped the process at an address of the file."""
        word = self.memory.word(va)
        call = "a system call" if word is not None and word >> 26 == SYSTEM_CALL else ""
        return call or SIGNALS.get(number, f"signal {number}")

    def _paca(self) -> bytes:
        """Nothing but the kernel's TOC; everywhere, where it is not known where."""
        paca = np.zeros(g.PACA_SIZE // 8, dtype="<u8")
        if self.memory.kernel_toc is not None:
            where = slice(None) if self.memory.toc_at is None else slice(self.memory.toc_at // 8, None, len(paca))
            paca[where] = self.moved(self.memory.kernel_toc)
        return paca.tobytes()

    def _code(self, entries: Iterable[int], stops: set[int]) -> list[g.Segment]:
        """What may be executed of the file, with the traps, in a few segments."""
        va, word = code_words(self.memory, entries, stops)
        traps = np.array(sorted(stops), dtype=np.uint64)
        page = distinct(np.concatenate([va, traps]) // np.uint64(g.SEGMENT)).astype(np.int64)
        runs = np.split(page, np.flatnonzero(np.diff(page) > GAP // g.SEGMENT) + 1)
        segments = []
        for pages in runs:
            first, n = int(pages[0]) * g.SEGMENT, (int(pages[-1]) - int(pages[0]) + 1) * g.SEGMENT
            content = np.zeros(n // 4, dtype="<u4")
            for places, words in ((va, word), (traps, np.full(len(traps), g.TRAP, np.uint32))):
                inside = (places >= np.uint64(first)) & (places <= np.uint64(first + n - 1))
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
