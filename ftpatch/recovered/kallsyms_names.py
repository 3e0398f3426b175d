"""The names of a kernel's kallsyms in the file: how many there are, where each one is, and what proves it.

    kallsyms_num_syms   u32, or u64 up to Linux 4.19: how many symbols there are
    kallsyms_names      for each symbol a length in tokens, then that many tokens; the first character of the text that
                        they stand for is nm's letter of the symbol's type
    kallsyms_markers    u32, or u64 up to Linux 4.19: where in kallsyms_names each 256th symbol is

All Linux releases have these three in this order, before the token table; what lies between markers and token table
(nothing, or kallsyms_seqs_of_names: Linux 6.2 and 6.3, and Debian's 6.1), and before num_syms, differs. A length is
one byte. Since Linux 6.1 one with bit 7 means two bytes, the low seven bits first (commit 73bbb94466fd "kallsyms:
support "big" kernel symbols"); before, such a byte was a length of its own.

The markers are found as what they are: numbers that ascend from 0, in steps that 256 names can have. The names end
where the markers begin, and start where num_syms says as many as there are markers for. The proof is to walk them: all
blocks of 256 names at once, each from its marker, must come to the next marker exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import I64, U8, Mask
from ftpatch.container.file_bytes import FileBytes
from ftpatch.errors import ElfError
from ftpatch.recovered.kallsyms_tokens import APART, Tokens

BLOCK = 256  # names from one marker to the next
LARGEST = 516  # bytes of one name in the file: KSYM_NAME_LEN characters of one token each, and its length
REACHES = (1 << 16, 1 << 22)  # bytes before the token table in which markers are looked for: ranks of a million names
RANKS = (3, 4)  # bytes of each entry of kallsyms_seqs_of_names; four only in the release candidates of Linux 6.2
MOST_MARKERS = 1 << 10  # arrays that may be markers, up to which each is tried
MOST_STARTS = 1 << 14  # places where names may start, up to which each is tried
COUNT_BEFORE = (4, 8, 16, 32, 64)  # bytes from num_syms to the names, by how tables are aligned


@dataclass(frozen=True, eq=False)
class Names:
    """Where the names are."""

    n: int  # symbols
    count_pos: int  # of kallsyms_num_syms
    pos: int  # of kallsyms_names
    markers_pos: int
    markers_end: int
    starts: I64  # per symbol: where its length byte is, from pos on
    sizes: I64  # per symbol: bytes in the file, with its length
    two_bytes: bool  # a length with bit 7 has a second byte

    @property
    def end(self) -> int:
        """The position behind the last name."""
        return self.pos + int(self.starts[-1] + self.sizes[-1])


@dataclass(frozen=True, eq=False)
class _Markers:
    """An array in the file that may be markers."""

    pos: int
    width: int  # bytes of each
    values: I64  # as many as ascend


def find_names(data: FileBytes, tokens: Tokens) -> list[Names]:
    """All names that a token table could be for, each proven by its markers; mostly one. A kernel of up to 256 symbols
    has one marker, which is 0: words that align its tables may be markers as well."""
    for two_bytes in (True, False):
        for reach in REACHES:
            found = [
                names
                for markers in _markers_before(data, tokens.pos, reach)
                for names in _names_before(data, markers, tokens.pos, two_bytes)
            ]
            if found:
                return found
            if reach >= tokens.pos:
                break
    return []


def _markers_before(data: FileBytes, end: int, reach: int) -> Iterator[_Markers]:
    """What may be markers in the last bytes before the token table: numbers that ascend from 0 as 256 names each do,
    as many as there must be where it is nothing but ranks of names, or nothing at all, that lies between."""
    low = max(end - reach, 0) & ~7
    octets = data[low:end]
    for width in (4, 8):
        words = octets[: len(octets) // width * width].view(f"<u{width}")
        n_words = len(words)
        steps = words[1:] - words[:-1]  # unsigned: one that descends is very large
        broken = np.append(np.flatnonzero((steps < 2 * BLOCK) | (steps > LARGEST * BLOCK)), n_words - 1)
        rows = np.flatnonzero(words == 0)
        count = broken[np.searchsorted(broken, rows)] + 1 - rows
        behind = (n_words - rows) * width  # bytes up to the token table
        adjacent = behind - count * width <= APART
        ranked = count * (max(RANKS) * BLOCK + width) >= behind - 2 * APART
        likely = np.flatnonzero(adjacent | ranked)
        if len(likely) > MOST_MARKERS:
            raise ElfError("more places look like kallsyms_markers than in any kernel", found=str(len(likely)),
                           expected=f"at most {MOST_MARKERS}")  # fmt: skip
        for row, n in zip(rows[likely].tolist(), count[likely].tolist(), strict=True):
            yield _Markers(low + width * row, width, words[row : row + n].astype(np.int64))


def _names_before(data: FileBytes, markers: _Markers, tokens_pos: int, two_bytes: bool) -> Iterator[Names]:
    """The names that end where markers begin. The last of these may be no markers: they only ascend by chance."""
    for k in range(len(markers.values), max(len(markers.values) - 3, 0), -1):
        values, end = markers.values[:k], markers.pos + k * markers.width
        low = max(markers.pos - APART - int(values[-1]) - LARGEST * BLOCK - max(COUNT_BEFORE), 0) & ~3
        words = data[low : markers.pos & ~3].view("<u4")
        rows = np.flatnonzero((words > (k - 1) * BLOCK) & (words <= k * BLOCK))
        rows = rows[_fills(tokens_pos - end, words[rows].astype(np.int64))]
        before = np.repeat(COUNT_BEFORE, len(rows))
        rows = np.tile(rows, len(COUNT_BEFORE))
        pos, n = low + 4 * rows + before, words[rows].astype(np.int64)
        behind = markers.pos - pos - int(values[-1])  # bytes of the last block, and what aligns the markers
        fits = np.flatnonzero((behind > 1) & (behind <= APART + LARGEST * BLOCK))
        fits = fits[_comes_through(data, pos[fits], n[fits], markers.pos, values, two_bytes)]
        for row in fits.tolist():
            names = _walked(data, markers, end, int(pos[row]), int(n[row]), int(before[row]), two_bytes)
            if names is not None:
                yield names


def _fills(gap: int, n: I64) -> Mask:
    """Per number of symbols: whether nothing, or the ranks of so many names, lies between markers and token table."""
    fills = np.full(len(n), gap <= APART)
    for size in RANKS:
        fills |= (gap >= size * n) & (gap <= size * n + 2 * APART)
    return fills


def _comes_through(data: FileBytes, pos: I64, n: I64, end: int, markers: I64, two_bytes: bool) -> Mask:
    """Per place where names may start: walking their first block, of n names where it is the only one, comes to the
    second marker, or just before the markers."""
    if len(pos) > MOST_STARTS:
        raise ElfError("more places look like kallsyms_num_syms than in any kernel", found=str(len(pos)),
                       expected=f"at most {MOST_STARTS}")  # fmt: skip
    if not len(pos):
        return np.zeros(0, bool)
    low = int(pos.min())
    blocks = walk(data[low:end], pos - low, np.minimum(n, BLOCK), two_bytes)[1] + low
    if len(markers) > 1:
        return np.asarray(blocks - pos == markers[1])
    return np.asarray((blocks <= end) & (end - blocks <= APART))


def _walked(
    data: FileBytes, markers: _Markers, end: int, pos: int, n: int, before: int, two_bytes: bool
) -> Names | None:
    """n names from a position on, where walking from each marker comes to the next one, and at last to the markers."""
    k = (n + BLOCK - 1) // BLOCK
    octets, values = data[pos : markers.pos], markers.values[:k]
    counts = np.full(k, BLOCK)
    counts[-1] = n - BLOCK * (k - 1)
    starts, ends = walk(octets, values, counts, two_bytes)
    starts = starts.ravel()[:n]
    sizes = np.diff(np.append(starts, ends[-1]))
    if not np.array_equal(ends[:-1], values[1:]) or not 0 <= len(octets) - int(ends[-1]) <= APART:
        return None
    rest = octets[int(ends[-1]) :]
    if int(sizes.min()) < 2 or (len(rest) and 0 < rest[0] < len(rest)):  # a name has its letter; another one follows
        return None
    return Names(n, pos - before, pos, markers.pos, end, starts, sizes, two_bytes)


def walk(octets: U8, blocks: I64, counts: I64, two_bytes: bool) -> tuple[I64, I64]:
    """(blocks, 256) where each name starts, and where each block ends: all blocks at once, one name of each at a time.

    blocks: where each starts. counts: names of each. A walk that leaves the octets comes to no right end.
    """
    starts, pos = np.empty((BLOCK, len(blocks)), np.int64), blocks
    shortest = int(counts.min())
    for row in range(int(counts.max())):
        starts[row] = pos
        sizes = octets.take(pos, mode="clip").astype(np.int64)
        if two_bytes and (big := sizes > 0x7F).any():
            sizes[big] += (octets.take(pos[big] + 1, mode="clip").astype(np.int64) << 7) - 0x7F  # and its own byte
        pos = pos + (sizes + 1 if row < shortest else np.where(row < counts, sizes + 1, 0))
    return starts.T, pos
