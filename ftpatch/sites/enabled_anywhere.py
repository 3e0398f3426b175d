"""Enabled sites of a kernel or program that may lie anywhere in their functions, and that no record names.

At an entry the words tell such a site; behind a prologue a call is a call like any other. Only one of the kernel's own
trampolines tells it, or a stub that a patch added to a program: nothing but a patched site calls those.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch.shape import Shape
from ftpatch.arrays import is_in
from ftpatch.elf.image import Image
from ftpatch.elf.kind import PROGRAMS
from ftpatch.sites.callees import ADDED
from ftpatch.sites.matching import functions_at
from ftpatch.sites.profiler_calls import calls_of, profiler_calls
from ftpatch.sites.table import ENABLED, SiteTable


def enabled_anywhere(image: Image, known: SiteTable, shape: Shape) -> SiteTable | None:
    """The rows of such sites; None where there are none, or where the layout's sites are at entries."""
    if not shape.anywhere or image.kind not in ("vmlinux", *PROGRAMS):
        return None
    if image.kind in PROGRAMS:
        sec, off = calls_of(image, image.base[image.sections_named(ADDED)])
        off -= shape.call_at
    else:
        parts = [profiler_calls(image, name) for name in image.arch.entries]
        sec, off = (np.concatenate(column) for column in zip(*parts, strict=True))
    bare = ~is_in(image.va(sec, off + shape.call_at), known.branch_va)
    sec, off = sec[bare], off[bare]
    n, window, va = len(sec), image.window(sec, off), image.va(sec, off)
    if not n:
        return None
    low, high = functions_at(image, shape, window, va)
    status, row = np.full(n, ENABLED, dtype=np.uint8), np.full(n, -1, dtype=np.int64)
    site, redirected = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool)
    return SiteTable(image, shape, known.forced, row, sec, off, window, low, high, status, site, redirected)
