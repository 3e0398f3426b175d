"""The on-disk tables of a little-endian ELF64 file, as numpy dtypes with the specification's names.

Nothing here knows what a kernel is. A view is made without copying; a kernel's 230,000 symbols are one array.
The headers are read by the same dtypes rather than through pyelftools, because the code that later rewrites
header fields needs their positions, and because the import alone would cost a third of a scan's start-up;
the tests read every corpus file a second time with pyelftools and compare.
Source: System V gABI, chapters 4 and 5; RELR from the gABI's generic-abi addition (SHT_RELR).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ftpatch.errors import ElfError

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[Any]  # structured rows of one of the dtypes below

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
SHT_SYMTAB_SHNDX, SHT_RELR = 18, 19
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_TLS, SHF_COMPRESSED = 0x1, 0x2, 0x4, 0x400, 0x800
SHN_UNDEF, SHN_LORESERVE, SHN_ABS, SHN_XINDEX = 0, 0xFF00, 0xFFF1, 0xFFFF
STT_OBJECT, STT_FUNC, STT_SECTION, STT_FILE = 1, 2, 3, 4
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
PT_LOAD = 1
MAX_NAME = 4096  # bytes of a name that are read: bounds what a hostile string table can cost


def cut(data: U8, pos: int, size: int, what: str) -> U8:
    """The bytes [pos, pos+size) of the file; an ElfError names `what` where the file is shorter."""
    if pos < 0 or size < 0 or pos + size > len(data):
        raise ElfError(
            f"{what} lies outside the file",
            found=f"bytes {pos:#x}..{pos + size:#x}",
            expected=f"at most {len(data):#x}",
            todo="the file is truncated or corrupt",
        )
    return data[pos : pos + size]


def rows_of(data: U8, pos: int, size: int, dtype: np.dtype[Any], what: str) -> Rows:
    """`size` bytes at file position `pos` as rows of `dtype`, without copying."""
    if size % dtype.itemsize:
        raise ElfError(f"{what} is {size} bytes long, which is no multiple of its {dtype.itemsize}-byte rows")
    return cut(data, pos, size, what).view(dtype)


@dataclass(frozen=True)
class Symbols:
    """`.symtab` as rows, its string table, and the section of every symbol (SHN_XINDEX resolved)."""

    rows: Rows
    strtab: bytes
    shndx: npt.NDArray[np.int64]

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

        A linker merges the tails of strings, so the name is looked for wherever it ends at a NUL,
        and a row counts when its st_name points exactly there.
        """
        wanted = name.encode("utf-8", "surrogateescape") + b"\0"
        starts, at = [], self.strtab.find(wanted)
        while at >= 0:
            starts.append(at)
            at = self.strtab.find(wanted, at + 1)
        hits = np.zeros(len(self.rows), dtype=bool)
        for start in starts:
            hits |= self.rows["st_name"] == start
        return np.flatnonzero(hits)

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
        if self.bind[row] != STB_LOCAL:
            return None
        before = int(np.searchsorted(self._files, row))
        return self.name(int(self._files[before - 1])) if before else None

    @cached_property
    def _files(self) -> I64:
        return np.flatnonzero(self.type == STT_FILE)


def relr_places(words: U64, low: int, high: int) -> U64:
    """Addresses in [low, high) that a packed RELR table relocates, in table order, repeats kept.

    An even word is one address; an odd word is a bitmap over the 63 words that follow. Only the words that
    touch the range are unpacked, so that memory stays bounded by the range, not by the table.
    """
    if not len(words):
        return np.zeros(0, dtype=np.uint64)
    is_address = (words & np.uint64(1)) == 0
    if not is_address[0]:
        raise ElfError("RELR table starts with a bitmap", found=f"{int(words[0]):#018x}", expected="an address")
    index = np.arange(len(words))
    leader = np.maximum.accumulate(np.where(is_address, index, 0))
    nth = (index - leader - 1).astype(np.uint64)  # bitmaps since the address
    with np.errstate(over="ignore"):
        base = words[leader] + np.uint64(8) + nth * np.uint64(63 * 8)
    base[is_address] = words[is_address]
    lowest, highest = np.uint64(max(low - 63 * 8, 0)), np.uint64(high)
    near = (base >= lowest) & (base < highest)
    if int(near.sum()) > (high - low) // 8 + 64:
        raise ElfError("RELR table covers the same words more than once", found=f"{int(near.sum())} entries")
    base, packed, single = base[near], words[near], is_address[near]
    bits = np.unpackbits(packed.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little").astype(bool)
    bits[:, 0] = single  # bit 0 only tags a bitmap; for an address it stands for the address itself
    bits[single, 1:] = False
    step = np.arange(-1, 63, dtype=np.int64) * 8
    step_of_single = np.zeros(64, dtype=np.int64)
    offsets = np.where(single[:, None], step_of_single, step)
    places = (base.view(np.int64)[:, None] + offsets)[bits].view(np.uint64)
    inside: U64 = places[(places >= np.uint64(low)) & (places < highest)]
    return inside
