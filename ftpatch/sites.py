"""From records to patch sites: where each one is, which function it belongs to, what stands there, in which state.

The layout of the sites ("shape") is decided once for the whole image, by evidence: a record votes for a shape when its
words fit it *and* a function symbol starts where that shape puts the function. A single site cannot tell: a function
may happen to begin with four NOPs. Behind the rows of the table stand the sites known without a record, which earlier
patches took out of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ftpatch.arch import MATCH_HALF, MATCH_NEW, MATCH_OLD, WINDOW, WINDOW_FIRST, Arch, Shape
from ftpatch.elf.image import Image
from ftpatch.elf.tables import I64, U8, U32, U64, Mask
from ftpatch.errors import ShapeError
from ftpatch.records import RecordTable

STATUSES = ("ready", "enabled", "half", "null", "weak-leftover", "outside-text", "unexpected")
READY, ENABLED, HALF, NULL, LEFTOVER, OUTSIDE, UNEXPECTED = range(7)
N_SAMPLES = 3


@dataclass(frozen=True)
class SiteTable:
    """One row per slot of the record table, in its order; then one per enabled site without a record.

    row: slot number, −1 without a record; sec, off: place of the record, or where it would be; window: the words
    around it; func, func_end: span in `image.functions` of the symbols at the entry (equal: none); status: index
    into STATUSES; site: bytes from the record to the first word to rewrite; body: the words there.
    """

    image: Image
    shape: Shape | None
    row: I64
    sec: I64
    off: I64
    window: U32
    func: I64
    func_end: I64
    status: U8
    site: I64

    def __len__(self) -> int:
        return len(self.row)

    @cached_property
    def va(self) -> U64:
        """va of the record; 0 for null rows."""
        return self.image.va(self.sec, self.off)

    @cached_property
    def body_va(self) -> U64:
        """va of the first word that enabling rewrites."""
        return self.va + self.site.view(np.uint64)

    @cached_property
    def branch_va(self) -> U64:
        """va of the call."""
        return self.body_va + np.uint64(4 * (len(self.shape.new) - 1) if self.shape else 0)

    @cached_property
    def entry_va(self) -> U64:
        """va of the function's symbol; of the record where no symbol starts there."""
        functions = self.image.functions
        named = self.func < self.func_end
        entry = self.va.copy()
        entry[named] = functions.va[self.func[named]]
        return entry

    @cached_property
    def pos(self) -> I64:
        """File position of the first word that enabling rewrites; −1 where there is none."""
        return self.image.pos(self.sec, self.off + self.site)

    def body(self) -> U32:
        """(n, words) that enabling rewrites, as found."""
        return self.shape.body(self.window) if self.shape else self.window[:, :0]

    def name(self, index: int) -> str | None:
        """The function's name as kallsyms would choose it; None for a site without one."""
        if self.func[index] == self.func_end[index]:
            return None
        return self.image.symbols.name(int(self.image.functions.row[self.func[index]]))

    def aliases(self, index: int) -> list[str]:
        """The other function symbols at the same entry."""
        rows = self.image.functions.row[self.func[index] + 1 : self.func_end[index]]
        return [self.image.symbols.name(int(row)) for row in rows]

    def place_text(self, index: int) -> str:
        """`.text+0x1234` of the first word to rewrite."""
        sec = int(self.sec[index])
        return f"{self.image.names[sec]}+{int(self.off[index] + self.site[index]):#x}" if sec >= 0 else "nowhere"

    def words_text(self, index: int) -> list[str]:
        """The words from the record to the call."""
        if self.shape is None or self.sec[index] < 0:
            return []
        last = int(self.site[index]) // 4 + len(self.shape.old)
        first = min(0, int(self.site[index]) // 4) - WINDOW_FIRST
        return [f"0x{int(word):08x}" for word in self.window[index, first : last - WINDOW_FIRST]]


def read_sites(image: Image, arch: Arch, records: RecordTable, forced: str | None = None) -> SiteTable:
    """The sites of an image. `forced` names a shape to take instead of deciding one.

    Raises ShapeError where no single shape explains the live records.
    """
    window = image.words(records.sec, records.off, WINDOW_FIRST, WINDOW)
    va = image.va(records.sec, records.off)
    shape = _forced(arch, forced) if forced else decide_shape(image, arch, records, window, va)
    known = _with_records(image, records, shape, window, va)
    return known if shape is None else _append(known, _without_records(image, known, shape))


def _forced(arch: Arch, name: str) -> Shape:
    shape = arch.shape(name)
    if shape is None:
        raise ShapeError(f"{arch.name} has no layout of that name", found=name,
                         expected=", ".join(shape.name for shape in arch.shapes))  # fmt: skip
    return shape


def decide_shape(image: Image, arch: Arch, records: RecordTable, window: U32, va: U64) -> Shape | None:
    """The one shape that the image's records show; None where there is no record and no trace of one."""
    code = records.live & (records.sec >= 0)
    code[code] = image.executable[records.sec[code]]
    if not code.any():
        return _shape_of_entry(image, arch) if len(records) or image.kind == "vmlinux" else None
    words, va = window[code], va[code]
    fits = np.stack([shape.match(words) > 0 for shape in arch.shapes])
    starts = np.stack([_starts(image, shape, words, va) for shape in arch.shapes])
    votes = fits & starts
    if not votes.any():  # no symbol helps: the longest shape that fits every record
        votes = np.zeros_like(fits)
        whole = np.flatnonzero(fits.all(axis=1))
        if len(whole):
            votes[whole[0]] = True
    count = votes.sum(axis=1)
    best = int(np.argmax(count))
    if count[best] * 2 > len(words) and not np.delete(count, best).any():
        return arch.shapes[best]
    raise _no_single_shape(image, arch, votes, records, code, words)


def _starts(image: Image, shape: Shape, words: U32, va: U64) -> Mask:
    """Where a function symbol starts at the distance from the record that the shape demands."""
    if shape.anywhere:
        return image.functions.inside(va)
    low, high = image.functions.at(va + _entry_distance(shape, words).view(np.uint64))
    found: Mask = high > low
    return found


def _entry_distance(shape: Shape, window: U32) -> I64:
    """Bytes from the record to the function's symbol, per site."""
    distance = np.full(len(window), shape.entry, dtype=np.int64)
    if shape.skip_at < 0:
        distance[shape.skips(window)] += 4 * shape.skip_at
    return distance


def _no_single_shape(image: Image, arch: Arch, votes: Mask, records: RecordTable, code: Mask, words: U32) -> ShapeError:
    counts = ", ".join(f"{shape.name} {int(n)}" for shape, n in zip(arch.shapes, votes.sum(axis=1), strict=True))
    other = int((~votes.any(axis=0)).sum())
    rows = np.flatnonzero(code)
    one_of_each = np.concatenate([np.flatnonzero(vote)[:1] for vote in votes])
    odd = np.flatnonzero(~votes.any(axis=0)) if other else one_of_each
    samples = "; ".join(
        f"row {rows[i]} at {int(image.va(records.sec[rows[i : i + 1]], records.off[rows[i : i + 1]])[0]):#x}: "
        + " ".join(f"{int(word):08x}" for word in words[i, 1:5])
        for i in np.sort(odd)[:N_SAMPLES]
    )
    return ShapeError(
        "no single site layout explains the records", image.path, found=f"{counts}, none of them {other} ({samples})",
        expected="one layout in the whole image", todo="--layout NAME forces one",
    )  # fmt: skip


def _shape_of_entry(image: Image, arch: Arch) -> Shape | None:
    """The shape of an image whose records are all gone, as its ftrace_caller tells it; None without that."""
    va = image.symbols.value(arch.entries[0])
    words = image.code(va, 4) if va is not None else np.zeros(0, np.uint32)
    if not len(words):
        return None
    literal = arch.read_entry(words).literal
    return next(shape for shape in arch.shapes if (shape.literal is not None) == literal and not shape.refusal)


def _with_records(image: Image, records: RecordTable, shape: Shape | None, window: U32, va: U64) -> SiteTable:
    n = len(records)
    status = np.full(n, UNEXPECTED, dtype=np.uint8)
    func = func_end = np.zeros(n, dtype=np.int64)
    site = np.zeros(n, dtype=np.int64)
    if shape is not None:
        match = shape.match(window)
        func, func_end = _functions(image, shape, window, va)
        named = func < func_end
        status[named & (match == MATCH_OLD)] = READY
        status[named & (match == MATCH_NEW)] = ENABLED
        status[named & (match == MATCH_HALF)] = HALF
        status[~named & ~image.functions.inside(va) & (match > 0)] = LEFTOVER
        site = 4 * (shape.start + shape.shift(window))
    in_code = (records.sec >= 0) & image.executable[np.maximum(records.sec, 0)]
    status[~in_code] = OUTSIDE
    status[records.null] = NULL
    sec = np.where(records.null, -1, records.sec)
    site[sec < 0] = 0
    func_end = np.where(sec < 0, func, func_end)
    return SiteTable(image, shape, np.arange(n, dtype=np.int64), sec, records.off, window, func, func_end, status, site)


def _functions(image: Image, shape: Shape, window: U32, va: U64) -> tuple[I64, I64]:
    """Span in image.functions of the symbols at each site's entry; equal ends: none there."""
    if shape.anywhere:
        inside = image.functions.containing(va)
        at = image.functions.va[np.maximum(inside, 0)] if len(image.functions.va) else va
        low, high = image.functions.at(at)
        return np.where(inside >= 0, low, 0), np.where(inside >= 0, high, 0)
    return image.functions.at(va + _entry_distance(shape, window).view(np.uint64))


def _without_records(image: Image, known: SiteTable, shape: Shape) -> SiteTable | None:
    """Functions whose entry holds the enabled words although no live record names them: earlier patches."""
    if shape.refusal or not image.linked:
        return None
    functions = image.functions
    first = (
        np.flatnonzero(np.concatenate(([True], functions.va[1:] != functions.va[:-1]))) if len(functions.va) else None
    )
    if first is None:
        return None
    entry = functions.va[first]
    sec, off = image.place(entry)
    in_code = (sec >= 0) & image.executable[np.maximum(sec, 0)]
    sec, off = np.where(in_code, sec, -1), off - shape.entry
    window = image.words(sec, off, WINDOW_FIRST, WINDOW)
    if shape.skip_at < 0 and shape.skip is not None:  # the symbol lies on the extra word, the record behind it
        behind = shape.skip.matches(window[:, -WINDOW_FIRST]) & (sec >= 0)
        off = off + np.where(behind, -4 * shape.skip_at, 0)
        window = image.words(sec, off, WINDOW_FIRST, WINDOW)
    recorded = np.zeros(len(functions.va), dtype=bool)
    recorded[known.func[known.func < known.func_end]] = True  # a span starts at the first function of its address
    found = (shape.match(window) == MATCH_NEW) & (sec >= 0) & ~recorded[first]
    if not found.any():
        return None
    low, high = functions.at(entry[found])
    n = int(found.sum())
    site = 4 * (shape.start + shape.shift(window[found]))
    status = np.full(n, ENABLED, dtype=np.uint8)
    row = np.full(n, -1, dtype=np.int64)
    return SiteTable(image, shape, row, sec[found], off[found], window[found], low, high, status, site)


def _append(table: SiteTable, more: SiteTable | None) -> SiteTable:
    if more is None:
        return table
    columns = ("row", "sec", "off", "window", "func", "func_end", "status", "site")
    joined = {name: np.concatenate([getattr(table, name), getattr(more, name)]) for name in columns}
    return SiteTable(table.image, table.shape, **joined)
