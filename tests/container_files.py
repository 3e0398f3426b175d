"""What boot loaders put around a kernel, made here: each function gives the bytes of a file around others.

Fields are where the formats' own documents have them; nothing is taken from what reads them.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import struct
import zlib

import numpy as np
import zstandard


def flat(size: int = 12_288, seed: int = 1) -> bytes:
    """A flat kernel: the header of an arm64 Image, then text that compresses to about a half."""
    noise = np.random.default_rng(seed).integers(0, 16, size - 64, np.uint8).tobytes()
    return struct.pack("<IIQQQ24x4sI", 0x91005A4D, 0x14000010, 0, size, 10, b"ARM\x64", 0) + noise


def device_tree(size: int = 72) -> bytes:
    """An empty tree; the header of version 17, and the padding that boot loaders leave for their own entries."""
    head = struct.pack(">4s9I", b"\xd0\x0d\xfe\xed", size, 56, 72, 40, 17, 16, 0, 0, 16)
    return (head + bytes(16) + struct.pack(">IIII", 1, 0, 2, 9)).ljust(size, b"\0")


def with_size(packed: bytes, content: bytes) -> bytes:
    """As kernel builds append it."""
    return packed + struct.pack("<I", len(content))


def with_dictionary(xz: bytes, bits: int) -> bytes:
    """The same .xz file with another size of the dictionary in its block header: 30 for 128 MiB."""
    raw, end = bytearray(xz), 12 + (xz[12] + 1) * 4
    raw[raw.index(b"\x21\x01", 12, end) + 2] = bits
    raw[end - 4 : end] = struct.pack("<I", zlib.crc32(raw[12 : end - 4]))
    return bytes(raw)


def no_name(data: bytes, name: str = "Image") -> bytes:
    """A gzip member with the file's name and time in it."""
    packed = gzip.compress(data, mtime=0)
    return packed[:3] + b"\x08" + struct.pack("<I", 1700000000) + packed[8:10] + name.encode() + b"\0" + packed[10:]


def lz4_block(data: bytes) -> bytes:
    """Literals and matches at a distance of 16 or of 1, wherever those hold for 8 bytes: enough to be read."""
    made, start, pos = bytearray(), 0, 16
    while pos < len(data) - 20:
        for distance in (1, 16):
            n = 0
            while pos + n < len(data) - 12 and data[pos + n] == data[pos + n - distance]:
                n += 1
            if n >= 8:
                made += lz4_sequence(data[start:pos], n, distance)
                pos += n
                start = pos
                break
        else:
            pos += 1
    return bytes(made + lz4_sequence(data[start:], 4, 0)[:-2])


