"""Kernels inside what boot loaders put around them: every layer opened, closed again around other bytes, and damaged.

All files are made here, around a flat kernel of some KiB that has a header and noise.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import tracemalloc
import zlib
from pathlib import Path

import container_files as make
import numpy as np
import pytest
import zstandard
from container_files import device_tree, flat

from ftpatch.container import lzo, zboot
from ftpatch.container.envelope import Contents, open_file
from ftpatch.container.layers import rebuild
from ftpatch.container.pack import wrap
from ftpatch.container.xxh32 import xxh32
from ftpatch.errors import EnvelopeError, FtpatchError, InputError, PolicyError

MINI = Path(__file__).parents[1] / "testdata" / "mini"
ELF = (MINI / "vmlinux-callops").read_bytes()
SMALL = 8 << 20


KERNEL = flat()
OTHER = KERNEL[:4096] + bytes(600) + KERNEL[4696:]  # as long, and fewer bytes when it is packed
LARGER = KERNEL[:64] + np.random.default_rng(9).integers(0, 256, len(KERNEL) - 64, np.uint8).tobytes()
TREES = device_tree() + device_tree(100)


def written(folder: Path, content: bytes) -> str:
    path = folder / "file"
    path.write_bytes(content)
    return str(path)


def kinds(file: Contents) -> list[str]:
    return [layer.kind for layer in file.layers]


BLOCKS = [KERNEL[:7000], KERNEL[7000:]]
LZO_BLOCKS = [(block, make.lzo_block(block)) for block in BLOCKS]
LZO_STORED = [LZO_BLOCKS[0], (BLOCKS[1], BLOCKS[1])]
ALONE = lzma.compress(KERNEL, lzma.FORMAT_ALONE)
ALONE_SIZED = ALONE[:5] + struct.pack("<Q", len(KERNEL)) + ALONE[13:]
PE = make.pe_kernel()
BIG = make.flat(3 << 20)  # for frames of several blocks


# What is around the kernel, outermost first, and the file.
FILES: list[tuple[list[str], bytes]] = [
    ([], KERNEL),
    (["appended-dtb"], KERNEL + TREES),
    (["gzip"], gzip.compress(KERNEL)),
    (["gzip"], gzip.compress(KERNEL, 1)),
    (["gzip"], make.no_name(KERNEL)),
    (["gzip"], gzip.compress(KERNEL[:5000]) + gzip.compress(KERNEL[5000:]) + bytes(512)),
    (["appended-dtb", "gzip"], gzip.compress(KERNEL) + TREES),
    (["gzip", "appended-dtb"], gzip.compress(KERNEL + TREES)),
    (["xz"], lzma.compress(KERNEL)),
    (["xz"], wrap("xz", KERNEL)),
    (["xz"], lzma.compress(KERNEL, check=lzma.CHECK_CRC32,
                           filters=[{"id": lzma.FILTER_POWERPC}, {"id": lzma.FILTER_LZMA2, "dict_size": 1 << 25}])),
    (["zstd"], wrap("zst", KERNEL)),
    (["zstd"], zstandard.ZstdCompressor(level=1, write_content_size=False).compress(KERNEL)),
    (["xz", "gzip"], lzma.compress(gzip.compress(KERNEL))),
    # the dictionary that kernel builds ask for, however large the kernel is
    (["xz"], make.with_dictionary(lzma.compress(KERNEL), 30)),
    (["bzip2"], bz2.compress(KERNEL, 3)),
    (["lzma"], ALONE),
    (["lzma"], ALONE_SIZED),
    (["lzma"], make.with_size(ALONE, KERNEL)),
    (["xz"], make.with_size(lzma.compress(KERNEL), KERNEL)),
    (["zstd"], make.with_size(zstandard.compress(KERNEL), KERNEL)),
    (["lz4"], make.lz4_legacy(KERNEL)),
    (["lz4"], make.lz4_legacy(KERNEL[:5000]) + make.lz4_legacy(KERNEL[5000:])),
    (["lz4"], make.with_size(make.lz4_legacy(KERNEL), KERNEL)),
    (["appended-dtb", "lz4"], make.with_size(make.lz4_legacy(KERNEL), KERNEL) + TREES),
    *((["lz4"], make.lz4_frame(KERNEL, flags, 4096, size)) for flags in (0x60, 0x64, 0x74) for size in (False, True)),
    *((["lzo"], make.lzop(KERNEL, LZO_BLOCKS, flags)) for flags in (0, 1, 3, 0x303, 0x1300)),
    (["lzo"], make.lzop(KERNEL, LZO_STORED, 3)),
    *((["boot-img"], make.boot_image(version, KERNEL)) for version in range(5)),
    (["boot-img", "gzip"], make.boot_image(2, gzip.compress(KERNEL), 4096)),
    (["boot-img", "appended-dtb", "lz4"], make.boot_image(4, make.lz4_legacy(KERNEL) + TREES)),
    (["boot-img", "gzip"], make.avb(make.boot_image(3, gzip.compress(KERNEL)), 64 << 10)),
    (["boot-img", "gzip"], make.boot_image(1, gzip.compress(KERNEL)) + b"SEANDROIDENFORCE"),
    (["boot-img", "xz"], make.boot_image(0, lzma.compress(KERNEL)).ljust(64 << 10, b"\0")),
    (["uimage"], make.uimage(KERNEL)),
    (["uimage", "gzip"], make.uimage(gzip.compress(KERNEL), 14)),
    *((["zboot"], make.zboot(KERNEL, compression)) for compression in make.PACKERS),
    (["gzip", "zboot"], gzip.compress(make.zboot(KERNEL, "gzip"))),
    (["gzip"] * 8, b""),
]  # fmt: skip
FILES[-1] = (["gzip"] * 8, KERNEL)
for _ in range(8):
    FILES[-1] = (FILES[-1][0], gzip.compress(FILES[-1][1], mtime=0))


@pytest.mark.parametrize(
    ("around", "raw"), FILES, ids=[f"{row}-{'+'.join(around)}" for row, (around, _) in enumerate(FILES)]
)
def test_the_kernel_is_found_and_its_layers_are_made_anew_around_another(
    around: list[str], raw: bytes, tmp_path: Path
) -> None:
    file = open_file(written(tmp_path, raw))
    assert (kinds(file), file.data.tobytes(), file.raw.tobytes()) == (around, KERNEL, raw)
    assert (file.wrapping, file.trailer) == ("none", b"")
    made = rebuild(file.layers, OTHER)
    again = open_file(written(tmp_path, made))
    assert (kinds(again), again.data.tobytes()) == (around, OTHER)
    assert open_file(written(tmp_path, rebuild(again.layers, KERNEL))).data.tobytes() == KERNEL


def test_an_elf_file_that_is_only_compressed_has_a_wrapping_and_no_layer(tmp_path: Path) -> None:
    for wrapping in ("xz", "gz", "zst"):
        file = open_file(written(tmp_path, wrap(wrapping, ELF)))
        assert (file.wrapping, file.layers, file.data.tobytes()) == (wrapping, (), ELF)


@pytest.mark.parametrize("level", [1, 6, 9])
def test_a_gzip_layer_around_the_old_content_is_the_old_layer(level: int, tmp_path: Path) -> None:
    """Where zlib made it; the tool gzip has an encoder of its own."""
    raw = gzip.compress(KERNEL, level, mtime=1700000000)
    assert rebuild(open_file(written(tmp_path, raw)).layers, KERNEL) == raw


BEHIND = "there is something behind the {} data: found {} bytes, expected the end, or another stream"
DAMAGED: list[tuple[str, bytes, type[FtpatchError], str]] = [
    ("gzip-with-a-tree-that-is-cut", gzip.compress(KERNEL) + TREES[:-1], EnvelopeError, BEHIND.format("gzip", 171)),
    ("gzip-with-a-tree-and-a-byte", gzip.compress(KERNEL) + TREES + b"\0", EnvelopeError, BEHIND.format("gzip", 173)),
    ("gzip-with-a-tree-of-no-size", gzip.compress(KERNEL) + device_tree()[:4] + bytes(68), EnvelopeError,
     BEHIND.format("gzip", 72)),
    ("nine-layers", gzip.compress(FILES[-1][1]), EnvelopeError,
     "more layers around a kernel than are opened: found 9, expected at most 8 – unpack it first"),
    ("a-tar-in-gzip-in-xz", lzma.compress(gzip.compress(bytes(257) + b"ustar")), InputError,
     "not an ELF file: found a tar archive inside gzip data inside xz data – unpack it (tar -xf) and give the vmlinux "
     "or module inside"),
]  # fmt: skip


def refusal(path: str, kind: type[FtpatchError], max_size: int = SMALL) -> str:
    with pytest.raises(kind) as caught:
        open_file(path, max_size)
    assert type(caught.value) is kind
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(("raw", "kind", "line"), [case[1:] for case in DAMAGED], ids=[case[0] for case in DAMAGED])
def test_what_cannot_be_opened_is_refused_in_a_line(
    raw: bytes, kind: type[FtpatchError], line: str, tmp_path: Path
) -> None:
    assert refusal(written(tmp_path, raw), kind) == line


@pytest.mark.parametrize(
    ("tail", "n"),
    [(b"", 0), (TREES, len(TREES)), (TREES + b"\0", 0), (TREES[1:], 100), (device_tree()[:-1], 0), (b"\xd0\x0d\xfe", 0),
     (b"\xd0\x0d\xfe\xed" + bytes(36), 0), (device_tree() + b"\xd0\x0d\xfe\xed" + TREES, len(TREES))],
)  # fmt: skip
def test_trees_behind_a_flat_kernel_fill_the_rest_of_the_file(tail: bytes, n: int, tmp_path: Path) -> None:
    """A kernel has trees inside that belong to it."""
    content = KERNEL + device_tree() + b"more of the kernel"
    file = open_file(written(tmp_path, content + tail))
    assert len(file.data) == len(content + tail) - n
    assert kinds(file) == ["appended-dtb"] * (n > 0)


def test_a_tree_across_two_pieces_of_the_file_is_found(tmp_path: Path) -> None:
    for size in ((5 << 20) - 2, 5 << 20, (5 << 20) + 1):
        kernel = flat(size)
        file = open_file(written(tmp_path, kernel + TREES))
        assert (kinds(file), len(file.data)) == (["appended-dtb"], size)


def test_a_bomb_in_a_layer_costs_no_more_than_the_bound(tmp_path: Path) -> None:
    for pack in (gzip.compress, lzma.compress, zstandard.compress):
        path = written(tmp_path, pack(gzip.compress(bytes(SMALL + 1))))
        assert refusal(path, EnvelopeError) == (
            f"gzip data unpacks to too much: found more than {SMALL} bytes – unpack it first"
        )


# -- signatures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 3])
def test_a_signed_kernel_is_read_as_it_was_before_and_made_anew_unsigned(padding: int, tmp_path: Path) -> None:
    """A checksum and the certificates' place are all that signing changes; kernel builds leave them zero."""
    plain = PE + b"\1" * padding
    file = open_file(written(tmp_path, make.signed(plain)))
    assert (kinds(file), file.data.tobytes()) == (["pe-signature"], plain + bytes(-padding % 8))
    assert [layer.void for layer in file.layers] == ["its signature for Secure Boot, which is left out"]
    assert rebuild(file.layers, OTHER) == OTHER


