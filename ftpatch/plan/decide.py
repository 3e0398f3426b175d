"""The plan for one scanned file, whatever kind of file it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ftpatch.errors import UnsupportedError, UsageError
from ftpatch.sites.scan import Scan, scan_file

if TYPE_CHECKING:
    from ftpatch.plan.change import Change, Undoing
    from ftpatch.plan.enable import Plan
    from ftpatch.plan.module.plan import ModulePlan
    from ftpatch.plan.request import Request

FOR_MODULES = "--hook, --stub-asm and --against are for modules"


def make_plan(
    found: Scan, request: Request, against: Sequence[str] = (), max_size: int | None = None
) -> Plan | ModulePlan:
    """The plan for one scanned file. against: the vmlinux that will load a module, and modules that it may call.

    Raises InputError or UnsupportedError for those files, and what a plan raises.
    """
    from ftpatch.kernel.module_load import Kernel, Module
    from ftpatch.plan.enable import make_plan
    from ftpatch.plan.module.plan import make_module_plan

    image, arch = found.image, found.arch
    if image.kind not in ("vmlinux", "module"):
        raise UnsupportedError(f"patching files of kind {image.kind} is not supported", image.path,
                               expected="a linked vmlinux or a module", todo="ftpatch scan reads it")  # fmt: skip
    if image.kind == "vmlinux":
        if request.hook or request.stub is not None or against:
            raise UsageError(FOR_MODULES, image.path, found="a vmlinux")
        return make_plan(image, arch, found.records, found.sites, request)
    kernel, others = None, []
    for other in (scan_file(path, max_size=max_size) for path in against):
        if other.arch is not arch:
            raise UsageError("--against names a file of another machine", other.image.path, found=other.arch.name,
                             expected=arch.name)  # fmt: skip
        if other.image.kind == "module":
            others.append(Module(other))
        elif kernel is None and other.image.kind == "vmlinux":
            kernel = Kernel(other)
        else:
            raise UsageError("--against takes one vmlinux, and modules", other.image.path, found=other.image.kind)
    return make_module_plan(image, arch, found.records, found.sites, request, kernel, others)


def make_change(found: Scan, verb: str, request: Undoing) -> Change:
    """The plan of `drop` or `disable` for one scanned file. Raises what a plan raises."""
    from ftpatch.plan import undo
    from ftpatch.plan.module.undo import make_module_disable, make_module_drop

    if found.image.kind not in ("vmlinux", "module"):
        raise UnsupportedError(f"patching files of kind {found.image.kind} is not supported", found.image.path,
                               expected="a linked vmlinux or a module", todo="ftpatch scan reads it")  # fmt: skip
    drops = {"vmlinux": undo.make_drop, "module": make_module_drop}
    disables = {"vmlinux": undo.make_disable, "module": make_module_disable}
    make = (drops if verb == "drop" else disables)[found.image.kind]
    return make(found.image, found.arch, found.records, found.sites, request)
