"""Which functions may be put in another's place: what each must not be."""

from __future__ import annotations

from ftpatch.elf.function_types import FunctionTypes
from ftpatch.elf.image import Image


def why_no_function(image: Image, row: int) -> str:
    """Why a symbol is no beginning of a function with code in this file; empty where it is one.

    Undefined, absolute, data, an indirect function, the middle of a function, its cold part.
    """
    return ""


def why_never_returns(types: FunctionTypes, row: int) -> str:
    """What tells that a function never returns: its name, DWARF, its code; empty where nothing does."""
    return ""


def why_no_substitute(image: Image, row: int, for_image: Image, for_row: int) -> str:
    """Why BAR (image, row) may not run where FOO (for_image, for_row) is called; empty where it may: BAR is noinstr or
    init text, which FOO is not."""
    return ""
