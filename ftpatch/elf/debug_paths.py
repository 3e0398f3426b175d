"""Where debug information is, and how it names source files."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from ftpatch.elf import tables as t
from ftpatch.elf.image import Image

DEBUG_LINK = ".gnu_debuglink"  # the section that names a file with the debug information, and its checksum


def relative(name: str, directory: int, directories: Sequence[str]) -> str:
    """A source file's path below the top of the tree, as the kernel's developers name it.

    directories: the first is where the compiler ran: the top of the tree, or a build directory in it or beside it.
    """
    if not name:
        return ""
    top = directories[0] if directories else ""
    within = directories[directory] if 0 < directory < len(directories) else ""
    path = posixpath.normpath(posixpath.join(within, name))
    if posixpath.isabs(path):
        if not posixpath.isabs(top) or posixpath.commonpath([path, top]) == "/":
            return path
        path = posixpath.relpath(path, top)
    while path.startswith("../"):
        path = path[3:]
    return path


def in_another_file(image: Image) -> str:
    """That a file's debug information is in another, which it names; "" where it names none."""
    for sec in image.sections_named(DEBUG_LINK)[:1]:
        name = image.content(sec)[: t.MAX_NAME].tobytes().partition(b"\0")[0].decode("utf-8", "backslashreplace")
        return f"its debug information is in another file, {name} ({DEBUG_LINK}); eu-unstrip joins both"
    return ""
