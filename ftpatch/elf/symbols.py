"""The static symbol table of a file, with the section number of every symbol."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ftpatch.arrays import I64
from ftpatch.elf import tables as t
from ftpatch.errors import ElfError

if TYPE_CHECKING:
    from ftpatch.elf.image import Image


def symbols_of(image: Image) -> t.Symbols:
    """The first SHT_SYMTAB table; an image without one has no rows.

    Raises ElfError where its strings or its extended section numbers are not there.
    """
    tabs = np.flatnonzero(image.shdr["sh_type"] == t.SHT_SYMTAB)
    if not len(tabs):
        return t.Symbols(np.zeros(0, t.SYM), b"", np.zeros(0, np.int64))
    tab = int(tabs[0])
    rows = image.rows(tab, t.SYM)
    link = int(image.shdr["sh_link"][tab])
    if link >= len(image.shdr) or image.shdr["sh_type"][link] != t.SHT_STRTAB:
        raise ElfError("the symbol table's sh_link names no string table", image.path, found=f"section {link}")
    shndx = rows["st_shndx"].astype(np.int64)
    extended = np.flatnonzero(shndx == t.SHN_XINDEX)
    if len(extended):
        shndx[extended] = _extended_index(image, tab, len(rows))[extended]
    special = (rows["st_shndx"] >= t.SHN_LORESERVE) & (rows["st_shndx"] != t.SHN_XINDEX)
    shndx[special] = t.NO_SECTION
    shndx[~special & (shndx >= len(image.shdr))] = t.SHN_UNDEF
    return t.Symbols(rows, image.content(link).tobytes(), shndx)


def _extended_index(image: Image, tab: int, n: int) -> I64:
    """Section numbers of n symbols from the table that files with more than 65,279 sections have."""
    for sec in np.flatnonzero(image.shdr["sh_type"] == t.SHT_SYMTAB_SHNDX):
        if int(image.shdr["sh_link"][sec]) == tab:
            index = image.content(int(sec))
            if len(index) >= 4 * n:
                return index[: 4 * n].view("<u4").astype(np.int64)
    raise ElfError("symbols use SHN_XINDEX but there is no SHT_SYMTAB_SHNDX table for them", image.path)
