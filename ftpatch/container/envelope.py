"""What a file is from the outside: an ELF file, a compressed one, or something that people hand over in its place.

    module.ko.xz, .ko.gz, .ko.zst    ─ unpack ─>    ELF file │ appended signature, if any

Recognised by content, never by name. Everything that is no ELF file gets one line that says what it is and
which file to use instead.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from ftpatch.container.file_bytes import FileBytes
from ftpatch.container.wrappings import MARKER, wrapping_of
from ftpatch.errors import InputError
from ftpatch.inputs import open_regular

ELF_MAGIC = b"\x7fELF"
MAX_SIZE = 1 << 30  # bytes that a compressed file may unpack to; a vmlinux with debug information has 350 MB


class Contents(NamedTuple):
    """A file, and what is in it."""

    data: FileBytes  # the ELF file alone
    raw: FileBytes  # the whole file as it is on disk
    mode: int  # its permission bits
    wrapping: str  # how it is compressed: a key of WRAPPINGS, or "none"
    trailer: bytes  # the signature behind the ELF file; b"" if there is none


def open_elf(path: str, max_size: int | None = None) -> Contents:
    """The ELF file in a file, read-only: read when it is asked for where it is not compressed.

    Raises InputError for everything that is not a regular file with an ELF file in it, EnvelopeError for what cannot
    be unpacked to at most max_size bytes (None: MAX_SIZE), and for a signature that contradicts the file.
    """
    raw, mode = _opened(path)
    wrapping, plain = "none", raw
    if raw[:4].tobytes() != ELF_MAGIC:
        from ftpatch.container.foreign import HEAD, not_elf  # loaded only for files that begin otherwise

        head = raw[:HEAD].tobytes()
        wrapping = wrapping_of(head)
        if wrapping == "none":
            raise not_elf(path, head)
        from ftpatch.container.unpack import unpack

        plain = FileBytes.of(unpack(wrapping, raw.tobytes(), path, MAX_SIZE if max_size is None else max_size))
        if plain[:4].tobytes() != ELF_MAGIC:
            raise not_elf(path, plain[:HEAD].tobytes(), wrapping)
    n_elf = len(plain)
    if plain[-len(MARKER) :].tobytes() == MARKER:
        from ftpatch.container import signature  # loaded only for files that have one

        n_elf -= signature.size_of(plain, path)
    return Contents(plain.part(0, n_elf), raw, mode, wrapping, plain[n_elf:].tobytes())


def _opened(path: str) -> tuple[FileBytes, int]:
    """The bytes of a regular file, and its permission bits."""
    fd, status = open_regular(path, inside="name the vmlinux or module inside it")
    if status.st_size == 0:
        os.close(fd)
        raise InputError("is an empty file", path, expected="an ELF vmlinux, module or object")
    return FileBytes.of_file(path, fd, status), stat.S_IMODE(status.st_mode)
