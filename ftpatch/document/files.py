"""What every report says of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftpatch.container.file_bytes import is_elf
from ftpatch.elf.identity import build_id
from ftpatch.elf.image import Image

if TYPE_CHECKING:
    from ftpatch.document.types import FileObject


def file_object(image: Image, sha256: str | None) -> FileObject:
    """The fields that each image of a report has."""
    made: FileObject = {
        "file": image.path, "sha256": sha256, "build_id": build_id(image), "arch": image.arch.name, "kind": image.kind,
    }  # fmt: skip
    add_form(made, image)
    return made


def add_form(made: FileObject, image: Image) -> None:
    """Say what a kernel lies in, and where its symbols are from; nothing of a file that has these as usual."""
    if image.layers or image.recovered:
        inner = f"{image.arch.name}-image" if not is_elf(image.data) else "elf"
        layers = [*(layer.kind for layer in image.layers), inner]
        made["container"], made["layers"] = layers[0], layers
    if image.recovered:
        made["symbols_from"] = image.recovered.source
        if image.recovered.moved:
            made["moved"] = f"0x{image.recovered.moved:x}"
