"""Whether the tables of a relocatable file can grow: what is appended must not become a part of something broken."""

from __future__ import annotations

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError


def require_symbols(image: Image, symtab: int) -> None:
    """ElfError where a symbol's name or section is not there: what is appended would become it."""
    symbols, where = image.symbols, f"{image.path}: {image.names[symtab]}"
    name = symbols.rows["st_name"]
    lost = np.flatnonzero(name >= max(len(symbols.strtab), 1))
    if len(lost):
        raise ElfError("a symbol's name lies outside the string table", where, found=f"symbol {int(lost[0])}",
                       expected=f"less than {len(symbols.strtab):#x}")  # fmt: skip
    lost = np.flatnonzero((symbols.rows["st_shndx"] != t.SHN_UNDEF) & (symbols.shndx == t.SHN_UNDEF))
    if len(lost):
        raise ElfError("a symbol lies in no section of the file", where, found=f"symbol {int(lost[0])}",
                       expected=f"a section below {len(image.shdr)}")  # fmt: skip
    if int(image.shdr["sh_info"][symtab]) > len(name):
        raise ElfError("the symbol table's sh_info is greater than its length", where,
                       found=str(image.shdr["sh_info"][symtab]), expected=f"at most {len(name)}")  # fmt: skip
    lost = np.flatnonzero(image.shdr["sh_link"] >= len(image.shdr))
    if len(lost):
        raise ElfError("a section's sh_link is no section", image.path, found=f"section {int(lost[0])}",
                       expected=f"a link below {len(image.shdr)}")  # fmt: skip


def require_relocations(image: Image, table: int, symtab: int) -> None:
    """ElfError where a relocation table belongs to no section of the file, or names symbols that are not there."""
    link, info = (int(image.shdr[field][table]) for field in ("sh_link", "sh_info"))
    where = f"{image.path}: section {table} {image.names[table]}"
    if link != symtab:
        raise ElfError("the relocations' sh_link is not the symbol table", where, found=f"section {link}",
                       expected=f"section {symtab}")  # fmt: skip
    if not 0 < info < len(image.shdr):
        raise ElfError("the relocations' sh_info is no section", where, found=f"section {info}",
                       expected=f"one below {len(image.shdr)}")  # fmt: skip
    symbol = image.rows(table, t.RELA)["r_info"] >> np.uint64(32)
    if len(symbol) and int(symbol.max()) >= len(image.symbols.rows):
        raise ElfError("a relocation names no symbol of this file", where, found=f"symbol {int(symbol.max())}",
                       expected=f"less than {len(image.symbols.rows)}")  # fmt: skip
