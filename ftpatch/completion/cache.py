"""Names of files that were read before, in the user's cache: ftpatch/names below $XDG_CACHE_HOME or ~/.cache.

One file per list of names. Its name says which file the names are of: device, inode, size, and the times of the last
change of its bytes and of itself. A list is written whole under its name, for its owner alone. What was damaged, or put
there by somebody else, is not taken: the checksum, the head and the owner tell. The oldest go where there are too many.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import zlib

from ftpatch import __version__
from ftpatch.errors import FtpatchError
from ftpatch.inputs import read_file

MAX_LISTS, MAX_BYTES = 64, 64 << 20  # that are kept
MAX_SIZE = 16 << 20  # bytes of one list
MODE, FOLDER_MODE = 0o600, 0o700
NAME = re.compile(r"[0-9a-f]+(-[0-9a-f]+){4}\.[a-z]+")


def key_of(path: str, kind: str) -> str:
    """Under which name a list of names of a file is kept. Raises OSError."""
    status = os.stat(path)
    numbers = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return "-".join(f"{number & 0xFFFF_FFFF_FFFF_FFFF:x}" for number in numbers) + f".{kind}"


def load(key: str) -> bytes | None:
    """The names of a list, each with a line feed in front of it; None where there is no such list, or no sound one."""
    folder = _folder(made=False)
    if folder is None:
        return None
    path = os.path.join(folder, key)
    with contextlib.suppress(FtpatchError, OSError):
        status = os.lstat(path)
        if status.st_uid != os.geteuid() or not stat.S_ISREG(status.st_mode):
            return None
        content = read_file(path, MAX_SIZE)
        head, line_feed, rest = content.partition(b"\n")
        names = line_feed + rest
        if head == _head(key, names):
            return names
    return None


def store(key: str, names: bytes) -> None:
    """Keep a list for later, as `load` returns it. Where that is not possible it is not kept."""
    content = _head(key, names) + names
    folder = _folder(made=True) if len(content) <= MAX_SIZE else None
    if folder is None:
        return
    from ftpatch.write import contents, files

    with contextlib.suppress(FtpatchError, OSError):
        with files.whole_file(os.path.join(folder, key), MODE, note=_silent) as new:
            contents.append(new.fd, content)
            new.finish()
            new.publish()
        _remove_oldest(folder)


def _head(key: str, names: bytes) -> bytes:
    """The first line of a list."""
    return f"ftpatch {__version__} {key} {len(names)} {zlib.crc32(names):08x}".encode()


def _silent(text: str) -> None:
    """Take a remark, and say nothing: this is no run of the user's."""


def _folder(made: bool) -> str | None:
    """The folder of lists, made where it is asked for; None where it is not this user's alone to write."""
    top = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(top):
        top = os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(top):  # there is no home
        return None
    own = os.path.join(top, "ftpatch")
    folder = os.path.join(own, "names")
    with contextlib.suppress(OSError):
        if made:
            for path in (top, own, folder):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(path, FOLDER_MODE)
        if _is_safe(own) and _is_safe(folder):
            return folder
    return None


def _is_safe(folder: str) -> bool:
    """Whether nobody else can put files into a folder. Raises OSError."""
    status = os.stat(folder)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _remove_oldest(folder: str) -> None:
    """Remove the lists of files that have changed since, and the oldest until those that stay are within the bounds."""
    with os.scandir(folder) as scanned:
        lists = [(entry.stat(follow_symlinks=False), entry) for entry in scanned if NAME.fullmatch(entry.name)]
    n_bytes, seen = 0, set[tuple[str, ...]]()
    for status, entry in sorted(lists, key=lambda item: (-item[0].st_mtime_ns, item[1].name)):
        n_bytes += status.st_size
        device, inode, *_, rest = entry.name.split("-")
        file = (device, inode, rest.partition(".")[2])
        if file in seen or len(seen) == MAX_LISTS or n_bytes > MAX_BYTES:
            with contextlib.suppress(OSError):
                os.unlink(entry.path)
        else:
            seen.add(file)
