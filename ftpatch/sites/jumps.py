"""Jumps at the entries of functions: what a site holds whose function another one takes the place of.

    site ── b ──► the other function                  straight: no stub; a compiler could write the same
    site ── b ──► stub ── … ──► the other function    a stub that only a patch makes

Words that a compiler left stand around the jump, and its function goes on behind the site: where a function ends in
the code of another one (a thunk, a tail call), nothing follows the jump. The one jump that goes to a stub of the site's
own, out of line, is the call of an enabled site.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ftpatch.arch.shape import Shape, begins_with
from ftpatch.arrays import I64, U32, U64, Mask, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.clone_names import is_part
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import NONE, Relocations, relocations_of
from ftpatch.errors import ElfError
from ftpatch.sites.callees import own_entries
from ftpatch.sites.fill import is_filled
from ftpatch.sites.matching import OURS

STUB_WORDS = 8  # of a linked file's longest stub
CODE_BYTES = 96  # of the longest stub in a module
OF_PATCH = ".ftpatch"  # in the names of sections that a patch adds to a module
MARK = "ftpatch_redirected_"  # how the symbol begins that a patch puts at a redirected function of a module


class JumpTarget(NamedTuple):
    """Where the jump of a redirected site ends."""

    name: str  # of the function there, for people
    row: int  # of its symbol
    va: int | None  # where callers come to; None: in another file, so that a loader decides it
    start: int | None  # va of that function's symbol, as for `va`
    entry: bool  # it is an entry of the function, not the middle of it
    through: int | None = None  # va of the stub that the jump goes through; None: straight
    by: str = ""  # what that stub is: `veneer`, `far`, or `code` that a patch brought along; empty for none
    sure: bool = False  # no compiler or linker makes that stub; in a module, or the function has a patch's mark


@dataclass
class Jumps:
    """The jumps of one file."""

    image: Image
    _relocations: dict[int, Relocations] = field(default_factory=dict)  # by section
    _known: dict[int, JumpTarget | None] = field(default_factory=dict)  # by address

    def redirected(self, shape: Shape, sec: I64, off: I64, window: U32, recorded: bool) -> Mask:
        """Which places of records hold the site of a function that another one takes the place of.

        recorded: a record names each of them, which says that it is a site; else its function has to say so.
        """
        places = self._look_so(shape, sec, off, window)
        if shape.out_of_line and self.image.linked:  # where calls are jumps, too: to stubs that lead back
            places[places] = ~self._call_stubs(shape, sec[places], off[places], window[places])
        if not recorded and (self.image.arch.ends or self.image.recovered is not None):
            places[places] = self._goes_on(shape, sec[places], off[places], window[places])
        index = np.flatnonzero(places)
        if len(index):  # never in a file as it was built
            sec, off, window = sec[index], off[index], window[index]
            targets = self.targets_of(sec, off + shape.site(window), shape.body(window))
            places[index] = self._fit(shape, self.image.va(sec, off), window, targets, recorded)
        return places

    def _look_so(self, shape: Shape, sec: I64, off: I64, window: U32) -> Mask:
        """Which places have a jump where a site begins, and around it what a compiler left."""
        image, jump = self.image, self.image.arch.jump
        if jump is None or jump.n_units > len(shape.old) or shape.refusal:
            return np.zeros(len(sec), dtype=bool)
        body = shape.body(window)
        places = np.asarray(jump.word.matches(body[:, 0]) & (sec >= 0))
        if not places.any():
            return places
        for unit in range(jump.n_units, len(shape.old)):
            places &= shape.old[unit].matches(body[:, unit])
        places &= shape.led(window)
        if shape.literal is not None:  # NOPs that nothing fills: another place of the site that is not as it was
            places &= shape.old[0].matches(image.words(sec, off + shape.literal, 0, 2)).all(axis=1)
        return places

    def _goes_on(self, shape: Shape, sec: I64, off: I64, window: U32) -> Mask:
        """Whether there may be more of a whole function behind each jump than what ends one."""
        behind = shape.behind(window, max(map(len, self.image.arch.ends), default=1))
        goes_on = ~begins_with(behind, self.image.arch.ends)
        behind_site = self.image.va(sec, off + shape.site(window) + shape.size)
        first, last = self.image.functions.at_local(self.image.va(sec, off) + shape.to_entry(window).view(np.uint64))
        for at in np.flatnonzero(goes_on & (first < last)).tolist():  # a handful: parts of functions have no site
            is_thunk = is_filled(self.image, int(behind_site[at]), int(last[at]) - 1)
            goes_on[at] = not (is_thunk or is_part(self._name(int(first[at]))))
        return goes_on

    def _fit(self, shape: Shape, va: U64, window: U32, targets: Sequence[JumpTarget | None], recorded: bool) -> Mask:
        """Which places with a jump are the sites of functions, and the jump leads out of those to others."""
        functions, site = self.image.functions, va + shape.site(window).view(np.uint64)
        own = own_entries(self.image, shape)
        entry = va + shape.to_entry(window).view(np.uint64)
        low, high = functions.at(entry) if shape.at_global else functions.at_local(entry)
        # a jump to what sites call is a call gone wrong: no function can be it
        fits = np.array([target is not None and target.name not in own for target in targets], dtype=bool)
        n_units = self.image.arch.jump.n_units if self.image.arch.jump is not None else 0
        if shape.out_of_line and not self.image.linked:
            stubs = [t.LAST_VA if target is None or target.through is None else target.through for target in targets]
            fits &= ~self._stubs_at(shape, np.array(stubs, dtype=np.uint64))
        ends = zip(site.tolist(), low.tolist(), high.tolist(), strict=True)
        for at, (site_va, first, behind) in enumerate(ends):
            target = targets[at]
            if target is None or not fits[at]:
                continue
            if first == behind:  # without a name only a record tells that it is a site
                fits[at] = recorded and target.entry
                continue
            start, end = int(functions.va[first]), int(functions.end[first:behind].max())
            inside = target.va is not None and (start <= target.va < end or target.start == start)
            told = target.entry or len(shape.old) > n_units or shape.lead is not None  # by more than the jump
            fits[at] = not inside and (recorded or (told and end > site_va + shape.size))
        return fits

    def _call_stubs(self, shape: Shape, sec: I64, off: I64, window: U32) -> Mask:
        """Which jumps of a linked file go to the stub of an enabled site out of line."""
        site = self.image.va(sec, off + shape.site(window)).view(np.int64)
        return self._stubs_at(shape, (site + shape.branch.distance(shape.body(window))).view(np.uint64))

    def _stubs_at(self, shape: Shape, va: U64) -> Mask:
        """At which addresses the stub of an enabled site is."""
        words = self.image.words(*self.image.place(va), 0, len(shape.stub))
        return np.asarray(np.logical_and.reduce([word.matches(words[:, unit]) for unit, word in enumerate(shape.stub)]))

    def targets_of(self, sec: I64, off: I64, units: U32) -> list[JumpTarget | None]:
        """Where the jumps at some places end; None where that is nowhere in the code. units: each one's, and more."""
        image, jump = self.image, self.image.arch.jump
        assert jump is not None
        distance = jump.decode(units[:, 0] if jump.n_units == 1 else units[:, : jump.n_units])
        to = (image.va(sec, off).view(np.int64) + distance).view(np.uint64)
        if image.linked:
            return [self._at(va) for va in to.tolist()]
        within = (off + distance >= 0) & (off + distance < image.shdr["sh_size"][sec].astype(np.int64))
        targets: list[JumpTarget | None] = []
        for number, place, va, inside in zip(sec.tolist(), off.tolist(), to.tolist(), within.tolist(), strict=True):
            rows = self._relocated(number)
            first, last = (int(np.searchsorted(rows.off, place, side=side)) for side in ("left", "right"))
            if last > first:
                targets.append(self._relocated_to(rows, first) if last == first + 1 else None)
            else:
                targets.append(self._at(va) if inside else None)
        return targets

    def _at(self, va: int) -> JumpTarget | None:
        """What a jump to an address comes to: an entry, a stub, or the middle of a function."""
        if va not in self._known:
            target = self._in_function(va, entry_only=True) or self._behind_stub(va) or self._in_function(va)
            self._known[va] = target
        return self._known[va]

    def _relocated(self, sec: int) -> Relocations:
        if sec not in self._relocations:
            try:
                self._relocations[sec] = relocations_of(self.image, sec)
            except ElfError:  # no loader takes such a section: whoever patches it says so
                self._relocations[sec] = NONE
        return self._relocations[sec]

    def _relocated_to(self, rows: Relocations, at: int) -> JumpTarget | None:
        """Where a loader lets a jump go."""
        image, symbol = self.image, int(rows.symbol[at])
        symbols, sec = image.symbols, int(image.symbols.shndx[symbol])
        if int(rows.kind[at]) not in image.arch.loader.calls:
            return None
        if sec == t.SHN_UNDEF:
            return JumpTarget(symbols.name(symbol), symbol, None, None, entry=True)
        if not 0 < sec < len(image.shdr) or not image.executable[sec]:
            return None
        addend = int(image.rows(int(rows.table[at]), t.RELA)["r_addend"][int(rows.row[at])])
        local_entry = image.arch.local_entry  # a loader adds that, since the file's functions share a TOC
        more = int(local_entry(symbols.rows["st_other"][symbol : symbol + 1])[0]) if local_entry else 0
        va = (int(image.base[sec]) + int(symbols.rows["st_value"][symbol]) + addend + more) % (1 << 64)
        target = self._in_function(va)
        brought = OF_PATCH in image.names[sec] and (target is None or target.name.startswith(OURS))
        return self._behind_code(sec, va) if brought else target

    def _behind_code(self, sec: int, va: int) -> JumpTarget | None:
        """The function that code of a patch leads to: the first thing but the TOC that its relocations name."""
        image, start, modules = self.image, va - int(self.image.base[sec]), self.image.arch.modules
        toc = modules.toc if modules is not None else ""
        rows = self._relocated(sec)
        for at in np.flatnonzero((rows.off >= start) & (rows.off < start + CODE_BYTES)).tolist():
            symbol = int(rows.symbol[at])
            name, of = image.symbols.name(symbol), int(image.symbols.shndx[symbol])
            if not name or name == toc:
                continue
            if of <= 0:
                return JumpTarget(name, symbol, None, None, True, va, "code", sure=True)
            to = (int(image.base[of]) + int(image.symbols.rows["st_value"][symbol])) % (1 << 64)
            target = self._in_function(to) or JumpTarget(name, symbol, to, to, True)
            return target._replace(through=va, by="code", sure=True)
        return self._in_function(va, entry_only=True)

    def _in_function(self, va: int, entry_only: bool = False) -> JumpTarget | None:
        """The function at an address, or around it."""
        functions, at = self.image.functions, np.array([va], dtype=np.uint64)
        for find in (functions.at, functions.at_local):
            low, high = find(at)
            if low[0] < high[0]:
                return self._target_at(int(low[0]), va, entry=True)
        if entry_only:
            return self._at_label(va)
        inside = int(functions.containing(at)[0])
        return self._target_at(inside, va, entry=False) if inside >= 0 else None

    def _name(self, function: int) -> str:
        return self.image.symbols.name(int(self.image.functions.row[function]))

    def _target_at(self, function: int, va: int, entry: bool) -> JumpTarget:
        functions = self.image.functions
        start = int(functions.va[function])
        row = int(functions.row[function])
        name = self._name(function)
        return JumpTarget(name if entry else f"{name}+{va - start:#x}", row, va, start, entry)

    def _at_label(self, va: int) -> JumpTarget | None:
        """Code in assembly that has a symbol without a type."""
        if not self.image.linked:
            return None
        values, rows = self._labels
        at = int(np.searchsorted(values, np.uint64(va)))
        if at == len(values) or int(values[at]) != va:
            return None
        return JumpTarget(self.image.symbols.name(int(rows[at])), int(rows[at]), va, va, entry=True)

    @cached_property
    def _labels(self) -> tuple[U64, I64]:
        """The global symbols of code without a type, by address: their values and rows. Those at the end of a section,
        such as _einittext, name none: another section's code may begin there."""
        symbols, image = self.image.symbols, self.image
        rows = np.flatnonzero((symbols.type == 0) & (symbols.shndx > 0) & (symbols.bind != t.STB_LOCAL))
        rows = rows[image.executable[symbols.shndx[rows]]]
        head = image.shdr[symbols.shndx[rows]]
        rows = rows[symbols.rows["st_value"][rows] - head["sh_addr"] < head["sh_size"]]
        order = np.argsort(symbols.rows["st_value"][rows], kind="stable")
        return np.ascontiguousarray(symbols.rows["st_value"][rows][order]), rows[order]

    @cached_property
    def _named(self) -> U64:
        """The values of all symbols, ascending."""
        return np.sort(self.image.symbols.rows["st_value"])

    def _behind_stub(self, va: int) -> JumpTarget | None:
        """The function behind a stub that a patch made in a linked file."""
        image, arch = self.image, self.image.arch
        if not image.linked or arch.unit == 1:
            return None
        pos = image.pos_of_va(va)  # a stub may stand between sections
        held = image.data[pos : pos + 4 * STUB_WORDS] if pos >= 0 and pos % 4 == 0 else image.data[:0]
        words = np.asarray(held[: len(held) & ~3].view("<u4"), dtype=np.uint32)
        toc = image.symbols.value(arch.far.toc) if arch.far is not None else None
        veneer = arch.veneer.leads_to(words, va) if arch.veneer is not None else None
        far = arch.far.leads_to(words, toc) if arch.far is not None and toc is not None else None
        for by, to in (("veneer", veneer), ("far", far)):
            target = self._in_function(to, entry_only=True) or self._in_function(to) if to is not None else None
            if target is not None:
                at = int(np.searchsorted(self._named, np.uint64(va)))
                sure = by == "far" or at == len(self._named) or int(self._named[at]) != va
                return target._replace(through=va, by=by, sure=sure)  # linkers make veneers, too, and name them
        return None


