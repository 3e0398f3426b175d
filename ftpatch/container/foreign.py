"""What people hand over in place of an ELF file: each with its name, and with what to give instead.

Recognised by content, never by name: by a magic number, or for text by the form of its first lines.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ftpatch.arch import architectures
from ftpatch.errors import InputError

HEAD = 1024  # bytes of a file that are looked at
BUILD_VMLINUX = "give the uncompressed ELF vmlinux of the same build (Debian: the -dbg package)"
UNPACK_PACKAGE = "unpack it ({}) and give the vmlinux or module inside"
MEMBERS = "give one of its members, or vmlinux.o"
LINKED = "give the vmlinux or module that the linker made of it, or an object built without -flto"
OTHER_SYSTEM = "ftpatch reads the ELF files of Linux kernels: give a vmlinux, module or object"


class Foreign(NamedTuple):
    """A recognisable file that is not ELF."""

    pos: int  # where its magic is
    magic: bytes
    name: str  # for messages
    todo: str  # what to give instead


class ForeignText(NamedTuple):
    """A recognisable file of text."""

    start: re.Pattern[bytes]  # its first lines
    name: str
    todo: str


FOREIGN = (
    # kernels in the forms in which they boot
    Foreign(0x24, b"\x18\x28\x6f\x01", "a 32-bit ARM zImage", "ftpatch reads 64-bit kernels; give an ELF vmlinux"),
    Foreign(0x30, b"RISCV\0\0\0", "a raw boot Image of another machine",
            "ftpatch reads {machines} kernels; give their ELF vmlinux"),
    Foreign(0, b"\xd0\x0d\xfe\xed", "a device tree or FIT image",
            "take the kernel out of a FIT image (dumpimage -T flat_dt -p 0 -o kernel FILE) and give that"),
    Foreign(0, b"MZ", "a PE/EFI executable", BUILD_VMLINUX),
    # packages and archives
    Foreign(0, b"!<arch>\ndebian-binary", "a Debian package", UNPACK_PACKAGE.format("dpkg-deb -x")),
    Foreign(0, b"!<arch>\n", "an ar archive", MEMBERS),
    Foreign(0, b"!<thin>\n", "a thin ar archive (kbuild's built-in.a), which only names its objects",
            "give one of the objects that ar t lists, or vmlinux.o"),
    Foreign(0, b"\xed\xab\xee\xdb", "an RPM package", UNPACK_PACKAGE.format("rpm2cpio FILE | cpio -id")),
    Foreign(257, b"ustar", "a tar archive", UNPACK_PACKAGE.format("tar -xf")),
    Foreign(0, b"PK\x03\x04", "a zip archive", UNPACK_PACKAGE.format("unzip")),
    Foreign(0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK_PACKAGE.format("7z x")),
    *(Foreign(0, magic, "a cpio archive (an initramfs)", UNPACK_PACKAGE.format("cpio -id"))
      for magic in (b"070701", b"070702", b"070707", b"\xc7\x71")),
    Foreign(0, b"hsqs", "a squashfs image", UNPACK_PACKAGE.format("unsquashfs")),
    Foreign(0, b"QFI\xfb", "a qcow2 disk image", BUILD_VMLINUX),
    # what compilers make before there is code, and for other systems
    Foreign(0, b"BC\xc0\xde", "LLVM bitcode (clang -flto), which has no machine code yet", LINKED),
    Foreign(0, b"\xde\xc0\x17\x0b", "wrapped LLVM bitcode (clang -flto), which has no machine code yet", LINKED),
    Foreign(0, b"gpch", "a precompiled header of gcc", OTHER_SYSTEM),
    Foreign(0, b"CPCH", "a precompiled header of clang", OTHER_SYSTEM),
    Foreign(0, b"rust\0\0\0", "metadata of a Rust crate", "give the object that rustc made beside it (--emit=obj)"),
    *(Foreign(0, magic, "gcov data of gcc", OTHER_SYSTEM) for magic in (b"adcg", b"oncg")),
    *(Foreign(0, magic, "a Mach-O file", OTHER_SYSTEM)
      for magic in (b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xfe\xed\xfa\xcf", b"\xfe\xed\xfa\xce")),
    Foreign(0, b"\xca\xfe\xba\xbe", "a Mach-O fat file or a Java class", OTHER_SYSTEM),
    Foreign(0, b"\0asm", "a WebAssembly module", OTHER_SYSTEM),
    # what kernels and their tools write
    Foreign(0, b"\x9f\xeb\x01", "raw BTF type information", "give the vmlinux or module that it was taken from"),
    *(Foreign(0, magic, "a compressed crash dump", "give the vmlinux of the kernel that crashed")
      for magic in (b"KDUMP   ", b"DISKDUMP")),
    Foreign(0, b"PERFILE2", "a perf.data file", "give the vmlinux of the kernel that was measured"),
)  # fmt: skip
TEXTS = (
    ForeignText(re.compile(rb"#\n# Automatically generated file; DO NOT EDIT\.\n|(?:#[^\n]*\n)*(?:# )?CONFIG_\w+[= ]"),
                "a kernel configuration", "give it to --kconfig, and here the vmlinux that was built from it"),
    ForeignText(re.compile(rb"(?:[0-9a-f]{8}|[0-9a-f]{16}| {16}) [A-Za-z?] \S+(?:\t\[\w+\])?(?:\n|\Z)"),
                "a list of symbols (System.map, /proc/kallsyms or nm's)", "give the vmlinux that it was made of"),
    ForeignText(re.compile(rb"0x[0-9a-f]{8}\t\S+\t"), "a Module.symvers", "give the vmlinux or module that it lists"),
    ForeignText(re.compile(rb'\{"schema": *1, *"command"'), "a JSON report of ftpatch",
                "give the file that it is of; --journal takes a report"),
    ForeignText(re.compile(rb"version https://git-lfs"), "a Git LFS pointer", "git lfs pull brings the file itself"),
    ForeignText(re.compile(rb"#!"), "a script", BUILD_VMLINUX),
)  # fmt: skip
# a COFF object has no magic: its machine, few sections, and no optional header
COFF = re.compile(rb"(?:\x64\xaa|\x64\x86|\x4c\x01)[\x01-\xff][\x00\x01].{12}\0\0..", re.DOTALL)
PRINTABLE = re.compile(rb"[\t\n\r\x20-\x7e]+\Z")
N_SHOWN = 24  # characters of a text


def not_elf(path: str, head: bytes, inside: str = "") -> InputError:
    """The error that names what a file is, or what is in its layers (layers.inside), that is no kernel."""
    *most, last = [arch.name for arch in architectures()]
    for kind in FOREIGN:
        if head[kind.pos : kind.pos + len(kind.magic)] == kind.magic:
            todo = kind.todo.replace("{machines}", f"{', '.join(most)} and {last}")
            return InputError("not an ELF file", path, found=kind.name + inside, todo=todo)
    for text in TEXTS:
        if text.start.match(head):
            return InputError("not an ELF file", path, found=text.name + inside, todo=text.todo)
    if COFF.match(head):
        return InputError("not an ELF file", path, found="a COFF object of Windows" + inside, todo=OTHER_SYSTEM)
    return InputError(
        "not an ELF file", path, found=_unknown(head) + inside, expected="7f 45 4c 46", todo=BUILD_VMLINUX
    )


def _unknown(head: bytes) -> str:
    """The start of a file that nobody knows."""
    if len(head) >= 8 and PRINTABLE.match(head):
        line = head.split(b"\n", 1)[0].strip().decode("ascii")
        return f'text that begins "{line[:N_SHOWN]}{"…" * (len(line) > N_SHOWN)}"'
    return f"first bytes {head[:8].hex(' ')}" if head else "nothing"
