"""Whether the ranks of a kernel's kallsyms sort its names: each name behind the one before, equal ones by address.

kallsyms_seqs_of_names was made from the names, so it tells where one of them is damaged, or is another kernel's. What
was compared is the name as strcmp() has it, without what clang's LTO appends: in kernels that were built with that
(CONFIG_LTO_CLANG), all from the first dot on (Linux 6.2 to 6.5), or from the first ".llvm." on (6.6 and later; commit
33f0467fe069 "kallsyms: Fix kallsyms_selftest failure"). Source: scripts/kallsyms.c compare_names().
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, U8, U64, Mask
from ftpatch.errors import ElfError

AT_ONCE = 8  # characters that are compared in one go
KEPT = np.array([~0 << 8 * n & 0xFFFF_FFFF_FFFF_FFFF for n in range(AT_ONCE + 1)], np.uint64)  # but the last n
LTO = (b".llvm.", b".")  # what a name may be cut at


def require_sorted(ranks: I64, starts: I64, strings: U8) -> None:
    """ElfError where the ranks do not sort the names. starts: where each is in `strings`, with a NUL behind it."""
    ends = np.flatnonzero(strings == 0)
    ends = ends[np.searchsorted(ends, starts)]
    unsorted = _first_unsorted(ranks, starts, ends, strings)
    if unsorted < 0 or any(_first_unsorted(ranks, starts, _cut(strings, starts, ends, at), strings) < 0 for at in LTO):
        return
    names = [bytes(strings[starts[row] : ends[row]]).decode(errors="replace") for row in ranks[unsorted : unsorted + 2]]
    raise ElfError("kallsyms_seqs_of_names does not have the names in their order", f"rank {unsorted}",
                   found=f"{names[0]} before {names[1]}", todo="the file is damaged")  # fmt: skip


def _cut(strings: U8, starts: I64, ends: I64, at: bytes) -> I64:
    """Where each name ends without what is from some characters on."""
    places = np.flatnonzero(strings[: len(strings) - len(at)] == at[0])
    for off, octet in enumerate(at):
        places = places[strings[places + off] == octet]
    row = np.searchsorted(places, starts)
    first = np.append(places, len(strings))[row]
    return np.asarray(np.minimum(first, ends))


def _first_unsorted(ranks: I64, starts: I64, ends: I64, strings: U8) -> int:
    """The first rank whose name is not before the next one's; −1 where all are."""
    starts, ends = starts[ranks], ends[ranks]
    pairs = np.arange(len(ranks) - 1)  # those that are equal so far
    later = np.zeros(0, np.int64)
    off = 0
    while len(pairs):
        left, right = (_piece(strings, starts[rows] + off, ends[rows]) for rows in (pairs, pairs + 1))
        later = np.concatenate((later, pairs[left > right]))
        equal = left == right
        over = equal & (starts[pairs] + off + AT_ONCE > ends[pairs])
        later = np.concatenate((later, pairs[over & _descends(ranks, pairs)]))
        pairs = pairs[equal & ~over]
        off += AT_ONCE
    return int(later.min()) if len(later) else -1


def _descends(ranks: I64, pairs: I64) -> Mask:
    """Per pair of equal names: the first is at the higher address, as rows are by address."""
    return np.asarray(ranks[pairs] > ranks[pairs + 1])


def _piece(strings: U8, starts: I64, ends: I64) -> U64:
    """Some characters of each name as a number that sorts like them; 0 for those behind the end."""
    padded = np.append(strings, np.zeros(AT_ONCE, np.uint8))
    windows = np.ndarray(len(strings) + 1, "<u8", padded.data, strides=(1,))
    number = windows[np.minimum(starts, len(strings))].byteswap()
    behind = np.clip(starts + AT_ONCE - ends, 0, AT_ONCE)
    return np.asarray(number & KEPT[behind])
