"""The one way to open a file: as an ELF file with its symbols, or as a kernel whose own tables stand in for them."""

from __future__ import annotations

from ftpatch.container import envelope
from ftpatch.elf.image import Image, image_of


def open_image(path: str, max_size: int | None = None) -> Image:
    """Read and check the headers of an ELF file, compressed or not; at most `max_size` bytes are unpacked.

    Raises InputError for what is not ELF, EnvelopeError for what cannot be unpacked, ArchError for 32-bit and
    big-endian files, ElfError for headers that contradict the file.
    """
    return image_of(path, envelope.open_elf(path, max_size))
