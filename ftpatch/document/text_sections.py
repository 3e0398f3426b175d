"""The sections of code of a file, as reports have them: what an address map is drawn of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypedDict

import numpy as np

from ftpatch.document.fields import Count, Hex

if TYPE_CHECKING:
    from ftpatch.elf.image import Image


class TextSectionRow(TypedDict):
    """A section of code that is in the file."""

    section: str
    shndx: Annotated[Count, "its number: names need not be unique"]
    address: Annotated[Hex | None, "null in relocatable files, whose loader decides it"]
    size: Count
    pos: Annotated[Count, "position in the uncompressed ELF file or flat kernel"]


def text_sections(image: Image) -> list[TextSectionRow]:
    """The sections of code, in the order of their numbers; empty ones are left out."""
    index = np.flatnonzero(image.executable & (image.shdr["sh_size"] > 0))
    addresses = image.shdr["sh_addr"][index].tolist()
    positions, sizes = image.shdr["sh_offset"][index].tolist(), image.shdr["sh_size"][index].tolist()
    return [
        {
            "section": image.names[sec], "shndx": sec, "address": f"0x{address:016x}" if image.linked else None,
            "size": size, "pos": pos,
        }
        for sec, address, size, pos in zip(index.tolist(), addresses, sizes, positions, strict=True)
    ]  # fmt: skip
