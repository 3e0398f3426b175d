"""Where a new file may go: names from the command line, checked before any work is done."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from ftpatch.errors import InputError, UsageError
from ftpatch.inputs import STDIN


def output_path(source: str, out: str, others: Sequence[str] = ()) -> str:
    """Where `out` leads, symlinks followed. Raises UsageError where that is the input, or no place for a file.

    others: files that are read besides, which an output must not replace either.
    """
    real = _place(out, "output")
    if _same_file(real, source):
        raise UsageError("the output is the input", out, todo="name another output, or use --in-place")
    if any(_same_file(real, other) for other in others):
        raise UsageError("the output would replace another file of this run", out, todo="name another output")
    if not os.path.isdir(os.path.dirname(real)):
        raise UsageError("the output's directory does not exist", out, todo="make it first, or name another")
    return real


def report_path(path: str) -> str:
    """Where a report file really lies. Raises UsageError where no file can be written there."""
    return _place(path, "report")


def _place(path: str, what: str) -> str:
    """Where a file of that name really lies, or would lie. Raises InputError where the system cannot tell."""
    if path == STDIN:  # elsewhere it stands for a stream
        todo = "--format FORMAT writes a report to stdout; " if what == "report" else ""
        raise UsageError(f"the {what} is written to a file", path, todo=f"{todo}./- is a file of that name")
    try:
        status = os.stat(path)
    except FileNotFoundError:
        status = None
    except NotADirectoryError:
        raise UsageError(f"the {what}'s directory is not a directory", path) from None
    except OSError as error:  # a loop of symlinks, a name too long, a directory that may not be entered
        raise InputError(f"cannot be written: {error.strerror}", path) from None
    # A rename would put a file in the place of a device or a FIFO: `-o /dev/null` as root would remove /dev/null.
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise UsageError(f"the {what} is not a regular file", path, todo="name a file")
    if os.path.basename(path) in ("", ".", ".."):
        raise UsageError(f"the {what} has the name of a directory", path)
    try:
        real = os.path.realpath(path)
    except FileNotFoundError:
        raise UsageError("the current directory does not exist any more", path) from None
    # An open file that was removed: /proc/self/fd/7 leads to "out (deleted)", which would be made.
    if status is not None and not os.path.lexists(real):
        raise UsageError(f"the {what} is a file that has no name any more", path)
    return real


def require_distinct(reports: Sequence[str], files: Sequence[str]) -> None:
    """Refuse a report that would replace an input, the output, or another report."""
    taken = {_real(file) for file in files}
    for path in reports:
        real = _real(path)
        if real in taken or any(_same_file(real, other) for other in taken):
            raise UsageError("the report would replace another file of this run", path, todo="name another report file")
        taken.add(real)


def _same_file(path: str, other: str) -> bool:
    return os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other)


def _real(path: str) -> str:
    try:
        return os.path.realpath(path)
    except FileNotFoundError:  # no current directory: _place says so
        return path
