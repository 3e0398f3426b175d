"""Where two files differ, byte by byte, and which of it nobody answers for.

The files are compared piece by piece, so that a kernel with its debug information costs no memory; what is kept of a
difference is its first and its last byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import I64, Mask
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.kind import PROGRAMS
from ftpatch.proof.case import Case
from ftpatch.proof.positions import section_at, section_of

PIECE = 1 << 20  # bytes that are compared at once
MAX_RUNS = 1 << 24  # a file that differs in more places is another file
SHOWN = 16  # bytes of a difference that are shown
NEAR = 8  # bytes of equality within which two differences are told as one
RULES = {t.SHT_RELA: "verify-relocation", t.SHT_RELR: "verify-relocation", t.SHT_SYMTAB: "verify-symbol",
         t.SHT_STRTAB: "verify-symbol"}  # fmt: skip
# of programs, which have tables for their loader
PROGRAM_RULES = RULES | {t.SHT_DYNSYM: "verify-symbol", t.SHT_DYNAMIC: "verify-section"}


@dataclass(frozen=True)
class Runs:
    """Differences in ascending order: [start, end) in the part that both files have."""

    start: I64
    end: I64

    def touch(self, pos: I64, width: I64 | int) -> Mask:
        """Whether any of `width` bytes from each position differ."""
        after = np.searchsorted(self.end, pos, side="right")
        before = np.searchsorted(self.start, pos + width)
        return np.asarray(after < before)


NO_RUNS = Runs(np.zeros(0, np.int64), np.zeros(0, np.int64))


def differences(before: Image, after: Image) -> Runs:
    """The runs of different bytes; where there are too many of them, the last one goes to the end of the file."""
    size, starts, ends, n = min(len(before.data), len(after.data)), [], [], 0
    pieces = (image.data.pieces(0, size, PIECE) for image in (before, after))
    for at, (old, new) in enumerate(zip(*pieces, strict=True)):
        if np.array_equal(old, new):
            continue
        first = at * PIECE
        edges = np.flatnonzero(np.diff(np.concatenate(([False], old != new, [False])).astype(np.int8)))
        starts.append(first + edges[::2])
        ends.append(first + edges[1::2])
        n += len(edges) // 2
        if n > MAX_RUNS:
            ends[-1][-1] = size
            break
    none = np.zeros(0, np.int64)
    return Runs(np.concatenate([none, *starts]), np.concatenate([none, *ends]))


def count_kinds(case: Case, runs: Runs) -> None:
    """How many edits of each kind were recognised."""
    for kind, pos, width in case.accounted:
        case.kinds[kind] += int(runs.touch(pos, width).sum())
    for kind in [kind for kind, n in case.kinds.items() if not n]:
        del case.kinds[kind]


def uncovered(runs: Runs, ranges: Sequence[tuple[I64, I64 | int]]) -> list[tuple[int, int]]:
    """The differences, or parts of them, that lie in none of the ranges: (positions, bytes from each)."""
    low, high = _merged(ranges)
    at = np.searchsorted(low, runs.start, side="right")
    inside = runs.end <= np.concatenate(([-1], high))[at]
    return [part for start, end in zip(runs.start[~inside].tolist(), runs.end[~inside].tolist(), strict=True)
            for part in _outside(start, end, low, high)]  # fmt: skip


def report_unexplained(case: Case, runs: Runs) -> None:
    """A finding for each difference, or group of near ones, that no edit of a legal kind explains."""
    left: list[tuple[int, int]] = []
    for first, behind in uncovered(runs, [(pos, width) for _, pos, width in case.accounted]):
        if left and first - left[-1][1] <= NEAR:
            left[-1] = left[-1][0], behind
        else:
            left.append((first, behind))
    before, after = case.before.image, case.after.image
    for start, end in left:
        shown = slice(start, min(end, start + SHOWN))
        old, new = before.data[shown].tobytes().hex(), after.data[shown].tobytes().hex()
        more = f" and {end - start - SHOWN} more bytes" if end - start > SHOWN else ""
        case.say(_rule(case, start), f"{place(before, start)}: {old} became {new}{more}, which is no edit of any kind",
                 pos=start)  # fmt: skip


def place(image: Image, pos: int) -> str:
    """A file position for people: section and offset where there is one."""
    section, off = section_at(image, pos)
    return f"{section}+{off:#x} (file position {pos:#x})" if section is not None else f"file position {pos:#x}"


def _merged(ranges: Sequence[tuple[I64, I64 | int]]) -> tuple[I64, I64]:
    """The ranges as disjoint [start, end), ascending; those that touch are one."""
    none = np.zeros(0, np.int64)
    start = np.concatenate([none, *(pos for pos, _ in ranges)])
    end = np.concatenate([none, *(pos + width for pos, width in ranges)])
    if not len(start):
        return none, none
    order = np.argsort(start, kind="stable")
    start, end = start[order], np.maximum.accumulate(end[order])
    gap = start[1:] > end[:-1]  # no range reaches from before it to behind it
    return start[np.append(True, gap)], end[np.append(gap, True)]


def _outside(start: int, end: int, low: I64, high: I64) -> list[tuple[int, int]]:
    """The parts of [start, end) that lie in no owned range."""
    parts, at = [], int(np.searchsorted(high, start, side="right"))
    while start < end:
        if at >= len(low) or low[at] >= end:
            parts.append((start, end))
            break
        if low[at] > start:
            parts.append((start, int(low[at])))
        start, at = max(start, int(high[at])), at + 1
    return parts


def _rule(case: Case, pos: int) -> str:
    """Which rule a stray byte breaks: by what it lies in."""
    image, records = case.before.image, case.before.records
    sec = section_of(image, pos)
    if sec is None:
        heads = int(image.ehdr["e_shoff"])
        return "verify-section" if pos < 64 or heads <= pos < heads + image.shdr.nbytes else "verify-byte"
    if len(records) and not records.in_sections and records.slot[0] <= pos < records.slot[-1] + 8:
        return "verify-record"
    rules = PROGRAM_RULES if image.kind in PROGRAMS else RULES
    return rules.get(int(image.shdr["sh_type"][sec]), "verify-byte")
