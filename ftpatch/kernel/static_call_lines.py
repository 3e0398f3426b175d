"""Which static calls have a destination word that lies in two cache lines.

A kernel is where its file says, or farther by whole pages. Of a module the loader lays out the code from the start of a
page on: the sections in the order of the file, each aligned as its header says; those of init text have pages of their
own. So the place within a page is known before the module is loaded. Of an object nothing is known but the alignment
of its sections: where a word lies between two such places, it lies in one line.
Source: kernel/module/main.c layout_sections() (Linux 6.1, 6.12).
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, Mask
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.sites.static_calls import WORD, StaticCallTable

NOT_KNOWN, CROSSES = -1, 1  # of a site: it may, or it is no branch; it does. 0: it does not
PAGE = 4096  # the least size of a page: what a line may have at most
UNLOADS = b" mod_unload "  # in a module's vermagic: the kernel keeps code that only unloading runs


def line_crossings(table: StaticCallTable, line: int) -> I64:
    """CROSSES, NOT_KNOWN or 0 per site. line: bytes of a cache line, a power of two up to PAGE."""
    image, calls = table.image, table.calls
    word = table.words_at()
    start = np.where(word >= 0, calls.off + word, 0)
    within = image.base.view(np.int64) if image.linked else _starts(image)  # of each section, in a page or a block
    block = np.full(len(within), PAGE) if image.linked or image.kind == "module" else _alignments(image)
    known = (word >= 0) & (calls.sec >= 0)
    place = start + within[calls.sec]
    crosses = place % line + WORD > line
    unsure = known & (block[calls.sec] < line)
    # between two places that may begin a line it lies in one; at one it may or may not
    in_block = place % np.maximum(block[calls.sec], 1) + WORD <= block[calls.sec]
    result = np.where(crosses, CROSSES, 0)
    result[unsure] = np.where(in_block[unsure], 0, NOT_KNOWN)
    return np.where(known & (within[calls.sec] >= 0) | image.linked & known, result, NOT_KNOWN)


def _alignments(image: Image) -> I64:
    """Bytes that each section's start is a multiple of; 1 where the header says nothing that can be."""
    align = np.maximum(np.minimum(image.shdr["sh_addralign"], np.uint64(PAGE)).astype(np.int64), 1)
    return np.where(align & (align - 1) == 0, align, 1)


def _starts(image: Image) -> I64:
    """Where each section of code begins: bytes from the start of a page in a module, 0 in an object; −1: not known."""
    n = len(image.shdr)
    if image.kind != "module":
        return np.zeros(n, dtype=np.int64)
    starts = np.full(n, -1, dtype=np.int64)
    wanted = t.SHF_ALLOC | t.SHF_EXECINSTR
    code = image.shdr["sh_flags"] & wanted == wanted
    early = _in_init_memory(image)
    for part in (code & early, code & ~early):
        end = 0
        for sec in np.flatnonzero(part).tolist():
            align, size = (int(image.shdr[name][sec]) for name in ("sh_addralign", "sh_size"))
            if align & (align - 1) or align > PAGE:
                break  # a loader may do anything with it, and what is behind it follows
            starts[sec] = end = -(-end // max(align, 1)) * max(align, 1)
            end += size
    return starts


def _in_init_memory(image: Image) -> Mask:
    """Which sections the loader puts with init text."""
    unloads = any(UNLOADS in image.content(sec).tobytes() for sec in image.sections_named(".modinfo"))
    prefixes = (".init",) if unloads else (".init", ".exit")
    return np.array([name.startswith(prefixes) for name in image.names], dtype=bool)
