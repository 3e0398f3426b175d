"""The relocations of an object in a module: each names the same thing as before, and is one that the loader applies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arch.parts import Applied, Linking
from ftpatch.elf import tables as t
from ftpatch.elf.editor import Editor
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError, PolicyError
from ftpatch.plan.link.lookup import ABSENT, OUTSIDE
from ftpatch.plan.link.sections import Section
from ftpatch.plan.link.symbols import Symbols, Target
from ftpatch.plan.module.imports import require_function

MAX_RELOCATIONS = 1 << 20  # of one object


class Row(NamedTuple):
    """One relocation of the object."""

    off: int  # in its section
    kind: int
    symbol: int  # row in the object's table
    addend: int


@dataclass
class Relocations:
    """One run over the relocations of an object."""

    symbols: Symbols
    linking: Linking

    @property
    def editor(self) -> Editor:
        return self.symbols.editor

    @property
    def patch(self) -> Image:
        return self.symbols.patch

    @property
    def arch(self) -> Arch:
        return self.symbols.module.arch

    def carry(self) -> None:
        """Add all of them. Raises PolicyError or ElfError for one that cannot be applied."""
        tables = [(section, table) for sec, section in self.symbols.sections.items()
                  for table in self._tables(sec)]  # fmt: skip
        n = sum(int(self.patch.shdr["sh_size"][table]) // t.RELA.itemsize for _, table in tables)
        if n > MAX_RELOCATIONS:
            raise PolicyError("the object has too many relocations", self.symbols.path, found=str(n),
                              expected=f"at most {MAX_RELOCATIONS}")  # fmt: skip
        for section, table in tables:
            there: set[int] = set()
            for row in self.patch.rows(table, t.RELA):  # a few hundred
                info, off = int(row["r_info"]), int(row["r_offset"])
                if info & 0xFFFF_FFFF in self.linking.nothing:
                    continue
                if off in there:
                    where = f"{self.symbols.path}: {section.name}+{off:#x}"
                    raise ElfError("two relocations write one place", where, expected="one")
                there.add(off)
                self._one(section, Row(off, info & 0xFFFF_FFFF, info >> 32, int(row["r_addend"])))

    def _tables(self, sec: int) -> list[int]:
        """Sections of relocations for a section of the object."""
        short = (self.patch.shdr["sh_type"] == t.SHT_REL) & (self.patch.shdr["sh_info"] == sec)
        if short.any():
            raise ElfError("relocations without addends", self.symbols.path, found=self.patch.names[sec],
                           expected="SHT_RELA, as the machine's compilers make it")  # fmt: skip
        tables = self.patch.rela_tables.get(sec, [])
        if tables and not self.patch.has_bytes[sec]:
            raise ElfError("relocations for a section without bytes", self.symbols.path, found=self.patch.names[sec],
                           expected="contents that they change")  # fmt: skip
        return tables

    def _one(self, section: Section, row: Row) -> None:
        """Check one relocation, and add it to the module."""
        where = f"{self.symbols.path}: {section.name}+{row.off:#x}"
        if row.symbol >= len(self.patch.symbols.rows):
            raise ElfError("a relocation names no symbol of this file", where, found=f"symbol {row.symbol}",
                           expected=f"less than {len(self.patch.symbols.rows)}")  # fmt: skip
        size = 8 if row.kind in self.arch.wide else 4
        if row.off + size > int(self.patch.shdr["sh_size"][section.number]):
            raise ElfError("a relocation lies outside its section", where,
                           found=f"{int(self.patch.shdr['sh_size'][section.number]):#x} bytes")  # fmt: skip
        applied = self.linking.applied.get(row.kind)
        if applied is None:
            self._refuse_type(row, where)
        assert applied is not None
        if not row.symbol and not applied.named:
            self.editor.relocate(section.sec, section.off + row.off, row.kind, 0, row.addend)
            return
        target = self.symbols.target(row.symbol)
        name = self.patch.symbols.name(row.symbol) or self.editor.names[target.sec]
        self._require_addressable(applied, target, name, where)
        if row.kind in self.linking.branches:
            self._require_branch(section, row, target, where)
        self._require_near(section, applied, row, target, where)
        self._require_staying(section, target, name, where)
        self.editor.relocate(section.sec, section.off + row.off, row.kind, target.row, row.addend)

    def _refuse_type(self, row: Row, where: str) -> None:
        """Refuse a relocation that the loader does not apply, in words where they are known."""
        known = next((known for known in self.linking.not_applied if known.first <= row.kind <= known.last), None)
        raise PolicyError("the module loader does not apply a relocation of the object", where,
                          found=f"type {row.kind}" + (f": {known.why}" if known else ""),
                          expected="code as kernels compile it for modules",
                          todo=known.todo if known else "")  # fmt: skip

    def _require_addressable(self, applied: Applied, target: Target, name: str, where: str) -> None:
        """Refuse an address that the instruction cannot form."""
        if target.where == ABSENT and not applied.absent:
            raise PolicyError("a weak symbol that nobody defines is taken for an address nearby", where,
                              found=f"{applied.name} {name}", expected="a pointer or a call",
                              todo="define it, or leave it out")  # fmt: skip
        if target.where == OUTSIDE and not applied.outside:
            raise PolicyError("a symbol of another file is taken for one nearby", where,
                              found=f"{applied.name} {name}", expected="an address of 64 bits",
                              todo=self.linking.small_code)  # fmt: skip

    def _require_branch(self, section: Section, row: Row, target: Target, where: str) -> None:
        """Refuse a branch to data, and one that loses the caller's TOC."""
        arch, name = self.arch, self.patch.symbols.name(row.symbol)
        code = self.patch.content(section.number)
        words = code[row.off & ~3 : (row.off & ~3) + 8].view("<u4") if row.off % 4 == 0 and len(code) % 4 == 0 else None
        if words is None:
            raise ElfError("a branch lies between two instructions", where, found=f"offset {row.off:#x}")
        if target.where not in (OUTSIDE, ABSENT):
            flags = int(self.editor.shdr[target.sec]["sh_flags"]) if target.sec > 0 else t.SHF_EXECINSTR
            if not flags & t.SHF_EXECINSTR:
                raise PolicyError("the object branches to data", where,
                                  found=f"{name or self.editor.names[target.sec]} in {self.editor.names[target.sec]}",
                                  expected="a function")  # fmt: skip
            return
        require_function(name, self.symbols.against, where)
        modules = arch.modules
        if modules is None or not modules.toc or name in {shape.called for shape in arch.shapes}:
            return
        if not arch.call.word.matches(words[:1])[0]:
            raise PolicyError("a jump out of the module would leave the caller with another TOC", where,
                              found=f"a branch without a link to {name}", expected="a call",
                              todo=self.linking.no_link)  # fmt: skip
        if len(words) < 2 or int(words[1]) != arch.nop:
            raise PolicyError("a call out of the module has no room for the TOC to be loaded again", where,
                              found=f"a call of {name} alone", expected="a nop behind it",
                              todo="declare the function extern, and not static or hidden")  # fmt: skip

    def _require_near(self, section: Section, applied: Applied, row: Row, target: Target, where: str) -> None:
        """Refuse distances that the instruction may not span: sections of code lie side by side, in their order."""
        branch = row.kind in self.linking.branches
        reach = applied.reach or (self.arch.call.high if branch else 0)
        if not reach or target.sec == section.sec or (branch and not applied.reach and target.where != "module"):
            return
        names, first = self.editor.names, len(self.editor.image.shdr)
        flags = [int(head["sh_flags"]) if sec else 0 for sec, head in enumerate(self.editor.shdr)]
        code = target.sec > 0 and bool(flags[target.sec] & t.SHF_EXECINSTR)
        start = first if min(section.sec, target.sec) >= first else 0
        span = sum(self._size(sec) for sec in range(start, len(names)) if flags[sec] & t.SHF_EXECINSTR)
        if target.sec == 0 and branch:
            return
        if not code or span >= reach:
            raise PolicyError("a relocation of the object may not reach", where,
                              found=f"{applied.name} to {names[target.sec] or 'another file'}"
                              + (f", {span:#x} bytes of text" if code else ""),
                              expected=f"code within {reach:#x} bytes",
                              todo=self.linking.small_code)  # fmt: skip

    def _size(self, sec: int) -> int:
        """Bytes of a section as it is by now."""
        if int(self.editor.shdr[sec]["sh_type"]) == t.SHT_NOBITS:
            return int(self.editor.shdr[sec]["sh_size"])
        return len(self.editor.content(sec))

    def _require_staying(self, section: Section, target: Target, name: str, where: str) -> None:
        """Refuse what is freed once the module runs, for code and data that stay. Tables are cut by the loader."""
        there = self.editor.names[target.sec] if target.sec > 0 else ""
        if there.startswith(".init") and not section.init and not section.table:
            raise PolicyError("the object uses what is freed once the module runs", where, found=f"{name} in {there}",
                              expected="code and data that stay",
                              todo="use it from __init code alone")  # fmt: skip


def place_of(patch: Image, row: int, addend: int) -> tuple[int, int]:
    """(section, offset) that a relocation of the object names in itself; section 0 for what it lacks."""
    sec = int(patch.symbols.shndx[row])
    return max(sec, 0), int(patch.symbols.rows["st_value"][row]) + addend


def named_places(patch: Image, linking: Linking) -> set[tuple[int, int]]:
    """(section, offset) of all that the object's relocations name other than by branches."""
    places = set()
    for sec in np.flatnonzero(patch.shdr["sh_flags"] & t.SHF_ALLOC != 0).tolist():
        for table in patch.rela_tables.get(sec, []):
            for row in patch.rows(table, t.RELA):
                symbol, kind = int(row["r_info"]) >> 32, int(row["r_info"]) & 0xFFFF_FFFF
                if kind not in linking.branches and symbol < len(patch.symbols.rows):
                    places.add(place_of(patch, symbol, int(row["r_addend"])))
    return places