def marks(image: Image) -> U64:
    """va of every mark of a redirected function in a relocatable file: at its symbol, or where its record named it."""
    if image.linked:
        return np.zeros(0, dtype=np.uint64)
    symbols = image.symbols
    starts = list(t.places_of(MARK.encode(), symbols.strtab))
    rows = np.flatnonzero(is_in(symbols.rows["st_name"], starts)) if starts else np.zeros(0, np.int64)
    rows = rows[symbols.shndx[rows] > 0]
    return np.asarray(image.base[symbols.shndx[rows]] + symbols.rows["st_value"][rows])


def may_begin_with_jump(image: Image, shape: Shape, bare: I64) -> bool:
    """Whether one of some functions may begin with a jump, by a word or two of each: quick, and seldom so.

    bare: indices in image.functions.
    """
    functions, jump = image.functions, image.arch.jump
    if jump is None or jump.unit == 1 or shape.refusal or not len(bare):
        return False
    sec = image.symbols.shndx[functions.row[bare]]
    off = ((functions.va if shape.at_global else functions.local)[bare] - image.base[sec]).view(np.int64)
    pos = image.shdr["sh_offset"][sec].view(np.int64) + off - shape.entry + shape.unit * shape.start
    n = 1 + shape.skip_words
    inside = (pos >= 0) & (pos <= len(image.data) - 4 * n) & (pos & 3 == 0)
    return bool(jump.word.matches(image.data.words(pos[inside], n)).any())
