"""System calls that all writing needs: locks, signals that wait, folders on the disk, and errors as refusals."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator

from ftpatch.errors import InputError

Note = Callable[[str], None]


def on_stderr(text: str) -> None:
    """Say it on stderr; where that is closed or full, not at all."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(f"ftpatch: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Signals wait: between a system call and the note of what it did, and between a run's files."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def told(path: str, what: str = "cannot be written") -> Iterator[None]:
    """What the system refuses is an InputError about `path`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{what}: {error.strerror}", path) from None


def close(fd: int) -> None:
    """close() may fail, and tells nothing then that fsync() did not."""
    with contextlib.suppress(OSError):
        os.close(fd)


def by_descriptor(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def lock(fd: int, kind: int) -> bool | None:
    """Whether the lock was free and is ours now; None where the file system has no locks."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def sync_folder(folder: str) -> None:
    """Have a folder's names on the disk; one that cannot be read, or knows no fsync, is left to the system."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        close(fd)
