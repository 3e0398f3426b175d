"""The bytes of a result: an image with a plan's edits in place. Nothing else makes new bytes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

import numpy as np

from ftpatch.arrays import U8
from ftpatch.elf.image import Image
from ftpatch.errors import InputError
from ftpatch.plan.edits import Edits

COPY = 64 << 20  # bytes per copy call: a signal is handled between two of these
GAP = 1 << 14  # edits closer than this are written in one piece: a system call costs more than copying that many bytes


def write(image: Image, edits: Edits, fd: int) -> None:
    """Write the whole ELF file with the edits in place, into an empty descriptor. Old bytes are compared first.

    The file is copied and then patched: the kernel can copy a vmlinux of 350 MB without moving a byte (reflink).
    """
    _copy(image, fd)
    for start, end in edits.runs(GAP):
        _write_all(fd, _patched(image, edits, start, end).data, start)
    if edits.tail:
        _write_all(fd, memoryview(edits.grown), len(image.data))


def assembled(image: Image, edits: Edits) -> bytearray:
    """The whole ELF file with the edits in place, in memory."""
    result = bytearray()
    for piece in pieces(image, edits):
        result += piece
    return result


def pieces(image: Image, edits: Edits) -> Iterator[memoryview]:
    """The whole ELF file with the edits in place, each piece only until the next is asked for."""
    done = 0
    for start, end in edits.runs(GAP):
        yield from (piece.data for piece in image.data.pieces(done, start))
        yield _patched(image, edits, start, end).data
        done = end
    yield from (piece.data for piece in image.data.pieces(done))
    yield memoryview(edits.grown)


def _patched(image: Image, edits: Edits, start: int, end: int) -> U8:
    """A range of the file with the edits in place."""
    chunk = np.array(image.data[start:end])
    if not edits.patch(start, chunk):
        raise InputError("the input changed while it was read", image.path, found=f"other bytes near {start:#x}",
                         todo="nothing was written; run again on a file that nobody writes")  # fmt: skip
    return chunk


def _copy(image: Image, fd: int) -> None:
    """Copy by the kernel where the file systems can, else by hand; what is in memory by hand alone."""
    size, done, source = len(image.data), 0, image.data.descriptor()
    # EXDEV, ENOSYS, EINVAL: other file systems, old kernels; a full disk fails again below.
    with contextlib.suppress(OSError):
        while source is not None and done < size:
            if not (n := os.copy_file_range(source, fd, min(COPY, size - done), done, done)):
                break
            done += n
    for piece in image.data.pieces(done):  # what the kernel did not copy
        _write_all(fd, piece.data, done)
        done += len(piece)
    image.data.require_unchanged()


def append(fd: int, piece: bytes) -> None:
    """Write all of `piece` at the end of what was written so far."""
    view = memoryview(piece)
    while len(view):
        view = view[os.write(fd, view) :]


def write_pieces(fd: int, pieces: Sequence[tuple[int, U8]]) -> int:
    """Write pieces at their positions, ascending, into an empty descriptor, gaps zero; the file's size."""
    for pos, piece in pieces:
        _write_all(fd, np.ascontiguousarray(piece).data, pos)
    return pieces[-1][0] + len(pieces[-1][1])


def _write_all(fd: int, piece: memoryview, pos: int) -> None:
    while len(piece):
        n = os.pwrite(fd, piece, pos)
        piece, pos = piece[n:], pos + n
