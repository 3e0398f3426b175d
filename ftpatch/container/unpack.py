"""A compressed file unpacked as kmod reads it: stream after stream, within limits of size, memory and number.

    xz    streams, with zeros in fours between and behind them       `cat a.xz b.xz`
    gzip  members, with zeros behind the last                        `cat a.gz b.gz`, tapes
    zstd  frames, and frames to be skipped, in any order             pzstd, `cat a.zst b.zst`
    bzip2, lzma, lz4 and lzo, in which kernels come: one behind the other, with nothing in between

What is behind the last stream is for others to judge. A decoder is given its input in windows that grow, so that a file
of many small streams costs no more than its size, and asked for its output in pieces: none costs more than the limit.
Sources: The .xz File Format 1.2.1, 2.2; RFC 1952, 2.2; RFC 8878, 3.1; kmod's libkmod-file-xz.c, -zlib.c and -zstd.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, Protocol

from ftpatch.container import lz4, lzo
from ftpatch.container.wrappings import (
    DECODER,
    DICTIONARIES,
    HEAD,
    STREAMS,
    DecodeError,
    is_skippable,
    stream_of,
    zstandard_package,
)
from ftpatch.errors import EnvelopeError

PIECE = 32 << 20  # bytes that are unpacked at once: one piece and the result so far are in memory together
MAX_STREAMS = 1 << 16  # in one file; pzstd makes one for some MiB
FIRST_WINDOW, LAST_WINDOW = 256, 1 << 20  # bytes of input that a decoder is given at once, doubled each time
ZEROS = re.compile(rb"\0*")


class Stream(Protocol):
    """What the libraries' decoders of one stream have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


class Decoder(NamedTuple):
    """One stream on its way out."""

    stream: Stream
    window: int  # bytes of input that it may be given at once, so that its output fits into a piece
    is_hungry: Callable[[], bool]  # whether it gives nothing more without input
    decompress: Callable[[bytes, int], bytes]  # from some input, if it is hungry, to at most so many bytes
    refused: type[Exception]  # what the library raises

    def decode(self, data: bytes, room: int) -> bytes:
        try:
            return self.decompress(data, room)
        except self.refused as error:
            text = str(error).removeprefix("zstd decompressor error: ")
            if "not enough memory" in text:
                raise MemoryError from None
            raise DecodeError(text) from None


def _xz(path: str) -> Decoder:
    import lzma

    stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=DICTIONARIES + DECODER)
    return Decoder(stream, LAST_WINDOW, lambda: stream.needs_input, stream.decompress, lzma.LZMAError)


def _gzip(path: str) -> Decoder:
    import zlib

    stream = zlib.decompressobj(wbits=31)

    def decompress(data: bytes, room: int) -> bytes:
        return stream.decompress(data or stream.unconsumed_tail, room)

    return Decoder(stream, LAST_WINDOW, lambda: not stream.unconsumed_tail, decompress, zlib.error)


def _zstd(path: str) -> Decoder:
    """The output of a call cannot be limited, so its input is: a block of 128 KiB takes four bytes at least, and one
    window gives 8 MiB at most."""
    package = zstandard_package(path)
    stream = package.ZstdDecompressor(max_window_size=DICTIONARIES).decompressobj()

    def decompress(data: bytes, room: int) -> bytes:
        return bytes(stream.decompress(data)) if data else b""

    return Decoder(stream, FIRST_WINDOW, lambda: True, decompress, package.ZstdError)


def _lzma(path: str) -> Decoder:
    import lzma

    stream = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=DICTIONARIES + DECODER)
    return Decoder(stream, LAST_WINDOW, lambda: stream.needs_input, stream.decompress, lzma.LZMAError)


def _bzip2(path: str) -> Decoder:
    import bz2

    stream = bz2.BZ2Decompressor()
    return Decoder(stream, LAST_WINDOW, lambda: stream.needs_input, stream.decompress, OSError)


DECODERS: dict[str, Callable[[str], Decoder]] = {"xz": _xz, "gz": _gzip, "zst": _zstd, "lzma": _lzma, "bz2": _bzip2}
# Decoders of this package: from the data, a position and what is unpacked to where a stream ends; −1 for nowhere.
OWN: dict[str, Callable[[bytes, int, bytearray, int], int]] = {"lz4": lz4.decode, "lzo": lzo.decode}


