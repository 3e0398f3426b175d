"""What people hand over by mistake, and the whole line that each of them gets.

The files are built here, so that none of the tools that make real ones is needed; a stripped kernel also comes from
binutils where they are installed.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import json
import lzma
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from elfwriter import ALLOC, ET_REL, EXEC, RET, Elf, as_code

from ftpatch.cli import run

ROOT = Path(__file__).parents[1]
MINI = ROOT / "testdata" / "mini"
MINI_PPC = ROOT / "testdata" / "mini-ppc64le"
KERNEL = MINI / "vmlinux-callops"
UNCOMPRESSED = "give the uncompressed ELF vmlinux of the same build (Debian: the -dbg package)"
SHT_NOBITS = 8

Capture = pytest.CaptureFixture[str]


def scan(capsys: Capture, *paths: Path) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a scan in text."""
    capsys.readouterr()
    code = run(["scan", *map(str, paths)])
    out, err = capsys.readouterr()
    return code, out, err


def enable(capsys: Capture, path: Path, *more: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = run(["enable", str(path), "--func", "vfs_read", *more])
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys: Capture, path: Path, code: int, line: str) -> None:
    """`scan`, `enable` and `image` all say the same one line, and leave nothing behind."""
    expected = (code, "", f"ftpatch: {path}: {line}\n")
    before = sorted(path.parent.iterdir())
    assert scan(capsys, path) == expected
    assert enable(capsys, path) == expected
    assert enable(capsys, path, "-o", str(path.parent / "out")) == expected
    assert sorted(path.parent.iterdir()) == before


def headers(raw: bytes) -> dict[str, int]:
    """File position of every section header of a sound ELF64 file, by the section's name."""
    shoff = struct.unpack_from("<Q", raw, 40)[0]
    n, names = struct.unpack_from("<HH", raw, 60)
    at = [shoff + 64 * index for index in range(n)]
    strings = struct.unpack_from("<Q", raw, at[names] + 24)[0]
    starts = [strings + struct.unpack_from("<I", raw, pos)[0] for pos in at]
    return {raw[start : raw.index(0, start)].decode(): pos for start, pos in zip(starts, at, strict=True)}


def patched(raw: bytes, pos: int, kind: str, value: int) -> bytes:
    """A copy with one field changed."""
    copy = bytearray(raw)
    struct.pack_into("<" + kind, copy, pos, value)
    return bytes(copy)


def headers_package_vmlinux() -> bytes:
    """An ELF64 file with .BTF, a symbol table and no other section: what a headers package ships for its modules."""
    names = b"\0.BTF\0.symtab\0.strtab\0.shstrtab\0"
    btf = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 0, 0, 1) + b"\0"
    strings = b"\0linux_banner\0"
    symbols = bytes(24) + struct.pack("<IBBHQQ", 1, 0x11, 0, 0xFFF1, 0xFFFF800080000B18, 47)
    raw, at = bytearray(64), []
    for content in (btf, symbols, strings, names):
        raw += bytes(-len(raw) % 8)
        at.append((len(raw), len(content)))
        raw += content
    raw += bytes(-len(raw) % 8)
    shoff = len(raw)
    raw += bytes(64)
    for name, kind, (pos, size), link, entsize in zip(
        (b".BTF", b".symtab", b".strtab", b".shstrtab"), (1, 2, 3, 3), at, (0, 3, 0, 0), (0, 24, 0, 0), strict=True
    ):
        raw += struct.pack("<IIQQQQIIQQ", names.index(name), kind, 0, 0, pos, size, link, 0, 8, entsize)
    struct.pack_into(
        "<4sBBB9xHHIQQQIHHHHHH", raw, 0, b"\x7fELF", 2, 1, 1, 2, 183, 1, 0, 0, shoff, 0, 64, 56, 0, 64, 5, 4
    )
    return bytes(raw)


# -- the table -------------------------------------------------------------------------------------------------


def at(pos: int, magic: bytes, before: bytes = b"") -> bytes:
    """1 KiB with a magic at some position."""
    return (before.ljust(pos, b"\xaa") + magic).ljust(1024, b"\xaa")


def kernel(pos: int, kind: str, value: int, of: Path = KERNEL) -> bytes:
    """A kernel with one field of its ELF header changed."""
    return patched(of.read_bytes(), pos, kind, value)


def without_contents() -> bytes:
    """`objcopy --only-keep-debug` leaves every section header and makes all loaded sections NOBITS."""
    raw = KERNEL.read_bytes()
    for name, pos in headers(raw).items():
        if struct.unpack_from("<Q", raw, pos + 8)[0] & 2 and name != ".notes":
            raw = patched(raw, pos + 4, "I", SHT_NOBITS)
    return raw


def without_symbols() -> bytes:
    raw = KERNEL.read_bytes()
    return patched(raw, headers(raw)[".symtab"] + 4, "I", 1)


def relocatable(*sections: str, text: bytes | None = None) -> bytes:
    """An object with these sections of data, and .text with this code."""
    elf = Elf(ET_REL)
    if text is not None:
        elf.section(".text", text, flags=ALLOC | EXEC, align=4)
    for name in sections:
        elf.section(name, b"data")
    return elf.build()


