"""System calls that all writing needs: locks, signals that wait, folders on the disk, and errors as refusals."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator

from ftpatch.errors import InputError, printable

TURN, TURNS = 0.02, 3000  # seconds until a lock is asked for again, and how often: a minute

Note = Callable[[str], None]


def on_stderr(text: str) -> None:
    """Write a line to stderr. Where that is closed or full there is nobody to tell, and the run goes on."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(f"ftpatch: {printable(text)}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Block all signals: between a system call and the note of what it did, and between a run's files.

    A handler raises an exception wherever the program is. Here it would lose the only record of a file just made.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def as_input_error(path: str, what: str = "cannot be written") -> Iterator[None]:
    """A context in which an OSError becomes an InputError about `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # not of a system call: a library that could not be loaded inside
            raise
        todo = "a mount point cannot be replaced: write elsewhere, and copy" if error.errno == errno.EBUSY else ""
        raise InputError(f"{what}: {error.strerror}", path, todo=todo) from None


def close(fd: int) -> None:
    """Close a descriptor. An error is of no use: whatever must be on the disk went through fsync() before."""
    with contextlib.suppress(OSError):
        os.close(fd)


def by_descriptor(fd: int) -> str:
    """A path to an open file, the only one that a nameless file has."""
    return f"/proc/self/fd/{fd}"


def lock(fd: int, kind: int) -> bool | None:
    """Whether the lock was free and is ours now; None where the file system has no locks."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # ENOLCK, EOPNOTSUPP: some network file systems
        return None
    return True


@contextlib.contextmanager
def turn(folder: str) -> Iterator[None]:
    """A context in which one run at a time gives names in a folder; none waits where there are no locks.

    Raises InputError where another takes longer than any does: whoever may read a folder can hold its lock.
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # a folder that may be written to and not read
        yield
        return
    try:
        for _ in range(TURNS):
            if lock(fd, fcntl.LOCK_EX) is not False:
                break
            select.select([], [], [], TURN)
        else:
            raise InputError("another run gives files their names here, and does not end", folder,
                             todo="nothing was written; run again")  # fmt: skip
        yield
    finally:
        close(fd)


def sync_folder(folder: str) -> None:
    """Have a folder's names on the disk; one that cannot be read, or knows no fsync, is left to the system."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # a folder that may be written to and not read
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # what a file system answers that does not know fsync() of a folder
            raise
    finally:
        close(fd)
