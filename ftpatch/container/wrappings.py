"""The compressions that kernels and modules are shipped in: one stream, unpacked within limits of size and memory."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple, Protocol

from ftpatch.errors import EnvelopeError, UnsupportedError

MARKER = b"~Module signature appended~\n"  # the end of a signed module. Source: include/linux/module_signature.h
PIECE = 32 << 20  # bytes that are unpacked at once: one piece and the result so far are in memory together
DICTIONARIES = 128 << 20  # bytes that a decoder may take for itself; xz -9 makes files that need 65 MiB


class Decoder(Protocol):
    """What lzma and zlib have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def unpack(wrapping: str, packed: bytes, path: str, max_size: int) -> bytes | bytearray:
    """The one stream in a file, unpacked."""
    name = WRAPPINGS[wrapping].name
    try:
        plain, whole, behind = WRAPPINGS[wrapping].unpack(packed, max_size, path)
    except DecodeError as error:
        raise EnvelopeError(f"{name} cannot be unpacked", path, found=str(error).lower(),
                            todo="the file is corrupt, or only its own program reads it") from None  # fmt: skip
    if len(plain) > max_size:
        raise EnvelopeError(f"{name} unpacks to too much", path, found=f"more than {max_size} bytes",
                            todo="unpack it first")  # fmt: skip
    if not whole:
        raise EnvelopeError(f"{name} ends too early", path, found=f"{len(packed)} bytes",
                            todo="the file is truncated")  # fmt: skip
    if wrapping == "xz" and len(behind) % 4 == 0:  # stream padding: zeros, in fours (The .xz File Format, 2.2)
        behind = behind.strip(b"\0")
    if behind:
        raise EnvelopeError(f"there is something behind the {name}", path, found=f"{len(behind)} bytes",
                            expected="one compressed stream")  # fmt: skip
    return plain


class DecodeError(Exception):
    """What a decoder says of data that it refuses."""


Unpacked = tuple[bytes | bytearray, bool, bytes]  # the content, whether it is whole, and what is behind the stream


def _unxz(packed: bytes, max_size: int, path: str) -> Unpacked:
    import lzma

    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=DICTIONARIES)
    return _drained(decoder, packed, max_size, lambda: b"", lzma.LZMAError)


def _gunzip(packed: bytes, max_size: int, path: str) -> Unpacked:
    import zlib

    decoder = zlib.decompressobj(wbits=31)
    return _drained(decoder, packed, max_size, lambda: decoder.unconsumed_tail, zlib.error)


def _drained(
    decoder: Decoder, packed: bytes, max_size: int, left: Callable[[], bytes], refused: type[Exception]
) -> Unpacked:
    """All that a decoder gives, one byte more than `max_size` at most.

    left(): input to be given again. refused: what the decoder raises for other data than its own.
    """
    try:
        plain: bytes | bytearray = decoder.decompress(packed, min(PIECE, max_size + 1))
        if not decoder.eof:
            plain = bytearray(plain)  # it grows in place, so that there is never a second copy
        while not decoder.eof and len(plain) <= max_size:
            piece = decoder.decompress(left(), min(PIECE, max_size + 1 - len(plain)))
            plain += piece
            if not piece:  # the input is at its end, and the stream is not
                break
    except refused as error:
        raise DecodeError(error) from None
    return plain, decoder.eof, decoder.unused_data


def _unzstd(packed: bytes, max_size: int, path: str) -> Unpacked:
    """As the others; the input is given in pieces, since the output of a call cannot be limited.

    A block of 128 KiB takes four bytes at least, so one piece gives 8 MiB at most.
    """
    zstandard = zstandard_package(path)
    decoder = zstandard.ZstdDecompressor(max_window_size=DICTIONARIES).decompressobj()
    plain, at = bytearray(), 0
    try:
        while at < len(packed) and not decoder.eof and len(plain) <= max_size:
            plain += decoder.decompress(packed[at : at + 256])
            at += 256
    except zstandard.ZstdError as error:
        raise DecodeError(str(error).removeprefix("zstd decompressor error: ")) from None
    return plain, decoder.eof, decoder.unused_data + packed[at:]


class Wrapping(NamedTuple):
    """One compression."""

    magic: bytes  # the first bytes of such a file
    name: str  # for messages
    unpack: Callable[[bytes, int, str], Unpacked]  # from a file, the most bytes that it may give, and its name


WRAPPINGS = {
    "xz": Wrapping(b"\xfd7zXZ\0", "xz data", _unxz),
    "gz": Wrapping(b"\x1f\x8b", "gzip data", _gunzip),
    "zst": Wrapping(b"\x28\xb5\x2f\xfd", "zstd data", _unzstd),
}


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
