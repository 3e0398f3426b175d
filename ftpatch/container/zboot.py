"""EFI zboot: a PE file of code that unpacks the kernel in its middle and starts that.

    header, code │ payload │ u32 │ code's data          u32: the kernel's size, the last 4 bytes of gzip data

The code has the payload's place and the place of the u32 built in, as the linker put them there. So a new payload may
have fewer bytes, never more; the difference is filled with what the payload's decoder passes over. Kernels from 6.16 on
read gzip data behind a header of 10 bytes, whatever that says, and all zstd data up to the u32.
Source: drivers/firmware/efi/libstub/Makefile.zboot, zboot-header.S, zboot.lds and zboot-decompress-*.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from ftpatch.container.fields import le32, put32, require, require_inside
from ftpatch.container.file_bytes import FileBytes
from ftpatch.container.layers import NAMES, Layer, Opened, Source, checked
from ftpatch.container.remake import candidates, gzip_header
from ftpatch.container.unpack import unpack
from ftpatch.container.wrappings import HEAD, STREAMS, stream_of
from ftpatch.errors import PolicyError

KIND = "zboot"
MAGIC, MAGIC_AT = b"zimg", 4
OFFSET, SIZE, NAME, HEADER = 8, 12, 24, 56
# what builds call the compression, and what it then is
COMPRESSIONS = {b"gzip": "gz", b"lz4": "lz4", b"lzma": "lzma", b"lzo": "lzo", b"xzkern": "xz", b"xz": "xz",
                b"zstd22": "zst", b"zstd": "zst"}  # fmt: skip
# Deflate blocks without content that end at a byte: up to three of fixed codes (10 bits each), then one that is stored.
STORED, *_FIXED = (b"\0\0\0\xff\xff", b"\2\0\0\0\xff\xff", b"\2\x08\0\0\0\xff\xff", b"\2\x08\x20\0\0\0\0\xff\xff")
FILLINGS = (STORED, *_FIXED, _FIXED[0] + _FIXED[1])  # of all remainders of five bytes
SKIPPED = b"\x50\x2a\x4d\x18"  # a zstd frame to be passed over; its size follows


class Payload(NamedTuple):
    """The compressed kernel."""

    pos: int
    size: int
    stream: str
    end: int  # of what its place has room for; behind gzip data, else in front of the u32


def open_zboot(source: Source) -> Opened | None:
    """The layer, and what its payload unpacks to; None where the data are no zboot file."""
    head = source.data.peek(0, HEADER)
    if head[:2] != b"MZ" or head[MAGIC_AT : MAGIC_AT + 4] != MAGIC:
        return None
    require_inside("a header", 0, HEADER, KIND, source)
    pos, size = le32(head, OFFSET), le32(head, SIZE)
    require_inside("a payload", pos, size, KIND, source)
    require(pos >= HEADER, KIND, source, found=f"a payload at {pos:#x}", expected=f"one behind {HEADER:#x}")
    stream, name = stream_of(source.data.peek(pos, pos + HEAD)), head[NAME:].split(b"\0")[0]
    expected = COMPRESSIONS.get(name, stream)
    require(stream == expected and stream != "none", KIND, source, found=f"a payload of {_name(stream)}",
            expected=_name(expected) if expected != "none" else "compressed data")  # fmt: skip
    packed = source.data[pos : pos + size].tobytes()
    content, end = unpack(stream, packed, source.path, source.max_size)
    require(end == size, KIND, source, found=f"{size - end} bytes behind the {_name(stream)}", expected="nothing")
    payload = Payload(pos, size, stream, _end(source, pos + size, stream, len(content)))
    repack = partial(_remade, source, payload, content)
    layer = Layer(KIND, source.data, repack, frame=partial(_frame, source, payload))
    return (checked(layer, source, _content),), FileBytes.of(content)


def _name(stream: str) -> str:
    return STREAMS[stream].name if stream in STREAMS else "what is not compressed"


def _content(source: Source) -> FileBytes | None:
    opened = open_zboot(source)
    return None if opened is None else opened[1]


def _end(source: Source, end: int, stream: str, size: int) -> int:
    """Where a payload's place ends: at the size of its content, with zeros before it where it was packed again."""
    expected = size.to_bytes(4, "little")
    if stream == "gz":
        return end
    behind = source.data.part(end, len(source.data) - end)
    start = 0
    for piece in behind.pieces(size=1 << 12):
        octets = piece.tobytes()
        n_zeros = len(octets) - len(octets.lstrip(b"\0"))
        start += n_zeros
        if n_zeros < len(octets):
            break
    pos = start - (len(expected) - len(expected.lstrip(b"\0")))  # the number's own zeros were counted, too
    found = behind.peek(0, 4).hex(" ") or "nothing"
    require(pos >= 0 and behind.peek(pos, pos + 4) == expected, KIND, source, found=f"{found} behind the payload",
            expected=f"{expected.hex(' ')}, the kernel's size")  # fmt: skip
    return end + pos


def _frame(source: Source, payload: Payload) -> bytes:
    """What is around the payload, without its size."""
    data = source.data
    return b"".join(data[slice(*ends)].tobytes() for ends in ((0, SIZE), (SIZE + 4, payload.pos), (payload.end, None)))


def _remade(source: Source, payload: Payload, old: bytearray, content: bytes) -> bytes:
    """The file around another kernel."""
    raw = bytearray(source.data.tobytes())
    room = payload.end - payload.pos
    packed = bytes(raw[payload.pos : payload.pos + payload.size])
    if content == old:
        return bytes(raw)
    least = 0
    for made in candidates(payload.stream, packed, old, content):
        new = next(filled(payload.stream, made, room), None)
        if new is not None:
            raw[payload.pos : payload.end] = new.ljust(room, b"\0")
            put32(raw, SIZE, len(new))
            if payload.stream != "gz":
                put32(raw, payload.end, len(content))
            return bytes(raw)
        least = min(least or len(made), len(made))
    raise PolicyError(f"{NAMES[KIND]} has no room for the patched kernel", source.path, found=f"{least} bytes of "
                      f"{_name(payload.stream)}", expected=f"{room}, behind which its code looks for the kernel's size",
                      todo="boot the kernel inside alone, or have the build make vmlinuz.efi anew")  # fmt: skip


def filled(stream: str, made: bytes, room: int) -> Iterator[bytes]:
    """The data with what their decoder passes over, up to so many bytes where it can be told from the data's end."""
    n = room - len(made)
    if n < 0:
        return
    if stream == "gz":
        head = len(gzip_header(made))
        for filling in FILLINGS if n else (b"",):
            rest = n - len(filling)
            if rest >= 0 and rest % len(STORED) == 0:
                yield made[:head] + filling + STORED * (rest // len(STORED)) + made[head:]
    elif stream == "zst":
        if n == 0 or n >= 8:
            yield made + (SKIPPED + struct.pack("<I", n - 8) + bytes(n - 8) if n else b"")
    else:
        yield made
