"""Temporary names, and what runs that were killed left under such names."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat

from ftpatch.write.system import Note, close, lock, on_stderr

DIGITS = 16  # hex digits that make a temporary's name its own


def _stem(path: str) -> str:
    """What the temporary names of a file begin with: its name, cut where the whole would be too long."""
    folder, name = os.path.split(path)
    # Where names are characters, f_namemax may count them in bytes of their longest form (vfat: 1530).
    limit = min(os.statvfs(folder).f_namemax, 255) - len("..ftpatch-") - DIGITS
    while len(os.fsencode(name)) > limit:
        name = name[:-1]
    return f".{name}.ftpatch-"


def temporary_name(path: str) -> str:
    """A name beside `path` that no other run chooses."""
    return os.path.join(os.path.dirname(path), _stem(path) + os.urandom(DIGITS // 2).hex())


def sweep(path: str, note: Note = on_stderr) -> None:
    """Remove, and name, the temporaries of runs that were killed while they wrote `path`."""
    folder, owners = os.path.dirname(path), {os.geteuid()}
    with contextlib.suppress(OSError):  # a new file gets the owner of the one that it replaces
        owners.add(os.lstat(path).st_uid)
    with contextlib.suppress(OSError):  # no such folder, or one that may not be listed
        pattern = re.compile(re.escape(_stem(path)) + rf"[0-9a-f]{{{DIGITS}}}")
        for name in sorted(name for name in os.listdir(folder) if pattern.fullmatch(name)):
            _remove(os.path.join(folder, name), owners, note)


def _remove(leftover: str, owners: set[int], note: Note) -> None:
    """Remove a regular file of one of these users if nobody holds its lock: then its writer is gone."""
    fd = -1
    try:
        status = os.lstat(leftover)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in owners:
            return  # made by somebody else: not for us to remove, whatever its name
        fd = os.open(leftover, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        free = lock(fd, fcntl.LOCK_SH)  # enough against a writer's, and NFS grants no other to a reader
        if free is None:
            note(f"{leftover}: left alone: this file system has no locks, which tell whether its writer still runs")
        elif free and os.path.samestat(os.fstat(fd), os.lstat(leftover)):
            os.unlink(leftover)
            note(f"{leftover}: removed, left by an interrupted run")
    except FileNotFoundError:  # its writer was faster, or another run that sweeps
        return
    except OSError as error:
        note(f"{leftover}: left by an interrupted run, and cannot be removed: {error.strerror}")
    finally:
        if fd >= 0:
            close(fd)
