"""The layers that boot loaders put around a kernel: what each is, and how it is made anew around another content.

boot-img │ gzip │ flat kernel        outermost first; each layer's content is the bytes of the next
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from ftpatch.container.file_bytes import FileBytes
from ftpatch.errors import EnvelopeError

# what messages call a layer of each kind
NAMES = {
    "gzip": "gzip data",
    "xz": "xz data",
    "zstd": "zstd data",
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


class Source(NamedTuple):
    """Where bytes are from, and what may come out of them."""

    data: FileBytes
    path: str  # for messages
    max_size: int  # bytes that they may unpack to


Opened = tuple[tuple[Layer, ...], FileBytes]  # layers, the outermost first, and the content of the last


def inside(layers: tuple[Layer, ...]) -> str:
    """Where the innermost content of these layers is, for messages: " inside gzip data inside a boot image"."""
    return "".join(f" inside {NAMES[layer.kind]}" for layer in reversed(layers))


def rebuild(layers: tuple[Layer, ...], content: bytes) -> bytes:
    """The outermost of these layers, with another innermost content. All of them can be made anew."""
    for layer in reversed(layers):
        assert layer.repack is not None
        content = layer.repack(content)
    return content


def checked(layer: Layer, path: str, open_again: Callable[[FileBytes], FileBytes]) -> Layer:
    """The layer, whose `repack` hands out only what opens to the very content that it was given."""
    make = layer.repack
    if make is None:
        return layer

    def repack(content: bytes) -> bytes:
        outer = make(content)
        if open_again(FileBytes.of(outer)).tobytes() != content:
            raise EnvelopeError(f"{NAMES[layer.kind]} cannot be made anew", path, found="another content in the result",
                                todo="nothing was written; please report this")  # fmt: skip
        return outer

    return replace(layer, repack=repack)
