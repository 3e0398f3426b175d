"""The patch sites of both files side by side: every place that one of them knows, with its words before and after."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ftpatch.arch.proof_tables import tables_of
from ftpatch.arch.shape import Shape
from ftpatch.arrays import I64, U8, U32, U64, Mask
from ftpatch.elf.identity import linker_stubs
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of
from ftpatch.proof.case import Case
from ftpatch.proof.decoders import branch_targets
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import NULL, OUTSIDE, SiteTable

OLD, NEW, RETIRED, OTHER = range(4)  # as compiled; a call of ours; a call that became a NOP; anything else


@dataclass(frozen=True)
class Pairs:
    """One row per place, by file position."""

    case: Case
    shape: Shape
    sec: I64  # section of the site
    off: I64  # byte offset in it of the first word that enabling rewrites
    record: I64  # byte offset in it that the site's record names
    before: I64  # row in the first file's site table; −1 where there is none
    after: I64  # row in the second file's; −1 where there is none
    old: U8  # OLD, NEW, RETIRED or OTHER in the first file
    new: U8  # the same in the second
    words: U32  # (n, k) as they are in the second file
    differs: Mask  # whether they were others in the first, or in a module called something else

    def __len__(self) -> int:
        return len(self.sec)

    @cached_property
    def pos(self) -> I64:
        pos: I64 = self.case.before.image.pos(self.sec, self.off)
        return pos

    @cached_property
    def branch_off(self) -> I64:
        off: I64 = self.off + 4 * (self.words.shape[1] - 1)
        return off

    @cached_property
    def enabled(self) -> Mask:
        """Sites that call something of ours now and did not before."""
        return np.asarray((self.old != NEW) & (self.new == NEW) & self.differs)

    @cached_property
    def disabled(self) -> Mask:
        return np.asarray((self.old == NEW) & (self.new != NEW) & self.differs)

    def va(self, off: I64) -> U64:
        """va of places in the sites' sections, in the file that was patched."""
        return self.case.after.image.va(self.sec, off)

    def name(self, at: int) -> str:
        """What people call the site."""
        tables = ((self.case.before.sites, int(self.before[at])), (self.case.after.sites, int(self.after[at])))
        names = [name for table, row in tables if row >= 0 and (name := table.name(row))]
        return names[0] if names else f"{self.case.before.image.names[int(self.sec[at])]}+{int(self.off[at]):#x}"

    def row(self, at: int) -> int | None:
        """The slot of its record in the first file."""
        row = self.case.before.sites.row[self.before[at]] if self.before[at] >= 0 else -1
        return int(row) if row >= 0 else None

    def say(self, rule: str, at: int, message: str) -> None:
        """A finding at a site."""
        name = self.name(at)
        self.case.say(rule, f"{name}: {message}", function=name, row=self.row(at), sec=int(self.sec[at]),
                      off=int(self.off[at]), pos=int(self.pos[at]))  # fmt: skip

    def entry_off(self, at: int) -> int:
        """Offset in its section of the local entry of the site's function; where it has no name, by the layout."""
        side, row = (self.case.before, self.before[at]) if self.before[at] >= 0 else (self.case.after, self.after[at])
        sites = side.sites
        if sites.func[row] < sites.func_end[row]:
            return int(sites.local_va[row] - side.image.base[self.sec[at]])
        if self.shape.at_global:
            return int(self.off[at])
        return int(sites.off[row]) + int(self.shape.to_entry(sites.window[row : row + 1])[0])


def pair_up(case: Case) -> Pairs | None:
    """The sites of both files; None where neither has any."""
    shape = case.before.sites.shape or case.after.sites.shape
    if shape is None or shape.refusal:
        return None
    tables = (case.before.sites, case.after.sites)
    known = [_known(table) for table in tables]
    places = np.concatenate([np.stack([table.sec[i], table.off[i] + table.site[i], table.off[i]], axis=1)
                             for table, i in zip(tables, known, strict=True)])  # fmt: skip
    _, first, pair = np.unique(places[:, 0] << 40 | places[:, 1], return_index=True, return_inverse=True)
    rows = np.full((2, len(first)), -1, dtype=np.int64)
    rows[0, pair[: len(known[0])]], rows[1, pair[len(known[0]) :]] = known
    sec, off, record = places[first].T
    n, image = len(shape.new), case.after.image
    old, new = (side.image.words(sec, off, 0, n) for side in (case.before, case.after))
    states = [_states(side, shape, sec, off, words) for side, words in ((case.before, old), (case.after, new))]
    differs = (old != new).any(axis=1)
    if not image.linked and shape.called:  # there the words are the same, and the relocation says what is called
        differs |= states[0] != states[1]
    return Pairs(case, shape, sec, off, record, rows[0], rows[1], states[0], states[1], new, differs)


def _known(table: SiteTable) -> I64:
    """The rows that are places in code."""
    size = table.image.shdr["sh_size"][np.maximum(table.sec, 0)].astype(np.int64)
    inside = (table.off >= 0) & (table.off < np.minimum(size, 1 << 40))
    rows: I64 = np.flatnonzero((table.sec >= 0) & inside & (table.status != NULL) & (table.status != OUTSIDE))
    return rows


def _states(side: Scan, shape: Shape, sec: I64, off: I64, words: U32) -> U8:
    image = side.image
    states = np.full(len(words), OTHER, dtype=np.uint8)
    new = np.logical_and.reduce([word.matches(words[:, i]) for i, word in enumerate(shape.new)])
    old = np.logical_and.reduce([word.matches(words[:, i]) for i, word in enumerate(shape.old)])
    states[old], states[new] = OLD, NEW
    if shape.called:
        as_compiled = _calls_as_compiled(image, shape, sec, off, words)
        states[old] = np.where(as_compiled[old], OLD, NEW)
        states[(words == tables_of(image.arch).nop).all(axis=1)] = RETIRED
    return states


def _calls_as_compiled(image: Image, shape: Shape, sec: I64, off: I64, words: U32) -> Mask:
    """Whether each site's call goes where the compiler let it go."""
    if image.linked:
        stubs = [va for va, name in linker_stubs(image).items() if name == shape.called]
        value = image.symbols.value(shape.called)
        goes_to = branch_targets(image, image.va(sec, off).view(np.int64) + 4 * (words.shape[1] - 1))
        return np.isin(
            goes_to.view(np.uint64), np.array([*stubs, *([] if value is None else [value])], dtype=np.uint64)
        )
    as_compiled = np.zeros(len(sec), dtype=bool)
    for number in np.unique(sec).tolist():
        rows = relocations_of(image, number)
        right = np.isin(rows.symbol, image.symbols.rows_named(shape.called))
        as_compiled |= (sec == number) & np.isin(off + 4 * (words.shape[1] - 1), rows.off[right])
    return as_compiled
