"""Symbols that kallsyms leaves out although the kernel has them, where the file tells their addresses all the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.elf.image import Image

OF_DATA = ("_sdata", "_edata", "__bss_start", "linux_banner")  # that every kernel has
AREA = 32  # bytes of a trampoline that the kernel fills when it boots


def with_more(image: Image, added: dict[str, int]) -> Image:
    """A recovered image with more symbols: their addresses by their names."""
    assert image.recovered is not None
    symbols = image.recovered.symbols
    rows, strtab = np.zeros(len(added), t.SYM), symbols.strtab
    rows["st_value"], rows["st_shndx"] = list(added.values()), t.SHN_ABS  # in no section, unlike those of kallsyms
    for row, name in zip(rows, added, strict=True):
        row["st_name"] = len(strtab)
        strtab += name.encode() + b"\0"
    sec = np.append(symbols.shndx, np.full(len(added), t.NO_SECTION, dtype=np.int64))
    more = t.Symbols(np.concatenate([symbols.rows, rows]), strtab, sec)
    return replace(image, recovered=image.recovered._replace(symbols=more))


def with_trampoline_of_init_text(image: Image) -> Image:
    """The image with the symbol of the area behind init text that the kernel fills with a jump when it boots.

    Without CONFIG_KALLSYMS_ALL all symbols at the end of init text are left out but that of the end itself.
    Source: scripts/kallsyms.c symbol_valid().
    """
    symbols, far, recovered = image.own_symbols, image.arch.far, image.recovered
    if far is None or recovered is None:
        return image
    text, init = (symbols.value(name) for name in far.areas)
    end = symbols.value("_einittext")
    if text is None or init is not None or end is None:
        return image
    held = image.code(end, AREA // image.arch.unit)
    if len(held) < AREA // image.arch.unit or held.any():
        return image
    return with_more(image, {far.areas[1]: end})


def names_data(image: Image) -> bool:
    """Whether the symbols are those of data, too: else a table that none of them names may be there all the same."""
    own = image.own_symbols
    return image.recovered is None or any(own.defined(name) is not None for name in OF_DATA)
