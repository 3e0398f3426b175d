"""What a file is from the outside: an ELF file, a compressed one, or something that people hand over in its place.

    module.ko.xz, .ko.gz, .ko.zst    ─ unpack ─>    ELF file │ appended signature, if any

Recognised by content, never by name. Everything that is no ELF file gets one line that says what it is and
which file to use instead. A file holds one compressed stream and nothing behind it; only the zeros that the .xz
format allows there are passed over.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import numpy as np

from ftpatch.arrays import U8
from ftpatch.container import signature
from ftpatch.errors import EnvelopeError, InputError, UnsupportedError

BUILD_VMLINUX = "give the uncompressed ELF vmlinux of the same build (Debian: the -dbg package)"
MAX_SIZE = 1 << 30  # bytes that a compressed file may unpack to; a vmlinux with debug information has 350 MB
PIECE = 32 << 20  # bytes that are unpacked at once
DICTIONARIES = 128 << 20  # bytes that a decoder may take for itself; xz -9 makes files that need 65 MiB

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Contents:
    """A file's content as `data`, the ELF file alone, and `trailer`, the signature behind it (b"" if there is none).

    raw: the file as it is on disk; wrapping: how it is compressed, a key of WRAPPINGS or "none".
    """

    data: U8
    raw: U8
    mode: int
    wrapping: str
    trailer: bytes


@dataclass(frozen=True)
class Wrapping:
    """A compression that modules are shipped in: its first bytes, and what it is called."""

    magic: bytes
    name: str


WRAPPINGS = {
    "xz": Wrapping(b"\xfd7zXZ\0", "xz data"),
    "gz": Wrapping(b"\x1f\x8b", "gzip data"),
    "zst": Wrapping(b"\x28\xb5\x2f\xfd", "zstd data"),
}


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
    *(Foreign(0, one.magic, one.name, "unpack it once") for one in WRAPPINGS.values()),
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


def open_elf(path: str, max_size: int = MAX_SIZE) -> Contents:
    """The ELF file in a file, read-only: mapped where it is not compressed.

    Raises InputError for everything that is not a regular file with an ELF file in it, EnvelopeError for what cannot
    be unpacked to at most max_size bytes, and for a signature that contradicts the file.
    """
    mapped, mode = _mapped(path)
    wrapping = "none"
    plain: mmap.mmap | bytes | bytearray = mapped
    if mapped[:4] != b"\x7fELF":
        head = mapped[:1024]
        wrapping = next((key for key, kind in WRAPPINGS.items() if head.startswith(kind.magic)), "none")
        if wrapping == "none":
            raise not_elf(path, head)
        plain = _unpack(wrapping, mapped, path, max_size)
        if plain[:4] != b"\x7fELF":
            raise not_elf(path, bytes(plain[:1024]), wrapping)
    view = memoryview(plain).toreadonly()
    n_elf = len(view) - signature.size_of(view, path)
    data = np.frombuffer(view, dtype=np.uint8)[:n_elf]
    return Contents(data, np.frombuffer(mapped, dtype=np.uint8), mode, wrapping, bytes(view[n_elf:]))


def _mapped(path: str) -> tuple[mmap.mmap, int]:
    """The bytes of a regular file, and its permission bits."""
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
    return mapped, stat.S_IMODE(status.st_mode)


def not_elf(path: str, head: bytes, wrapping: str = "none") -> InputError:
    """The error that names what a file is, or what is compressed in it, that does not start with the ELF magic."""
    inside = "" if wrapping == "none" else f" inside {WRAPPINGS[wrapping].name}"
    for kind in FOREIGN:
        if head[kind.pos : kind.pos + len(kind.magic)] == kind.magic:
            return InputError("not an ELF file", path, found=kind.name + inside, todo=kind.todo)
    found = f"first bytes {head[:8].hex(' ')}" if head else "nothing"
    return InputError("not an ELF file", path, found=found + inside, expected="7f 45 4c 46", todo=BUILD_VMLINUX)


# -- unpacking -------------------------------------------------------------------------------------------------


class Decoder(Protocol):
    """What lzma and zlib have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes | mmap.mmap, max_length: int, /) -> bytes: ...


def _unpack(wrapping: str, packed: mmap.mmap, path: str, max_size: int) -> bytes | bytearray:
    """The one stream in a file, unpacked."""
    name = WRAPPINGS[wrapping].name
    try:
        plain, whole, behind = UNPACK[wrapping](packed, max_size, path)
    except DecodeError as error:
        raise EnvelopeError(f"{name} cannot be unpacked", path, found=str(error).lower(),
                            todo="the file is corrupt, or only its own program reads it") from None  # fmt: skip
    if len(plain) > max_size:
        raise EnvelopeError(f"{name} unpacks to too much", path, found=f"more than {max_size} bytes",
                            todo="unpack it first")  # fmt: skip
    if not whole:
        raise EnvelopeError(f"{name} ends too early", path, found=f"{len(packed)} bytes",
                            todo="the file is truncated")  # fmt: skip
    if wrapping == "xz" and len(behind) % 4 == 0:
        behind = behind.strip(b"\0")
    if behind:
        raise EnvelopeError(f"there is something behind the {name}", path, found=f"{len(behind)} bytes",
                            expected="one compressed stream")  # fmt: skip
    return plain


class DecodeError(Exception):
    """What a decoder says of data that it refuses."""


Unpacked = tuple[bytes | bytearray, bool, bytes]  # the content, whether it is whole, and what is behind the stream


def _unxz(packed: mmap.mmap, max_size: int, path: str) -> Unpacked:
    import lzma

    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=DICTIONARIES)
    try:
        return _drained(decoder, packed, max_size, lambda: b"")
    except lzma.LZMAError as error:
        raise DecodeError(error) from None


