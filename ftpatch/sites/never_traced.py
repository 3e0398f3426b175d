"""Code that is apart in a kernel: by its section, or in a vmlinux by the symbols around it. Source: vmlinux.lds.h."""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, U64, Mask, is_in
from ftpatch.elf.image import Image

Bounds = tuple[tuple[str, str], ...]

# code that runs where no tracer may: compilers leave no sites in it
NEVER_TRACED = (".noinstr.text", ".entry.text", ".hyp.text", ".hyp.idmap.text", ".idmap.text", ".head.text")
BOUNDS: Bounds = (
    ("__noinstr_text_start", "__noinstr_text_end"), ("__entry_text_start", "__entry_text_end"),
    ("__hyp_text_start", "__hyp_text_end"), ("__hyp_idmap_text_start", "__hyp_idmap_text_end"),
    ("__idmap_text_start", "__idmap_text_end"),
)  # fmt: skip


def within(image: Image, sec: I64, va: U64, names: tuple[str, ...], bounds: Bounds) -> Mask:
    """Which places are in sections of these names, or in a linked file between these symbols."""
    inside, value = np.asarray(is_in(sec, np.array(image.sections_named(*names), np.int64))), image.symbols.value
    for low, high in bounds if image.linked else ():
        start = value(low)
        stop = None if start is None else value(high)  # a search through all names
        if start is not None and stop is not None:
            inside |= (va >= np.uint64(start)) & (va < np.uint64(stop))
    return inside
