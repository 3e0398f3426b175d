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
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError
from ftpatch.kernel.modinfo import MAX_NAMES, MAX_SYMBOL, Names, find_names, section_of, strings_at

TABLES = ("__ksymtab", "__ksymtab_gpl")
FLAG_GPL_ONLY = 1
MODULE_NAMESPACE = "module:"  # in front of a list of modules that may use the symbol


@dataclass(frozen=True)
class Format:
    """One of the formats of a row."""

    # bytes of a field
    width: int
    # fields of a row: value, name, and in newer kernels namespace
    fields: int

    @property
    def size(self) -> int:
        return self.width * self.fields


# Those of 5.4 and later first: a table of theirs may look like one of the older ones' by chance, not the reverse.
FORMATS = (Format(4, 3), Format(8, 3), Format(4, 2), Format(8, 2))


@dataclass(frozen=True)
class Export:
    """One exported symbol."""

    name: str
    # of a linked file, else 0
    va: int
    # its place; sec −1 where no section holds it
    sec: int
    off: int
    # modules under another licence may not use it
    gpl_only: bool
    # empty for none
    namespace: str
    # None where the kernel compares no versions
    crc: int | None


@dataclass(frozen=True)
class Exports:
    """One row per exported symbol, the tables one behind the other."""

    image: Image
    # of a linked file, else 0
    va: U64
    # its place; sec −1 where no section holds it
    sec: I64
    off: I64
    # file positions of the strings; −1 for none
    name: I64
    namespace: I64
    # modules under another licence may not use it
    gpl_only: Mask
    # the version, which counts where has_crc
    crc: U32
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
        found = np.zeros(len(self), dtype=strings.dtype)
        found[some] = strings
        return found

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
        return Export(
            bytes(self.names[row]).decode("utf-8", "backslashreplace"),
            int(self.va[row]), int(self.sec[row]), int(self.off[row]), bool(self.gpl_only[row]),
            bytes(self.namespaces[row]).decode("utf-8", "backslashreplace"),
            int(self.crc[row]) if self.has_crc[row] else None,
        )  # fmt: skip


def read_exports(image: Image) -> Exports:
    """Everything that the file exports; no rows where it exports nothing.

    Raises ElfError where a table is in no known format, or contradicts those that belong to it.
    """
    parts = [_table(image, name) for name in TABLES]
    columns = ("va", "sec", "off", "name", "namespace", "gpl_only", "crc", "has_crc")
    return Exports(image, **{name: np.concatenate([getattr(part, name) for part in parts]) for name in columns})


def _table(image: Image, name: str) -> Exports:
    """The rows of one table with its CRCs and flags."""
    where = f"{image.path}: {name}"
    sec, off, size = _span(image, name)
    field = _fields(image, sec, off, size, where)
    n = len(field.name)
    gpl = np.full(n, name.endswith("_gpl"))
    flags = _words(image, "__kflagstab", n, "u1", where) if not name.endswith("_gpl") else None
    if flags is not None:
        gpl = flags & FLAG_GPL_ONLY != 0
    crc = _words(image, name.replace("__ksymtab", "__kcrctab"), n, "<u4", where)
    crc, known = (np.zeros(n, dtype=np.uint32), False) if crc is None else (crc, True)
    return Exports(image, field.va, field.sec, field.off, field.name, field.namespace, gpl, crc, np.full(n, known))


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


@dataclass(frozen=True)
class _Fields:
    """What the rows of one table point to."""

    va: U64
    sec: I64
    off: I64
    name: I64
    namespace: I64


def _fields(image: Image, sec: int, off: int, size: int, where: str) -> _Fields:
    """The rows under the one format that makes sense of all of them; ElfError where none does."""
    if not size:
        none = np.zeros(0, dtype=np.int64)
        return _Fields(none.view(np.uint64), none, none, none, none)
    for form in FORMATS:
        if size % form.size or size // form.size > MAX_NAMES:
            continue
        found = (_linked if image.linked else _relocated)(image, form, sec, off, size)
        fields = None if found is None else _checked(image, form, *found)
        if fields is not None:
            return fields
    raise ElfError("the table of exports is in no known format", where, found=f"{size} bytes",
                   expected="rows of 12, 24, 8 or 16 bytes, each with a name")  # fmt: skip


def _checked(image: Image, form: Format, sec: I64, off: I64, va: U64) -> _Fields | None:
    """The rows, if every one has a name; arguments: place and va per field."""
    pos = image.pos(sec, off)
    pos[image.executable[np.maximum(sec, 0)]] = -1
    name = pos[1 :: form.fields]
    if np.any(name < 0) or not np.all(STARTS_NAME[image.data[name]]):
        return None
    namespace = pos[2 :: form.fields] if form.fields == 3 else np.full(len(name), -1, dtype=np.int64)
    return _Fields(va[:: form.fields], sec[:: form.fields], off[:: form.fields], name, namespace)


STARTS_NAME = is_in(np.arange(256), list(b"._$" + string.ascii_letters.encode()))


def _linked(image: Image, form: Format, sec: int, off: int, size: int) -> tuple[I64, I64, U64]:
    """Place and va of what each field of a linked table points to; sec −1 and va 0 for null."""
    content = image.content(sec)[off : off + size]
    start = int(image.base[sec]) + off
    if form.width == 4:
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


def _relocated(image: Image, form: Format, sec: int, off: int, size: int) -> tuple[I64, I64, U64] | None:
    """Place of what each field of an ET_REL table points to, and zeros; None where a relocation fits no field."""
    n, symbols = size // form.width, image.symbols
    target, at = np.full(n, -1, dtype=np.int64), np.zeros(n, dtype=np.int64)
    for rows in _relocations(image, sec):
        rows = rows[rows["r_info"] & 0xFFFF_FFFF != image.arch.none]
        row = (rows["r_info"] >> 32).astype(np.int64)
        place = rows["r_offset"].view(np.int64)
        if np.any(place % form.width) or np.any((place < 0) | (place >= size)) or np.any(row >= len(symbols.rows)):
            return None
        field = place // form.width
        target[field] = np.where(symbols.shndx[row] > 0, symbols.shndx[row], -1)
        at[field] = symbols.rows["st_value"][row].view(np.int64) + rows["r_addend"]
    return target, at, np.zeros(n, dtype=np.uint64)


def _relocations(image: Image, sec: int) -> list[Rows]:
    """The relocation tables of a section of an ET_REL file."""
    if image.linked:
        return []
    tables = np.flatnonzero((image.shdr["sh_type"] == t.SHT_RELA) & (image.shdr["sh_info"] == sec))
    return [image.rows(int(table), t.RELA) for table in tables]
