"""The one way to open a file: as an ELF file with its symbols, or as a kernel whose own tables stand in for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ftpatch.container import envelope
from ftpatch.container.file_bytes import is_elf
from ftpatch.elf.headers import has_no_sections
from ftpatch.elf.image import Image, image_of
from ftpatch.elf.recovered import OF_KALLSYMS
from ftpatch.errors import ElfError

FEW = 64  # symbols that may be left of a kernel's (strip -K, objcopy --add-symbol), where kallsyms has all


def open_image(path: str, max_size: int | None = None) -> Image:
    """Read a file, compressed or in what boot loaders take or not; at most `max_size` bytes are unpacked.

    Raises InputError for what is no kernel, module or other ELF file, EnvelopeError for what cannot be unpacked,
    ArchError for 32-bit and big-endian files, ElfError for headers or tables that contradict the file.
    """
    file = envelope.open_file(path, max_size)
    if not is_elf(file.data):
        from ftpatch.recovered.flat import flat_image  # loaded for such files alone, as below

        with _naming(path):
            return flat_image(path, file)
    if has_no_sections(file.data):
        from ftpatch.recovered.headerless import headerless_image

        with _naming(path):
            kernel = headerless_image(path, file)
        if kernel is not None:
            return kernel
    image = image_of(path, file)
    if not image.linked or (len(image.own_symbols.rows) > FEW and OF_KALLSYMS not in image.names):
        return image
    if image.kind != "vmlinux":
        return image
    from ftpatch.recovered.stripped import with_symbols

    few = len(image.own_symbols.rows) > 1 and OF_KALLSYMS not in image.names
    with _naming(path):
        kernel = with_symbols(image)
    named = kernel.recovered is not None and kernel.recovered.source == "kallsyms"
    return image if few and not named else kernel  # a small kernel may have few symbols, and no kallsyms


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Refusals of those who see no more of a file than its bytes tell the file, too."""
    try:
        yield
    except ElfError as error:
        if error.where.startswith(path):
            raise
        where = f"{path}: {error.where}" if error.where else path
        raise ElfError(error.what, where, found=error.found, expected=error.expected, todo=error.todo) from None
