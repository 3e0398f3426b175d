"""The bytes that a plan owns: where, what the file must hold there before, what it holds after, and who wants it.

Groups hold many edits of one width and one kind as arrays; `Edits` is their union, proven disjoint. The journal, the
writer, the check after writing and the undo all read the same value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import I64, U8, U32, U64
from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf.editor import Placed
from ftpatch.elf.image import Image

# What a byte may change for. `thunk`: a shared stub; `bound`: the end of the record table in ftrace_init's code;
# `key`, `trampoline`: of a static call; `call`: of the profiling function, which becomes a NOP.
LEGAL = ("site", "pad", "stub", "literal", "record", "relocation", "thunk", "bound", "symbol", "header", "key",
         "trampoline", "call")  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Edits of one kind and one width."""

    kind: str  # one of LEGAL
    ids: I64  # (n,) the site, slot or row that owns each
    pos: I64  # (n,) file positions
    old: U8  # (n, width) bytes before
    new: U8  # (n, width) bytes after


def group(kind: str, data: FileBytes, ids: I64, pos: I64, new: U8) -> Group:
    """A group that takes the old bytes from the file and leaves out what would not change.

    new: (n, width) bytes. Positions must lie in the file.
    """
    assert kind in LEGAL, kind
    old = data.rows(pos, new.shape[1])
    differs = (old != new).any(axis=1)
    return Group(kind, ids[differs], pos[differs], old[differs], new[differs])


def group_at(kind: str, image: Image, ids: I64, va: U64, new: U8) -> Group:
    """As `group`, for bytes at addresses that sections of the file hold."""
    return group(kind, image.data, ids, image.pos(*image.place(va)), new)


def as_bytes(values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> U8:
    """Rows of fixed-size little-endian values as rows of bytes."""
    values = np.ascontiguousarray(values)
    width = values.itemsize * int(np.prod(values.shape[1:], dtype=np.int64))
    return values.view(np.uint8).reshape(len(values), width)


def code_bytes(units: U32, unit: int) -> U8:
    """Rows of units of code as rows of bytes. unit: bytes of one."""
    return as_bytes(units.astype(f"<u{unit}"))


class Edits:
    """All edits of a plan. Raises AssertionError where two of them touch the same byte: a mistake of this program."""

    def __init__(self, groups: Iterable[Group], tail: Sequence[Placed] = ()) -> None:
        self.groups = tuple(part for part in groups if len(part.pos))
        self.tail = tuple(tail)  # what follows the original bytes, piece behind piece
        n = np.array([len(part.pos) for part in self.groups], dtype=np.int64)
        which = np.repeat(np.arange(len(n)), n)
        pos = np.concatenate([np.zeros(0, np.int64), *(part.pos for part in self.groups)])
        order = np.argsort(pos, kind="stable")
        # Edit i of the file is row _nth[i] of group _which[i].
        self._which: I64 = which[order]
        self._nth: I64 = (np.arange(len(pos)) - (np.cumsum(n) - n)[which])[order]
        self.pos: I64 = pos[order]  # file position of each edit, ascending
        self.width: I64 = np.array([part.old.shape[1] for part in self.groups], dtype=np.int64)[
            self._which
        ]  # its bytes
        overlap = np.flatnonzero(self.pos[:-1] + self.width[:-1] > self.pos[1:])
        if len(overlap):
            raise AssertionError(f"two edits overlap at file position {int(self.pos[overlap[0] + 1]):#x}")

    def in_file_order(self, values: Sequence[I64]) -> I64:
        """A number for each edit, in the order of `pos`. values: of the edits of each group, by its rows."""
        start = np.cumsum([0, *(len(part.pos) for part in self.groups)])[:-1]
        flat = np.concatenate([np.zeros(0, np.int64), *values])
        return flat[start[self._which] + self._nth] if len(flat) else flat

    def __len__(self) -> int:
        return len(self.pos) + len(self.tail)

    def __iter__(self) -> Iterator[tuple[int, bytes, bytes, str, int]]:
        """(pos, old, new, kind, id) of the edits between the original bytes, in file order."""
        for pos, which, nth in zip(self.pos.tolist(), self._which.tolist(), self._nth.tolist(), strict=True):
            part = self.groups[which]
            yield pos, part.old[nth].tobytes(), part.new[nth].tobytes(), part.kind, int(part.ids[nth])

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
        for part in self.groups:
            inside = (part.pos >= start) & (part.pos < start + len(chunk))
            if not inside.any():
                continue
            index = (part.pos[inside] - start)[:, None] + np.arange(part.old.shape[1])
            sound &= bool(np.array_equal(chunk[index], part.old[inside]))
            chunk[index] = part.new[inside]
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
