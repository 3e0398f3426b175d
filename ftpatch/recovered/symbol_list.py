"""The symbols of a file as a list: as `nm -n` has them, whatever table of the file they come from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import I64, U8, U64, Mask
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.symbol_letters import has_line, letters_of
from ftpatch.errors import ElfError
from ftpatch.recovered.image import open_image

UNDEFINED = b"Uwv"
FIRST_OFFSET = "__per_cpu_start"
MAX_NAMES = 1 << 26  # bytes of names, beyond what the table of strings can account for
WITHOUT_BYTES = b"bB"  # letters of .bss, which kallsyms has only where it was told to have the symbols of data
SYMTAB, DYNSYM, KALLSYMS, NONE = "symtab", "dynsym", "kallsyms", "none"


@dataclass(frozen=True, eq=False, repr=False)
class SymbolList:
    """Symbols in the order of their addresses, the undefined ones first."""

    image: Image
    source: str  # the table that they are from: `symtab`, `dynsym`, `kallsyms`, or `none`
    row: I64  # of `image.symbols`
    letter: U8  # nm's, as a byte
    address: U64  # va; in files that are not linked, offset in its section, whose own address is rarely not 0

    def __len__(self) -> int:
        return len(self.row)

    @property
    def defined(self) -> Mask:
        """Which symbols have an address."""
        return np.asarray(~np.isin(self.letter, np.frombuffer(UNDEFINED, np.uint8)))

    @property
    def of_code_alone(self) -> bool:
        """Whether the kernel's table leaves out the symbols of data."""
        if self.source != KALLSYMS or self.image.recovered is None or self.image.recovered.letters is None:
            return False
        return not np.isin(self.image.recovered.letters, np.frombuffer(WITHOUT_BYTES, np.uint8)).any()

    @property
    def has_offsets(self) -> bool:
        """Whether the kernel's table has the variables of each processor by their offsets."""
        row = self.image.symbols.defined(FIRST_OFFSET) if self.source == KALLSYMS else None
        recovered = self.image.recovered
        return (
            row is not None
            and recovered is not None
            and recovered.letters is not None
            and (recovered.letters[row : row + 1].tobytes() == b"A")
        )

    def names(self) -> list[str]:
        """The name of each, as the file has it; bytes that are not UTF-8 as escapes. Raises ElfError where they are far
        longer together than the table of strings."""
        symbols = self.image.symbols
        strtab, starts = symbols.strtab, symbols.rows["st_name"][self.row].tolist()
        find, n_strtab = strtab.find, len(strtab)
        ends = [find(b"\0", start, start + t.MAX_NAME) for start in starts]
        if min(ends, default=0) < 0:  # some have no end
            behind = (min(start + t.MAX_NAME, max(n_strtab, start)) for start in starts)
            ends = [end if end >= 0 else most for end, most in zip(ends, behind, strict=True)]
        if (total := sum(ends) - sum(starts)) > MAX_NAMES + 4 * n_strtab:
            raise ElfError("names of symbols overlap", self.image.path,
                           found=f"{n_strtab} bytes for {total} of {len(starts)} names")  # fmt: skip
        spans = zip(starts, ends, strict=True)
        if strtab.isascii():
            text = strtab.decode("ascii")
            return [text[start:end] for start, end in spans]
        return [strtab[start:end].decode("utf-8", "backslashreplace") for start, end in spans]

    def sizes(self) -> list[int | None]:
        """Bytes of each symbol; None where the table does not have them, and of an undefined one."""
        if self.source == KALLSYMS:
            return [None] * len(self)
        sizes: list[int | None] = self.image.symbols.rows["st_size"][self.row].tolist()
        for i in np.flatnonzero(~self.defined).tolist():
            sizes[i] = None
        return sizes

    def chosen(self, mask: Mask) -> SymbolList:
        """These of the symbols."""
        return SymbolList(self.image, self.source, self.row[mask], self.letter[mask], self.address[mask])


def symbols_of(path: str, max_size: int | None = None) -> SymbolList:
    """The symbols of a file, in the order of their addresses. max_size: bytes that it may unpack to."""
    return symbols_in(open_image(path, max_size))


def symbols_in(image: Image) -> SymbolList:
    """All symbols of an image that nm lists, in the order of `nm -n`: equal addresses by name; those of kallsyms in the
    order that it has."""
    source, symbols = source_of(image), image.symbols
    recovered = image.recovered
    letter, row = letters_of(image, symbols), np.flatnonzero(has_line(image, symbols))
    if recovered is not None:  # what was found besides its table has no letter
        row = np.arange(0 if recovered.letters is None else len(recovered.letters))
        letter[row] = [] if recovered.letters is None else recovered.letters
    undefined = np.isin(letter, np.frombuffer(UNDEFINED, np.uint8))
    common = letter == ord("C")
    address = np.where(common, symbols.rows["st_size"], symbols.rows["st_value"])
    if not image.linked:  # the linker leaves addresses in some modules, which count from 0 all the same
        inside = symbols.shndx > 0
        address[inside] += image.shdr["sh_addr"][symbols.shndx[inside]]
    address[undefined] = 0
    row = row[np.lexsort((address[row], ~undefined[row]))]
    made = SymbolList(image, source, row, letter[row], address[row])
    return made if source == KALLSYMS else _by_name(made, undefined[row])


def _by_name(listed: SymbolList, undefined: Mask) -> SymbolList:
    """Symbols of one address in the order of their names."""
    address, order = listed.address, np.arange(len(listed))
    same = (address[1:] == address[:-1]) & (undefined[1:] == undefined[:-1])
    edges = np.flatnonzero(np.diff(np.concatenate(([False], same, [False])).astype(np.int8)))
    names = listed.names() if len(edges) else []
    for first, last in edges.reshape(-1, 2).tolist():  # the ends of each run of one address
        order[first : last + 1] = sorted(range(first, last + 1), key=names.__getitem__)
    return SymbolList(listed.image, listed.source, listed.row[order], listed.letter[order], address[order])


def source_of(image: Image) -> str:
    """Where the symbols of an image are from."""
    if image.recovered is not None:
        return image.recovered.source
    if len(image.own_symbols.rows) > 1:
        return SYMTAB
    return DYNSYM if len(image.symbols.rows) > 1 else NONE
