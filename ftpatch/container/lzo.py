"""lzo data, read and made anew, in the format of lzop: a header and blocks, packed by LZO1X each on its own.

Another content is packed by blocks, too: those that it does not change keep their bytes, the others are stored as they
are, as lzop does with what does not get smaller. Every loop here takes a step of the input.
Source: the kernel's Documentation/staging/lzo.rst and lib/decompress_unlzo.c; lzop 1.04 for the header.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from ftpatch.container.wrappings import DecodeError

MAGIC = b"\x89LZO\0\r\n\x1a\n"
ADLER, ADLER_PACKED, CRC, CRC_PACKED = 1, 2, 0x100, 0x200  # flags: which checksums each block has
HEADER_CRC, UNUSUAL = 0x1000, 0xC40  # flags: CRC32 of the header in place of Adler-32; extra fields, parts, filters
WITH_LEVEL = 0x940  # version from which on the header has a level and a wider time
METHODS = (1, 2, 3)  # of LZO1X
LARGEST = 64 << 20  # bytes of content that a block has at most
ENDS_IN_CODE = "a block that ends within an instruction"


class Block(NamedTuple):
    """A block, or the end of the data where it has no content."""

    start: int  # of its sizes
    pos: int  # of its bytes
    size: int
    content: int  # bytes of its content
    sums: tuple[int, ...]  # of the content: as `_sums` has them
    packed_sums: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.pos + self.size


def decode(packed: bytes, pos: int, plain: bytearray, max_size: int) -> int:
    """The data at `pos` unpacked into `plain`; where they end, −1 where they are cut. Raises DecodeError.

    No more than one block beyond max_size bytes is unpacked.
    """
    head = _head(packed, pos)
    if head is None:
        return -1
    start, flags = head
    for block in _blocks(packed, start, flags):
        if not block.content:
            return block.pos
        if block.end > len(packed):
            return -1
        content: bytes | bytearray = packed[block.pos : block.end]
        if block.packed_sums != _sums(content, flags & ADLER_PACKED, flags & CRC_PACKED)[: len(block.packed_sums)]:
            raise DecodeError("a block with another checksum")
        if block.size < block.content:
            content = unpacked(packed[block.pos : block.end], block.content)
        if block.sums != _sums(content, flags & ADLER, flags & CRC):
            raise DecodeError("a content with another checksum")
        plain += content
        if len(plain) > max_size:
            return block.end
    return -1


def repack(packed: bytes, old: bytes | bytearray, content: bytes) -> bytes:
    """Sound lzo data of `old`, around another content of the same length."""
    parts: list[bytes] = []
    pos = at = 0
    while pos < len(packed):
        head = _head(packed, pos)
        assert head is not None
        start, flags = head
        parts.append(packed[pos:start])
        for block in _blocks(packed, start, flags):
            new = content[at : at + block.content]
            if new == old[at : at + block.content]:
                parts.append(packed[block.start : block.end])
            else:
                sums = _sums(new, flags & ADLER, flags & CRC)
                parts.append(struct.pack(f">{2 + len(sums)}I", len(new), len(new), *sums) + new)
            at, pos = at + block.content, block.end
    return b"".join(parts)


def _sums(content: bytes | bytearray, adler: int, crc: int) -> tuple[int, ...]:
    return ((zlib.adler32(content),) if adler else ()) + ((zlib.crc32(content),) if crc else ())


def _head(packed: bytes, pos: int) -> tuple[int, int] | None:
    """Where the blocks of the data at `pos` begin, and their flags; None where the header is cut."""
    start = pos + len(MAGIC)
    version = int.from_bytes(packed[start : start + 2], "big")
    fields = struct.Struct(">HHHBBIIIIB" if version >= WITH_LEVEL else ">HHBIIIB")
    if start + fields.size > len(packed):
        return None
    values = fields.unpack_from(packed, start)
    method, flags = (values[3], values[5]) if version >= WITH_LEVEL else values[2:4]
    if method not in METHODS or flags & UNUSUAL:
        raise DecodeError(f"method {method} with flags {flags:#x}")
    end = start + fields.size + values[-1]  # the name's length is the last field
    if end + 4 > len(packed):
        return None
    header = packed[start:end]
    if int.from_bytes(packed[end : end + 4], "big") != (zlib.crc32 if flags & HEADER_CRC else zlib.adler32)(header):
        raise DecodeError("a header with another checksum")
    return end + 4, flags


def _blocks(packed: bytes, pos: int, flags: int) -> Iterator[Block]:
    """The blocks from `pos` on, and their end as one without content; nothing more where the data are cut."""
    n_sums, n_packed_sums = (bool(flags & a) + bool(flags & c) for a, c in ((ADLER, CRC), (ADLER_PACKED, CRC_PACKED)))
    while pos + 4 <= len(packed):
        content = int.from_bytes(packed[pos : pos + 4], "big")
        if content == 0:
            yield Block(pos, pos + 4, 0, 0, (), ())
            return
        size = int.from_bytes(packed[pos + 4 : pos + 8], "big")
        if content > LARGEST or size > content:
            raise DecodeError(f"a block of {size} bytes for {content}")
        n_more = n_packed_sums if size < content else 0
        start, pos = pos, pos + 8 + 4 * (n_sums + n_more)
        if pos > len(packed):
            return
        sums = struct.unpack_from(f">{n_sums + n_more}I", packed, start + 8)
        yield Block(start, pos, size, content, sums[:n_sums], sums[n_sums:])
        pos += size


def unpacked(block: bytes, n_content: int) -> bytearray:
    """The content of a block, which has so many bytes."""
    content = bytearray()
    try:
        end = _execute(block, content, n_content)
    except (IndexError, ZeroDivisionError):
        raise DecodeError(ENDS_IN_CODE) from None
    if end != len(block) or len(content) != n_content:
        raise DecodeError("a block with another content than it tells")
    return content


def _execute(block: bytes, content: bytearray, limit: int) -> int:
    """A block's instructions executed, up to the one that ends it; the position behind that.

    An instruction is a match, and up to three literals behind it; or literals alone.
    """
    pos = state = 0  # state: how many literals the last instruction had; 4 where it had nothing else
    if block[0] > 17:
        n = block[0] - 17
        content += block[1 : 1 + n]
        pos, state = 1 + n, min(n, 4)
    while True:  # a step for each instruction: some hundred ns
        code = block[pos]
        pos += 1
        if code >= 64:
            size, distance, n = (code >> 5) + 1, (code >> 2 & 7) + (block[pos] << 3) + 1, code & 3
            pos += 1
        elif code >= 16:
            mask = 31 if code >= 32 else 7
            size = code & mask
            if not size:
                size, pos = _long(block, pos, mask)
            size, word = size + 2, block[pos] | block[pos + 1] << 8
            distance, n, pos = (word >> 2) + 1, word & 3, pos + 2
            if code < 32:
                distance += ((code & 8) << 11) + 0x3FFF
                if distance == 0x4000:
                    return pos
        elif state:
            size, distance = (2, 1) if state < 4 else (3, 2049)
            distance, n, pos = distance + (code >> 2) + (block[pos] << 2), code & 3, pos + 1
        else:
            n, pos = (code, pos) if code else _long(block, pos, 15)
            content += block[pos : pos + n + 3]
            pos, state = pos + n + 3, 4
            continue
        start = len(content) - distance
        if start < 0 or start + distance + size > limit:
            raise DecodeError("a match outside the block")
        if size <= distance:
            content += content[start : start + size]
        else:
            content += (content[start:] * (size // distance + 1))[:size]
        if n:
            content += block[pos : pos + n]
            pos += n
        state = n


def _long(block: bytes, pos: int, n: int) -> tuple[int, int]:
    """A length from n on, and where it ends: 255 for each zero, and the byte behind them."""
    while not block[pos]:
        n, pos = n + 255, pos + 1
    return n + block[pos], pos + 1
