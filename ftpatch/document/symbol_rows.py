"""The symbols of a file as rows of a report, and what is to be said of the table that they are from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast, overload

from ftpatch.document.files import file_object
from ftpatch.document.symbols import ListedSymbol
from ftpatch.recovered.symbol_list import DYNSYM, NONE, SYMTAB, SymbolList

if TYPE_CHECKING:
    from ftpatch.document.types import ImageObject

OF_KALLSYMS = (
    "the symbols are from kallsyms, which has no sizes, types or source files: in an ELF file made by -o, sizes and "
    "types are what code and sections tell"
)
PER_CPU = "kallsyms calls the variables of each processor absolute (A): these are offsets, no addresses"
CODE_ONLY = "kallsyms has the symbols of code alone (no CONFIG_KALLSYMS_ALL): none of data"
DYNAMIC = "the file has no symbol table (stripped): these are the names that the loader of programs finds in it"
NO_SYMBOLS = "there are no symbols: the file has no symbol table (stripped){}"
NO_KALLSYMS = ", and no kallsyms that can be read"


class SymbolRows(Sequence[ListedSymbol]):
    """The rows of a list of symbols, each made when it is asked for: a kernel has 190,000."""

    def __init__(self, symbols: SymbolList) -> None:
        self.names, self.types, self.sizes = symbols.names(), symbols.letter.tobytes().decode(), symbols.sizes()
        digits = symbols.address.astype(">u8").tobytes().hex()
        self.digits = [digits[at : at + 16] for at in range(0, len(digits), 16)]  # of each address
        self.defined: list[bool] = symbols.defined.tolist()

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> ListedSymbol: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ListedSymbol]: ...

    def __getitem__(self, index: int | slice) -> ListedSymbol | Sequence[ListedSymbol]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        address = "0x" + self.digits[index] if self.defined[index] else None
        return {"name": self.names[index], "type": self.types[index], "address": address, "size": self.sizes[index]}

    def __iter__(self) -> Iterator[ListedSymbol]:
        columns = zip(self.names, self.types, self.digits, self.defined, self.sizes, strict=True)
        for name, letter, digits, defined, size in columns:
            yield {"name": name, "type": letter, "address": "0x" + digits if defined else None, "size": size}


def symbols_file(symbols: SymbolList, sha256: str | None = None) -> ImageObject:
    """The IMAGE object of `symbols`."""
    made = {
        **file_object(symbols.image, sha256), "symbols": SymbolRows(symbols), "source": symbols.source,
        "notes": notes_on(symbols),
    }  # fmt: skip
    return cast("ImageObject", made)


def notes_on(symbols: SymbolList) -> list[str]:
    """What the table cannot tell."""
    if symbols.source == DYNSYM:
        return [DYNAMIC]
    if symbols.source == NONE:
        return [NO_SYMBOLS.format(NO_KALLSYMS * (symbols.image.kind == "vmlinux"))]
    if symbols.source == SYMTAB:
        return []
    return [OF_KALLSYMS, *([CODE_ONLY] if symbols.of_code_alone else []), *([PER_CPU] if symbols.has_offsets else [])]
