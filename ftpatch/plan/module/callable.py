"""Which symbols a module's sites may call: the beginning of a function, known by its name alone."""

from __future__ import annotations

import re

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.kernel.exports import Export

COLD = re.compile(r"\.cold(\.\d+)?$")  # compilers move the unlikely blocks of a function there


def why_no_function(image: Image, row: int) -> str:
    """Why a symbol that the module defines is no function that can be called by its name; empty where it is one."""
    symbols = image.symbols
    same = symbols.rows_named(symbols.name(row))
    same = same[symbols.shndx[same] > 0]
    places = set(zip(symbols.shndx[same].tolist(), symbols.rows["st_value"][same].tolist(), strict=True))
    return why_no_beginning(image, row) or (f"{len(places)} symbols of that name" if len(places) > 1 else "")


def why_no_beginning(image: Image, row: int) -> str:
    """Why a symbol that the module defines is no beginning of a function; empty where it is one."""
    symbols, name = image.symbols, image.symbols.name(row)
    sec, kind, value = int(symbols.shndx[row]), int(symbols.type[row]), symbols.rows["st_value"][row]
    if sec <= 0 or sec >= len(image.shdr) or kind not in (t.STT_FUNC, 0) or not image.executable[sec]:
        return f"symbol type {kind} in section {sec}"
    if value >= image.shdr["sh_size"][sec] or not len(image.code(int(image.base[sec]) + int(value), 1)):
        return f"no instruction at {image.names[sec]}+{int(value):#x}"
    if COLD.search(name):
        return "the unlikely part of a function, which goes back into it"
    start, size = symbols.rows["st_value"], symbols.rows["st_size"]
    around = (symbols.type == t.STT_FUNC) & (symbols.shndx == sec) & (start < value) & (value - start < size)
    outer = np.flatnonzero(around)
    return f"a place inside {symbols.name(int(outer[0]))}" if len(outer) else ""


def why_no_code(image: Image, export: Export) -> str:
    """Why what a file exports is no function; empty where it is one."""
    if export.sec < 0:
        return "an address in no section"
    return "" if image.executable[export.sec] else f"data in {image.names[export.sec]}"
