"""What pyelftools reads from: a section as a file, whose every read is a counted step.

Each loop of pyelftools reads, or asks for the position, so that a limit of steps ends them all.
"""

from __future__ import annotations

import os
from typing import IO, cast

from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf import tables as t
from ftpatch.errors import ElfError

WINDOW = 1 << 13  # bytes that are taken from the section at once
MAX_LEB = 64  # one-byte reads in a row with the top bit set; an array of sixteen bytes (DW_FORM_data16) is read so, too
FREE_STEPS = 100_000  # steps that any file may take, a tenth of a second
MAX_STEPS = 1 << 26  # that no file may exceed: some minutes; the lines of all functions of a vmlinux take half of it
STEPS_PER_BYTE = 4  # of the sections that are parsed, not only searched; a range list takes 2, a line program 3


class Steps:
    """How many steps are left, for all streams of an image together."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    @classmethod
    def for_size(cls, size: int) -> Steps:
        """Those of a file. size: bytes of the sections that are parsed."""
        return cls(min(FREE_STEPS + STEPS_PER_BYTE * size, MAX_STEPS))

    def take(self, n: int) -> None:
        self.left -= n
        if self.left < 0:
            raise ElfError("debug information takes too many steps to read")


class Stream:
    """A section as a file that pyelftools reads from: without a copy, and counting its steps."""

    __slots__ = ("_at", "_data", "_run", "_start", "_steps", "_window")

    def __init__(self, data: FileBytes, steps: Steps) -> None:
        self._data, self._steps = data, steps
        self._window, self._start = b"", 0  # bytes of the section around those that were read last, and where they are
        self._at = 0
        self._run = 0  # bytes of an unfinished LEB128 number, as far as can be told from here

    def read(self, size: int) -> bytes:
        self._steps.take(1)
        piece = self._bytes(size)
        self._at += len(piece)
        self._run = self._run + 1 if size == 1 and piece >= b"\x80" else 0
        if self._run > MAX_LEB:
            raise ElfError("debug information has a number without end")
        return piece

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> None:
        self._at = offset if whence == os.SEEK_SET else self._at + offset
        self._run = 0
        if self._at < 0:
            raise ElfError("debug information refers to what is in front of a section")

    def ahead(self, end: bytes) -> bytes:
        """The next bytes up to the first `end`, which belongs to them, without reading them."""
        piece = self._bytes(t.MAX_NAME)
        return piece[: piece.find(end) + len(end)]

    def _bytes(self, size: int) -> bytes:
        """Bytes from the position on, as far as the section has them."""
        at = self._at - self._start
        if at < 0 or at + size > len(self._window):
            self._start, at = self._at, 0
            self._window = self._data.peek(self._start, self._start + max(size, WINDOW))
        return self._window[at : at + size]

    def tell(self) -> int:
        self._steps.take(1)  # pyelftools asks for the position of an attribute that takes no bytes
        return self._at


def as_file(stream: Stream) -> IO[bytes]:
    """A stream for pyelftools, which needs no more of a file than reading, seeking and telling."""
    return cast("IO[bytes]", stream)
