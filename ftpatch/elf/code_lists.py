"""Which code of a linked kernel stands in a list by which the kernel rewrites code at boot."""

from __future__ import annotations

import numpy as np

from ftpatch.arch.code_lists import CodeList
from ftpatch.arrays import I64, U8, U64, Mask
from ftpatch.elf.image import Image


def self_relative(content: U8, start: int, row: int = 4) -> U64:
    """Addresses that the first four bytes of each row name, relative to themselves; a part of a row at the end counts
    for nothing. start: va of the first row; row: bytes of one."""
    n = len(content) // row
    fields = np.ascontiguousarray(content[: n * row].reshape(n, row)[:, :4]).view("<i4").reshape(-1)
    with np.errstate(over="ignore"):
        places = np.uint64(start) + np.uint64(row) * np.arange(n, dtype=np.uint64)
        return np.asarray(places + fields.astype(np.int64).view(np.uint64))


def listed(image: Image, code_list: CodeList, va: U64, size: int) -> Mask:
    """Whether a list names one of the `size` bytes from each address."""
    places = np.sort(_places(image, code_list))
    first = va.view(np.int64)
    return np.asarray(np.searchsorted(places, first) < np.searchsorted(places, first + size))


def _places(image: Image, code_list: CodeList) -> I64:
    """Addresses of the code that a list names."""
    start, content = _span(image, code_list)
    return self_relative(content, start, code_list.row).view(np.int64)


def _span(image: Image, code_list: CodeList) -> tuple[int, U8]:
    """(address, bytes) of a list; none where the file has no such list."""
    for sec in image.sections_named(code_list.section):
        return int(image.base[sec]), image.content(sec)
    ends = [image.symbols.value(f"__{end}_{code_list.section.lstrip('.')}") for end in ("start", "stop")]
    start, stop = (end or 0 for end in ends)
    pos = image.pos_of_va(start) if start < stop else -1
    return start, image.data[pos : pos + stop - start] if pos >= 0 else image.data[:0]
