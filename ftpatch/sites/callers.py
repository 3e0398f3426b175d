"""Callers that know which registers a function with a site leaves alone, and keep values there over the call (IPA-RA).

    long r = leaf(a + 1);       leaf() writes x0 alone, so that its caller keeps b … f in x1 … x6 and reads them behind
    return r + a*b + c*d;       the call. A hook at leaf() that changes x3 changes the result of its caller

gcc does that within a unit (with LTO: within a program), but not where it was told by an option that functions get
sites; an attribute alone does not stop it. What is seen in the code is: a register that calls may change is read behind
a direct call before anything writes it, it was written before, and the callee, with all that it calls, leaves it alone.
What cannot be followed is not known, and then nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ftpatch.arch.register_use import CallerRegisters
from ftpatch.arrays import I64
from ftpatch.elf.c_types import AGGREGATES, Kind, Prototype
from ftpatch.elf.compiler_units import debug_info_size
from ftpatch.elf.function_types import FunctionTypes
from ftpatch.sites.direct_calls import DirectCalls, direct_calls
from ftpatch.sites.register_changes import MAX_BODY, MAX_DEPTH, RegisterChanges, with_name
from ftpatch.sites.register_reader import RegisterReader
from ftpatch.sites.table import SiteTable
from ftpatch.sites.units import UnitTable

MANY = 16  # functions of a file of which half have sites by an option, and not by as many attributes
SOME = 6  # functions that all have one
MAX_BEHIND = 96  # instructions that are looked at behind a call
MAX_CALLS = 1 << 15  # that are looked at
MAX_DEBUG = 4 << 20  # bytes of debug information of a relocatable file that are read
WORD = 8  # bytes of a register
KERNELS = ("vmlinux", "module")  # kinds of files that one build makes with the same switches


class Reliance(NamedTuple):
    """A call behind which its caller finds values in registers that a call may change."""

    site: int  # index in the site table
    caller: str  # the function that calls
    call_va: int
    registers: int  # which ones, as bits
    through: tuple[str, ...]  # functions between the caller and that with the site


@dataclass(eq=False)
class Callers:
    """The callers of the functions of a site table."""

    table: SiteTable

    @cached_property
    def reader(self) -> RegisterReader:
        return RegisterReader(self.table.image)

    @property
    def registers(self) -> CallerRegisters | None:
        """The machine's registers; None where nothing here knows them."""
        return self.reader.registers

    @cached_property
    def told_off(self) -> str:
        """What shows that a kernel or module was built by an option that keeps callers from that; empty: nothing does,
        or not for the whole file."""
        if self.table.image.kind not in KERNELS or not self._usual:
            return ""
        n_sites, n = self._counts
        return f"{n_sites} of {n} functions have sites, as the option makes them and no attribute"

    @cached_property
    def _counts(self) -> tuple[int, int]:
        """(functions with a site, all functions of the sections where some have one: those of .exit.text never do)."""
        image, own = self.table.image, self.table.func[self._with_name]
        sec = image.symbols.shndx[image.functions.row]
        here = np.isin(sec, np.unique(sec[own])) if len(own) else np.zeros(len(sec), dtype=bool)
        return len(np.unique(image.functions.va[own])), len(np.unique(image.functions.va[here]))

    @property
    def _usual(self) -> bool:
        """Whether sites are what functions of this file have, so that an option gave them."""
        n_sites, n = self._counts
        return (n >= MANY and 2 * n_sites >= n) or (n >= SOME and n_sites == n)

    @cached_property
    def _with_name(self) -> I64:
        """Sites at functions."""
        return with_name(self.table)

    @cached_property
    def _with_site(self) -> frozenset[int]:
        """Addresses of the functions that have a site."""
        return frozenset(self.table.entry_va[self._with_name].tolist())

    def relied_on(self, index: I64) -> Iterator[Reliance]:
        """What the callers of these sites' functions count on; nothing where `told_off` says why not."""
        if self.told_off or self.registers is None:
            return
        named = index[np.isin(index, self._with_name)]
        sites: dict[int, int] = {}
        for site, function in zip(named.tolist(), self.table.func[named].tolist(), strict=True):
            sites.setdefault(function, site)
        frontier: dict[int, tuple[int, tuple[str, ...]]] = {function: (site, ()) for function, site in sites.items()}
        known, n_calls = set(frontier), 0
        for _ in range(MAX_DEPTH):
            following: dict[int, tuple[int, tuple[str, ...]]] = {}
            for function, (site, through) in frontier.items():
                for va, jump in self._calls_of(function):
                    n_calls += 1
                    caller = self._function_at(va)
                    if caller < 0 or n_calls > MAX_CALLS or not self._may_share(caller):
                        continue
                    if not jump and (found := self._behind(va, caller, function)):
                        yield Reliance(site, self._name(caller), va, found, through)
                    if caller not in known and self._leaves_some(caller):
                        known.add(caller)
                        following[caller] = (site, (self._name(caller), *through))
            frontier = following

    def text(self, reliance: Reliance, registers: int) -> str:
        """`its caller big keeps values in x9, x10 over the call at .text+0x48 (IPA-RA)`."""
        assert self.registers is not None
        sec, off = self.table.image.place(np.array([reliance.call_va], dtype=np.uint64))
        over = f"the call of {reliance.through[0]}, which comes to it," if reliance.through else "the call"
        return (
            f"its caller {reliance.caller} keeps values in {self.registers.text(registers)} over {over} at "
            f"{self.table.image.names[int(sec[0])]}+{int(off[0]):#x} (IPA-RA)"
        )

    # -- who calls -------------------------------------------------------------------------------------------------

    @cached_property
    def _calls(self) -> DirectCalls:
        return direct_calls(self.table.image)

    def _calls_of(self, function: int) -> list[tuple[int, bool]]:
        """(va, whether it is a jump) of the calls of a function."""
        low, high = np.searchsorted(self._calls.to, [function, function + 1])
        return list(zip(self._calls.va[low:high].tolist(), self._calls.jump[low:high].tolist(), strict=True))

    def _function_at(self, va: int) -> int:
        return int(self.table.image.functions.containing(np.array([va], dtype=np.uint64))[0])

    def _name(self, function: int) -> str:
        return self.table.image.symbols.name(int(self.table.image.functions.row[function]))

    @cached_property
    def _units(self) -> UnitTable | None:
        image = self.table.image
        if not image.linked and debug_info_size(image) > MAX_DEBUG:  # all of it would have to be relocated
            return None
        return UnitTable(self.table) if debug_info_size(image) else None

    def _may_share(self, function: int) -> bool:
        """Whether the unit of a function may have been compiled so: by its switches or, where these are not known, by
        its having no site where most functions have one."""
        if self._units is None:
            return not (self._usual and self.table.image.functions.bounds(function)[0] in self._with_site)
        unit = int(self._units.of_functions[function])
        producer = self._units.units[unit].producer if unit >= 0 else None
        return producer is None or producer.shares_registers is not False

    # -- what is behind a call -------------------------------------------------------------------------------------

    def _behind(self, call_va: int, caller: int, callee: int) -> int:
        """The registers that the caller counts on over one call."""
        registers = self.registers
        assert registers is not None
        seen = self.reader.at(call_va)
        if seen is None or seen.flow != "call":
            return 0
        behind = call_va + seen.size
        read = self._read_behind(behind, caller, registers.lost, {})
        read = read and read & ~self._changes.of(callee)
        read = read and self._not_of_result(read, callee)
        if not read:  # nearly always; what follows takes longer
            return 0
        written, ways = self._around(call_va, caller)
        if not ways.get(call_va) or ways.get(behind, 0) > 1:
            return 0  # no instruction of the caller; or other code comes to what is behind it, which says nothing then
        return self._read_behind(behind, caller, read & written, ways)

    def _not_of_result(self, read: int, callee: int) -> int:
        """Those of some registers, which the callee leaves alone and its caller reads, that are no part of a result.

        A function may return what it was called with, and then writes none of it: only its type tells.
        """
        registers = self.registers
        assert registers is not None
        (number, _), (floating, _), *_ = registers.results
        row = int(self.table.image.functions.row[callee])
        others = read & ~registers.of_results
        prototype = self._types.prototype(row) if read & registers.of_results else None
        if not isinstance(prototype, Prototype):
            # where others show it, the rest of a result that the callee only begins is likely one more of them
            return others and others | read & registers.rest_of_results(self._changes.of(callee))
        result = prototype.result
        if result.kind is Kind.VOID:
            return read
        if result.kind in AGGREGATES or result.kind is Kind.UNKNOWN or (result.size or WORD + 1) > WORD:
            return others
        return read & ~(1 << (floating if result.kind is Kind.FLOAT else number))

    @cached_property
    def _types(self) -> FunctionTypes:
        return FunctionTypes(self.table.image)

    def _read_behind(self, va: int, caller: int, live: int, ways: dict[int, int]) -> int:
        """Those of some registers that are read from an address on before they are written, on some path.

        ways: by how many ways one comes to an instruction; where paths join nothing is followed, since what one of them
        leaves may be read only on the other's behalf.
        """
        low, high = self.table.image.functions.bounds(caller)
        todo, known, found, n_left = [(va, live)], dict[int, int](), 0, MAX_BEHIND
        while todo and n_left:
            at, live = todo.pop()
            while n_left and low <= at < high and live & ~known.get(at, 0) and ways.get(at, 1) <= 1:
                known[at] = known.get(at, 0) | live
                n_left -= 1
                use = self.reader.at(at)
                if use is None:
                    break
                found |= use.reads & live
                live &= ~use.writes
                if use.flow in ("call", "return", "end"):
                    break
                if use.flow == "branch" and use.to is not None:
                    todo.append((use.to, live))
                at = use.to if use.flow == "jump" and use.to is not None else at + use.size
        return found

    def _around(self, call_va: int, caller: int) -> tuple[int, dict[int, int]]:
        """(the registers that the caller may have values in before a call, by how many ways one comes to each of its
        instructions: from the one in front, and by direct branches)."""
        low, high = self.table.image.functions.bounds(caller)
        assert self.registers is not None
        written, at, ways = self.registers.arguments, low, {low: 1}
        for _ in range(MAX_BODY):
            if at >= high:
                break
            use = self.reader.at(at)
            if use is None:  # where instructions are words, one that is not known hides no other
                if self.table.image.arch.unit == 1:
                    break
                at += self.table.image.arch.unit
                ways[at] = ways.get(at, 0) + 1
                continue
            if at < call_va:
                written |= use.writes
            if use.flow in ("jump", "branch") and use.to is not None:
                ways[use.to] = ways.get(use.to, 0) + 1
            at += use.size
            if use.flow not in ("jump", "return", "end"):
                ways[at] = ways.get(at, 0) + 1
        return written, ways

    def _leaves_some(self, function: int) -> bool:
        """Whether a function, with all that it calls, leaves registers alone that calls may change."""
        assert self.registers is not None
        return bool(self.registers.lost & ~self._changes.of(function))

    @cached_property
    def _changes(self) -> RegisterChanges:
        return RegisterChanges(self.table, self.reader, self._calls)
