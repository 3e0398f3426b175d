"""What the distances of a kallsyms are from: the word of the file that tells it, and a second fact that agrees."""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import Rows
from ftpatch.errors import ElfError
from ftpatch.recovered.kallsyms import ABSOLUTE, OWN, Kallsyms, Listing, Tables, decode, read
from ftpatch.recovered.memory import Memory

BANNER, SAYS = b"linux_banner", b"Linux version "
STARTS = (b"_text", b"_stext")  # symbols that stand where something is loaded


def anchored(memory: Memory, tables: Tables, rela: Rows) -> Kallsyms:
    """The symbols at their addresses. rela: the relocations that the kernel applies to itself.

    Raises ElfError where nothing in the file tells their addresses, or where what does is contradicted.
    """
    listing = read(memory.data, tables)
    for anchor in _anchors(memory, tables, listing, rela):
        found = decode(listing, anchor)
        if _agrees(memory, found, listing):
            return found
    raise ElfError("the addresses of kallsyms are not those of this file", f"position {tables.values.pos:#x}",
                   expected="_text, _stext or linux_banner where they must be",
                   todo="the file is damaged, or a kernel of a form that is not known")  # fmt: skip


def _anchors(memory: Memory, tables: Tables, listing: Listing, rela: Rows) -> list[int]:
    """What the distances may be from, the likeliest first."""
    values = tables.values
    if values.kind == ABSOLUTE:
        return [0]
    if values.kind == OWN:
        return [int(memory.va_of(np.array([values.pos]))[0])]
    place = memory.va_of(np.array([values.base_pos]))
    covering = rela[rela["r_offset"] == place[0]]
    word = int(memory.data[values.base_pos : values.base_pos + 8].view("<u8")[0])
    return [*(int(addend) & 0xFFFF_FFFF_FFFF_FFFF for addend in covering["r_addend"].tolist()), word]


def _agrees(memory: Memory, found: Kallsyms, listing: Listing) -> bool:
    """Whether a symbol that has to stand at a certain place does."""
    banner = [int(found.va[row]) for row in listing.rows_of(BANNER).tolist()]
    if banner:
        pos = memory.pos_of(np.array(banner, dtype=np.uint64))
        return all(at >= 0 and memory.data[at : at + len(SAYS)].tobytes() == SAYS for at in pos.tolist())
    starts = np.array([found.va[row] for name in STARTS for row in listing.rows_of(name).tolist()], dtype=np.uint64)
    return bool(len(starts)) and bool((memory.pos_of(starts) >= 0).all())
