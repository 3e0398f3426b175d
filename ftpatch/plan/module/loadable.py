"""Whether a kernel takes a module at all: asked before anything in it is changed."""

from __future__ import annotations

from ftpatch.errors import PolicyError
from ftpatch.kernel import module_load
from ftpatch.kernel.exports import read_exports
from ftpatch.kernel.modinfo import kernel_spelling
from ftpatch.kernel.module import Module
from ftpatch.kernel.module_load import Check, preflight, reach, relocations
from ftpatch.plan.request import Against


def require_loadable(module: Module, against: Against) -> list[str]:
    """What is to be said of the module before it is loaded. Raises PolicyError where the kernel would refuse it."""
    checks = _preflight(module, against)
    if refused := module_load.refusals(checks):
        raise PolicyError("the kernel would not load this module, or crash in it", module.image.path,
                          found="; ".join(check.text for check in refused),
                          todo="--against the kernel that the module was built for")  # fmt: skip
    return [check.text for check in checks if check.verdict == "warning"]


def _preflight(module: Module, against: Against) -> tuple[Check, ...]:
    """What can be told of the module before it is loaded, with the kernel or without."""
    if against.kernel is None:
        return (reach(module), *relocations(module))
    known = {kernel_spelling(other.info.first("name") or ""): read_exports(other.image) for other in against.others}
    return preflight(module, against.kernel, known)
