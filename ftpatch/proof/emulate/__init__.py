"""Do patched sites do what is said of them? Each one is executed from its function's entry, with random registers.

    entry ─► site ─► [stub ─►] target: here execution is stopped and the registers are looked at
                                 │ it returns as a kernel's trampoline does, or as a C function does
    resume ◄─ [stub ◄─]──────────┘ here it is stopped again: the traced function would find what its caller left

A redirected function is entered wherever callers enter it. Its replacement must find what the caller left, and return
to the caller, which must find what the ABI promises it:

    entry ─► site ─► [stub ─►] replacement ─► [stub ─►] return address

Sites of programs, where no trampoline of a kernel stands in between, are executed from one end to the other: see
`program_engine`. A switch that is off is passed by, with every register as it was; one that is on leads through its
pad, which is executed either way:

    entry ─► switch ─► pad ─► target ─► pad ─► resume

The code is that of the file alone: nothing that planned or wrote it is asked. What is expected has to come from
reading the file as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from ftpatch.arch import Arch
from ftpatch.arch.proof_tables import tables_of
from ftpatch.elf.image import Image
from ftpatch.progress import Advance, unseen
from ftpatch.proof.emulate.expectation import (
    CallExpectation,
    Expectation,
    Outcome,
    PadExpectation,
    RedirectExpectation,
    SiteExpectation,
    together,
    with_pads,
)
from ftpatch.proof.emulate.memory import Memory, image_memory
from ftpatch.proof.emulate.program_memory import ProgramMemory

__all__ = ["CallExpectation", "Outcome", "RedirectExpectation", "SiteExpectation", "emulate"]


def emulate(
    image: Image,
    arch: Arch,
    expected: Sequence[Expectation],
    seed: int = 1,
    memory: Memory | ProgramMemory | None = None,
    advance: Advance = unseen,
) -> Outcome:
    """Execute every site. The same seed gives the same registers, and the same outcome.

    memory: that of a loaded module, or of a program; a kernel has its own. advance: called with how many more
    sites of a kernel or module were executed. Where a site fails twice only the first is told.
    """
    if isinstance(memory, ProgramMemory):
        program = import_module(f"{__name__}.programs_{tables_of(arch).emulator}")
        ran: Outcome = program.run(memory, [site for site in expected if isinstance(site, CallExpectation)], seed)
        pads = [site for site in expected if isinstance(site, PadExpectation)]
        return with_pads(ran, _pads(image, arch, pads, seed)) if pads and not ran.skipped else ran
    if memory is None:
        assert image.linked, "a relocatable file is executed as it is loaded"
        memory = image_memory(image, arch)
    machine = import_module(f"{__name__}.{tables_of(arch).emulator}")
    sites = [site for site in expected if isinstance(site, SiteExpectation)]
    redirects = [site for site in expected if isinstance(site, RedirectExpectation)]
    outcomes: list[Outcome] = []
    if sites or not redirects:
        outcomes.append(machine.run(memory, sites, seed, advance))
    if redirects:
        outcomes.append(machine.run_redirects(memory, redirects, seed))
    return together(outcomes)


def _pads(image: Image, arch: Arch, pads: Sequence[PadExpectation], seed: int) -> Outcome:
    """Execute every switch and pad, up to what the pads call and from there back."""
    machine = import_module(f"{__name__}.{tables_of(arch).emulator}")
    ran: Outcome = machine.run_pads(image_memory(image, arch), pads, seed)
    return ran