def _gunzip(packed: mmap.mmap, max_size: int, path: str) -> Unpacked:
    import zlib

    decoder = zlib.decompressobj(wbits=31)
    try:
        return _drained(decoder, packed, max_size, lambda: decoder.unconsumed_tail)
    except zlib.error as error:
        raise DecodeError(error) from None


def _drained(decoder: Decoder, packed: mmap.mmap, max_size: int, left: Callable[[], bytes]) -> Unpacked:
    """All that a decoder gives, one byte more than `max_size` at most. left(): input to be given again."""
    plain: bytes | bytearray = decoder.decompress(packed, min(PIECE, max_size + 1))
    if not decoder.eof:
        plain = bytearray(plain)  # it grows in place, so that there is never a second copy
        while not decoder.eof and len(plain) <= max_size:
            piece = decoder.decompress(left(), min(PIECE, max_size + 1 - len(plain)))
            plain += piece
            if not piece:
                break
    return plain, decoder.eof, decoder.unused_data


def _unzstd(packed: mmap.mmap, max_size: int, path: str) -> Unpacked:
    """As the others; the input is given in pieces, since the output of a call cannot be limited.

    A block of 128 KiB takes four bytes at least, so one piece gives 8 MiB at most.
    """
    zstandard = _zstandard(path)
    decoder = zstandard.ZstdDecompressor(max_window_size=DICTIONARIES).decompressobj()
    plain, at = bytearray(), 0
    try:
        while at < len(packed) and not decoder.eof and len(plain) <= max_size:
            plain += decoder.decompress(packed[at : at + 256])
            at += 256
    except zstandard.ZstdError as error:
        raise DecodeError(str(error).removeprefix("zstd decompressor error: ")) from None
    return plain, decoder.eof, decoder.unused_data + packed[at:]


UNPACK: dict[str, Callable[[mmap.mmap, int, str], Unpacked]] = {"xz": _unxz, "gz": _gunzip, "zst": _unzstd}


def _zstandard(path: str) -> ModuleType:
    """The package, which Python has none of its own for before 3.14."""
    try:
        import zstandard
    except ImportError:
        raise UnsupportedError("zstd data needs a Python package that is not there", path, expected="zstandard",
                               todo="pip install zstandard, or unpack the file first") from None  # fmt: skip
    return zstandard


# -- packing ---------------------------------------------------------------------------------------------------


def wrapping_for(out: str, otherwise: str) -> str:
    """How a file of this name is compressed, for the names that modules have; `otherwise` for any other name."""
    for wrapping in ("none", *WRAPPINGS):
        if out.endswith(".ko" if wrapping == "none" else f".ko.{wrapping}"):
            return wrapping
    return otherwise


def encoders(wrapping: str) -> tuple[str, ...]:
    """The names of all ways to compress; the first is what kernel builds use today."""
    return tuple(ENCODERS[wrapping])


def wrap(wrapping: str, data: Buffer, encoder: str = "") -> bytes:
    """The content compressed, as by the first of the encoders unless one is named.

    The same bytes on every machine with the same version of liblzma, zlib or libzstd.
    """
    found = ENCODERS[wrapping].get(encoder or encoders(wrapping)[0])
    if found is None:
        raise UnsupportedError(
            f"{WRAPPINGS[wrapping].name if wrapping != 'none' else 'uncompressed data'}: no such encoder",
            found=encoder, expected=", ".join(encoders(wrapping)),
        )  # fmt: skip
    return found(memoryview(data))


def encoder_of(contents: Contents) -> str | None:
    """The encoder that makes the file's very bytes from its content, found by trying; None if none does."""
    if contents.wrapping == "none":
        return "none"
    plain = contents.data.data
    if contents.trailer:
        plain = memoryview(b"".join([plain, contents.trailer]))
    for encoder in encoders(contents.wrapping):
        if encoder == "xz-mt" and not contents.raw[13] & 0x80:  # a block without sizes is not worth a try
            continue
        if wrap(contents.wrapping, plain, encoder) == contents.raw.data:
            return encoder
    return None


def _xz_mt(data: memoryview) -> bytes:
    from ftpatch.container import xz

    return xz.compress(data)


def _xz_st(data: memoryview) -> bytes:
    import lzma

    from ftpatch.container import xz

    return lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=xz.FILTERS)


def _gzip(data: memoryview) -> bytes:
    """As zlib's own programs with gzip -n: neither name nor time. The tool gzip has an encoder of its own."""
    import struct
    import zlib

    encoder = zlib.compressobj(6, zlib.DEFLATED, -15, 8)
    body = encoder.compress(data) + encoder.flush()
    head = b"\x1f\x8b\x08\0" + bytes(4) + b"\0\x03"  # deflate, no flags, no time, no hint, Unix
    return head + body + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def _zstd(level: int) -> Callable[[memoryview], bytes]:
    """As the tool does: with checksum and size, and with a worker; it cuts the same jobs for any number of those."""

    def compress(data: memoryview) -> bytes:
        encoder = _zstandard("").ZstdCompressor(level=level, threads=1, write_checksum=True, write_content_size=True)
        made: bytes = encoder.compress(data)
        return made

    return compress


# By wrapping, then by name. What kernel builds use: scripts/Makefile.modinst (Linux 6.12) calls
# xz --check=crc32 --lzma2=dict=1MiB, gzip -n and zstd.
ENCODERS: dict[str, dict[str, Callable[[memoryview], bytes]]] = {
    "none": {"none": bytes},
    "xz": {"xz-mt": _xz_mt, "xz-st": _xz_st},  # xz with threads, the default since 5.6, and with a single one
    "gz": {"zlib": _gzip},
    "zst": {"zstd": _zstd(3), "zstd-19": _zstd(19)},
}
