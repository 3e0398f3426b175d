"""What a kernel's file loads where: the address spaces that the search for its tables goes between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import I64, U64
from ftpatch.container.file_bytes import FileBytes


@dataclass(frozen=True, eq=False, repr=False)
class Memory:
    """The bytes of a kernel and where they are loaded: pieces in the order of their addresses, none in another."""

    data: FileBytes
    va: U64  # first address of each piece
    pos: I64  # file position of its first byte
    size: I64  # bytes of it that the file holds

    def va_of(self, pos: I64) -> U64:
        """The address of each file position; 0 where nothing of it is loaded."""
        order = np.argsort(self.pos, kind="stable")
        return _moved(pos, self.pos[order], self.size[order], self.va[order].view(np.int64), 0).view(np.uint64)

    def pos_of(self, va: U64) -> I64:
        """The file position of each address; −1 where the file holds none."""
        return _moved(va, self.va, self.size, self.pos, -1)


def _moved(at: U64 | I64, start: U64 | I64, size: I64, to: I64, otherwise: int) -> I64:
    """Places in pieces that start somewhere, as places in pieces that start elsewhere."""
    if not len(start):
        return np.full(len(at), otherwise, dtype=np.int64)
    piece = np.searchsorted(start, at, side="right").astype(np.int64) - 1
    off = (at - start[piece]).view(np.int64)
    return np.where((piece >= 0) & (off >= 0) & (off < size[piece]), to[piece] + off, otherwise)
