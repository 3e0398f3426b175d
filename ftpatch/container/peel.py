"""The kernel inside a file, layer by layer: each is recognised by its bytes, and opened within limits.

boot-img ─> gzip ─> flat kernel          zboot ─> flat kernel          bzimage ─> zstd ─> ELF file
"""

from __future__ import annotations

from collections.abc import Callable

from ftpatch.arch import Arch, architectures
from ftpatch.arch.parts import FlatImage
from ftpatch.container import bootimg, bzimage, compressed, dtb, pe, uimage, zboot
from ftpatch.container.file_bytes import FileBytes, is_elf
from ftpatch.container.foreign import HEAD, not_elf
from ftpatch.container.layers import Layer, Opened, Source, inside
from ftpatch.errors import EnvelopeError

MAX_LAYERS = 8  # a boot image with device trees behind compressed data has three

# Each gives the layers that data begin with, and what is in them; None where the data are something else.
OPENERS: tuple[Callable[[Source], Opened | None], ...] = (
    pe.open_signed, zboot.open_zboot, bzimage.open_bzimage, bootimg.open_boot_image, uimage.open_uimage,
    compressed.open_compressed,
)  # fmt: skip


def peel(data: FileBytes, path: str, max_size: int) -> tuple[FileBytes, tuple[Layer, ...]]:
    """The ELF file or flat kernel in the data, and the layers around it, the outermost first.

    Raises EnvelopeError for a layer that contradicts itself, InputError for a content that is something else.
    """
    layers: tuple[Layer, ...] = ()
    while not is_elf(data):
        source = Source(data, path, max_size)
        opened = _flat_kernel(source) if is_flat(data) else _opened(source)
        if opened is None:
            if is_flat(data):
                break
            raise not_elf(path, data.peek(0, HEAD), inside(layers))
        more, data = opened
        layers += more
        if len(layers) > MAX_LAYERS:
            raise EnvelopeError("more layers around a kernel than are opened", path, found=f"{len(layers)}",
                                expected=f"at most {MAX_LAYERS}", todo="unpack it first")  # fmt: skip
    return data, layers


def _opened(source: Source) -> Opened | None:
    return next((opened for opener in OPENERS if (opened := opener(source)) is not None), None)


def is_flat(data: FileBytes) -> bool:
    """Whether the data are a flat kernel of a known machine."""
    return flat_machine(data) is not None


def flat_machine(data: FileBytes) -> tuple[Arch, FlatImage] | None:
    """The machine whose flat kernels begin so, and what it says of them; None where there is none."""
    boots = ((arch, arch.boot) for arch in architectures())
    return next((
        (arch, boot) for arch, boot in boots
        if isinstance(boot, FlatImage) and data.peek(boot.at, boot.at + len(boot.magic)) == boot.magic
    ), None)  # fmt: skip


def _flat_kernel(source: Source) -> Opened | None:
    """What lies around a flat kernel; None for nothing."""
    signed = pe.open_signed(source)
    if signed is not None:
        return signed
    start = dtb.first_device_tree(source.data)
    return None if start is None else dtb.layer(source.data, start)
