"""Files whose symbols were stripped: what nobody can know of them is refused, and not answered with nothing."""

from __future__ import annotations

from ftpatch.elf.image import Image
from ftpatch.elf.recovered import is_nameless
from ftpatch.errors import PolicyError, RecordError


def refuse_stripped_kernel(image: Image) -> None:
    """Refuse a kernel without symbols, where only those name what is asked for. Raises PolicyError."""
    nameless = is_nameless(image.recovered)
    if nameless or (image.kind == "vmlinux" and len(image.symbols.rows) <= 1):  # the first row names nothing
        todo = "use the vmlinux of the build tree or of the debug package (stripping debug info alone is fine)"
        what = "neither .symtab nor kallsyms" if nameless else "a stripped ELF file"
        raise PolicyError("no symbol table", image.path, found=what, expected=".symtab", todo=todo)


def refuse_stripped_module(image: Image, what: str) -> None:
    """Refuse a module or object whose symbols were stripped, and with them what its tables name. Raises RecordError."""
    if len(image.symbols.rows) <= 1:  # the first row of a table names nothing
        raise RecordError(
            f"its {what} name nothing", image.path, found="no symbol table: all symbols and relocations are stripped",
            expected=".symtab", todo="strip with --strip-debug alone (INSTALL_MOD_STRIP=1); no kernel loads the module",
        )  # fmt: skip
