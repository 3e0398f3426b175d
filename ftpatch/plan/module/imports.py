"""A symbol that a module did not use before: who exports it, whether the module may have it, and what it must then say.

The loader finds an undefined symbol by name, refuses a GPL-only one to a module with another licence and one of a
namespace that the module does not import, and, on kernels with CONFIG_MODVERSIONS, one without its CRC in the module.
`depends=` tells modprobe what to load first.
Source: kernel/module/main.c resolve_symbol(), verify_namespace_is_imported(), kernel/module/version.c check_version().
"""

from __future__ import annotations

from dataclasses import dataclass

from ftpatch.elf.editor import Editor
from ftpatch.errors import PolicyError, SelectionError
from ftpatch.kernel import modinfo
from ftpatch.kernel.exports import Export, read_exports
from ftpatch.kernel.modinfo import ModInfo, section_of
from ftpatch.kernel.module import Module
from ftpatch.kernel.module_load import may_import
from ftpatch.plan.module.callable import why_no_code
from ftpatch.plan.request import Against

DEPMOD = "depends= now names {exporter}: run depmod so that modprobe loads it first; insmod needs it loaded by hand"


@dataclass(frozen=True)
class Import:
    """A new undefined symbol."""

    name: str
    crc: int | None  # to state in the module; None where the kernel does not compare it
    exporter: str  # name of the module that exports it; empty for the kernel


def find_import(name: str, module: Module, against: Against, option: str) -> Import:
    """Where the module would get the symbol from. option: by which the user gave it.

    Raises SelectionError or PolicyError where the loader would refuse.
    """
    what, kernel = f"{option} {name}", against.kernel
    if kernel is None:
        raise PolicyError("the module does not use this symbol yet", what, found="no kernel to look for it",
                          expected="a symbol that the module defines or uses",
                          todo="--against VMLINUX shows whether it may be used, and its version")  # fmt: skip
    exporter, export = "", kernel.exports.find(name) if name.isprintable() else None
    for other in against.others if name.isprintable() else ():
        if export is None and (export := read_exports(other.image).find(name)) is not None:
            exporter = other.info.name or ""
            if not exporter:
                raise PolicyError("a module that exports the symbol has no name", other.image.path,
                                  expected="name= in its .modinfo")  # fmt: skip
    if export is None:
        defined = kernel.image.symbols.defined(name) is not None
        raise SelectionError("no such exported symbol", what,
                             found=f"{name} in the kernel, but not exported" if defined else "nothing of that name",
                             expected="a function that the kernel or a module given by --against exports")  # fmt: skip
    _require_allowed(export, module.info, what)
    # Where the kernel does not tell, the version is stated: one that is not asked for does no harm.
    compared = kernel.magic is None or kernel.magic.modversions
    crc = export.crc if compared else None
    if crc is None and len(module.versions):
        # Such a kernel would take it, and taint itself; nobody could tell it from a version that was taken out.
        raise PolicyError("the symbol has no version, and the module states one for each of its others", what,
                          found=f"no CRC in {exporter or 'the kernel'}", expected="a symbol with a CRC",
                          todo="build its exporter with CONFIG_MODVERSIONS")  # fmt: skip
    return Import(name, crc, exporter)


def require_function(name: str, against: Against, where: str) -> None:
    """Refuse what is known to be data where it is exported; without a kernel nothing is known."""
    images = [side.image for side in (against.kernel, *against.others) if side is not None]
    for image in images if name.isprintable() else ():
        export = read_exports(image).find(name)
        if export is not None:
            if why := why_no_code(image, export):
                raise SelectionError("the symbol is no function", where, found=why, expected="code")
            return


def _require_allowed(export: Export, info: ModInfo, what: str) -> None:
    """Refuse a symbol that the loader would not give to the module."""
    if export.gpl_only and not info.gpl_compatible:
        raise PolicyError("the symbol is exported to GPL modules only", what,
                          found=f"license {info.first('license')}", expected="a GPL-compatible licence")  # fmt: skip
    if export.namespace and not may_import(info, export.namespace):
        raise PolicyError("the module does not import the symbol's namespace", what, found=export.namespace,
                          expected=", ".join(info.all("import_ns")) or "no namespace at all",
                          todo="use a symbol outside namespaces")  # fmt: skip


def add_import(editor: Editor, wanted: Import) -> tuple[int, list[str]]:
    """(row of the new undefined symbol, notes): with its version and, for a module's, its name in depends=."""
    image, notes = editor.image, []
    if wanted.crc is not None:
        _add_version(editor, wanted.name, wanted.crc)
    sec = section_of(image, ".modinfo")
    info = ModInfo(modinfo.entries_of(editor.content(sec), image.path) if sec >= 0 else ())
    if wanted.exporter and wanted.exporter not in map(modinfo.kernel_spelling, info.depends):
        if sec < 0:
            raise PolicyError("the module has no .modinfo for depends=", image.path, found=f"needs {wanted.exporter}")
        editor.replace(sec, modinfo.with_modinfo(editor.content(sec), [*info.depends, wanted.exporter]))
        notes.append(DEPMOD.format(exporter=wanted.exporter))
    return editor.symbol(wanted.name, 0), notes


def _add_version(editor: Editor, name: str, crc: int) -> None:
    """State a symbol's CRC in the tables of versions that the module has."""
    image, content = editor.image, editor.content
    basic, crcs, names = (section_of(image, f"__version{end}") for end in ("s", "_ext_crcs", "_ext_names"))
    if crcs >= 0 and names >= 0:
        new_crcs, new_names = modinfo.with_extended_versions(content(crcs), content(names), {name: crc})
        editor.replace(crcs, new_crcs)
        editor.replace(names, new_names)
    # A name that is too long for __versions stands in the extended table alone.
    if basic >= 0 and (crcs < 0 or len(name.encode()) <= modinfo.LONGEST):
        editor.replace(basic, modinfo.with_versions(content(basic), {name: crc}))
    if basic < 0 and crcs < 0:
        raise PolicyError("the kernel compares symbol versions, but the module has none", image.path,
                          found="no __versions", expected=f"the version of {name}",
                          todo="use a module that was built for this kernel")  # fmt: skip
