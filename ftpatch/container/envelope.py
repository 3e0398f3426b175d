"""What a file is from the outside: an ELF file, one with layers around it, or something people hand over in its place.

    module.ko.xz, .ko.gz, .ko.zst    ─ unpack ─>    ELF file │ appended signature, if any
    boot.img, Image.gz, bzImage      ─ peel ───>    flat kernel, or ELF file

Recognised by content, never by name. Everything that has no kernel, module or object in it gets one line that says
what it is and which file to use instead.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from ftpatch.container.file_bytes import FileBytes, is_elf
from ftpatch.container.layers import Layer
from ftpatch.container.wrappings import MARKER, WRAPPING_OF
from ftpatch.errors import InputError
from ftpatch.inputs import open_regular

MAX_SIZE = 1 << 30  # bytes that a compressed file may unpack to; a vmlinux with debug information has 350 MB


class Contents(NamedTuple):
    """A file, and what is in it."""

    data: FileBytes  # the ELF file or the flat kernel alone
    raw: FileBytes  # the whole file as it is on disk
    mode: int  # its permission bits
    wrapping: str  # how an ELF file is compressed that nothing else is around: a key of WRAPPINGS, or "none"
    trailer: bytes  # the signature behind the ELF file; b"" if there is none
    layers: tuple[Layer, ...] = ()  # what else is around the data, the outermost first


def open_file(path: str, max_size: int | None = None) -> Contents:
    """The kernel, module or object in a file, read-only: read when it is asked for where it is not compressed.

    Raises InputError for everything that is not a regular file with an ELF file or a flat kernel in it, EnvelopeError
    for what cannot be unpacked to at most max_size bytes (None: MAX_SIZE), and for a signature that contradicts the
    file.
    """
    raw, mode = _opened(path)
    plain, wrapping = raw, "none"
    layers: tuple[Layer, ...] = ()
    if not is_elf(raw):
        from ftpatch.container.peel import peel  # loaded only for files that begin otherwise

        plain, layers = peel(raw, path, MAX_SIZE if max_size is None else max_size)
        if not is_elf(plain):
            return Contents(plain, raw, mode, wrapping, b"", layers)
        if len(layers) == 1 and layers[0].kind in WRAPPING_OF:
            wrapping, layers = WRAPPING_OF[layers[0].kind], ()
    n_elf = len(plain)
    if plain[-len(MARKER) :].tobytes() == MARKER:
        from ftpatch.container import signature  # loaded only for files that have one

        n_elf -= signature.size_of(plain, path)
    return Contents(plain.part(0, n_elf), raw, mode, wrapping, plain[n_elf:].tobytes(), layers)


def _opened(path: str) -> tuple[FileBytes, int]:
    """The bytes of a regular file, and its permission bits."""
    fd, status = open_regular(path, inside="name the vmlinux or module inside it")
    if status.st_size == 0:
        os.close(fd)
        raise InputError("is an empty file", path, expected="an ELF vmlinux, module or object",
                         todo="build or copy it again")  # fmt: skip
    return FileBytes.of_file(path, fd, status), stat.S_IMODE(status.st_mode)
