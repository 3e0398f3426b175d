"""What a file is from the outside: an ELF file, a compressed one, or something that people hand over in its place.

    module.ko.xz, .ko.gz, .ko.zst    ─ unpack ─>    ELF file │ appended signature, if any

Recognised by content, never by name. Everything that is no ELF file gets one line that says what it is and
which file to use instead.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from ftpatch.arch import architectures
from ftpatch.arch.parts import FlatImage
from ftpatch.container.file_bytes import FileBytes
from ftpatch.container.unpack import unpack
from ftpatch.container.wrappings import MARKER, WRAPPINGS, wrapping_of
from ftpatch.errors import InputError
from ftpatch.inputs import open_regular

BUILD_VMLINUX = "give the uncompressed ELF vmlinux of the same build (Debian: the -dbg package)"
ELF_MAGIC = b"\x7fELF"
MAX_SIZE = 1 << 30  # bytes that a compressed file may unpack to; a vmlinux with debug information has 350 MB


class Contents(NamedTuple):
    """A file, and what is in it."""

    data: FileBytes  # the ELF file alone
    raw: FileBytes  # the whole file as it is on disk
    mode: int  # its permission bits
    wrapping: str  # how it is compressed: a key of WRAPPINGS, or "none"
    trailer: bytes  # the signature behind the ELF file; b"" if there is none


class Foreign(NamedTuple):
    """A recognisable file that is not ELF."""

    pos: int  # where its magic is
    magic: bytes
    name: str  # for messages
    todo: str  # what to give instead


ZBOOT = Foreign(4, b"zimg", "an EFI zboot image (compressed kernel)", BUILD_VMLINUX)
FOREIGN = (
    Foreign(0x202, b"HdrS", "an x86 bzImage", "ftpatch reads {machines} kernels; give their ELF vmlinux"),
    Foreign(0x24, b"\x18\x28\x6f\x01", "a 32-bit ARM zImage", "ftpatch reads 64-bit kernels; give an ELF vmlinux"),
    *(Foreign(0, wrapping.magic, wrapping.name, "unpack it once") for wrapping in WRAPPINGS.values()),
    Foreign(0, b"BZh", "bzip2 data", "unpack it first"),
    Foreign(0, b"\x02\x21\x4c\x18", "lz4 data (a compressed kernel)", BUILD_VMLINUX),
    Foreign(0, b"\x04\x22\x4d\x18", "lz4 data", "unpack it first"),
    Foreign(0, b"\x5d\x00\x00", "lzma data (a compressed kernel)", BUILD_VMLINUX),
    Foreign(0, b"\x89LZO", "lzo data (a compressed kernel)", BUILD_VMLINUX),
    Foreign(0, b"!<arch>\n", "an ar archive", "give one of its members, or vmlinux.o"),
    Foreign(0, b"\x27\x05\x19\x56", "a U-Boot uImage", BUILD_VMLINUX),
    Foreign(0, b"\xd0\x0d\xfe\xed", "a device tree or FIT image", BUILD_VMLINUX),
    Foreign(0, b"ANDROID!", "an Android boot image", BUILD_VMLINUX),
    Foreign(0, b"MZ", "a PE/EFI executable", BUILD_VMLINUX),
)


def open_elf(path: str, max_size: int | None = None) -> Contents:
    """The ELF file in a file, read-only: read when it is asked for where it is not compressed.

    Raises InputError for everything that is not a regular file with an ELF file in it, EnvelopeError for what cannot
    be unpacked to at most max_size bytes (None: MAX_SIZE), and for a signature that contradicts the file.
    """
    raw, mode = _opened(path)
    wrapping, plain = "none", raw
    if raw[:4].tobytes() != ELF_MAGIC:
        head = raw[:1024].tobytes()
        wrapping = wrapping_of(head)
        if wrapping == "none":
            raise not_elf(path, head)
        plain = FileBytes.of(unpack(wrapping, raw.tobytes(), path, MAX_SIZE if max_size is None else max_size))
        if plain[:4].tobytes() != ELF_MAGIC:
            raise not_elf(path, plain[:1024].tobytes(), wrapping)
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


def not_elf(path: str, head: bytes, wrapping: str = "none") -> InputError:
    """The error that names what a file is, or what is compressed in it, that does not start with the ELF magic."""
    inside = "" if wrapping == "none" else f" inside {WRAPPINGS[wrapping].name}"
    machines = architectures()
    flat = (
        Foreign(arch.boot.at, arch.boot.magic, f"a raw {arch.name} boot Image without symbols",
                BUILD_VMLINUX + "; ftpatch image makes a new Image")
        for arch in machines if isinstance(arch.boot, FlatImage)
    )  # fmt: skip
    for kind in (ZBOOT, *flat, *FOREIGN):
        if head[kind.pos : kind.pos + len(kind.magic)] == kind.magic:
            todo = kind.todo.replace("{machines}", " and ".join(arch.name for arch in machines))
            return InputError("not an ELF file", path, found=kind.name + inside, todo=todo)
    start = f"first bytes {head[:8].hex(' ')}" if head else "nothing"
    return InputError("not an ELF file", path, found=start + inside, expected="7f 45 4c 46", todo=BUILD_VMLINUX)
