"""Where a symbol that an object lacks is defined: in the module, or in a file that it imports from."""

from __future__ import annotations

import difflib
from typing import NamedTuple

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.elf.editor import Editor, NewSymbol
from ftpatch.elf.image import Image
from ftpatch.errors import SelectionError
from ftpatch.kernel.module import Module
from ftpatch.plan.module.imports import add_import, find_import
from ftpatch.plan.request import Against

MODULE, OUTSIDE, ABSENT = "module", "outside", "absent"  # the module defines it; another file; nobody does
# what compilers ask their own library for, and kernels do not have: (beginning of the name, what to do)
OF_COMPILERS = (
    ("__aarch64_", "compile with -mno-outline-atomics, as the kernel does"),
    ("_GLOBAL_OFFSET_TABLE_", "compile with -fno-pic, as the kernel does"),
    ("__stack_chk_guard", "compile with the kernel's own flags for the stack protector"),
    ("_mcount", "compile with the kernel's own flags for patch sites, without -pg"),
    ("__gcov_", "compile without coverage and profiling"), ("__cyg_profile_", "compile without -finstrument-functions"),
    ("__ubsan_", "compile without -fsanitize"), ("__asan_", "compile without -fsanitize"),
    ("_savegpr", "compile with -O2"), ("_restgpr", "compile with -O2"), ("__tls_get_addr", "use per-cpu variables"),
)  # fmt: skip
SHOWN = 3  # candidates that a message names


class Wanted(NamedTuple):
    """A symbol that an object does not define."""

    name: str  # as the object spells it
    weak: bool  # whether it may be missing
    path: str  # of the object

    @property
    def option(self) -> str:
        return f"--with {self.path}: undefined symbol"


class Found(NamedTuple):
    """Where it is."""

    row: int  # in the module's symbol table
    where: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def look_up(editor: Editor, module: Module, against: Against, wanted: Wanted) -> Found:
    """Find a symbol, and add the import that it needs. Raises SelectionError or PolicyError where it cannot be had."""
    name, place = wanted.name, ""
    if "@" in name:
        name, _, place = name.partition("@")
        return _in_module(module.image, name, place, wanted)
    if (row := _only_one(module.image, _definitions(module.image, name), wanted)) is not None:
        return Found(row, MODULE, warnings=_hides_export(module.image, row, against, wanted))
    if len(rows := module.image.symbols.rows_named(name)):
        return Found(int(rows[0]), OUTSIDE)  # undefined in the module, too
    if (made := editor.imported(name)) is not None:
        return Found(made, OUTSIDE)
    return _import(editor, module, against, wanted)


def _hides_export(image: Image, row: int, against: Against, wanted: Wanted) -> tuple[str, ...]:
    """What to say where a static name of the module hides one that the kernel exports."""
    local = image.symbols.bind[row] == t.STB_LOCAL and wanted.name.isprintable()
    if not local or against.kernel is None or against.kernel.exports.find(wanted.name) is None:
        return ()
    return (f"{wanted.path} uses {wanted.name}: the module's own static one was taken, not the kernel's export",)


def _import(editor: Editor, module: Module, against: Against, wanted: Wanted) -> Found:
    """A new import, or a weak symbol that nobody defines."""
    try:
        new = find_import(wanted.name, module, against, wanted.option)
    except SelectionError as error:
        if wanted.weak:
            row = editor.add_symbol(NewSymbol(wanted.name, 0, bind=t.STB_WEAK))
            note = f"{wanted.name} is weak in {wanted.path}, and nobody defines it: its address is 0"
            return Found(row, ABSENT, notes=(note,))
        todo = next((todo for start, todo in OF_COMPILERS if wanted.name.startswith(start)), None)
        old = f"--keep-original {wanted.name}, if it is to be the old function"
        todo = todo or nearest(module, against, wanted.name) or old
        raise SelectionError(error.what, error.where, found=error.found,
                             expected="a symbol of the module, or one that the kernel or a module given by --against "
                             "exports", todo=todo) from None  # fmt: skip
    row, notes = add_import(editor, new)
    return Found(row, OUTSIDE, tuple(notes))


def nearest(module: Module, against: Against, name: str) -> str:
    """A name that may have been meant."""
    symbols = module.image.symbols
    names = {symbols.name(row) for row in np.flatnonzero(np.isin(symbols.type, (t.STT_FUNC, t.STT_OBJECT))).tolist()}
    if against.kernel is not None:
        names |= {exported.decode("utf-8", "replace") for exported in against.kernel.exports.names.tolist()}
    near = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.8)
    return f"{near[0]} is there" if near else ""


def _definitions(image: Image, name: str) -> list[int]:
    """Rows of what the module defines under a name: the one that other files may use before static ones."""
    symbols = image.symbols
    rows = symbols.rows_named(name)
    rows = rows[(symbols.shndx[rows] > 0) & (symbols.type[rows] != t.STT_SECTION)]
    shared = rows[symbols.bind[rows] != t.STB_LOCAL]
    return [int(row) for row in (shared[:1] if len(shared) else rows)]


def _place(image: Image, row: int) -> str:
    symbols = image.symbols
    return f"{image.names[symbols.shndx[row]]}+{int(symbols.rows['st_value'][row]):#x}"


def _only_one(image: Image, rows: list[int], wanted: Wanted) -> int | None:
    """The row of a name that means one place; None for a name that means none."""
    if len({_place(image, row) for row in rows}) <= 1:
        return rows[0] if rows else None
    name = wanted.name.partition("@")[0]
    files = [image.symbols.file_of(row) for row in rows]
    told = [f"{name}@{file or _place(image, row)}" if files.count(file) == 1 else f"{name}@{_place(image, row)}"
            for row, file in zip(rows, files, strict=True)]  # fmt: skip
    raise SelectionError("the module has several symbols of this name", f"{wanted.option} {wanted.name}",
                         found=", ".join(told[:SHOWN]) + (f" and {len(told) - SHOWN} more" if told[SHOWN:] else ""),
                         expected="one of them", todo=f"spell it {told[0]} in the object")  # fmt: skip


def _in_module(image: Image, name: str, place: str, wanted: Wanted) -> Found:
    """`name@file.c` or `name@.section+0xoffset`: what only the module can have."""
    symbols, where = image.symbols, f"{wanted.option} {wanted.name}"
    rows = symbols.rows_named(name)
    rows = rows[(symbols.shndx[rows] > 0) & (symbols.type[rows] != t.STT_SECTION)].tolist()
    if not rows:
        raise SelectionError("the module has no symbol of this name", where, found="nothing",
                             expected=f"{name} in the module",
                             todo="what other files define has no @ in its name")  # fmt: skip
    exact = [row for row in rows if place == _place(image, row)]
    of_file = [row for row in rows if (file := symbols.file_of(row)) is not None and _same_file(file, place)]
    if exact or of_file:
        only = _only_one(image, exact or of_file, wanted)
        assert only is not None
        return Found(only, MODULE)
    untold = not (symbols.type == t.STT_FILE).any() and "+0x" not in place
    if untold and (only := _only_one(image, rows, wanted)) is not None:
        return Found(only, MODULE, warnings=(
            f"the module does not tell of which source file {name} is: the only one of that name was taken for {place}",
        ))  # fmt: skip
    there = ", ".join(f"{name}@{symbols.file_of(row) or _place(image, row)}" for row in rows[:SHOWN])
    raise SelectionError("the module has no symbol of this name there", where, found=there, expected=wanted.name)


def _same_file(known: str, given: str) -> bool:
    """Whether a file is the one that was named: by its last parts."""
    return known == given or known.endswith("/" + given)
