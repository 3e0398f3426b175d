"""The function that takes another's place in a module: one of the module itself or of an object, or one that
another file exports.

    name, name@file.c                   a function of the object that comes along, static or not
    name, name@file.c, .section+0xOFF   one of the module, static or not
    name                                one that the module uses already, or may use

The first that there is counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from posixpath import basename

import numpy as np

from ftpatch.arrays import I64, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.function_types import FunctionTypes
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of
from ftpatch.errors import PolicyError, SelectionError
from ftpatch.kernel.callee import why_no_function
from ftpatch.kernel.exports import Export, read_exports
from ftpatch.kernel.module import Module
from ftpatch.plan.module.callee import existing_symbol
from ftpatch.plan.module.imports import Import, find_import, require_function
from ftpatch.plan.redirect.refusals import Substitute
from ftpatch.plan.redirect.replacement import rows_named
from ftpatch.plan.request import Against

PLACE = re.compile(r"(\.[\w.]+)\+0[xX]([0-9a-fA-F]{1,16})")
ADDRESS = re.compile(r"0[xX][0-9a-fA-F]+")
OPTION = "--to"
AGAINST = "--against the file that exports it shows whether it is one"
FORMS = "name, name@file.c or .section+0xOFF of the module, or what another file exports"


@dataclass(frozen=True)
class ModuleReplacement:
    """A function that takes another's place in a module."""

    substitute: Substitute
    row: int | None  # of its symbol in the module; None for one that the module does not have yet
    va: int = -1  # of a function of the module, as that is laid out here; −1 for others
    outside: bool = False  # whether it is in another file
    carried: bool = False  # whether it comes along in an object
    init: bool = False  # whether it is init text
    two_entries: bool = False  # of one that is not outside: whether it computes the TOC at its symbol
    wanted: Import | None = None  # what the module must say to use it

    @property
    def name(self) -> str:
        return self.substitute.name


@dataclass
class Finder:
    """Finds replacements for the functions of one module."""

    module: Module
    against: Against
    types: FunctionTypes  # of the module
    patch: Image | None = None  # the object that comes along
    _other_types: dict[int, FunctionTypes] = field(default_factory=dict)  # id of an image → the types in it

    def find(self, text: str) -> ModuleReplacement:
        """The function that `text` names. Raises SelectionError or PolicyError."""
        image, where = self.module.image, f"{OPTION} {text}"
        if ADDRESS.fullmatch(text):
            raise SelectionError("an address means nothing in a module, which is loaded anywhere", where,
                                 expected=FORMS)  # fmt: skip
        rows = _rows_at(image, text) if PLACE.fullmatch(text) else rows_named(image, text)
        defined = rows[image.symbols.shndx[rows] != t.SHN_UNDEF]
        if (brought := self._brought(text, bool((image.symbols.bind[defined] != t.STB_LOCAL).any()))) is not None:
            return brought
        if len(defined):
            row = self._function(image, defined, text, where)
            sec, value = int(image.symbols.shndx[row]), int(image.symbols.rows["st_value"][row])
            own = ModuleReplacement(self._substitute(image, row), row, int(image.base[sec]) + value)
            return replace(own, init=_is_init(image, row), two_entries=_has_two(image, row))
        if PLACE.fullmatch(text) or "@" in text[1:]:
            raise SelectionError("no such function", where, found="no symbol of the module there", expected=FORMS)
        existing = existing_symbol(image, text)
        if existing is not None:
            self._require_called(existing[0], text, where)
            return ModuleReplacement(self._elsewhere(text), existing[0], outside=True)
        wanted = self._import(text)
        require_function(text, self.against, where)
        return ModuleReplacement(self._elsewhere(text), None, outside=True, wanted=wanted)

    def _import(self, name: str) -> Import:
        """What the module must say to use a symbol; a refusal for a name that nobody has names one like it."""
        try:
            return find_import(name, self.module, self.against, OPTION)
        except SelectionError as error:
            from ftpatch.plan.link.lookup import nearest

            raise SelectionError(error.what, error.where, found=error.found, expected=error.expected,
                                 todo=nearest(self.module, self.against, name)) from None  # fmt: skip

    def _brought(self, text: str, in_module: bool) -> ModuleReplacement | None:
        """The function of the object that `text` names; None where it has none. in_module: whether the module has one
        of that name, which a weak one of the object gives way to."""
        patch = self.patch
        if patch is None or PLACE.fullmatch(text):
            return None
        rows = rows_named(patch, text)
        rows = rows[patch.symbols.shndx[rows] != t.SHN_UNDEF]
        if in_module:
            rows = rows[patch.symbols.bind[rows] != t.STB_WEAK]
        if not len(rows):
            return None
        where = f"{OPTION} {text}"
        row = self._function(patch, rows, text, where)
        if patch.symbols.type[row] != t.STT_FUNC:  # nobody could tell the jump to it from others
            raise SelectionError("the replacement is no function", where, found=f"a label of {patch.path}",
                                 expected="a function", todo=".type NAME, %function makes it one")  # fmt: skip
        brought = ModuleReplacement(self._substitute(patch, row), None, carried=True)
        return replace(brought, init=_is_init(patch, row), two_entries=_has_two(patch, row))

    def _substitute(self, image: Image, row: int) -> Substitute:
        """A function of one of the files, with what is known of it there."""
        if image is self.module.image:
            return Substitute(image.symbols.name(row), self.types, row)
        kernel = self.against.kernel.image if self.against.kernel else None
        types = self._other_types.setdefault(id(image), FunctionTypes(image, None if image is kernel else kernel))
        return Substitute(image.symbols.name(row), types, row)

    def _function(self, image: Image, rows: I64, text: str, where: str) -> int:
        """Row of the one function that these symbols of a relocatable file name."""
        symbols = image.symbols
        places = sorted(set(zip(symbols.shndx[rows].tolist(), symbols.rows["st_value"][rows].tolist(), strict=True)))
        if len(places) > 1:
            shown = [f"{_section(image, sec)}+{off:#x}" for sec, off in places]
            files = sorted({basename(file) for row in rows.tolist() if (file := symbols.file_of(row))})
            by_file = f"{text}@{files[0]}, or " if "@" not in text[1:] and files else ""
            raise SelectionError(f"{len(places)} functions of that name", where, found=", ".join(shown[:3]),
                                 todo=f"give {by_file}{shown[0]}")  # fmt: skip
        row = _function_row(image, rows)
        if why := why_no_function(image, row):
            raise SelectionError("the replacement is no function", where, found=why, expected="code")
        return row

    def _require_called(self, row: int, name: str, where: str) -> None:
        """Refuse an undefined symbol of which nothing says that it will be there, and a function."""
        given = [side for side in (self.against.kernel, *self.against.others) if side is not None]
        nowhere = "exported by no file that was given" if given else "no kernel to look for it"
        if self._export(name) is not None:
            require_function(name, self.against, where)
        elif self.module.image.symbols.bind[row] == t.STB_WEAK:
            raise PolicyError("the symbol is weak, and nothing where no file exports it", where, found=nowhere,
                              expected="a function that is there", todo=AGAINST)  # fmt: skip
        elif row not in _called(self.module.image):
            raise PolicyError("the module uses this symbol, but never calls it", where, found=nowhere,
                              expected="a function", todo=AGAINST)  # fmt: skip

    def _elsewhere(self, name: str) -> Substitute:
        """A function of another file, with what is known of it there."""
        exported = self._export(name)
        if exported is None:
            return Substitute(name, None, 0)
        image, export = exported
        symbols, row = image.symbols, None
        for candidate in symbols.rows_named(name).tolist():
            sec, value = int(symbols.shndx[candidate]), int(symbols.rows["st_value"][candidate])
            if (value == export.va) if image.linked else ((sec, value) == (export.sec, export.off)):
                row = candidate
        if row is None:
            return Substitute(name, None, 0, f"{image.path} has no symbol of it")
        return self._substitute(image, row)

    def _export(self, name: str) -> tuple[Image, Export] | None:
        """The file that exports a name, the kernel first, and how."""
        sides = [(side.image, side) for side in (self.against.kernel, *self.against.others) if side is not None]
        for image, side in sides if name.isprintable() else ():
            exports = self.against.kernel.exports if side is self.against.kernel else read_exports(image)
            if (export := exports.find(name)) is not None:
                return image, export
        return None