def test_a_signed_zboot_file_is_made_anew_unsigned(tmp_path: Path) -> None:
    raw = make.zboot(KERNEL, "gzip")
    file = open_file(written(tmp_path, make.signed(raw)))
    assert (kinds(file), file.data.tobytes()) == (["pe-signature", "zboot"], KERNEL)
    assert rebuild(file.layers, KERNEL) == raw


def test_a_signed_kernel_inside_compressed_data_is_read(tmp_path: Path) -> None:
    for stream, raw in (("gzip", gzip.compress(make.signed(PE))), ("zboot", make.zboot(make.signed(PE), "xzkern"))):
        file = open_file(written(tmp_path, raw))
        assert (kinds(file), file.data.tobytes()) == ([stream, "pe-signature"], PE)
        assert open_file(written(tmp_path, rebuild(file.layers, PE))).data.tobytes() == PE


# -- zboot -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(30))
def test_a_gzip_payload_that_got_shorter_fills_its_place(n: int, tmp_path: Path) -> None:
    """The boot code takes the kernel's size from the end of the place, and skips ten bytes of gzip header."""
    raw, size = make.zboot(KERNEL, "gzip"), len(gzip.compress(KERNEL, 9, mtime=0))
    place = raw.index(b"\x1f\x8b")
    content = KERNEL[:4096] + bytes(600 - n) + KERNEL[4696 - n :]
    made = rebuild(open_file(written(tmp_path, raw)).layers, content)
    payload = made[place : place + size]
    assert made[:place] + made[place + size :] == raw[:place] + raw[place + size :]
    assert zlib.decompressobj(-15).decompress(payload[10:]) == content
    assert payload[:10] == raw[place : place + 10] and payload[-4:] == struct.pack("<I", len(content))


