"""Static calls of a linked kernel that were set: key and trampoline lead to the same function.

key.func     the function, or 0
trampoline   a jump to it; a return, or a jump to the return thunk, where it is 0
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arch.proof_tables import BIT64, StaticTrampoline
from ftpatch.elf.image import Image
from ftpatch.kernel.init_text import in_init_text
from ftpatch.kernel.noreturn import NORETURN
from ftpatch.proof.case import Case, StaticCallee
from ftpatch.proof.changes import Runs
from ftpatch.proof.emulate.expectation import RedirectExpectation
from ftpatch.proof.redirects import Landing, function_at, what_is_at
from ftpatch.proof.static_call_relocations import check_kept
from ftpatch.sites.static_calls import StaticCallTable

POINTER = 8
NULL, RETURN0, RETURN0_NAME = "NULL", "return0", "__static_call_return0"


@dataclass(frozen=True)
class LinkedKeys:
    """The static calls of a linked kernel."""

    case: Case
    table: StaticCallTable  # of the second file
    trampolines: StaticTrampoline

    @property
    def image(self) -> Image:
        return self.case.after.image

    def check(self, runs: Runs) -> None:
        keys, image = self.table.keys, self.image
        key_pos = image.pos(keys.sec, keys.off)
        pos = image.pos(*self.table.trampolines)
        known = (key_pos >= 0) & (pos >= 0)
        changed = known & (runs.touch(key_pos, POINTER) | runs.touch(pos, self.trampolines.code))
        for key in np.flatnonzero(changed).tolist():
            self.case.account_for("static call's key", [int(key_pos[key])], POINTER)
            self.case.account_for("static call's trampoline", [int(pos[key])], self.trampolines.code)
            self._check(key, int(key_pos[key]), int(pos[key]))

    def _check(self, key: int, key_pos: int, pos: int) -> None:
        """One key, at its file position, whose trampoline is at `pos`."""
        data, trampolines = self.image.data, self.trampolines
        func = int.from_bytes(data[key_pos : key_pos + POINTER].tobytes(), "little")
        va = self.trampoline_va(key)
        to = trampolines.leads_to(data[pos : pos + trampolines.size].tobytes(), va)
        thunk = self.image.symbols.value(trampolines.thunk)
        if to is None:
            self.say(key, "its trampoline is none that the kernel knows", pos)
        elif func == 0 and to in (0, thunk):
            self._check_return(key, va, to, pos)
            self.case.set_calls[self.name(key)] = StaticCallee(NULL)
        elif func != to:
            shown = "returns" if to in (0, thunk) else f"goes to {to:#x}"
            self.say(key, f"its key holds {func:#x}, its trampoline {shown}", pos)
        else:
            self.check_function(key, func, key_pos)
            self.case.expectations.append(RedirectExpectation(f"__SCT__{self.name(key)}", va, func))
        places = [(int(self.table.keys.sec[key]), self.key_va(key), func, 0)]
        field = va + trampolines.field
        places.append((int(self.table.trampolines[0][key]), field, to or 0, trampolines.code - trampolines.field))
        check_kept(self.case, self.name(key), places)

    def check_function(self, key: int, func: int, key_pos: int) -> None:
        """Whether what a key holds is a function that its sites may call."""
        landing = function_at(self.image, func)
        if landing is None or landing.entry != landing.va:
            self.say(key, f"it calls {func:#x}, {what_is_at(self.image, func)}", key_pos)
            return
        returns0 = func == self.image.symbols.value(RETURN0_NAME)
        self.case.set_calls[self.name(key)] = StaticCallee(RETURN0 if returns0 else landing.name, func)
        if why := self._why_not(key, landing):
            self.say(key, f"it calls {landing.name}, {why}", key_pos)

    def _why_not(self, key: int, landing: Landing) -> str:
        from ftpatch.kernel import callee

        case = self.case
        if landing.name in (*case.arch.entries, *(shape.called for shape in case.arch.shapes)):
            return "which is called from patch sites alone"
        if landing.name.startswith("__SCT__"):
            return "which is a trampoline"
        if why := callee.why_no_function(self.image, landing.row):
            return f"which is {why}"
        calls = self.table.calls
        sites = self.image.va(calls.sec, calls.off)[calls.key == key]
        if callee.is_freed(self.image, landing.row) and not (len(sites) and in_init_text(self.image, sites).all()):
            return "which is freed with init memory"
        if landing.name in NORETURN or callee.why_never_returns(case.types, landing.row):
            return "which never returns"
        return ""

    def _check_return(self, key: int, va: int, to: int, pos: int) -> None:
        """A jump to the return thunk must be one that the kernel knows as a return: it warns of others."""
        image = self.image
        start, stop = (image.symbols.value(name) for name in self.trampolines.returns)
        at = image.pos_of_va(start) if start is not None else -1
        if not to or start is None or stop is None or at < 0:
            return
        octets = image.data[at : at + max(stop - start, 0)]
        words = octets[: len(octets) // 4 * 4].view("<i4").astype(np.int64)
        places = np.uint64(start).view(np.int64) + 4 * np.arange(len(words), dtype=np.int64) + words
        if not (places == np.uint64(va).view(np.int64)).any():
            why = f"and is not in {self.trampolines.returns[0]}: the kernel warns of it"
            self.say(key, f"its trampoline jumps to {self.trampolines.thunk}, {why}", pos)

    def key_va(self, key: int) -> int:
        keys = self.table.keys
        return int(self.image.base[keys.sec[key]]) + int(keys.off[key]) & BIT64

    def trampoline_va(self, key: int) -> int:
        sec, off = self.table.trampolines
        return int(self.image.base[sec[key]]) + int(off[key]) & BIT64

    def name(self, key: int) -> str:
        return self.table.keys.name[key]

    def say(self, key: int, message: str, pos: int) -> None:
        self.case.say("verify-static-call", f"{self.name(key)}: {message}", pos=pos)
