"""An ELF file compressed as kernel builds do it, so that a patched module is packed like the one it replaces."""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Callable
from functools import partial

from ftpatch.container import xz
from ftpatch.container.wrappings import WRAPPINGS, zstandard_package
from ftpatch.errors import UnsupportedError

Buffer = bytes | bytearray | memoryview


def encoders(wrapping: str) -> tuple[str, ...]:
    """The names of all ways to compress; the first is what kernel builds use today."""
    return tuple(ENCODERS[wrapping])


def wrap(wrapping: str, data: Buffer, encoder: str = "") -> bytes:
    """The content compressed, as by the first of the encoders unless one is named.

    The same bytes on every machine with the same version of liblzma, zlib or libzstd.
    """
    compress = ENCODERS[wrapping].get(encoder or encoders(wrapping)[0])
    if compress is None:
        raise UnsupportedError(
            f"{WRAPPINGS[wrapping].name if wrapping != 'none' else 'uncompressed data'}: no such encoder",
            found=encoder, expected=", ".join(encoders(wrapping)),
        )  # fmt: skip
    return compress(memoryview(data))


def encoder_of(wrapping: str, content: Buffer, packed: memoryview) -> str | None:
    """The encoder that makes `packed` of the content, found by trying; None if none does."""
    for encoder in encoders(wrapping):
        # Byte 13 has the flags of the first block. One without sizes is not of an xz with threads: not worth the time.
        if encoder == "xz-mt" and not packed[13] & 0x80:
            continue
        if wrap(wrapping, content, encoder) == packed:
            return encoder
    return None


def _xz_st(data: memoryview) -> bytes:
    return lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=xz.FILTERS)


def _gzip(data: memoryview) -> bytes:
    """As zlib's own programs with gzip -n: neither name nor time. The tool gzip has an encoder of its own."""
    encoder = zlib.compressobj(6, zlib.DEFLATED, -15, 8)  # level 6 and memory 8, zlib's defaults; −15: a bare stream
    body = encoder.compress(data) + encoder.flush()
    head = b"\x1f\x8b\x08\0" + bytes(4) + b"\0\x03"  # deflate, no flags, no time, no hint, Unix
    return head + body + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def _zstd(level: int, data: memoryview) -> bytes:
    """As the tool does: with checksum and size, and with a worker; it cuts the same jobs for any number of those."""
    compressor = zstandard_package("").ZstdCompressor
    return bytes(compressor(level=level, threads=1, write_checksum=True, write_content_size=True).compress(data))


# By wrapping, then by name. What kernel builds use: scripts/Makefile.modinst (Linux 6.12) calls
# xz --check=crc32 --lzma2=dict=1MiB, gzip -n and zstd.
ENCODERS: dict[str, dict[str, Callable[[memoryview], bytes]]] = {
    "none": {"none": bytes},
    "xz": {"xz-mt": xz.compress, "xz-st": _xz_st},  # xz with threads, the default since 5.6, and with a single one
    "gz": {"zlib": _gzip},
    "zst": {"zstd": partial(_zstd, 3), "zstd-19": partial(_zstd, 19)},
}