def test_every_difference_but_a_few_bytes_can_be_filled() -> None:
    packed = gzip.compress(KERNEL)
    for stream, missing in (("gz", {1, 2, 3, 4, 8}), ("zst", set(range(1, 8))), ("xz", set())):
        made = packed if stream == "gz" else zstandard.compress(KERNEL)
        reached = {n: list(zboot.filled(stream, made, len(made) + n)) for n in range(40)}
        assert {n for n, ways in reached.items() if not ways} == missing
        for n, ways in reached.items():
            assert all(len(way) == len(made) + (0 if stream == "xz" else n) for way in ways)
            if stream == "gz":
                assert all(gzip.decompress(way) == KERNEL for way in ways)
            if stream == "zst" and ways:
                assert zstandard.ZstdDecompressor().stream_reader(ways[0], read_across_frames=True).read() == KERNEL
    assert not list(zboot.filled("gz", packed, len(packed) - 1))


@pytest.mark.parametrize("compression", ["gzip", "zstd22", "xzkern", "lzma"])
def test_a_zboot_file_without_room_is_refused_with_the_reason(compression: str, tmp_path: Path) -> None:
    path = written(tmp_path, make.zboot(KERNEL, compression))
    with pytest.raises(PolicyError) as caught:
        rebuild(open_file(path).layers, LARGER)
    line = str(caught.value)
    assert line.startswith(f"{path}: an EFI zboot image has no room for the patched kernel: found ")
    assert line.endswith(
        ", behind which its code looks for the kernel's size – boot the kernel inside alone, or have the build make "
        "vmlinuz.efi anew"
    )


