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
    stop = end + n_size_behind(stream, packed[end:], content)
    if stop < len(packed):
        if not dtb.are_device_trees(source.data, stop):
            raise EnvelopeError(f"there is something behind the {STREAMS[stream].name}", source.path,
                                found=f"{len(packed) - end} bytes", expected="the end, or another stream")  # fmt: skip
        around, _ = dtb.layer(source.data, stop)
    remake = remaker(stream, packed[:end], content)
    layer = Layer(KIND_OF[stream], source.data.part(0, stop), lambda new: remake(new) + _size(new)[: stop - end])
    return (*around, checked(layer, source, _content)), FileBytes.of(content)


def n_size_behind(stream: str, tail: bytes, content: bytes | bytearray) -> int:
    """Bytes of the content's size, which kernel builds write behind all but gzip data, where it does not stand inside;
    0 where something else is there."""
    size = _size(content)
    return len(size) if stream != "gz" and tail.startswith(size) else 0


def _size(content: bytes | bytearray) -> bytes:
    return (len(content) & 0xFFFF_FFFF).to_bytes(4, "little")


def _content(source: Source) -> FileBytes | None:
    opened = open_compressed(source)
    return None if opened is None else opened[1]
