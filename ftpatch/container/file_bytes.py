"""The bytes of a file, copied when they are first asked for and never read twice.

A map of a file shows whatever another program writes to it meanwhile, and an access behind a new end of the file kills
the process. So there is no map here: every byte that is seen was copied by pread() before, and behind each read size
and time of the file must be those that it was opened with. What a run sees is thus one state of the file, or an error.

    file ── pread, in chunks ──> memory of the file's size, private; a chunk that nobody asks for takes none
         └─ pread, in pieces ──> one buffer: for those who look at everything once (checksums, comparisons, copies)
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from os import close
from typing import Any

import numpy as np

from ftpatch.arrays import I64, U8, U32, Mask
from ftpatch.errors import ChangedError, InputError
from ftpatch.inputs import unreadable

ELF_MAGIC = b"\x7fELF"
Buffer = bytes | bytearray | memoryview | mmap.mmap
CHUNK_BITS = 16
CHUNK = 1 << CHUNK_BITS  # bytes that are read where some of them are asked for
WHOLE = 4 << 20  # bytes up to which a file is read at once, and closed
MOST = 64 << 20  # bytes of one system call: a signal is handled between two of these
MANY, GATHERED = 1 << 10, 1 << 18  # places from which on they are gathered, from so many bytes at once
PIECE = 1 << 20  # bytes that are read at once by those who keep none of them: they stay in the processor's cache
LARGE = 2 << 20  # bytes from which a range is given large pages: the faults of small ones cost more than the copying
LARGE_PAGES: int = getattr(mmap, "MADV_HUGEPAGE", 0)
NO_RESERVE: int = getattr(mmap, "MAP_NORESERVE", 0)  # Python has the name from 3.13 on


@dataclass(frozen=True, eq=False)
class _Source:
    """An open file, and what was read of it."""

    path: str
    fd: int
    size: int  # when it was opened, as the next
    mtime_ns: int
    memory: mmap.mmap  # as many bytes as the file has
    loaded: Mask  # per chunk: it was read

    def __del__(self) -> None:
        close(self.fd)

    def has(self, start: int, stop: int) -> bool:
        """Whether the bytes [start, stop) are in memory."""
        return bool(self.loaded[start >> CHUNK_BITS : (stop + CHUNK - 1) >> CHUNK_BITS].all())

    def load(self, start: int, stop: int) -> None:
        """Have the bytes [start, stop) in memory."""
        first, behind = start >> CHUNK_BITS, (stop + CHUNK - 1) >> CHUNK_BITS
        if not self.loaded[first:behind].all():
            self._load_missing(first, ~self.loaded[first:behind])

    def load_at(self, pos: I64, base: int) -> None:
        """Have the bytes at these positions from `base` on in memory: many of them, in a few chunks."""
        if not pos.size:
            return
        low, high = base + int(pos.min()), base + int(pos.max())
        if low < base or high >= self.size:
            raise IndexError(f"position {low if low < base else high} of {self.size}")
        if self.has(low, high + 1):
            return
        first = low >> CHUNK_BITS
        wanted = np.zeros((high >> CHUNK_BITS) + 1 - first, dtype=bool)
        wanted[(pos + (base - (first << CHUNK_BITS))) >> CHUNK_BITS] = True
        self._load_missing(first, wanted & ~self.loaded[first : first + len(wanted)])

    def _load_missing(self, first: int, missing: Mask) -> None:
        """Read runs of chunks. missing: per chunk from `first` on."""
        edges = np.flatnonzero(np.diff(np.concatenate(([False], missing, [False])).astype(np.int8))) + first
        for begin, behind in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            start, end = begin << CHUNK_BITS, min(behind << CHUNK_BITS, self.size)
            if end - start >= LARGE and LARGE_PAGES:
                self.memory.madvise(LARGE_PAGES, start, end - start)
            self.read(start, memoryview(self.memory)[start:end])
            self.loaded[begin:behind] = True

    def read(self, start: int, into: memoryview) -> None:
        """Bytes of the file as it was opened, into a buffer."""
        try:
            while len(into) and (n := os.preadv(self.fd, [into[:MOST]], start)):
                start, into = start + n, into[n:]
        except OSError as error:
            raise unreadable(error, self.path) from None
        self.require_unchanged()
        if len(into):
            raise _changed(self.path, f"its end at {start:#x}", f"{self.size} bytes")

    def piece(self, start: int, size: int) -> bytes:
        """As `read`, a new piece."""
        try:
            piece = os.pread(self.fd, size, start)
        except OSError as error:
            raise unreadable(error, self.path) from None
        self.require_unchanged()
        if len(piece) < size:  # a system call reads 2 GiB at most
            rest = bytearray(size - len(piece))
            self.read(start + len(piece), memoryview(rest))
            piece += rest
        return piece

    def require_unchanged(self) -> None:
        """Raise ChangedError where the file has another size or time than when it was opened."""
        status = os.fstat(self.fd)
        if status.st_size != self.size:
            raise _changed(self.path, f"{status.st_size} bytes", str(self.size))
        if status.st_mtime_ns != self.mtime_ns:
            raise _changed(self.path, "a write in between", "")


def _changed(path: str, found: str, expected: str) -> ChangedError:
    return ChangedError("the file changed while it was read", path, found=found, expected=expected,
                        todo="run again when no other program writes it")  # fmt: skip


def is_elf(data: FileBytes) -> bool:
    """Whether data begin as an ELF file does."""
    return data.peek(0, len(ELF_MAGIC)) == ELF_MAGIC


def _no_memory(path: str, size: int) -> InputError:
    return InputError("there is not enough memory to read it", path, found=f"{size} bytes",
                      todo="free memory, or raise its limit (ulimit -v)")  # fmt: skip


def _runs(elements: np.ndarray[Any, Any], n: int) -> np.ndarray[Any, Any]:
    """Row i: the n elements from i on. Nothing is copied: rows that are taken out of it are, each in one go."""
    if n > len(elements):
        return np.zeros((0, n), elements.dtype)
    size = elements.itemsize  # sliding_window_view() makes the same, and takes as long as many pieces are read
    return np.ndarray((len(elements) - n + 1, n), elements.dtype, elements, strides=(size, size))


class FileBytes:
    """A range of the bytes of a file, or of something in memory. There is no way to see bytes that were not read."""

    def __init__(self, octets: U8, source: _Source | None, start: int, size: int) -> None:
        """octets: all bytes of the file where there is no source, else what `source` fills. start, size: the range."""
        self._source, self._all, self._start, self._size = source, octets, start, size
        self._octets = octets[start : start + size]
        self._octets.flags.writeable = False

    @classmethod
    def of(cls, content: Buffer | U8) -> FileBytes:
        """Bytes that are in memory."""
        octets = np.frombuffer(content, dtype=np.uint8)
        return cls(octets, None, 0, len(octets))

    @classmethod
    def of_file(cls, path: str, fd: int, status: os.stat_result) -> FileBytes:
        """The bytes of a regular file that is open; the descriptor is closed when it is not needed any more.

        status: of the file, from before anything of it was read. Raises InputError where there is no room for its size.
        """
        size = status.st_size
        room = size if size > WHOLE else 1  # a new map for each of a thousand modules costs more than reading them
        try:
            memory = mmap.mmap(-1, room, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE)
            loaded = np.zeros((size + CHUNK - 1) >> CHUNK_BITS, dtype=bool)
        except (OSError, MemoryError, OverflowError):
            close(fd)
            raise _no_memory(path, size) from None
        source = _Source(path, fd, size, status.st_mtime_ns, memory, loaded)
        if size > WHOLE:
            return cls(np.frombuffer(memory, dtype=np.uint8), source, 0, size)
        try:
            return cls.of(source.piece(0, size))
        except MemoryError:
            raise _no_memory(path, size) from None

    def part(self, start: int, size: int) -> FileBytes:
        """A range that lies inside; what is read is shared."""
        assert 0 <= start <= start + size <= self._size
        return FileBytes(self._all, self._source, self._start + start, size)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, where: slice | I64) -> U8:
        """A range of bytes, or the byte at each position of an array of any shape; read-only where it is a range."""
        if isinstance(where, slice):
            start, stop, step = where.indices(self._size)
            assert step == 1, "a range of a file has no step"
            if self._source is not None and start < stop:
                self._source.load(self._start + start, self._start + stop)
        elif self._source is not None:
            self._source.load_at(where, self._start)
        return self._octets[where]

    def words(self, pos: I64, n: int = 1) -> U32:
        """(len(pos), n) 32-bit words from each position on, which is a multiple of 4; all of them lie in the file."""
        if self._are_many(pos):
            return self._gathered(pos, n, np.dtype("<u4"))
        self._load_ends(pos, 4 * n)
        words = self._octets[: self._size & ~3].view("<u4")
        return np.asarray(_runs(words, n)[pos >> 2])

    def rows(self, pos: I64, width: int) -> U8:
        """(len(pos), width) bytes from each position on; all of them lie in the file."""
        if self._are_many(pos):
            return self._gathered(pos, width, np.dtype("u1"))
        self._load_ends(pos, width)
        return np.asarray(_runs(self._octets, width)[pos])

    def _are_many(self, pos: I64) -> bool:
        """Whether so many places are asked for, in what was not read yet, that `_gathered` costs less."""
        if self._source is None or len(pos) < MANY:
            return False
        return not self._source.has(self._start + int(pos.min()), self._start + int(pos.max()) + 1)

    def _gathered(self, pos: I64, n: int, unit: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """(len(pos), n) units from each position on, a multiple of the unit, by one buffer for a piece after the other:
        new memory for all of a kernel's text would cost four times as much as copying it."""
        assert self._source is not None
        order, size, units = np.argsort(pos, kind="stable"), n * unit.itemsize, np.empty((len(pos), n), unit)
        ordered, buffer = pos[order], np.empty(GATHERED + size, np.uint8)
        if ordered[0] < 0 or ordered[-1] + size > self._size:
            raise IndexError(f"positions {ordered[0]} to {ordered[-1]} of {self._size}")
        lows = np.arange(int(ordered[0]) & -GATHERED, int(ordered[-1]) + 1, GATHERED)
        edges = [*np.searchsorted(ordered, lows).tolist(), len(ordered)]
        for low, first, behind in zip(lows.tolist(), edges, edges[1:], strict=False):
            if first < behind:
                stop = min(low + len(buffer), self._size)
                octets = buffer
                if self._source.has(self._start + low, self._start + stop):
                    octets = self._octets[low:stop]
                else:
                    self._source.read(self._start + low, buffer.data[: stop - low])
                whole = octets[: len(octets) // unit.itemsize * unit.itemsize].view(unit)
                units[order[first:behind]] = _runs(whole, n)[(ordered[first:behind] - low) // unit.itemsize]
        return units

    def _load_ends(self, pos: I64, width: int) -> None:
        """Have `width` bytes from each position on in memory: in most cases those of one chunk, or of two."""
        if self._source is not None and width:
            for off in (*range(0, width, CHUNK), width - 1):
                self._source.load_at(pos, self._start + off)

    def peek(self, start: int, stop: int) -> bytes:
        """A range of bytes that is not kept, as far as there are bytes: for a look here and there in much."""
        start, stop, _ = slice(start, stop).indices(self._size)
        if self._source is None or start >= stop or self._source.has(self._start + start, self._start + stop):
            return self._octets[start:stop].tobytes()
        return self._source.piece(self._start + start, stop - start)

    def pieces(self, start: int = 0, stop: int | None = None, size: int = PIECE) -> Iterator[U8]:
        """The bytes of a range, piece by piece; each holds until the next is asked for, and nothing is kept."""
        start, stop, _ = slice(start, stop).indices(self._size)
        buffer = bytearray(min(size, max(stop - start, 0)))
        for low in range(start, stop, size):
            high = min(low + size, stop)
            if self._source is None or self._source.has(self._start + low, self._start + high):
                yield self._octets[low:high]
                continue
            self._source.read(self._start + low, memoryview(buffer)[: high - low])
            yield np.frombuffer(buffer, np.uint8)[: high - low]

    def sha256(self, behind: bytes = b"") -> str:
        """sha256 of all bytes, and of some more behind them."""
        import hashlib

        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece.data)
        digest.update(behind)
        return digest.hexdigest()

    def tobytes(self) -> bytes:
        """All bytes, copied."""
        return self[:].tobytes()

    def descriptor(self) -> int | None:
        """A descriptor of the file, to copy from; None where all is in memory. See `require_unchanged`."""
        return None if self._source is None else self._source.fd

    def require_unchanged(self) -> None:
        """Raise ChangedError where the file is not as it was opened: after a copy that was made by its descriptor."""
        if self._source is not None:
            self._source.require_unchanged()
