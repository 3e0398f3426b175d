"""Files as candidates: folders, and the files of a kind, which is told by their first bytes and not by their names."""

from __future__ import annotations

import contextlib
import os
import stat

from ftpatch.errors import FtpatchError
from ftpatch.inputs import open_regular

MAX_LOOKS = 2000  # files of one folder into which is looked; beyond, all are offered
HEAD = 20  # bytes that tell a kind
RELOCATABLE = b"\1\0"  # e_type of an object, at byte 16
IMAGES = (
    b"\x7fELF", b"\x1f\x8b", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"]\0\0", b"\x02\x21\x4c\x18", b"\x04\x22\x4d\x18",
    b"\x89LZO", b"BZh", b"MZ", b"ANDROID!", b"\x27\x05\x19\x56", b"\xd0\x0d\xfe\xed",
)  # fmt: skip


def expanded(text: str, quote: str = "") -> str:
    """A word as the shell will give it: with variables of the environment and, without quotes, the home folder."""
    if quote == "'":
        return text
    with_variables = os.path.expandvars(text)
    return with_variables if quote else os.path.expanduser(with_variables)


def files_of_kind(text: str, kind: str, quote: str = "") -> list[tuple[str, bool]]:
    """Paths that begin with `text`, spelled as it is, and whether each is a folder; of `kind` where there are any, else
    of every kind. Hidden ones only where the text asks for them. quote: the one in which it stands."""
    folder, name = os.path.split(text)
    typed = text[: len(text) - len(name)]
    entries: list[tuple[str, str, bool]] = []
    with contextlib.suppress(OSError, ValueError), os.scandir(expanded(folder, quote) or ".") as scanned:
        for entry in scanned:
            if entry.name.startswith(name) and (name.startswith(".") or not entry.name.startswith(".")):
                entries.append((entry.name, entry.path, _is_folder(entry)))
    entries = [entry for entry in sorted(entries) if entry[0].isprintable()]
    files = [entry for entry in entries if not entry[2]]
    wanted = [] if kind == "folder" else files
    if kind not in ("file", "folder") and len(files) <= MAX_LOOKS:
        wanted = [file for file in files if _is_of_kind(file[1], kind)]
        if not wanted and not any(is_folder for _, _, is_folder in entries):
            wanted = files
    folders = [entry for entry in entries if entry[2]]
    return [(typed + entry[0], entry[2]) for entry in sorted([*wanted, *folders])]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with contextlib.suppress(OSError):
        return entry.is_dir()
    return False


def _is_of_kind(path: str, kind: str) -> bool:
    """Whether a file looks like one of that kind."""
    if kind == "toml":
        return path.endswith(".toml")
    head = _head(path)
    if kind == "json":
        return head.lstrip()[:1] == b"{"
    if kind == "object":
        return head.startswith(IMAGES[0]) and head[16:18] == RELOCATABLE
    return head.startswith(IMAGES)


def _head(path: str) -> bytes:
    """The first bytes of a regular file; none of another."""
    with contextlib.suppress(FtpatchError, OSError):
        fd, _ = open_regular(path)
        try:
            return os.read(fd, HEAD)
        finally:
            os.close(fd)
    return b""


def regular_file(text: str) -> str | None:
    """The path of a regular file that a word names; None where it names none."""
    path = expanded(text)
    with contextlib.suppress(OSError, ValueError):
        if stat.S_ISREG(os.stat(path).st_mode):
            return path
    return None
