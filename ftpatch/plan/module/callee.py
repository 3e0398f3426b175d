"""What the sites of a module call, since the kernel's trampolines cannot be named there.

    jump     arm64: the loader fills a section with jumps to ftrace_caller; a symbol at its start is enough
    own      ppc64le: a trampoline with the constants of one kernel, found in that kernel's vmlinux
    hook     both: a stub that keeps the register contract of a site and calls a C function
    stub     both: a stub of the user's own

Code is described once, with the relocations that it needs, and laid out by `build`.
"""

from __future__ import annotations

from ftpatch.arch.parts import Code, Entry, Modules
from ftpatch.elf.identity import build_id
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError
from ftpatch.kernel.noreturn import NORETURN
from ftpatch.plan.module.records import require_way
from ftpatch.plan.module.stub import not_shown, require_direct
from ftpatch.plan.notes import NO_FILTER
from ftpatch.plan.plan import Callee
from ftpatch.plan.request import Draft, EnableRequest
from ftpatch.plan.stubasm import Stub
from ftpatch.plan.stubasm.text import SITE, TARGET
from ftpatch.plan.targets import READ

OPS_SIZE = 256  # bytes of a patch's ops object, unless the kernel is seen to read further
AGAINST = "--against VMLINUX, the kernel that will load it"
KERNEL_BOUND = (
    "the trampoline holds constants of this very kernel (build-id {build_id}): vermagic and symbol versions do not "
    "tell another build of the same version, on which the module would jump to a wrong address"
)
NO_OPS = "the sites run ftrace_caller with an ops object of their own that does nothing: no tracer ever sees them"


def resolve_callee(draft: Draft, request: EnableRequest, modules: Modules, kernel: Image | None) -> Callee:
    """What the request's sites will call. Raises PolicyError or SelectionError where that cannot be."""
    stub, hook, target = request.stub, request.hook, request.target
    _check_options(request, draft.scan.image.path)
    if stub is None:
        return _without_stub(draft, request, modules, kernel)
    to_target = TARGET in stub.symbols
    if not to_target and (hook or target):
        assembly = draft.scan.arch.assembly
        assert assembly is not None  # the stub was read by it
        raise PolicyError("the stub never goes on to its target", stub.path,
                          found=f"--{'hook' if hook else 'target'}, but no `target` in the assembly",
                          expected=f"{assembly.jump} or {assembly.call} target",
                          todo="leave the option out")  # fmt: skip
    entry = _without_stub(draft, request, modules, kernel) if to_target and not hook else None
    return _stub(draft, request, stub, entry)


def _check_options(request: EnableRequest, path: str) -> None:
    """Refuse what only a vmlinux has, and what no site may call."""
    if fatal := sorted(NORETURN & {request.hook or "", *(request.stub.symbols if request.stub else ())}):
        raise PolicyError("the sites would call a function that never returns", path, found=fatal[0],
                          expected="one that returns")  # fmt: skip
    if request.ops not in (None, "nop"):
        raise PolicyError(f"--ops {request.ops} does not work in a module", path,
                          found="the kernel's own ftrace_ops are not exported", expected="--ops nop",
                          todo="a hook is seen where ops are not: --hook SYMBOL")  # fmt: skip
    if request.ops_via == "thunk":
        raise PolicyError("--ops-via thunk does not work in a module", path, expected="literal")
    require_way(request.records, ("auto", "shrink", "keep"), path)
    if request.hook and request.target:
        raise PolicyError("--target and --hook exclude each other", path)


