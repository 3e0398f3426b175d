"""Where the calls of a program's sites end: in a function of the file that keeps a site's contract, in one that it
imports, or in a stub that calls a C function.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ftpatch.arch.program_parts import programs_of
from ftpatch.arch.program_proof import StubRead, program_proof
from ftpatch.arch.proof_tables import CALL
from ftpatch.arch.shape import Shape
from ftpatch.arrays import I64
from ftpatch.elf.image import Image
from ftpatch.proof.case import NEW, Case, Pairs, SiteCalls
from ftpatch.proof.decoders import both
from ftpatch.proof.emulate.expectation import CallExpectation
from ftpatch.proof.emulate.program_memory import program_memory
from ftpatch.proof.program_imports import Imports

LAZY = "which the loader looks up when it is first called, and changes registers then (no BIND_NOW)"
CIRCLE = "what it calls is patched, and comes back to it: the two call each other for ever"

# why a site is not executed
FORCED, NO_ROOM = "what it calls was taken by force", "the program leaves no room for a stack between its segments"


@dataclass(frozen=True)
class ProgramTarget:
    """Where a call ends."""

    va: int  # of the function; of the slot with its address, where a stub calls one that is imported
    name: str
    function: int | None = None  # va of the C function, where a stub calls one
    row: int = -1  # of the function's symbol; −1 where it is imported
    why: str = ""  # a reason against it
    doubt: str = ""  # a reason that --force-target overrides


@dataclass
class ProgramTargets:
    """The call targets of the second file, each looked at once."""

    case: Case
    stubs: Mapping[int, StubRead]
    imports: Imports
    pads: bool = False  # whether pads call them, whose hooks get the entry of the function
    shape: Shape | None = None  # of the sites that call them
    _known: dict[int, ProgramTarget] = field(default_factory=dict)

    @property
    def image(self) -> Image:
        return self.case.after.image

    def at(self, va: int) -> ProgramTarget:
        """What stands at `va`."""
        if va not in self._known:
            stub = self.stubs.get(va)
            self._known[va] = self._direct(va) if stub is None else self._behind(stub)
        return self._known[va]

    def _direct(self, va: int) -> ProgramTarget:
        row = self.function(va)
        if row is None:
            slot = self.imports.stub(va)
            if slot is None:
                return ProgramTarget(va, f"{va:#x}", why="where no function begins")
            doubt = "whose code is in another file"
            return ProgramTarget(va, f"{slot.name}@plt", why=LAZY if slot.lazy else "", doubt=doubt)
        reason = self._why_not_kept(va)
        doubt = f"which was not shown to keep a site's contract ({reason})" if reason else ""
        return ProgramTarget(va, self.image.symbols.name(row), row=row, doubt=doubt, why=self._other(row))

    def _why_not_kept(self, va: int) -> str:
        """Why code is not shown to keep what a site wants kept; empty where it is."""
        if self.shape is not None and self.shape.library:
            return self.image.arch.keeps_contract(self.image.code, va, False, library=True)
        programs = programs_of(self.case.arch)
        return programs.keeps_contract(self.image.code, va) if programs else "nothing here can tell what its code does"

    def _behind(self, stub: StubRead) -> ProgramTarget:
        """What a stub calls."""
        assert stub.call is not None
        va = stub.call.va
        if stub.first is not None and not self.pads:
            return ProgramTarget(va, f"{va:#x}", why="by a stub for pads")
        if stub.deep != (self.shape is not None and self.shape.anywhere):
            where = "behind a prologue" if stub.deep else "at the entries of functions"
            return ProgramTarget(va, f"{va:#x}", why=f"by a stub for sites {where}")
        if stub.call.slot:
            slot = self.imports.slots.get(va)
            if slot is None:
                return ProgramTarget(va, f"{va:#x}", why="by a stub that calls through a word which no import fills")
            return ProgramTarget(va, f"{slot.name}@plt", va)
        row = self.function(va)
        if row is None:
            return ProgramTarget(va, f"{va:#x}", va, why="by a stub that calls it where no function begins")
        return ProgramTarget(va, self.image.symbols.name(row), va, row, why=self._other(row))

    def function(self, va: int) -> int | None:
        """The symbol of the function that has an entry at an address; None where none has."""
        functions, place = self.image.functions, np.array([va], dtype=np.uint64)
        for low, high in (functions.at(place), functions.at_local(place)):
            if low[0] < high[0]:
                return int(functions.row[low[0]])
        symbols = self.image.symbols  # assembly need not say of a label that it is a function
        labels = np.flatnonzero((symbols.rows["st_value"] == place[0]) & (symbols.shndx > 0) & (symbols.type == 0))
        named = [row for row in labels.tolist() if not symbols.name(row).startswith("$")]
        return named[0] if named and len(self.image.code(va, 1)) else None

    def _other(self, row: int) -> str:
        """Why a function must not be called as C functions are; empty where it may."""
        return self.other_calls(row) and f"{self.image.symbols.name(row)}, which {self.other_calls(row)}"

    def other_calls(self, row: int) -> str:
        machine = program_proof(self.case.arch)
        return machine.other_calls(int(self.image.symbols.rows["st_other"][row])) if machine else ""


def check_calls(case: Case, pairs: Pairs, stubs: Mapping[int, StubRead]) -> None:
    """Every call of an enabled site; findings for those that lead nowhere good."""
    at = np.flatnonzero(pairs.new == NEW)
    seen = both(case.arch, pairs.words[at])
    where = (pairs.va(pairs.branch_off)[at].view(np.int64) + seen.distance).view(np.uint64)
    known = ProgramTargets(case, stubs, Imports(case.after.image), shape=pairs.shape)
    targets: dict[int, ProgramTarget] = {}
    for row, (i, va) in enumerate(zip(at.tolist(), where.tolist(), strict=True)):  # Python objects, one per site
        target = known.at(va)
        text = seen.why[row] or ("" if seen.kind[row] == CALL else "its branch is no call")
        text = text or target.why or ("" if case.forced else target.doubt)
        text = text and f"its call goes to {va:#x}, {text}"
        if text := text or (own_calls(known, pairs, i) if target.function is not None else ""):
            pairs.say("verify-branch", i, text)
        else:
            targets[i] = target
    _check_circles(pairs, known, targets)
    case.callees.update(target.name for target in targets.values())
    ends = np.array([target.va for target in targets.values()], dtype=np.uint64)
    case.calls = SiteCalls(pairs.pos[_index(targets)], ends, np.zeros(len(ends), np.uint64))
    first = dict(zip(at.tolist(), where.tolist(), strict=True))
    case.expect_later = partial(_expect_sites, case, pairs, {i: (first[i], target) for i, target in targets.items()})


def _index(targets: Mapping[int, ProgramTarget]) -> I64:
    return np.array(list(targets), dtype=np.int64)


def own_calls(known: ProgramTargets, pairs: Pairs, at: int) -> str:
    """Why a stub cannot keep what the site's own function is called with; empty where it can."""
    side, row = (pairs.case.before, pairs.before[at]) if pairs.before[at] >= 0 else (pairs.case.after, pairs.after[at])
    first, end = int(side.sites.func[row]), int(side.sites.func_end[row])
    rows = side.image.functions.row[first:end].tolist()
    reasons = [reason for row in rows if (reason := known.other_calls(row))]
    return f"the function {reasons[0]}, which no stub keeps" if reasons else ""


