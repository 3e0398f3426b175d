"""What the sites of a module call, since the kernel's trampolines cannot be named there.

    jump     arm64: the loader fills a section with jumps to ftrace_caller; a symbol at its start is enough
    own      ppc64le: a trampoline with the constants of one kernel, found in that kernel's vmlinux
    hook     both: a stub that keeps the register contract of a site and calls a C function
    stub     both: a stub of the user's own

Code is described once, with the relocations that it needs, and laid out by `build`.
"""

from __future__ import annotations

from ftpatch.arch.parts import Code, Entry, Modules
from ftpatch.arch.shape import Shape
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError, SelectionError
from ftpatch.plan.module.records import require_way
from ftpatch.plan.module.stub import not_shown, require_direct
from ftpatch.plan.notes import NO_FILTER
from ftpatch.plan.plan import Callee
from ftpatch.plan.request import EnableRequest
from ftpatch.plan.stubasm import Stub
from ftpatch.plan.stubasm.text import SITE, TARGET
from ftpatch.plan.targets import READ
from ftpatch.sites.scan import Scan

OPS_SIZE = 256  # bytes of a patch's ops object, unless the kernel is seen to read further
AGAINST = "--against VMLINUX, the kernel that will load it"
KERNEL_BOUND = (
    "the trampoline holds constants of this very kernel (build-id {build_id}): vermagic and symbol versions do not "
    "tell another build of the same version, on which the module would jump to a wrong address"
)
NO_OPS = "the sites run ftrace_caller with an ops object of their own that does nothing: no tracer ever sees them"


def resolve_callee(scan: Scan, shape: Shape, request: EnableRequest, kernel: Image | None) -> Callee:
    """What the request's sites will call. Raises PolicyError or SelectionError where that cannot be."""
    assembly = scan.arch.assembly
    assert scan.arch.modules is not None and assembly is not None
    _check_options(request, scan.image.path)
    if request.stub is None:
        return _called(scan, shape, request, kernel)
    goes_on = TARGET in request.stub.symbols
    if not goes_on and (request.hook or request.target):
        raise PolicyError("the stub never goes on to its target", request.stub.path,
                          found=f"--{'hook' if request.hook else 'target'}, but no `target` in the assembly",
                          expected=f"{assembly.jump} or {assembly.call} target",
                          todo="leave the option out")  # fmt: skip
    target = _called(scan, shape, request, kernel) if goes_on and not request.hook else None
    return _stub(scan, shape, request, request.stub, target)


def _called(scan: Scan, shape: Shape, request: EnableRequest, kernel: Image | None) -> Callee:
    """What the request's sites would call without a stub of the user's own."""
    arch = scan.arch
    assert arch.modules is not None
    if request.hook:
        return _hook(arch.modules, shape, request.hook)
    name = request.target or arch.entries[0]
    if name not in arch.entries:
        raise PolicyError("not a target for a module's sites", f"--target {name}",
                          expected=" or ".join(arch.entries),
                          todo="--hook calls a C function, --stub-asm a stub of your own")  # fmt: skip
    # A module cannot name the kernel's entry, which is not exported: it goes through the loader's jump, or knows where.
    if arch.modules.trampolines:
        return _jump(scan.image, arch.modules, shape, name, kernel)
    return _own(scan.image, name, kernel)


def _check_options(request: EnableRequest, path: str) -> None:
    """Refuse what only a vmlinux has."""
    if request.ops not in (None, "nop"):
        raise PolicyError(f"--ops {request.ops} does not work in a module", path,
                          found="the kernel's own ftrace_ops are not exported", expected="--ops nop",
                          todo="a hook is seen where ops are not: --hook SYMBOL")  # fmt: skip
    if request.ops_via == "thunk":
        raise PolicyError("--ops-via thunk does not work in a module", path, expected="literal")
    require_way(request.records, ("auto", "shrink", "keep"), path)
    if request.hook and request.target:
        raise PolicyError("--target and --hook exclude each other", path)


def _stub(scan: Scan, shape: Shape, request: EnableRequest, stub: Stub, target: Callee | None) -> Callee:
    """A stub of the user's own, which may go on to a hook or, by `target`, to one of the kernel's entries."""
    arch = scan.arch
    entry, ops_size = (target.name, target.ops_size) if target else ("", 0)
    known = {SITE, *([TARGET] if target else [])}
    names = {role: request.hook if role == TARGET else role for role in sorted(stub.symbols - known)}
    inside = {role for role, name in names.items() if (existing_symbol(scan.image, name) or (0, 0))[1]}
    require_direct(arch, stub, frozenset(names) - inside, entry, ops_size)
    reason = not_shown(arch, stub, shape.out_of_line, entry)
    if reason and not request.force_target:
        raise PolicyError("the stub does not behave as a trampoline for patch sites", stub.path, found=reason,
                          expected=arch.contract, todo="--force-target takes it nevertheless")  # fmt: skip
    warning = f"the stub was not shown to keep the contract of a patch site ({reason}); forced"
    branched = {fixup.symbol for fixup in stub.code.fixups if fixup.kind != arch.abs64}
    return Callee(
        f"stub {stub.path}", stub.code, names=tuple(names.items()), ops_size=ops_size, target=target,
        notes=target.notes if target else (), warnings=(warning,) if reason else (), per_site=SITE in stub.symbols,
        data=frozenset(names) - branched, option="--stub-asm",
    )  # fmt: skip


