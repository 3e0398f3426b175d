"""What a recovered image needs beside the symbols of its kallsyms, which leave some out."""

from __future__ import annotations

from ftpatch.elf.image import Image
from ftpatch.recovered.left_out import with_trampoline_of_init_text
from ftpatch.recovered.records import with_records


def complete(image: Image) -> Image:
    """The image with the symbols that are known otherwise. Raises ElfError where its records are not found."""
    return with_trampoline_of_init_text(with_records(image))
