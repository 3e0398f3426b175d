"""The folder in which hostile command lines run: sound files, hostile ones, and what is there that is no file."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import lzma
import os
import random
import shutil
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from tools.hostile.values import BYTES

ROOT = Path(__file__).parents[2]
MINI, X86 = ROOT / "testdata" / "mini", ROOT / "testdata" / "x86_64"
Contents = dict[str, tuple[bytes, int]]  # of files by name: bytes and mode
Signature = tuple[int, int, int, int]  # type and mode, size, time of the last change of the bytes, inode


def build(top: Path) -> Contents:
    """Fill an empty folder, and go there; what its files hold."""
    os.chdir(top)
    _sound(top)
    kernel, module = (top / "vmlinux").read_bytes(), (top / "mini.ko").read_bytes()
    _hostile(top, kernel, module)
    _nodes(top)
    files = [path for path in top.iterdir() if path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1]
    small = {path.name: (path.read_bytes(), path.stat().st_mode) for path in files if path.stat().st_size < 1 << 26}
    return small | {"vmlinux": (kernel, 0o644)}


def restore(top: Path, sound: Contents, names: list[str]) -> None:
    """Give files back what they held."""
    for name in names:
        if name in ("vmlinux", "hard"):  # two names of one file
            (top / "hard").unlink(missing_ok=True)
            name = "vmlinux"
        if name in sound:
            data, mode = sound[name]
            (top / name).unlink(missing_ok=True)
            (top / name).write_bytes(data)
            (top / name).chmod(mode)
        if not (top / "hard").exists():
            os.link(top / "vmlinux", top / "hard")


def _sound(top: Path) -> None:
    from ftpatch.cli import run
    from tools.fuzz.seeds import offering

    for name, source in (("vmlinux", "vmlinux-callops"), ("other", "vmlinux-callops-bti"), ("mini.ko", "mini.ko"),
                         ("copy.ko", "mini.ko")):  # fmt: skip
        shutil.copyfile(MINI / source, top / name)
    (top / "vmlinux").write_bytes(offering()[0])  # a kernel with exports, which a module can be held against
    shutil.copy(ROOT / "testdata" / "stubs" / "arm64.S", top / "stub.S")
    shutil.copy(ROOT / "testdata" / "splats" / "arm64-6.1.txt", top / "splat")
    (top / "names").write_text("vfs_read\nvfs_write # two\n")
    (top / "config").write_text("CONFIG_FUNCTION_TRACER=y\nCONFIG_FUNCTION_ALIGNMENT=8\n")
    (top / "ftpatch.toml").write_text('[check]\nfail-on = "error"\n')
    (top / "baseline").write_text('{"baseline": 1, "records": {}, "findings": []}')
    (top / "tree").mkdir()
    shutil.copy(MINI / "mini.ko", top / "tree" / "mini.ko")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = run(["enable", "vmlinux", "--func", "vfs_*", "-o", "enabled", "--report", "json=journal"])
    assert code == 0
    _key(top / "key.pem")


def _key(path: Path) -> None:
    """A key and its certificate in one file."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, day = ec.generate_private_key(ec.SECP256R1()), datetime.datetime(2024, 1, 1)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hostile")])
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(day).not_valid_after(day + datetime.timedelta(1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    text = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(bytes(text) + bytes(certificate.public_bytes(pem)))


def _hostile(top: Path, kernel: bytes, module: bytes) -> None:
    import zstandard

    noise = random.Random(1).randbytes(5000)
    zeros = bytes(8 << 20)
    contents: dict[str, bytes] = {
        "empty": b"", "one-byte": b"\x7f", "text": b"#!/bin/sh\nexit 0\n", "noise": noise, "nulls": bytes(5000),
        "cut-1": kernel[:100], "cut-2": kernel[: len(kernel) // 2], "cut-3": kernel[:-1],
        "bom": b"\xef\xbb\xbf[check]\n",
        "long-line": b"a" * (1 << 20), "deep.json": b"[" * 100_000, "deep.toml": b"x = " + b"[" * 100_000,
        "wide.json": b"[" + b"0," * 300_000 + b"0]", "digits.json": b"[" + b"9" * 100_000 + b"]",
        "digits.toml": b"x = " + b"9" * 100_000, "keys.toml": b"a." * 50_000 + b"a = 1",
        "nan.json": b'{"a": NaN, "a": 1e999}',
        "bomb.gz": gzip.compress(zeros * 16), "bomb.xz": lzma.compress(zeros * 8), "gz-cut": gzip.compress(kernel)[:-9],
        "bomb.zst": zstandard.compress(zeros * 16), "xz-cut": lzma.compress(kernel)[:-9],
        "a\nb.ko": module, "\x1b[31mred.ko": module, "\u202eevil.ko": module, f"{BYTES}.ko": module,
        "hollow": kernel[:64] + bytes(len(kernel) - 64), "many-sections": _with_sections(kernel, 0xFE00),
        "one-address": _one_address(kernel), "read-only": b"x",
        "x86": (X86 / "vmlinux-fentry").read_bytes(), "x86.ko": (X86 / "mini.ko").read_bytes(),
        "x86-beside": _beside((X86 / "vmlinux-fentry").read_bytes()),
        "foreign-journal": json.dumps({"schema": 1, "command": "scan", "images": [{}]}).encode(),
    }  # fmt: skip
    for name, data in contents.items():
        (top / name).write_bytes(data)
    (top / "read-only").chmod(0o444)
    for name, head in (("huge", b""), ("huge-elf", kernel)):  # sparse
        with open(top / name, "wb") as file:
            file.write(head)
            file.truncate(1 << 40)
    (top / "bad-tree").mkdir()
    for name in ("noise", "empty", "cut-2", "bomb.xz", "a\nb.ko", f"{BYTES}.ko"):
        shutil.copy(top / name, top / "bad-tree" / (name.removesuffix(".ko") + ".ko"))


def _with_sections(kernel: bytes, n: int) -> bytes:
    """A kernel with a table of `n` section headers more, all executable and empty."""
    raw = bytearray(kernel)
    at, count = int(struct.unpack_from("<Q", raw, 40)[0]), int(struct.unpack_from("<H", raw, 60)[0])
    table = bytes(raw[at : at + 64 * count])
    table += struct.pack("<2I4Q2I2Q", 1, 1, 6, 0, 64, 0, 0, 0, 1, 0) * (n - count)
    struct.pack_into("<Q", raw, 40, len(raw))
    struct.pack_into("<H", raw, 60, n)
    return bytes(raw) + table


def _one_address(kernel: bytes) -> bytes:
    """A kernel whose functions all have one address."""
    from tools.fuzz.mutate import named_sections

    raw = bytearray(kernel)
    table = named_sections(kernel)[".symtab"]
    for row in range(table.offset, table.offset + table.size, 24):
        if raw[row + 4] & 15 == 2:
            struct.pack_into("<Q", raw, row + 8, 0xFFFF_8000_8000_05B8)
    return bytes(raw)


def _beside(kernel: bytes) -> bytes:
    """A kernel of bytes whose records lie from one to four bytes beside their sites, or overlap each other's."""
    from ftpatch.sites.records import START, STOP
    from tools.fuzz.mutate import named_sections

    raw, found = bytearray(kernel), named_sections(kernel)
    names, table, data = (found[name] for name in (".strtab", ".symtab", ".init.data"))
    start = struct.unpack_from("<Q", raw, data.pos + 16)[0]
    ends = {}
    for row in range(table.offset, table.offset + table.size, 24):
        name, _, _, _, value, _ = struct.unpack_from("<IBBHQQ", raw, row)
        at = names.offset + name
        ends[bytes(raw[at : raw.index(0, at)]).decode()] = data.offset + value - start
    for number, slot in enumerate(range(ends[START], ends[STOP], 8)):
        value = struct.unpack_from("<Q", raw, slot)[0]
        struct.pack_into("<Q", raw, slot, value + number % 5 if value else 0)
    return bytes(raw)


def _nodes(top: Path) -> None:
    """What is no file. Devices are made here, so that no fault can replace the system's."""
    os.mkfifo(top / "fifo")
    (top / "folder").mkdir()
    for name, minor in (("null", 3), ("zero", 5), ("full", 7)):
        try:
            os.mknod(top / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        except PermissionError:
            (top / name).symlink_to(f"/dev/{name}")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("socket")
    (top / "loop").symlink_to("loop")
    (top / "dangling").symlink_to("no/such")
    (top / "soft").symlink_to("vmlinux")
    (top / "through").symlink_to("vmlinux")
    os.link(top / "vmlinux", top / "hard")
    (top / "loop-tree").mkdir()
    (top / "loop-tree" / "up").symlink_to("..")


def state(top: Path) -> dict[str, Signature]:
    """What lies in the folder, and below it."""
    return {os.path.relpath(path, top): _signature(path) for path in _walk(str(top))}


def _walk(top: str) -> Iterator[str]:
    for entry in os.scandir(top):
        yield entry.path
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)


def _signature(path: str) -> Signature:
    status = os.lstat(path)
    if stat.S_ISDIR(status.st_mode):
        return status.st_mode, 0, 0, status.st_ino
    return status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino
