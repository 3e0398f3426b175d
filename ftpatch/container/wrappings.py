"""The compressions that kernels and modules are shipped in: what they are called and how they begin."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

from ftpatch.errors import UnsupportedError

MARKER = b"~Module signature appended~\n"  # the end of a signed module. Source: include/linux/module_signature.h
DICTIONARIES = 128 << 20  # bytes that a decoder may take for itself; xz -9 makes files that need 65 MiB
SKIPPABLE = b"\x2a\x4d\x18"  # behind a byte 50 to 5f: a frame of zstd data with a size and no content (RFC 8878, 3.1.2)


class Wrapping(NamedTuple):
    """One compression."""

    magic: bytes  # the first bytes of such a file
    name: str  # for messages


WRAPPINGS = {
    "xz": Wrapping(b"\xfd7zXZ\0", "xz data"),
    "gz": Wrapping(b"\x1f\x8b", "gzip data"),
    "zst": Wrapping(b"\x28\xb5\x2f\xfd", "zstd data"),
}
# A layer of these kinds around an ELF file alone is that file's wrapping.
KIND_OF = {"xz": "xz", "gz": "gzip", "zst": "zstd"}
WRAPPING_OF = {kind: wrapping for wrapping, kind in KIND_OF.items()}


def wrapping_of(head: bytes) -> str:
    """How a file with these first bytes is compressed, a key of WRAPPINGS; "none" if it is not."""
    if is_skippable(head[:4]):
        return "zst"
    return next((key for key, kind in WRAPPINGS.items() if head.startswith(kind.magic)), "none")


def is_skippable(head: bytes) -> bool:
    """Whether four bytes begin a frame that a zstd decoder passes over; pzstd puts one in front of each other frame."""
    return head[1:4] == SKIPPABLE and head[0] >> 4 == 5


def wrapping_for(out: str, otherwise: str) -> str:
    """How a file of this name is compressed, for the names that modules have; `otherwise` for any other name."""
    suffixes = {".ko": "none", **{f".ko.{wrapping}": wrapping for wrapping in WRAPPINGS}}
    return next((wrapping for suffix, wrapping in suffixes.items() if out.endswith(suffix)), otherwise)


def zstandard_package(path: str) -> ModuleType:
    """The package, which Python has none of its own for before 3.14."""
    try:
        import zstandard
    except ImportError:
        raise UnsupportedError("zstd data needs a Python package that is not there", path, expected="zstandard",
                               todo="pip install zstandard, or unpack the file first") from None  # fmt: skip
    return zstandard
