"""What an image holds where its file has no symbol table or no sections; `ftpatch.recovered` makes it."""

from __future__ import annotations

from typing import NamedTuple

from ftpatch.arrays import U8
from ftpatch.elf.tables import Symbols

# the section of an ELF file whose symbol table was made of kallsyms: that is read again, as in a file without a table
OF_KALLSYMS = ".ftpatch.kallsyms"


class Recovered(NamedTuple):
    """What stands in for the tables that a file does not have."""

    symbols: Symbols  # of the kernel's own kallsyms; no rows where it has none
    source: str  # where they are from: `kallsyms`, or `none`
    flat: bool  # the sections were made up: the file has no headers at all, or no section headers
    letters: U8 | None = None  # nm's letter of each symbol of `source`; symbols behind these were found otherwise
    moved: int = 0  # bytes, modulo 2**64, by which a running kernel was moved whose dump this is


def is_nameless(recovered: Recovered | None) -> bool:
    """Whether the functions of a kernel have addresses for names: it has no symbols of any kind."""
    return recovered is not None and recovered.source == "none"


def table_name(recovered: Recovered | None) -> str:
    """What the symbols of a file are from, for messages."""
    return ".symtab" if recovered is None else "kallsyms"
