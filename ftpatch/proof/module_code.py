"""A patched module as its relocations tell it: what the branch at a place names, and which code is there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ftpatch.arch.parts import Code, Fixup, Modules
from ftpatch.arch.proof_tables import JUMP
from ftpatch.arrays import I64, U32
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import Relocations, relocations_of
from ftpatch.proof.case import Case, Pairs
from ftpatch.proof.decoders import conditional, direct_branches, starts
from ftpatch.proof.emulate.loader import Loaded
from ftpatch.proof.module_symbols import INIT_TEXT, TEXT, plain

OURS = (TEXT, INIT_TEXT)
MAX_CODE = 1 << 12  # bytes of one piece of code that are read


@dataclass(frozen=True)
class Place:
    """What a relocation names."""

    symbol: int  # row in the symbol table
    sec: int  # section of the place; 0: in another file
    off: int  # byte offset in it


class Called(NamedTuple):
    """The symbols that a call leads to."""

    names: frozenset[str]  # by branches
    pointers: frozenset[str] = frozenset()  # that the code there has the addresses of


@dataclass
class Calls:
    """One look at a patched module."""

    case: Case
    pairs: Pairs
    modules: Modules
    loaded: Loaded  # as the emulation has it
    judged: dict[tuple[int, int], str] = field(default_factory=dict)  # (section, offset) of code → what is wrong there
    forced: set[tuple[int, int]] = field(default_factory=set)  # code that is wrong, and called on purpose
    ends: dict[int, tuple[int, Called]] = field(default_factory=dict)  # pair → va of its ops, what is called
    reached: set[tuple[int, int]] = field(
        default_factory=set
    )  # (section, offset) of code of the patch that sites go to
    entered: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)  # site → code of the patch, likewise
    _code: dict[tuple[int, int], U32] = field(default_factory=dict)  # by section and first byte
    _ways: dict[tuple[int, int], list[tuple[int, Place | str]]] = field(default_factory=dict)  # likewise
    _forks: dict[tuple[int, int], bool] = field(default_factory=dict)  # likewise
    _called: dict[tuple[int, int], Called] = field(default_factory=dict)  # by section and first byte of a piece
    _pieces: dict[int, tuple[I64, I64]] = field(default_factory=dict)  # first byte and end of a section's functions
    _relocations: dict[int, Relocations] = field(default_factory=dict)  # of each section, read once

    @property
    def image(self) -> Image:
        return self.case.after.image

    def named_at(self, sec: int, off: int, size: int) -> list[tuple[int, int, Place]]:
        """(offset, type, what it names) of every relocation that touches `size` bytes at a place."""
        if sec not in self._relocations:
            self._relocations[sec] = relocations_of(self.image, sec)
        rows, symbols, named = self._relocations[sec], self.image.symbols, []
        low, high = np.searchsorted(rows.off, off - 7), np.searchsorted(rows.off, off + size)  # 8 bytes at most
        for at in range(int(low), int(high)):
            if int(rows.off[at] + rows.size[at]) > off:
                symbol, addends = int(rows.symbol[at]), self.image.rows(int(rows.table[at]), t.RELA)["r_addend"]
                value = int(symbols.rows["st_value"][symbol]) + int(addends[rows.row[at]])
                place = Place(symbol, max(int(symbols.shndx[symbol]), t.SHN_UNDEF), value)
                named.append((int(rows.off[at]), int(rows.kind[at]), place))
        return named

    def branch_at(self, sec: int, off: int) -> Place | str:
        """What the branch at a place goes to; or why that is not known."""
        named, (field, behind) = self.named_at(sec, off, self.case.arch.call.size), self.case.tables.branch_field
        if self.case.tables.left:  # a build tool leaves one that does nothing where it makes a NOP of a call
            named = [row for row in named if row[1] != self.case.arch.none]
        if len(named) != 1:
            return f"{len(named)} relocations write its branch, expected one"
        at, kind, to = named[0]
        if at != off + field or kind not in (self.modules.branch, *self.case.arch.loader.calls):
            return f"its branch has a relocation of type {kind} at {at:#x}, expected {self.modules.branch}"
        return replace(to, off=to.off + behind)

    def words(self, sec: int, off: int, n: int) -> U32:
        """Units of code as the file has them."""
        words: U32 = self.image.words(np.array([sec]), np.array([off]), 0, n)[0]
        return words

    def room(self, to: Place) -> int:
        """Bytes from a place to its section's end, as far as code is read."""
        return max(min(int(self.image.shdr["sh_size"][to.sec]) - to.off, MAX_CODE), 0)

    def code(self, to: Place) -> U32:
        """The units of a piece of code, up to the first instruction that returns."""
        if (to.sec, to.off) not in self._code:  # many sites go there
            units = self.words(to.sec, to.off, self.room(to) // self.case.arch.unit)
            first = starts(self.case.arch, units)
            ends = first[np.isin(units[first], self.case.tables.ends)]
            self._code[to.sec, to.off] = units[: int(ends[0]) + 1] if len(ends) else units
        return self._code[to.sec, to.off]

    def branches_of(self, to: Place) -> list[tuple[int, Place | str]]:
        """(CALL or JUMP, what it goes to or why that is not known) per direct branch in code, to the first jump; one by
        which it returns is left out."""
        if (to.sec, to.off) in self._ways:
            return self._ways[to.sec, to.off]
        ways = self._ways[to.sec, to.off] = list[tuple[int, Place | str]]()
        for off, kind in direct_branches(self.case.arch, self.code(to)):
            place = self.branch_at(to.sec, to.off + off)
            if kind != JUMP or not isinstance(place, Place) or self.name(place) not in self.case.tables.return_thunks:
                ways.append((kind, place))
            if kind == JUMP:
                break
        return ways

    def forks(self, to: Place) -> bool:
        """Whether a piece of code has a branch with a condition."""
        if (to.sec, to.off) not in self._forks:
            self._forks[to.sec, to.off] = conditional(self.case.arch, self.code(to))
        return self._forks[to.sec, to.off]

    def name(self, to: Place) -> str:
        """The name of the symbol that a place was named by."""
        return self.image.symbols.name(to.symbol)

    def jump_of(self, to: Place, sec: int) -> str | None:
        """The kernel's entry to which a place is the loader's jump, for a call in `sec`: core or init text."""
        modules, image = self.modules, self.image
        if not modules.trampolines or to.sec <= 0:
            return None
        there = [name for name in modules.trampolines if image.sections_named(name)]
        wanted = there[-1] if there and image.names[sec].startswith(".init") else modules.trampolines[0]
        number, rest = divmod(to.off, modules.jump)
        if image.names[to.sec] != wanted or rest or not 0 <= number < len(self.case.arch.entries):
            return None
        return self.case.arch.entries[number]

    def far_target(self, to: Place) -> int | None:
        """Where a far stub goes, with the kernel's TOC of the emulation; None where there is none."""
        read, toc = self.case.tables.far, self.loaded.memory.kernel_toc
        if read is None or to.sec <= 0 or toc is None:
            return None
        stub = read(self.words(to.sec, to.off, 5).tolist())
        return toc + stub[1] if stub else None

    def entry_va(self, to: Place, sec: int) -> int | None:
        """va in the emulation of the kernel's entry to which a place is the loader's jump, or a far stub."""
        jump = self.jump_of(to, sec)
        return self.far_target(to) if jump is None else self.loaded.fakes[jump]

    def is_ours(self, to: Place, sec: int) -> bool:
        """Whether a place is code of the patch that a call in `sec` may go to: init text is freed."""
        names = self.image.names
        if to.sec < len(self.case.before.image.shdr) and plain(names[to.sec]) not in OURS:
            return False
        return plain(names[to.sec]) == TEXT or (plain(names[to.sec]) == INIT_TEXT and names[sec].startswith(".init"))

    def name_of(self, to: Place) -> str:
        return f"{self.image.symbols.name(to.symbol)} ({self.image.names[to.sec] or 'undefined'}+{to.off:#x})"

    def tail_target(self, to: Place) -> Place | None:
        """The entry of the kernel's, or the stub that leads there, to which code of the patch goes on."""
        return next((place for _, place in self.branches_of(to)
                     if isinstance(place, Place) and self.entry_va(place, to.sec) is not None), None)  # fmt: skip

    @cached_property
    def hook(self) -> Code:
        """The stub that calls a hook."""
        return self.modules.hook(self.pairs.shape.out_of_line, self.image.names)

    @cached_property
    def hook_code(self) -> tuple[int, ...]:
        """Its code from the first instruction on, unit by unit."""
        return self.hook.words[self.hook.entry // self.hook.unit :]

    def kind_of(self, to: Place) -> str:
        """What known code stands at a place: `far`, `hook`, or another kind, which is empty."""
        if self.far_target(to) is not None:
            return "far"
        return "hook" if tuple(self.words(to.sec, to.off, len(self.hook_code)).tolist()) == self.hook_code else ""

    def hook_unfixed(self, to: Place) -> str:
        """Why the relocations of the hook's stub at a place are not those that it needs; empty where they are."""
        right = all(self._fixed(to, fixup, fixup.off - self.hook.entry) for fixup in self.hook.fixups)
        return "" if right else "the hook's stub is not relocated as it must be"

    def _fixed(self, to: Place, fixup: Fixup, off: int) -> bool:
        """Whether the hook's stub has the relocation that it needs, and no other, at an offset from its entry."""
        rows = self.named_at(to.sec, to.off + off, 8 if fixup.symbol == "toc" else 4)
        if len(rows) != 1 or rows[0][:2] != (to.off + off, fixup.kind):
            return False
        named, symbols = rows[0][2], self.image.symbols
        addend = named.off - int(symbols.rows["st_value"][named.symbol])
        name = symbols.name(named.symbol)
        if fixup.symbol == "toc":
            return name == self.modules.toc and addend == fixup.addend
        if fixup.symbol != "hook":
            return name == fixup.symbol and addend == fixup.addend
        outside = int(symbols.rows["st_shndx"][named.symbol]) == t.SHN_UNDEF
        code = outside or (named.sec > 0 and bool(self.image.executable[named.sec]))
        function = int(symbols.type[named.symbol]) in (0, t.STT_FUNC) and plain(self.image.names[named.sec]) not in OURS
        return addend == fixup.addend and bool(name) and function and code

    def is_freed(self, to: Place) -> bool:
        """Whether a place is in init memory."""
        return to.sec > 0 and self.image.names[to.sec].startswith(".init")

    def extent(self, to: Place) -> tuple[int, int]:
        """[first byte, end) of the piece of code at a place, with the data in front of it: as its symbol says."""
        if to.sec not in self._pieces:
            symbols = self.image.symbols
            rows = symbols.rows[(symbols.shndx == to.sec) & (symbols.type == t.STT_FUNC)]
            start = rows["st_value"].astype(np.int64)
            order = np.argsort(start, kind="stable")
            self._pieces[to.sec] = start[order], (start + rows["st_size"].astype(np.int64))[order]
        start, end = self._pieces[to.sec]
        at = int(np.searchsorted(start, to.off, side="right")) - 1
        if at < 0 or to.off >= end[at]:
            return to.off, to.off + self.case.arch.unit * len(self.code(to))
        return int(end[at - 1]) + 7 & ~7 if at else 0, int(end[at])

    def names_in(self, sec: int, low: int, high: int) -> Called:
        """The symbols that a range of code names in branches and in pointers; its own parts left out."""
        symbols, branches = self.image.symbols, (self.modules.branch, *self.case.arch.loader.calls)
        found: dict[bool, set[str]] = {True: set(), False: set()}
        for _, kind, place in self.named_at(sec, low, high - low):
            if kind not in (*branches, self.case.arch.abs64) or self.name(place) in self.case.tables.return_thunks:
                continue
            if (jump := self.jump_of(place, sec)) is not None:
                found[kind in branches].add(jump)
            elif plain(self.image.names[place.sec]) not in OURS and symbols.type[place.symbol] != t.STT_SECTION:
                found[kind in branches].add(symbols.name(place.symbol))
        return Called(frozenset(found[True]), frozenset(found[False]))

    def called(self, to: Place, sec: int) -> Called:
        """The symbols that a site's call leads to: the kernel's entry by the loader's jump, or what code of the patch
        branches to and has pointers to."""
        if (jump := self.jump_of(to, sec)) is not None:
            return Called(frozenset((jump,)))
        low, high = self.extent(to)
        if (to.sec, low) not in self._called:
            self._called[to.sec, low] = self.names_in(to.sec, low, high)
        return self._called[to.sec, low]

    # -- code of another kind ------------------------------------------------------------------------------------------

    def why_not_kept(self, to: Place, resume: tuple[int, int] | None) -> str:
        """Why code of the patch does not keep a site's contract; empty where it is shown to. resume: section and offset
        behind the site; None: of a site that is not known, where the code's own branch goes."""
        memory, last = self.loaded.memory, self.tail_target(to)
        if resume is None:
            names = [place for _, place in self.branches_of(to) if isinstance(place, Place) and place.sec > 0
                     and plain(self.image.names[place.sec]) not in OURS]  # fmt: skip
            resume = (names[-1].sec, names[-1].off) if names else None

        def read(va: int, n: int) -> U32:
            if self.case.arch.unit == 1:
                return np.frombuffer(memory.read(va & (1 << 64) - 1, n), dtype=np.uint8).astype(np.uint32)
            places = np.array([va + 4 * i & (1 << 64) - 1 for i in range(n)], dtype=np.uint64)
            code, there = memory.words(places)
            return code[: int(np.argmin(there))] if not there.all() else code

        va = self.loaded.va
        ends = va(*resume) if resume else None, va(last.sec, last.off) if last else None
        return self.case.arch.keeps_contract(read, va(to.sec, to.off), self.pairs.shape.out_of_line, *ends)
