"""Sites whose callers count on registers that a call may change (IPA-RA): refused, unless what they call keeps those.

Only the callers of chosen sites are looked at, and none in a kernel or module that shows that it was built by the
option for sites, which keeps compilers from this.
"""

from __future__ import annotations

import numpy as np

from ftpatch.plan.request import Draft, EnableRequest
from ftpatch.plan.targets import Target
from ftpatch.sites.callers import Callers


def kept_by_target(draft: Draft, target: Target) -> int:
    """The registers that a target of this file gives back, as bits; one of the kernel's own gives back what all do."""
    scan = draft.scan
    kept = scan.arch.kept_registers(scan.image.code, target.va, draft.shape.out_of_line)
    registers = Callers(scan.sites).registers
    return kept | (registers.promised if registers is not None and target.own else 0)


def kept_by_hook(draft: Draft) -> int:
    """The registers that a stub of this program gives back, around a hook that is a C function."""
    registers = Callers(draft.scan.sites).registers
    return registers.hooked if registers is not None else 0


def kept_in_module(draft: Draft, request: EnableRequest) -> int:
    """The registers that what a module's sites call gives back."""
    if request.hook and request.stub is None:
        return kept_by_hook(draft)
    registers = Callers(draft.scan.sites).registers
    return registers.promised if registers is not None else 0


def refuse_relied_registers(draft: Draft, kept: int, name: str, force: bool, option: str = "--force-target") -> None:
    """Refuse chosen sites whose callers find values behind the call in registers that `name` may change; with `force`,
    by `option`, they are taken, with a warning. kept: the registers that it gives back."""
    callers = Callers(draft.scan.sites)
    calls = isinstance(draft.request, EnableRequest)  # else the site gets a jump, which changes nothing
    changes = isinstance(draft.request, EnableRequest) and draft.request.save != "stack"
    for reliance in callers.relied_on(draft.open()):
        assert callers.registers is not None
        of_site, lost = reliance.registers & callers.registers.site * changes, reliance.registers & ~kept
        if of_site or lost:
            who = "the words of the site change" if of_site else f"{name} may change"
            text = f"{callers.text(reliance, of_site or lost)}, which {who}"
            if force:
                draft.warnings.append(f"{draft.scan.sites.name(reliance.site)}: {text}; forced")
            else:
                index = np.array([reliance.site], dtype=np.int64)
                other = "" if of_site or not calls else ", or call what gives them back"
                draft.refuse(index, f"{text}: rebuild with -fno-ipa-ra{other} ({option} overrides)")
