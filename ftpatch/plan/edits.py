"""The bytes that a plan owns: where, what must stand there before, what stands there after, and who wants it.

Groups hold many edits of one width and one kind as arrays; `Edits` is their union, proven disjoint. The journal, the
writer, the check after writing and the undo all read the same value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import I64, U8
from ftpatch.elf.editor import Placed

LEGAL = ("site", "stub", "literal", "record", "relocation", "thunk", "bound", "symbol", "header")


@dataclass(frozen=True)
class Group:
    """Edits of one kind: pos (n,), old and new (n, width) bytes; `ids` says which site, slot or row owns each."""

    kind: str
    ids: I64
    pos: I64
    old: U8
    new: U8


def group(kind: str, data: U8, ids: I64, pos: I64, new: U8) -> Group:
    """A group that takes the old bytes from the file and leaves out what would not change.

    new: (n, width) bytes. Positions must lie in the file.
    """
    assert kind in LEGAL, kind
    old = data[pos[:, None] + np.arange(new.shape[1])]
    differs = (old != new).any(axis=1)
    return Group(kind, ids[differs], pos[differs], old[differs], new[differs])


def as_bytes(values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> U8:
    """Rows of fixed-size little-endian values as rows of bytes."""
    values = np.ascontiguousarray(values)
    width = values.itemsize * int(np.prod(values.shape[1:], dtype=np.int64))
    return values.view(np.uint8).reshape(len(values), width)


class Edits:
    """All edits of a plan. Raises AssertionError where two of them touch the same byte: that is our own mistake.

    tail: what follows the original bytes, piece behind piece.
    """

    def __init__(self, groups: Iterable[Group], tail: Sequence[Placed] = ()) -> None:
        self.groups = tuple(one for one in groups if len(one.pos))
        self.tail = tuple(tail)
        pos = np.concatenate([np.zeros(0, np.int64), *(one.pos for one in self.groups)])
        width = np.concatenate([np.zeros(0, np.int64), *(np.full(len(g.pos), g.old.shape[1]) for g in self.groups)])
        which = np.concatenate([np.zeros(0, np.int64), *(np.full(len(g.pos), i) for i, g in enumerate(self.groups))])
        nth = np.concatenate([np.zeros(0, np.int64), *(np.arange(len(one.pos)) for one in self.groups)])
        order = np.argsort(pos, kind="stable")
        self.pos: I64 = pos[order]
        self.width: I64 = width[order].astype(np.int64)
        self._which, self._nth = which[order].astype(np.int64), nth[order].astype(np.int64)
        if np.any(self.pos[:-1] + self.width[:-1] > self.pos[1:]):
            at = int(np.argmax(self.pos[:-1] + self.width[:-1] > self.pos[1:]))
            raise AssertionError(f"two edits overlap at file position {int(self.pos[at + 1]):#x}")

    def __len__(self) -> int:
        return len(self.pos) + len(self.tail)

    def __iter__(self) -> Iterator[tuple[int, bytes, bytes, str, int]]:
        """(pos, old, new, kind, id) of the edits between the original bytes, in file order."""
        for pos, which, nth in zip(self.pos.tolist(), self._which.tolist(), self._nth.tolist(), strict=True):
            one = self.groups[which]
            yield pos, one.old[nth].tobytes(), one.new[nth].tobytes(), one.kind, int(one.ids[nth])

    def n_bytes(self) -> int:
        """Bytes that the edits own."""
        return int(self.width.sum()) + len(self.grown)

    @property
    def grown(self) -> bytes:
        """The bytes that follow the original ones."""
        return b"".join(piece.new for piece in self.tail)

    def patch(self, start: int, chunk: U8) -> bool:
        """Put the new bytes into `chunk`, a writable copy of the file from position `start` that cuts no edit.

        False, and nothing certain about `chunk`, where old bytes are not as the plan saw them.
        """
        sound = True
        for one in self.groups:
            inside = (one.pos >= start) & (one.pos < start + len(chunk))
            if not inside.any():
                continue
            index = (one.pos[inside] - start)[:, None] + np.arange(one.old.shape[1])
            sound &= bool(np.array_equal(chunk[index], one.old[inside]))
            chunk[index] = one.new[inside]
        return sound

    def runs(self, gap: int) -> list[tuple[int, int]]:
        """(start, end) file ranges that hold all edits, neighbours closer than `gap` bytes in one range."""
        if not len(self.pos):
            return []
        end = self.pos + self.width
        cut = np.flatnonzero(self.pos[1:] - end[:-1] > gap)
        starts = self.pos[np.concatenate(([0], cut + 1))]
        ends = end[np.concatenate((cut, [len(end) - 1]))]
        return list(zip(starts.tolist(), ends.tolist(), strict=True))
