"""Which section a position in a file lies in."""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import Mask
from ftpatch.elf.image import Image


def section_of(image: Image, pos: int) -> int | None:
    """The section whose bytes lie at a file position; None where there is none."""
    start, size = image.shdr["sh_offset"].astype(np.int64), image.shdr["sh_size"].astype(np.int64)
    inside: Mask = image.has_bytes & (start <= pos) & (pos < start + size)
    return int(np.argmax(inside)) if inside.any() else None


def section_at(image: Image, pos: int) -> tuple[str | None, int | None]:
    """Name of that section, and the offset in it; None where there is none."""
    sec = section_of(image, pos)
    return (None, None) if sec is None else (image.names[sec] or str(sec), pos - int(image.shdr["sh_offset"][sec]))
