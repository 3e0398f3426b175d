"""Kernels in compressed data: unpacked within limits, and packed again as they were."""

from __future__ import annotations

from ftpatch.container import dtb
from ftpatch.container.file_bytes import FileBytes
from ftpatch.container.layers import Layer, Opened, Source, checked
from ftpatch.container.remake import remaker
from ftpatch.container.unpack import unpack
from ftpatch.container.wrappings import HEAD, KIND_OF, STREAMS, stream_of
from ftpatch.errors import EnvelopeError


def open_compressed(source: Source) -> Opened | None:
    """The layer that the data are, and what is in it; None where they are not compressed."""
    stream = stream_of(source.data.peek(0, HEAD))
    if stream == "none":
        return None
    packed = source.data.tobytes()
    around: tuple[Layer, ...] = ()
    content, end = unpack(stream, packed, source.path, source.max_size)
    behind = size_behind(stream, packed[end:], content)
    stop = end + len(behind)
    if stop < len(packed):
        if not dtb.are_device_trees(source.data, stop):
            raise EnvelopeError(f"there is something behind the {STREAMS[stream].name}", source.path,
                                found=f"{len(packed) - end} bytes", expected="the end, or another stream")  # fmt: skip
        around, _ = dtb.layer(source.data, stop)
    remake = remaker(stream, packed[:end], content)
    layer = Layer(KIND_OF[stream], source.data.part(0, stop), lambda new: remake(new) + behind)
    return (*around, checked(layer, source, _content)), FileBytes.of(content)


def size_behind(stream: str, tail: bytes, content: bytes | bytearray) -> bytes:
    """The size of the content, which kernel builds write behind all but gzip data, where it does not stand inside."""
    size = (len(content) & 0xFFFF_FFFF).to_bytes(4, "little")
    return size if stream != "gz" and tail.startswith(size) else b""


def _content(source: Source) -> FileBytes | None:
    opened = open_compressed(source)
    return None if opened is None else opened[1]
