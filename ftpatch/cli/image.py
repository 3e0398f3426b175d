"""`ftpatch image`: the boot image of a vmlinux, without a cross binutils."""

from __future__ import annotations

import click

from ftpatch.cli import emit


@click.command("image")
@click.argument("vmlinux")
@click.option("-o", "--output", required=True, metavar="OUT", help="Where to write the boot image.")
def command(vmlinux: str, output: str) -> int:
    """Make the boot image of VMLINUX, byte for byte what the kernel's own objcopy call makes."""
    from ftpatch import api

    size = api.write_image(vmlinux, output)
    emit(f"{output}: boot image of {size} bytes\n")
    return 0