# -- bzImage ---------------------------------------------------------------------------------------------------

VMLINUX = ELF + b"relocations"
PAYLOADS = {
    "gzip": gzip.compress(VMLINUX),
    "xz": make.with_size(lzma.compress(VMLINUX, check=lzma.CHECK_CRC32), VMLINUX),
    "zstd": make.with_size(zstandard.compress(VMLINUX), VMLINUX),
    "lzma": make.with_size(lzma.compress(VMLINUX, lzma.FORMAT_ALONE), VMLINUX),
    "bzip2": make.with_size(bz2.compress(VMLINUX), VMLINUX),
    "lz4": make.with_size(make.lz4_legacy(VMLINUX[:4000]), VMLINUX[:4000]),
    "lzo": make.with_size(make.lzop(VMLINUX, [(VMLINUX, VMLINUX)]), VMLINUX),
    "nothing": VMLINUX,
}


@pytest.mark.parametrize("compression", PAYLOADS)
@pytest.mark.parametrize("sects", [0, 3, 31])
def test_the_payload_of_a_bzimage_is_read_and_cannot_be_replaced(compression: str, sects: int, tmp_path: Path) -> None:
    file = open_file(written(tmp_path, make.bzimage(PAYLOADS[compression], sects=sects)))
    assert (kinds(file), file.data.tobytes()) == (["bzimage"], VMLINUX[:4000] if compression == "lz4" else VMLINUX)
    assert (file.layers[0].repack, file.layers[0].why_not.partition(";")[0]) == (
        None, "the boot code of a bzImage has the payload's size and place built in",
    )  # fmt: skip


# -- boot.img --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(5))
def test_a_boot_image_around_a_larger_kernel_is_the_one_that_mkbootimg_makes(version: int, tmp_path: Path) -> None:
    """Sizes, the place of the recovery DTBO and the id; everything behind the kernel moves."""
    file = open_file(written(tmp_path, make.boot_image(version, gzip.compress(KERNEL, mtime=0))))
    larger = flat(40_000)
    assert file.layers[0].repack is not None
    assert file.layers[0].repack(larger) == make.boot_image(version, larger)
    assert file.layers[0].void == "the signature of Android Verified Boot"


def test_an_id_that_mkbootimg_did_not_write_is_left(tmp_path: Path) -> None:
    raw = bytearray(make.boot_image(1, KERNEL))
    raw[576:608] = bytes(range(32))
    file = open_file(written(tmp_path, bytes(raw)))
    assert rebuild(file.layers, OTHER) == bytes(raw).replace(KERNEL, OTHER)