def _rows_at(image: Image, text: str) -> I64:
    """The symbols of functions at a place `.section+0xOFF`."""
    match, symbols = PLACE.fullmatch(text), image.symbols
    assert match is not None
    sections = [sec for sec, name in enumerate(image.names) if name == match[1]]
    at = np.isin(symbols.shndx, sections) & (symbols.rows["st_value"] == np.uint64(int(match[2], 16)))
    return np.flatnonzero(at & np.isin(symbols.type, (t.STT_FUNC, 0)) & (symbols.rows["st_name"] != 0))


def _function_row(image: Image, rows: I64) -> int:
    """Of symbols of one place, a function's; it has the local entry, which another name of the place may lack."""
    symbols = image.symbols
    typed = rows[symbols.type[rows] == t.STT_FUNC]
    if len(typed):
        return int(typed[0])
    same = (symbols.shndx == symbols.shndx[rows[0]]) & (symbols.rows["st_value"] == symbols.rows["st_value"][rows[0]])
    functions = np.flatnonzero(same & (symbols.type == t.STT_FUNC)).tolist()
    return int(functions[0] if functions else rows[0])


def _is_init(image: Image, row: int) -> bool:
    """Whether a function is freed once the module runs."""
    return image.names[int(image.symbols.shndx[row])].startswith(".init")


def _has_two(image: Image, row: int) -> bool:
    """Whether a function has a global and a local entry."""
    local_entry = image.arch.local_entry
    return local_entry is not None and bool(local_entry(image.symbols.rows["st_other"][row : row + 1])[0])


def _section(image: Image, sec: int) -> str:
    return image.names[sec] if 0 < sec < len(image.names) else f"section {sec}"


def _called(image: Image) -> set[int]:
    """Rows of the symbols that the module's code calls or jumps to."""
    called: set[int] = set()
    for sec in np.flatnonzero(image.executable).tolist():
        rows = relocations_of(image, sec)
        called.update(rows.symbol[is_in(rows.kind, image.arch.loader.calls)].tolist())
    return called
