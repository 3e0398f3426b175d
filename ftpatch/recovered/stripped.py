"""A kernel whose file has sections but no symbol table: its sections as they are, its symbols from kallsyms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.recovered import Recovered
from ftpatch.recovered import symbols
from ftpatch.recovered.anchors import anchored
from ftpatch.recovered.kallsyms import find_tables
from ftpatch.recovered.memory import Memory


def memory_of(image: Image) -> Memory:
    """What the sections of a file load where."""
    head = image.shdr
    loaded = np.flatnonzero((head["sh_flags"] & t.SHF_ALLOC != 0) & image.has_bytes & (head["sh_size"] > 0))
    loaded = loaded[np.argsort(head["sh_addr"][loaded], kind="stable")]
    va, pos, size = (head[field][loaded] for field in ("sh_addr", "sh_offset", "sh_size"))
    return Memory(image.data, va, pos.astype(np.int64), size.astype(np.int64))


def with_symbols(image: Image) -> Image:
    """The image with the symbols of its kallsyms; as it is where it has none.

    Raises ElfError where its tables contradict themselves or each other.
    """
    tables = find_tables(image.data)
    if tables is None:
        return image
    found = anchored(memory_of(image), tables, image.rela[0])
    return replace(image, recovered=Recovered(symbols.placed(symbols.unplaced(found), image), "kallsyms", False))
