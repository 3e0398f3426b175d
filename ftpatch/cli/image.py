"""`ftpatch image`: the boot image of a vmlinux, without a cross binutils."""

from __future__ import annotations

import click

from ftpatch.cli import emit
from ftpatch.errors import printable


@click.command("image")
@click.argument("vmlinux")
@click.option("-o", "--output", required=True, metavar="OUT", help="Where to write the boot image.")
def command(vmlinux: str, output: str) -> int:
    """Make what boots of VMLINUX: on arm64 the flat Image, byte for byte what the kernel's own objcopy call makes; on
    ppc64le firmware boots the ELF itself, and only debug sections are left out."""
    from ftpatch import api

    size, arch = api.write_image(vmlinux, output)
    what = "firmware boots the ELF itself, here without debug sections" if arch.boots_elf else "a flat boot image"
    emit(f"{printable(output)}: {size} bytes, {arch.name}: {what}\n")
    return 0
