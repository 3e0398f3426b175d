"""The function that takes another's place, found in a linked kernel by what the user calls it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from posixpath import basename

import numpy as np

from ftpatch.arrays import I64, distinct
from ftpatch.elf import tables as t
from ftpatch.elf.function_names import function_names
from ftpatch.elf.image import Image
from ftpatch.elf.recovered import table_name
from ftpatch.errors import PolicyError, SelectionError
from ftpatch.kernel.callee import why_no_function
from ftpatch.near_names import did_you_mean


@dataclass(frozen=True)
class Replacement:
    """A function of a linked image."""

    text: str  # what the user called it
    row: int  # of its symbol
    name: str
    va: int  # of its symbol
    local: int  # va of its local entry; equal to `va` where it has one entry

    @property
    def two_entries(self) -> bool:
        return self.local != self.va


def find_replacement(image: Image, text: str, option: str = "--to ") -> Replacement:
    """The function that `text` names: a symbol, name@file.c, or 0x and its address. option: what the user wrote in
    front of it. Raises SelectionError or PolicyError."""
    symbols, where = image.symbols, f"{option}{text}"
    rows = _rows(image, text)
    rows = rows[symbols.shndx[rows] != t.SHN_UNDEF]
    if not len(rows):
        # name@file.c names nothing in a kernel whose symbols were kept without their files
        no_files = "@" in text[1:] and not (symbols.type == t.STT_FILE).any()
        found = (
            "symbols that do not tell their source files"
            if no_files
            else f"nothing of that name in {table_name(image.recovered)}"
        )
        raise SelectionError("no such function", where, found=found,
                             expected="a function of this kernel: name, name@file.c or 0xVA",
                             todo=did_you_mean(text, function_names(image)))  # fmt: skip
    values = distinct(symbols.rows["st_value"][rows]).tolist()
    if len(values) > 1:
        files = sorted({file for row in rows.tolist() if (file := symbols.file_of(row))})
        raise SelectionError(f"{len(values)} functions of that name", where, found=", ".join(map(hex, values[:3])),
                             todo="give " + (f"{text}@{basename(files[0])}, or 0xVA" if files else "0xVA"))  # fmt: skip
    typed = rows[symbols.type[rows] == t.STT_FUNC]
    row = int((typed if len(typed) else rows)[0])
    if symbols.type[row] not in (t.STT_FUNC, 0) or symbols.shndx[row] <= 0 or not len(image.code(values[0], 1)):
        raise PolicyError("the replacement is no function", where, expected="the beginning of a function",
                          found=why_no_function(image, row) or f"no instruction at {values[0]:#x}")  # fmt: skip
    local_entry = image.arch.local_entry
    more = int(local_entry(symbols.rows["st_other"][row : row + 1])[0]) if local_entry else 0
    return Replacement(text, row, symbols.name(row), values[0], values[0] + more)


def _rows(image: Image, text: str) -> I64:
    """The symbols that a text means."""
    symbols = image.symbols
    if re.fullmatch("0[xX][0-9a-fA-F]{1,16}", text):
        rows = np.flatnonzero(symbols.rows["st_value"] == np.uint64(int(text, 16)))
        return rows[(symbols.shndx[rows] > 0) & np.isin(symbols.type[rows], (t.STT_FUNC, 0))]
    return rows_named(image, text)


def rows_named(image: Image, text: str) -> I64:
    """The symbols that a name means, or those of name@file.c."""
    symbols = image.symbols
    name, _, file = text.partition("@") if "@" in text[1:] else (text, "", "")
    return symbols.rows_of_file(name, file) if file else symbols.rows_named(name)
