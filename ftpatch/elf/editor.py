"""A changeable copy of one relocatable file, which grows at its end only.

Every original byte stays where it is. What becomes longer (symbols, strings, section names, relocations) is copied
whole to the end of the file, what is new follows, and a new section header table closes it; the old copies stay
behind as bytes that no header names. Sections and symbols keep their numbers: new sections come last, new symbols are
global, which come last by the rules of ELF, so that no relocation has to change its symbol.

    original bytes │ grown tables │ new sections │ section headers
    ▲ patched in place: words, rows, the ELF header's e_shoff and e_shnum

Source: System V gABI, chapter 4 (symbol table, SHN_XINDEX, sh_info of symbol and relocation tables).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ftpatch.arrays import Mask, Rows
from ftpatch.elf import tables as t
from ftpatch.elf.editable import require_relocations, require_symbols
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError

SHF_INFO_LINK = 0x40
E_SHOFF, E_SHNUM = 40, 60  # where the ELF header keeps them
SLOT = 8
MAX_ALIGN = 1 << 16  # of a section that moves; linkers align to pages at most


@dataclass(frozen=True)
class Patch:
    """Bytes that replace others of one section: `kind` and `owner` say whose they are."""

    sec: int
    off: int
    new: bytes
    kind: str
    owner: int


@dataclass(frozen=True)
class Placed:
    """Bytes at a position of the file; `owner` names the section, or what else they are."""

    pos: int
    new: bytes
    owner: str


class NewSymbol(NamedTuple):
    """A symbol to add, behind all others; never a local one, whose place is in front of them."""

    name: str
    sec: int  # section number; 0 leaves it undefined
    value: int = 0  # offset in the section
    size: int = 0  # bytes
    kind: int = 0  # STT_*
    bind: int = t.STB_GLOBAL  # or STB_WEAK
    other: int = 0  # st_other: on ppc64le, where the local entry is


class Editor:
    """Collects the changes of one ET_REL image; `finish` lays them out."""

    def __init__(self, image: Image) -> None:
        if image.linked:
            raise AssertionError("a linked file was to be edited as a relocatable one")
        self.image = image
        self.shdr: list[Rows] = [row.copy() for row in image.shdr]
        self.names: list[str] = list(image.names)
        self.patches: list[Patch] = []
        self._grown: dict[int, bytearray] = {}  # contents that move to the end, by section
        self._n_symbols = len(image.symbols.rows)
        self._added: dict[str, int] = {}  # rows of the new symbols, the first of each name
        self._imports: dict[str, int] = {}  # of those, what is undefined

        self._new_names: list[str] = []  # of the new symbols
        self._tables: dict[int, int] = {}
        self._new_sections: dict[str, int] = {}  # where the names of new sections are in their table
        symtabs = np.flatnonzero(image.shdr["sh_type"] == t.SHT_SYMTAB)
        if not len(symtabs):
            raise ElfError("no symbol table", image.path, found="a stripped file", expected=".symtab",
                           todo="modules cannot be loaded without one")  # fmt: skip
        self._symtab = int(symtabs[0])
        require_symbols(image, self._symtab)
        for table in np.flatnonzero(image.shdr["sh_type"] == t.SHT_RELA).tolist():
            require_relocations(image, table, self._symtab)
            self._tables.setdefault(int(image.shdr["sh_info"][table]), table)
        strings = int(image.ehdr["e_shstrndx"])
        mine = (image.shdr["sh_type"] == t.SHT_SYMTAB_SHNDX) & (image.shdr["sh_link"] == self._symtab)
        self._shndx: int | None = int(np.argmax(mine)) if mine.any() else None
        self._section_names = strings if strings != t.SHN_XINDEX else int(image.shdr["sh_link"][0])

    # -- what may be asked for ---------------------------------------------------------------------------------

    def section(
        self, name: str, sh_type: int, sh_flags: int, content: bytes, align: int, link: int = 0, info: int = 0,
        entsize: int = 0,
    ) -> int:  # fmt: skip
        """Index of a new section."""
        row = np.zeros((), t.SHDR)
        if name not in self._new_sections:  # an object has many sections of one name
            self._new_sections[name] = self._string(self._section_names, name)
        row["sh_name"] = self._new_sections[name]
        row["sh_type"], row["sh_flags"], row["sh_addralign"] = sh_type, sh_flags, align
        row["sh_link"], row["sh_info"], row["sh_entsize"] = link, info, entsize
        self.shdr.append(row)
        self.names.append(name)
        self._grown[len(self.shdr) - 1] = bytearray(content)
        return len(self.shdr) - 1

    def free_name(self, name: str) -> str:
        """The name, or `name.2`, `name.3` …: the first that no section has.

        A kernel makes a file in /sys for each loaded section: it warns of a second one of a name, and newer ones do not
        load the module at all (EEXIST, seen in Debian 6.12.107).
        """
        number, free, taken = 1, name, set(self.names)
        while free in taken:
            number += 1
            free = f"{name}.{number}"
        return free

    def empty_section(self, name: str, sh_flags: int, size: int, align: int) -> int:
        """Index of a new section that has no bytes in the file, only room in memory."""
        sec = self.section(name, t.SHT_NOBITS, sh_flags, b"", align)
        self.shdr[sec]["sh_size"] = size
        return sec

    def symbol(self, name: str, sec: int, value: int = 0, size: int = 0, kind: int = 0) -> int:
        """Row of a new global symbol; `sec` 0 leaves it undefined."""
        return self.add_symbol(NewSymbol(name, sec, value, size, kind))

    def add_symbol(self, new: NewSymbol) -> int:
        """Row of a new symbol of any kind that may come last."""
        assert new.bind != t.STB_LOCAL
        row = np.zeros((), t.SYM)
        row["st_name"] = self._string(int(self.shdr[self._symtab]["sh_link"]), new.name)
        row["st_info"], row["st_other"] = new.bind << 4 | new.kind, new.other
        row["st_shndx"] = new.sec if new.sec < t.SHN_LORESERVE else t.SHN_XINDEX
        row["st_value"], row["st_size"] = new.value, new.size
        self.append(self._symtab, row.tobytes())
        self._extended(new.sec)
        self._n_symbols += 1
        self._added.setdefault(new.name, self._n_symbols - 1)
        if not new.sec:
            self._imports.setdefault(new.name, self._n_symbols - 1)

        self._new_names.append(new.name)
        return self._n_symbols - 1

    def added(self, name: str) -> int | None:
        """Row of the first new symbol of that name."""
        return self._added.get(name)

    def imported(self, name: str) -> int | None:
        """Row of the first new symbol of that name that is undefined."""
        return self._imports.get(name)

    def symbol_name(self, row: int) -> str:
        """Name of a symbol, old or new."""
        old = len(self.image.symbols.rows)
        return self.image.symbols.name(row) if row < old else self._new_names[row - old]

    def relocate(self, sec: int, off: int, kind: int, symbol: int, addend: int = 0) -> None:
        """A relocation for bytes of a section, behind the ones it has."""
        row = np.zeros((), t.RELA)
        row["r_offset"], row["r_info"], row["r_addend"] = off, symbol << 32 | kind, addend
        self.append(self.table_of(sec), row.tobytes())

    def table_of(self, sec: int, flags: int = SHF_INFO_LINK) -> int:
        """The relocation table of a section; made where there is none, with these flags."""
        if sec not in self._tables:
            name = ".rela" + self.names[sec]
            self._tables[sec] = self.section(
                name, t.SHT_RELA, flags, b"", 8, link=self._symtab, info=sec, entsize=t.RELA.itemsize
            )
        return self._tables[sec]

    def patch(self, sec: int, off: int, new: bytes, kind: str, owner: int) -> None:
        """Replace bytes of an original section."""
        assert sec < len(self.image.shdr) and self.image.has_bytes[sec]
        self.patches.append(Patch(sec, off, new, kind, owner))

    def content(self, sec: int) -> bytes:
        """A section's content as it is by now, patches left out."""
        return bytes(self._grown[sec]) if sec in self._grown else self.image.content(sec).tobytes()

    def replace(self, sec: int, content: bytes) -> None:
        """Give a section another content, at the end of the file."""
        self._grown[sec] = bytearray(content)

    def append(self, sec: int, more: bytes) -> int:
        """Bytes behind those that a section has, which moves to the end of the file; their offset in it."""
        if sec not in self._grown:
            size = int(self.shdr[sec]["sh_size"])
            self._grown[sec] = bytearray(self.image.content(sec)[:size].tobytes())
        at = len(self._grown[sec])
        self._grown[sec] += more
        return at

    def cut_slots(self, sec: int, gone: Mask, first: int) -> None:
        """Take slots out of a section of pointers, with their relocations; the others move up, in order. Before any are
        added to it.

        first: number of the section's slot 0, for the owners.
        """
        assert sec not in self._grown or not gone.any()  # what is behind would stay where it is
        words = self.image.content(sec)[: len(gone) * SLOT].reshape(-1, SLOT)
        kept = words[~gone]
        for slot in np.flatnonzero((kept != words[: len(kept)]).any(axis=1)).tolist():
            self.patch(sec, slot * SLOT, kept[slot].tobytes(), "record", first + slot)
        self.shdr[sec]["sh_size"] -= SLOT * int(gone.sum())
        head, new_slot = self.image.shdr, np.cumsum(~gone) - 1
        for table in np.flatnonzero((head["sh_type"] == t.SHT_RELA) & (head["sh_info"] == sec)).tolist():
            rows = self.image.rows(table, t.RELA)
            inside = rows["r_offset"] < np.uint64(SLOT * len(gone))  # a relocation that does nothing may be anywhere
            slots = np.where(inside, rows["r_offset"], 0).astype(np.int64) // SLOT
            moved = rows.copy()
            moved["r_offset"][inside] += ((new_slot[slots] - slots) * SLOT)[inside].astype(np.uint64)  # wraps
            self.keep_rows(table, moved[~(inside & gone[slots])])

    def cut_relocations(self, table: int, gone: Mask) -> None:
        """Take rows out of a relocation table; the others move up, in order."""
        self.keep_rows(table, self.image.rows(table, t.RELA)[~gone])

    def keep_rows(self, table: int, kept: Rows) -> None:
        """Replace the rows of a relocation table by these, which are fewer or as many."""
        rows = self.image.rows(table, t.RELA)
        assert table not in self._grown or len(kept) == len(rows)
        for row in np.flatnonzero(kept != rows[: len(kept)]).tolist():
            self.patch(table, row * t.RELA.itemsize, kept[row].tobytes(), "relocation", row)
        self.shdr[table]["sh_size"] = len(kept) * t.RELA.itemsize

    # -- the layout --------------------------------------------------------------------------------------------

    def finish(self) -> tuple[list[Placed], list[Patch], list[Placed]]:
        """(header fields, patches in original places, what follows the original bytes); all empty for no change."""
        headers = bool(self._grown) or not np.array_equal(np.array(self.shdr, dtype=t.SHDR), self.image.shdr)
        if not headers and not self.patches:
            return [], [], []
        stays = [patch for patch in self.patches if patch.sec not in self._grown]
        for patch in self.patches:
            if patch.sec in self._grown:
                self._grown[patch.sec][patch.off : patch.off + len(patch.new)] = patch.new
        if not headers:
            return [], stays, []
        end, tail = len(self.image.data), []
        for sec in sorted(self._grown):
            pos = _aligned(end, self._alignment(sec))
            content = bytes(self._grown[sec])
            self.shdr[sec]["sh_offset"] = pos
            if int(self.shdr[sec]["sh_type"]) != t.SHT_NOBITS:
                self.shdr[sec]["sh_size"] = len(content)
            if piece := bytes(pos - end) + content:
                tail.append(Placed(end, piece, f"section {sec} {self.names[sec]}"))
            end = pos + len(content)
        pos, n = _aligned(end, 8), len(self.shdr)
        if n >= t.SHN_LORESERVE:
            self.shdr[0]["sh_size"] = n
        table = np.array(self.shdr, dtype=t.SHDR).tobytes()
        tail.append(Placed(end, bytes(pos - end) + table, "section headers"))
        shnum = n if n < t.SHN_LORESERVE else 0
        fields = ((E_SHOFF, pos, 8, "e_shoff"), (E_SHNUM, shnum, 2, "e_shnum"))
        header = [Placed(at, value.to_bytes(size, "little"), name) for at, value, size, name in fields]
        return header, stays, tail

    def _alignment(self, sec: int) -> int:
        """What a section that moves is aligned to; ElfError where that is no alignment at all."""
        align = int(self.shdr[sec]["sh_addralign"])
        if align & (align - 1) or align > MAX_ALIGN:
            raise ElfError(f"section {sec} {self.names[sec]} must move, and cannot be aligned", self.image.path,
                           found=f"{align:#x}", expected=f"a power of two up to {MAX_ALIGN:#x}")  # fmt: skip
        return align

    def _string(self, sec: int, text: str) -> int:
        """Offset of a new string in a string table, whose last string may lack its end."""
        if sec not in self._grown and self.image.content(sec)[-1:].any():
            self.append(sec, b"\0")
        return self.append(sec, text.encode() + b"\0")

    def _extended(self, sec: int) -> None:
        """The new symbol's entry in the table of section numbers that do not fit a symbol; made where one is needed."""
        if self._shndx is None and sec < t.SHN_LORESERVE:
            return
        if self._shndx is None:
            self._shndx = self.section(".symtab_shndx", t.SHT_SYMTAB_SHNDX, 0, b"", 4, link=self._symtab, entsize=4)
        self.append(self._shndx, b"")
        content = self._grown[self._shndx]
        del content[4 * self._n_symbols :]
        content += bytes(4 * self._n_symbols - len(content))  # one entry per symbol, whatever there was
        content += (sec if sec >= t.SHN_LORESERVE else 0).to_bytes(4, "little")


def _aligned(pos: int, align: int) -> int:
    return -(-pos // max(align, 1)) * max(align, 1)
