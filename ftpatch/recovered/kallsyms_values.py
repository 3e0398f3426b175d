"""The addresses of a kernel's kallsyms in the file: in which of four forms they are, and where.

    kind      table                where              Linux
    ABSOLUTE  kallsyms_addresses   before num_syms    up to 4.5: u64 addresses
    BASE      kallsyms_offsets     before num_syms    4.6 to 6.3: u32, from kallsyms_relative_base, a u64 behind them
              kallsyms_offsets     behind the tokens  6.4 to 6.19
    PERCPU    as BASE              as BASE            4.6 to 6.14, x86_64 with SMP: s32; a negative one is the distance
                                                      from relative_base, inverted (−1 − distance), any other one is
                                                      an address of its own: in the per-CPU area, which starts at 0
    OWN       kallsyms_offsets     behind the tokens  7.0 and later: s32, each from its own place in memory (commit
                                                      a081b5789255 "kallsyms: Get rid of kallsyms relative base")

Tables are aligned at 8 bytes, since 7.0 at 4. Behind the last of them, or between markers and token table, lie since
6.2 the ranks (kallsyms_seqs_of_names): the rows of the symbols in the order of their names, three bytes each, the
highest first. scripts/kallsyms.c sorts by address, so a form is right where its addresses ascend all the way, and the
ranks are where they must be and name each row once. The base is the lowest address; without symbols of data (no
CONFIG_KALLSYMS_ALL) kernels of about 4.6 to 5.4 have that of a symbol that is left out, so the first offset may be
any. Which releases have which form is told above for readers; here only the bytes decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import I64, U64
from ftpatch.container.file_bytes import FileBytes
from ftpatch.recovered.kallsyms_names import RANKS, Names
from ftpatch.recovered.kallsyms_tokens import APART, Tokens

ABSOLUTE, BASE, PERCPU, OWN = "absolute", "base", "percpu", "own"
NONE = -1  # the position of what a kernel does not have
HIGH = 1 << 63  # kernel addresses are from here on
LOW = 1 << 31  # offsets from a base, and addresses in the per-CPU area that starts at 0, are below


@dataclass(frozen=True)
class Values:
    """Where the addresses are, and how to read them."""

    kind: str  # ABSOLUTE, BASE, PERCPU or OWN
    pos: int  # of kallsyms_addresses or kallsyms_offsets
    base_pos: int  # of kallsyms_relative_base, or NONE
    ranks_pos: int  # of kallsyms_seqs_of_names, or NONE
    ranks_size: int  # bytes of each rank


def find_values(data: FileBytes, tokens: Tokens, names: Names) -> list[Values]:
    """Every way to read addresses for these names; mostly one. A count of four bytes, aligned as all tables are, lies
    just before the names."""
    for align in dict.fromkeys((names.pos - names.count_pos, 4)):
        found = _aligned(data, tokens, names, align)
        if found:
            return found
    return []


def _aligned(data: FileBytes, tokens: Tokens, names: Names, align: int) -> list[Values]:
    """As `find_values`, of tables at an alignment. The usual orders come first: there is no other in Linux, but nothing
    else tells tables that somebody moved from these."""
    if tokens.pos - names.markers_end > APART:
        between = _ranks_from(data, names, names.markers_end, align)
        usual = [Values(*place, *ranks) for place in _before(data, names, align) for ranks in between]
        moved = [Values(*place, *ranks) for place, _ in _behind(data, tokens, names, align) for ranks in between]
    else:
        last = _ranks_from(data, names, tokens.end, align) or [(NONE, RANKS[0])]
        usual = [Values(*place, *ranks) for place, end in _behind(data, tokens, names, align)
                 for ranks in _ranks_from(data, names, end, align)]  # fmt: skip
        moved = [Values(*place, *last[0]) for place in _before(data, names, align)]
    return usual or moved


def _behind(data: FileBytes, tokens: Tokens, names: Names, align: int) -> Iterator[tuple[tuple[str, int, int], int]]:
    """Addresses behind the token index: their kind, where they and the base are, and where both end."""
    pos = _up(tokens.end, align)
    for kind in (BASE, PERCPU, OWN, ABSOLUTE):
        end = pos + names.n * (8 if kind == ABSOLUTE else 4)
        base_pos = _up(end, align) if kind in (BASE, PERCPU) else NONE
        if is_kind(data, kind, pos, names.n):
            yield (kind, pos, base_pos), end if base_pos == NONE else base_pos + 8


def _before(data: FileBytes, names: Names, align: int) -> Iterator[tuple[str, int, int]]:
    """Addresses before kallsyms_num_syms: their kind, and where they and the base are."""
    for kind in (BASE, PERCPU, OWN, ABSOLUTE):
        end, base_pos = names.count_pos, NONE
        if kind in (BASE, PERCPU):
            end = base_pos = (end - 8) & -align
        pos = (end - names.n * (8 if kind == ABSOLUTE else 4)) & -align
        if is_kind(data, kind, pos, names.n):
            yield kind, pos, base_pos


def _ranks_from(data: FileBytes, names: Names, end: int, align: int) -> list[tuple[int, int]]:
    """Where ranks are behind the end of another table, and the bytes of each; at most one place."""
    pos = _up(end, align)
    return [(pos, size) for size in RANKS if are_ranks(data, pos, names.n, size)][:1]


def _up(pos: int, align: int) -> int:
    return (pos + align - 1) & -align


def is_kind(data: FileBytes, kind: str, pos: int, n: int) -> bool:
    """Whether what is at a position can be n addresses of a kind: they ascend."""
    width = 8 if kind == ABSOLUTE else 4
    if pos < 0 or pos + width * n + 8 * (kind in (BASE, PERCPU)) > len(data):
        return False
    words = data[pos : pos + width * n]
    if kind == ABSOLUTE:
        return _are_absolute(words.view("<u8"))
    offsets = words.view("<i4")
    if kind == BASE:
        unsigned = words.view("<u4")
        several = n < 3 or unsigned[-1] > 0  # zeros alone are addresses that relocations will write
        return bool(several and unsigned[-1] < LOW and (unsigned[1:] >= unsigned[:-1]).all())
    if kind == OWN:  # the first symbol of a kernel lies before its read-only data
        return bool(offsets[0] < -4 and (np.diff(own(offsets)) >= 0).all())
    n_fixed = int(np.argmax(offsets < 0))
    fixed, distances = offsets[:n_fixed], offsets[n_fixed:]
    return bool(distances[0] < 0 and (distances[1:] <= distances[:-1]).all() and (fixed[1:] >= fixed[:-1]).all())


def own(offsets: np.ndarray[tuple[int], np.dtype[np.int32]]) -> I64:
    """Offsets from each one's own place as distances from the table."""
    return offsets.astype(np.int64) + 4 * np.arange(len(offsets))