def _hook(modules: Modules, shape: Shape, hook: str) -> Callee:
    """A stub that keeps the contract of a site and calls a C function."""
    names = (("hook", hook), *((("toc", modules.toc),) if modules.toc else ()))
    return Callee(f"hook {hook}", modules.hook(shape.out_of_line), names=names)


def _jump(image: Image, modules: Modules, shape: Shape, name: str, kernel: Image | None) -> Callee:
    """The loader's jump, whose section the module must have."""
    if not image.sections_named(modules.trampolines[0]):
        raise PolicyError("the module has no section for the loader's jump", image.path,
                          found=f"no {modules.trampolines[0]}", expected="a module linked with the kernel's module.lds",
                          todo="--hook works without it")  # fmt: skip
    number = image.arch.entries.index(name)
    # Every loader has the first jump; whether there are more depends on how the kernel was built.
    if number and (kernel is None or kernel.symbols.value(name) is None):
        raise PolicyError(f"the loader may not have a jump to {name}", image.path,
                          found="no kernel to look at" if kernel is None else f"no {name} in the kernel",
                          expected="a kernel with several entries",
                          todo=AGAINST if kernel is None else f"--target {image.arch.entries[0]}")  # fmt: skip
    size, notes = 0, (NO_FILTER,)
    if shape.literal is not None:
        # Without a kernel to look at: room for the largest ops that any is known to read.
        entry = _entry(kernel, name) if kernel is not None else Entry(True)
        size, notes = max(OPS_SIZE, entry.direct_call + 8), (NO_OPS,)
    return Callee(name, None, number * modules.jump, ops_size=size, notes=notes)


def _own(image: Image, name: str, kernel: Image | None) -> Callee:
    """A trampoline with constants that are read from the kernel."""
    from ftpatch.elf.identity import build_id

    if kernel is None:
        raise PolicyError(f"{name} cannot be named in a module of this machine", image.path,
                          found="no kernel to take its address from", expected=AGAINST,
                          todo="--hook SYMBOL works without one")  # fmt: skip
    far, target = image.arch.far, kernel.symbols.value(name)
    own, toc = kernel.symbols.value(image.arch.entries[0]), kernel.symbols.value(far.toc if far else "")
    if far is None or target is None or own is None or toc is None:
        raise PolicyError(f"the kernel has no {name if target is None else 'TOC'}", kernel.path,
                          expected="a vmlinux with its symbols and a function tracer")  # fmt: skip
    entry = _entry(kernel, name)
    kernel_toc = entry.kernel_toc
    if kernel_toc is None or abs(target - toc) >= far.reach:
        raise PolicyError("the kernel's trampoline is not understood", kernel.path,
                          found="no load of the kernel's TOC in it" if kernel_toc is None
                          else "too far from the TOC")  # fmt: skip
    words = far.stub(target, toc, kernel_toc)
    size = max(OPS_SIZE, entry.direct_call + 8) if entry.literal else 0
    bound = KERNEL_BOUND.format(build_id=build_id(kernel) or "none")
    return Callee(name, Code(tuple(words.tolist())), ops_size=size, notes=(bound, NO_OPS if size else NO_FILTER))


def _entry(kernel: Image, name: str) -> Entry:
    """What the kernel's entry reads; an entry that only leads on is read where it leads."""
    va = kernel.symbols.value(name)
    return kernel.arch.read_entry(kernel.code(va, READ)) if va is not None else Entry(False)


def existing_symbol(image: Image, name: str) -> tuple[int, int] | None:
    """(row, section) of a symbol that the module has: its own definition before an undefined one; section 0 there."""
    symbols = image.symbols
    row = symbols.defined(name)
    if row is None:
        rows = symbols.rows_named(name)
        return (int(rows[0]), 0) if len(rows) else None
    return row, int(symbols.shndx[row])


def require_usable(image: Image, row: int, name: str, init_only: bool, option: str, called: bool) -> None:
    """Refuse a symbol of this module that is to be called and no function, or that is freed while it is still used."""
    symbols, sec = image.symbols, int(image.symbols.shndx[row])
    what, where = "hook" if option == "--hook" else "symbol", f"{option} {name}"
    if called and (sec <= 0 or int(symbols.type[row]) not in (t.STT_FUNC, 0) or not image.executable[sec]):
        raise SelectionError(f"the {what} is no function", where,
                             found=f"symbol type {int(symbols.type[row])} in section {sec}",
                             expected="code")  # fmt: skip
    if 0 < sec < len(image.names) and image.names[sec].startswith(".init") and not init_only:
        raise PolicyError(f"the {what} is init text, which is freed once the module runs", where,
                          found="chosen sites outside init text", expected=f"a {what} that stays")  # fmt: skip
