"""Numbers in the headers of layers, and what is said where they contradict the file."""

from __future__ import annotations

from ftpatch.container.layers import NAMES, Source
from ftpatch.errors import EnvelopeError


def le32(data: bytes, pos: int) -> int:
    """The little-endian number at `pos`, which is there."""
    assert pos + 4 <= len(data)
    return int.from_bytes(data[pos : pos + 4], "little")


def put32(data: bytearray, pos: int, value: int) -> None:
    data[pos : pos + 4] = value.to_bytes(4, "little")


def require(true: bool, kind: str, source: Source, *, found: str, expected: str) -> None:
    """Raise EnvelopeError unless something is true of the header of a layer of this kind."""
    if not true:
        raise EnvelopeError(f"{NAMES[kind]} whose header contradicts the file", source.path, found=found,
                            expected=expected, todo="the file is corrupt or cut")  # fmt: skip


def require_inside(what: str, pos: int, size: int, kind: str, source: Source) -> None:
    """Raise EnvelopeError unless `size` bytes from `pos` on lie in the file."""
    require(pos + size <= len(source.data), kind, source, found=f"{what} at {pos:#x} with {size:#x} bytes",
            expected=f"an end within {len(source.data):#x} bytes")  # fmt: skip
