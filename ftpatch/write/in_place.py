"""A run that replaces its own input: nobody else may have changed that meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator

from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf.image import Image
from ftpatch.errors import InputError
from ftpatch.write.files import other_names
from ftpatch.write.system import Note, as_input_error, close, lock, on_stderr


@contextlib.contextmanager
def own_input(image: Image, note: Note = on_stderr) -> Iterator[Callable[[], None]]:
    """For a run that replaces its own input: a function that raises InputError if that is not what was read any more.

    The input is locked, so of two such runs one is refused. What counts is the file that has the name now: its bytes
    against those that were read, and from here on its identity, size and time.
    """
    with as_input_error(image.path, "cannot be read"):
        fd = os.open(image.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if lock(fd, fcntl.LOCK_EX) is False:
            raise _changed(image.path, "another run that is replacing it")
        with as_input_error(image.path, "cannot be read"):
            first = os.fstat(fd)
            if first.st_size != len(image.raw) or not _same_bytes(fd, image.raw):
                raise _changed(image.path, "other bytes")

        def check() -> None:  # by name: an editor may have put another file there since
            try:
                if _identity(os.stat(image.path)) != _identity(first):
                    raise _changed(image.path, "another file, size or time")
            except OSError as error:
                raise _changed(image.path, error.strerror or str(error)) from None

        check()
        yield check
        if first.st_nlink > 1:
            note(other_names(image.path, first.st_nlink))
    finally:
        close(fd)


def _changed(path: str, found: str) -> InputError:
    return InputError("changed while it was patched", path, found=found, todo="nothing was written; run again")


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _same_bytes(fd: int, raw: FileBytes) -> bool:
    start = 0
    for piece in raw.pieces():  # a regular file: a read is short at its end alone
        if os.pread(fd, len(piece), start) != piece.data:
            return False
        start += len(piece)
    return True
