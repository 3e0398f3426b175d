"""The token table of a kernel's kallsyms, found by its structure alone.

A compressed name is a row of bytes, and each byte stands for a short text: its token. Two tables say which:

    kallsyms_token_table   256 texts, each with a NUL behind it: "", "0", "tion_", "get_" …
    kallsyms_token_index   256 × u16: where each of those texts starts in the first table

They have had this form in every Linux release since 2.6.10 (scripts/kallsyms.c write_src()), one behind the other, with
at most a few bytes of alignment between them. No text is expected: a kernel whose symbols have no digit has no token
"0", and a byte that stands for nothing has the empty text.

The index is looked for, since it is 512 bytes of ascending numbers that start with 0, which hardly anything else is.
A text has fewer than LONGEST characters, so neighbours differ by at most that. Whatever file it is, some look at eight
bytes out of each STRIDE finds three places in it; only those are read fully.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import I64, U8, U64, Mask
from ftpatch.container.file_bytes import FileBytes
from ftpatch.errors import ElfError

N_TOKENS = 256
INDEX_SIZE = 2 * N_TOKENS  # bytes
LONGEST = 1024  # characters of one token, or of one name, are fewer: KSYM_NAME_LEN is 512 at most (Linux 6.1 and later)
STRIDE = 128  # bytes from one look to the next: three of them fall into each index
APART = 64  # bytes that may lie between two neighbouring tables; alignment needs seven
MOST = 4096  # places that look like an index, up to which each is read: a kernel has one, and few others
MOST_TABLES = 16  # token tables, up to which names are looked for; a kernel has one
AT_ONCE = 1 << 20  # bytes that are looked through in one go


@dataclass(frozen=True, eq=False)
class Tokens:
    """A token table with its index."""

    pos: int  # of the table
    index_pos: int
    starts: I64  # of each token in the table
    sizes: I64  # characters of each token
    texts: U8  # the table

    @property
    def end(self) -> int:
        """The position behind the index."""
        return self.index_pos + INDEX_SIZE


def find_tokens(data: FileBytes) -> list[Tokens]:
    """Every token table of a file, by ascending position. ElfError where there are more than anybody would make."""
    positions: set[int] = set()
    for samples in _samples(data):
        positions.update(_index_at(data, sample) for sample in samples.tolist())
        if len(positions) > MOST:
            raise ElfError("more places look like kallsyms_token_index than in any kernel", found=f"{len(positions)}",
                           expected=f"at most {MOST}")  # fmt: skip
    tables = [_tokens_before(data, pos) for pos in sorted(positions - {-1})]
    found = [table for table in tables if table is not None]
    if len(found) > MOST_TABLES:
        raise ElfError("more places look like kallsyms_token_table than in any kernel", found=str(len(found)),
                       expected=f"at most {MOST_TABLES}")  # fmt: skip
    return found


def _samples(data: FileBytes) -> Iterator[I64]:
    """Positions at which three looks in a row, STRIDE apart, could be into one index."""
    kept = np.zeros(0, np.uint64)  # the last two looks of the piece before
    for n, piece in enumerate(data.pieces(size=AT_ONCE)):
        looks = np.concatenate((kept, piece[: len(piece) & ~7].view("<u8")[:: STRIDE // 8]))
        likely = _looks_like_index(looks)
        likely[1:] &= ~likely[:-1]  # an index starts before the first look of those that ascend together
        yield n * AT_ONCE + STRIDE * (np.flatnonzero(likely) - len(kept))
        kept = looks[-2:]


def _looks_like_index(looks: U64) -> Mask:
    """Per look of eight bytes: this one and the two behind it ascend as an index does."""
    parts = looks.view("<u2").reshape(-1, 4).astype(np.int32)
    steps = np.diff(parts, axis=1)
    ascending: Mask = np.asarray(((steps > 0) & (steps <= LONGEST)).all(axis=1))
    further = parts[1:, 0] - parts[:-1, 3] >= STRIDE // 2 - 3
    return np.asarray(ascending[:-2] & ascending[1:-1] & ascending[2:] & further[:-1] & further[1:])


def _index_at(data: FileBytes, sample: int) -> int:
    """Where the index starts that covers a position; −1 where none does."""
    low = max(sample - INDEX_SIZE, 0)
    window = data[low : sample + INDEX_SIZE]
    window = window[(sample - low) & 1 : len(window) & ~1]
    words = window[: len(window) & ~1].view("<u2").astype(np.int32)
    zeros = np.flatnonzero(words[: (sample - low) // 2 + 1] == 0)
    if not len(zeros):
        return -1
    index = words[zeros[-1] : zeros[-1] + N_TOKENS]  # it ascends, so only its first entry is 0
    steps = np.diff(index)
    if len(index) < N_TOKENS or not ((steps > 0) & (steps <= LONGEST)).all():
        return -1
    return low + 2 * int(zeros[-1])


def _tokens_before(data: FileBytes, index_pos: int) -> Tokens | None:
    """The token table that an index is of: its texts end exactly where the index says, and it lies just before."""
    starts = data[index_pos : index_pos + INDEX_SIZE].view("<u2").astype(np.int64)
    low = max(index_pos - int(starts[-1]) - LONGEST - APART, 0)
    before = data[low:index_pos]
    ends = np.flatnonzero(before == 0)
    sizes = np.diff(starts)
    for last in range(len(ends) - 1, N_TOKENS - 2, -1):  # the NUL behind the last text
        if len(before) - int(ends[last]) > APART:
            return None
        first = last - N_TOKENS + 1  # the NUL behind the first text
        if (np.diff(ends[first:last]) == sizes[1:]).all():
            start = int(ends[first]) - int(sizes[0]) + 1
            any_text = int(ends[last]) - start >= N_TOKENS
            if any_text and start >= 0 and not (first and ends[first - 1] >= start):
                return _tokens(data, low + start, index_pos, starts, int(ends[last]) - start)
    return None


def _tokens(data: FileBytes, pos: int, index_pos: int, starts: I64, behind: int) -> Tokens:
    """behind: where the last text's NUL is in the table."""
    sizes = np.diff(np.append(starts, behind + 1)) - 1
    return Tokens(pos, index_pos, starts, sizes, data[pos : pos + behind + 1])
