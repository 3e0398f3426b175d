"""lz4 data, read and made anew: the legacy format of kernel builds (lz4 -l), and frames (lz4).

    legacy   magic │ size, block of 8 MiB │ … │ size, block          the last block may be shorter
    frame    magic, flags, sizes, checksum │ size, block, checksum │ … │ 0 │ checksum of the content

A block is a list of sequences: literals, then a match, which repeats bytes from at most 64 KiB before. Another content
of the same length is packed by the old sequences: matches that do not hold in it become literals. So most of the data
stays, the old content gives the old bytes, and no encoder is needed. Every loop here takes a step of the input.
Source: LZ4's doc/lz4_Block_format.md, lz4_Frame_format.md (1.6.3), and the kernel's lib/decompress_unlz4.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ftpatch.container.wrappings import DecodeError
from ftpatch.container.xxh32 import xxh32

LEGACY, FRAME = b"\x02\x21\x4c\x18", b"\x04\x22\x4d\x18"
LEGACY_BLOCK = 8 << 20  # bytes of content
LEGACY_LARGEST = LEGACY_BLOCK + LEGACY_BLOCK // 255 + 16  # bytes that such a block can be packed to
RAW = 1 << 31  # in a block's size: its bytes are the content
# flags of a frame
VERSION, INDEPENDENT, BLOCK_SUMS, HAS_SIZE, HAS_SUM, HAS_DICTIONARY = 0xC0, 0x20, 0x10, 8, 4, 1
BLOCK_SIZES = {4: 64 << 10, 5: 256 << 10, 6: 1 << 20, 7: 4 << 20}
MIN_MATCH, LONG = 4, 15
LEAST_RUN = (
    8  # bytes of a part of a match: the last match has to begin 12 bytes before the end, and a match ends 5 before
)
ENDS_IN_A_SEQUENCE = "a block that ends within a sequence"


class Head(NamedTuple):
    """What stands before the blocks."""

    end: int  # where the blocks begin
    legacy: bool
    flags: int  # of a frame
    block: int  # bytes of content that a block has at most
    size: int  # of the content as a frame tells it; −1 where it does not


class Block(NamedTuple):
    pos: int  # of its bytes, which the size stands before
    size: int
    raw: bool  # its bytes are the content
    end: int  # with its checksum


def decode(packed: bytes, pos: int, plain: bytearray, max_size: int) -> int:
    """The data at `pos` unpacked into `plain`; where they end, −1 where they are cut. Raises DecodeError.

    No more than one block beyond max_size bytes is unpacked.
    """
    head = _head(packed, pos)
    if head is None:
        return -1
    start, end = len(plain), head.end
    for block in _blocks(packed, head):
        if block.end > len(packed):
            return -1
        content = packed[block.pos : block.pos + block.size]
        if head.flags & BLOCK_SUMS and xxh32(content) != _u32(packed, block.end - 4):
            raise DecodeError("a block with another checksum")
        if block.raw:
            plain += content
        else:
            first = len(plain) if head.legacy or head.flags & INDEPENDENT else start
            _unpack_block(content, plain, first, len(plain) + head.block)
        end = block.end
        # The last block of the legacy format is the first that is not full.
        if len(plain) > max_size or (head.legacy and (len(plain) - start) % LEGACY_BLOCK):
            return end
    return end if head.legacy else _frame_end(packed, head, end, plain, start)


def _frame_end(packed: bytes, head: Head, end: int, plain: bytearray, start: int) -> int:
    """Where a frame ends whose blocks end at `end`; −1 where it is cut."""
    if _u32(packed, end) != 0:
        return -1
    if head.size not in (-1, len(plain) - start):
        raise DecodeError("another size than the frame tells")
    end += 4
    if head.flags & HAS_SUM:
        end += 4
        if end > len(packed):
            return -1
        if _u32(packed, end - 4) != xxh32(memoryview(plain)[start:]):
            raise DecodeError("a content with another checksum")
    return end


def _head(packed: bytes, pos: int) -> Head | None:
    """The head at `pos`; None where it is cut."""
    if packed[pos : pos + 4] == LEGACY:
        return Head(pos + 4, True, 0, LEGACY_BLOCK, -1)
    flags, sizes = packed[pos + 4 : pos + 5], packed[pos + 5 : pos + 6]
    if not sizes:
        return None
    if flags[0] & VERSION != 0x40 or flags[0] & HAS_DICTIONARY or sizes[0] >> 4 not in BLOCK_SIZES:
        raise DecodeError("a frame of an unknown version, or with a dictionary")
    end = pos + 6 + (8 if flags[0] & HAS_SIZE else 0)
    if end >= len(packed):
        return None
    if packed[end] != xxh32(packed[pos + 4 : end]) >> 8 & 255:
        raise DecodeError("a frame header with another checksum")
    size = int.from_bytes(packed[pos + 6 : end], "little") if flags[0] & HAS_SIZE else -1
    return Head(end + 1, False, flags[0], BLOCK_SIZES[sizes[0] >> 4], size)


def _blocks(packed: bytes, head: Head) -> Iterator[Block]:
    """The blocks behind a head; the last may reach beyond the data."""
    pos = head.end
    # In the legacy format the data end, or something follows that is no block: another magic, or the content's size.
    while pos + 4 < len(packed):
        size = _u32(packed, pos)
        raw = not head.legacy and bool(size & RAW)
        size &= RAW - 1 if raw else RAW | RAW - 1
        if size == 0 or (head.legacy and size > LEGACY_LARGEST):
            return
        if size > head.block and not head.legacy:
            raise DecodeError("a block that is larger than the frame allows")
        end = pos + 4 + size + (4 if head.flags & BLOCK_SUMS else 0)
        yield Block(pos + 4, size, raw, end)
        pos = end


def _u32(packed: bytes, pos: int) -> int:
    """The number at `pos`; −1 where the data end before."""
    octets = packed[pos : pos + 4]
    return int.from_bytes(octets, "little") if len(octets) == 4 else -1


def _unpack_block(block: bytes, content: bytearray, first: int, limit: int) -> None:
    """A block unpacked behind the content. first: where matches may begin; limit: where the content ends at most."""
    pos, end = 0, len(block)
    try:
        while True:  # a step for each sequence: some hundred ns
            token = block[pos]
            pos += 1
            n = token >> 4
            if n:
                if n == LONG:
                    n, pos = _long(block, pos)
                content += block[pos : pos + n]
                pos += n
            if pos >= end:
                break
            distance, size = block[pos] | block[pos + 1] << 8, (token & LONG) + MIN_MATCH
            pos += 2
            if size == LONG + MIN_MATCH:
                n, pos = _long(block, pos)
                size += n - LONG
                if len(content) + size > limit:
                    raise DecodeError("a block that unpacks to too much")
            start = len(content) - distance
            if start < first:
                raise DecodeError("a match before the first byte")
            if size <= distance:
                content += content[start : start + size]
            else:
                content += (content[start:] * (size // distance + 1))[:size]
    except (IndexError, ZeroDivisionError):
        raise DecodeError(ENDS_IN_A_SEQUENCE) from None
    if pos > end:
        raise DecodeError(ENDS_IN_A_SEQUENCE)
    if len(content) > limit:
        raise DecodeError("a block that unpacks to too much")


def _long(block: bytes, pos: int) -> tuple[int, int]:
    """A length from 15 on, and where it ends: bytes are added, up to the first that is not 255."""
    n, octet = LONG, 255
    while octet == 255:
        octet = block[pos]
        n, pos = n + octet, pos + 1
    return n, pos


# -- made anew -------------------------------------------------------------------------------------------------


def repack(packed: bytes, content: bytes) -> bytes:
    """Sound lz4 data, around another content of the same length."""
    parts: list[bytes] = []
    pos = at = 0
    while pos < len(packed):
        head = _head(packed, pos)
        assert head is not None
        parts.append(packed[pos : head.end])
        pos, start = head.end, at
        for block in _blocks(packed, head):
            made, at = _block_again(packed[block.pos : block.pos + block.size], block, head, content, at)
            parts.append(made)
            pos = block.end
        if not head.legacy:
            parts.append(bytes(4))
            pos += 4
            if head.flags & HAS_SUM:
                parts.append(struct.pack("<I", xxh32(memoryview(content)[start:at])))
                pos += 4
    return b"".join(parts)


def _block_again(old: bytes, block: Block, head: Head, content: bytes, at: int) -> tuple[bytes, int]:
    """A block with its size and checksum around the content from `at` on, and where that ends."""
    if block.raw:
        made, end, raw = content[at : at + block.size], at + block.size, True
    else:
        made, end = _rewritten(old, content, at)
        raw = not head.legacy and len(made) > head.block
        made = content[at:end] if raw else made
    checksum = struct.pack("<I", xxh32(made)) if head.flags & BLOCK_SUMS else b""
    return struct.pack("<I", len(made) | (RAW if raw else 0)) + made + checksum, end


def _rewritten(block: bytes, content: bytes, at: int) -> tuple[bytes, int]:
    """A block's sequences for the content from `at` on, and where that ends."""
    made, pos, end = bytearray(), 0, len(block)
    start = at  # of literals that no sequence has yet
    while True:
        first, token = pos, block[pos]
        n, pos = token >> 4, pos + 1
        if n == LONG:
            n, pos = _long(block, pos)
        literals, pos, to = pos, pos + n, at + n
        if pos >= end:
            return bytes(made + _literals(content[start:to], 0)), to
        distance, size = block[pos] | block[pos + 1] << 8, (token & LONG) + MIN_MATCH
        back, pos = pos, pos + 2
        if size == LONG + MIN_MATCH:
            n, pos = _long(block, pos)
            size += n - LONG
        if content[to : to + size] == content[to - distance : to - distance + size]:
            if start == at and content[at:to] == block[literals:back]:
                made += block[first:pos]
            else:
                made += _literals(content[start:to], token & LONG) + block[back:pos]
            start = to + size
        else:
            for run, n in _runs(content, to, distance, size):
                made += _literals(content[start:run], min(n - MIN_MATCH, LONG)) + block[back : back + 2] + _more(n)
                start = run + n
        at = to + size


def _runs(content: bytes, at: int, distance: int, size: int) -> list[tuple[int, int]]:
    """Where parts of a match still hold, and how many bytes each has. A run of zeros may be a match of many KiB."""
    if size < 2 * LEAST_RUN:
        return []
    octets = np.frombuffer(content, np.uint8)
    wrong = np.flatnonzero(octets[at : at + size] != octets[at - distance : at - distance + size])
    edges = [-1, *wrong.tolist(), size]
    return [(at + a + 1, b - a - 1) for a, b in pairwise(edges) if b - a - 1 >= LEAST_RUN]


def _more(size: int) -> bytes:
    """What stands behind a match's distance: the rest of its length."""
    rest = size - MIN_MATCH - LONG
    return b"" if rest < 0 else b"\xff" * (rest // 255) + bytes([rest % 255])


def _literals(literals: bytes, match: int) -> bytes:
    """The beginning of a sequence. match: what its token says of the match."""
    n = len(literals)
    if n < LONG:
        return bytes([n << 4 | match]) + literals
    return bytes([LONG << 4 | match]) + b"\xff" * ((n - LONG) // 255) + bytes([(n - LONG) % 255]) + literals
