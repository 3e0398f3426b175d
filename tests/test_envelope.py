"""What is around an ELF file: three compressions, the appended signature, and every way in which they can be wrong."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import tracemalloc
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ftpatch.cli import run
from ftpatch.container import foreign, unpack
from ftpatch.container.envelope import Contents, open_file
from ftpatch.container.pack import encoder_of, encoders, wrap
from ftpatch.container.wrappings import WRAPPINGS, wrapping_for
from ftpatch.errors import EnvelopeError, FtpatchError, InputError, UnsupportedError
from ftpatch.recovered.image import open_image
from tools import kernels

MINI = Path(__file__).parents[1] / "testdata" / "mini"
ELF = (MINI / "mini.ko").read_bytes()
MARKER = b"~Module signature appended~\n"
NAMES = {"xz": "xz data", "gz": "gzip data", "zst": "zstd data"}
ALL = [(wrapping, encoder) for wrapping in ("none", *NAMES) for encoder in encoders(wrapping)]
PACKED = [pytest.param(wrapping, encoder, id=encoder) for wrapping, encoder in ALL if wrapping != "none"]
SMALL = 8 << 20  # the most that a bomb may unpack to here
ALWAYS = 40 << 20  # what unpacking may take beside its result: the window, one piece, what grows twice


def trailer(pkcs7: bytes = b"a message", signer: bytes = b"", key_id: bytes = b"", id_type: int = 2) -> bytes:
    sizes = struct.pack(">BBBBB3xI", 0, 0, id_type, len(signer), len(key_id), len(pkcs7))
    return signer + key_id + pkcs7 + sizes + MARKER


def written(folder: Path, content: bytes, name: str = "file") -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


def refusal(folder: Path, content: bytes, kind: type[FtpatchError] = EnvelopeError, max_size: int = SMALL) -> str:
    """The line that a file gets, without its name."""
    path = written(folder, content)
    with pytest.raises(kind) as caught:
        open_file(path, max_size)
    assert type(caught.value) is kind
    line = str(caught.value)
    assert line.isprintable() and line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


# -- there and back --------------------------------------------------------------------------------------------


@given(content=st.binary(), signed=st.booleans(), how=st.sampled_from(ALL))
@settings(deadline=None)
def test_what_was_wrapped_is_found_again(content: bytes, signed: bool, how: tuple[str, str]) -> None:
    assume(signed or not content.endswith(MARKER))
    elf, sign = b"\x7fELF" + content, trailer() if signed else b""
    with tempfile.TemporaryDirectory() as folder:
        raw = wrap(how[0], elf + sign, how[1])
        found = open_file(written(Path(folder), raw))
    assert (found.data.tobytes(), found.trailer, found.raw.tobytes(), found.wrapping) == (elf, sign, raw, how[0])


@pytest.mark.parametrize("wrapping,encoder", PACKED)
@pytest.mark.parametrize("size", [1, 4096, 4095, 3 * 4096 + 5])
def test_content_of_many_pieces_is_whole(
    wrapping: str, encoder: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpack, "PIECE", 4096)
    content = (ELF * 2)[: size + 4]
    found = open_file(written(tmp_path, wrap(wrapping, content, encoder)), len(content))
    assert found.data.tobytes() == content


@pytest.mark.parametrize("wrapping,encoder", ALL)
def test_image_of_any_wrapping_is_the_same_but_for_its_outside(wrapping: str, encoder: str, tmp_path: Path) -> None:
    raw = wrap(wrapping, ELF + trailer(), encoder)
    image, plain = open_image(written(tmp_path, raw)), open_image(str(MINI / "mini.ko"))
    assert image.data.tobytes() == plain.data.tobytes()
    assert image.names == plain.names and (image.shdr == plain.shdr).all()
    assert (image.wrapping, image.trailer) == (wrapping, trailer())
    assert image.sha256 == hashlib.sha256(raw).hexdigest()
    assert (plain.wrapping, plain.trailer) == ("none", b"")


@pytest.mark.parametrize("wrapping,encoder", ALL)
def test_content_is_read_only(wrapping: str, encoder: str, tmp_path: Path) -> None:
    found = open_file(written(tmp_path, wrap(wrapping, ELF, encoder)))
    assert not found.data[:].flags.writeable and not found.raw[:].flags.writeable


def test_uncompressed_file_is_read_only_where_it_is_asked_for(tmp_path: Path) -> None:
    size = 64 << 20
    path = tmp_path / "vmlinux"
    path.write_bytes(ELF)
    with path.open("r+b") as file:
        file.truncate(size)
        file.seek(0, os.SEEK_END)
        file.write(trailer())
    tracemalloc.start()
    try:
        found = open_file(str(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    assert len(found.data) == size and np.shares_memory(found.data[:64], found.raw[:64])


def test_uncompressed_file_may_be_of_any_size(tmp_path: Path) -> None:
    assert len(open_file(written(tmp_path, ELF), max_size=4).data) == len(ELF)


@pytest.mark.parametrize("name", ["module.ko.xz", "module.ko.gz", "module.ko.zst", "module.ko", "noise"])
def test_name_says_nothing(name: str, tmp_path: Path) -> None:
    assert open_file(written(tmp_path, ELF, name)).wrapping == "none"
    assert open_file(written(tmp_path, wrap("zst", ELF), name)).wrapping == "zst"


@pytest.mark.parametrize(
    "out,expected",
    [("a.ko", "none"), ("a.ko.xz", "xz"), ("a.ko.gz", "gz"), ("a.ko.zst", "zst"), ("b/a.ko.patched", "otherwise"),
     ("a.xz", "otherwise"), ("vmlinux", "otherwise"), ("a.ko.xz/vmlinux", "otherwise"), ("a.KO", "otherwise"),
     ("ko", "otherwise"), ("a.ko.bz2", "otherwise"), (".ko", "none")],
)  # fmt: skip
def test_suffix_of_the_output_names_its_wrapping(out: str, expected: str) -> None:
    assert wrapping_for(out, "otherwise") == expected


# -- what others make of it ------------------------------------------------------------------------------------

TOOLS = {"xz": "xz", "gz": "gzip", "zst": "zstd"}
XZ = ("--check=crc32", "--lzma2=dict=1MiB")  # as scripts/Makefile.modinst calls it
EDGE = 3 << 20  # where xz begins a new block


def tool(name: str, *options: str, content: bytes) -> bytes:
    if shutil.which(name) is None:
        pytest.skip(f"needs the program {name}")
    return subprocess.run([name, *options], input=content, capture_output=True, check=True).stdout


@pytest.mark.parametrize("wrapping,encoder", PACKED)
def test_program_unpacks_what_we_pack(wrapping: str, encoder: str) -> None:
    content = ELF + os.urandom(100_000) + bytes(2 * EDGE)
    assert tool(TOOLS[wrapping], "-d", "-c", content=wrap(wrapping, content, encoder)) == content


@pytest.mark.parametrize("wrapping,encoder", PACKED)
def test_nothing_at_all_is_packed(wrapping: str, encoder: str) -> None:
    assert tool(TOOLS[wrapping], "-d", "-c", content=wrap(wrapping, b"", encoder)) == b""


@pytest.mark.parametrize("encoder,option", [("xz-mt", "-T2"), ("xz-st", "-T1")])
@pytest.mark.parametrize("size", [0, 1, 4, 10_000, EDGE - 1, EDGE, EDGE + 1, 2 * EDGE])
def test_xz_makes_the_same_bytes(encoder: str, option: str, size: int, tmp_path: Path) -> None:
    content = (ELF + bytes(2 * EDGE))[:size]
    path = written(tmp_path, content)
    assert wrap("xz", content, encoder) == tool("xz", "-c", option, *XZ, path, content=b"")


def test_xz_makes_the_same_bytes_of_noise(tmp_path: Path) -> None:
    """LZMA2 cannot make it smaller, and stores it in chunks of a little less than 64 KiB."""
    content = np.random.default_rng(1).bytes(200_000)
    path = written(tmp_path, content)
    assert wrap("xz", content) == tool("xz", "-c", "-T2", *XZ, path, content=b"")


@pytest.mark.parametrize("encoder", encoders("xz"))
def test_kernels_own_decoder_takes_our_xz(encoder: str) -> None:
    """It knows CRC32 alone, and a dictionary of 1 MiB is what its documentation asks for."""
    made = wrap("xz", ELF, encoder)
    size = (made[12] + 1) * 4
    assert made[:8] == b"\xfd7zXZ\0\0\1"
    assert b"\x21\x01\x10" in made[12 : 12 + size]  # LZMA2 with a property of one byte: 1 MiB
    assert made[13] & 3 == 0  # one filter
    assert lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(made) == ELF


def test_gzip_has_neither_name_nor_time() -> None:
    assert wrap("gz", ELF)[:10] == bytes.fromhex("1f8b0800000000000003")


def test_zstd_states_the_size_and_a_checksum() -> None:
    for encoder in encoders("zst"):
        found = zstandard.get_frame_parameters(wrap("zst", ELF, encoder))
        assert (found.content_size, found.has_checksum) == (len(ELF), True)


def test_unknown_encoder_is_refused() -> None:
    with pytest.raises(UnsupportedError) as caught:
        wrap("xz", ELF, "pixz")
    assert str(caught.value) == "xz data: no such encoder: found pixz, expected xz-mt, xz-st"


def encoder_in(path: Path) -> str | None:
    """The encoder that made a file."""
    contents = open_file(str(path))
    return encoder_of(contents.wrapping, contents.data.tobytes() + contents.trailer, contents.raw[:].data)


@pytest.mark.parametrize("wrapping,encoder", ALL)
@pytest.mark.parametrize("sign", [b"", trailer()], ids=["plain", "signed"])
def test_encoder_of_a_file_is_found(wrapping: str, encoder: str, sign: bytes, tmp_path: Path) -> None:
    raw = wrap(wrapping, ELF + sign, encoder)
    assert encoder_in(Path(written(tmp_path, raw))) == encoder


@pytest.mark.parametrize(
    "raw",
    [lzma.compress(ELF), lzma.compress(ELF, check=lzma.CHECK_CRC32, preset=0), gzip.compress(ELF, 1),
     zstandard.ZstdCompressor(level=1).compress(ELF), wrap("xz", ELF) + bytes(4)],
    ids=["crc64", "preset-0", "gzip-1", "zstd-1", "padded"],
)  # fmt: skip
def test_other_encoders_are_not_claimed(raw: bytes, tmp_path: Path) -> None:
    path = written(tmp_path, raw)
    assert open_file(path).data.tobytes() == ELF
    assert encoder_in(Path(path)) is None


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["arm64-6.12", "ppc64le-6.12", "ppc64le-sid"])
def test_debians_modules_are_reproduced(name: str, kernel: Callable[[str], kernels.Kernel]) -> None:
    """Every fortieth, and the largest one: several blocks."""
    paths = sorted(kernels.modules(name).rglob("*.ko.xz"))
    chosen = [*paths[::40], max(paths, key=lambda path: path.stat().st_size)]
    assert {encoder_in(path) for path in chosen} == {"xz-mt"}
    assert len(chosen) > 20


# -- archives that are wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapping,encoder", PACKED)
@pytest.mark.parametrize("tenth", range(1, 10))
def test_truncated_archive_is_refused(wrapping: str, encoder: str, tenth: int, tmp_path: Path) -> None:
    raw = wrap(wrapping, ELF, encoder)
    cut = len(raw) * tenth // 10
    line = f"{NAMES[wrapping]} ends too early: found {cut} bytes – the file is truncated"
    assert refusal(tmp_path, raw[:cut]) == line


@pytest.mark.parametrize("wrapping,encoder", PACKED)
def test_archive_without_its_last_or_all_but_its_first_bytes_is_refused(
    wrapping: str, encoder: str, tmp_path: Path
) -> None:
    raw = wrap(wrapping, ELF, encoder)
    for cut in (len(raw) - 1, len(raw) - 4, len(raw) - 8, len(WRAPPINGS[wrapping].magic)):
        line = f"{NAMES[wrapping]} ends too early: found {cut} bytes – the file is truncated"
        assert refusal(tmp_path, raw[:cut]) == line


@pytest.mark.parametrize("wrapping,encoder", PACKED)
@pytest.mark.parametrize("tenth", range(1, 10))
def test_changed_archive_is_refused(wrapping: str, encoder: str, tenth: int, tmp_path: Path) -> None:
    """Never accepted; where the damage is noticed differs, and so does what the decoder says."""
    raw = bytearray(wrap(wrapping, ELF, encoder))
    raw[len(raw) * tenth // 10] ^= 0x55
    name = NAMES[wrapping]
    assert refusal(tmp_path, bytes(raw)).startswith((f"{name} ", f"there is something behind the {name}: "))


@given(content=st.binary(min_size=1, max_size=200), wrapping=st.sampled_from(sorted(NAMES)))
@settings(deadline=None)
def test_noise_behind_a_magic_is_refused(content: bytes, wrapping: str) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.raises(InputError):
        open_file(written(Path(folder), WRAPPINGS[wrapping].magic + content))


@pytest.mark.parametrize("wrapping,encoder", PACKED)
@pytest.mark.parametrize("junk", [b"x", b"\0\0\0\0x", bytes(4) + b"\xfd7zXZ", MARKER, b"\x7fELF", b"\x1f\x8a"])
def test_something_behind_the_stream_is_refused(wrapping: str, encoder: str, junk: bytes, tmp_path: Path) -> None:
    line = (
        f"there is something behind the {NAMES[wrapping]}: found {len(junk)} bytes, expected the end, or another stream"
    )
    assert refusal(tmp_path, wrap(wrapping, ELF, encoder) + junk) == line


# -- several streams: what kmod reads, and what it does not ------------------------------------------------------


def skipped(content: bytes, kind: int = 0) -> bytes:
    """A frame that a zstd decoder passes over."""
    return bytes([0x50 + kind]) + b"\x2a\x4d\x18" + struct.pack("<I", len(content)) + content


A, B = ELF[:3000], ELF[3000:]
XZS, GZS, ZSTS = ([wrap(wrapping, part) for part in (A, B)] for wrapping in ("xz", "gz", "zst"))
NO = {wrapping: wrap(wrapping, b"") for wrapping in NAMES}
JOINED = {
    "xz-two": XZS[0] + XZS[1],
    "xz-two-encoders": wrap("xz", A, "xz-st") + wrap("xz", B, "xz-mt"),
    "xz-padded": XZS[0] + bytes(4) + XZS[1] + bytes(8),
    "xz-padded-behind": wrap("xz", ELF) + bytes(64 << 10),
    "xz-empty-ones": NO["xz"] + XZS[0] + NO["xz"] + bytes(4) + NO["xz"] + XZS[1] + NO["xz"],
    "xz-of-other-checks": lzma.compress(A, check=lzma.CHECK_SHA256) + lzma.compress(B, check=lzma.CHECK_NONE),
    "xz-a-stream-a-byte": b"".join(lzma.compress(ELF[at : at + 1], preset=0) for at in range(300))
    + wrap("xz", ELF[300:]),
    "gz-two": GZS[0] + GZS[1],
    "gz-two-tools": gzip.compress(A, 9, mtime=1) + GZS[1],
    "gz-padded": GZS[0] + GZS[1] + bytes(1),
    "gz-padded-to-a-block": wrap("gz", ELF) + bytes(10_240),
    "gz-empty-ones": NO["gz"] + GZS[0] + NO["gz"] + GZS[1] + NO["gz"],
    "zst-two": ZSTS[0] + ZSTS[1],
    "zst-skipped-first": skipped(b"\x10\0\0\0") + ZSTS[0] + skipped(b"\x10\0\0\0", 15) + ZSTS[1],  # as pzstd makes them
    "zst-skipped-last": ZSTS[0] + ZSTS[1] + skipped(b"") + skipped(bytes(100_000), 7),
    "zst-skipped-looks-like-a-frame": skipped(ZSTS[1]) + ZSTS[0] + skipped(ZSTS[0]) + ZSTS[1],
    "zst-empty-ones": NO["zst"] + ZSTS[0] + NO["zst"] + ZSTS[1] + NO["zst"],
    "zst-without-sizes": b"".join(
        zstandard.ZstdCompressor(write_content_size=False, write_checksum=False).compress(part) for part in (A, B)
    ),
    "zst-a-frame-a-byte": b"".join(wrap("zst", ELF[at : at + 1]) for at in range(3000)) + ZSTS[1],
}  # fmt: skip


@pytest.mark.parametrize("kind", JOINED)
def test_streams_are_joined_as_kmod_joins_them(kind: str, tmp_path: Path) -> None:
    """Files of several streams were refused, though modprobe loads them."""
    found = open_file(written(tmp_path, JOINED[kind]))
    assert (found.data.tobytes(), found.wrapping) == (ELF, kind.partition("-")[0])
    assert found.raw[:].tobytes() == JOINED[kind]


@pytest.mark.parametrize("kind", [kind for kind in JOINED if kind not in ("gz-padded", "gz-padded-to-a-block")])
def test_the_programs_read_the_same_streams(kind: str) -> None:
    tool = {"xz": "xz", "gz": "gzip", "zst": "zstd"}[kind.partition("-")[0]]
    done = subprocess.run([tool, "-dc"], input=JOINED[kind], capture_output=True, check=True)
    assert done.stdout == ELF


BEHIND = "there is something behind the {} data: found {} bytes, expected the end, or another stream"
EARLY = "{} data ends too early: found {} bytes – the file is truncated"


@pytest.mark.parametrize(("raw", "line"), [
    (XZS[0] + bytes(3) + XZS[1], BEHIND.format("xz", "{behind}")),
    (XZS[0] + XZS[1] + bytes(6), BEHIND.format("xz", 6)),
    (XZS[0] + XZS[1][:-1], EARLY.format("xz", "{size}")),
    (XZS[0] + XZS[1][:6], EARLY.format("xz", "{size}")),
    (XZS[0] + XZS[1][:5], BEHIND.format("xz", 5)),
    (XZS[0] + GZS[1], BEHIND.format("xz", "{behind}")),
    (GZS[0] + bytes(1) + GZS[1], BEHIND.format("gzip", "{behind}")),
    (GZS[0] + GZS[1][:-1], EARLY.format("gzip", "{size}")),
    (ZSTS[0] + bytes(4), BEHIND.format("zstd", 4)),
    (ZSTS[0] + ZSTS[1][:-1], EARLY.format("zstd", "{size}")),
    (ZSTS[0] + ZSTS[1] + skipped(b"abc")[:-1], EARLY.format("zstd", "{size}")),
    (ZSTS[0] + ZSTS[1] + skipped(b"")[:-1], EARLY.format("zstd", "{size}")),
    (b"\x50\x2a\x4d\x18\xff\xff\xff\xff" + ZSTS[0], EARLY.format("zstd", "{size}")),
])  # fmt: skip
def test_streams_that_do_not_follow_each_other_are_refused(raw: bytes, line: str, tmp_path: Path) -> None:
    behind = (
        len(raw) - min(len(first) for first in (XZS[0], GZS[0], ZSTS[0]) if raw.startswith(first))
        if "{behind}" in line
        else 0
    )
    assert refusal(tmp_path, raw) == line.format(behind=behind, size=len(raw))


@pytest.mark.parametrize(("raw", "line"), [
    (skipped(b"only this"), "nothing inside zstd data"), (skipped(b"") + b"\x04\x22\x4d\x18", ""),
    (NO["xz"] * 3, "nothing inside xz data"), (NO["gz"] * 3, "nothing inside gzip data"),
    (skipped(b"") * 3 + NO["zst"], "nothing inside zstd data"),
])  # fmt: skip
def test_streams_without_content_are_no_elf_file(raw: bytes, line: str, tmp_path: Path) -> None:
    """lz4 files may begin with a frame to be skipped, too."""
    path = written(tmp_path, raw)
    with pytest.raises(InputError) as caught:
        open_file(path)
    expected = (
        f"not an ELF file: found {line}" if line else "zstd data cannot be unpacked: found unknown frame descriptor"
    )
    assert str(caught.value).startswith(f"{path}: {expected}")


@pytest.mark.parametrize("wrapping", [*sorted(NAMES), "skipped"])
def test_more_streams_than_are_read_are_refused(wrapping: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "MAX_STREAMS", 100)
    stream = skipped(b"") if wrapping == "skipped" else NO[wrapping]
    name = NAMES.get(wrapping, NAMES["zst"])
    path = written(
        tmp_path, wrap("zst", ELF) + stream * 101 if wrapping == "skipped" else stream * 100 + wrap(wrapping, ELF)
    )
    with pytest.raises(EnvelopeError) as caught:
        open_file(path)
    assert str(caught.value) == (
        f"{path}: {name} cannot be unpacked: found more than 100 streams – the file is corrupt, or only its own "
        "program reads it"
    )


@pytest.mark.parametrize("wrapping", sorted(NAMES))
def test_what_is_packed_is_named(wrapping: str, tmp_path: Path) -> None:
    inside, build = f" inside {NAMES[wrapping]}", foreign.BUILD_VMLINUX
    for content, line in (
        (b"hello", f"first bytes 68 65 6c 6c 6f{inside}, expected 7f 45 4c 46 – {build}"),
        (b"", f"nothing{inside}, expected 7f 45 4c 46 – {build}"),
        (b"PK\x03\x04", f"a zip archive{inside} – {foreign.UNPACK_PACKAGE.format('unzip')}"),
    ):
        assert refusal(tmp_path, wrap(wrapping, content), InputError) == f"not an ELF file: found {line}"


def peak_of(folder: Path, raw: bytes, line: str) -> int:
    """Bytes that were allocated at once while the file was refused with this line."""
    path = written(folder, raw)
    tracemalloc.start()
    try:
        with pytest.raises(EnvelopeError) as caught:
            open_file(path, SMALL)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(caught.value) == f"{path}: {line}"
    return peak


def zstd_bomb(n_blocks: int) -> bytes:
    """Blocks of four bytes that each stand for 128 KiB of zeros; the frame does not say how many."""
    block = (1 << 1 | 128 << 10 << 3).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd\x00\x58" + block * n_blocks


@cache
def bomb(kind: str) -> bytes:
    """A file of some hundred KiB at most that stands for far more."""
    if kind == "zst-of-12-gib":
        return zstd_bomb(100_000)
    plain = bytes(64 << 20)
    if kind == "xz":
        return lzma.compress(plain, preset=0)
    return gzip.compress(plain, 9) if kind == "gz" else wrap(kind, plain)


BOMBS = ["xz", "gz", "zst", "zst-of-12-gib"]


@pytest.mark.parametrize("kind", BOMBS)
def test_bomb_costs_no_more_than_the_bound(kind: str, tmp_path: Path) -> None:
    name = NAMES[kind.partition("-")[0]]
    line = f"{name} unpacks to too much: found more than {SMALL} bytes – unpack it first"
    assert peak_of(tmp_path, bomb(kind), line) < SMALL + ALWAYS


def test_bomb_costs_no_address_space(tmp_path: Path) -> None:
    """In a process of its own, which has no more to give: liblzma's and libzstd's own memory counts, too."""
    program = (
        "import resource, sys\n"
        "from ftpatch.container.envelope import open_file\nfrom ftpatch.errors import EnvelopeError\n"
        "import lzma, zlib, zstandard\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (128 << 20),) * 2)\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n        open_file(path, 8 << 20)\n"
        "    except EnvelopeError as error:\n        print(error)\n"
    )
    paths = [written(tmp_path, bomb(kind), kind) for kind in BOMBS]
    done = subprocess.run(
        [sys.executable, "-c", program, *paths], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert done.stderr == ""
    assert [line.split(": ")[2] for line in done.stdout.splitlines()] == [
        f"found more than {SMALL} bytes – unpack it first"
    ] * len(BOMBS)


def test_zstd_frame_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    """It says that it has 5 bytes, and has 256 MiB."""
    liar = b"\x28\xb5\x2f\xfd\x20\x05" + zstd_bomb(2000)[6:]
    assert refusal(tmp_path, liar).startswith("zstd data cannot be unpacked: ")


def test_as_much_as_the_bound_is_unpacked_and_no_byte_more(tmp_path: Path) -> None:
    for wrapping, name in NAMES.items():
        raw = wrap(wrapping, ELF)
        assert len(open_file(written(tmp_path, raw), len(ELF)).data) == len(ELF)
        line = f"{name} unpacks to too much: found more than {len(ELF) - 1} bytes – unpack it first"
        assert refusal(tmp_path, raw, max_size=len(ELF) - 1) == line


def test_dictionary_of_1_gib_is_refused(tmp_path: Path) -> None:
    """The decoder would take all of it for a file of a few bytes."""
    raw = bytearray(wrap("xz", ELF))
    end = 12 + (raw[12] + 1) * 4
    at = raw.index(b"\x21\x01\x10", 12, end)
    raw[at + 2] = 36  # 1 GiB
    raw[end - 4 : end] = struct.pack("<I", zlib.crc32(raw[12 : end - 4]))
    assert peak_of(
        tmp_path, bytes(raw),
        "xz data cannot be unpacked: found memory usage limit exceeded – the file is corrupt, or only its own program "
        "reads it",
    ) < ALWAYS  # fmt: skip


def test_zstd_without_the_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = wrap("zst", ELF)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert refusal(tmp_path, raw, UnsupportedError) == (
        "zstd data needs a Python package that is not there: expected zstandard – pip install zstandard, or unpack the "
        "file first"
    )
    assert open_file(written(tmp_path, wrap("xz", ELF))).wrapping == "xz"


# -- signatures ------------------------------------------------------------------------------------------------


def parts(contents: Contents) -> tuple[bytes, bytes]:
    return contents.data.tobytes(), contents.trailer


@pytest.mark.parametrize("wrapping,encoder", ALL)
@pytest.mark.parametrize(
    "sign",
    [trailer(), trailer(b""), trailer(b"m" * 70_000), trailer(b"old", b"Magrathea", b"\x2c\xf2", id_type=1),
     trailer(b"", bytes(255), bytes(255), id_type=0)],
    ids=["pkcs7", "empty", "long", "x509", "names"],
)  # fmt: skip
def test_signature_is_cut_off(wrapping: str, encoder: str, sign: bytes, tmp_path: Path) -> None:
    assert parts(open_file(written(tmp_path, wrap(wrapping, ELF + sign, encoder)))) == (ELF, sign)


@pytest.mark.parametrize("tail", [MARKER[:-1], MARKER + b"\n", trailer() + b"\0", MARKER[1:], trailer()[:-1]])
def test_marker_elsewhere_than_at_the_end_is_content(tail: bytes, tmp_path: Path) -> None:
    assert parts(open_file(written(tmp_path, ELF + tail))) == (ELF + tail, b"")


def test_file_signed_twice_has_its_outer_signature_cut(tmp_path: Path) -> None:
    """As the kernel does: the outer one is over the file with the inner one."""
    found = open_file(written(tmp_path, ELF + trailer(b"inner") + trailer(b"outer")))
    assert parts(found) == (ELF + trailer(b"inner"), trailer(b"outer"))


@pytest.mark.parametrize("wrapping", ["none", *NAMES])
@pytest.mark.parametrize("sig_len", [len(ELF), len(ELF) + 1, (1 << 32) - 1])
def test_signature_larger_than_the_file_is_refused(wrapping: str, sig_len: int, tmp_path: Path) -> None:
    content = ELF + struct.pack(">BBBBB3xI", 0, 0, 2, 0, 0, sig_len) + MARKER
    line = f"the appended signature does not fit in the file: found {sig_len + 40} bytes, expected fewer than "
    assert refusal(tmp_path, wrap(wrapping, content)) == f"{line}{len(content)} – the file is corrupt"


def test_marker_with_no_room_for_sizes_is_refused(tmp_path: Path) -> None:
    content = b"\x7fELF" + MARKER
    assert refusal(tmp_path, content) == (
        "the appended signature does not fit in the file: found 40 bytes, expected fewer than 32 – the file is corrupt"
    )


@pytest.mark.parametrize("missing", [1, 64, 1000])
def test_signature_that_reaches_into_the_elf_file_is_refused_by_the_headers(missing: int, tmp_path: Path) -> None:
    """Where an ELF file ends only its headers say."""
    sign = struct.pack(">BBBBB3xI", 0, 0, 2, 0, 0, missing) + MARKER
    with pytest.raises(InputError) as caught:
        open_image(written(tmp_path, ELF + sign))
    assert "outside the file" in str(caught.value)


@pytest.mark.corpus
def test_debians_modules_are_signed(kernel: Callable[[str], kernels.Kernel]) -> None:
    for path in sorted(kernels.modules("arm64-6.12").rglob("*.ko.xz"))[::100]:
        assert open_file(str(path)).trailer.endswith(MARKER)


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    """A mapping keeps one of its own, for as long as somebody has the content."""
    before = len(os.listdir("/proc/self/fd"))
    for wrapping in ("none", *NAMES):
        found = open_file(written(tmp_path, wrap(wrapping, ELF)))
        assert len(os.listdir("/proc/self/fd")) <= before + 1
        del found
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "command",
    ["scan F", "check F", "check F --against F", "diff F F", "explain x F", "explain x --against F M", "image F -o OUT",
     "verify F F", "enable F --func x -o OUT", "disable F --func x -o OUT", "drop F --func x -o OUT"],
)  # fmt: skip
def test_every_verb_can_be_told_what_a_packed_file_may_unpack_to(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vmlinux.gz"
    path.write_bytes(gzip.compress((MINI / "vmlinux-callops").read_bytes()))
    places = {"F": str(path), "OUT": str(tmp_path / "out"), "M": str(MINI / "mini.ko"), "x": "mini_step"}
    code = run([*(places.get(word, word) for word in command.split()), "--max-size", "5000"])
    told = " ".join("".join(capsys.readouterr()).split())  # explain breaks lines
    assert "gzip data unpacks to too much: found more than 5000 bytes" in told and code in (0, 3)
