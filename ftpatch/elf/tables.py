"""The on-disk tables of a little-endian ELF64 file, as numpy dtypes with the specification's names.

Nothing here knows what a kernel is. A view is made without copying; a kernel's 230,000 symbols are one array.
The headers are read by the same dtypes rather than through pyelftools, because the code that later rewrites
header fields needs their positions, and because the import alone would cost a third of a scan's start-up;
the tests read every corpus file a second time with pyelftools and compare.
Source: System V gABI, chapters 4 and 5; RELR from the gABI's generic-abi addition (SHT_RELR).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from posixpath import basename
from typing import Any

import numpy as np

from ftpatch.arrays import I64, U8, U32, U64, Mask, Rows, is_in
from ftpatch.container.file_bytes import FileBytes
from ftpatch.errors import ElfError

EHDR = np.dtype(
    [
        ("e_ident", "u1", 16), ("e_type", "<u2"), ("e_machine", "<u2"), ("e_version", "<u4"), ("e_entry", "<u8"),
        ("e_phoff", "<u8"), ("e_shoff", "<u8"), ("e_flags", "<u4"), ("e_ehsize", "<u2"), ("e_phentsize", "<u2"),
        ("e_phnum", "<u2"), ("e_shentsize", "<u2"), ("e_shnum", "<u2"), ("e_shstrndx", "<u2"),
    ]
)  # fmt: skip
SHDR = np.dtype(
    [
        ("sh_name", "<u4"), ("sh_type", "<u4"), ("sh_flags", "<u8"), ("sh_addr", "<u8"), ("sh_offset", "<u8"),
        ("sh_size", "<u8"), ("sh_link", "<u4"), ("sh_info", "<u4"), ("sh_addralign", "<u8"), ("sh_entsize", "<u8"),
    ]
)  # fmt: skip
PHDR = np.dtype(
    [
        ("p_type", "<u4"), ("p_flags", "<u4"), ("p_offset", "<u8"), ("p_vaddr", "<u8"), ("p_paddr", "<u8"),
        ("p_filesz", "<u8"), ("p_memsz", "<u8"), ("p_align", "<u8"),
    ]
)  # fmt: skip
SYM = np.dtype(
    [
        ("st_name", "<u4"), ("st_info", "u1"), ("st_other", "u1"), ("st_shndx", "<u2"),
        ("st_value", "<u8"), ("st_size", "<u8"),
    ]
)  # fmt: skip
RELA = np.dtype([("r_offset", "<u8"), ("r_info", "<u8"), ("r_addend", "<i8")])

ET_REL, ET_EXEC, ET_DYN, ET_CORE = 1, 2, 3, 4
SHT_NULL, SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_NOTE, SHT_NOBITS, SHT_REL = 0, 1, 2, 3, 4, 7, 8, 9
SHT_DYNAMIC, SHT_DYNSYM, SHT_GROUP, SHT_SYMTAB_SHNDX, SHT_RELR = 6, 11, 17, 18, 19
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_LINK_ORDER, SHF_TLS, SHF_COMPRESSED = 0x1, 0x2, 0x4, 0x80, 0x400, 0x800
SHF_GROUP = 0x200
SHN_UNDEF, SHN_LORESERVE, SHN_ABS, SHN_XINDEX = 0, 0xFF00, 0xFFF1, 0xFFFF
NO_SECTION = -1  # of absolute, common and other special symbols; every index from 0 on may be a section
STT_OBJECT, STT_FUNC, STT_SECTION, STT_FILE, STT_GNU_IFUNC = 1, 2, 3, 4, 10
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
PT_LOAD = 1
LAST_VA = (1 << 64) - 1
HEAD, LAST = 8, 2  # characters at the two ends of a name by which symbols are looked for
MANY = 32  # names from which on they are looked up all at once
MAX_NAME = 4096  # bytes of a name that are read: bounds what a hostile string table can cost


def cut(data: FileBytes, pos: int, size: int, what: str) -> U8:
    """The bytes [pos, pos+size) of the file; an ElfError names `what` where the file is shorter."""
    require_inside(data, pos, size, what)
    return data[pos : pos + size]


def require_inside(data: FileBytes, pos: int, size: int, what: str) -> None:
    """Raise an ElfError that names `what` where [pos, pos+size) is not in the file."""
    if pos < 0 or size < 0 or pos + size > len(data):
        raise ElfError(f"{what} lies outside the file", found=f"bytes {pos:#x}..{pos + size:#x}",
                       expected=f"at most {len(data):#x}", todo="the file is truncated or corrupt")  # fmt: skip


def rows_of(data: FileBytes, pos: int, size: int, dtype: np.dtype[Any], what: str) -> Rows:
    """`size` bytes at file position `pos` as rows of `dtype`, without copying."""
    if size % dtype.itemsize:
        raise ElfError(f"{what} is {size} bytes long, which is no multiple of its {dtype.itemsize}-byte rows")
    return cut(data, pos, size, what).view(dtype)


def places_of(wanted: bytes, text: bytes) -> Iterator[int]:
    """Where `wanted` begins in `text`, ascending; hits may overlap."""
    at = text.find(wanted)
    while at >= 0:
        yield at
        at = text.find(wanted, at + 1)


@dataclass(frozen=True, eq=False, repr=False)
class Symbols:
    """`.symtab` as rows, its string table, and the section of every symbol (SHN_XINDEX resolved)."""

    rows: Rows
    strtab: bytes
    shndx: I64

    @cached_property
    def type(self) -> U8:
        """STT_* of every row."""
        return np.asarray(self.rows["st_info"] & 0xF, dtype=np.uint8)

    @cached_property
    def bind(self) -> U8:
        """STB_* of every row."""
        return np.asarray(self.rows["st_info"] >> 4, dtype=np.uint8)

    def name(self, row: int) -> str:
        """Name of one symbol; bytes that are not UTF-8 are shown as escapes."""
        start = int(self.rows["st_name"][row])
        end = self.strtab.find(b"\0", start, start + MAX_NAME)
        return self.strtab[start : end if end >= 0 else start + MAX_NAME].decode("utf-8", "backslashreplace")

    def rows_named(self, name: str) -> I64:
        """Rows of all symbols of that name, ascending.

        A linker merges the tails of strings: a name is what begins where st_name points, and ends at a NUL.
        """
        if name in self._rows_known:
            return self._rows_known[name]
        self._rows_known[name] = rows = self._beginning(name.encode("utf-8", "surrogateescape") + b"\0", self._heads)
        return rows

    def rows_beginning(self, prefix: str) -> I64:
        """Rows of all symbols whose names begin so, ascending."""
        return self._beginning(prefix.encode(), self._heads)

    def begin_with(self, rows: I64, prefix: str) -> Mask:
        """Whether the names of these symbols begin so."""
        begins = np.zeros(len(rows), dtype=bool)
        begins[self._beginning(prefix.encode(), self._heads[rows], rows)] = True
        return begins

    def _beginning(self, start: bytes, heads: U64, rows: I64 | None = None) -> I64:
        """Which of some rows, or of all, have a name that begins so, ascending. heads: of these rows."""
        mask, head = (int.from_bytes(text[:HEAD], "little") for text in (b"\xff" * len(start), start))
        index = np.flatnonzero((heads & np.uint64(mask)) == np.uint64(head))
        at = self._st_name[index if rows is None else rows[index]].astype(np.int64)
        inside = at + len(start) <= len(self.strtab)
        index, at = index[inside], at[inside]
        for place in range(max(HEAD, len(start) - LAST), len(start)):
            same = self._characters[at + place] == start[place]
            index, at = index[same], at[same]
        if len(start) <= HEAD + LAST:
            return index
        # one after the other: few are left, whose ends are equal, too
        same = np.array([self.strtab.startswith(start, place) for place in at.tolist()], dtype=bool)
        return np.asarray(index[same])

    @cached_property
    def _heads(self) -> U64:
        """The first characters of every name as one number, zeros behind the end of the table: few names share them,
        and to compare numbers takes a tenth of a search through all names."""
        padded, end = self.strtab + bytes(HEAD), len(self.strtab)
        return np.asarray(np.ndarray(end + 1, "<u8", padded, strides=(1,))[np.minimum(self._st_name, end)])

    @cached_property
    def _characters(self) -> U8:
        return np.frombuffer(self.strtab, np.uint8)

    def look_up(self, names: Sequence[str]) -> None:
        """Find the rows of many names at once, for `rows_named`: in time that follows from the table's size alone."""
        wanted = {name.encode("utf-8", "surrogateescape"): name for name in names if name not in self._rows_known}
        if len(wanted) <= MANY:
            return  # a search for each costs less than a walk over the table
        longest = max(map(len, wanted), default=0)
        rows: dict[str, list[int]] = {name: [] for name in wanted.values()}
        strtab, find = self.strtab, self.strtab.find
        near = np.flatnonzero(self._head_of_any([*wanted]))
        for row, start in zip(near.tolist(), self._st_name[near].tolist(), strict=True):
            end = find(b"\0", start, start + longest + 1)
            if end >= 0 and (name := wanted.get(strtab[start:end])) is not None:
                rows[name].append(row)
        self._rows_known.update((name, np.array(at, dtype=np.int64)) for name, at in rows.items())

    def _head_of_any(self, names: Sequence[bytes]) -> Mask:
        """Which rows have a name that begins as one of these does."""
        heads: dict[int, set[int]] = {}  # by how much of a head counts
        for name in names:
            mask, head = (int.from_bytes(text[:HEAD], "little") for text in (b"\xff" * (len(name) + 1), name + b"\0"))
            heads.setdefault(mask, set()).add(head)
        begins = np.zeros(len(self.rows), dtype=bool)
        for mask, some in heads.items():
            begins |= is_in(self._heads & np.uint64(mask), np.array(sorted(some), dtype=np.uint64))
        return begins

    @cached_property
    def _rows_known(self) -> dict[str, I64]:
        """What `rows_named` found: a search takes a millisecond, and some names are asked for twice."""
        return {}

    @cached_property
    def _st_name(self) -> U32:
        """st_name of every row, side by side: a dozen names are looked up in it."""
        return np.ascontiguousarray(self.rows["st_name"])

    def defined(self, name: str) -> int | None:
        """Row of the defined symbol of that name; a global one before a weak before a local one."""
        rows = self.rows_named(name)
        rows = rows[self.shndx[rows] != SHN_UNDEF]
        if not len(rows):
            return None
        rank = np.array([2, 0, 1])[np.minimum(self.bind[rows], 2)]
        return int(rows[np.argmin(rank)])

    def value(self, name: str) -> int | None:
        """st_value of the defined symbol of that name."""
        row = self.defined(name)
        return None if row is None else int(self.rows["st_value"][row])

    def file_of(self, row: int) -> str | None:
        """Name of the STT_FILE symbol that a local symbol belongs to; None for globals."""
        file = self.file_row(row)
        return None if file is None else self.name(file)

    def file_row(self, row: int) -> int | None:
        """Row of the STT_FILE symbol that a local symbol belongs to; None for globals."""
        if self.bind[row] != STB_LOCAL:
            return None
        before = int(np.searchsorted(self._files, row))
        return int(self._files[before - 1]) if before else None

    def rows_of_file(self, name: str, file: str) -> I64:
        """Rows of the local symbols of a name that belong to a source file, whatever folders are named in front."""
        rows = self.rows_named(name).tolist()
        files = [self.file_of(row) for row in rows]
        wanted = [row for row, path in zip(rows, files, strict=True) if path and basename(path) == basename(file)]
        return np.array(wanted, dtype=np.int64)

    @cached_property
    def _files(self) -> I64:
        return np.flatnonzero(self.type == STT_FILE)


