"""What a kernel or module offers to modules: name, place, licence, namespace and version of every exported symbol.

The tables `__ksymtab` and `__ksymtab_gpl` have a row per symbol, in one of a few formats that no header names:

    PREL32    value − here, name − here, [namespace − here]    4 bytes each, where the machine allows it
    absolute  value, name, [namespace]                         8 bytes each, filled by relocations

Which one it is shows in the rows themselves: only under the right one does every row name a string. Where the two
tables became one, `__kflagstab` has a byte per row instead. `__kcrctab` has a CRC per row, or is empty.

In ET_REL the fields are relocations; both kinds then mean the place symbol + addend.
Source: include/linux/export.h, export-internal.h; include/asm-generic/vmlinux.lds.h (Linux 6.1, 6.12, 7.2).
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ftpatch.arrays import I64, U32, U64, Mask, Rows, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.export_rows import FORMATS
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError
from ftpatch.kernel.modinfo import MAX_NAMES, MAX_SYMBOL, Names, find_names, section_of, strings_at

TABLES = ("__ksymtab", "__ksymtab_gpl")
FLAG_GPL_ONLY = 1
STARTS_NAME = is_in(np.arange(256), list(b"._$" + string.ascii_letters.encode()))  # by byte
MODULE_NAMESPACE = "module:"  # in front of a list of modules that may use the symbol


@dataclass(frozen=True)
class Export:
    """One exported symbol."""

    name: str
    va: int  # of a linked file, else 0
    sec: int  # −1 where no section holds it
    off: int
    gpl_only: bool  # modules under another licence may not use it
    namespace: str  # empty for none
    crc: int | None  # None where the kernel compares no versions


@dataclass(frozen=True)
class Exports:
    """One row per exported symbol, the tables one behind the other."""

    image: Image
    va: U64  # of a linked file, else 0
    sec: I64  # −1 where no section holds it
    off: I64
    name: I64  # file position of the string
    namespace: I64  # file position of the string; −1 for none
    gpl_only: Mask  # modules under another licence may not use it
    crc: U32  # the version, which counts where has_crc
    has_crc: Mask

    def __len__(self) -> int:
        return len(self.name)

    @cached_property
    def names(self) -> Names:
        return strings_at(self.image.data, self.name, MAX_SYMBOL)

    @cached_property
    def namespaces(self) -> Names:
        """Namespace per row, empty for none."""
        some = np.flatnonzero(self.namespace >= 0)
        some = some[self.image.data[self.namespace[some]] != 0]  # most rows share one empty string
        strings = strings_at(self.image.data, self.namespace[some], MAX_SYMBOL)
        names = np.zeros(len(self), dtype=strings.dtype)
        names[some] = strings
        return names

    @cached_property
    def _order(self) -> I64:
        return np.argsort(self.names, kind="stable")

    def rows(self, names: Names) -> I64:
        """Row of each name, the first of equals; −1 where it is not exported."""
        return find_names(self.names, self._order, names)

    def find(self, name: str) -> Export | None:
        """The export of that name."""
        row = int(self.rows(np.array([name.encode()]))[0])
        return None if row < 0 else self.row(row)

    def row(self, row: int) -> Export:
        """One row as a value."""
        name, namespace = (bytes(names[row]).decode("utf-8", "backslashreplace")
                           for names in (self.names, self.namespaces))  # fmt: skip
        crc = int(self.crc[row]) if self.has_crc[row] else None
        place = int(self.va[row]), int(self.sec[row]), int(self.off[row])
        return Export(name, *place, bool(self.gpl_only[row]), namespace, crc)


def read_exports(image: Image) -> Exports:
    """Everything that the file exports; no rows where it exports nothing.

    Raises ElfError where a table is in no known format, or contradicts those that belong to it.
    """
    plain, gpl = (_table(image, name) for name in TABLES)
    return Exports(image, **{column: np.concatenate((plain[column], gpl[column])) for column in plain})


def _table(image: Image, name: str) -> dict[str, Rows]:
    """The rows of one table with its CRCs and flags: the columns of Exports."""
    where, gpl = f"{image.path}: {name}", name.endswith("_gpl")
    sec, off, size = _span(image, name)
    columns = _columns(image, sec, off, size, where)
    n = len(columns["name"])
    flags = None if gpl else _words(image, "__kflagstab", n, "u1", where)
    crc = _words(image, name.replace("__ksymtab", "__kcrctab"), n, "<u4", where)
    return columns | {
        "gpl_only": np.full(n, gpl) if flags is None else flags & FLAG_GPL_ONLY != 0,
        "crc": np.zeros(n, dtype=np.uint32) if crc is None else crc,
        "has_crc": np.full(n, crc is not None),
    }


def _span(image: Image, name: str) -> tuple[int, int, int]:
    """(sec, off, size) of a table, between its symbols where a kernel has them; size 0 where there is none."""
    sec = section_of(image, name)
    if image.linked:
        start, stop = image.symbols.value(f"__start_{name}"), image.symbols.value(f"__stop_{name}")
        if start is not None and stop is not None:
            place = image.place(np.array([start, max(stop, 1) - 1], dtype=np.uint64))
            if stop > start and (place[0][0] < 0 or place[0][0] != place[0][1]):
                raise ElfError("a table of exports lies in no one section", f"{image.path}: {name}",
                               found=f"{start:#x}..{stop:#x}")  # fmt: skip
            return int(place[0][0]), int(place[1][0]), max(stop - start, 0)
    return sec, 0, int(image.shdr["sh_size"][sec]) if sec >= 0 else 0


def _words(image: Image, name: str, n: int, dtype: str, where: str) -> U32 | None:
    """The words of a table that runs beside the rows; None where there is no such table, or it is empty."""
    sec, off, size = _span(image, name)
    if not size or _relocations(image, sec):
        return None
    words = image.content(sec)[off : off + size]
    if len(words) != n * np.dtype(dtype).itemsize:
        raise ElfError(f"{name} has another length than the table of exports", where, found=f"{len(words)} bytes",
                       expected=f"{n} times {np.dtype(dtype).itemsize}")  # fmt: skip
    return words.view(dtype).astype(np.uint32)


def _columns(image: Image, sec: int, off: int, size: int, where: str) -> dict[str, Rows]:
    """What the rows point to, under the one format that makes sense of all of them; ElfError where none does."""
    if not size:
        none = np.zeros(0, dtype=np.int64)
        return {"va": none.view(np.uint64), "sec": none, "off": none, "name": none, "namespace": none}
    for form in FORMATS:
        n, rest = divmod(size, form.width * form.fields)
        if rest or n > MAX_NAMES:
            continue
        fields = (_linked if image.linked else _relocated)(image, form.width, sec, off, size)
        columns = None if fields is None else _checked(image, form.fields, *fields)
        if columns is not None:
            return columns
    raise ElfError("the table of exports is in no known format", where, found=f"{size} bytes",
                   expected="rows of 12, 24, 8 or 16 bytes, each with a name")  # fmt: skip


def _checked(image: Image, fields: int, sec: I64, off: I64, va: U64) -> dict[str, Rows] | None:
    """The rows, if every one has a name; fields: of a row; the others are place and va per field."""
    pos = image.pos(sec, off)
    pos[image.executable[np.maximum(sec, 0)]] = -1
    name = pos[1::fields]
    if np.any(name < 0) or not np.all(STARTS_NAME[image.data[name]]):
        return None
    namespace = pos[2::fields] if fields == 3 else np.full(len(name), -1, dtype=np.int64)
    return {"va": va[::fields], "sec": sec[::fields], "off": off[::fields], "name": name, "namespace": namespace}


def _linked(image: Image, width: int, sec: int, off: int, size: int) -> tuple[I64, I64, U64]:
    """Place and va of what each field of a linked table points to; sec −1 and va 0 for null."""
    content = image.content(sec)[off : off + size]
    start = int(image.base[sec]) + off
    if width == 4:
        here = np.uint64(start) + 4 * np.arange(size // 4, dtype=np.uint64)
        distance = content.view("<i4").astype(np.int64)
        va = np.where(distance != 0, here + distance.view(np.uint64), np.uint64(0))
    else:
        va = content.view("<u8").astype(np.uint64)
        rows, _ = image.rela
        hit = rows[(rows["r_offset"] >= np.uint64(start)) & (rows["r_offset"] < np.uint64(start + size))]
        hit = hit[(hit["r_info"] & 0xFFFF_FFFF == image.arch.relative) & (hit["r_offset"] - np.uint64(start) & 7 == 0)]
        va[(hit["r_offset"] - np.uint64(start)) >> np.uint64(3)] = hit["r_addend"].view(np.uint64)
    return *image.place(va), va


def _relocated(image: Image, width: int, sec: int, off: int, size: int) -> tuple[I64, I64, U64] | None:
    """Place of what each field of an ET_REL table points to, and zeros; None where a relocation fits no field."""
    n, symbols = size // width, image.symbols
    target, at = np.full(n, -1, dtype=np.int64), np.zeros(n, dtype=np.int64)
    for rows in _relocations(image, sec):
        rows = rows[rows["r_info"] & 0xFFFF_FFFF != image.arch.none]
        row = (rows["r_info"] >> 32).astype(np.int64)
        place = rows["r_offset"].view(np.int64)
        if np.any(place % width) or np.any((place < 0) | (place >= size)) or np.any(row >= len(symbols.rows)):
            return None
        field = place // width
        target[field] = np.where(symbols.shndx[row] > 0, symbols.shndx[row], -1)
        at[field] = symbols.rows["st_value"][row].view(np.int64) + rows["r_addend"]
    return target, at, np.zeros(n, dtype=np.uint64)


def _relocations(image: Image, sec: int) -> list[Rows]:
    """The relocation tables of a section of an ET_REL file."""
    if image.linked:
        return []
    tables = np.flatnonzero((image.shdr["sh_type"] == t.SHT_RELA) & (image.shdr["sh_info"] == sec))
    return [image.rows(int(table), t.RELA) for table in tables]
