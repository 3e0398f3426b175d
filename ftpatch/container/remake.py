"""Compressed kernels packed again with the settings of the old data, as far as those can be told from it.

The settings are read from the headers. Where several fit, one that makes the old bytes of the old content is taken; a
megabyte of it is enough to see that. No encoder here is the one of the tool gzip, so that its files come out anew in
other bytes of about the same size.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

from ftpatch.container import lz4, lzo
from ftpatch.container.wrappings import is_skippable, zstandard_package

Buffer = bytes | bytearray
Encoder = Callable[[bytes], bytes]
SAMPLE = 1 << 20  # bytes of the old content that an encoder is tried on
COMPARED = 1 << 14  # bytes of its output that are compared at least


def remaker(stream: str, packed: bytes, old: Buffer) -> Encoder:
    """What packs another content as `packed` is around the old one; nothing is tried out before it is called."""
    return lambda content: next(candidates(stream, packed, old, content))


def candidates(stream: str, packed: bytes, old: Buffer, content: bytes) -> Iterator[bytes]:
    """The content packed as `packed` is around the old one; then in other ways, for those who need fewer bytes."""
    return REMAKERS[stream](packed, old, content)


# -- gzip (RFC 1952) -------------------------------------------------------------------------------------------

HAS_CRC, HAS_EXTRA, HAS_NAME, HAS_COMMENT = 2, 4, 8, 16  # FLG
LEVELS = {2: 9, 4: 1}  # by XFL, where encoders say whether they took the most or the least time


def gzip_header(packed: bytes) -> bytes:
    """The header of the first member, with its name and its time."""
    flags, pos = packed[3], 10
    if flags & HAS_EXTRA:
        pos += 2 + int.from_bytes(packed[pos : pos + 2], "little")
    for field in (HAS_NAME, HAS_COMMENT):
        if flags & field:
            pos = packed.index(0, pos) + 1
    return packed[: pos + (2 if flags & HAS_CRC else 0)]


def _gzip(packed: bytes, old: Buffer, content: bytes) -> Iterator[bytes]:
    header = gzip_header(packed)
    level, body = LEVELS.get(header[8], 6), packed[len(header) :]
    encoders = [partial(_deflate, level, memory) for memory in (8, 9)]  # what zlib takes unless told, and what gzip has
    encoders.sort(key=lambda encoder: not _begins(encoder, body, old))
    for encode in [*encoders, partial(_deflate, 9, 7)]:
        yield header + encode(content) + struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)


def _begins(deflate: Callable[[bytes], bytes], body: bytes, content: Buffer) -> bool:
    """Whether an encoder makes the same beginning."""
    start = deflate(bytes(content[:SAMPLE]))
    n = min(len(start) - COMPARED, len(body)) if len(content) > SAMPLE else len(start)
    return n > 0 and start[:n] == body[:n]


def _deflate(level: int, memory: int, content: bytes) -> bytes:
    encoder = zlib.compressobj(level, zlib.DEFLATED, -15, memory)  # −15: a bare stream
    return encoder.compress(content) + encoder.flush()


# -- xz (The .xz File Format 1.2.1) ----------------------------------------------------------------------------

XZ_HEADER = 12  # of a stream; its byte 7 has the kind of check
LZMA2, MIN_DICTIONARY = 0x21, 1 << 20
# Filters for branches, one a machine, that Python's module can encode with; an encoder may use none. Source: 5.3.2.
BRANCH_FILTERS = range(4, 10)


def _xz(packed: bytes, old: Buffer, content: bytes) -> Iterator[bytes]:
    for preset in (6, 9 | lzma.PRESET_EXTREME):
        yield lzma.compress(content, lzma.FORMAT_XZ, packed[7] & 15, filters=_xz_encoder(packed, content, preset))


def _xz_encoder(packed: bytes, content: bytes, preset: int) -> list[dict[str, int]]:
    filters: list[dict[str, int]] = []
    for number, properties in _xz_filters(packed):
        if number in BRANCH_FILTERS:
            filters.append({"id": number})
        elif number == LZMA2:
            bits = properties[0] if properties else 0
            size = (2 | bits & 1) << (bits // 2 + 11)
            filters.append({"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": dictionary_for(content, size)})
    return filters


def _xz_filters(packed: bytes) -> list[tuple[int, bytes]]:
    """(number, properties) of each filter of the first block of sound xz data."""
    flags, pos, filters = packed[XZ_HEADER + 1], XZ_HEADER + 2, []
    for has_size in (flags & 0x40, flags & 0x80):
        if has_size:
            _, pos = _number(packed, pos)
    for _ in range((flags & 3) + 1):
        number, pos = _number(packed, pos)
        size, pos = _number(packed, pos)
        filters.append((number, packed[pos : pos + size]))
        pos += size
    return filters


def _number(packed: bytes, pos: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = shift = 0
    for octet in islice(packed, pos, pos + 9):
        value |= (octet & 127) << shift
        pos, shift = pos + 1, shift + 7
        if octet < 128:
            break
    return value, pos


def dictionary_for(content: bytes, size: int) -> int:
    """A dictionary of the old size, but not larger than the content needs: an encoder takes ten times as much."""
    needed = MIN_DICTIONARY
    while needed < len(content):
        needed *= 2
    return max(min(size, needed), 4096)


# -- zstd (RFC 8878) -------------------------------------------------------------------------------------------

HAS_CHECKSUM, IS_ONE_SEGMENT, SIZE_FLAGS = 4, 0x20, 0xE0  # frame header descriptor
FIRST_LARGE = 24  # logarithm of a window that levels beyond 19 ask for


def _zstd(packed: bytes, old: Buffer, content: bytes) -> Iterator[bytes]:
    package, pos = zstandard_package(""), 0
    while is_skippable(packed[pos : pos + 4]):
        pos += 8 + int.from_bytes(packed[pos + 4 : pos + 8], "little")
    descriptor = packed[pos + 4]
    options: dict[str, int | bool] = {
        "write_checksum": bool(descriptor & HAS_CHECKSUM), "write_content_size": bool(descriptor & SIZE_FLAGS),
    }  # fmt: skip
    level = 19
    if not descriptor & IS_ONE_SEGMENT:
        options["window_log"] = 10 + (packed[pos + 5] >> 3)
        level = 22 if options["window_log"] >= FIRST_LARGE else 19
    elif len(content) >> FIRST_LARGE:  # of a level whose window takes in all of it
        level = 22
    for more in ({}, {"search_log": 12, "target_length": 4096}):
        made = package.ZstdCompressionParameters.from_level(level, source_size=len(content), **options, **more)
        yield bytes(package.ZstdCompressor(compression_params=made).compress(content))


# -- others ----------------------------------------------------------------------------------------------------


def _lzma(packed: bytes, old: Buffer, content: bytes) -> Iterator[bytes]:
    """With the old properties; the header does not tell the content's size, but a mark ends it."""
    properties, size = packed[0], int.from_bytes(packed[1:5], "little")
    for preset in (9, 9 | lzma.PRESET_EXTREME):
        filters = {"id": lzma.FILTER_LZMA1, "preset": preset, "dict_size": dictionary_for(content, size),
                   "lc": properties % 9, "lp": properties // 9 % 5, "pb": properties // 45}  # fmt: skip
        yield lzma.compress(content, lzma.FORMAT_ALONE, filters=[filters])


def _bzip2(packed: bytes, old: Buffer, content: bytes) -> Iterator[bytes]:
    yield bz2.compress(content, packed[3] - ord("0"))


def _lz4(packed: bytes, old: Buffer, content: bytes) -> Iterator[bytes]:
    yield lz4.repack(packed, content)


def _lzo(packed: bytes, old: Buffer, content: bytes) -> Iterator[bytes]:
    yield lzo.repack(packed, old, content)


REMAKERS: dict[str, Callable[[bytes, Buffer, bytes], Iterator[bytes]]] = {
    "gz": _gzip, "xz": _xz, "zst": _zstd, "lzma": _lzma, "bz2": _bzip2, "lz4": _lz4, "lzo": _lzo,
}  # fmt: skip
