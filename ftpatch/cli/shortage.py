"""What the system was short of, told from the exception in which that ended: memory, open files, processes, disk.

Nothing here is loaded that takes memory or a file: there may be none left.
"""

from __future__ import annotations

import errno
import os

from ftpatch.errors import InputError

MEMORY = ("there is not enough memory", "free memory, or raise its limit (ulimit -v)")
FILES = ("too many files are open", "raise their limit (ulimit -n); --jobs 1 needs the fewest")
PROCESSES = ("no more processes or threads can be started", "raise their limit (ulimit -u), or use --jobs 1")
FULL = ("the disk is full", "free space there")
SHORT = {
    errno.ENOMEM: MEMORY,
    errno.EMFILE: FILES,
    errno.ENFILE: FILES,
    errno.EAGAIN: PROCESSES,
    errno.ENOSPC: FULL,
    errno.EDQUOT: ("the disk quota is used up", "free space there"),
    errno.EFBIG: ("a file would be larger than is allowed", "raise the limit (ulimit -f)"),
    errno.EROFS: ("the file system is read-only", "name another directory (TMPDIR for temporary files)"),
    errno.EIO: ("the system cannot read or write", "see the kernel's log"),
}
# What loaders of shared libraries and of threads say, who have no error number.
SAID = (
    ("can't start new thread", PROCESSES), ("Too many open files", FILES), ("failed to map segment", MEMORY),
    ("annot allocate memory", MEMORY), ("ut of memory", MEMORY), ("cannot create shared object", MEMORY),
    ("No usable temporary directory", ("there is no directory for temporary files", "set TMPDIR to one")),
)  # fmt: skip
MOST_CAUSES = 16  # exceptions that led to each other


def shortage(error: BaseException) -> InputError | None:
    """The line about what was short, if an exception or one of those that led to it says so."""
    cause: BaseException | None = error
    for _ in range(MOST_CAUSES):
        if cause is None:
            return None
        if found := _found(cause):
            what, todo = found
            where = cause.filename if isinstance(cause, OSError) else None
            return InputError(what, os.fsdecode(where) if isinstance(where, str | bytes) else "", todo=todo)
        cause = cause.__cause__ or cause.__context__
    return None


def _found(cause: BaseException) -> tuple[str, str] | None:
    if isinstance(cause, MemoryError):
        return MEMORY
    if isinstance(cause, OSError) and cause.errno in SHORT:
        return SHORT[cause.errno]
    if isinstance(cause, OSError | ImportError | RuntimeError):
        text = str(cause)
        return next((found for said, found in SAID if said in text), None)
    return None