def test_an_old_image_with_a_device_tree_has_its_size_for_a_version(tmp_path: Path) -> None:
    raw = bytearray(make.boot_image(0, KERNEL)) + make.padded(b"QCDT" * 99, 2048)
    struct.pack_into("<I", raw, 40, 396)
    file = open_file(written(tmp_path, bytes(raw)))
    assert (kinds(file), file.data.tobytes()) == (["boot-img"], KERNEL)
    larger = rebuild(file.layers, flat(20_000))
    assert larger.endswith(make.padded(b"QCDT" * 99, 2048)) and len(larger) % 2048 == 0


def test_vbmeta_stays_where_it_is_and_the_footer_tells_the_new_size(tmp_path: Path) -> None:
    """A boot loader that was unlocked reads it all the same."""
    raw = make.avb(make.boot_image(3, gzip.compress(KERNEL)), 64 << 10)
    file = open_file(written(tmp_path, raw))
    smaller = file.layers[0].repack
    assert smaller is not None
    made = smaller(gzip.compress(OTHER[:4096]))
    at = raw.index(b"AVB0")
    assert (len(made), made[at : at + 320]) == (len(raw), raw[at : at + 320])
    assert made[-64:-52] + made[-44:] == raw[-64:-52] + raw[-44:]
    assert int.from_bytes(made[-52:-44], "big") == len(make.boot_image(3, gzip.compress(OTHER[:4096])))


@pytest.mark.parametrize("footer", [False, True])
def test_a_kernel_that_is_too_large_for_the_partition_is_refused(footer: bool, tmp_path: Path) -> None:
    image = make.boot_image(3, gzip.compress(KERNEL))
    size = len(image) + 8192
    raw = make.avb(image, size) if footer else image.ljust(size, b"\0")
    path = written(tmp_path, raw)
    repack = open_file(path).layers[0].repack
    assert repack is not None
    with pytest.raises(PolicyError) as caught:
        repack(bytes(40_000))
    assert str(caught.value) == (
        f"{path}: an Android boot image has no room for the patched kernel: found 49152 bytes, expected at most "
        f"{len(image) if footer else size} in its partition – patch the kernel alone, and make the image anew "
        "(mkbootimg)"
    )


# -- lz4 and lzo -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 3, 4, 15, 16, 17, 31, 32, 33, 100, 4096])
def test_the_checksum_of_lz4_is_that_of_its_document(size: int) -> None:
    data = flat(8192)[64 : 64 + size]
    assert xxh32(data) == make.xxh32(data)


def test_the_checksum_of_lz4_has_the_values_that_everybody_has() -> None:
    assert (xxh32(b""), xxh32(b"abc")) == (0x02CC5D05, 0x32D153FF)


NOISE = flat(17_000)[64:]
# What stands before the mark that ends a block, and the content; each kind of match, and each kind of length.
LZO_CODE = [
    (b"\x15abcd", b"abcd"),
    (b"\x1aabcdefghi\x60\x00", b"abcdefghiiiii"),  # 4 bytes, 1 before
    (b"\x1aabcdefghi\x61\x00z\x00\x01", b"abcdefghiiiiizii"),  # a literal with that match, and 2 bytes, 5 before
    (b"\x1aabcdefghi\x27\x0a\x00yz", b"abcdefghighighighiyz"),  # 9 bytes, 3 before, two literals
    (b"\x1aabcdefghi\x20\x01\x08\x00", b"abcdefghi" + b"ghi" * 11 + b"g"),  # 34 bytes, 3 before
    (b"\x1aabcdefghi\x20\x00\x01\x08\x00", b"abcdefghi" + b"ghi" * 96 + b"g"),  # 289 bytes, 3 before
    (bytes(9) + b"\x2a" + NOISE[:2100] + b"\x00\x00", NOISE[:2100] + NOISE[51:54]),  # 3 bytes, 2049 before
    (bytes(65) + b"\x34" + NOISE[:16390] + b"\x11\x04\x00", NOISE[:16390] + NOISE[5:8]),  # 3 bytes, 16385 before
    (bytes(65) + b"\x34" + NOISE[:16390] + b"\x10\x03\x04\x00", NOISE[:16390] + NOISE[5:17]),  # 12 bytes
]