def lto_object(fat: bool) -> bytes:
    """What gcc -flto makes: its own language, and beside it an empty .text or with -ffat-lto-objects code."""
    return relocatable(".gnu.lto_.symtab.1", ".gnu.lto_foo.0.1", text=as_code([RET]) if fat else b"")


CPIO = b"070701" + b"0" * 104
AR = b"!<arch>\n" + b"pfe2.o/".ljust(48) + b"4".ljust(10) + b"`\n" + b"abcd"
LZ4_LEGACY = b"\x02\x21\x4c\x18" + struct.pack("<I", 6) + b"\x50hello"  # what a kernel's lz4 -l makes
LZ4_FRAME = b"\x04\x22\x4d\x18\x64\x40\xa7\x06\x00\x00\x80hello\n\x00\x00\x00\x00"  # what lz4 itself makes
ZSTD = b"\x28\xb5\x2f\xfd\x00\x58\x31\x00\x00hello\n"
INITRAMFS = "a cpio archive (an initramfs) – unpack it (cpio -id) and give the vmlinux or module inside"
THIN = (
    "a thin ar archive (kbuild's built-in.a), which only names its objects – give one of the objects that ar t lists, "
    "or vmlinux.o"
)
NO_CODE_YET = (
    "(clang -flto), which has no machine code yet – give the vmlinux or module that the linker made of it, or an "
    "object built without -flto"
)
OTHER_SYSTEM = "ftpatch reads the ELF files of Linux kernels: give a vmlinux, module or object"
SYMBOLS = "a list of symbols (System.map, /proc/kallsyms or nm's) – give the vmlinux that it was made of"
KCONFIG = "a kernel configuration – give it to --kconfig, and here the vmlinux that was built from it"
NO_BASE = (
    "the kernel does not tell at which address it is linked: expected relocation tables, or pointers to its own "
    "strings – the file is damaged, or give the vmlinux of the same build"
)
IRREGULAR = "is not a regular file – copy its content to a file first"
NOT_64_BIT = "not a 64-bit ELF file: found EI_CLASS 1, expected 2 (ELFCLASS64) – give the vmlinux of a 64-bit kernel"
BIG_ENDIAN = (
    "not a little-endian ELF file: found EI_DATA 2, expected 1 (ELFDATA2LSB) – give the vmlinux of a little-endian "
    "kernel"
)
MACHINES = "expected 183 (arm64), 21 (ppc64le), 62 (x86_64) – give a kernel, module or object of one of these"
NO_KERNEL = "not a kernel, module, object or program: found e_type {}, expected ET_REL, ET_EXEC or ET_DYN"
HEADERS_ONLY = (
    "no text at all: found type information only (a headers package's vmlinux), expected a kernel – use the vmlinux of "
    "the debug package"
)
DEBUG_ONLY = (
    "text without contents: found a debug-only file (NOBITS text), expected code – use the file that it is the debug "
    "companion of"
)
STRIPPED = (
    "no symbol table: found a stripped ELF file, expected .symtab – use the vmlinux of the build tree or of the debug "
    "package (stripping debug info alone is fine)"
)


def no_elf(found: str) -> str:
    return f"not an ELF file: found {found}"


def contradicts(kind: str, found: str) -> str:
    return f"{kind} whose header contradicts the file: found {found} – the file is corrupt or cut"


def first_bytes(found: str) -> str:
    return no_elf(f"first bytes {found}, expected 7f 45 4c 46 – {UNCOMPRESSED}")


def text(start: str) -> str:
    return no_elf(f'text that begins "{start}", expected 7f 45 4c 46 – {UNCOMPRESSED}')


def machine(found: str) -> str:
    return f"machine not supported: found e_machine {found}, {MACHINES}"


def no_layout(found: str) -> str:
    return (
        f"no single site layout explains the records: found {found}, expected one layout in the whole image – --layout "
        "NAME forces one"
    )


