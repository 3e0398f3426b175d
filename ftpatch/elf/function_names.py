"""The names of an image's functions: a Python string for each, for what is not done for every file."""

from __future__ import annotations

from collections.abc import Iterator

from ftpatch.elf.image import Image


def function_names(image: Image) -> Iterator[str]:
    """The names of all functions, aliases included."""
    return map(image.symbols.name, image.functions.row.tolist())
