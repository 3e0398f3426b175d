"""A patched module as its relocations tell it: what the branch at a place names, and what code stands there."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ftpatch.arch.proof_tables import CALL, JUMP
from ftpatch.arrays import U32
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import Relocations
from ftpatch.proof.case import Case
from ftpatch.proof.decoders import branches
from ftpatch.proof.emulate.loader import Loaded
from ftpatch.proof.module_relocations import addend_of
from ftpatch.proof.pairs import Pairs, rows_at, symbol_place
from ftpatch.proof.sections import INIT_TEXT, TEXT

OURS = (TEXT, INIT_TEXT)
MAX_CODE = 1 << 12  # bytes of one piece of code that are read


@dataclass(frozen=True)
class Branch:
    """What a relocated branch names."""

    symbol: int  # row in the symbol table
    sec: int  # section of the place; 0: in another file
    off: int  # byte offset in it


@dataclass
class Calls:
    """One look at a patched module."""

    case: Case
    pairs: Pairs
    loaded: Loaded
    _rows: dict[int, Relocations] = field(default_factory=dict)
    judged: dict[tuple[int, int], str] = field(
        default_factory=dict
    )  # (section, offset) of code → what is wrong with it
    forced: set[tuple[int, int]] = field(default_factory=set)  # code that is wrong, and called on purpose
    found: dict[int, tuple[int, frozenset[str]]] = field(default_factory=dict)  # pair → va of its ops, what is called

    @property
    def image(self) -> Image:
        return self.case.after.image

    def named_at(self, sec: int, off: int, size: int) -> list[tuple[int, int, int, Branch]]:
        """(offset, type, bytes, what it names) of every relocation that touches `size` bytes at a place."""
        rows, found = rows_at(self.image, sec, self._rows), []
        low, high = np.searchsorted(rows.off, off - 7), np.searchsorted(rows.off, off + size)
        for at in range(int(low), int(high)):
            if int(rows.off[at] + rows.size[at]) > off:
                symbol = int(rows.symbol[at])
                home, value = symbol_place(self.image, symbol)
                to = value + addend_of(self.case, int(rows.table[at]), int(rows.row[at]))
                found.append((int(rows.off[at]), int(rows.kind[at]), int(rows.size[at]), Branch(symbol, home, to)))
        return found

    def forced_code(self, to: Branch) -> bool:
        return (to.sec, to.off) in self.forced

    def branch_at(self, sec: int, off: int) -> Branch | str:
        """What the branch at a place goes to; or why that is not known."""
        modules = self.case.arch.modules
        assert modules is not None
        found = self.named_at(sec, off, 4)
        if len(found) != 1:
            return f"{len(found)} relocations write its branch, expected one"
        if found[0][0] != off or found[0][1] not in (modules.branch, *self.case.arch.loader.calls):
            return f"its branch has a relocation of type {found[0][1]} at {found[0][0]:#x}, expected {modules.branch}"
        return found[0][3]

    def words(self, sec: int, off: int, n: int) -> U32:
        """Instruction words as the file has them."""
        found: U32 = self.image.words(np.array([sec]), np.array([off]), 0, n)[0]
        return found


def jump_of(calls: Calls, to: Branch, sec: int) -> int | None:
    """Which of the loader's jumps a place is: in the section for core or for init text; None where it is none."""
    modules, image = calls.case.arch.modules, calls.image
    if modules is None or not modules.trampolines or to.sec <= 0:
        return None
    there = [name for name in modules.trampolines if image.sections_named(name)]
    wanted = there[-1] if there and image.names[sec].startswith(".init") else modules.trampolines[0]
    number, rest = divmod(to.off, modules.jump)
    if image.names[to.sec] != wanted or rest or not 0 <= number < len(calls.case.arch.entries):
        return None
    return number


def is_ours(calls: Calls, to: Branch, sec: int) -> bool:
    """Whether a place is code of the patch that a call in `sec` may go to: init text is freed."""
    names = calls.image.names
    if to.sec < len(calls.case.before.image.shdr) and names[to.sec] not in OURS:
        return False
    return names[to.sec] == TEXT or (names[to.sec] == INIT_TEXT and names[sec].startswith(".init"))


def name_of(calls: Calls, to: Branch) -> str:
    symbols = calls.image.symbols
    return f"{symbols.name(to.symbol)} ({calls.image.names[to.sec] or 'undefined'}+{to.off:#x})"


def far_target(calls: Calls, to: Branch) -> int | None:
    """Where a far stub goes, with the kernel's TOC of the emulation; None where there is none."""
    read, toc = calls.case.tables.far, calls.loaded.memory.kernel_toc
    if read is None or to.sec <= 0 or toc is None:
        return None
    found = read([int(word) for word in calls.words(to.sec, to.off, 5)])
    return toc + found[1] if found else None


def branches_of(calls: Calls, to: Branch) -> list[int]:
    """Offsets of the direct branches in code, from its start to its end."""
    found = []
    room = int(calls.image.shdr["sh_size"][to.sec]) - to.off
    words = calls.words(to.sec, to.off, max(min(room, MAX_CODE) // 4, 0))
    kinds, _ = branches(calls.case.arch, words)
    for number, (word, kind) in enumerate(zip(words.tolist(), kinds.tolist(), strict=True)):
        if kind in (CALL, JUMP):
            found.append(to.off + 4 * number)
        if word in calls.case.tables.ends or kind == JUMP:
            break
    return found


def called_names(calls: Calls, to: Branch, jump: int | None) -> frozenset[str]:
    """The symbols that a site's call leads to: the kernel's entry by the loader's jump, or what code of the patch
    branches to, its own parts left out."""
    entries, symbols, found = calls.case.arch.entries, calls.image.symbols, set()
    if jump is not None:
        return frozenset((entries[jump],))
    for off in branches_of(calls, to):
        one = calls.branch_at(to.sec, off)
        if not isinstance(one, Branch):
            continue
        if (number := jump_of(calls, one, to.sec)) is not None:
            found.add(entries[number])
        elif calls.image.names[one.sec] not in OURS and symbols.type[one.symbol] != t.STT_SECTION:
            found.add(symbols.name(one.symbol))
    return frozenset(found)


def tail_target(calls: Calls, to: Branch) -> Branch | None:
    """The entry of the kernel's, or the stub that leads there, to which code of the patch goes on."""
    for off in branches_of(calls, to):
        one = calls.branch_at(to.sec, off)
        if isinstance(one, Branch) and (jump_of(calls, one, to.sec) is not None or far_target(calls, one) is not None):
            return one
    return None
