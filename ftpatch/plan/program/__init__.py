"""`enable` and `disable` for programs and shared objects, whose sites no kernel ever looks at.

Nobody reads a program's records but tools such as this one, so they stay as they are, and so do its relocations: the
loader of programs takes the first rows of .rela.dyn for relative ones without a look at their types (DT_RELACOUNT), and
would write to address 0 of the program for a row that became NONE.
"""

from __future__ import annotations

from dataclasses import replace

from ftpatch.errors import PolicyError, UnsupportedError
from ftpatch.plan.disable import plan_disable
from ftpatch.plan.enable import plan_kernel_enable
from ftpatch.plan.plan import Plan
from ftpatch.plan.request import DisableRequest, EnableRequest, Request
from ftpatch.sites.scan import Scan


def plan_program(scan: Scan, request: Request) -> Plan:
    """The plan for a program or shared object. Raises a PlanError, or an UnsupportedError for verbs of kernels."""
    image = scan.image
    if isinstance(request, DisableRequest):
        return plan_disable(scan, request)
    if not isinstance(request, EnableRequest):
        raise UnsupportedError(f"this verb does not suit files of kind {image.kind}", image.path,
                               expected="a linked vmlinux or a module",
                               todo="enable and disable take programs")  # fmt: skip
    if request.records not in ("auto", "keep"):
        raise PolicyError("the records of a program stay", image.path, found=f"--records {request.records}",
                          expected="auto or keep", todo="leave the option out: no kernel reads them")  # fmt: skip
    if not request.target:
        raise PolicyError("nothing says what the sites call", image.path, expected="--target or --hook",
                          todo="ftrace_caller is the kernel's")  # fmt: skip
    return plan_kernel_enable(scan, replace(request, records="keep"))
