"""How a file comes back byte for byte: what packs its content to the same bytes again, or else these bytes.

A compressed module or vmlinux is compressed again by the encoder that the journal names. A layer around a kernel that
compresses nothing is made anew by that of the patched file, which differs in nothing but its content; so the ram disk
of a boot image is in no journal. Other layers are in the journal as they were: to compress a kernel again takes up to a
minute, and other versions of a library give other bytes.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from typing import TYPE_CHECKING

from ftpatch.container.layers import NAMES, Layer, inside, kinds_left, rebuild
from ftpatch.container.pack import Buffer, encoder_of, wrap
from ftpatch.container.wrappings import WRAPPINGS
from ftpatch.document.journal import LAYERS, Journal
from ftpatch.elf.image import Image
from ftpatch.errors import PlanError, PolicyError

if TYPE_CHECKING:
    from ftpatch.document.written import LayerObject, PackingObject

MAX_ORIGINAL = 320 << 20  # bytes of a file that a journal takes in; it is four thirds as long there


def packing_object(image: Image, sha256: str, layers: tuple[Layer, ...]) -> PackingObject:
    """How the input is packed. sha256: of it; layers: of the file that was made of it."""
    if image.layers:
        return _layers_object(image, layers)
    if image.wrapping == "none":
        return {"wrapping": "none", "encoder": "none", "plain_sha256": sha256}
    content = image.data.tobytes() + image.trailer
    encoder = encoder_of(image.wrapping, content, image.raw[:].data)
    packing: PackingObject = {
        "wrapping": image.wrapping, "encoder": encoder, "plain_sha256": _sha256(content),
    }  # fmt: skip
    if encoder is None:
        packing["original"] = _base64(image, image.raw[:].data)
    return packing


def _layers_object(image: Image, layers: tuple[Layer, ...]) -> PackingObject:
    """As `packing_object`, of a kernel in layers. Where the new file has others, all of them are kept."""
    content = image.data.tobytes() + image.trailer
    packing: PackingObject = {"wrapping": LAYERS, "encoder": LAYERS, "plain_sha256": _sha256(content), "layers": []}
    again = [layer.repack for layer in layers if not layer.leaves]
    rows: list[LayerObject] = []
    for layer in reversed(image.layers):
        outer, same = layer.outer.tobytes(), kinds_left(layers) == kinds_left(image.layers)
        repack = again.pop() if same and not layer.leaves else None
        if layer.is_plain and repack is not None and repack(content) == outer:
            rows.insert(0, {"kind": layer.kind, "original": None})
        else:  # what is inside comes with it
            packing["encoder"] = None
            inner: list[LayerObject] = [{"kind": row["kind"], "original": None} for row in rows]
            rows = [{"kind": layer.kind, "original": _base64(image, outer)}, *inner]
        content = outer
    packing["layers"] = rows
    return packing


def packed_again(journal: Journal, content: Buffer, patched: Image, out: str) -> Buffer:
    """The very file that was patched, of its content, where it was packed. out: where it goes, for messages.

    Raises PlanError where it cannot be made.
    """
    if journal.wrapping == LAYERS:
        return _layered_again(journal, bytes(content), patched, out)
    if journal.encoder is None:
        return journal.original
    packed = wrap(journal.wrapping, content, journal.encoder)
    if _sha256(packed) != journal.sha256:
        raise PlanError(f"its {WRAPPINGS[journal.wrapping].name} cannot be made again here", out,
                        found=f"other bytes from encoder {journal.encoder}", expected=f"sha256 {journal.sha256[:16]}…",
                        todo="the library has another version; -o OUT.ko gives the content uncompressed")  # fmt: skip
    return packed


def _layered_again(journal: Journal, content: bytes, patched: Image, out: str) -> bytes:
    made = len(journal.layers)  # layers that are made anew, the outermost ones
    for at, (_, original) in enumerate(journal.layers):
        if original is not None:
            made, content = at, original
            break
    kinds, layers = tuple(kind for kind, _ in journal.layers[:made]), patched.layers
    if _kinds(layers[:made]) != kinds or any(layer.repack is None for layer in layers[:made]):
        around = "" if patched.wrapping == "none" else f" inside {WRAPPINGS[patched.wrapping].name}"
        raise PlanError("the layers around the kernel are not those that the patch left", patched.path,
                        found=f"a kernel{inside(layers) or around}", expected=", ".join(NAMES[kind] for kind in kinds),
                        todo="restore takes the file as the patch wrote it")  # fmt: skip
    packed = rebuild(layers[:made], content)
    if made and _sha256(packed) != journal.sha256:
        raise PlanError(f"its {NAMES[journal.layers[0].kind]} cannot be made again here", out, found="other bytes",
                        expected=f"sha256 {journal.sha256[:16]}…",
                        todo="restore takes the file as the patch wrote it, with that run's libraries")  # fmt: skip
    return packed


def _kinds(layers: tuple[Layer, ...]) -> tuple[str, ...]:
    return tuple(layer.kind for layer in layers)


def _base64(image: Image, octets: Buffer) -> str:
    if len(octets) > MAX_ORIGINAL:
        raise PolicyError("the journal would have to keep a file that is too large for it", image.path,
                          found=f"{len(octets)} bytes", expected=f"at most {MAX_ORIGINAL}",
                          todo="without --report json= no journal is made; keep the file itself then")  # fmt: skip
    return b64encode(octets).decode()


def _sha256(octets: Buffer) -> str:
    return hashlib.sha256(octets).hexdigest()