def relr_places(words: U64, low: int, high: int, where: str) -> Iterator[U64]:
    """Addresses in [low, high) that a packed RELR table relocates, in table order, repeats kept, in slices.

    An even word is one address; an odd word is a bitmap over the 63 words that follow. Only the words that
    touch the range are unpacked, a slice at a time, so that memory does not grow with the table.
    """
    if len(words) and words[0] & np.uint64(1):
        raise ElfError("RELR table starts with a bitmap", where, found=f"{int(words[0]):#018x}", expected="an address")
    n_places, carried = 0, np.uint64(0)
    for start in range(0, len(words), RELR_SLICE):
        packed = words[start : start + RELR_SLICE]
        single = (packed & np.uint64(1)) == 0
        base, carried = _relr_bases(packed, single, carried)
        near = (base >= np.uint64(max(low - RELR_SPAN, 0))) & (base < np.uint64(high))
        places = _relr_unpack(base[near], packed[near], single[near])
        places = places[(places >= np.uint64(low)) & (places < np.uint64(high))]
        n_places += len(places)
        if n_places > (high - low) // 8 + 64:
            raise ElfError("RELR table covers the same words more than once", where, found=f"{n_places} places")
        yield places


RELR_SPAN, RELR_SLICE = 63 * 8, 1 << 14  # bytes that one bitmap covers; words unpacked at a time


def _relr_bases(packed: U64, single: Mask, carried: np.uint64) -> tuple[U64, np.uint64]:
    """Address that each word speaks of, and the one that a bitmap behind the last word would."""
    index = np.arange(len(packed))
    leader = np.maximum.accumulate(np.where(single, index, -1))
    since = (index - leader - 1).astype(np.uint64)  # bitmaps since the last address, in this slice
    with np.errstate(over="ignore"):
        after = np.where(leader >= 0, packed[np.maximum(leader, 0)] + np.uint64(8), carried)
        base = np.where(single, packed, after + since * np.uint64(RELR_SPAN))
        following = base[-1] + np.uint64(8 if single[-1] else RELR_SPAN)
    return base, following


def _relr_unpack(base: U64, packed: U64, single: Mask) -> U64:
    bits = np.unpackbits(packed.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little").astype(bool)
    bits[:, 0] = single  # bit 0 only tags a bitmap; for an address it stands for the address itself
    bits[single, 1:] = False
    step = np.arange(-1, 63, dtype=np.int64) * 8
    step[0] = 0
    places: U64 = (base.view(np.int64)[:, None] + step)[bits].view(np.uint64)
    return places
