"""The plan for a request, whatever the verb and whatever kind of file: the way into this room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict

from ftpatch.arch import architectures
from ftpatch.arch.fronts import PAD_BEFORE
from ftpatch.arrays import Mask
from ftpatch.elf.image import Image
from ftpatch.elf.kind import PROGRAMS
from ftpatch.errors import UnsupportedError, UsageError
from ftpatch.inputs import read_file
from ftpatch.plan.plan import Plan
from ftpatch.plan.request import Against, DisableRequest, DropRequest, EnableRequest, RedirectRequest, Request
from ftpatch.sites.scan import Scan, scan_file

if TYPE_CHECKING:
    from ftpatch.plan.stubasm import Stub


class SetOptions(TypedDict, total=False):
    """How static calls are set, none of it required: see `plan_settings`."""

    against: Sequence[str]
    force_signature: bool
    skip_unpatchable: bool


def make_plan(scan: Scan, request: Request) -> Plan:
    """The plan for one scanned file: complete, or not made.

    Raises a PlanError where some site or record stands in the way, and an UnsupportedError for files and layouts that
    cannot be patched at all.
    """
    require_patchable(scan.image)
    _require_pads(scan, request)
    if scan.image.kind in PROGRAMS:
        from ftpatch.plan.program import plan_program

        return plan_program(scan, request)
    if scan.image.kind == "object":
        from ftpatch.plan.object import plan_object

        return plan_object(scan, request)
    if isinstance(request, EnableRequest):
        if scan.image.kind == "module":
            from ftpatch.plan.module.enable import plan_module_enable

            return plan_module_enable(scan, request)
        from ftpatch.plan.enable import plan_kernel_enable

        if request.hook or request.stub is not None:
            raise _for_modules(scan)
        return plan_kernel_enable(scan, request)
    if isinstance(request, DropRequest):
        from ftpatch.plan.drop import plan_drop

        return plan_drop(scan, request)
    if isinstance(request, RedirectRequest):
        _require_redirects(scan.image)
        if scan.image.kind == "module":
            from ftpatch.plan.redirect.module import plan_module_redirect

            return replace(plan_module_redirect(scan, request), asked=request)
        from ftpatch.plan.redirect.kernel import plan_kernel_redirect

        return replace(plan_kernel_redirect(scan, request), asked=request)
    from ftpatch.plan.disable import plan_disable

    return plan_disable(scan, request)


STUBS = "--hook, --stub-asm and --against are"


def _for_modules(scan: Scan, options: str = STUBS) -> UsageError:
    """The error of an option that only modules have, given for another file."""
    kind = scan.image.kind
    found = "a vmlinux" if kind == "vmlinux" else f"a file of kind {kind}"
    todo = "in a vmlinux, --target names what the sites call" if kind == "vmlinux" and options == STUBS else ""
    return UsageError(f"{options} for modules", scan.image.path, found=found, todo=todo)


def _require_pads(scan: Scan, request: Request) -> None:
    """Refuse what is for pads alone where there are none, and pads where a kernel would look at their sites."""
    shape, image = scan.sites.shape, scan.image
    switch = shape is not None and shape.switch
    if switch and image.kind not in PROGRAMS:
        raise UnsupportedError(f"layout {shape.name if shape else ''} cannot be patched in files of kind {image.kind}",
                               image.path, expected="a program or shared object: no kernel knows such sites",
                               todo="ftpatch scan reads it")  # fmt: skip
    given = []
    if isinstance(request, EnableRequest):
        given = [("--arm", request.arm), ("--save", request.save != EnableRequest(request.chosen).save)]
    elif isinstance(request, DisableRequest):
        given = [("--disarm", request.disarm)]
    for option, used in given:
        if used and not switch:
            raise UsageError(f"{option} is for layout {PAD_BEFORE}", image.path, found=shape.name if shape else "none")


def require_patchable(image: Image) -> None:
    """Refuse machines whose code nothing here can judge, and files that are neither a kernel nor a module."""
    arch = image.arch
    if not arch.contract or (image.kind in ("module", "object") and arch.modules is None):
        known = [other.name for other in architectures() if (other.modules if arch.contract else other.contract)]
        raise UnsupportedError(f"patching {'modules of ' if arch.contract else ''}{arch.name} is not supported",
                               image.path, expected=", ".join(known),
                               todo="ftpatch scan, check, explain and diff read it")  # fmt: skip


def _require_redirects(image: Image) -> None:
    """Refuse machines of which no stub is known by which a function may lead farther than a jump, or out of a module:
    nobody has thought about more than the jump there either."""
    if image.arch.veneer is None and image.arch.far is None:
        known = [other.name for other in architectures() if other.veneer or other.far]
        raise UnsupportedError(f"redirecting functions of {image.arch.name} is not supported", image.path,
                               expected=", ".join(known),
                               todo="ftpatch enable can let their sites call something")  # fmt: skip


def read_against(scan: Scan, paths: Sequence[str], max_size: int | None = None) -> Against:
    """The files that a module will meet: the vmlinux that will load it, and modules that it may call.

    Raises InputError or UnsupportedError for those files, and UsageError where they do not fit this one.
    """
    from ftpatch.kernel.module import Kernel, Module

    require_patchable(scan.image)
    if paths and scan.image.kind in ("vmlinux", *PROGRAMS):
        raise _for_modules(scan, "--against is")
    kernel, others = None, []
    for other in (scan_file(path, max_size=max_size) for path in paths):
        if other.arch is not scan.arch:
            raise UsageError("--against names a file of another machine", other.image.path, found=other.arch.name,
                             expected=scan.arch.name)  # fmt: skip
        if other.image.kind == "module":
            others.append(Module(other))
        elif kernel is None and other.image.kind == "vmlinux":
            kernel = Kernel(other)
        else:
            raise UsageError("--against takes one vmlinux, and modules", other.image.path, found=other.image.kind)
    return Against(kernel, tuple(others))


def plan_enable(
    scan: Scan, chosen: Mask, max_size: int | None = None, *, target: str = "", hook: str = "",
    stub_asm: str | None = None, against: Sequence[str] = (), force_target: bool = False, force_early: bool = False,
    records: str = "auto", ops: str | None = None, ops_via: str = "auto", skip_unpatchable: bool = False,
    arm: bool = False, save: str = "register", unrecorded: bool = False,
) -> Plan:  # fmt: skip
    """The plan that makes calls of the chosen sites. stub_asm, against: files; the rest as in EnableRequest."""
    stub = _read_stub(scan, stub_asm) if stub_asm is not None else None
    return make_plan(scan, EnableRequest(
        chosen, target=target, force_target=force_target, force_early=force_early, records=records, ops=ops,
        ops_via=ops_via, skip_unpatchable=skip_unpatchable, hook=hook, stub=stub,
        against=read_against(scan, against, max_size), arm=arm, save=save, unrecorded=unrecorded,
    ))  # fmt: skip


def _read_stub(scan: Scan, path: str) -> Stub:
    """The stub that a file of assembly holds, for the sites of a module."""
    from ftpatch.plan import stubasm

    if scan.image.kind in ("vmlinux", *PROGRAMS):
        raise _for_modules(scan) if scan.image.kind == "vmlinux" else _for_modules(scan, "--stub-asm is")
    return stubasm.assemble(read_file(path, stubasm.MAX_SOURCE, "the stub"), path, scan.arch)


def plan_settings(
    scan: Scan, settings: Sequence[tuple[str, str]], max_size: int | None = None, *, against: Sequence[str] = (),
    force_signature: bool = False, skip_unpatchable: bool = False,
) -> Plan:  # fmt: skip
    """The plan by which static calls call something else. settings: (key, function, NULL or return0), each; against:
    files; the rest as in SetRequest."""
    from ftpatch.plan.static_calls.kernel import plan_kernel_settings
    from ftpatch.plan.static_calls.request import SetRequest, Setting

    if scan.image.kind not in ("vmlinux", "module"):
        raise UnsupportedError(f"setting static calls in files of kind {scan.image.kind} is not supported",
                               scan.image.path, expected="a linked vmlinux or a module",
                               todo="ftpatch static-calls reads it")  # fmt: skip
    request = SetRequest(tuple(Setting(*setting) for setting in settings), force_signature, skip_unpatchable,
                         read_against(scan, against, max_size))  # fmt: skip
    if scan.image.kind == "module":
        from ftpatch.plan.static_calls.module import plan_module_settings

        return plan_module_settings(scan, request)
    return plan_kernel_settings(scan, request)


def plan_redirect(
    scan: Scan, chosen: Mask, pairs: Sequence[tuple[str, str]], max_size: int | None = None, *,
    patch: str | None = None, keep_original: Sequence[str] = (), against: Sequence[str] = (),
    force_signature: bool = False, assume_register_args: bool = False, force_early: bool = False,
    records: str = "auto", skip_unpatchable: bool = False,
) -> Plan:  # fmt: skip
    """The plan by which the chosen functions become others. pairs: (selector, replacement), each; patch: an object file
    that brings replacements along; keep_original: names for the old functions; the rest as in RedirectRequest."""
    from ftpatch.plan.redirect.pairs import Pair, originals_of, replacements_of
    from ftpatch.recovered.image import open_image

    if scan.image.kind == "vmlinux" and (patch is not None or keep_original):
        raise UsageError("--with and --keep-original are for modules", scan.image.path, found="a vmlinux",
                         todo="build the replacement into the kernel, or into a module")  # fmt: skip
    if keep_original and patch is None:
        raise UsageError("--keep-original is for the object of --with", scan.image.path, found="no --with")
    to = replacements_of(scan, chosen, [Pair(*pair) for pair in pairs])
    return make_plan(scan, RedirectRequest(
        chosen, to, force_early=force_early, force_signature=force_signature,
        assume_register_args=assume_register_args, records=records, skip_unpatchable=skip_unpatchable,
        patch=open_image(patch, max_size) if patch is not None else None,
        keep_original=originals_of(scan, to, keep_original),
        against=read_against(scan, against, max_size),
    ))  # fmt: skip
