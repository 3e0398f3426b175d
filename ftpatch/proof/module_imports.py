"""What a patch makes a module use of other files, held against the kernel that will load it: who exports each symbol,
whether the module may have it, its version, and whether `depends=` names the exporters and nobody else.

The two files alone do not tell this: without a kernel it is said that nobody looked.
Source: kernel/module/main.c resolve_symbol(), verify_namespace_is_imported(), kernel/module/version.c check_version();
modprobe loads what depends= names, and fails where there is no such module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ftpatch.kernel.exports import Export, read_exports
from ftpatch.kernel.modinfo import kernel_spelling, read_modinfo
from ftpatch.kernel.module import Kernel, Module
from ftpatch.kernel.module_load import magic, may_import
from ftpatch.proof.case import Case, Import
from ftpatch.sites.scan import Scan

VMLINUX = "vmlinux"  # as an exporter


@dataclass(frozen=True)
class Loader:
    """What the module will meet."""

    kernel: Kernel
    others: Sequence[Module] = ()  # modules that may be loaded before it


def check_imports(case: Case, loader: Loader | None) -> str:
    """Findings for new imports that this kernel would not give to the module; what could not be looked at, and why."""
    n, gained = len(case.imports), len(case.depends)
    if case.after.image.kind == "object":  # a linker finds them
        return ""
    if loader is None:
        what = [f"{count} new {noun}{'s' * (count != 1)}" for count, noun in
                ((n, "import"), (gained, "name")) if count]  # fmt: skip
        of = " of depends=" * bool(gained)
        return f"{' and '.join(what)}{of} not held against a kernel: no --against tells one" if what else ""
    module = Module(Scan(case.after.image, case.after.records, case.after.sites))
    built = magic(module, loader.kernel)
    if built.verdict == "refused" and (n or gained):
        case.notes.append(f"the module is not of the kernel given by --against: {built.text}")
    sources = [(VMLINUX, loader.kernel.exports), *((other.info.name, read_exports(other.image))
               for other in loader.others)]  # fmt: skip
    exported: list[Import] = []
    for wanted in case.imports:
        exporter, export = next(
            ((name, row) for name, exports in sources if (row := exports.find(wanted.name)) is not None), (None, None)
        )
        exported.append(wanted._replace(exporter=exporter))
        if export is not None:
            _check_export(case, module, loader.kernel, export, wanted)
    case.imports = tuple(exported)
    return _check_depends(case, {name for name, _ in sources})


def _check_export(case: Case, module: Module, kernel: Kernel, export: Export, wanted: Import) -> None:
    """Whether the module may have the symbol, and states its version."""
    name, info = wanted.name, module.info
    if export.gpl_only and not info.gpl_compatible:
        case.say("verify-symbol", f"the new symbol {name} is exported to GPL modules only, the module's licence is "
                 f"{info.first('license')}")  # fmt: skip
    if export.namespace and not may_import(info, export.namespace):
        case.say("verify-symbol", f"the new symbol {name} is of the namespace {export.namespace}, which the module "
                 "does not import")  # fmt: skip
    compared = kernel.magic is None or kernel.magic.modversions
    if compared and export.crc is not None and wanted.crc != export.crc:
        stated = "none" if wanted.crc is None else f"{wanted.crc:#010x}"
        case.say("verify-symbol", f"the new symbol {name} has the version {stated}, the kernel's is {export.crc:#010x}")


def _check_depends(case: Case, given: set[str]) -> str:
    """Whether depends= names the exporters of the new symbols, and gained nobody else; what is not known.

    given: whose exports were looked at.
    """
    stated = [kernel_spelling(name) for name in read_modinfo(case.after.image).depends]
    away = sorted(set(stated) - given)  # may export what was not found
    lost = [wanted.name for wanted in case.imports if wanted.exporter is None]
    for name in lost if not away else ():
        case.say("verify-symbol", f"the new symbol {name} is exported by nothing that --against names")
    for wanted in case.imports:
        if wanted.exporter not in (None, VMLINUX, *stated):
            case.say("verify-section", f"depends= does not name {wanted.exporter}, which exports the new symbol "
                     f"{wanted.name}")  # fmt: skip
    exporters = {wanted.exporter for wanted in case.imports}
    for added in case.depends:
        of = kernel_spelling(added)
        if of not in exporters and (of in given or not lost):
            case.say("verify-section", f"depends= gained {added}, which exports none of the new symbols")
    return f"{', '.join(lost)} left to {', '.join(away)}: not given by --against" if lost and away else ""