def _are_absolute(words: U64) -> bool:
    """Kernel addresses that ascend, after those in a per-CPU area that starts at 0; where the file has relocations with
    addends, some words or all of them may be 0."""
    high = words >= HIGH
    rest = words[~high]
    kept = words[words != 0]
    near = not high.any() or int(words[high].max()) - int(words[high].min()) < 2 * LOW
    ascending = near and bool((kept[1:] >= kept[:-1]).all())
    return ascending and bool((rest < LOW).all()) and (bool(high.any()) or not len(kept))


def are_ranks(data: FileBytes, pos: int, n: int, size: int) -> bool:
    """Whether n ranks are at a position: each row of n once."""
    if pos < 0 or pos + size * n > len(data):
        return False
    head = _ranks(data, pos, min(n, 16), size)
    if (head >= n).any():
        return False
    ranks = _ranks(data, pos, n, size)
    return bool((ranks < n).all() and (np.bincount(ranks, minlength=n) == 1).all())


def _ranks(data: FileBytes, pos: int, n: int, size: int) -> I64:
    octets = data[pos : pos + size * n].reshape(n, size).astype(np.int64)
    if size == 4:  # a word
        octets = octets[:, ::-1]
    ranks = np.zeros(n, np.int64)
    for column in range(size):
        ranks = (ranks << 8) | octets[:, column]
    return ranks


def ranks_of(data: FileBytes, values: Values, n: int) -> I64 | None:
    """The rows in the order of their names; None where the kernel has none."""
    return None if values.ranks_pos == NONE else _ranks(data, values.ranks_pos, n, values.ranks_size)
