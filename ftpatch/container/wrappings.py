"""The compressions that kernels and modules are shipped in: what they are called and how they begin."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

from ftpatch.errors import UnsupportedError

MARKER = b"~Module signature appended~\n"  # the end of a signed module. Source: include/linux/module_signature.h
# Bytes of a dictionary that a decoder may have: xz -9 takes 64 MiB, and kernel builds ask for all of this
# (scripts/xz_wrap.sh, seen in Linux 6.12).
DICTIONARIES = 128 << 20
DECODER = 1 << 20  # bytes that a decoder takes beside its dictionary at most
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
# What a kernel comes compressed in, too; modules do not.
STREAMS = {
    **WRAPPINGS,
    "bz2": Wrapping(b"BZh", "bzip2 data"),
    "lzma": Wrapping(b"\x5d\0\0", "lzma data"),
    "lz4": Wrapping(b"\x02\x21\x4c\x18", "lz4 data"),
    "lzo": Wrapping(b"\x89LZO\0\r\n\x1a\n", "lzo data"),
}
LZ4_FRAME = b"\x04\x22\x4d\x18"  # how lz4 data begin that are not in the legacy format
HEAD = 16  # bytes by which compressed data are recognised
# A layer of these kinds around an ELF file alone is that file's wrapping.
KIND_OF = {key: key for key in STREAMS} | {"gz": "gzip", "zst": "zstd", "bz2": "bzip2"}
WRAPPING_OF = {KIND_OF[wrapping]: wrapping for wrapping in WRAPPINGS}


class DecodeError(Exception):
    """What a decoder says of data that it refuses."""


def stream_of(head: bytes) -> str:
    """How data with these first bytes are compressed, a key of STREAMS; "none" if they are not."""
    if is_skippable(head[:4]):
        return "zst"
    if head.startswith(LZ4_FRAME):
        return "lz4"
    kind = next((key for key, kind in STREAMS.items() if head.startswith(kind.magic)), "none")
    # lzma data have no magic: behind a byte of properties and the dictionary's size is that of the content, or −1
    if kind == "lzma" and head[5:13] != b"\xff" * 8 and head[10:13] != bytes(3):
        return "none"
    return kind


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
