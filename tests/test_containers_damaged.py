"""Layers around a kernel that contradict themselves or the file: the whole line that each gets."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from pathlib import Path

import container_files as make
import pytest

from ftpatch.container.envelope import open_file
from ftpatch.errors import EnvelopeError, FtpatchError, InputError

SMALL = 8 << 20


def put(raw: bytes, pos: int, fmt: str, value: int | bytes) -> bytes:
    """A copy with one field changed."""
    copy = bytearray(raw)
    struct.pack_into(fmt, copy, pos, value)
    return bytes(copy)


def blk(block: bytes) -> bytes:
    """lz4 data of this block."""
    return b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block


def corrupt(kind: str, found: str) -> str:
    return f"{kind} data cannot be unpacked: found {found} – the file is corrupt, or only its own program reads it"


def contradicts(kind: str, found: str) -> str:
    return f"{kind} whose header contradicts the file: found {found} – the file is corrupt or cut"


K = make.flat()
LZ, FR = make.lz4_legacy(K), make.lz4_frame(K, 0x74, 4096, True)
BL = [(part, make.lzo_block(part)) for part in (K[:7000], K[7000:])]
LO = make.lzop(K, BL, 3)
B, B3 = make.boot_image(2, K), make.boot_image(3, K)
Z, ZX, U, S, G = (
    make.zboot(K, "gzip"),
    make.zboot(K, "xzkern"),
    make.uimage(K),
    make.signed(make.pe_kernel()),
    gzip.compress(K),
)
ELF = b"\x7fELF" + K
BZ = make.bzimage(gzip.compress(ELF))
CASES: list[tuple[str, bytes, type[FtpatchError], str]] = [
    (
        "lz4-cut-in-a-block",
        LZ[:-1],
        EnvelopeError,
        "lz4 data ends too early: found 12321 bytes – the file is truncated",
    ),
    (
        "lz4-cut-behind-a-size",
        LZ[:8],
        EnvelopeError,
        "there is something behind the lz4 data: found 4 bytes, expected the end, or another stream",
    ),
    (
        "lz4-match-before-the-start",
        blk(b"\x10A\x05\x00\x10B"),
        EnvelopeError,
        corrupt("lz4", "a match before the first byte"),
    ),
    (
        "lz4-match-at-no-distance",
        blk(b"\x10A\x00\x00\x10B"),
        EnvelopeError,
        corrupt("lz4", "a block that ends within a sequence"),
    ),
    (
        "lz4-ends-in-a-sequence",
        blk(b"\x1fA\x01\x00"),
        EnvelopeError,
        corrupt("lz4", "a block that ends within a sequence"),
    ),
    ("lz4-literals-beyond", blk(b"\x50AB"), EnvelopeError, corrupt("lz4", "a block that ends within a sequence")),
    (
        "lz4-bomb",
        blk(b"\x1fA\x01\x00" + b"\xff" * 40000 + b"\0\x10B"),
        EnvelopeError,
        corrupt("lz4", "a block that unpacks to too much"),
    ),
    (
        "lz4-of-nothing",
        b"\x02\x21\x4c\x18",
        InputError,
        "not an ELF file: found nothing inside lz4 data, expected 7f 45 4c 46 – give the uncompressed ELF vmlinux of "
        "the same build (Debian: the -dbg package)",
    ),
    (
        "lz4-frame-header",
        put(FR, 6, "<B", FR[6] ^ 1),
        EnvelopeError,
        corrupt("lz4", "a frame header with another checksum"),
    ),
    (
        "lz4-frame-version",
        put(FR, 4, "<B", 0x34),
        EnvelopeError,
        corrupt("lz4", "a frame of an unknown version, or with a dictionary"),
    ),
    (
        "lz4-frame-dictionary",
        put(FR, 4, "<B", 0x65),
        EnvelopeError,
        corrupt("lz4", "a frame of an unknown version, or with a dictionary"),
    ),
    (
        "lz4-frame-block",
        put(FR, 15, "<I", 70000),
        EnvelopeError,
        corrupt("lz4", "a block that is larger than the frame allows"),
    ),
    (
        "lz4-frame-block-sum",
        put(FR, 30, "<B", FR[30] ^ 1),
        EnvelopeError,
        corrupt("lz4", "a block with another checksum"),
    ),
    ("lz4-frame-sum", FR[:-1] + bytes([FR[-1] ^ 1]), EnvelopeError, corrupt("lz4", "a content with another checksum")),
    ("lz4-frame-cut", FR[:-4], EnvelopeError, "lz4 data ends too early: found 12343 bytes – the file is truncated"),
    ("lzo-header", put(LO, 20, "<B", LO[20] ^ 1), EnvelopeError, corrupt("lzo", "a header with another checksum")),
    ("lzo-cut", LO[:-4], EnvelopeError, "lzo data ends too early: found 12355 bytes – the file is truncated"),
    (
        "lzo-cut-in-a-block",
        LO[:-40],
        EnvelopeError,
        "lzo data ends too early: found 12319 bytes – the file is truncated",
    ),
    (
        "lzo-block-larger",
        put(LO, 9 + 25 + 5 + 4 + 4, ">I", 9000),
        EnvelopeError,
        corrupt("lzo", "a block of 9000 bytes for 7000"),
    ),
    (
        "lzo-content-sum",
        put(LO, 9 + 25 + 5 + 4 + 8, ">I", 9),
        EnvelopeError,
        corrupt("lzo", "a content with another checksum"),
    ),
    (
        "lzo-packed-sum",
        put(LO, 9 + 25 + 5 + 4 + 12, ">I", 9),
        EnvelopeError,
        corrupt("lzo", "a content with another checksum"),
    ),
    (
        "lzo-match-before",
        make.lzop(b"", [(b"A" * 10, b"\x12A\x20\x09\x11\0\0\0")], 0)[:-4],
        EnvelopeError,
        corrupt("lzo", "a match outside the block"),
    ),
    (
        "lzo-no-end",
        make.lzop(b"", [(b"A" * 100, b"\x12A")], 0),
        EnvelopeError,
        corrupt("lzo", "a block that ends within an instruction"),
    ),
    (
        "lzo-less",
        make.lzop(b"", [(b"A" * 100, b"\x12A\x11\0\0")], 0),
        EnvelopeError,
        corrupt("lzo", "a block with another content than it tells"),
    ),
    ("lzo-multipart", make.lzop(K, BL, 0x400), EnvelopeError, corrupt("lzo", "method 3 with flags 0x400")),
    (
        "boot-cut-header",
        B[:1000],
        EnvelopeError,
        contradicts("an Android boot image", "a header at 0x0 with 0x67c bytes, expected an end within 0x3e8 bytes"),
    ),
    (
        "boot-cut-kernel",
        B[:9000],
        EnvelopeError,
        contradicts("an Android boot image", "a part at 0x800 with 0x3000 bytes, expected an end within 0x2328 bytes"),
    ),
    (
        "boot-cut-ramdisk",
        B[:16000],
        EnvelopeError,
        contradicts("an Android boot image", "a part at 0x3800 with 0xc80 bytes, expected an end within 0x3e80 bytes"),
    ),
    (
        "boot-page",
        put(B, 36, "<I", 3000),
        EnvelopeError,
        contradicts("an Android boot image", "page_size 3000, expected a power of two, 2048 in most"),
    ),
    (
        "boot-no-kernel",
        put(B3, 8, "<I", 0),
        InputError,
        "an Android boot image without a kernel: found kernel_size 0, expected boot.img – init_boot.img has a "
        "ramdisk alone: give the boot.img of the same build",
    ),
    (
        "boot-kernel-size",
        put(B3, 8, "<I", 2**32 - 1),
        EnvelopeError,
        contradicts(
            "an Android boot image", "a part at 0x1000 with 0xffffffff bytes, expected an end within 0x5000 bytes"
        ),
    ),
    (
        "boot-tar",
        make.boot_image(4, bytes(257) + b"ustar"),
        InputError,
        "not an ELF file: found a tar archive inside an Android boot image – unpack it (tar -xf) and give the "
        "vmlinux or module inside",
    ),
    (
        "vendor",
        b"VNDRBOOT" + bytes(3000),
        InputError,
        "a vendor_boot image has no kernel: found device trees and a ramdisk, expected boot.img – give the boot.img "
        "of the same build",
    ),
    (
        "zboot-offset",
        put(Z, 8, "<I", 2**32 - 1),
        EnvelopeError,
        contradicts(
            "an EFI zboot image", "a payload at 0xffffffff with 0x1bc5 bytes, expected an end within 0x3000 bytes"
        ),
    ),
    (
        "zboot-offset-in-header",
        put(Z, 8, "<I", 20),
        EnvelopeError,
        contradicts("an EFI zboot image", "a payload at 0x14, expected one behind 0x38"),
    ),
    (
        "zboot-size",
        put(Z, 12, "<I", 0x4000),
        EnvelopeError,
        contradicts("an EFI zboot image", "a payload at 0x1320 with 0x4000 bytes, expected an end within 0x3000 bytes"),
    ),
    (
        "zboot-size-less",
        put(Z, 12, "<I", 2000),
        EnvelopeError,
        "gzip data ends too early: found 2000 bytes – the file is truncated",
    ),
    (
        "zboot-other-name",
        put(Z, 24, "<8s", b"zstd22"),
        EnvelopeError,
        contradicts("an EFI zboot image", "a payload of gzip data, expected zstd data"),
    ),
    (
        "zboot-not-packed",
        put(Z, 4096 + 800, "<I", 0),
        EnvelopeError,
        contradicts("an EFI zboot image", "a payload of what is not compressed, expected gzip data"),
    ),
    (
        "zboot-u32",
        ZX.replace(struct.pack("<I", len(K)) + b"strings", b"\1\2\3\4strings"),
        EnvelopeError,
        contradicts("an EFI zboot image", "01 02 03 04 behind the payload, expected 00 30 00 00, the kernel's size"),
    ),
    (
        "zboot-cut",
        Z[:60],
        EnvelopeError,
        contradicts("an EFI zboot image", "a payload at 0x1320 with 0x1bc5 bytes, expected an end within 0x3c bytes"),
    ),
    (
        "uimage-cut",
        U[:-1],
        EnvelopeError,
        contradicts("a U-Boot uImage", "a kernel at 0x40 with 0x3000 bytes, expected an end within 0x303f bytes"),
    ),
    (
        "uimage-data",
        U[:-1] + bytes([U[-1] ^ 1]),
        EnvelopeError,
        contradicts("a U-Boot uImage", "CRC32 0x7a74c1e3 of the kernel, expected 0x0d73f175"),
    ),
    (
        "uimage-header",
        put(U, 8, "<I", 0),
        EnvelopeError,
        contradicts("a U-Boot uImage", "CRC32 0xc654431d of the header, expected 0xf3dc3018"),
    ),
    (
        "uimage-ramdisk",
        make.uimage(K, 3),
        InputError,
        "a U-Boot uImage without a kernel alone in it: found type 3, expected 2 (kernel) – take the kernel out "
        "(dumpimage)",
    ),
    (
        "uimage-multi",
        make.uimage(K, 4),
        InputError,
        "a U-Boot uImage without a kernel alone in it: found type 4, expected 2 (kernel) – take the kernel out "
        "(dumpimage)",
    ),
    (
        "signed-cut",
        S[:-8],
        EnvelopeError,
        contradicts("a signed PE file", "certificates at 0x3000 with 0x5c0 bytes, expected an end within 0x35b8 bytes"),
    ),
    (
        "signed-and-more",
        S + b"more",
        EnvelopeError,
        contradicts("a signed PE file", "certificates up to 0x35c0, expected 0x35c4, the end"),
    ),
    (
        "bz-old",
        make.bzimage(G, 0x207),
        EnvelopeError,
        "an x86 bzImage that does not tell where its payload is: found boot protocol 2.07, expected 2.08 or newer – "
        "give the ELF vmlinux that it was made of",
    ),
    (
        "bz-cut",
        BZ[:3000],
        EnvelopeError,
        contradicts("an x86 bzImage", "a payload at 0xabc with 0x1bd0 bytes, expected an end within 0xbb8 bytes"),
    ),
    (
        "bz-no-size",
        make.bzimage(lzma.compress(ELF)),
        EnvelopeError,
        contradicts("an x86 bzImage", "nothing behind the payload, expected 04 30 00 00, the size of its content"),
    ),
    (
        "bz-other-size",
        make.bzimage(lzma.compress(ELF) + b"\1\0\0\0"),
        EnvelopeError,
        contradicts("an x86 bzImage", "01 00 00 00 behind the payload, expected 04 30 00 00, the size of its content"),
    ),
    (
        "bz-gzip-and-more",
        make.bzimage(G + b"more"),
        EnvelopeError,
        contradicts("an x86 bzImage", "6d 6f 72 65 behind the payload, expected 00 30 00 00, the size of its content"),
    ),
    (
        "bz-corrupt",
        BZ.replace(b"\x1f\x8b\x08\0", b"\x1f\x8b\x09\0"),
        EnvelopeError,
        corrupt("gzip", "error -3 while decompressing data: unknown compression method"),
    ),
    (
        "bz-header-cut",
        BZ[:0x240],
        EnvelopeError,
        contradicts("an x86 bzImage", "a header at 0x0 with 0x250 bytes, expected an end within 0x240 bytes"),
    ),
    (
        "lzma-cut",
        lzma.compress(K, lzma.FORMAT_ALONE)[:-9],
        EnvelopeError,
        "lzma data ends too early: found 6419 bytes – the file is truncated",
    ),
    (
        "bz2-cut",
        bz2.compress(K)[:-9],
        EnvelopeError,
        "bzip2 data ends too early: found 6341 bytes – the file is truncated",
    ),
]


@pytest.mark.parametrize(("raw", "kind", "line"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_damaged_layer_is_refused_in_a_line(raw: bytes, kind: type[FtpatchError], line: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(raw)
    with pytest.raises(kind) as caught:
        open_file(str(path), SMALL)
    assert type(caught.value) is kind
    assert str(caught.value) == f"{path}: {line}"
