"""Kernels inside what boot loaders put around them: every layer opened, closed again around other bytes, and damaged.

All files are made here, around a flat kernel of some KiB that has a header and noise.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from pathlib import Path

import container_files as make
import pytest
import zstandard
from container_files import device_tree, flat

from ftpatch.container.envelope import Contents, open_file
from ftpatch.container.layers import rebuild
from ftpatch.container.pack import wrap
from ftpatch.errors import EnvelopeError, FtpatchError, InputError

MINI = Path(__file__).parents[1] / "testdata" / "mini"
ELF = (MINI / "vmlinux-callops").read_bytes()
SMALL = 8 << 20


KERNEL = flat()
OTHER = KERNEL[:4096] + bytes(600) + KERNEL[4696:]  # as long, and fewer bytes when it is packed
LARGER = KERNEL[:4096] + bytes(range(256)) + KERNEL[4352:]
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
    (["bz2"], bz2.compress(KERNEL, 3)),
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
