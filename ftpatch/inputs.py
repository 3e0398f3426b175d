"""Files that anybody may have made, opened and read within limits: the only place that opens one to read it.

Regular files alone. Anything else is told by its status and never opened: opening a FIFO waits for a writer, opening a
device may do something to it, and neither has an end. What has the name after that may still have changed, so the open
file is asked again. A size that the file system tells is believed only where it is too large: files of /proc and
tracefs tell 0 and have content, and a file may grow while it is read.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from ftpatch.errors import InputError, UnsupportedError
from ftpatch.near_names import near_names

Path = str | os.PathLike[str]  # of a file, as a caller names it
DEFAULT = "vmlinux"  # the file of a verb that is given none
MAX_ENTRIES = 10_000  # of a directory in which a name like a wrong one is looked for
STDIN = "-"  # the name that stands for standard input, where a verb documents it
PIECE = 1 << 16  # bytes that are asked for at once where the size is not known
COPY_FIRST = "copy its content to a file first"
NAME_A_FILE = "name a file"


def open_regular(path: str, what: str = "", inside: str = NAME_A_FILE) -> tuple[int, os.stat_result]:
    """A descriptor to read a regular file by, which the caller closes, and the status of that file.

    what: how messages call the file ("the list"); "" where its name is enough. inside: what to do about a directory.
    Raises InputError for everything else, without waiting.
    """
    try:
        _require_regular(os.stat(path), path, what, inside)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise unreadable(error, path, what) from None
    except ValueError:  # a NUL in the name, or characters that no file name can have
        raise InputError(_about(what, "cannot be read: no file can have this name"), path) from None
    try:
        status = os.fstat(fd)
        _require_regular(status, path, what, inside)
    except BaseException:
        os.close(fd)
        raise
    return fd, status


def _require_regular(status: os.stat_result, path: str, what: str, inside: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise InputError(_about(what, "is a directory, not a regular file"), path, todo=inside)
    if not stat.S_ISREG(status.st_mode):
        raise InputError(_about(what, "is not a regular file"), path, todo=COPY_FIRST)


def read_file(path: str, limit: int, what: str = "") -> bytes:
    """All bytes of a regular file. Raises InputError where it cannot be read, or has more than `limit` bytes."""
    fd, status = open_regular(path, what)
    try:
        if status.st_size > limit:
            raise too_large(path, limit, what, f"{status.st_size} bytes")
        pieces, size = [], 0
        while size <= limit:
            # One byte more than the size that the file tells, so that a second read finds the end.
            piece = os.read(fd, min(max(status.st_size + 1 - size, PIECE), limit + 1 - size))
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
    except OSError as error:
        raise unreadable(error, path, what) from None
    finally:
        os.close(fd)
    if size > limit:
        raise too_large(path, limit, what)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def read_input(path: str, limit: int, what: str = "") -> bytes:
    """As `read_file`, with `-` for standard input, which may be anything that ends within `limit` bytes."""
    if path != STDIN:
        return read_file(path, limit, what)
    if sys.stdin is None:
        raise InputError(_about(what, "cannot be read: there is no standard input"), path)
    try:
        data = sys.stdin.buffer.read(limit + 1)
    except OSError as error:
        raise unreadable(error, path, what) from None
    if len(data) > limit:
        raise too_large(path, limit, what)
    return data


def unreadable(error: OSError, path: str, what: str = "") -> InputError:
    """The refusal of a file that the system refuses."""
    return InputError(_about(what, f"cannot be read: {error.strerror or error}"), path, todo=_instead(error, path))


def _instead(error: OSError, path: str) -> str:
    """What to do about a file that the system refuses."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return "use sudo, or a copy that you may read"
    if error.errno != errno.ENOENT:
        return ""
    folder, name = os.path.split(path)
    if folder and not os.path.lexists(folder):
        return f"there is no directory {folder}"
    if os.path.islink(path):
        return f"it is a symbolic link to {os.readlink(path)}, which does not exist"
    try:
        with os.scandir(folder or ".") as entries:
            names = [entry.name for _, entry in zip(range(MAX_ENTRIES), entries, strict=False) if entry.name != name]
    except OSError:
        return ""
    near = [os.path.join(folder, other) for other in near_names(name, names)]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return "name the file to read" if path == DEFAULT else ""


def too_large(path: str, limit: int, what: str = "", found: str = "more") -> InputError:
    """The refusal of a file that has more bytes than its purpose needs."""
    return InputError(_about(what, "is too large"), path, found=found, expected=f"at most {limit} bytes")


def beyond_limit(path: str, form: str, found: str, expected: str) -> UnsupportedError:
    """The refusal of a file that has more of something than is read of its form (JSON, TOML)."""
    return UnsupportedError(f"more than is read of {form}", path, found=found, expected=expected,
                            todo="docs/limits.md has all limits")  # fmt: skip


def _about(what: str, said: str) -> str:
    return f"{what} {said}" if what else said