@pytest.mark.parametrize(("code", "content"), LZO_CODE)
def test_every_instruction_of_lzo_is_executed(code: bytes, content: bytes) -> None:
    assert lzo.unpacked(code + b"\x11\0\0", len(content)) == content


def test_long_matches_of_lz4_that_hold_in_part_stay_matches(tmp_path: Path) -> None:
    """Enabling one site in a megabyte of zeros made all of it literals."""
    zeros = KERNEL + bytes(1 << 20) + KERNEL[64:] + b"the last bytes are literals"
    packed = make.lz4_legacy(zeros)
    file = open_file(written(tmp_path, packed))
    content = bytearray(zeros)
    content[600_000:600_008] = b"\x01\x02\x03\x04\x05\x06\x07\x08"
    made = rebuild(file.layers, bytes(content))
    assert open_file(written(tmp_path, made)).data.tobytes() == content
    assert len(packed) < len(made) < len(packed) + 40


def test_linked_lz4_blocks_refer_to_those_before_them_within_their_frame(tmp_path: Path) -> None:
    """Without the flag for independent blocks."""
    head = bytes([0x40, 0x40])
    head = b"\x04\x22\x4d\x18" + head + bytes([make.xxh32(head) >> 8 & 255])

    def block(content: bytes) -> bytes:
        return struct.pack("<I", len(content)) + content

    first = block(b"\xf0" + bytes([len(KERNEL[:80]) - 15]) + KERNEL[:80])
    second = block(b"\x0f\x10\x00" + bytes([64 - 19]) + b"\x50" + b"stop!")  # 64 bytes, 16 before
    file = open_file(written(tmp_path, head + first + second + bytes(4)))
    content = KERNEL[:80] + KERNEL[64:80] * 4 + b"stop!"
    assert (kinds(file), file.data.tobytes()) == (["lz4"], content)
    other = content[:100] + b"!" + content[101:]
    assert open_file(written(tmp_path, rebuild(file.layers, other))).data.tobytes() == other
    alone = head + second + bytes(4)
    assert refusal(written(tmp_path, head + first + bytes(4) + alone), EnvelopeError).startswith(
        "lz4 data cannot be unpacked: found a match before the first byte"
    )


def bombs() -> dict[str, bytes]:
    """Some KiB that stand for 24 MiB, three times the limit, and what asks for far more."""
    run = make.lz4_sequence(b"\0", (8 << 20) - 6, 1) + b"\x50" + bytes(5)
    endless = make.lz4_sequence(b"\0", 64 << 20, 1) + b"\x50" + bytes(5)
    lzo_run = b"\x12\0\x20" + bytes(32 * 1024) + b"\x01\0\0\x11\0\0"  # 1 byte, then 8 MiB, 1 before
    block = struct.pack(">II", 1 + 31 + 255 * 32 * 1024 + 1 + 2, len(lzo_run)) + lzo_run
    return {
        "lz4": b"\x02\x21\x4c\x18" + (struct.pack("<I", len(run)) + run) * 3,
        "lz4-block": b"\x02\x21\x4c\x18" + struct.pack("<I", len(endless)) + endless,
        "lzo": make.lzop(b"", [], 0)[:-4] + block * 3 + bytes(4),
        "lzma": lzma.compress(bytes(24 << 20), lzma.FORMAT_ALONE, preset=0),
        "bzip2": bz2.compress(bytes(24 << 20)),
    }


@pytest.mark.parametrize(("kind", "packed"), bombs().items())
@pytest.mark.parametrize("around", ["nothing", "zboot"])
def test_a_bomb_is_not_unpacked_beyond_the_bound(kind: str, packed: bytes, around: str, tmp_path: Path) -> None:
    name = kind.partition("-")[0]
    zboot_file = make.zboot(b"", "lz4", packed).replace(b"lz4\0", b"any\0", 1)
    raw = zboot_file if around == "zboot" else packed
    path = written(tmp_path, raw)
    tracemalloc.start()
    try:
        line = refusal(path, EnvelopeError)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert line == (
        "lz4 data cannot be unpacked: found a block that unpacks to too much – the file is corrupt, or only its own "
        "program reads it"
        if kind == "lz4-block"
        else f"{name} data unpacks to too much: found more than {SMALL} bytes – unpack it first"
    )
    assert peak < 5 * SMALL
