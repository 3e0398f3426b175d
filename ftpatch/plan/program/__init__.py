"""`enable` and `disable` for programs and shared objects, whose sites no kernel ever looks at.

Nobody reads a program's records but tools such as this one, so they stay as they are, and so do its relocations: the
loader of programs takes the first rows of .rela.dyn for relative ones without a look at their types (DT_RELACOUNT), and
would write to address 0 of the program for a row that became NONE.
"""

from __future__ import annotations

from ftpatch.arch import architectures
from ftpatch.arch.program_parts import Programs, programs_of
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError, UnsupportedError, UsageError
from ftpatch.plan.plan import Plan
from ftpatch.plan.program.disable import plan_program_disable
from ftpatch.plan.program.enable import plan_program_enable
from ftpatch.plan.program.pads import plan_pads, plan_pads_back
from ftpatch.plan.request import DisableRequest, EnableRequest, Request
from ftpatch.sites.scan import Scan


def plan_program(scan: Scan, request: Request) -> Plan:
    """The plan for a program or shared object. Raises a PlanError, an UnsupportedError for verbs of kernels, or a
    UsageError for options of kernels and modules."""
    image = scan.image
    switch = scan.sites.shape is not None and scan.sites.shape.switch
    if isinstance(request, DisableRequest):
        if switch:
            return plan_pads_back(scan, request)
        return plan_program_disable(scan, request, _programs(image))
    if not isinstance(request, EnableRequest):
        raise UnsupportedError(f"this verb does not suit files of kind {image.kind}", image.path,
                               expected="a linked vmlinux or a module",
                               todo="enable and disable take programs")  # fmt: skip
    _require_options_of_programs(request, image)
    if switch:
        return plan_pads(scan, request, _programs(image))
    if not request.target and not request.hook:
        raise PolicyError("nothing says what the sites call", image.path, expected="--target or --hook",
                          todo="ftrace_caller, the usual target, is the kernel's")  # fmt: skip
    return plan_program_enable(scan, request, _programs(image))


def _programs(image: Image) -> Programs:
    """How programs of the machine are patched; UnsupportedError where that is not known."""
    programs = programs_of(image.arch)
    if programs is None:
        known = [arch.name for arch in architectures() if arch.programs]
        raise UnsupportedError(f"patching programs of {image.arch.name} is not supported", image.path,
                               expected=", ".join(known), todo="ftpatch scan reads it")  # fmt: skip
    return programs


def _require_options_of_programs(request: EnableRequest, image: Image) -> None:
    """Refuse what only kernels and modules have."""
    given = (
        ("--stub-asm", request.stub is not None, "modules"), ("--ops", request.ops is not None, "kernels and modules"),
        ("--ops-via", request.ops_via != "auto", "kernels"), ("--force-early", request.force_early, "kernels"),
        ("--against", request.against.kernel is not None or bool(request.against.others), "modules"),
    )  # fmt: skip
    for option, used, owner in given:
        if used:
            raise UsageError(f"{option} is for {owner}", image.path, found=f"a file of kind {image.kind}")
    if request.records not in ("auto", "keep"):
        raise UsageError("the records of a program stay", image.path, found=f"--records {request.records}",
                         expected="auto or keep", todo="leave the option out: no kernel reads them")  # fmt: skip
    if request.target and request.hook:
        raise UsageError("--target and --hook exclude each other", image.path)
