"""The symbols of an object in a module: those that it defines become the module's, those that it lacks are looked for.

A file that is changed gets new symbols behind all others, where only global ones may be; so the object's local ones
become global, under names that nobody else uses. What the object lacks is looked for in this order:

    1. what --keep-original defines, and the loader's own `.TOC.`
    2. the module: its static functions and data, too, by `name`, `name@file.c` or `name@.section+0xoffset`
    3. what the module imports already
    4. what the kernel and other modules export, with all that an import needs
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ftpatch.elf import tables as t
from ftpatch.elf.editor import Editor, NewSymbol
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError, PolicyError
from ftpatch.kernel.module import Module
from ftpatch.plan.link.lookup import MODULE, Wanted, look_up
from ftpatch.plan.link.sections import COMMON, MAX_ALIGN, Section
from ftpatch.plan.module.records import toc_symbol
from ftpatch.plan.request import Against
from ftpatch.sites.records import SECTIONS as RECORDS

SHN_COMMON = 0xFFF2
STT_TLS, STT_IFUNC = 6, 10
LOCAL = "ftpatch_with."  # in front of the names of what is local in the object
MAX_SYMBOLS = 1 << 15  # of an object
MODULE_ENTRIES = ("init_module", "cleanup_module")


@dataclass(frozen=True)
class Target:
    """What a symbol of the object is in the module."""

    row: int  # in the module's symbol table
    sec: int  # of the module; 0 where another file defines it
    value: int = 0  # offset in the section
    where: str = MODULE  # MODULE, OUTSIDE or ABSENT


@dataclass
class Symbols:
    """The symbols of one object, as they become the module's."""

    editor: Editor
    module: Module
    patch: Image
    against: Against
    sections: Mapping[int, Section]
    originals: Mapping[str, Target]  # what --keep-original made, by name
    path: str  # of the object, for messages
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    defined: dict[str, int] = field(default_factory=dict)  # row in the module by name, of what the object defines
    _known: dict[int, Target] = field(default_factory=dict)  # by row in the object
    _starts: dict[tuple[int, int], int] = field(default_factory=dict)  # rows for section symbols, by section and value
    _taken: dict[str, int] = field(default_factory=dict)  # names that are taken, and how often they were wanted

    def define(self) -> None:
        """Add every function and object that the object defines. Raises PolicyError for one that cannot be."""
        symbols = self.patch.symbols
        if len(symbols.rows) > MAX_SYMBOLS:
            raise PolicyError("the object has too many symbols", self.path, found=str(len(symbols.rows)),
                              expected=f"at most {MAX_SYMBOLS}")  # fmt: skip
        if symbols.rows[:1].tobytes().strip(b"\0"):
            raise ElfError("the symbol table begins with a symbol", self.path, found=symbols.name(0) or "no name",
                           expected="24 zero bytes")  # fmt: skip
        self._symbols.look_up([symbols.name(row) for row in range(1, len(symbols.rows))])
        kinds, shndx = symbols.type, symbols.rows["st_shndx"]
        rows = [row for row in range(1, len(symbols.rows))
                if symbols.shndx[row] in self.sections or shndx[row] == SHN_COMMON]  # fmt: skip
        self._taken = dict.fromkeys(map(self._symbols.name, range(len(self._symbols.rows))), 1)
        names: set[str] = set()
        for row in rows:
            if symbols.bind[row] != t.STB_LOCAL:
                self._require_new(row, names)
        self._common(rows)
        for row in rows:
            name = symbols.name(row)
            kind = kinds[row] if kinds[row] != t.STT_SECTION else 0
            if (name or kind == t.STT_FUNC) and symbols.shndx[row] > 0 and (kind or symbols.bind[row] != t.STB_LOCAL):
                self.target(row)

    @property
    def rows(self) -> dict[int, int]:
        """Row in the module's symbol table, by row in the object's, of each that has been asked for."""
        return {row: target.row for row, target in self._known.items()}

    @property
    def uses(self) -> frozenset[tuple[int, int]]:
        """(section, offset) of all in the module that the object names."""
        theirs = [target for target in self._known.values() if target.where == MODULE]
        return frozenset(
            (target.sec, target.value) for target in theirs if 0 < target.sec < len(self.editor.image.shdr)
        )

    def target(self, row: int) -> Target:
        """What a symbol of the object is in the module, made where it is not there yet."""
        if row not in self._known:
            self._known[row] = self._find(row)
        return self._known[row]

    def _find(self, row: int) -> Target:
        symbols = self.patch.symbols
        sec, kind, name = int(symbols.shndx[row]), int(symbols.type[row]), symbols.name(row)
        if kind in (STT_TLS, STT_IFUNC):
            what = "a thread-local variable" if kind == STT_TLS else "a function that is chosen when it is first called"
            raise PolicyError(f"the object has {what}", self.path, found=name, expected="functions and data",
                              todo="no kernel knows such symbols")  # fmt: skip
        if row == 0 or sec == t.NO_SECTION:
            raise PolicyError("the object uses a symbol that is no place in a section", self.path,
                              found=f"{name or 'symbol 0'}, st_shndx {int(symbols.rows['st_shndx'][row]):#x}",
                              expected="functions and data", todo="use a constant")  # fmt: skip
        if sec == t.SHN_UNDEF:
            return self._undefined(row, name)
        if sec not in self.sections:
            raise PolicyError("the object uses a section that is not loaded", self.path,
                              found=f"{self.patch.names[sec]} by {name or 'its section symbol'}",
                              expected="code and data")  # fmt: skip
        if self.sections[sec].name in RECORDS:
            raise PolicyError("the object refers to its own records of patch sites", self.path,
                              found=name or self.sections[sec].name, expected="code and data",
                              todo="the loader puts them in another order")  # fmt: skip
        if kind == t.STT_SECTION:
            return self._start(sec, int(symbols.rows["st_value"][row]))
        return self._own(row, name, self.sections[sec])

    def _own(self, row: int, name: str, section: Section) -> Target:
        """A symbol that the object defines; a weak one gives way to the module's."""
        symbols = self.patch.symbols
        local, weak = symbols.bind[row] == t.STB_LOCAL, symbols.bind[row] == t.STB_WEAK
        existing = self._of_module(name) if weak else None
        if existing is not None:
            self.notes.append(f"{name} is weak in {self.path}: the module's is used")
            sec, value = int(self._symbols.shndx[existing]), int(self._symbols.rows["st_value"][existing])
            self.defined[name] = existing
            return Target(existing, sec, value)
        old, value = symbols.rows[row], section.off + int(symbols.rows["st_value"][row])
        end, kind = int(old["st_value"]) + int(old["st_size"]), int(symbols.type[row])
        if end > int(self.patch.shdr["sh_size"][section.number]):
            raise ElfError("a symbol lies outside its section", self.path, found=f"{name}, up to {end:#x}",
                           expected=f"at most {int(self.patch.shdr['sh_size'][section.number]):#x}")  # fmt: skip
        if kind not in (0, t.STT_OBJECT, t.STT_FUNC):
            raise PolicyError("the object has a symbol that is no function and no data", self.path,
                              found=f"{name}, type {kind}", expected="functions and data")  # fmt: skip
        new = _unique(LOCAL + name, self._taken) if local or not name else name
        # where the local entry is, on machines where there is one; the two lowest bits are its visibility
        entry = int(old["st_other"]) & ~3 if self.module.arch.local_entry and kind != t.STT_OBJECT else 0
        made = self.editor.add_symbol(NewSymbol(new, section.sec, value, int(old["st_size"]), kind, other=entry))
        if not local or name not in self.defined:
            self.defined[name] = made
        return Target(made, section.sec, value)

    @property
    def _symbols(self) -> t.Symbols:
        return self.module.image.symbols

    def _of_module(self, name: str) -> int | None:
        """Row of the module's definition of a name that other files may use."""
        rows = self._symbols.rows_named(name)
        rows = rows[(self._symbols.shndx[rows] > 0) & (self._symbols.bind[rows] != t.STB_LOCAL)]
        return int(rows[0]) if len(rows) else None

    def _start(self, sec: int, value: int) -> Target:
        """A symbol at the start of a section of the object, or where its section symbol is instead."""
        section = self.sections[sec]
        place = section.off + value
        if value > int(self.patch.shdr["sh_size"][sec]):
            raise ElfError("a symbol lies outside its section", self.path, found=f"section symbol at {value:#x}",
                           expected="the section's start")  # fmt: skip
        if (sec, value) not in self._starts:
            name = _unique(LOCAL + section.name.lstrip("."), self._taken)
            self._starts[sec, value] = self.editor.add_symbol(NewSymbol(name, section.sec, place))
        return Target(self._starts[sec, value], section.sec, place)

    def _common(self, rows: list[int]) -> None:
        """Room for the variables that the compiler left to a linker (-fcommon), in a section of their own."""
        symbols, size, most = self.patch.symbols, 0, 1
        places: list[tuple[int, int]] = []  # (row in the object, offset)
        for row in rows:
            if symbols.rows["st_shndx"][row] == SHN_COMMON:
                align = int(symbols.rows["st_value"][row])  # of a common symbol
                if align & (align - 1) or not 0 < align <= MAX_ALIGN or symbols.type[row] == STT_TLS:
                    raise PolicyError("the object has a common symbol that cannot be placed", self.path,
                                      found=f"{symbols.name(row)}, aligned to {align:#x}",
                                      expected=f"a power of two up to {MAX_ALIGN:#x}")  # fmt: skip
                size += -size % align
                places.append((row, size))
                size, most = size + int(symbols.rows["st_size"][row]), max(most, align)
        if not places:
            return
        name = self.editor.free_name(COMMON)
        sec = self.editor.empty_section(name, t.SHF_ALLOC | t.SHF_WRITE, size, most)
        for row, off in places:
            name, length = symbols.name(row), int(symbols.rows["st_size"][row])
            made = self.editor.symbol(name, sec, off, length, t.STT_OBJECT)
            self.defined[name], self._known[row] = made, Target(made, sec, off)

    def _require_new(self, row: int, names: set[str]) -> None:
        """Refuse a name that the module has, or the object twice: nobody could tell the two apart."""
        symbols, name = self.patch.symbols, self.patch.symbols.name(row)
        if name in names:
            raise ElfError("the object defines a symbol twice", self.path, found=name, expected="one definition")
        names.add(name)
        if name in MODULE_ENTRIES:
            raise PolicyError("the object has a module_init or module_exit of its own", self.path, found=name,
                              expected="functions that the module calls",
                              todo="leave them out: the loader runs the module's alone")  # fmt: skip
        if name in self.originals:
            raise PolicyError("the object defines what --keep-original is to define", self.path, found=name,
                              expected="a declaration alone", todo="give --keep-original another name")  # fmt: skip
        weak = symbols.bind[row] == t.STB_WEAK
        theirs = self._symbols.rows_named(name)
        if not len(theirs) or (weak and self._of_module(name) is not None):
            return
        first = int(theirs[0])
        sec = int(self._symbols.shndx[first])
        at = f"at {self.module.image.names[sec]}+{int(self._symbols.rows['st_value'][first]):#x}" if sec > 0 else ""
        raise PolicyError("the object defines a symbol that the module has", self.path,
                          found=f"{name}, which the module {f'defines {at}' if at else 'imports'}",
                          expected="a new name",
                          todo="rename it, or make it static")  # fmt: skip

    def _undefined(self, row: int, name: str) -> Target:
        """A symbol that the object lacks."""
        modules = self.module.arch.modules
        assert modules is not None
        if name in self.originals:
            return self.originals[name]
        if name == modules.toc:
            return Target(toc_symbol(self.editor, name), 0)
        weak = bool(self.patch.symbols.bind[row] == t.STB_WEAK)
        found = look_up(self.editor, self.module, self.against, Wanted(name, weak, self.path))
        self.notes += [note for note in found.notes if note not in self.notes]
        self.warnings += found.warnings
        sec = int(self._symbols.shndx[found.row]) if found.where == MODULE else 0
        value = int(self._symbols.rows["st_value"][found.row]) if found.where == MODULE else 0
        return Target(found.row, sec, value, found.where)


def _unique(name: str, taken: dict[str, int]) -> str:
    """The name, or the first `name.2`, `name.3` … that is free; taken from then on."""
    number, free = taken.get(name, 0), name
    while number:
        number += 1
        free = f"{name}.{number}"
        if free not in taken:
            break
    taken[name] = max(number, 1)
    taken[free] = max(taken.get(free, 0), 1)
    return free
