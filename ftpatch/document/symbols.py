"""The types of what a JSON report holds of the symbols of a file; see `document.types`."""

from __future__ import annotations

from typing import Annotated, TypedDict

from ftpatch.document.fields import Count, Hex, Values
from ftpatch.recovered.symbol_list import DYNSYM, KALLSYMS, NONE, SYMTAB

SOURCES = (SYMTAB, DYNSYM, KALLSYMS, NONE)
Source = Annotated[
    str, Values(SOURCES), "the table that the symbols are from: the file's own; that of the loader of programs; what "
    "the kernel has for its own messages; or there is none",
]  # fmt: skip


class ListedSymbol(TypedDict):
    """A symbol, as nm shows it."""

    name: str
    type: Annotated[str, "the letter that nm has for it"]
    address: Annotated[
        Hex | None, "va in linked files, offset in its section in others; null for an undefined symbol"
    ]  # fmt: skip
    size: Annotated[Count | None, "bytes; null where the table has none"]
