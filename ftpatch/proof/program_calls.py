"""Where the calls of a program's sites end: in a function of the file, or in one that it imports."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ftpatch.arch.proof_tables import CALL
from ftpatch.proof.call_targets import CallTarget
from ftpatch.proof.case import NEW, Case, Pairs, SiteCalls
from ftpatch.proof.decoders import both
from ftpatch.proof.emulate.expectation import SiteExpectation
from ftpatch.proof.program_imports import Imports
from ftpatch.sites.scan import Scan

LAZY = "which the loader looks up when it is first called, and changes registers then (no BIND_NOW)"


@dataclass
class ProgramTargets:
    """The call targets of one of the two files, each looked at once."""

    case: Case
    side: Scan
    imports: Imports
    _known: dict[int, CallTarget] = field(default_factory=dict)

    def at(self, va: int) -> CallTarget:
        """What stands at `va`."""
        if va not in self._known:
            self._known[va] = self._read(va)
        return self._known[va]

    def _read(self, va: int) -> CallTarget:
        image = self.side.image
        name = self.function(va)
        if name is None:
            slot = self.imports.stub(va)
            if slot is None:
                return CallTarget(va, f"{va:#x}", why="where no function begins")
            doubt = "whose code is in another file"
            return CallTarget(va, f"{slot.name}@plt", why=LAZY if slot.lazy else "", doubt=doubt)
        reason = image.arch.keeps_contract(image.code, va, False)
        doubt = f"which was not shown to keep a site's contract ({reason})" if reason else ""
        return CallTarget(va, name, doubt=doubt)

    def function(self, va: int) -> str | None:
        """The name of the function that has an entry at an address; None where none has."""
        functions, place = self.side.image.functions, np.array([va], dtype=np.uint64)
        for low, high in (functions.at(place), functions.at_local(place)):
            if low[0] < high[0]:
                return self.side.image.symbols.name(int(functions.row[low[0]]))
        return None


def check_calls(case: Case, pairs: Pairs) -> None:
    """Every call of an enabled site; findings for those that lead nowhere good."""
    at = np.flatnonzero(pairs.new == NEW)
    seen = both(case.arch, pairs.words[at])
    where = pairs.va(pairs.branch_off)[at].view(np.int64) + seen.distance
    known = ProgramTargets(case, case.after, Imports(case.after.image))
    targets: dict[int, CallTarget] = {}
    for row, (i, va) in enumerate(zip(at.tolist(), where.view(np.uint64).tolist(), strict=True)):  # Python objects
        target = known.at(va)
        text = seen.why[row] or ("" if seen.kind[row] == CALL else "its branch is no call")
        text = text or target.why or ("" if case.forced else target.doubt)
        if text:
            pairs.say("verify-branch", i, f"its call goes to {va:#x}, {text}")
        else:
            targets[i] = target
    case.callees.update(target.name for target in targets.values())
    va = np.array([target.target for target in targets.values()], dtype=np.uint64)
    case.calls = SiteCalls(pairs.pos[np.array(list(targets), dtype=np.int64)], va, np.zeros(len(va), np.uint64))
    case.expect_later = partial(_expect_sites, case, pairs, targets)


def _expect_sites(case: Case, pairs: Pairs, targets: dict[int, CallTarget]) -> None:
    """What is to be seen when the enabled sites are executed."""
    resume = pairs.va(pairs.branch_off + pairs.shape.branch.size)
    for at, target in targets.items():
        if target.doubt:
            case.unclaimed.append(f"{pairs.name(at)}: what it calls was taken by force")
            continue
        entry = int(case.after.image.base[int(pairs.sec[at])]) + pairs.entry_off(at)
        case.expectations.append(SiteExpectation(pairs.name(at), entry, int(resume[at]), target.target, None))
