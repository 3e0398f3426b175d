"""Which symbols a module's sites may call: the beginning of a function, known by its name alone."""

from __future__ import annotations

from ftpatch.elf.image import Image
from ftpatch.kernel import callee
from ftpatch.kernel.exports import Export


def why_no_function(image: Image, row: int) -> str:
    """Why a symbol that the module defines is no function that can be called; empty where it is one."""
    symbols = image.symbols
    same = symbols.rows_named(symbols.name(row))
    same = same[symbols.shndx[same] > 0]
    places = set(zip(symbols.shndx[same].tolist(), symbols.rows["st_value"][same].tolist(), strict=True))
    why = callee.why_no_function(image, row)
    return why or (f"{len(places)} symbols of that name" if len(places) > 1 else "")


def why_no_code(image: Image, export: Export) -> str:
    """Why what a file exports is no function; empty where it is one."""
    if export.sec < 0:
        return "an address in no section"
    return "" if image.executable[export.sec] else f"data in {image.names[export.sec]}"