# What lies in the file, or what makes it; the exit code and the whole line.
FILES: list[tuple[str, bytes | Callable[[Path], object], int, str]] = [
    # no file at all
    ("empty", b"", 3, "is an empty file: expected an ELF vmlinux, module or object – build or copy it again"),
    ("missing", lambda path: None, 3, "cannot be read: No such file or directory"),
    ("symlink-to-itself", lambda path: path.symlink_to(path), 3, "cannot be read: Too many levels of symbolic links"),
    ("fifo-is-not-waited-for", os.mkfifo, 3, IRREGULAR),
    # recognised by its magic
    ("raw-arm64-image", at(56, b"ARM\x64", b"MZ"), 3, NO_BASE),
    ("raw-arm64-image-without-efi-stub", at(56, b"ARM\x64"), 3, NO_BASE),
    ("image-that-we-made", lambda path: run(["image", str(KERNEL), "-o", str(path)]), 3, NO_BASE),
    ("efi-zboot", at(4, b"zimg", b"MZ\0\0"), 3, contradicts("an EFI zboot image",
     "a payload at 0xaaaaaaaa with 0xaaaaaaaa bytes, expected an end within 0x400 bytes")),
    ("x86-bzimage", at(0x202, b"HdrS", b"MZ"), 3, contradicts("an x86 bzImage",
     "a payload at 0xaaac00aa with 0xaaaaaaaa bytes, expected an end within 0x400 bytes")),
    ("arm-zimage", at(0x24, b"\x18\x28\x6f\x01"), 3,
     no_elf("a 32-bit ARM zImage – ftpatch reads 64-bit kernels; give an ELF vmlinux")),
    ("lzma", lzma.compress(b"hello", lzma.FORMAT_ALONE), 3, first_bytes("68 65 6c 6c 6f inside lzma data")),
    ("bzip2", bz2.compress(b"hello"), 3, first_bytes("68 65 6c 6c 6f inside bzip2 data")),
    ("lz4-of-a-kernel", LZ4_LEGACY, 3, first_bytes("68 65 6c 6c 6f inside lz4 data")),
    # `lz4 vmlinux` writes frames; only kernel builds use the legacy format with another magic
    ("lz4-frame", LZ4_FRAME, 3, "lz4 data ends too early: found 21 bytes – the file is truncated"),
    ("lzo", at(0, b"\x89LZO\0\r\n\x1a\n"), 3, "lzo data cannot be unpacked: found method 170 with flags 0xaaaaaaaa – "
     "the file is corrupt, or only its own program reads it"),
    # a thin archive is what kbuild's built-in.a is
    ("thin-archive", b"!<thin>\n" + AR[8:], 3, no_elf(THIN)),
    ("deb", b"!<arch>\ndebian-binary   1410122664  0     0     100644  4         `\n2.0\n", 3, no_elf(
        "a Debian package – unpack it (dpkg-deb -x) and give the vmlinux or module inside")),
    ("rpm", at(0, b"\xed\xab\xee\xdb\x03"), 3, no_elf(
        "an RPM package – unpack it (rpm2cpio FILE | cpio -id) and give the vmlinux or module inside")),
    ("tar", at(257, b"ustar\x0000", b"boot/vmlinux".ljust(100, b"\0")), 3, no_elf(
        "a tar archive – unpack it (tar -xf) and give the vmlinux or module inside")),
    ("zip", at(0, b"PK\x03\x04"), 3, no_elf("a zip archive – unpack it (unzip) and give the vmlinux or module inside")),
    ("7z", at(0, b"7z\xbc\xaf\x27\x1c"), 3, no_elf(
        "a 7z archive – unpack it (7z x) and give the vmlinux or module inside")),
    ("squashfs", at(0, b"hsqs"), 3, no_elf(
        "a squashfs image – unpack it (unsquashfs) and give the vmlinux or module inside")),
    ("initramfs", CPIO, 3, no_elf(INITRAMFS)),
    ("initramfs-with-checksums", b"070702" + CPIO[6:], 3, no_elf(INITRAMFS)),
    ("initramfs-in-gzip", gzip.compress(CPIO, mtime=0), 3, no_elf(INITRAMFS.replace(" – ", " inside gzip data – "))),
    ("llvm-bitcode", b"BC\xc0\xde5\x14\0\0", 3, no_elf(f"LLVM bitcode {NO_CODE_YET}")),
    ("llvm-bitcode-wrapped", b"\xde\xc0\x17\x0b" + bytes(16), 3, no_elf(f"wrapped LLVM bitcode {NO_CODE_YET}")),
    ("mach-o", b"\xcf\xfa\xed\xfe\x0c\0\0\x01" + bytes(24), 3, no_elf(f"a Mach-O file – {OTHER_SYSTEM}")),
    ("mach-o-big-endian", b"\xfe\xed\xfa\xcf" + bytes(24), 3, no_elf(f"a Mach-O file – {OTHER_SYSTEM}")),
    ("mach-o-fat", b"\xca\xfe\xba\xbe" + bytes(24), 3,
     no_elf(f"a Mach-O fat file or a Java class – {OTHER_SYSTEM}")),
    ("coff-arm64", b"\x64\xaa\x03\0" + bytes(16) + b"\0\0", 3, no_elf(f"a COFF object of Windows – {OTHER_SYSTEM}")),
    ("coff-x86", b"\x64\x86\x03\0" + bytes(16) + b"\0\0", 3, no_elf(f"a COFF object of Windows – {OTHER_SYSTEM}")),
    ("wasm", b"\0asm\x01\0\0\0", 3, no_elf(f"a WebAssembly module – {OTHER_SYSTEM}")),
    ("pch", b"gpchCyyd", 3, no_elf(f"a precompiled header of gcc – {OTHER_SYSTEM}")),
    ("rust-metadata", b"rust\0\0\0\x09", 3, no_elf(
        "metadata of a Rust crate – give the object that rustc made beside it (--emit=obj)")),
    ("raw-btf", b"\x9f\xeb\x01\0\x18\0\0\0", 3, no_elf(
        "raw BTF type information – give the vmlinux or module that it was taken from")),
    ("kdump", at(0, b"KDUMP   \x06\0\0\0"), 3, no_elf(
        "a compressed crash dump – give the vmlinux of the kernel that crashed")),
    ("perf", at(0, b"PERFILE2"), 3, no_elf("a perf.data file – give the vmlinux of the kernel that was measured")),
    ("riscv-image", at(0x30, b"RISCV\0\0\0RSC\x05", b"MZ"), 3, no_elf(
        "a raw boot Image of another machine – ftpatch reads arm64, ppc64le and x86_64 kernels; give their ELF "
        "vmlinux")),
    ("vendor-boot", at(0, b"VNDRBOOT"), 3, "a vendor_boot image has no kernel: found device trees and a ramdisk, "
     "expected boot.img – give the boot.img of the same build"),
    ("system-map", b"ffff800080000000 T _text\nffff800080000000 t .head.text\n", 3, no_elf(SYMBOLS)),
    ("system-map-of-absolute-names", b"0000000000000000 A VDSO64_PRELINK\n", 3, no_elf(SYMBOLS)),
    ("kallsyms", b"0000000000000000 t dummy_xmit\t[dummy]\n", 3, no_elf(SYMBOLS)),
    ("nm-of-an-object", b"                 U _mcount\n0000000000000000 T foo\n", 3, no_elf(SYMBOLS)),
    ("config", b"#\n# Automatically generated file; DO NOT EDIT.\n# Linux/arm64 6.12.107\n", 3, no_elf(KCONFIG)),
    ("config-short", b"CONFIG_MODULES=y\n# CONFIG_FTRACE is not set\n", 3, no_elf(KCONFIG)),
    ("config-of-nothing-set", b"# CONFIG_FTRACE is not set\nCONFIG_X=m\n", 3, no_elf(KCONFIG)),
    ("module-symvers", b"0x9c7e5a12\t_printk\tvmlinux\tEXPORT_SYMBOL\t\n", 3, no_elf(
        "a Module.symvers – give the vmlinux or module that it lists")),
    ("journal", b'{"schema": 1, "command": "enable", "images": []}', 3, no_elf(
        "a JSON report of ftpatch – give the file that it is of; --journal takes a report")),
    ("git-lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", 3, no_elf(
        "a Git LFS pointer – git lfs pull brings the file itself")),
    ("ar-archive", AR, 3, no_elf("an ar archive – give one of its members, or vmlinux.o")),
    ("empty-ar-archive", b"!<arch>\n", 3, no_elf("an ar archive – give one of its members, or vmlinux.o")),
    ("u-boot", at(0, b"\x27\x05\x19\x56"), 3, contradicts("a U-Boot uImage",
     "CRC32 0x88dbe5f6 of the header, expected 0xaaaaaaaa")),
    ("device-tree", at(0, b"\xd0\x0d\xfe\xed"), 3, no_elf("a device tree or FIT image – take the kernel out of a FIT "
     "image (dumpimage -T flat_dt -p 0 -o kernel FILE) and give that")),
    ("android", at(0, b"ANDROID!"), 3, contradicts("an Android boot image",
     "a header at 0x0 with 0x67c bytes, expected an end within 0x400 bytes")),
    ("efi-program", at(0, b"MZ"), 3, no_elf(f"a PE/EFI executable – {UNCOMPRESSED}")),
    # unknown
    ("text", b"hello, world\n", 3, text("hello, world")),
    ("long-text", b"obj-$(CONFIG_X) += some.o others.o\n", 3, text("obj-$(CONFIG_X) += some.…")),
    ("text-like-a-system-map", b"ffff8000 80000000 T _text\n", 3, text("ffff8000 80000000 T _tex…")),
    ("script", b"#!/bin/sh\nexit 0\n", 3, no_elf(f"a script – {UNCOMPRESSED}")),
    ("bell-in-text", b"hello\x07 world\n", 3, first_bytes("68 65 6c 6c 6f 07 20 77")),
    ("one-byte", b"\x7f", 3, first_bytes("7f")),
    ("three-bytes-of-the-magic", b"\x7fEL", 3, first_bytes("7f 45 4c")),
    ("magic-with-a-wrong-letter", b"\x7fELG" + bytes(60), 3, first_bytes("7f 45 4c 47 00 00 00 00")),
    ("zeros", bytes(4096), 3, first_bytes("00 00 00 00 00 00 00 00")),
    ("gzip", gzip.compress(b"hello", mtime=0), 3, first_bytes("68 65 6c 6c 6f inside gzip data")),
    ("xz", lzma.compress(b"hello"), 3, first_bytes("68 65 6c 6c 6f inside xz data")),
    ("zstd", ZSTD, 3, first_bytes("68 65 6c 6c 6f 0a inside zstd data")),
    # other ELF files
    ("elf-magic-alone", b"\x7fELF", 3, "ELF header lies outside the file: found bytes 0x0..0x10, expected at most 0x4 "
     "– the file is truncated or corrupt"),
    ("32-bit", kernel(4, "B", 1), 4, NOT_64_BIT),
    ("32-bit-header-of-52-bytes", b"\x7fELF\x01\x01\x01".ljust(52, b"\0"), 4, NOT_64_BIT),
    ("big-endian", kernel(5, "B", 2), 4, BIG_ENDIAN),
    # the ELFv1 kernels of older machines have the same e_machine, its bytes swapped
    ("big-endian-ppc64", patched(kernel(5, "B", 2, MINI_PPC / "vmlinux-mprofile"), 18, "H", 0x1500), 4, BIG_ENDIAN),
    ("s390", kernel(18, "H", 22), 4, machine("22 (s390)")),
    ("riscv", kernel(18, "H", 243), 4, machine("243 (riscv)")),
    ("sparc64", kernel(18, "H", 43), 4, machine("43 (sparc64)")),
    ("ppc-32-bit", kernel(18, "H", 20), 4, machine("20 (ppc 32-bit)")),
    ("s390", kernel(18, "H", 22), 4, machine("22 (s390)")),
    ("arm-32-bit", kernel(18, "H", 40), 4, machine("40 (arm 32-bit)")),
    ("bpf", kernel(18, "H", 247), 4, machine("247 (unknown)")),
    ("arm64-with-the-machine-of-ppc64le", kernel(18, "H", 21), 4, no_layout(
        "mprofile 0, pfe2 0, ool 0, pfe-between 0, ool-global 0, pfe2-global 0, mcount 0, none of them 16 "
        "(row 3 at 0xffff8000800005b8: d503201f d503201f d503201f d503201f; "
        "row 4 at 0xffff8000800005e8: d503201f d503201f d503201f d503201f; "
        "row 5 at 0xffff800080000600: d503201f d503201f d503201f d503201f)")),
    ("ppc64le-with-the-machine-of-arm64", kernel(18, "H", 183, MINI_PPC / "vmlinux-ool"), 4, no_layout(
        "callops 0, pfe2 0, mcount 0, none of them 32 "
        "(row 0 at 0xc000000000000210: 60000000 39200004 39000000 7d2903a6; "
        "row 1 at 0xc000000000000260: 60000000 7c6d1b78 4e800020 60000000; "
        "row 2 at 0xc000000000000278: 60000000 60000000 39000014 e922a550)")),
    ("core", kernel(16, "H", 4), 3,
     NO_KERNEL.format("4 (a core or crash dump)") + " – give the vmlinux of the kernel that crashed"),
    ("gcc-lto-slim", lto_object(fat=False), 3,
     "no code yet: found GCC's intermediate language (-flto), expected code – "
     "give the vmlinux or module that the linker made of it, or an object built with -ffat-lto-objects"),
    ("split-debug-information", relocatable(".debug_info.dwo", ".debug_abbrev.dwo"), 3, "no text at all: found split "
     "debug information (.dwo), expected code – use the object that it was split from"),
    ("no-type", kernel(16, "H", 0), 3, NO_KERNEL.format(0)),
    ("no-sections", kernel(40, "Q", 0), 3, "neither kallsyms nor records in the kernel – give the vmlinux of the same "
     "build"),
    ("debug-companion", without_contents(), 3, DEBUG_ONLY),
    ("debug-companion-of-ppc64le", (MINI_PPC / "debug-only.ko").read_bytes(), 3, DEBUG_ONLY),
    ("headers-package", headers_package_vmlinux(), 3, HEADERS_ONLY),
    ("headers-package-of-ppc64le", (MINI_PPC / "headers-vmlinux").read_bytes(), 3, HEADERS_ONLY),
    ("kernel-without-symbol-table", without_symbols(), 5, STRIPPED),
]  # fmt: skip


