"""From an image and a plan to a file: the only place where new bytes come into being.

The result is built under a temporary name beside the output, compared while it is written, flushed, checked by the
caller, and only then renamed. Whatever goes wrong, the output is the old file or the new one, never a mixture.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np

from ftpatch.edits import Edits
from ftpatch.elf.image import Image
from ftpatch.errors import InputError, UsageError

COPY = 64 << 20  # bytes per copy call
GAP = 1 << 14  # edits closer than this are written in one piece


def output_path(source: str, out: str) -> str:
    """Where `out` leads, symlinks followed. Raises UsageError where that is the input, or no place for a file."""
    real = os.path.realpath(out)
    if os.path.exists(real):
        if os.path.exists(source) and os.path.samefile(real, source):
            raise UsageError("the output is the input", out, todo="name another output, or use --in-place")
        if not stat.S_ISREG(os.stat(real).st_mode):
            raise UsageError("the output is not a regular file", out)
    if not os.path.isdir(os.path.dirname(real)):
        raise UsageError("the output's directory does not exist", out)
    return real


def report_path(path: str) -> str:
    """Where a report file really lies. Raises UsageError where no file can be written there."""
    real = os.path.realpath(path)
    if os.path.exists(real) and not stat.S_ISREG(os.stat(real).st_mode):
        raise UsageError("the report is not a regular file", path)
    return real


def require_distinct(reports: Sequence[str], files: Sequence[str]) -> None:
    """Refuse a report that would replace an input, the output, or another report."""
    taken = {os.path.realpath(file) for file in files}
    for path in reports:
        real = os.path.realpath(path)
        if real in taken or any(
            os.path.exists(real) and os.path.exists(t) and os.path.samefile(real, t) for t in taken
        ):
            raise UsageError("the report would replace another file of this run", path, todo="name another report file")
        taken.add(real)


@contextlib.contextmanager
def whole_file(path: str, mode: int) -> Iterator[tuple[int, str]]:
    """A new file under a temporary name: (descriptor, name). Flushed and renamed to `path` on success; else removed."""
    folder, name = os.path.split(path)
    try:
        fd, temporary = tempfile.mkstemp(prefix=f".{name}.ftpatch-", dir=folder)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", path) from None
    try:
        os.fchmod(fd, mode)
        yield fd, temporary
        os.fsync(fd)
        os.replace(temporary, path)
        _sync_folder(folder)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", path) from None
    finally:
        os.close(fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write(image: Image, edits: Edits, fd: int) -> None:
    """The whole file with the edits in place, into an empty descriptor. Old bytes are compared first."""
    _copy(image, fd)
    for start, end in edits.runs(GAP):
        chunk = np.array(image.data[start:end])
        if not edits.patch(start, chunk):
            raise InputError("the input changed while it was read", image.path, found=f"other bytes near {start:#x}",
                             todo="nothing was written; run again on a file that nobody writes")  # fmt: skip
        _write_all(fd, chunk.data, start)


def _copy(image: Image, fd: int) -> None:
    """Copy by the kernel where the file systems can, else by hand."""
    size, done = len(image.data), 0
    source = os.open(image.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while done < size:
            try:
                n = os.copy_file_range(source, fd, min(COPY, size - done), done, done)
            except OSError:
                n = 0
            if n == 0:
                break
            done += n
    finally:
        os.close(source)
    while done < size:
        piece = image.data[done : done + COPY]
        _write_all(fd, np.ascontiguousarray(piece).data, done)
        done += len(piece)


def append(fd: int, piece: bytes) -> None:
    """Write all of `piece` at the end of what was written so far."""
    view = memoryview(piece)
    while len(view):
        view = view[os.write(fd, view) :]


def write_pieces(fd: int, pieces: Sequence[tuple[int, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]]) -> int:
    """Write pieces at their positions, ascending, into an empty descriptor, gaps zero; the file's size."""
    for pos, piece in pieces:
        _write_all(fd, np.ascontiguousarray(piece).data, pos)
    return pieces[-1][0] + len(pieces[-1][1])


def _write_all(fd: int, piece: memoryview, pos: int) -> None:
    while len(piece):
        n = os.pwrite(fd, piece, pos)
        piece, pos = piece[n:], pos + n
