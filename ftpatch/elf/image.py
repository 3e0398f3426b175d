"""One ELF file as an immutable value: its bytes, its sections, and the address spaces between them.

Three ways to say where something is, each with its own name and never just "addr":

    place = (sec, off)             the truth, in vmlinux and modules alike
    va    = base[sec] + off        linked files: base is sh_addr; ET_REL: sections laid end to end, for sorting only
    pos   = sh_offset[sec] + off   in the file; it is not va minus a constant

Kernel addresses need all 64 bits: they are stored as uint64 and subtracted as int64.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ftpatch.arch import Arch, arch_of
from ftpatch.arch.shape import WINDOW_BEFORE, WINDOW_SIZE
from ftpatch.arrays import I64, U8, U32, U64, Mask, Rows, is_in
from ftpatch.container import envelope
from ftpatch.container.file_bytes import FileBytes
from ftpatch.container.layers import Layer
from ftpatch.elf import tables as t
from ftpatch.elf.functions import Functions, functions_of
from ftpatch.elf.headers import read_headers
from ftpatch.elf.image_tables import n_dynamic, rela_of, relr_of, symbols_of
from ftpatch.elf.kind import PROGRAMS, kind_of
from ftpatch.elf.recovered import Recovered
from ftpatch.errors import ElfError

MAX_SECTION = 1 << 40  # bytes that a section of a relocatable file may have, .bss included; longer ones are cut


@dataclass(frozen=True, eq=False, repr=False)
class Image:
    """A parsed ELF file, and what is around it."""

    path: str
    data: FileBytes  # the ELF file alone
    raw: FileBytes  # the file as it is on disk, compressed or signed
    mode: int  # permission bits
    wrapping: str  # how the file is compressed, or "none"
    trailer: bytes  # the signature behind the ELF file, with all that tells it
    ehdr: Rows  # ELF header
    shdr: Rows  # section headers
    phdr: Rows  # program headers
    names: tuple[str, ...]  # name of every section
    layers: tuple[Layer, ...] = ()  # what else lies around a kernel, the outermost first
    recovered: Recovered | None = None  # what was read from the kernel's own tables, where the file has no symbols

    @property
    def e_type(self) -> int:
        return int(self.ehdr["e_type"])

    @property
    def e_machine(self) -> int:
        return int(self.ehdr["e_machine"])

    @cached_property
    def arch(self) -> Arch:
        """The machine that the file is for; ArchError where it is none that this program knows."""
        return arch_of(self.e_machine, self.path)

    @property
    def linked(self) -> bool:
        return self.e_type != t.ET_REL

    @property
    def is_bare(self) -> bool:
        """Whether `data` is the whole file."""
        return self.wrapping == "none" and not self.layers and not self.trailer

    # -- sections ----------------------------------------------------------------------------------------------

    def sections_named(self, *names: str) -> list[int]:
        """Indices of all sections that bear one of the names."""
        return sorted(index for name in set(names) for index in self._numbers.get(name, ()))

    @cached_property
    def _numbers(self) -> dict[str, list[int]]:
        """Section numbers by name; a file may have 100,000 sections, and be asked as often."""
        numbers: dict[str, list[int]] = {}
        for index, name in enumerate(self.names):
            numbers.setdefault(name, []).append(index)
        return numbers

    @cached_property
    def rela_tables(self) -> dict[int, list[int]]:
        """Numbers of the sections of relocations with addends, by the section that they are for (sh_info)."""
        tables: dict[int, list[int]] = {}
        rela = np.flatnonzero(self.shdr["sh_type"] == t.SHT_RELA)
        for table, sec in zip(rela.tolist(), self.shdr["sh_info"][rela].tolist(), strict=True):
            tables.setdefault(sec, []).append(table)
        return tables

    def content(self, sec: int) -> U8:
        """Bytes of one section; none where it occupies no file space."""
        return self.part(sec)[:]

    def part(self, sec: int) -> FileBytes:
        """As `content`, without reading it: debug sections have hundreds of megabytes."""
        if self.shdr["sh_type"][sec] == t.SHT_NOBITS:
            return self.data.part(0, 0)
        start, size = int(self.shdr["sh_offset"][sec]), int(self.shdr["sh_size"][sec])
        t.require_inside(self.data, start, size, self.names[sec])
        return self.data.part(start, size)

    @cached_property
    def has_bytes(self) -> Mask:
        """Per section: it occupies space in the file."""
        return np.asarray(~is_in(self.shdr["sh_type"], (t.SHT_NOBITS, t.SHT_NULL)))

    @cached_property
    def executable(self) -> Mask:
        """Per section: it holds code that is really in this file."""
        flags = self.shdr["sh_flags"]
        wanted = t.SHF_ALLOC | t.SHF_EXECINSTR
        return np.asarray(((flags & wanted) == wanted) & self.has_bytes)

    @cached_property
    def base(self) -> U64:
        """va of every section's first byte; see the module's text for ET_REL."""
        if self.linked:
            return np.ascontiguousarray(self.shdr["sh_addr"])
        room = (np.minimum(self.shdr["sh_size"], MAX_SECTION) + np.uint64(63)) & ~np.uint64(63)
        return np.concatenate(([0], np.cumsum(room)[:-1])).astype(np.uint64)

    @cached_property
    def _by_va(self) -> tuple[I64, U64, U64]:
        """Sections with an address, sorted: index, first va, end va. An overlap is an ElfError."""
        flags, size = self.shdr["sh_flags"], self.shdr["sh_size"]
        member = (flags & t.SHF_ALLOC != 0) & (size > 0) & (flags & t.SHF_TLS == 0)
        index = np.flatnonzero(member)
        index = index[np.argsort(self.base[index], kind="stable")]
        start = self.base[index]
        end = start + np.minimum(size[index], np.uint64(1 << 62 if self.linked else MAX_SECTION))
        bad = np.flatnonzero((end[:-1] > start[1:]) | (end[:-1] < start[:-1]))
        if len(bad):
            first, second = (self.names[sec] for sec in index[bad[0] : bad[0] + 2])
            raise ElfError("sections overlap in memory", self.path, found=f"{first} ends behind {second}'s start")
        return index, start, end

    def place(self, va: U64) -> tuple[I64, I64]:
        """(sec, off) of each va; sec is −1 where no section holds it."""
        index, start, end = self._by_va
        if not len(index):
            return np.full(len(va), -1, dtype=np.int64), np.zeros(len(va), dtype=np.int64)
        near = np.searchsorted(start, va, side="right").astype(np.int64) - 1
        known = (near >= 0) & (va < end[near])  # −1 is the last section, and not meant
        return np.where(known, index[near], -1), np.where(known, (va - start[near]).view(np.int64), 0)

    def va(self, sec: I64, off: I64) -> U64:
        """va of each place; 0 where sec is −1."""
        return np.asarray(np.where(sec >= 0, self.base[sec] + off.astype(np.uint64), np.uint64(0)))

    def pos(self, sec: I64, off: I64) -> I64:
        """File position of each place; −1 where the place has no bytes in the file."""
        known = (sec >= 0) & self.has_bytes[sec] & (off >= 0) & (off < self._sh_size[sec])
        return np.where(known, self._sh_offset[sec] + off, -1)

    @cached_property
    def _sh_offset(self) -> I64:
        return self.shdr["sh_offset"].astype(np.int64)

    @cached_property
    def _sh_size(self) -> I64:
        return self.shdr["sh_size"].astype(np.int64)

    def pos_of_va(self, va: int) -> int:
        """File position of one va in a linked file, gaps between its sections included; −1 where it has no bytes."""
        sec, off = self.place(np.array([va], dtype=np.uint64))
        if sec[0] >= 0:
            return int(self.pos(sec, off)[0])
        for row in self.phdr[self.phdr["p_type"] == t.PT_LOAD]:
            offset = va - int(row["p_vaddr"])
            if 0 <= offset < int(row["p_filesz"]) and int(row["p_offset"]) + offset < len(self.data):
                return int(row["p_offset"]) + offset
        return -1

    def words(self, sec: I64, off: I64, first: int, n: int) -> U32:
        """(len(sec), n) units of code from byte offset off + unit·first; 0 where the file holds none.

        A unit is an instruction word; on machines whose instructions are no words it is a byte, see `Arch.unit`.
        """
        if self.arch.unit == 1:
            return self._octets(sec, off + first, n)
        pos = self.pos(sec, off)
        start, low = pos + 4 * first, self._sh_offset[sec]
        high = low + self._sh_size[sec]
        words = np.zeros((len(sec), n), dtype=np.uint32)
        whole = (pos >= 0) & (start >= low) & (start + 4 * n <= high) & (start & 3 == 0)
        words[whole] = self.data.words(start[whole], n)
        rest = np.flatnonzero(~whole & (pos >= 0))  # at a section's edge, or misaligned: a handful
        for column in range(n if len(rest) else 0):
            at = start[rest] + 4 * column
            good = (at >= low[rest]) & (at + 4 <= high[rest])
            words[rest[good], column] = self.word_at(at[good])
        return words

    def _octets(self, sec: I64, off: I64, n: int) -> U32:
        """(len(sec), n) bytes, one in each uint32, from `off`; 0 where the section holds none."""
        start, size = self._sh_offset[sec] + off, self._sh_size[sec]
        known = (sec >= 0) & self.has_bytes[sec]
        whole = known & (off >= 0) & (off <= size - n)  # a sum could wrap: a relocation may name any place
        if whole.all():
            return self.data.rows(start, n).astype(np.uint32)
        octets = np.zeros((len(sec), n), dtype=np.uint32)
        octets[whole] = self.data.rows(start[whole], n)
        rest = np.flatnonzero(known & ~whole)  # at a section's edge: a handful
        at = off[rest][:, None] + np.arange(n)
        inside = (at >= 0) & (at < size[rest][:, None])
        edge = np.zeros((len(rest), n), dtype=np.uint32)
        edge[inside] = self.data[(self._sh_offset[sec[rest]][:, None] + at)[inside]]
        octets[rest] = edge
        return octets

    def window(self, sec: I64, off: I64, size: int = WINDOW_SIZE) -> U32:
        """The units of code around each place that layouts are told by, see `Shape.first`. size: `Shape.reads`."""
        unit = self.arch.unit
        return self.words(sec, off, -WINDOW_BEFORE // unit, size // unit)

    def word_at(self, pos: I64) -> U32:
        """The 32-bit words at file positions that are known to lie in the file."""
        if not np.any(pos & 3):
            return self.data.words(pos)[:, 0]
        return self.data.rows(pos, 4).view("<u4").reshape(-1)

    def code(self, va: int, n: int) -> U32:
        """Up to n units of code from `va` to the end of its executable section; empty elsewhere."""
        sec, off = self.place(np.array([va], dtype=np.uint64))
        pos, unit = int(self.pos(sec, off)[0]), self.arch.unit
        if pos < 0 or pos % unit or not self.executable[sec[0]]:
            return np.zeros(0, dtype=np.uint32)
        n = min(n, (int(self.shdr["sh_size"][sec[0]]) - int(off[0])) // unit)
        return self.data[pos : pos + n * unit].view("u1" if unit == 1 else "<u4").astype(np.uint32)

    # -- symbols and relocations -------------------------------------------------------------------------------

    @cached_property
    def own_symbols(self) -> t.Symbols:
        """The static symbol table, or what was recovered in its place; an image without either has no rows."""
        return symbols_of(self, t.SHT_SYMTAB) if self.recovered is None else self.recovered.symbols

    @cached_property
    def symbols(self) -> t.Symbols:
        """The static symbol table; of a program or shared object without one, what the loader finds in it by name."""
        stripped = len(self.own_symbols.rows) <= 1 and self.kind in PROGRAMS
        return symbols_of(self, t.SHT_DYNSYM) if stripped else self.own_symbols

    def rows(self, sec: int, dtype: np.dtype[Any]) -> Rows:
        """A table section as rows of `dtype`; ElfError where its entry size is another."""
        head = self.shdr[sec]
        what = f"{self.path}: section {self.names[sec] or sec}"
        if int(head["sh_entsize"]) not in (0, dtype.itemsize):
            raise ElfError("wrong sh_entsize", what, found=str(head["sh_entsize"]), expected=str(dtype.itemsize))
        return t.rows_of(self.data, int(head["sh_offset"]), int(head["sh_size"]), dtype, what)

    @cached_property
    def functions(self) -> Functions:
        """Every defined function symbol, by address."""
        base = np.zeros(len(self.shdr), np.uint64) if self.linked else self.base
        sized = self.recovered is None
        return functions_of(self.symbols, base, self.arch.local_entry, self.arch.padding_names, sized)

    @cached_property
    def rela(self) -> tuple[Rows, I64]:
        """The dynamic relocations of a linked file, and the file position of every row."""
        return rela_of(self)

    def relr_places(self, low: int, high: int) -> U64:
        """Addresses in [low, high) that SHT_RELR sections relocate."""
        return np.concatenate([np.zeros(0, np.uint64), *relr_of(self, low, high)])

    def relocated(self, va: U64, size: int) -> Mask:
        """Whether a dynamic relocation of any kind touches one of the `size` bytes from each va."""
        return np.asarray(n_dynamic(self, va, size) > 0)

    # -- identity ----------------------------------------------------------------------------------------------

    @cached_property
    def kind(self) -> str:
        """What the file is, by what it contains."""
        return kind_of(self)

    @cached_property
    def sha256(self) -> str:
        """sha256 of the whole file as it is on disk."""
        return self.raw.sha256()


def image_of(path: str, file: envelope.Contents) -> Image:
    """The image in an ELF file that was opened; its headers are checked.

    Raises ArchError for 32-bit and big-endian files, ElfError for headers that contradict the file.
    """
    headers = read_headers(path, file.data)
    return Image(path, file.data, file.raw, file.mode, file.wrapping, file.trailer, *headers, file.layers)