def lz4_sequence(literals: bytes, match: int, distance: int) -> bytes:
    """Literals and a match."""

    def more(n: int) -> bytes:
        return b"" if n < 15 else b"\xff" * ((n - 15) // 255) + bytes([(n - 15) % 255])

    token = min(len(literals), 15) << 4 | min(match - 4, 15)
    return bytes([token]) + more(len(literals)) + literals + struct.pack("<H", distance) + more(match - 4)


def lz4_legacy(data: bytes) -> bytes:
    blocks = [lz4_block(data[start : start + (8 << 20)]) for start in range(0, len(data), 8 << 20)]
    return b"\x02\x21\x4c\x18" + b"".join(struct.pack("<I", len(block)) + block for block in blocks)


def xxh32(data: bytes) -> int:
    """XXH32 with seed 0, as its document has it."""
    p1, p2, p3, p4, p5, mask = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1, 0xFFFFFFFF

    def left(value: int, n: int) -> int:
        return ((value << n) | (value >> (32 - n))) & mask

    total, pos = p5, 0
    if len(data) >= 16:
        lanes = [(p1 + p2) & mask, p2, 0, -p1 & mask]
        while pos + 16 <= len(data):
            for lane in range(4):
                word = int.from_bytes(data[pos + 4 * lane : pos + 4 * lane + 4], "little")
                lanes[lane] = left((lanes[lane] + word * p2) & mask, 13) * p1 & mask
            pos += 16
        total = sum(left(lane, n) for lane, n in zip(lanes, (1, 7, 12, 18), strict=True)) & mask
    total = (total + len(data)) & mask
    while pos + 4 <= len(data):
        total = left((total + int.from_bytes(data[pos : pos + 4], "little") * p3) & mask, 17) * p4 & mask
        pos += 4
    for octet in data[pos:]:
        total = left((total + octet * p5) & mask, 11) * p1 & mask
    for shift, factor in ((15, p2), (13, p3)):
        total = (total ^ total >> shift) * factor & mask
    return total ^ total >> 16


def lz4_frame(data: bytes, flags: int = 0x64, block: int = 64 << 10, size: bool = False) -> bytes:
    """A frame: version 1; flags 0x20 independent blocks, 0x10 their checksums, 4 the content's checksum."""
    flags |= 8 if size else 0
    descriptor = bytes([flags, 4 << 4]) + (struct.pack("<Q", len(data)) if size else b"")
    made = b"\x04\x22\x4d\x18" + descriptor + bytes([xxh32(descriptor) >> 8 & 255])
    for number, start in enumerate(range(0, len(data), block)):
        content = data[start : start + block]
        packed, raw = (content, 1 << 31) if number == 1 else (lz4_block(content), 0)  # the second is stored
        made += struct.pack("<I", len(packed) | raw) + packed
        made += struct.pack("<I", xxh32(packed)) if flags & 0x10 else b""
    return made + bytes(4) + (struct.pack("<I", xxh32(data)) if flags & 4 else b"")


def lzo_block(data: bytes) -> bytes:
    """LZO1X: literals, and matches of three bytes and more at up to 16 KiB."""
    made, start, pos = bytearray(), 0, 4
    last: dict[bytes, int] = {}
    while pos < len(data):
        key = data[pos : pos + 3]
        before = last.get(key, -1)
        last[key] = pos
        if len(key) < 3 or before < 0 or pos - before > 1 << 14:
            pos += 1
            continue
        n = 3
        while pos + n < len(data) and data[pos + n] == data[before + n]:
            n += 1
        if n == 3:  # its code is as long
            pos += 1
            continue
        _lzo_literals(made, data[start:pos])
        rest = n - 33  # of what the code has no room for
        code = bytes([32 | n - 2]) if rest <= 0 else b"\x20" + bytes((rest - 1) // 255) + bytes([(rest - 1) % 255 + 1])
        made += code + struct.pack("<H", pos - before - 1 << 2)
        pos = start = pos + n
    _lzo_literals(made, data[start:])
    return bytes(made) + b"\x11\0\0"


def _lzo_literals(made: bytearray, literals: bytes) -> None:
    """Up to three are counted by the match before them."""
    n = len(literals)
    if n > 3:
        made += bytes([n - 3]) if n <= 18 else b"\0" + bytes((n - 19) // 255) + bytes([(n - 19) % 255 + 1])
    elif made:
        made[-2] |= n
    made += literals


def lzop(data: bytes, blocks: list[tuple[bytes, bytes]], flags: int = 1) -> bytes:
    """A file of lzop with these blocks, (content, packed)."""
    head = struct.pack(">HHHBBIIIIB", 0x1040, 0x20A0, 0x0940, 3, 9, flags, 0o100644, 0, 0, 5) + b"Image"
    check = zlib.crc32(head) if flags & 0x1000 else zlib.adler32(head)
    made = b"\x89LZO\0\r\n\x1a\n" + head + struct.pack(">I", check)
    for content, packed in blocks:
        stored = len(packed) >= len(content)
        packed = content if stored else packed
        made += struct.pack(">II", len(content), len(packed))
        for bit, octets in ((1, content), (2, packed)):
            if flags & bit and not (bit == 2 and stored):
                made += struct.pack(">I", zlib.adler32(octets))
            if flags & bit << 8 and not (bit == 2 and stored):
                made += struct.pack(">I", zlib.crc32(octets))
        made += packed
    return made + bytes(4)


def padded(data: bytes, page: int) -> bytes:
    return data + bytes(-len(data) % page)


RAMDISK, DTBO, DTB, SIGNATURE = b"ramdisk " * 400, b"overlay " * 50, b"tree " * 99, b"signature".ljust(4096, b"\1")


def boot_image(version: int, kernel: bytes, page: int = 2048) -> bytes:
    """Android's boot.img as mkbootimg makes it."""
    if version >= 3:
        head = b"ANDROID!" + struct.pack("<IIII16xI", len(kernel), len(RAMDISK), 0, 1580, version) + bytes(1536)
        more = [SIGNATURE] if version == 4 else []
        head += struct.pack("<I", len(SIGNATURE)) if version == 4 else b""
        return b"".join(padded(part, 4096) for part in (head, kernel, RAMDISK, *more))
    parts = [kernel, RAMDISK, b"", *[DTBO, DTB][:version]]
    digest = hashlib.sha1()
    for part in parts:
        digest.update(part + struct.pack("<I", len(part)))
    head = b"ANDROID!" + struct.pack("<10I", len(kernel), 0, len(RAMDISK), 0, 0, 0, 0, page, version, 0)
    head += bytes(16 + 512) + digest.digest() + bytes(12 + 1024)
    if version >= 1:
        head += struct.pack("<IQI", len(DTBO), page + sum(len(padded(part, page)) for part in parts[:3]), 1648)
    if version == 2:
        head += struct.pack("<IQ", len(DTB), 0)
    return b"".join(padded(part, page) for part in (head, *parts))


def avb(image: bytes, size: int, vbmeta: bytes = b"AVB0".ljust(320, b"\2")) -> bytes:
    """An image in a partition with vbmeta behind it and a footer at its end, as avbtool add_hash_footer does."""
    at = len(padded(image, 4096))
    footer = b"AVBf" + struct.pack(">IIQQQ", 1, 0, len(image), at, len(vbmeta))
    return (padded(image, 4096) + vbmeta).ljust(size - 64, b"\0") + footer.ljust(64, b"\0")


def pe_header(at: int, sections: bytes = b"") -> bytes:
    """The PE header of a PE32+ file of one section, to lie at `at`."""
    optional = struct.pack("<HBBIIIIIQIIHHHHHHIIIIHHQQQQII", 0x20B, 0, 0, 512, 512, 0, 512, 512, 0, 4096, 512, 0, 0, 3,
                           0, 0, 0, 0, 1 << 20, 512, 0, 10, 256, 0, 0, 0, 0, 0, 6)  # fmt: skip
    optional += bytes(8 * 6)
    return b"PE\0\0" + struct.pack("<HHIIIHH", 0xAA64, 1, 0, 0, 0, len(optional), 0x206) + optional


def pe_kernel(size: int = 12_288) -> bytes:
    """A flat kernel that is a PE file, too: the PE header lies behind its own header."""
    kernel = bytearray(flat(size))
    kernel[60:64] = struct.pack("<I", 64)
    header = pe_header(64)
    kernel[64 : 64 + len(header)] = header
    return bytes(kernel)


def signed(pe: bytes, certificates: bytes = b"certificates".ljust(1472, b"\3")) -> bytes:
    """A PE file as sbsign leaves it: a checksum, the place of the certificates, and those at the end."""
    made = bytearray(padded(pe, 8))
    at = struct.unpack_from("<I", made, 60)[0] + 24
    struct.pack_into("<I", made, at + 64, 0x12345678)
    struct.pack_into("<II", made, at + 112 + 32, len(made), len(certificates))
    return bytes(made) + certificates


PACKERS = {
    "gzip": lambda data: gzip.compress(data, 9, mtime=0),
    "zstd22": lambda data: zstandard.ZstdCompressor(level=3).compress(data),
    "xzkern": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32, preset=0),
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE, preset=0),
    "lz4": lz4_legacy,
}


def zboot(kernel: bytes, compression: str, packed: bytes | None = None) -> bytes:
    """As the linker makes vmlinuz.efi: header, code, payload, data of the code."""
    packed = PACKERS[compression](kernel) if packed is None else packed
    payload = packed if compression == "gzip" else with_size(packed, kernel)
    head = b"MZ\0\0zimg" + struct.pack("<II8x", 4096 + 800, len(packed)) + compression.encode().ljust(32, b"\0")
    head = head.ljust(60, b"\0") + struct.pack("<I", 64) + pe_header(64)
    return padded(head.ljust(4096, b"\0") + b"code" * 200 + payload + b"strings of the code\0" * 7, 4096)


def bzimage(payload: bytes, version: int = 0x20F, sects: int = 3) -> bytes:
    """Boot sectors with the header of the boot protocol, and boot code around the payload."""
    head = bytearray((sects + 1) * 512 if sects else 5 * 512)
    head[:2] = b"MZ"
    struct.pack_into("<B", head, 0x1F1, sects)
    head[0x1FE:0x202] = b"\x55\xaa\xeb\x66"
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, version)
    struct.pack_into("<II", head, 0x248, 700, len(payload))
    return bytes(head) + b"boot".ljust(700, b"\x90") + payload + b"more boot code" * 9


def uimage(kernel: bytes, kind: int = 2) -> bytes:
    """As mkimage makes it."""
    fields = [0x27051956, 0, 1700000000, len(kernel), 0x80000, 0x80000, zlib.crc32(kernel), 5, 22, kind, 0]
    head = struct.pack(">7I4B32s", *fields, b"Linux")
    fields[1] = zlib.crc32(head)
    return struct.pack(">7I4B32s", *fields, b"Linux") + kernel
