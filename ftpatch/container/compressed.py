"""Kernels in compressed data: unpacked within limits, and packed again as they were."""

from __future__ import annotations

from collections.abc import Callable

from ftpatch.container import dtb
from ftpatch.container.file_bytes import FileBytes
from ftpatch.container.layers import NAMES, Layer, Opened, Source, checked
from ftpatch.container.remake import remaker
from ftpatch.container.unpack import unpack
from ftpatch.container.wrappings import KIND_OF, wrapping_of
from ftpatch.errors import EnvelopeError


def open_compressed(source: Source) -> Opened | None:
    """The layer that the data are, and what is in it; None where they are not compressed."""
    wrapping = wrapping_of(source.data.peek(0, 8))
    if wrapping == "none":
        return None
    packed = source.data.tobytes()
    around: tuple[Layer, ...] = ()
    content, end = unpack(wrapping, packed, source.path, source.max_size)
    data = source.data.part(0, end)
    if end < len(packed):
        if not dtb.are_device_trees(source.data, end):
            raise EnvelopeError(f"there is something behind the {NAMES[KIND_OF[wrapping]]}", source.path,
                                found=f"{len(packed) - end} bytes", expected="the end, or another stream")  # fmt: skip
        around, data = dtb.layer(source.data, end)
    layer = Layer(KIND_OF[wrapping], data, remaker(wrapping, packed[:end], content))
    return (*around, checked(layer, source.path, _opener(wrapping, source))), FileBytes.of(content)


def _opener(wrapping: str, source: Source) -> Callable[[FileBytes], FileBytes]:
    def open_again(outer: FileBytes) -> FileBytes:
        return FileBytes.of(unpack(wrapping, outer.tobytes(), source.path, source.max_size)[0])

    return open_again