def _without_stub(draft: Draft, request: EnableRequest, modules: Modules, kernel: Image | None) -> Callee:
    """What the request's sites would call without a user's stub: a hook, or one of the kernel's entries."""
    if request.hook and request.hook.startswith(modules.thunks):
        raise PolicyError("the hook is no function of C", f"--hook {request.hook}",
                          found="a thunk, which goes where a register or the stack says",
                          expected="a function that returns")  # fmt: skip
    if request.hook:
        code = modules.hook(draft.shape.out_of_line, draft.scan.image.names)
        roles = {"hook": request.hook, **({"toc": modules.toc} if modules.toc else {})}
        roles |= {fixup.symbol: fixup.symbol for fixup in code.fixups if fixup.symbol not in roles}
        return Callee(f"hook {request.hook}", code, names=tuple(roles.items()))
    entries = draft.scan.arch.entries
    name = request.target or entries[0]
    if not modules.trampolines and draft.scan.arch.far is None:
        raise PolicyError(f"{name} cannot be called from a module of this machine", draft.scan.image.path,
                          found="no jump of the loader's to an entry of the kernel, none of which is exported",
                          expected="--hook SYMBOL, which calls a C function by a stub in the module")  # fmt: skip
    if name not in entries:
        raise PolicyError("not a target for a module's sites", f"--target {name}", expected=" or ".join(entries),
                          todo="--hook calls a C function, --stub-asm a stub of your own")  # fmt: skip
    # A module cannot name the kernel's entry, which is not exported: it goes through the loader's jump, or knows where.
    return _jump(draft, modules, name, kernel) if modules.trampolines else _own(draft.scan.image, name, kernel)


def _stub(draft: Draft, request: EnableRequest, stub: Stub, target: Callee | None) -> Callee:
    """A stub of the user's own, which may branch on to a hook or, by `target`, to one of the kernel's entries."""
    arch, image = draft.scan.arch, draft.scan.image
    entry, ops_size = (target.name, target.ops_size) if target else ("", 0)
    known = {SITE, *([TARGET] if target else [])}
    names = {role: request.hook if role == TARGET else role for role in sorted(stub.symbols - known)}
    outside = frozenset(role for role, name in names.items() if image.symbols.defined(name) is None)
    require_direct(arch, stub, outside, entry, ops_size)
    reason = not_shown(arch, stub, draft.shape.out_of_line, entry)
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


def _jump(draft: Draft, modules: Modules, name: str, kernel: Image | None) -> Callee:
    """The loader's jump, whose section the module must have."""
    image = draft.scan.image
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
    if draft.shape.literal is None:
        return Callee(name, None, number * modules.jump, notes=(NO_FILTER,))
    # Without a kernel to look at: room for the largest ops that any is known to read.
    va = kernel.symbols.value(name) if kernel is not None else None
    read_at = _entry(kernel, va).direct_call if kernel is not None and va is not None else 0
    return Callee(name, None, number * modules.jump, ops_size=max(OPS_SIZE, read_at + 8), notes=(NO_OPS,))


def _own(image: Image, name: str, kernel: Image | None) -> Callee:
    """A trampoline with constants that are read from the kernel."""
    if kernel is None:
        raise PolicyError(f"{name} cannot be named in a module of this machine", image.path,
                          found="no kernel to take its address from", expected=AGAINST,
                          todo="--hook SYMBOL works without one")  # fmt: skip
    far, target = image.arch.far, kernel.symbols.value(name)
    toc = kernel.symbols.value(far.toc) if far else None
    if far is None or target is None or toc is None or kernel.symbols.value(image.arch.entries[0]) is None:
        raise PolicyError(f"the kernel has no {name if target is None else 'TOC'}", kernel.path,
                          expected="a vmlinux with its symbols and a function tracer")  # fmt: skip
    entry = _entry(kernel, target)
    if entry.kernel_toc is None or abs(target - toc) >= far.reach:
        why = "no load of the kernel's TOC in it" if entry.kernel_toc is None else "too far from the TOC"
        raise PolicyError("the kernel's trampoline is not understood", kernel.path, found=why)
    words = far.stub(target, toc, entry.kernel_toc)
    size = max(OPS_SIZE, entry.direct_call + 8) if entry.literal else 0
    bound = KERNEL_BOUND.format(build_id=build_id(kernel) or "none")
    return Callee(name, Code(tuple(words.tolist())), ops_size=size, notes=(bound, NO_OPS if size else NO_FILTER))


def _entry(kernel: Image, va: int) -> Entry:
    """What the kernel's entry at va reads."""
    return kernel.arch.read_entry(kernel.code(va, READ))


def existing_symbol(image: Image, name: str) -> tuple[int, int] | None:
    """(row, section) of a symbol that the module has: its own definition before an undefined one; section 0 there."""
    row, rows = image.symbols.defined(name), image.symbols.rows_named(name)
    if row is not None:
        return row, int(image.symbols.shndx[row])
    return (int(rows[0]), 0) if len(rows) else None
