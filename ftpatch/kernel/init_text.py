"""Which code a kernel frees once it has booted."""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, U64, Mask
from ftpatch.elf.image import Image

SECTION = ".init.text"


def init_text(image: Image) -> tuple[int, int]:
    """[start, end) of init text, as the kernel's is_kernel_inittext() has it; (0, 0) where no symbol says."""
    begin = image.symbols.value("_sinittext") or image.symbols.value("__init_begin")
    end = image.symbols.value("_einittext") or image.symbols.value("__init_end")
    if begin is not None and end is not None:
        return begin, end
    secs = image.sections_named(SECTION) if image.recovered is not None else []  # it has no names at all
    return (int(image.base[secs[0]]), int(image.base[secs[0]] + image.shdr["sh_size"][secs[0]])) if secs else (0, 0)


def in_init_code(image: Image, sec: I64, off: I64) -> Mask:
    """Which places lie in code that is freed once it ran: of a module, in sections that are named so."""
    if image.linked:
        return in_init_text(image, image.va(sec, off))
    starts = np.array([name.startswith(".init") for name in image.names], dtype=bool)
    return np.asarray((sec >= 0) & starts[sec])


def in_init_text(image: Image, va: U64) -> Mask:
    """Which addresses are init text."""
    begin, end = init_text(image)
    return np.asarray((va >= np.uint64(begin)) & (va < np.uint64(end)))