class _Next(NamedTuple):
    """Where a file goes on behind a stream."""

    pos: int  # of the next stream, or the end of the file
    n_skipped: int = 0  # frames in between
    whole: bool = True  # no frame that is skipped reaches beyond the end
    foreign: bool = False  # at `pos` is something that is no stream


def unpack(wrapping: str, packed: bytes, path: str, max_size: int) -> tuple[bytearray, int]:
    """All streams of a file, joined, and where they end: before that of the file where something else follows.

    Raises EnvelopeError for what is not whole, sound and small enough.
    """
    name, plain = STREAMS[wrapping].name, bytearray()
    try:
        end = _unpack_all(wrapping, packed, plain, path, max_size)
    except DecodeError as error:
        raise EnvelopeError(f"{name} cannot be unpacked", path, found=str(error).lower(),
                            todo="the file is corrupt, or only its own program reads it") from None  # fmt: skip
    except MemoryError:
        size = len(plain)
        plain.clear()
        raise EnvelopeError(f"{name} unpacks to more than there is memory for", path,
                            found=f"more than {size} bytes", todo="unpack it first") from None  # fmt: skip
    return plain, end


def _unpack_all(wrapping: str, packed: bytes, plain: bytearray, path: str, max_size: int) -> int:
    """Unpack every stream into `plain`; where the last of them ends, with the padding behind it."""
    name, n_streams = STREAMS[wrapping].name, 0
    following = _next_stream(wrapping, packed, 0)
    while following.whole and following.pos < len(packed):
        if wrapping in OWN:
            end = OWN[wrapping](packed, following.pos, plain, max_size)
        else:
            end = _unpack_one(DECODERS[wrapping](path), packed, following.pos, plain, max_size)
        if len(plain) > max_size:
            raise EnvelopeError(f"{name} unpacks to too much", path, found=f"more than {max_size} bytes",
                                todo="unpack it first")  # fmt: skip
        if end < 0:
            break
        following = _next_stream(wrapping, packed, end)
        n_streams += 1 + following.n_skipped
        if n_streams > MAX_STREAMS:
            raise DecodeError(f"more than {MAX_STREAMS} streams")
        if following.foreign:
            return end
    else:
        if following.whole:
            return len(packed)
    raise EnvelopeError(f"{name} ends too early", path, found=f"{len(packed)} bytes",
                        todo="the file is truncated")  # fmt: skip


def _unpack_one(decoder: Decoder, packed: bytes, pos: int, plain: bytearray, max_size: int) -> int:
    """Unpack the stream at `pos` into `plain`, one byte more than the limit at most; its end, −1 if that is missing."""
    size, stream = FIRST_WINDOW, decoder.stream
    while not stream.eof and len(plain) <= max_size:
        hungry = decoder.is_hungry()
        data = packed[pos : pos + size] if hungry else b""
        pos, size = pos + len(data), min(2 * size, decoder.window) if data else size
        piece = decoder.decode(data, min(PIECE, max_size + 1 - len(plain)))
        plain += piece
        if not piece and not data and hungry and not stream.eof:  # the input is at its end, and the stream is not
            return -1
    return pos - len(stream.unused_data)


def _next_stream(wrapping: str, packed: bytes, pos: int) -> _Next:
    """What begins at `pos`, behind the padding that the format allows there."""
    start, n_skipped = pos, 0
    if wrapping == "zst":
        while is_skippable(packed[pos : pos + 4]):
            pos += 8 + int.from_bytes(packed[pos + 4 : pos + 8], "little")
            n_skipped += 1
            if pos > len(packed):
                return _Next(len(packed), n_skipped, whole=False)
            if n_skipped > MAX_STREAMS:
                raise DecodeError(f"more than {MAX_STREAMS} streams")
    elif start and wrapping in ("gz", "xz"):
        match = ZEROS.match(packed, pos)
        end = match.end() if match else pos
        if end < len(packed) if wrapping == "gz" else (end - pos) % 4:  # no padding, or none that is allowed
            end = pos
        pos = end
    at_end = pos == len(packed)
    return _Next(pos, n_skipped, foreign=not at_end and bool(start) and stream_of(packed[pos : pos + HEAD]) != wrapping)