@pytest.mark.parametrize("made,code,line", [pytest.param(*row[1:], id=row[0]) for row in FILES])
def test_what_is_no_kernel_is_refused_by_every_verb(
    made: bytes | Callable[[Path], object], code: int, line: str, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "vmlinux"
    if isinstance(made, bytes):
        path.write_bytes(made)
    else:
        made(path)
    refused(capsys, path, code, line)


# -- no file, and what other programs make ---------------------------------------------------------------------


def test_directory_is_refused_where_one_file_is_wanted(tmp_path: Path, capsys: Capture) -> None:
    """A scan takes it for a tree of modules: test_tree.py."""
    path = tmp_path / "linux-6.12"
    path.mkdir()
    line = f"ftpatch: {path}: is a directory, not a regular file – name the vmlinux or module inside it\n"
    assert enable(capsys, path) == (3, "", line)


def test_missing_default_file_is_named(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert scan(capsys) == (
        3,
        "",
        "ftpatch: vmlinux: cannot be read: No such file or directory – name the file to read\n",
    )


def test_path_through_a_file_is_refused(capsys: Capture) -> None:
    assert scan(capsys, KERNEL / "vmlinux") == (
        3, "", f"ftpatch: {KERNEL}/vmlinux: cannot be read: Not a directory\n",
    )  # fmt: skip


def test_device_is_refused(capsys: Capture) -> None:
    line = "ftpatch: /dev/null: is not a regular file – copy its content to a file first\n"
    assert scan(capsys, Path("/dev/null")) == (3, "", line)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file; any other user runs this test")
def test_file_without_permission_is_refused(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "vmlinux"
    shutil.copy(KERNEL, path)
    path.chmod(0)
    refused(capsys, path, 3, "cannot be read: Permission denied")


READ = {"gzip": ["-c"], "xz": ["-c"], "zstd": ["-c", "-q"], "bzip2": ["-c"], "lz4": ["-c", "-q", "-l"]}


def pack(tool: str, options: list[str], path: Path) -> None:
    """The kernel, packed by a program."""
    if shutil.which(tool) is None:
        pytest.skip(f"needs the program {tool}")
    path.write_bytes(subprocess.run([tool, *options, str(KERNEL)], capture_output=True, check=True).stdout)


@pytest.mark.parametrize("tool", sorted(READ))
def test_kernel_packed_by_the_real_tool_is_read(tool: str, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "vmlinux"
    shutil.copy(KERNEL, path)
    expected = scan(capsys, path)
    pack(tool, READ[tool], path)
    code, out, err = scan(capsys, path)
    # what only kernels come in is a layer, and is named
    assert (code, out.replace(f" inside {tool} data", "", tool in ("bzip2", "lz4")), err) == expected


def strip(kernel: Path, path: Path, *options: str) -> None:
    """By binutils for the machine of the kernel."""
    name = f"{'powerpc64le' if kernel.parent == MINI_PPC else 'aarch64'}-linux-gnu-strip"
    tool = shutil.which(name)
    if tool is None:
        pytest.skip(f"needs {name} of binutils")
    subprocess.run([tool, *options, "-o", str(path), str(kernel)], check=True, capture_output=True)


@pytest.mark.parametrize(
    "kernel",
    [*(MINI / f"vmlinux-{name}" for name in ("callops", "pfe2", "exec", "kcfi", "pg")),
     *(MINI_PPC / f"vmlinux-{name}" for name in ("ool", "far", "mprofile", "clang"))],
    ids=lambda path: f"{path.parent.name}-{path.name}",
)  # fmt: skip
def test_kernel_stripped_by_binutils_is_refused(kernel: Path, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "vmlinux"
    strip(kernel, path)
    refused(capsys, path, 5, STRIPPED)


@pytest.mark.parametrize(
    "kernel,line",
    [pytest.param(KERNEL, "  records    19 slots, 3 null, 16 live\n", id="arm64"),
     pytest.param(MINI_PPC / "vmlinux-ool", "  records    32 slots, 0 null, 32 live\n", id="ppc64le")],
)  # fmt: skip
def test_kernel_without_debug_information_alone_is_read(
    kernel: Path, line: str, tmp_path: Path, capsys: Capture
) -> None:
    """As STRIPPED promises."""
    path = tmp_path / "vmlinux"
    strip(kernel, path, "-g")
    code, out, err = scan(capsys, path)
    assert (code, err) == (0, "")
    assert line in out


def test_kernel_without_function_tracer_has_no_slots(capsys: Capture) -> None:
    path = MINI / "vmlinux-notrace"
    assert run(["scan", "--format", "json", str(path)]) == 0
    out, err = capsys.readouterr()
    image = json.loads(out)["images"][0]
    assert err == ""
    assert (image["layout"], image["carrier"], image["sites"]) == ("none", "none", [])
    assert image["summary"] == {
        "slots": 0, "null": 0, "live": 0, "by_section": {}, "by_status": {}, "without_record": 0, "with_skip": 0,
        "boot": None, "reach": None,
    }  # fmt: skip
    assert "  at boot    no function tracer in this kernel (CONFIG_FUNCTION_TRACER is off)\n" in scan(capsys, path)[1]


# A sound file, a function in it, the exit code and the whole line of `enable`.
UNPATCHABLE: list[tuple[str, Path, str, int, str]] = [
    ("no-function-tracer", MINI / "vmlinux-notrace", "vfs_read", 5,
     "vfs_read: the function has no patch site: found a symbol without record, expected a traceable function – it is "
     "notrace, assembly, or was dropped from the table"),
    ("object", MINI / "pfe2.o", "vfs_read", 5, f"{MINI / 'pfe2.o'}: nothing says what the sites call: expected "
     "--target SYMBOL – ftrace_caller is the kernel's own, and keeps what its entries keep"),
    ("no-call-reaches-the-site", MINI_PPC / "vmlinux-unreachable", "island", 5,
     f"{MINI_PPC / 'vmlinux-unreachable'}: 1 of 1 chosen sites cannot be patched: found island (row 20, "
     ".text.island+0x8): out of reach: -0x27ff780 bytes to ftrace_caller, -0x27ff494 to ftrace_tramp_text, +0x28008e4 "
     "to ftrace_tramp_init, -0x27ff46c to text tail, +0x27fffd4 to gap before init text, a call spans "
     "-0x2000000..+0x1fffffc, expected all of them, or nothing is written – --skip-unpatchable patches the others"),
]  # fmt: skip


@pytest.mark.parametrize("path,func,code,line", [pytest.param(*row[1:], id=row[0]) for row in UNPATCHABLE])
def test_what_cannot_be_enabled_is_refused_with_the_reason(
    path: Path, func: str, code: int, line: str, tmp_path: Path, capsys: Capture
) -> None:
    found = run(["enable", str(path), "--func", func, "-o", str(tmp_path / "out")])
    assert (found, *capsys.readouterr()) == (code, "", f"ftpatch: {line}\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "fixture,layout,reason",
    [("vmlinux-gcc12", "pfe2-global", "the NOPs stand in front of the set-up of r2, which is then off by 8: code that "
      "gcc 12 breaks"),
     ("vmlinux-nm", "pfe-between", "NOPs between the global and the local entry (N,M): no kernel patches those")],
)  # fmt: skip
def test_enabling_a_ppc64le_layout_that_cannot_work_is_refused_with_the_reason(
    fixture: str, layout: str, reason: str, tmp_path: Path, capsys: Capture
) -> None:
    path = MINI_PPC / fixture
    code, out, _ = scan(capsys, path)
    assert code == 0 and f"  layout     {layout}: " in out and "  status     ready 28, weak-leftover 4\n" in out
    assert enable(capsys, path, "-o", str(tmp_path / "out")) == (
        4, "",
        f"ftpatch: {path}: layout {layout} cannot be enabled on disk: found {reason}, expected "
        "-fpatchable-function-entry\n",
    )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_a_status_that_does_not_exist_is_a_usage_error(tmp_path: Path, capsys: Capture) -> None:
    code, out, err = enable(capsys, KERNEL, "--status", "dead", "-o", str(tmp_path / "out"))
    assert (code, out) == (2, "")
    assert "--status: no such value: found" in err
    assert not list(tmp_path.iterdir())


# -- several at once, and strange words ------------------------------------------------------------------------


def test_bad_file_does_not_hide_the_good_one(tmp_path: Path, capsys: Capture) -> None:
    text, riscv, missing = tmp_path / "System.map", tmp_path / "riscv", tmp_path / "missing"
    text.write_text("ffff800080000000 T _text\n")
    riscv.write_bytes(patched(KERNEL.read_bytes(), 18, "H", 243))
    code = run(["scan", "--format", "json", str(text), str(KERNEL), str(riscv), str(missing), str(MINI / "pfe2.o")])
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert code == 4
    lines = [
        (str(text), 3, no_elf(SYMBOLS)),
        (str(riscv), 4, "machine not supported: found e_machine 243 (riscv), " + MACHINES),
        (str(missing), 3, "cannot be read: No such file or directory"),
    ]  # fmt: skip
    assert err == "".join(f"ftpatch: {file}: {line}\n" for file, _, line in lines)
    assert document["errors"] == [
        {"file": file, "code": code, "message": f"{file}: {line}"} for file, code, line in lines
    ]
    assert [(image["file"], image["summary"]["live"]) for image in document["images"]] == [
        (str(KERNEL), 16), (str(MINI / "pfe2.o"), 8),
    ]  # fmt: skip


def test_a_fat_object_of_gcc_lto_is_read(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "fat.o"
    path.write_bytes(lto_object(fat=True))
    code, out, err = scan(capsys, path)
    assert (code, err) == (0, "") and "none: no patch sites" in out


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_greatest_code_of_several_files_counts_in_any_order(
    order: tuple[int, int], tmp_path: Path, capsys: Capture
) -> None:
    stripped, empty = tmp_path / "stripped", tmp_path / "empty"
    raw = KERNEL.read_bytes()
    stripped.write_bytes(patched(raw, headers(raw)[".symtab"] + 4, "I", 1))
    empty.touch()
    code, out, _ = scan(capsys, *[(stripped, empty)[i] for i in order], KERNEL)
    assert code == 5
    assert out.startswith(f"{KERNEL}: arm64 vmlinux, build-id 1a6c759f2a3cf1b81d2f30d8fe40211a057ec94d\n")


def test_one_line_even_for_a_name_with_line_breaks(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "vm\nlinux\x1b[31m"
    path.touch()
    code, _, err = scan(capsys, path)
    line = "is an empty file: expected an ELF vmlinux, module or object – build or copy it again"
    assert (code, err) == (3, f"ftpatch: {tmp_path}/vm\\x0alinux\\x1b[31m: {line}\n")


def test_full_disk_leaves_nothing_behind(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    out = tmp_path / "out"
    line = f"ftpatch: {out}: cannot be written: No space left on device\n"
    assert enable(capsys, KERNEL, "-o", str(out)) == (3, "", line)
    assert not list(tmp_path.iterdir())


def test_output_that_cannot_be_finished_leaves_the_older_one(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object, __: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "replace", broken)
    out = tmp_path / "out"
    out.write_text("older")
    line = f"ftpatch: {out}: cannot be written: Input/output error\n"
    assert enable(capsys, KERNEL, "-o", str(out)) == (3, "", line)
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    assert out.read_text() == "older"


def in_a_process(*arguments: str | bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    line = [sys.executable, "-m", "ftpatch", *arguments]
    return subprocess.run(line, cwd=ROOT, env=os.environ | environment, capture_output=True, check=False)


def test_file_name_that_is_no_utf8_is_reported(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.elf"
    shutil.copy(os.fsencode(KERNEL), path)
    done = in_a_process("scan", path, PYTHONIOENCODING="utf-8:strict")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b": arm64 vmlinux, build-id 1a6c759f2a3cf1b81d2f30d8fe40211a057ec94d\n" in done.stdout


def test_report_fits_a_terminal_of_latin_1(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = in_a_process("enable", str(KERNEL), "--func", "*", "-o", str(out), PYTHONIOENCODING="latin-1:strict")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("verb", ["scan", "check"])
def test_a_locale_of_ascii_changes_no_report(verb: str) -> None:
    """The texts of the rules were read as the locale has it: `check` ended in a traceback under LC_ALL=POSIX."""
    lines = [verb, str(KERNEL), "--format", "sarif" if verb == "check" else "text"]
    ascii_only = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done, usual = in_a_process(*lines, **ascii_only, PYTHONIOENCODING="utf-8"), in_a_process(*lines)
    assert (done.returncode, done.stdout, done.stderr) == (0, usual.stdout, b"")


def replaces(path: Path) -> str:
    return f"ftpatch: {path}: the report would replace another file of this run – name another report file\n"


@pytest.mark.parametrize("verb", ["scan", "enable"])
def test_report_onto_the_input_is_a_usage_error(verb: str, tmp_path: Path, capsys: Capture) -> None:
    """`--report json=vmlinux` must not destroy a kernel that took an hour to build."""
    path = tmp_path / "vmlinux"
    shutil.copy(KERNEL, path)
    more = ["-o", str(tmp_path / "out")] if verb == "enable" else []
    code = run([verb, str(path), "--func", "vfs_read", *more, "--report", f"json={path}"])
    out, err = capsys.readouterr()
    assert path.read_bytes() == KERNEL.read_bytes()
    assert (code, out, err) == (2, "", replaces(path))
    assert [file.name for file in tmp_path.iterdir()] == ["vmlinux"]


@pytest.mark.parametrize("link", ["symlink", "hard link"])
def test_report_onto_another_name_of_the_input_does_not_lose_the_input(
    link: str, tmp_path: Path, capsys: Capture
) -> None:
    path, other = tmp_path / "vmlinux", tmp_path / "link"
    shutil.copy(KERNEL, path)
    if link == "symlink":
        other.symlink_to(path)
    else:
        other.hardlink_to(path)
    code = run(["scan", str(path), "--report", f"csv={other}"])
    assert path.read_bytes() == KERNEL.read_bytes()
    if link == "symlink":  # a report that is renamed over a hard link leaves the input under its own name
        assert code == 2
        assert capsys.readouterr() == ("", replaces(other))


def test_report_onto_the_output_is_a_usage_error(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    assert enable(capsys, KERNEL, "-o", str(out), "--report", f"json={out}") == (2, "", replaces(out))
    assert not list(tmp_path.iterdir())


def test_two_reports_onto_one_file_are_a_usage_error(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "report"
    code = run(["scan", str(KERNEL), "--report", f"json={path}", "--report", f"csv={path}"])
    assert (code, *capsys.readouterr()) == (2, "", replaces(path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["--target", "0x10000000000000000"], id="target-of-65-bits"),
        pytest.param(["--target", "0x" + "f" * 400], id="target-of-1600-bits"),
        pytest.param(["--target", "0x-1"], id="target-negative"),
        pytest.param(["--target", "0x"], id="target-without-digits"),
        pytest.param(["--target", "0xzz"], id="target-of-letters"),
        pytest.param(["--target", "0"], id="target-0"),
        pytest.param(["--func", "row:" + "1" * 5000], id="row-of-5000-digits"),
        pytest.param(["--func", "row:99999999999999999999"], id="row-of-20-digits"),
        pytest.param(["--func", "/a{99999999999999}/"], id="regex-with-a-huge-count"),
        pytest.param(["--func", "/" + "(" * 5000 + ")" * 5000 + "/"], id="regex-too-deep"),
        pytest.param(["--func", "/(/"], id="regex-open"),
        pytest.param(["--func", "0x" + "f" * 17], id="address-of-17-digits"),
        pytest.param(["--func", ".text+0xffffffffffffffff"], id="offset-max"),
        pytest.param(["--func", ""], id="empty"),
        pytest.param(["--func", "!"], id="not-nothing"),
        pytest.param(["--func", "!*"], id="not-everything"),
        pytest.param(["--func", "[z-a]"], id="reversed-range"),
        pytest.param(["--section", ".none"], id="no-such-section"),
        pytest.param(["--ops", "vfs_write"], id="ops-is-a-function"),
        pytest.param(["--layout", "pfe2"], id="layout-of-another-kernel"),
    ],
)  # fmt: skip
def test_strange_words_on_the_command_line_are_refused_in_one_line(
    words: list[str], tmp_path: Path, capsys: Capture
) -> None:
    code, out, err = enable(capsys, KERNEL, *words, "-o", str(tmp_path / "out"))
    assert code in (4, 5), err
    assert out == ""
    assert err.startswith("ftpatch: ") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


LISTS: list[tuple[str, Callable[[Path], object], int, str]] = [
    ("missing", lambda path: None, 3, "{path}: the list cannot be read: No such file or directory"),
    ("directory", lambda path: path.mkdir(), 3, "{path}: the list is a directory, not a regular file – name a file"),
    ("empty", lambda path: path.touch(), 5,
     "@{path}: the list names no function of this file: expected one function a line"),
    ("comments-only", lambda path: path.write_text("# vfs_read\n\n"), 5,
     "@{path}: the list names no function of this file: expected one function a line"),
    ("modules-only", lambda path: path.write_text("ext4_read [ext4]\n"), 5,
     "@{path}: the list names no function of this file: expected one function a line"),
]  # fmt: skip


@pytest.mark.parametrize("make,code,line", [pytest.param(*case[1:], id=case[0]) for case in LISTS])
def test_list_of_no_use_is_refused(
    make: Callable[[Path], object], code: int, line: str, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "list"
    make(path)
    found, out, err = enable(capsys, KERNEL, "--func", f"@{path}", "-o", str(tmp_path / "out"))
    assert (found, out, err) == (code, "", f"ftpatch: {line.format(path=path)}\n")
