"""The record table of a kernel whose symbols do not bound it, by what it must look like.

Without CONFIG_KALLSYMS_ALL kallsyms names code alone. The table is a run of words in data that name code; what
relocations write there counts. Each names a place with the words of a patch site, at one distance from a function's
start; no two are equal; and of all functions that begin with such words most have one. A table of pointers to functions
looks like it, but names few of them. Slots of records that are gone hold 0 or −4: they belong to the table between
others, and at its ends as far as the code that walks it forms their addresses.
Source: include/asm-generic/vmlinux.lds.h MCOUNT_REC; kernel/trace/ftrace.c ftrace_init().
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from ftpatch.arch.shape import Shape
from ftpatch.arrays import U64, Mask, is_in
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError
from ftpatch.recovered.left_out import with_more
from ftpatch.recovered.records_ends import GAP, goes_on, require_bounds
from ftpatch.recovered.records_in_code import table_in_code
from ftpatch.recovered.records_words import EMPTY, SLOT, sites_of, words_of_data

SHORTEST = 4  # records of a table
MAX_RUNS = 64  # that are looked at, the longest first
# of a run's words that name sites, and sites of functions with a name; of the functions that begin so
SITES, NAMED, COVERED = 0.9, 0.7, 0.3
CLEAR = 2  # times as many functions as the next best run names
MANY = 64  # records that a table has at least where no function is known
NEAR = 64  # slots at an end that may hold other than records of sites
MAX_WORDS = 1 << 16  # of ftrace_init
INIT, BOUNDS = "ftrace_init", ("__start_mcount_loc", "__stop_mcount_loc")


class Span(NamedTuple):
    """Addresses of a table's first slot and behind its last."""

    start: int
    stop: int


class _Run(NamedTuple):
    """Words that name code, side by side in one section."""

    words: U64  # of the section
    va: int  # address of the section's first word
    first: int  # index of the run's first word, and behind its last
    behind: int
    shape: Shape  # the layout under which most of them name sites
    named: int  # functions whose sites these are

    def part(self, first: int, behind: int) -> _Run:
        """The run with other ends."""
        return self._replace(first=first, behind=behind)

    @property
    def values(self) -> U64:
        return self.words[self.first : self.behind]

    @property
    def span(self) -> Span:
        return Span(self.va + SLOT * self.first, self.va + SLOT * self.behind)


def with_records(image: Image) -> Image:
    """A recovered image whose symbols bound the record table, which kallsyms may not name.

    Raises ElfError where the kernel has a tracer and nothing, or several things, look like its records.
    """
    symbols = image.own_symbols
    start, stop = (symbols.value(name) for name in BOUNDS)
    if start is not None and stop is not None:
        require_bounds(image, start, stop)
    if image.recovered is None or any(symbols.defined(name) is not None for name in BOUNDS):
        return image
    table = record_table(image) or table_in_code(image)
    if table is not None:
        return with_more(image, dict(zip(BOUNDS, table, strict=True)))
    if any(symbols.defined(name) is not None for name in image.arch.entries):
        raise ElfError("the records of its patch sites are not found", image.path, expected="a table of addresses of "
                       "functions that begin with a site", todo="give the vmlinux of the same build")  # fmt: skip
    return image


def record_table(image: Image) -> Span | None:
    """Where the record table is; None where nothing looks like one. Raises ElfError where several things do."""
    found = [run for va, words in words_of_data(image) for run in _runs(image, va, words)]
    n_beginning = cache(lambda name: _n_beginning(image, name))  # asked of every run: it looks at all functions
    tables = [table for run in _longest(found) if (table := _judged(image, run, n_beginning)) is not None]
    if not tables:
        return None
    best = max(tables, key=lambda run: run.named)
    whole = _whole(image, best)
    others = [run for run in tables if run.words is not whole.words or not whole.first <= run.first < whole.behind]
    rival = max(others, key=lambda run: run.named, default=None)
    if rival is not None and CLEAR * rival.named > best.named:
        places = " and ".join(f"{run.span.start:#x}" for run in (whole, rival))
        raise ElfError("two tables look like that of the records", image.path, found=places,
                       todo="give the vmlinux of the same build")  # fmt: skip
    last = image.pos(*image.place(np.array([whole.span.stop - SLOT], dtype=np.uint64)))
    ends_with_file = int(last[0]) + 2 * SLOT > len(image.data)  # no kernel does: data lies behind
    if ends_with_file or goes_on(image, whole.shape, whole.words, (whole.first, whole.behind), GAP):
        where = f"{image.path}: {whole.span.start:#x}"
        raise ElfError("the records of patch sites are cut off, or have something else between them", where,
                       todo="the file is damaged: give the vmlinux of the same build")  # fmt: skip
    return whole.span