def _check_circles(pairs: Pairs, known: ProgramTargets, targets: Mapping[int, ProgramTarget]) -> None:
    """Findings for sites whose callee has an enabled site, and comes back to them."""
    entries: dict[int, int] = {}
    functions = known.image.functions
    base = known.image.base
    for i in np.flatnonzero(pairs.new == NEW).tolist():
        local = int(base[int(pairs.sec[i])]) + pairs.entry_off(i)
        low, high = functions.at_local(np.array([local], dtype=np.uint64))
        entries |= {int(functions.va[n]): i for n in range(int(low[0]), int(high[0]))} | {local: i}
    leads = {i: entries.get(target.va if target.function is None else target.function) for i, target in targets.items()}
    for i in leads:
        seen, at = set[int](), leads[i]
        while at is not None and at not in seen:
            seen.add(at)
            at = leads.get(at)
        if i in seen:
            pairs.say("verify-branch", i, CIRCLE)


def _at_entry(pairs: Pairs, at: int) -> bool:
    """Whether a site is where the layout has it in its function, and not deeper in it, as behind a push."""
    case = pairs.case
    side, row = (case.before, pairs.before[at]) if pairs.before[at] >= 0 else (case.after, pairs.after[at])
    sites = side.sites
    to_entry = pairs.shape.to_entry(sites.window[row : row + 1])[0]
    named = bool(sites.func[row] < sites.func_end[row])
    return not named or int(sites.local_va[row]) == int(sites.va[row]) + int(to_entry)


def _expect_sites(case: Case, pairs: Pairs, targets: Mapping[int, tuple[int, ProgramTarget]]) -> None:
    """What is to be seen when the enabled sites are executed."""
    slots = {va: slot.name for va, slot in Imports(case.after.image).slots.items()}
    case.memory = memory = program_memory(case.after.image, slots)
    call, size = pairs.va(pairs.branch_off), pairs.shape.branch.size
    for at, (first, target) in targets.items():
        if target.doubt or memory is None:
            case.unclaimed.append(f"{pairs.name(at)}: {FORCED if target.doubt else NO_ROOM}")
            continue
        entry = int(case.after.image.base[int(pairs.sec[at])]) + pairs.entry_off(at)
        where, function = int(call[at]), target.function
        deep = pairs.shape.anywhere or not _at_entry(pairs, at)
        if function is not None and target.row < 0:
            function = memory.imports[target.name.removesuffix("@plt")]
        case.expectations.append(
            CallExpectation(pairs.name(at), where if deep else entry, where, where + size, first, function, deep)
        )
