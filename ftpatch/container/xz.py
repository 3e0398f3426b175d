"""An .xz file as the tool xz makes it with threads: independent blocks, each with its sizes in its header.

Since version 5.6 xz works that way unless told otherwise, and kernel builds do not tell it; Python's lzma makes one
block without sizes. The compressed bytes within a block are the same, so only what is around them is made here:

    stream header │ block: header, LZMA2 data, padding, CRC32 │ … │ index: sizes of all blocks │ stream footer

The kernel's own decoder reads both. A block takes three dictionaries of input, however many threads there are.
Source: The .xz File Format 1.2.1; liblzma's stream_encoder_mt.c (xz 5.4.1) for the sizes of blocks and headers.
"""

from __future__ import annotations

import lzma
import struct
from zlib import crc32

# What scripts/Makefile.modinst asks for: --check=crc32 --lzma2=dict=1MiB (seen in Linux 6.12)
DICTIONARY = 1 << 20
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": DICTIONARY}]
FILTER_FLAGS = bytes([0x21, 1, 0x10])  # LZMA2, one byte of properties: 1 MiB
STREAM_FLAGS = bytes([0, 1])  # CRC32

BLOCK = 3 * DICTIONARY
HEADER = 20  # a block header has room for the sizes of the largest block, whatever the sizes are
BOTH_SIZES = 0xC0


def compress(data: memoryview) -> bytes:
    """The .xz file with the settings of a kernel build, in sized blocks."""
    parts, index = [b"\xfd7zXZ\0" + STREAM_FLAGS + _crc(STREAM_FLAGS)], b""
    n_blocks = 0
    for start in range(0, len(data), BLOCK):
        block = data[start : start + BLOCK]
        body = lzma.compress(block, format=lzma.FORMAT_RAW, filters=FILTERS)
        parts += [_header(len(body), len(block)), body, bytes(-len(body) % 4), _crc(block)]
        index += _number(HEADER + len(body) + 4) + _number(len(block))
        n_blocks += 1
    index = b"\0" + _number(n_blocks) + index  # 0: the index indicator, where a block has its header's size
    index += bytes(-len(index) % 4)
    end = struct.pack("<I", len(index) // 4) + STREAM_FLAGS
    return b"".join([*parts, index, _crc(index), _crc(end), end, b"YZ"])


def _header(n_packed: int, n_plain: int) -> bytes:
    # size of the header in words less one, flags, both sizes, the one filter, zeros, CRC32
    head = bytes([HEADER // 4 - 1, BOTH_SIZES]) + _number(n_packed) + _number(n_plain) + FILTER_FLAGS
    head = head.ljust(HEADER - 4, b"\0")
    return head + _crc(head)


def _number(value: int) -> bytes:
    """Seven bits per byte, the lowest first; the top bit says that more follow."""
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def _crc(data: bytes | memoryview) -> bytes:
    return struct.pack("<I", crc32(data))
