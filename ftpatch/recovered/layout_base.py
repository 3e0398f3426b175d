"""Where a flat image is linked to, and where its words were moved to: the address of its first byte, from its contents.

The tables of relocations name the places of pointers by their addresses; where the image begins follows from what lies
at these places. A kernel without such tables has its pointers as they are: most of those to strings come out at a
string's first character under one address alone. Both are counted for every page that may be the first; where not one
page stands out there is no answer.

A dump of a running kernel has its words moved by as much as the kernel was (KASLR), and names places as it was linked.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arrays import U64, Rows, distinct
from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf import tables as t
from ftpatch.recovered.memory import Memory
from ftpatch.recovered.relocations import SAMPLE, UPPER_HALF, Table, find_rela, packed_places, packed_tables

PAGE, WORD = 1 << 12, 8
BLOCK = 1 << 21  # bytes: the pointers of a kernel name some of side by side
MOST_BSS = 1 << 27  # bytes that a kernel takes behind what its file has; a header that says more is damaged
MAX_PAGES = 1 << 16  # that are tried
CLEAR = 2  # times as many as under the next best page
SHARE = 0.02  # of all pointers, at least, name strings
MOSTLY = 0.5  # of what a packed table moves, which then is one
MANY = 64  # words that name one block, or rows of a table, and less is not much
FEW, MISSES = 16, 4  # places that are looked up first, and how many of these may be damaged
STRINGS = 1 << 12  # pointers that are looked up
DEL = 0x7F
LOWEST = np.uint64(0xFF << 56)  # no kernel is at less


class Base(NamedTuple):
    """The address of an image's first byte."""

    link: int  # as the linker placed it
    runtime: int  # as its words have it: another one in a dump of a running kernel


def link_base(data: FileBytes, arch: Arch, size: int) -> Base | None:
    """The base of a flat image that takes `size` bytes in memory; None where its bytes do not settle it."""
    size = min(max(size, len(data)), len(data) + MOST_BSS)
    memory = Memory(data, np.zeros(1, np.uint64), np.zeros(1, np.int64), np.array([len(data)]))
    rela = find_rela(memory, arch)
    rows = np.zeros(0, t.RELA) if rela is None else data[rela.start : rela.end].view(t.RELA)
    rows = rows[rows["r_info"] == np.uint64(arch.relative)]
    bases = _of_rela(data, rows, size) if len(rows) >= MANY else _of_packed(data, packed_tables(memory, rela), size)
    return bases[0] if len(bases) == 1 else None


