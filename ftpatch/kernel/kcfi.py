"""The type hashes of kCFI: four bytes in front of a function, and of the NOPs in front of it, that say its type.

    hash │ NOPs of -fpatchable-function-entry=N,M │ function

Nothing marks a file that was compiled so, and without it the word in front of a function is the end of the one before.
A file is believed to have hashes where it names one: for each function of another file whose address it takes, the
compiler makes a symbol `__kcfi_typeid_NAME`, whose value is the hash. Static functions may have none, whatever stands
in front of them; so may functions in assembly, which nothing tells from others.
Source: clang's AsmPrinter::emitFunctionHeader() and CodeGenModule::finalizeKCFITypes(); include/linux/cfi_types.h.
"""

from __future__ import annotations

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.elf.image import Image

PREFIX = b"\0__kcfi_typeid_"
MAX_NOPS = 16  # units in front of a function that are passed over


def has_hashes(image: Image) -> bool:
    """Whether the file was surely compiled with kCFI."""
    return PREFIX in image.symbols.strtab or bool(image.sections_named(".kcfi_traps"))


def type_hash(image: Image, row: int) -> int | None:
    """The hash of the function of a row of `image.symbols`; None where it has none for sure."""
    return word_in_front(image, row) if has_hashes(image) else None


def word_in_front(image: Image, row: int) -> int | None:
    """The word in front of a function and its NOPs, where its hash would be; None where it has none for sure."""
    symbols = image.symbols
    sec, arch = int(symbols.shndx[row]), image.arch
    if not 0 < sec < len(image.shdr) or symbols.bind[row] == t.STB_LOCAL or arch.unit != 4:
        return None
    off = int(symbols.rows["st_value"][row]) - (int(image.base[sec]) if image.linked else 0)
    words = image.words(np.array([sec]), np.array([off]), -MAX_NOPS, MAX_NOPS)[0].tolist()[::-1]
    return next((word for word in words if word != arch.nop), None) or None
