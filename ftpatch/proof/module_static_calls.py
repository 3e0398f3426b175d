"""Static calls of a module that were set: what its loader will write into key and trampoline.

key.func     a pointer to the function; no relocation: NULL
trampoline   a jump with a relocation; a return, or a jump to the return thunk, for NULL
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ftpatch.arch.proof_tables import StaticTrampoline
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import Relocations, relocations_of
from ftpatch.proof.case import Case, StaticCallee
from ftpatch.proof.redirects import function_at
from ftpatch.sites.static_calls import StaticCallTable

NULL, RETURN0, RETURN0_NAME = "NULL", "return0", "__static_call_return0"


class Written(NamedTuple):
    """What a loader writes at a place: a symbol of another file, or a place in the module."""

    kind: int  # relocation type
    symbol: int  # row of one of another file; −1: of the module
    sec: int  # −1: of another file
    off: int

    @property
    def goal(self) -> tuple[int, int, int]:
        return self.symbol, self.sec, self.off


TWICE = Written(-1, -1, -1, 0)  # of several relocations at one place


class ModuleKeys:
    """The static calls of a module in both files."""

    def __init__(self, case: Case, table: StaticCallTable, trampolines: StaticTrampoline) -> None:
        self.case, self.table, self.trampolines = case, table, trampolines
        self._known: dict[tuple[int, int], Relocations] = {}

    def check(self) -> None:
        """Every key whose relocations, or whose trampoline's code, are others than they were."""
        old, new, keys = self.case.before.image, self.case.after.image, self.table.keys
        secs, offs = self.table.trampolines
        own = (keys.sec >= 0) & (secs >= 0)
        if self.trampolines.reads is not None:
            for key in np.flatnonzero(own).tolist():
                self._check_literal(key, int(secs[key]), int(offs[key]))
            return
        self.case.static_places |= {
            *zip(keys.sec[own].tolist(), keys.off[own].tolist(), strict=True),
            *zip(secs[own].tolist(), (offs[own] + self.trampolines.field).tolist(), strict=True),
        }
        for key in np.flatnonzero(own).tolist():
            sec, off = int(secs[key]), int(offs[key])
            places = ((int(keys.sec[key]), int(keys.off[key])), (sec, off + self.trampolines.field))
            was, now = ([self._written(image, *place) for place in places] for image in (old, new))
            codes = [self._code(image, sec, off) for image in (old, new)]
            if (was, codes[0]) != (now, codes[1]):
                pos = int(old.pos(np.array([sec]), np.array([off]))[0])
                self.case.account_for("static call's trampoline", [pos], self.trampolines.code)
                relocated = slice(self.trampolines.field, self.trampolines.code)
                if was[1] and now[1] and codes[0][relocated] != codes[1][relocated]:
                    self._say(
                        key, "bytes of its trampoline are changed that its loader writes, and wants as built", pos
                    )
                self._check(key, now, codes[1], pos)

    def _check_literal(self, key: int, sec: int, off: int) -> None:
        """One key whose trampoline reads a pointer, if that or the key's own changed."""
        old, new, keys = self.case.before.image, self.case.after.image, self.table.keys
        read = self._written(old, sec, off + self.trampolines.field)  # whose relocation may not change
        if read is None or read.sec < 0:
            return
        places = (int(keys.sec[key]), int(keys.off[key])), (read.sec, read.off)
        self.case.static_places |= set(places)
        was, now = ([self._written(image, *place) for place in places] for image in (old, new))
        if was == now:
            return
        (func, literal), pos = now, int(old.pos(np.array([read.sec]), np.array([read.off]))[0])
        if literal is None or {part.kind for part in now if part} != {self.case.arch.abs64}:
            self._say(key, "its trampoline reads a pointer that the loader does not fill", pos)
        elif func is None and self._is(literal, RETURN0_NAME):
            self.case.set_calls[self.name(key)] = StaticCallee(NULL)
        elif func is None or func.goal != literal.goal:
            held = "is NULL" if func is None else f"holds {self._text(func)}"
            self._say(key, f"its key {held}, its trampoline goes to {self._text(literal)}", pos)
        else:
            self._check_function(key, func, pos)

    def _code(self, image: Image, sec: int, off: int) -> bytes:
        return image.content(sec)[off : off + self.trampolines.size].tobytes()

    def _written(self, image: Image, sec: int, off: int) -> Written | None:
        which = (id(image), sec)
        if which not in self._known:
            self._known[which] = relocations_of(image, sec)
        rows = self._known[which]
        low, high = (int(at) for at in np.searchsorted(rows.off, [off, off + 1]))
        real = low + np.flatnonzero(rows.kind[low:high] != image.arch.none)
        if len(real) != 1:
            return TWICE if len(real) else None
        at = int(real[0])
        symbol = int(rows.symbol[at])
        addend = int(image.rows(int(rows.table[at]), t.RELA)["r_addend"][int(rows.row[at])])
        of = int(image.symbols.shndx[symbol])
        value = int(image.symbols.rows["st_value"][symbol]) if of > 0 else 0
        return Written(int(rows.kind[at]), -1 if of > 0 else symbol, of if of > 0 else -1, value + addend)

    def _check(self, key: int, now: list[Written | None], code: bytes, pos: int) -> None:
        """One key that changed: what is written into it and into its trampoline, which has this code."""
        func, jump = now
        arch, size = self.case.arch, self.trampolines.code - self.trampolines.field
        to = self.trampolines.leads_to(code, 0)
        if to is None or (to == 0 and jump is not None) or (to and jump is None):
            self._say(key, "its trampoline is none that the kernel knows", pos)
            return
        if (func and func.kind != arch.abs64) or (jump and jump.kind not in arch.direct_calls):
            self._say(key, "a relocation of it has a type that is none of a key or a jump", pos)
            return
        goal = jump._replace(off=jump.off + size) if jump else None
        if func is None:
            if goal is None or self._is(goal, self.trampolines.thunk):
                self.case.set_calls[self.name(key)] = StaticCallee(NULL)
            else:
                self._say(key, f"its key is NULL, its trampoline goes to {self._text(goal)}", pos)
        elif goal is None or goal.goal != func.goal:
            there = "returns" if goal is None else f"goes to {self._text(goal)}"
            self._say(key, f"its key holds {self._text(func)}, its trampoline {there}", pos)
        else:
            self._check_function(key, func, pos)

    def _check_function(self, key: int, func: Written, pos: int) -> None:
        from ftpatch.kernel import callee

        image, name = self.case.after.image, self._text(func)
        returns0 = self._is(func, RETURN0_NAME)
        self.case.set_calls[self.name(key)] = StaticCallee(RETURN0 if returns0 else name)
        if func.sec < 0:
            if func.off:
                self._say(key, f"it calls {name}, which is the middle of a function", pos)
            return
        landing = function_at(image, int(image.base[func.sec]) + func.off)
        calls, why = self.table.calls, ""
        sites = calls.sec[calls.key == key].tolist()
        if landing is None:
            why = "where no function begins"
        elif landing.name.startswith("__SCT__"):
            why = "which is a trampoline"
        elif no_function := callee.why_no_function(image, landing.row):
            why = f"which is {no_function}"
        elif callee.is_freed(image, landing.row) and not (
            sites and all(image.names[sec].startswith(".init") for sec in sites)
        ):
            why = "which is freed once the module runs"
        elif callee.why_never_returns(self.case.types, landing.row):
            why = "which never returns"
        if why:
            self._say(key, f"it calls {name}, {why}", pos)

    def _is(self, goal: Written, name: str) -> bool:
        return goal.symbol >= 0 and not goal.off and self.case.after.image.symbols.name(goal.symbol) == name

    def _text(self, goal: Written) -> str:
        image = self.case.after.image
        if goal.symbol >= 0:
            return image.symbols.name(goal.symbol) + (f"{goal.off:+#x}" if goal.off else "")
        landing = function_at(image, int(image.base[goal.sec]) + goal.off)
        return landing.name if landing else f"{image.names[goal.sec]}+{goal.off:#x}"

    def name(self, key: int) -> str:
        return self.table.keys.name[key]

    def _say(self, key: int, message: str, pos: int) -> None:
        self.case.say("verify-static-call", f"{self.name(key)}: {message}", pos=pos)
