"""Sites of ppc64le programs in QEMU's user mode: one process runs many of them, by a small program of ours.

The worst C function changes r0, r2–r12, CTR, LR, XER, cr0, cr1, cr5–cr7, f0–f13, v0–v19, what lies below r1, and three
words of the frame above that are for those who are called. It finds its own address in r12, and r1 at a multiple of 16.
Behind the site r1–r11, r13–r31, cr2–cr4, f1–f31, v2–v13, v20–v31 and the caller's frame, but for 8(r1) and 16(r1), must
be as at the entry, and LR too, which the site had put into r0.

The call of _mcount behind a prologue is an ordinary one from a frame of the function's own; where the function returns
to is in the frame above. Behind it r1, r2, r13–r31, cr2–cr4, f14–f31 and v20–v31 are as they were; it may write 24(r1).

A program that can be moved is executed 4 GiB above where it was linked, as user mode has no pages at the lowest
addresses; its pointers are moved along. Only instructions that sites may come to are copied, and no system calls.
Source: OpenPOWER ELFv2 ABI 1.5, 2.2 and 2.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from subprocess import SubprocessError

import numpy as np

from ftpatch.arch.proof_tables import BIT64
from ftpatch.arrays import U64, distinct
from ftpatch.elf import tables as t
from ftpatch.proof.emulate import guest_programs_ppc64le as g
from ftpatch.proof.emulate import qemu_sandbox
from ftpatch.proof.emulate.expectation import CallExpectation, Outcome, line
from ftpatch.proof.emulate.guest_ppc64le import EXECUTE, READ, SIGTRAP, TRAP, WRITE, Segment
from ftpatch.proof.emulate.memory import Block, Memory, relative_pointers
from ftpatch.proof.emulate.process_ppc64le import CR_KEPT, PER_RUN, QEMU, SECONDS, SIGNALS
from ftpatch.proof.emulate.program_memory import PAGE, ProgramMemory, entries_of
from ftpatch.proof.emulate.reach_ppc64le import code_words

MOST = 1 << 12  # sites of one process
MAX_DATA = 1 << 26  # bytes of data that are copied
UP = 1 << 32  # how far a program is moved
TOC = 0x8000  # bytes from .got to where r2 points
R3, R4, R12 = 3, 4, 12
KEPT = (
    *((n, f"r{n}") for n in (*range(1, 12), *range(13, 32))),
    *((g.FLOATS + n, f"f{n}") for n in range(1, 32)),
    *((g.VECTORS + 2 * n + half, f"v{n}") for n in (*range(2, 14), *range(20, 32)) for half in range(2)),
)
KEPT_BY_C = tuple((at, name) for at, name in KEPT if at in (1, 2, *range(13, 32)) or name in {
                  *(f"f{n}" for n in range(14, 32)), *(f"v{n}" for n in range(20, 32))})  # fmt: skip
FOR_CALLEES = (1, 2)  # doublewords of the caller's frame
TOC_SAVE = 3
ABOVE = 12  # doublewords from a frame to the one above it, where a site is behind a prologue


def run(memory: ProgramMemory, sites: Sequence[CallExpectation], seed: int) -> Outcome:
    """Execute every site; skipped where there is no QEMU."""
    if why := qemu_sandbox.why_not(QEMU):
        return Outcome(0, skipped=why)
    process, failures = _Process(memory, seed), list[str]()
    if process.why:
        return Outcome(0, skipped=process.why)
    for at in range(0, len(sites), MOST):
        try:
            failures += process.run(sites[at : at + MOST])
        except (OSError, SubprocessError) as reason:
            return Outcome(0, skipped=f"{QEMU} cannot be started, confined and in the memory that there is: {reason}")
    return Outcome(len(sites), tuple(failures))


class _Process:
    """A program that is executed, with a stack of random bytes."""

    def __init__(self, memory: ProgramMemory, seed: int) -> None:
        self.memory, self.random, self.image = memory, np.random.default_rng(seed), memory.image
        self.up = UP if self.image.e_type == t.ET_DYN else 0
        loads = self.image.phdr[self.image.phdr["p_type"] == t.PT_LOAD]
        self.spans = [(int(row["p_vaddr"]), int(row["p_vaddr"]) + int(row["p_memsz"])) for row in loads]
        free = [base for base in g.BASES if all(end + self.up <= base or base + g.SIZE <= start + self.up
                                                for start, end in self.spans)]  # fmt: skip
        self.base = free[0] if free else 0
        size = sum(end - start for start, end in self.spans)
        self.why = "" if free and size <= MAX_DATA else f"the program has {size} bytes in memory, which are too many"
        self.functions = entries_of(self.image) | set(memory.imports.values())
        got = self.image.sections_named(".got")
        self.toc = int(self.image.base[got[0]]) + TOC + self.up if got else 0
        self.stack = self.random.bytes(g.STACK_SIZE)

    def run(self, sites: Sequence[CallExpectation]) -> list[str]:
        """A line for each site that does not hold."""
        rows = self._rows(sites)
        junk = self.random.integers(0, 1 << 64, g.N_JUNK, dtype=np.uint64)
        junk[g.XER] &= np.uint64(0xE000_0000)
        segments = [*g.program(self.base, rows, junk, self.stack), *self._segments(sites)]
        ran = qemu_sandbox.run(QEMU, g.elf(self.base, segments), SECONDS + PER_RUN * len(sites))
        whole = len(ran.output) // (8 * g.N_RECORD) * 8 * g.N_RECORD
        records = np.frombuffer(ran.output, np.uint8)[:whole].view("<u8").reshape(-1, g.N_RECORD)
        if not len(records):  # the program's own trap comes before any code of the file: QEMU itself did not start
            raise SubprocessError(ran.stopped or "no output")
        start = 1 + np.searchsorted(records[1:, g.INDEX], np.arange(len(sites) + 1, dtype=np.uint64)).astype(np.int64)
        why = [self._judge(site, rows[at], records[start[at] : start[at + 1]], ran.stopped)
               for at, site in enumerate(sites)]  # fmt: skip
        return [text for text in why if text]

    def _rows(self, sites: Sequence[CallExpectation]) -> U64:
        """What every site starts with."""
        rows: U64 = self.random.integers(0, 1 << 64, (len(sites), g.N_ROW), dtype=np.uint64)
        rows[:, 1] = self.base + g.STACK + g.STACK_SIZE // 2 + 16 * int(self.random.integers(0, 256))
        rows[:, 2] = self.toc or rows[:, 2]
        rows[:, g.XER] = 0
        rows[:, g.LR] &= np.uint64(BIT64 ^ 3)
        rows[:, g.CR] &= np.uint64(0xFFFF_FFFF)
        rows[:, g.NIP] = [site.entry + self.up for site in sites]
        rows[:, g.RESUME] = [site.resume + self.up for site in sites]
        deep = [at for at, site in enumerate(sites) if site.deep]
        rows[deep, g.ROW_FRAME] = rows[deep, 1] + np.uint64(8 * ABOVE)
        return rows

    def _segments(self, sites: Sequence[CallExpectation]) -> list[Segment]:
        """The program's pages: code that the sites may come to, with traps, and all data."""
        entries = {site.entry for site in sites} | {site.target for site in sites}
        ends = {site.resume for site in sites}
        called = self.functions - entries
        pages = {page: content for page, content in self._data() if content is not None}
        memory = Memory(tuple(Block(page, np.frombuffer(content, dtype=np.uint8)) for page, (content, _) in
                              sorted(pages.items())))  # fmt: skip
        va, word = code_words(memory, entries, ends | called)
        code = {page: bytearray(PAGE) for page in distinct(va & np.uint64(BIT64 ^ PAGE - 1)).tolist()}
        for place, value in zip(va.tolist(), word.tolist(), strict=True):
            at = place & PAGE - 1
            code[place - at][at : at + 4] = value.to_bytes(4, "little")
        for place in ends | called:
            page, at = place & ~(PAGE - 1), place & PAGE - 1
            if page in code or self._is_near(place):
                code.setdefault(page, bytearray(PAGE))[at : at + 4] = TRAP.to_bytes(4, "little")
        segments = [Segment(page + self.up, bytes(content), READ | EXECUTE) for page, content in code.items()]
        data = [Segment(page + self.up, content, READ | WRITE * writable) for page, (content, writable) in
                pages.items() if page not in code]  # fmt: skip
        return _joined(segments + data)

    def _is_near(self, va: int) -> bool:
        """Whether a function is an import."""
        return self.memory.outside[0] <= va < self.memory.outside[1]

    def _data(self) -> list[tuple[int, tuple[bytes, bool] | None]]:
        """Every page of the program, with its pointers moved along."""
        pointers = relative_pointers(self.image, self.image.arch)
        moved = dict(zip(pointers.filled.tolist(), pointers.value.tolist(), strict=True)) | dict(self.memory.filled)
        of_page: dict[int, list[tuple[int, int]]] = {}
        for va, value in moved.items() if self.up else ():
            of_page.setdefault(va & ~(PAGE - 1), []).append((va, value))
        pages = []
        for first in sorted({page for start, end in self.spans for page in range(start & ~(PAGE - 1), end, PAGE)}):
            page = self.memory.page(first)
            if page is not None and first in of_page:
                content = bytearray(page[0])
                for va, value in of_page[first]:
                    content[va - first : va - first + 8] = (value + self.up & BIT64).to_bytes(8, "little")
                page = bytes(content[:PAGE]), page[1]
            pages.append((first, page))
        return pages

    def _judge(self, site: CallExpectation, start: U64, records: U64, stopped: str) -> str:
        """Why the site does not hold; empty where it does."""
        if not len(records):
            return line(site, "never arrives behind the site", stopped or "an end of the process", site.resume)
        n_called, last = 0, records[-1]
        for record in records[:-1]:
            if int(record[g.NIP]) - self.up == site.function:
                n_called += 1
                if why := self._at_function(site, start, record):
                    return why
        at, signal = int(last[g.NIP]) - self.up, int(last[g.SIGNAL])
        if signal != SIGTRAP or at != site.resume:
            what = f"{SIGNALS.get(signal, f'signal {signal}')} at {at:#x}"
            return line(site, "never arrives behind the site", what, site.resume)
        if site.function is not None and n_called != 1:
            return line(site, "calls of the function", str(n_called), "one")
        return self._behind(site, start, last)

    def _at_function(self, site: CallExpectation, start: U64, record: U64) -> str:
        """Why the C function must not be entered so; empty where it may."""
        caller = int(start[g.ROW_FRAME + ABOVE + 2] if site.deep else start[g.LR])
        for register, expected, what in (
            (R3, site.call + self.up & BIT64, "the first argument"), (R4, caller, "the second argument"),
            (R12, (site.function or 0) + self.up, "r12"),
        ):  # fmt: skip
            if int(record[register]) != expected:
                return line(site, f"{what} of the function", int(record[register]), expected)
        r1 = int(record[1])
        return line(site, "r1 of the function", r1, "a frame of its own") if r1 % 16 or r1 > int(start[1]) - 32 else ""

    def _behind(self, site: CallExpectation, start: U64, last: U64) -> str:
        """Why the function must not go on so; empty where it may."""
        kept = KEPT_BY_C if site.deep else KEPT
        index = np.array([at for at, _ in kept])
        for number in np.flatnonzero(start[index] != last[index])[:1].tolist():
            at, name = kept[number]
            return line(site, f"{name} behind the site", int(last[at]), int(start[at]))
        if (int(start[g.CR]) ^ int(last[g.CR])) & CR_KEPT:
            return line(site, "cr2–cr4 behind the site", int(last[g.CR]) & CR_KEPT, int(start[g.CR]) & CR_KEPT)
        if last[g.LR] != start[g.LR] and not site.deep:
            return line(site, "LR behind the site", int(last[g.LR]), int(start[g.LR]))
        others = (*FOR_CALLEES, *[TOC_SAVE] * site.deep)
        for at in (at for at in range(16) if at not in others):
            if last[g.FRAME + at] != start[g.ROW_FRAME + at]:
                return line(site, f"{8 * at}(r1), the caller's, behind the site", int(last[g.FRAME + at]),
                            int(start[g.ROW_FRAME + at]))  # fmt: skip
        return ""


def _joined(segments: list[Segment]) -> list[Segment]:
    """Segments of pages, where those that lie side by side with equal rights are one."""
    joined: list[tuple[int, list[bytes], int]] = []
    for segment in sorted(segments, key=lambda segment: segment.va):
        if joined and joined[-1][2] == segment.flags and joined[-1][0] + sum(map(len, joined[-1][1])) == segment.va:
            joined[-1][1].append(segment.data)
        else:
            joined.append((segment.va, [segment.data], segment.flags))
    return [Segment(va, b"".join(parts), flags) for va, parts, flags in joined]
