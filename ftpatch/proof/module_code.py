"""A patched module as its relocations tell it: what the branch at a place names, and which code is there."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ftpatch.arch.parts import Modules
from ftpatch.arch.proof_tables import JUMP
from ftpatch.arrays import U32
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import Relocations, relocations_of
from ftpatch.proof.case import Case, Pairs
from ftpatch.proof.emulate.loader import Loaded
from ftpatch.proof.sections import INIT_TEXT, TEXT

OURS = (TEXT, INIT_TEXT)
MAX_CODE = 1 << 12  # bytes of one piece of code that are read


@dataclass(frozen=True)
class Place:
    """What a relocation names."""

    symbol: int  # row in the symbol table
    sec: int  # section of the place; 0: in another file
    off: int  # byte offset in it


@dataclass
class Calls:
    """One look at a patched module."""

    case: Case
    pairs: Pairs
    modules: Modules
    loaded: Loaded  # as the emulation has it
    judged: dict[tuple[int, int], str] = field(default_factory=dict)  # (section, offset) of code → what is wrong there
    forced: set[tuple[int, int]] = field(default_factory=set)  # code that is wrong, and called on purpose
    ends: dict[int, tuple[int, frozenset[str]]] = field(default_factory=dict)  # pair → va of its ops, what is called
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
        named = self.named_at(sec, off, 4)
        if len(named) != 1:
            return f"{len(named)} relocations write its branch, expected one"
        at, kind, to = named[0]
        if at != off or kind not in (self.modules.branch, *self.case.arch.loader.calls):
            return f"its branch has a relocation of type {kind} at {at:#x}, expected {self.modules.branch}"
        return to

    def words(self, sec: int, off: int, n: int) -> U32:
        """Instruction words as the file has them."""
        words: U32 = self.image.words(np.array([sec]), np.array([off]), 0, n)[0]
        return words

    def room(self, to: Place) -> int:
        """Bytes from a place to its section's end, as far as code is read."""
        return max(min(int(self.image.shdr["sh_size"][to.sec]) - to.off, MAX_CODE), 0)

    def code(self, to: Place) -> U32:
        """The words of a piece of code, up to the first that returns."""
        words = self.words(to.sec, to.off, self.room(to) // 4)
        ends = np.isin(words, self.case.tables.ends)
        return words[: int(np.argmax(ends)) + 1] if ends.any() else words

    def branches_of(self, to: Place) -> list[tuple[int, Place | str]]:
        """(CALL or JUMP, what it goes to or why that is not known) per direct branch in code, to the first jump."""
        kinds, ways = self.case.tables.branches(self.code(to))[0], []
        for number in np.flatnonzero(kinds).tolist():
            ways.append((int(kinds[number]), self.branch_at(to.sec, to.off + 4 * number)))
            if kinds[number] == JUMP:
                break
        return ways

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
        if to.sec < len(self.case.before.image.shdr) and names[to.sec] not in OURS:
            return False
        return names[to.sec] == TEXT or (names[to.sec] == INIT_TEXT and names[sec].startswith(".init"))

    def name_of(self, to: Place) -> str:
        return f"{self.image.symbols.name(to.symbol)} ({self.image.names[to.sec] or 'undefined'}+{to.off:#x})"

    def tail_target(self, to: Place) -> Place | None:
        """The entry of the kernel's, or the stub that leads there, to which code of the patch goes on."""
        return next((place for _, place in self.branches_of(to)
                     if isinstance(place, Place) and self.entry_va(place, to.sec) is not None), None)  # fmt: skip

    def called_names(self, to: Place, sec: int) -> frozenset[str]:
        """The symbols that a site's call leads to: the kernel's entry by the loader's jump, or what code of the patch
        branches to, its own parts left out."""
        if (jump := self.jump_of(to, sec)) is not None:
            return frozenset((jump,))
        symbols, names = self.image.symbols, set()
        for place in (place for _, place in self.branches_of(to) if isinstance(place, Place)):
            if (jump := self.jump_of(place, to.sec)) is not None:
                names.add(jump)
            elif self.image.names[place.sec] not in OURS and symbols.type[place.symbol] != t.STT_SECTION:
                names.add(symbols.name(place.symbol))
        return frozenset(names)
