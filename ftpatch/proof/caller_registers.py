"""Whether callers of the enabled sites find their values again that they keep in registers over the call (IPA-RA).

What callers count on is told by the first file, whose functions are as compiled; what is changed on the way, by the
code in the second: the words of the site, and what its call leads to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ftpatch.arch.program_parts import programs_of
from ftpatch.elf.kind import PROGRAMS
from ftpatch.proof.case import Case
from ftpatch.proof.decoders import branch_targets
from ftpatch.sites.callers import Callers

if TYPE_CHECKING:
    from ftpatch.arch.register_use import CallerRegisters


def check_callers(case: Case) -> None:
    """Findings for enabled sites whose callers count on what they change; notes where that was taken by force."""
    callers, sites = Callers(case.before.sites), case.before.sites
    if callers.told_off or callers.registers is None or not len(case.calls.pos):
        return
    row_of = {pos: row for row, pos in enumerate(case.calls.pos.tolist())}
    index = np.flatnonzero(np.isin(sites.pos, case.calls.pos))
    for reliance in callers.relied_on(index):
        kept = _kept(case, callers.registers, row_of[int(sites.pos[reliance.site])])
        lost = reliance.registers & ~kept
        if lost:
            text = f"{sites.name(reliance.site)}: {callers.text(reliance, lost)}, which is not given back"
            if case.forced:
                case.notes.append(f"{text}; taken by force")
            else:
                case.say("verify-callers", text, pos=int(sites.pos[reliance.site]))


def _kept(case: Case, registers: CallerRegisters, row: int) -> int:
    """The registers that an enabled site, and what it calls, gives back as they were. row: of `case.calls`."""
    sites, target = case.after.sites, int(case.calls.target[row])
    if sites.shape is not None and sites.shape.switch:  # whether the pad itself changes one, its form says
        return _kept_by_target(case, registers, row, target)
    return _kept_by_target(case, registers, row, target) & ~registers.site


def _kept_by_target(case: Case, registers: CallerRegisters, row: int, target: int) -> int:
    image, sites = case.after.image, case.after.sites
    if not image.linked:
        return registers.hooked
    out_of_line = sites.shape is not None and sites.shape.out_of_line
    programs = programs_of(case.arch) if image.kind in PROGRAMS else None
    if programs is None:
        return case.arch.kept_registers(image.code, target, out_of_line) | registers.promised
    at = np.flatnonzero(sites.pos == case.calls.pos[row])[:1]
    direct = branch_targets(image, sites.branch_va[at].view(np.int64))
    through = len(direct) and int(direct[0]) != target  # a stub around a hook, which the emulation has run; or a pad
    kept = programs.kept_registers(image.code, target)
    return kept if kept or not through else registers.hooked
