"""The bytes of a result: an image with a plan's edits in place. Nothing else makes new bytes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

import numpy as np

from ftpatch.arrays import U8
from ftpatch.elf.image import Image
from ftpatch.errors import InputError
from ftpatch.plan.edits import Edits
from ftpatch.write.system import as_input_error, close

COPY = 64 << 20  # bytes per copy call: a signal is handled between two of these
GAP = 1 << 14  # edits closer than this are written in one piece: a system call costs more than copying that many bytes


def write(image: Image, edits: Edits, fd: int) -> None:
    """Write the whole ELF file with the edits in place, into an empty descriptor. Old bytes are compared first.

    The file is copied and then patched: the kernel can copy a vmlinux of 350 MB without moving a byte (reflink).
    """
    _copy(image, fd)
    for start, end in edits.runs(GAP):
        chunk = np.array(image.data[start:end])
        _patch(image, edits, start, chunk)
        _write_all(fd, chunk.data, start)
    if edits.tail:
        _write_all(fd, memoryview(edits.grown), len(image.data))


def assembled(image: Image, edits: Edits) -> bytearray:
    """The whole ELF file with the edits in place, in memory."""
    result = bytearray(image.data)
    _patch(image, edits, 0, np.frombuffer(result, dtype=np.uint8))
    return result + edits.grown


def _patch(image: Image, edits: Edits, start: int, chunk: U8) -> None:
    if not edits.patch(start, chunk):
        raise InputError("the input changed while it was read", image.path, found=f"other bytes near {start:#x}",
                         todo="nothing was written; run again on a file that nobody writes")  # fmt: skip


def _copy(image: Image, fd: int) -> None:
    """Copy by the kernel where the file systems can, else by hand; what is compressed on disk by hand alone."""
    size, done = len(image.data), 0
    if image.wrapping != "none":
        _write_all(fd, image.data.data, 0)
        return
    with as_input_error(image.path, "cannot be read"):
        source = os.open(image.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # EXDEV, ENOSYS, EINVAL: other file systems, old kernels; a full disk fails again below.
        with contextlib.suppress(OSError):
            while done < size and (n := os.copy_file_range(source, fd, min(COPY, size - done), done, done)):
                done += n
    finally:
        close(source)
    while done < size:  # what the kernel did not copy
        piece = image.data[done : done + COPY]
        _write_all(fd, np.ascontiguousarray(piece).data, done)
        done += len(piece)


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
