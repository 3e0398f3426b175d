"""Padding in the text of a linked file that nothing uses, so that a stub may stand there.

A run of zero words or of NOPs is free if all of this is so:

    no symbol claims it         by its size; one without a size claims all up to the next, but for `$x`, `$d` and those
                                that end a part of the text; nor does a record, or what stands in front of a function
    it is ordinary text         in an executable section and segment, in no part that is executed otherwise: entry,
                                idmap, hyp and kprobes text, code of alternatives; only init text may use init text
    nothing gets there          in front of it, or of other padding there, is a jump or a return; from there on no
                                instruction names it, as the end of a branch or as an address, and no pointer or
                                distance in data
    nothing is written there    no relocation touches it

A stub leaves a NOP in front of itself where it took NOPs, and none where it took zeros: that tells `disable`, which
clears a stub that nobody uses any more, what was there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, pairwise

import numpy as np

from ftpatch.arch.parts import Veneer
from ftpatch.arrays import I64, U32, Mask
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.kernel.special_text import (
    bounds_something,
    mapped_executable,
    replacements,
    special_ranges,
    special_sections,
)
from ftpatch.sites.scan import Scan

AT_ONCE = 64  # runs that one pass over the text looks for
PIECE = 1 << 22  # words of code, or pointers, that are looked at together
MARKS = ("$x", "$d")  # mapping symbols: where code and data begin, whoever they belong to
POINTER, DISTANCE = 8, 4  # bytes
ZERO, NOP, CODE = range(3)  # kinds of words


@dataclass(frozen=True)
class Run:
    """Words of padding, all zero or all NOPs; addresses are signed."""

    start: int
    end: int
    nops: bool
    stretch: tuple[int, int]  # from the end of the code in front to that behind, nothing but padding of either kind

    def places(self, size: int, avoids: tuple[int, ...]) -> Iterator[int]:
        """va of each place for a stub, side by side."""
        gap = 4 if self.nops else 0
        va = self.start + gap
        while va + size <= self.end:
            if va & 0xFFF in avoids:
                va += 4
                continue
            yield va & t.LAST_VA
            va += size + gap


@dataclass
class Padding:
    """The free padding of one file."""

    scan: Scan
    veneer: Veneer
    size: int  # bytes of a stub
    avoids: tuple[int, ...]  # offsets in a 4 KiB page where none may begin
    _known: dict[Run, bool] = field(default_factory=dict)  # whether nothing gets there
    _unused: dict[bool, tuple[I64, I64]] = field(default_factory=dict)  # for init text or not → what nothing claims
    _ranges: dict[bool, list[tuple[int, int]]] = field(default_factory=dict)  # for init text or not → special ones

    @property
    def image(self) -> Image:
        return self.scan.image

    def near(self, site: int, init: bool) -> Iterator[int]:
        """va of free places, those nearest to `site` first. init: for a site of init text, which may use init text."""
        start, end = self._gaps(init)
        middle = np.array([site], dtype=np.uint64).view(np.int64)[0]
        order = np.argsort(np.maximum(start - middle, middle - end), kind="stable")
        runs = self._runs(start[order], end[order], init)
        while batch := list(islice(runs, AT_ONCE)):
            self._look(batch)
            for run in batch:
                if self._known[run]:
                    yield from (va for va in run.places(self.size, self.avoids) if not self._is_written(va))

    def is_free(self, va: int, init: bool) -> bool:
        """Whether a stub at an address would lie in a free run of zeros."""
        start, end = self._gaps(init)
        first = int(np.array([va], dtype=np.uint64).view(np.int64)[0])
        for gap in np.flatnonzero((start <= first) & (first + self.size <= end)).tolist():
            for run in self._runs_of(int(start[gap]), int(end[gap]), init):
                if not run.nops and run.start <= first and first + self.size <= run.end:
                    self._look([run])
                    return self._known[run] and not self._is_written(va)
        return False

    # -- what symbols, records and sections say ------------------------------------------------------------------------

    def _gaps(self, init: bool) -> tuple[I64, I64]:
        """(start, end) of what nothing claims, for init text or not."""
        if init not in self._unused:
            self._unused[init] = self._unclaimed(special_sections(self.image, init))
        return self._unused[init]

    def _unclaimed(self, special: Mask) -> tuple[I64, I64]:
        """(start, end) of what lies between claims in ordinary sections of code, words at least as long as a stub."""
        image = self.image
        code = np.flatnonzero(image.executable & ~special)
        base = image.base[code].view(np.int64)
        stop = self._padded(base + image.shdr["sh_size"][code].astype(np.int64))
        claim, claimed_to, row = self._claims()
        # sections begin and end as symbols do
        value = np.concatenate([claim, base, stop])
        order = np.lexsort((np.concatenate([claimed_to, base, stop]), value))
        value = value[order]
        until = np.maximum.accumulate(np.concatenate([claimed_to, base, stop])[order]) if len(value) else value
        who = np.concatenate([row, np.full(2 * len(code), -1, dtype=np.int64)])[order]
        start, end = (until[:-1] + 3) & ~np.int64(3), value[1:] & ~np.int64(3)
        wide = np.flatnonzero(end - start >= self.size)
        inside = np.searchsorted(np.sort(base), start[wide], side="right") > np.searchsorted(
            np.sort(stop), start[wide], side="right"
        )
        wide = wide[inside]
        known = np.array([self._ends(who, at) for at in wide.tolist()], dtype=bool)
        return start[wide[known]], end[wide[known]]

    def _padded(self, stop: I64) -> I64:
        """The ends of sections of code; of the last one the end of the text, if nothing else lies in between."""
        image, last = self.image, stop.max(initial=np.iinfo(np.int64).min)
        etext, starts = image.symbols.value("_etext"), image.shdr["sh_addr"].view(np.int64)
        starts = starts[(image.shdr["sh_flags"] & t.SHF_ALLOC != 0) & (image.shdr["sh_size"] > 0) & (starts >= last)]
        limit = np.array([etext or 0], dtype=np.uint64).view(np.int64)[0]
        if etext is None or limit <= last or (len(starts) and starts.min() < limit):
            return stop
        return np.where(stop == last, limit, stop)

    def _claims(self) -> tuple[I64, I64, I64]:
        """(start, end, symbol's row or −1) of what symbols and records claim; the end is the start without a size."""
        symbols, sites = self.image.symbols, self.scan.sites
        row = np.flatnonzero((symbols.shndx > 0) & (symbols.type != t.STT_SECTION) & (symbols.type != t.STT_FILE))
        marks = np.logical_or(*(symbols.begin_with(row, mark) for mark in MARKS))
        row = row[~((symbols.rows["st_size"][row] == 0) & marks)]
        value = symbols.rows["st_value"][row].view(np.int64)
        placed = np.flatnonzero(sites.sec >= 0)
        record = sites.va[placed].view(np.int64)
        behind = sites.body_va[placed].view(np.int64) + (sites.shape.size if sites.shape else POINTER)
        return (np.concatenate([value, record]),
                np.concatenate([value + symbols.rows["st_size"][row].astype(np.int64), np.maximum(behind, record)]),
                np.concatenate([row, np.full(len(record), -1, dtype=np.int64)]))  # fmt: skip

    def _ends(self, who: I64, at: int) -> bool:
        """Whether it is known where that ends which the last claim in front of a gap is about."""
        row = int(who[at])
        return row < 0 or self.image.symbols.rows["st_size"][row] > 0 or bounds_something(self.image, row)

    @cached_property
    def _in_front(self) -> int:
        """Bytes in front of a function that may be part of its site."""
        sites = self.scan.sites
        ahead = (sites.entry_va - sites.va).view(np.int64)[sites.sec >= 0]
        return max(0, *(shape.entry for shape in self.scan.arch.shapes), int(ahead.max(initial=0)))

    # -- what the words say --------------------------------------------------------------------------------------------

    def _runs(self, start: I64, end: I64, init: bool) -> Iterator[Run]:
        """The runs at the end of each gap that are long enough, and ordinary text."""
        for first, last in zip(start.tolist(), end.tolist(), strict=True):
            yield from self._runs_of(first, last, init)

    def _runs_of(self, start: int, end: int, init: bool) -> Iterator[Run]:
        words, first_va = self._words(start - 4, end), start - 4
        kind = np.where(words == 0, ZERO, np.where(words == np.uint32(self.scan.arch.nop), NOP, CODE))
        before, after = int(np.flatnonzero(kind == CODE).max(initial=-1)), len(words)
        if before < 0 or after - before <= self.size // 4 or not self._stops(words[before : before + 1]):
            return  # what nobody claims and what is no padding may go on behind padding, but not in front of a claim
        stretch = (first_va + 4 * (before + 1), first_va + 4 * after)
        changes = (np.flatnonzero(np.diff(kind[before + 1 : after])) + before + 2).tolist()
        for first, behind in pairwise([before + 1, *changes, after]):
            nops = bool(kind[first] == NOP)
            low = first_va + 4 * (first + (not nops and int(kind[first - 1]) == NOP))
            high = first_va + 4 * behind
            run = Run(low, min(high, end - self._in_front) if nops else high, nops, stretch)
            if run.end - run.start >= self.size + 4 * nops and self._is_ordinary(run, init):
                yield run

    def _stops(self, code: U32) -> bool:
        """Whether execution does not go on behind an instruction; not known of none."""
        return bool(len(code)) and any(bool(word.matches(code)[0]) for word in self.veneer.ends)

    def _words(self, start: int, end: int) -> U32:
        """The words from one address to another one, as the file has them; none where it does not have them all."""
        pos, last = self.image.pos_of_va(start & t.LAST_VA), self.image.pos_of_va(end - 1 & t.LAST_VA)
        if pos < 0 or pos % 4 or last - pos != end - 1 - start:
            return np.zeros(0, dtype=np.uint32)
        return self.image.data[pos : last + 1].view("<u4").astype(np.uint32)

    def _is_ordinary(self, run: Run, init: bool) -> bool:
        low, high = run.start & t.LAST_VA, run.end & t.LAST_VA
        ranges, (new, behind) = self._special_ranges(init), self._replacements
        if any(start < high and low < end for start, end in ranges):
            return False
        hit = ((new < run.end) & (run.start < behind)).any()
        return not hit and mapped_executable(self.image, low, high - low)

    def _is_written(self, va: int) -> bool:
        """Whether a relocation writes where a stub at an address would lie."""
        return bool(self.image.relocated(np.array([va], dtype=np.uint64), self.size)[0])

    def _special_ranges(self, init: bool) -> list[tuple[int, int]]:
        if init not in self._ranges:
            self._ranges[init] = special_ranges(self.image, init)
        return self._ranges[init]

    @cached_property
    def _replacements(self) -> tuple[I64, I64]:
        return replacements(self.image)

    # -- who gets there ------------------------------------------------------------------------------------------------

    def _look(self, batch: list[Run]) -> None:
        """Learn of some runs whether code or data of the file names a place in them."""
        runs = [run for run in batch if run not in self._known]
        if not runs:
            return
        stretches = sorted({run.stretch for run in runs})
        start, end = np.array(stretches, dtype=np.int64).T
        taken: set[int] = set()
        for sec in np.flatnonzero(self.image.executable).tolist():
            va, size = int(self.image.base[sec : sec + 1].view(np.int64)[0]), int(self.image.shdr["sh_size"][sec])
            for off in range(0, size, 4 * PIECE):
                words = self.image.code(va + off & t.LAST_VA, PIECE)
                taken.update(self.veneer.named(words, va + off, start, end).tolist())
        taken.update(_pointed_to(self.image, start, end).tolist())
        named = {stretches[number] for number in taken}
        self._known |= {run: run.stretch not in named for run in runs}


def _pointed_to(image: Image, start: I64, end: I64) -> I64:
    """Which of some stretches data leads to: pointers, addends of relocations, and distances from their own places, as
    tables of exceptions and alternatives have them."""
    pieces, kinds = [image.rela[0]["r_addend"]], image.shdr["sh_type"]
    data = image.has_bytes & ~image.executable & (image.shdr["sh_flags"] & t.SHF_ALLOC != 0)
    hits = [np.zeros(0, dtype=np.int64)]
    for sec in np.flatnonzero(data & ~np.isin(kinds, (t.SHT_RELA, t.SHT_RELR))).tolist():
        content, va = image.content(sec), int(image.base[sec : sec + 1].view(np.int64)[0])
        for width, skip in ((POINTER, -va % POINTER), (DISTANCE, -va % DISTANCE)):
            for off in range(skip, len(content), POINTER * PIECE):
                piece = content[off : off + POINTER * PIECE]
                values = piece[: len(piece) // width * width].view(f"<i{width}").astype(np.int64)
                pieces.append(values if width == POINTER else values + (va + off + width * np.arange(len(values))))
        for values in pieces:
            values = values[(values >= start[0]) & (values < end[-1])]  # nearly all are elsewhere
            place = np.searchsorted(start, values, side="right") - 1
            hits.append(place[values < end[place]])
        pieces = []
    return np.unique(np.concatenate(hits))
