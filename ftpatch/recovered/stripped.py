"""A kernel whose file has sections but no symbol table: its sections as they are, its symbols from kallsyms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arrays import Rows
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.recovered import Recovered
from ftpatch.recovered import symbols
from ftpatch.recovered.complete import complete
from ftpatch.recovered.kallsyms import Addends, kallsyms_of
from ftpatch.recovered.memory import Memory
from ftpatch.recovered.without_names import with_addresses


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
    kallsyms = kallsyms_of(memory_of(image), addends_of(image.rela[0], image.arch))
    if kallsyms is None:
        return with_addresses(image) or image
    placed = symbols.placed(symbols.unplaced(kallsyms), image)
    return complete(replace(image, recovered=Recovered(placed, "kallsyms", False, kallsyms.letter)))


def addends_of(rows: Rows, arch: Arch) -> Addends:
    """What a table of relocations will write."""
    rows = rows[rows["r_info"] & 0xFFFF_FFFF == arch.relative]
    return Addends(rows["r_offset"].astype(np.uint64), rows["r_addend"].view(np.uint64))