def words_between(image: Image, start: int, stop: int) -> U64:
    """The slots of a table, as they are once the kernel has relocated itself."""
    for va, words in words_of_data(image):
        if va <= start and stop <= va + SLOT * len(words):
            return words[(start - va) // SLOT : (stop - va) // SLOT]
    return np.zeros(0, np.uint64)


# -- words that name code ----------------------------------------------------------------------------------------------


def _runs(image: Image, va: int, words: U64) -> Iterator[tuple[U64, int, int, int]]:
    """(words, va, first, behind) of all runs of words that name code."""
    code = _names_code(image, words)
    change = np.flatnonzero(code[1:] != code[:-1]) + 1
    starts, ends = np.concatenate(([0], change)), np.append(change, len(code))
    for run in np.flatnonzero((ends - starts >= SHORTEST) & code[starts]).tolist() if len(code) else ():
        yield words, va, int(starts[run]), int(ends[run])


def _names_code(image: Image, words: U64) -> Mask:
    named = np.zeros(len(words), dtype=bool)
    for sec in np.flatnonzero(image.executable).tolist():
        start = image.base[sec]
        named |= words - start < image.shdr["sh_size"][sec]
    return named


def _longest(runs: list[tuple[U64, int, int, int]]) -> list[tuple[U64, int, int, int]]:
    return sorted(runs, key=lambda run: run[2] - run[3])[:MAX_RUNS]


# -- sites -------------------------------------------------------------------------------------------------------------


def _judged(image: Image, run: tuple[U64, int, int, int], n_beginning: Callable[[str], int]) -> _Run | None:
    """A run under the layout that most of its words fit; None where these are no records, or not of enough functions.

    n_beginning: see `_n_beginning`.
    """
    words, va, first, behind = run
    values, best = words[first:behind], None
    for shape in (shape for shape in image.arch.shapes if not shape.program):
        fits, starts = sites_of(image, shape, values)
        named = int((starts if len(image.functions.va) else fits).sum())
        enough = named >= NAMED * len(values) and (len(image.functions.va) or named >= MANY)
        enough = enough and int(fits.sum()) >= SITES * len(values)
        if enough and (best is None or named > best.named):
            best = _Run(words, va, first, behind, shape, named)
    return best if best is not None and best.named >= COVERED * n_beginning(best.shape.name) else None


def _n_beginning(image: Image, layout: str) -> int:
    """How many functions begin with the words of a layout; 0 where its sites may be anywhere in them."""
    shape, functions = next(shape for shape in image.arch.shapes if shape.name == layout), image.functions
    if shape.anywhere or not len(functions.va):
        return 0
    entry = functions.va if shape.at_global else functions.local
    fits, _ = sites_of(image, shape, entry - np.int64(shape.entry).view(np.uint64))
    return int(fits.sum())


# -- its ends ----------------------------------------------------------------------------------------------------------


def _whole(image: Image, run: _Run) -> _Run:
    """The run without what lies beside the table, and with slots of the table that are empty."""
    run = _trimmed(image, run)
    run = _with_moved_zeros(image, _joined(image, run))
    init = image.symbols.defined(INIT)
    if init is None or image.arch.table_end is None:
        return run
    va = int(image.symbols.rows["st_value"][init])
    code = image.code(va, min(int(image.symbols.rows["st_size"][init]) // image.arch.unit, MAX_WORDS))
    formed = [(pair.value - run.va) // SLOT for pair in image.arch.table_end.find(code, va, None)
              if (pair.value - run.va) % SLOT == 0]  # fmt: skip
    empty = is_in(run.words, EMPTY)
    likely = empty | _names_code(image, run.words)  # a site at an end may have other words now
    behind = run.behind + max(_length(empty[run.behind :]), _length(likely[run.behind : run.behind + NEAR]))
    front = run.first - max(
        _length(empty[: run.first][::-1]), _length(likely[max(run.first - NEAR, 0) : run.first][::-1])
    )
    stop = min((at for at in formed if run.behind <= at <= behind), default=run.behind)
    start = max((at for at in formed if front <= at <= run.first), default=run.first)
    return run.part(start, stop)


def _with_moved_zeros(image: Image, run: _Run) -> _Run:
    """With the zeros at its ends that packed relocations move: those move all slots, and no other zero."""
    low, high = run.va, run.va + SLOT * len(run.words)
    moved = np.zeros(len(run.words), dtype=bool)
    places = image.relr_places(low, high)
    moved[((places - np.uint64(low)) // SLOT).astype(np.int64)] = True
    moved &= run.words == 0
    return run.part(run.first - _length(moved[: run.first][::-1]), run.behind + _length(moved[run.behind :]))


def _trimmed(image: Image, run: _Run) -> _Run:
    """Without words at its ends that name no site, or one that another word names: tables of other things."""
    values = run.values
    _, inverse, n = np.unique(values, return_inverse=True, return_counts=True)
    mine = np.flatnonzero(sites_of(image, run.shape, values)[0] & (n[inverse] == 1))
    return run.part(run.first + int(mine[0]), run.first + int(mine[-1]) + 1) if len(mine) else run


def _joined(image: Image, run: _Run) -> _Run:
    """With runs of other sites of the same layout that nothing but empty slots is in front of."""
    empty, code = is_in(run.words, EMPTY), _names_code(image, run.words)
    while True:
        after = run.behind + _length(empty[run.behind :])
        before = run.first - _length(empty[: run.first][::-1])
        ahead, behind = _length(code[after:]), _length(code[:before][::-1])
        more = run
        if after > run.behind and _belongs(image, run, run.words[after : after + ahead]):
            more = more.part(more.first, after + ahead)
        if before < run.first and _belongs(image, run, run.words[before - behind : before]):
            more = more.part(before - behind, more.behind)
        if (more.first, more.behind) == (run.first, run.behind):
            return run
        run = _trimmed(image, more)


def _belongs(image: Image, run: _Run, values: U64) -> bool:
    """Whether words are records of the same table: they name sites that it does not name yet."""
    if not len(values) or is_in(values, run.values).any():
        return False
    fits, starts = sites_of(image, run.shape, values)
    return bool(fits.all()) and 2 * int(starts.sum()) >= len(values)


def _length(member: Mask) -> int:
    """How many are set in front of the first that is not."""
    other = np.flatnonzero(~member)
    return int(other[0]) if len(other) else len(member)
