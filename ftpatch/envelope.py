"""What a file is from the outside: an ELF file, or something that people hand over in its place.

Recognised by content, never by name. Everything that is no ELF file gets one line that says what it is and
which file to use instead.
"""

from __future__ import annotations

import mmap
import os
import stat
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ftpatch.errors import InputError

BUILD_VMLINUX = "give the uncompressed ELF vmlinux of the same build (Debian: the -dbg package)"


@dataclass(frozen=True)
class Foreign:
    """A recognisable file that is not ELF: bytes at a position, its name, and what to give instead."""

    pos: int
    magic: bytes
    name: str
    todo: str


FOREIGN = (
    Foreign(4, b"zimg", "an EFI zboot image (compressed kernel)", BUILD_VMLINUX),
    Foreign(
        56, b"ARM\x64", "a raw arm64 boot Image without symbols", BUILD_VMLINUX + "; ftpatch image makes a new Image"
    ),
    Foreign(0x202, b"HdrS", "an x86 bzImage", "ftpatch reads arm64 and ppc64le kernels; give their ELF vmlinux"),
    Foreign(0x24, b"\x18\x28\x6f\x01", "a 32-bit ARM zImage", "ftpatch reads 64-bit kernels; give an ELF vmlinux"),
    Foreign(0, b"\x1f\x8b", "gzip data (a compressed kernel or module)", BUILD_VMLINUX + ", or unpack it"),
    Foreign(0, b"\xfd7zXZ\0", "xz data", "unpack it first"),
    Foreign(0, b"\x28\xb5\x2f\xfd", "zstd data", "unpack it first"),
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


def open_elf(path: str) -> tuple[npt.NDArray[np.uint8], int]:
    """The bytes of an ELF file, mapped read-only, and its permission bits.

    Raises InputError for everything that is not a regular file starting with the ELF magic.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path) from None
    try:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            raise InputError("is a directory", path, todo="name the vmlinux or module inside it")
        if not stat.S_ISREG(status.st_mode):
            raise InputError("is not a regular file", path, todo="copy its content to a file first")
        if status.st_size == 0:
            raise InputError("is an empty file", path, expected="an ELF vmlinux, module or object")
        mapped = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path) from None
    finally:
        os.close(fd)
    if mapped[:4] != b"\x7fELF":
        raise not_elf(path, mapped[:1024])
    return np.frombuffer(mapped, dtype=np.uint8), stat.S_IMODE(status.st_mode)


def not_elf(path: str, head: bytes) -> InputError:
    """The error that names what a file is that does not start with the ELF magic."""
    for kind in FOREIGN:
        if head[kind.pos : kind.pos + len(kind.magic)] == kind.magic:
            return InputError("not an ELF file", path, found=kind.name, todo=kind.todo)
    return InputError(
        "not an ELF file", path, found=f"first bytes {head[:8].hex(' ')}", expected="7f 45 4c 46", todo=BUILD_VMLINUX
    )
