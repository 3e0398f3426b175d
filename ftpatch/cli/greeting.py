"""What `ftpatch` alone says: what it is, the three commands that one wants first, and where help is."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

# Where distributions put the kernel that runs, the one with symbols first; behind the current directory.
KERNELS = (
    "/usr/lib/debug/boot/vmlinux-{release}", "/usr/lib/debug/lib/modules/{release}/vmlinux",
    "/lib/modules/{release}/build/vmlinux", "/boot/vmlinux-{release}", "/boot/vmlinuz-{release}",
)  # fmt: skip
MODULES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")
MAX_ENTRIES = 10_000  # of the current directory that are looked at


def greeting() -> Iterator[str]:
    """The lines."""
    path = first_file()
    file, func = shlex.quote(path) if path else "FILE", "FUNC" if path.endswith(MODULES) or not path else "vfs_read"
    commands = {
        f"ftpatch scan {file}": "which patch sites it has",
        f"ftpatch check {file}": "whether ftrace and a kernel can live with them",
        f"ftpatch enable {file} --func {func} -o OUT": "a copy that calls ftrace there from the start",
    }
    width = max(map(len, commands))
    yield "ftpatch finds the ftrace patch sites of Linux kernels and modules, and rewrites chosen ones on disk."
    yield ""
    yield from (f"  {command:<{width}}  {what}" for command, what in commands.items())
    yield ""
    yield "All commands: ftpatch --help; the options of one: ftpatch COMMAND --help; what is installed: ftpatch doctor"


def first_file() -> str:
    """A kernel or module that is there and can be read: of the current directory, else the one that runs; else ""."""
    release = os.uname().release
    paths = ["vmlinux", *_modules_here(), *(path.format(release=release) for path in KERNELS)]
    return next((path for path in paths if _is_readable(path)), "")


def _modules_here() -> list[str]:
    names = []
    try:
        with os.scandir(".") as entries:
            for _, entry in zip(range(MAX_ENTRIES), entries, strict=False):
                if entry.name.endswith(MODULES) and entry.name.isprintable() and not entry.name.startswith("-"):
                    names.append(entry.name)
    except OSError:
        return []
    return sorted(names)[:1]


def _is_readable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.R_OK)
