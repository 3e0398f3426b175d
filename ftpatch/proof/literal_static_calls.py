"""Static calls whose trampolines read a pointer in memory: it and the key must hold the same function.

    key.func    the function, or 0
    literal     the function; for NULL what returns 0

Where a kernel moves itself, each pointer that is not 0 has one relocation, and one that is 0 has none.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ftpatch.arch.proof_tables import StaticTrampoline
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.image_tables import n_dynamic
from ftpatch.proof.case import Case, StaticCallee
from ftpatch.proof.emulate.expectation import RedirectExpectation
from ftpatch.proof.linked_static_calls import NULL, RETURN0_NAME, LinkedKeys

POINTER = 8


class Held(NamedTuple):
    """What a pointer holds once the kernel has relocated itself."""

    word: int  # in the file
    value: int
    n: int  # relocations that touch it


class LiteralKeys:
    """The static calls of a linked kernel."""

    def __init__(self, case: Case, keys: LinkedKeys, trampolines: StaticTrampoline) -> None:
        self.case, self.keys, self.trampolines = case, keys, trampolines

    def check(self) -> None:
        """Every key that, or whose literal, holds something else than it did."""
        old, new, table = self.case.before.image, self.case.after.image, self.keys.table
        secs, offs = table.trampolines
        for key in np.flatnonzero((table.keys.sec >= 0) & (secs >= 0)).tolist():
            va = self.keys.trampoline_va(key)
            code = new.content(int(secs[key]))[int(offs[key]) : int(offs[key]) + self.trampolines.size].tobytes()
            literal = self.trampolines.reads(code, va) if self.trampolines.reads else None
            places = (self.keys.key_va(key), literal or 0)
            pos = [new.pos_of_va(place) for place in places]
            if literal is None or min(pos) < 0:
                continue  # its code is no trampoline's: no byte of it may change
            was, now = ([_held(image, self.case, *place) for place in zip(places, pos, strict=True)]
                        for image in (old, new))  # fmt: skip
            if was != now:
                self.case.account_for("static call's key", [pos[0]], POINTER)
                self.case.account_for("static call's literal", [pos[1]], POINTER)
                self.case.static_pointers += places
                self._check(key, now, pos)

    def _check(self, key: int, now: list[Held], pos: list[int]) -> None:
        image = self.case.after.image
        func, literal = now
        return0 = image.symbols.value(RETURN0_NAME)
        moves = bool(len(image.rela[0])) or bool((image.shdr["sh_type"] == t.SHT_RELR).any())
        for held, place in zip(now, pos, strict=True):
            wanted = 1 if moves and held.value else 0
            if held.n != wanted:
                self.keys.say(key, f"its pointer {held.value:#x} is relocated {held.n} times, expected {wanted}", place)
                return
        if not func.value and literal.value == return0:
            self.case.set_calls[self.keys.name(key)] = StaticCallee(NULL)
        elif func.value != literal.value:
            self.keys.say(key, f"its key holds {func.value:#x}, its trampoline goes to {literal.value:#x}", pos[1])
        else:
            self.keys.check_function(key, func.value, pos[0])
            name, va = f"__SCT__{self.keys.name(key)}", self.keys.trampoline_va(key)
            if literal.word == literal.value:
                self.case.expectations.append(RedirectExpectation(name, va, func.value))
            else:
                self.case.unclaimed.append(f"{name}: it reads what the kernel writes when it relocates itself")


def _held(image: Image, case: Case, va: int, pos: int) -> Held:
    word = int.from_bytes(image.data[pos : pos + POINTER].tobytes(), "little")
    rows = image.rela[0]
    mine = rows[(rows["r_offset"] == np.uint64(va)) & ((rows["r_info"] & np.uint64(0xFFFF_FFFF)) == case.arch.relative)]
    n = int(n_dynamic(image, np.array([va], dtype=np.uint64), POINTER)[0])
    value = int(mine["r_addend"][0]) & (1 << 64) - 1 if len(mine) else word
    return Held(word, value, n)
