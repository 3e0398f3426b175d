"""The sections of code of a file, as reports have them: what an address map is drawn of."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, TypedDict

import numpy as np

from ftpatch.document.fields import Count, Hex
from ftpatch.elf import tables as t

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ftpatch.elf.editor import Placed
    from ftpatch.elf.image import Image

HEADERS = "section headers"  # the owner of a new table of them
OWNER = re.compile(r"section (\d+) (.*)", re.ASCII | re.DOTALL)  # of what a new or moved section holds


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


def added_text_sections(image: Image, tail: Sequence[Placed]) -> list[TextSectionRow]:
    """The sections of code among what a patch appends to a file, by the section headers that it appends, too."""
    headers = next((piece.new for piece in tail if piece.owner == HEADERS), b"")
    n = len(headers) // t.SHDR.itemsize
    shdr = np.frombuffer(headers[len(headers) - n * t.SHDR.itemsize :], dtype=t.SHDR)
    code = t.SHF_ALLOC | t.SHF_EXECINSTR
    rows: list[TextSectionRow] = []
    for piece in tail:
        match = OWNER.fullmatch(piece.owner)
        if match is None or int(match[1]) >= n:
            continue
        head = shdr[int(match[1])]
        pos, size = int(head["sh_offset"]), int(head["sh_size"])
        inside = piece.pos <= pos and size and pos + size <= piece.pos + len(piece.new)
        if inside and int(head["sh_flags"]) & code == code:
            address = f"0x{int(head['sh_addr']):016x}" if image.linked else None
            rows.append({"section": match[2], "shndx": int(match[1]), "address": address, "size": size, "pos": pos})
    return rows
