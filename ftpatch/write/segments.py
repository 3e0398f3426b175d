"""Program headers for the bytes of a flat image: what a loader of ELF files would have to load where."""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import Rows
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError

PAGE = 1 << 16  # bytes: the largest page that a kernel is made for
PT_NOTE = 4
PF_X, PF_W, PF_R = 1, 2, 4


def segments_of(image: Image) -> Rows:
    """PT_LOAD rows that hold every byte of a flat image, by address: a new one where what may be done with it changes.

    Bytes between sections go with those in front. Raises ElfError where the sections do not lie as in memory.
    """
    head = image.shdr
    index = np.flatnonzero((head["sh_flags"] & t.SHF_ALLOC != 0) & (head["sh_size"] > 0))
    index = index[np.argsort(head["sh_addr"][index], kind="stable")]
    held = index[image.has_bytes[index]]
    base = head["sh_addr"][held] - head["sh_offset"][held]
    if not len(held) or (base != base[0]).any():
        raise ElfError("no flat image: its sections do not lie in the file as in memory", image.path)
    rows: list[Rows] = []
    for sec in index.tolist():
        flags = _flags(int(head["sh_flags"][sec]))
        if not rows or flags != rows[-1]["p_flags"][0]:
            rows.append(_segment(flags, int(head["sh_addr"][sec]) if rows else int(base[0])))
        end = int(head["sh_addr"][sec]) + int(head["sh_size"][sec])
        rows[-1]["p_memsz"] = end - int(rows[-1]["p_vaddr"][0])
    segments = np.concatenate(rows)
    size, off = np.uint64(len(image.data)), segments["p_vaddr"] - base[0]
    held_to = np.minimum(np.append(off[1:], size), size)
    segments["p_filesz"] = held_to - np.minimum(off, held_to)
    segments["p_memsz"] = np.maximum(segments["p_memsz"], segments["p_filesz"])
    # what has no bytes is named right behind them, at a place in a page that is equal to that in memory
    segments["p_offset"] = np.where(off <= size, off, size + (off - size) % np.uint64(PAGE))
    return segments


def _flags(sh_flags: int) -> int:
    return PF_R | (PF_W if sh_flags & t.SHF_WRITE else 0) | (PF_X if sh_flags & t.SHF_EXECINSTR else 0)


def _segment(flags: int, va: int) -> Rows:
    row = np.zeros(1, t.PHDR)
    row["p_type"], row["p_flags"], row["p_vaddr"], row["p_paddr"], row["p_align"] = t.PT_LOAD, flags, va, va, PAGE
    return row


def note_segments(shdr: Rows) -> Rows:
    """A PT_NOTE row for each section of notes: tools look for the build-id in these."""
    notes = shdr[shdr["sh_type"] == t.SHT_NOTE]
    rows = np.zeros(len(notes), t.PHDR)
    for field, source in (
        ("p_offset", "sh_offset"), ("p_vaddr", "sh_addr"), ("p_paddr", "sh_addr"), ("p_filesz", "sh_size"),
        ("p_memsz", "sh_size"), ("p_align", "sh_addralign"),
    ):  # fmt: skip
        rows[field] = notes[source]
    rows["p_type"], rows["p_flags"] = PT_NOTE, PF_R
    return rows
