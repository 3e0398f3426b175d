"""Whether code is only what assemblers fill gaps with: what a function of a recovered kernel may have at its end, whose
symbols have no sizes."""

from __future__ import annotations

import re

from ftpatch.elf.image import Image

SOME, LOOKED_AT = 24, 64  # bytes: no function begins with so much padding behind its site; the longest NOP is shorter


def is_filled(image: Image, start: int, function: int) -> bool:
    """Whether all code from an address to the end of a function, by its index, or more of it than any function begins
    with, is padding.

    A symbol table with sizes says where functions end: there it is none.
    """
    if image.recovered is None:
        return False
    end = int(image.functions.end[function])
    unit, padding = image.arch.unit, image.arch.padding
    code = image.code(start, max(min(end - start, LOOKED_AT), 0) // unit).astype(f"<u{unit}").tobytes()
    filled = re.match(padding, code, re.DOTALL) if padding else None
    return filled is not None and filled.end() >= min(len(code), SOME)
