"""Where in a linked kernel a stub may stand: zero bytes that are mapped executable, that no symbol claims and that no
relocation touches. There are two such places: the padding behind the text, and the gap in front of init text, which is
never freed.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import U8, U32
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.plan.edits import as_bytes
from ftpatch.sites.scan import Scan

AREA = 32  # bytes of a trampoline of the kernel's; it writes no more than the first twenty


def is_claimed(image: Image, va: int, size: int, own: str = "") -> bool:
    """Whether a symbol of any section claims bytes from an address on: one may reach far beyond its own section.

    own: the name of the area that the bytes are, whose symbol has no size; in an image it has, as far as the next one.
    """
    rows = image.symbols.rows
    start, end = rows["st_value"], rows["st_value"] + rows["st_size"]
    inside = (image.symbols.shndx > 0) & (image.symbols.type != t.STT_SECTION) & (end > np.uint64(va))
    if own and not image.functions.sized:
        inside[image.symbols.rows_named(own)] = False
    return bool((inside & (start < np.uint64(va + size))).any())


def bytes_at(image: Image, va: int, size: int) -> U8:
    """Bytes of the file at an address, gaps between sections included; fewer where it has no more."""
    pos = image.pos_of_va(va)
    return image.data[pos : pos + size] if pos >= 0 else image.data[:0]


def is_present(image: Image, va: int, held: U8, words: U32) -> bool | None:
    """Whether a stub is there already; None where it cannot be: other bytes, too few, or a relocation writes there.

    held: the bytes at va, as many as must be free.
    """
    code = as_bytes(words[None, :])[0]
    if np.array_equal(held[: len(code)], code):
        return True
    free = len(held) >= len(code) and not held.any() and not image.relocated(np.array([va], np.uint64), len(held))[0]
    return False if free else None


def text_tail(scan: Scan, inside: int) -> tuple[int, int]:
    """[start, end) of what no symbol claims at the end of the text section that holds `inside`, 16-byte aligned."""
    image, arch, symbols = scan.image, scan.arch, scan.image.symbols
    sec = int(image.place(np.array([inside], dtype=np.uint64))[0][0])
    first = int(image.base[sec])
    end = first + int(image.shdr["sh_size"][sec])
    row = (symbols.shndx == sec) & (symbols.type != t.STT_SECTION)
    value, size = symbols.rows["st_value"][row], symbols.rows["st_size"][row]
    within = (value >= np.uint64(first)) & (value < np.uint64(end))
    last = int((value + np.maximum(size, np.uint64(4)))[within].max()) if within.any() else first
    for name in arch.far.areas if arch.far else ():  # sizeless symbols of what the kernel fills at boot
        area = symbols.value(name)
        last = max(last, area + AREA) if area is not None and first <= area < end else last
    limit, starts = symbols.value("_etext"), image.shdr["sh_addr"]
    following = starts[(image.shdr["sh_flags"] & t.SHF_ALLOC != 0) & (starts >= np.uint64(end))]
    free = limit is not None and first < limit and (not len(following) or limit <= int(following.min()))
    if limit is not None and free and image.pos_of_va(limit - 1) - image.pos_of_va(end - 1) == limit - end:
        end = limit  # the linker's padding between the section and the end of the text is text too, if the file has it
    return (last + 15) & ~15, end


def gap_before_init(image: Image) -> tuple[int, int]:
    """[start, end) of the hole between the last section before `__init_begin` and that symbol; empty if none."""
    end = image.symbols.value("__init_begin")
    if end is None:
        return 0, 0
    shdr = image.shdr
    before = (shdr["sh_flags"] & t.SHF_ALLOC != 0) & (shdr["sh_addr"] < np.uint64(end)) & (shdr["sh_size"] > 0)
    start = int((shdr["sh_addr"] + shdr["sh_size"])[before].max()) if before.any() else end
    claimed = image.symbols.rows["st_value"]
    claimed = claimed[(claimed >= np.uint64(start)) & (claimed < np.uint64(end))]
    start = max(start, int(claimed.max()) + 16 if len(claimed) else 0)
    return (start + 15) & ~15, end


def first_zero(image: Image, start: int, end: int) -> int:
    """Where the run of zero bytes that ends at `end` begins, 16-byte aligned, not before `start`; `end` if none."""
    pos = image.pos_of_va(start) if start < end else -1
    if pos < 0 or image.pos_of_va(end - 1) != pos + end - 1 - start:
        return end
    used = np.flatnonzero(image.data[pos : pos + end - start])
    return start if not len(used) else (start + int(used[-1]) + 16) & ~15