def _of_packed(data: FileBytes, tables: list[Table], size: int) -> list[Base]:
    """The bases that packed tables tell; by pointers where there is no such table. Where most of what a table moves
    are addresses, the others are damaged: pointers alone would not tell a dump from a kernel that is linked there."""
    for table in tables:
        places = packed_places(data, table)
        places = places[:: max(len(places) // SAMPLE, 1)]
        likely = [(base, _words(data, places, base)) for base in _likely(data, places, size)]
        bases = _of_relr(data, likely, size)
        if bases or any(_mostly_addresses(data, places, base, size) for base, _ in likely):
            return bases
    return _of_pointers(data, size)


def _of_rela(data: FileBytes, rows: Rows, size: int) -> list[Base]:
    """The bases under which each place of a table holds nothing yet, or what the table says, all moved alike."""
    rows = rows[:: max(len(rows) // SAMPLE, 1)]
    places, addends = rows["r_offset"].astype(np.uint64), rows["r_addend"].view(np.uint64)
    bases = []
    for base in _likely(data, places, size):
        words = _words(data, places, base)
        if not len(words):
            continue
        moved = distinct((words - addends)[words != 0])
        part = len(moved) > 0 and moved[0] != 0 and not words.all()  # a kernel moves all of them, or none has moved yet
        if len(moved) <= 1 and not part:
            bases.append(Base(base, base + (int(moved[0]) if len(moved) else 0) & t.LAST_VA))
    return bases


def _mostly_addresses(data: FileBytes, places: U64, base: int, size: int) -> bool:
    """Whether under a base most places hold addresses of one image of so many bytes."""
    pos = (places - np.uint64(base)).view(np.int64)
    words = _words(data, places[(pos >= 0) & (pos <= len(data) - WORD)], base)
    if len(words) < max(MANY, MOSTLY * len(places)):
        return False
    middle = np.sort(words)[len(words) // 2]
    near = np.abs((words - middle).view(np.int64)) <= size
    return bool(middle >= UPPER_HALF and np.count_nonzero(near) >= MOSTLY * len(places))


def _of_relr(data: FileBytes, likely: list[tuple[int, U64]], size: int) -> list[Base]:
    """The bases under which each place of a packed table holds an address of the image, wherever that was moved to.

    likely: bases, and the words at the places under each."""
    images = []
    for base, words in likely:
        addresses = distinct(words[words >= UPPER_HALF])
        others = distinct(words[words < UPPER_HALF])  # zeros, moved as all the rest
        if len(others) <= 1 and len(addresses) >= MANY and addresses[-1] - addresses[0] <= np.uint64(size):
            images.append((base, addresses, int(others[0]) if len(others) else 0))
    if len(images) != 1:
        return []
    base, addresses, moved = images[0]
    if moved or (np.uint64(base) <= addresses[0] and addresses[-1] - np.uint64(base) <= np.uint64(size)):
        return [Base(base, base + moved & t.LAST_VA)]
    runtime = _of_strings(data, addresses, _first_pages(addresses, size))
    return [] if runtime is None else [Base(base, runtime)]


def _first_pages(addresses: U64, size: int) -> range:
    """Every page that may be the first of an image in which all these addresses are."""
    low, high = int(addresses.min()), int(addresses.max())
    first = max(high - size, 0) + PAGE & -PAGE
    pages = range(first, low + 1, PAGE)
    return pages if len(pages) <= MAX_PAGES else range(0)


def _likely(data: FileBytes, places: U64, size: int) -> list[int]:
    """The pages under which most of a few of the places hold addresses of kernels, or nothing yet."""
    pages = np.array(_first_pages(places, size), dtype=np.uint64) if len(places) else places
    misses = np.zeros(len(pages), dtype=np.int64)
    for place in places[:: max(len(places) // FEW, 1)]:
        pos = (place - pages).view(np.int64)
        inside = pos <= len(data) - WORD
        pages, pos, misses = pages[inside], pos[inside], misses[inside]
        words = data.rows(pos, WORD).view("<u8").reshape(-1)
        misses += (words != 0) & (words < UPPER_HALF)
        pages, misses = pages[misses <= MISSES], misses[misses <= MISSES]
    likely: list[int] = pages.tolist()
    return likely


def _words(data: FileBytes, places: U64, base: int) -> U64:
    """The words at these addresses; none where one of them is not in the file."""
    pos = (places - np.uint64(base)).view(np.int64)
    if (pos < 0).any() or (pos > len(data) - WORD).any():
        return np.zeros(0, np.uint64)
    return data.rows(pos, WORD).view("<u8").reshape(-1)


def _of_pointers(data: FileBytes, size: int) -> list[Base]:
    """The base of an image that nothing relocates, by the strings that its pointers name."""
    words = data[: len(data) - len(data) % WORD].view("<u8")
    words = distinct(words[(words >= LOWEST) & (words < np.uint64(t.LAST_VA - BLOCK))])  # no small negative numbers
    blocks, n = np.unique(words // np.uint64(BLOCK), return_counts=True)
    many = blocks[n >= MANY]
    if not len(many):
        return []
    # the blocks of an image that most words name
    reach = np.searchsorted(many, many + np.uint64(size // BLOCK + 1), side="right")
    total = np.concatenate(([0], np.cumsum(n[n >= MANY])))
    first = int(np.argmax(total[reach] - total[:-1]))
    low, high = int(many[first]) * BLOCK, (int(many[reach[first] - 1]) + 1) * BLOCK
    words = words[(words >= np.uint64(low)) & (words < np.uint64(high))]
    base = _of_strings(data, words, range(high - size - BLOCK & -PAGE, low + BLOCK, PAGE))
    return [] if base is None else [Base(base, base)]


def _of_strings(data: FileBytes, words: U64, pages: range) -> int | None:
    """The page under which by far the most of these words name the first character of a string; None where no page
    stands out."""
    words = distinct(words)
    words = words[:: max(len(words) // STRINGS, 1)]
    octets = data[: len(data)]
    begins = np.zeros(len(octets), dtype=bool)
    begins[1:] = (octets[:-1] == 0) & (octets[1:] >= ord(" ")) & (octets[1:] < DEL)
    counts = np.zeros(len(pages), dtype=np.int64)
    for number, base in enumerate(pages):
        pos = (words - np.uint64(base)).view(np.int64)
        counts[number] = int(begins[pos[(pos >= 0) & (pos < len(octets))]].sum())
    if not len(counts):
        return None
    best = int(np.argmax(counts))
    others = np.delete(counts, best)
    clear = counts[best] >= CLEAR * max(int(others.max(initial=0)), 1) and counts[best] >= SHARE * len(words)
    return pages[best] if clear else None
