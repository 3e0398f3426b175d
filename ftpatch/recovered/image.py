"""The one way to open a file: as an ELF file with its symbols, or as a kernel whose own tables stand in for them."""

from __future__ import annotations

from ftpatch.container import envelope
from ftpatch.container.foreign import HEAD, not_elf
from ftpatch.container.layers import inside
from ftpatch.elf.image import Image, image_of


def open_image(path: str, max_size: int | None = None) -> Image:
    """Read and check the headers of an ELF file, compressed or not; at most `max_size` bytes are unpacked.

    Raises InputError for what is not ELF, EnvelopeError for what cannot be unpacked, ArchError for 32-bit and
    big-endian files, ElfError for headers that contradict the file.
    """
    file = envelope.open_file(path, max_size)
    if file.data[: len(envelope.ELF_MAGIC)].tobytes() != envelope.ELF_MAGIC:
        raise not_elf(path, file.data.peek(0, HEAD), inside(file.layers))
    return image_of(path, file)
