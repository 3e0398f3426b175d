"""The layers that boot loaders put around a kernel: what each is, and how it is made anew around another content.

boot-img │ gzip │ flat kernel        outermost first; each layer's content is the bytes of the next
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from ftpatch.container.file_bytes import FileBytes
from ftpatch.container.wrappings import KIND_OF, STREAMS
from ftpatch.errors import ApplyError

# what messages call a layer of each kind
NAMES = {
    **{KIND_OF[stream]: STREAMS[stream].name for stream in STREAMS},
    "boot-img": "an Android boot image",
    "bzimage": "an x86 bzImage",
    "pe-signature": "a signed PE file",
    "uimage": "a U-Boot uImage",
    "zboot": "an EFI zboot image",
    "appended-dtb": "a kernel with device trees behind it",
}


@dataclass(frozen=True)
class Layer:
    """One layer around a kernel."""

    kind: str  # a key of NAMES
    outer: FileBytes  # the bytes of this layer, its content included
    repack: Callable[[bytes], bytes] | None  # the layer around another content; None where it cannot be made
    why_not: str = ""  # the reason then
    void: str = ""  # what another content makes void: "Android's signature"; "" for nothing
    leaves: bool = False  # another content goes without it
    # of one that compresses its content: what it has around the compressed data
    frame: Callable[[], bytes] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the content is in it as it is, and not compressed."""
        return self.frame is None and self.kind not in KIND_OF.values()


class Source(NamedTuple):
    """Where bytes are from, and what may come out of them."""

    data: FileBytes
    path: str  # for messages
    max_size: int  # bytes that they may unpack to


Opened = tuple[tuple[Layer, ...], FileBytes]  # layers, the outermost first, and the content of the last


def inside(layers: tuple[Layer, ...]) -> str:
    """Where the innermost content of these layers is, for messages: " inside gzip data inside a boot image"."""
    return "".join(f" inside {NAMES[layer.kind]}" for layer in reversed(layers))


def kinds_left(layers: tuple[Layer, ...]) -> tuple[str, ...]:
    """The kinds of the layers that are around another content."""
    return tuple(layer.kind for layer in layers if not layer.leaves)


def rebuild(layers: tuple[Layer, ...], content: bytes) -> bytes:
    """The outermost of these layers, with another innermost content. All of them can be made anew."""
    for layer in reversed(layers):
        assert layer.repack is not None
        content = layer.repack(content)
    return content


def checked(layer: Layer, source: Source, content_of: Callable[[Source], FileBytes | None]) -> Layer:
    """The layer, whose `repack` takes contents of the old size alone and hands out only what opens to them again."""
    make = layer.repack
    assert make is not None

    def repack(content: bytes) -> bytes:
        outer = make(content)
        opened = content_of(Source(FileBytes.of(outer), source.path, max(source.max_size, len(content))))
        if opened is None or opened.tobytes() != content:
            raise ApplyError(f"{NAMES[layer.kind]} could not be made anew", source.path, found="another content in it",
                             todo="nothing was written; please report this")  # fmt: skip
        return outer

    return replace(layer, repack=repack)
