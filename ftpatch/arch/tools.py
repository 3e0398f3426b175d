"""Programs of others that work on the code of one machine: what `ftpatch doctor` looks for, and what Debian calls it.

ftpatch starts one of them, QEMU's user mode, which runs code that no emulator library knows; the others are for people.
"""

from __future__ import annotations

from dataclasses import dataclass

from ftpatch.arch.hosts import QEMU_PPC64LE


@dataclass(frozen=True)
class Tool:
    """A program that somebody may have installed."""

    program: str
    package: str  # of Debian and Ubuntu
    adds: str  # what one can do with it


TOOLS = (
    Tool(QEMU_PPC64LE, "qemu-user", "verify executes the patched sites of ppc64le, too"),
    Tool("qemu-system-aarch64", "qemu-system-arm", "boots a patched arm64 kernel"),
    Tool("qemu-system-ppc64", "qemu-system-ppc", "boots a patched ppc64le kernel"),
    Tool("qemu-system-x86_64", "qemu-system-x86", "boots a patched x86_64 kernel"),
    Tool("aarch64-linux-gnu-objdump", "binutils-aarch64-linux-gnu", "a second disassembler of arm64 files"),
    Tool("powerpc64le-linux-gnu-objdump", "binutils-powerpc64le-linux-gnu", "a second disassembler of ppc64le files"),
    Tool("x86_64-linux-gnu-objdump", "binutils-x86-64-linux-gnu", "a second disassembler of x86_64 files"),
    Tool("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu", "compiles arm64 objects for redirect --with"),
    Tool("powerpc64le-linux-gnu-gcc", "gcc-powerpc64le-linux-gnu", "compiles ppc64le objects for redirect --with"),
    Tool("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu", "compiles x86_64 objects for redirect --with"),
)
