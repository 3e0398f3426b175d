"""Compressed kernels packed again with the settings of the old data, as far as those can be told from it.

The settings are read from the headers. Where several fit, one that makes the old bytes of the old content is taken; a
megabyte of it is enough to see that. No encoder here is the one of the tool gzip, so that its files come out anew in
other bytes of about the same size.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Callable
from functools import partial
from itertools import islice

from ftpatch.container.wrappings import is_skippable, zstandard_package

Buffer = bytes | bytearray
Encoder = Callable[[bytes], bytes]
SAMPLE = 1 << 20  # bytes of the old content that an encoder is tried on
COMPARED = 1 << 14  # bytes of its output that are compared at least


def remaker(wrapping: str, packed: bytes, content: Buffer) -> Encoder:
    """What packs another content as `packed` is; nothing is tried out before it is called."""
    return partial(REMAKERS[wrapping], packed, content)


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


def deflaters(packed: bytes, content: Buffer) -> list[Encoder]:
    """The encoders that may have made this gzip data of the content, the likeliest first."""
    header = gzip_header(packed)
    level = LEVELS.get(header[8], 6)
    encoders = [partial(_deflate, level, memory) for memory in (9, 8)]  # of the tool gzip, and of zlib unless told
    body = packed[len(header) :]
    return sorted(encoders, key=lambda encoder: not _begins(encoder, body, content))


def _begins(deflate: Callable[[bytes], bytes], body: bytes, content: Buffer) -> bool:
    """Whether an encoder makes the same beginning."""
    start = deflate(bytes(content[:SAMPLE]))
    n = min(len(start) - COMPARED, len(body)) if len(content) > SAMPLE else len(start)
    return n > 0 and start[:n] == body[:n]


def _deflate(level: int, memory: int, content: bytes) -> bytes:
    encoder = zlib.compressobj(level, zlib.DEFLATED, -15, memory)  # −15: a bare stream
    return encoder.compress(content) + encoder.flush()


def gzip_of(header: bytes, body: bytes, content: bytes) -> bytes:
    """A member around a deflated content."""
    return header + body + struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)


def _gzip(packed: bytes, old: Buffer, content: bytes) -> bytes:
    return gzip_of(gzip_header(packed), deflaters(packed, old)[0](content), content)


# -- xz (The .xz File Format 1.2.1) ----------------------------------------------------------------------------

XZ_HEADER = 12  # of a stream; its byte 7 has the kind of check
LZMA2, MIN_DICTIONARY = 0x21, 1 << 20
# Filters for branches, one a machine, that Python's module can encode with; an encoder may use none. Source: 5.3.2.
BRANCH_FILTERS = range(4, 10)


def _xz(packed: bytes, old: Buffer, content: bytes) -> bytes:
    filters: list[dict[str, int]] = []
    for number, properties in _xz_filters(packed):
        if number in BRANCH_FILTERS:
            filters.append({"id": number})
        elif number == LZMA2:
            bits = properties[0] if properties else 0
            size = (2 | bits & 1) << (bits // 2 + 11)
            filters.append({"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": dictionary_for(content, size)})
    check = packed[7] & 15
    return lzma.compress(content, lzma.FORMAT_XZ, check, filters=filters)


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


def _zstd(packed: bytes, old: Buffer, content: bytes) -> bytes:
    package, pos = zstandard_package(""), 0
    while is_skippable(packed[pos : pos + 4]):
        pos += 8 + int.from_bytes(packed[pos + 4 : pos + 8], "little")
    descriptor = packed[pos + 4]
    options: dict[str, int | bool] = {
        "write_checksum": bool(descriptor & HAS_CHECKSUM), "write_content_size": bool(descriptor & SIZE_FLAGS),
    }  # fmt: skip
    level = 19
    if not descriptor & IS_ONE_SEGMENT:
        window = 10 + (packed[pos + 5] >> 3)
        options["window_log"] = window
        level = 22 if window >= FIRST_LARGE else 19
    parameters = package.ZstdCompressionParameters.from_level(level, source_size=len(content), **options)
    return bytes(package.ZstdCompressor(compression_params=parameters).compress(content))


REMAKERS: dict[str, Callable[[bytes, Buffer, bytes], bytes]] = {"gz": _gzip, "xz": _xz, "zst": _zstd}
