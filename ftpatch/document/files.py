"""What every report says of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftpatch.elf.identity import build_id
from ftpatch.elf.image import Image

if TYPE_CHECKING:
    from ftpatch.document.types import FileObject


def file_object(image: Image, sha256: str | None) -> FileObject:
    """The fields that each image of a report has."""
    return {
        "file": image.path, "sha256": sha256, "build_id": build_id(image), "arch": image.arch.name, "kind": image.kind,
    }  # fmt: skip
