"""`ftpatch image`: the boot image of a vmlinux, without a cross binutils."""

from __future__ import annotations

import click

from ftpatch import api
from ftpatch.cli import Verb, emit
from ftpatch.cli.options import max_size, note
from ftpatch.errors import printable


@click.command("image", cls=Verb)
@click.argument("vmlinux")
@click.option("-o", "--output", required=True, metavar="OUT", help="Where to write the boot image.")
@max_size
def command(vmlinux: str, output: str, max_size: int | None) -> int:
    """Make what boots of VMLINUX: where its machine boots a flat Image, byte for byte the one that the kernel's own
    objcopy call makes; where firmware boots the ELF itself, that without its debug sections."""
    made = api.image(vmlinux, output, api.Watch(note), max_size)
    elf = made.arch.boot == "elf"
    what = "firmware boots the ELF itself, here without debug sections" if elf else "a flat boot image"
    emit(f"{printable(output)}: {made.size} bytes, {made.arch.name}: {what}\n")
    return 0
