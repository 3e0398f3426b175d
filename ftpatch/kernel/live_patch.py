"""What a live patch brings: the functions that it replaces, and the symbols that the kernel resolves for it.

    .modinfo                        livepatch=Y
    .klp.rela.OBJECT.SECTION        relocations of SECTION, with the flag SHF_RELA_LIVEPATCH: applied by the live
                                    patching core when OBJECT (vmlinux or a module) is there
    .klp.sym.OBJECT.NAME,POSITION   symbols of section SHN_LIVEPATCH: the POSITIONth NAME of OBJECT, 0 for the only one
    struct klp_patch { mod, objs }, klp_object { name, funcs }, klp_func { old_name, new_func, old_sympos }

The structs are data with relocations, whose first members are the same in every kernel; how long a struct is differs.
Source: Documentation/livepatch/module-elf-format.rst; kernel/livepatch/core.c klp_resolve_symbols(),
klp_write_section_relocs(); include/linux/livepatch.h (Linux 6.1, 6.12).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.kernel.modinfo import read_modinfo

SHN_LIVEPATCH, SHF_RELA_LIVEPATCH = 0xFF20, 0x0010_0000
SYMBOL, SECTION = ".klp.sym.", ".klp.rela."
SYMBOL_FORM = re.compile(r"\.klp\.sym\.([^.]{1,55})\.([^,]{1,511}),(\d{1,20})")
SECTION_FORM = re.compile(r"\.klp\.rela\.([^.]{1,55})\.(.+)")
VMLINUX = "vmlinux"  # what is patched where no object is named
MAX_POINTERS = 1 << 16  # relocations of data that are looked at; a patch has a few per function
MAX_STEPS = 1 << 18  # pointers of arrays that are followed, those that are met twice counted twice
ARRAY = 64  # steps that an array counts for at least


class PatchedFunction(NamedTuple):
    """One struct klp_func."""

    object: str  # vmlinux or a module
    function: str  # that is replaced
    replacement: str  # the function that is called instead
    position: int  # which of several functions of that name: 0 for the only one


class LiveSymbol(NamedTuple):
    """A symbol that the live patching core resolves."""

    object: str
    name: str
    position: int


class _Place(NamedTuple):
    """Where a pointer of data is, or where it leads."""

    sec: int
    off: int


@dataclass(frozen=True)
class LivePatch:
    """What is special in a live patch module."""

    image: Image
    declared: bool  # its .modinfo says livepatch=

    @cached_property
    def symbols(self) -> tuple[LiveSymbol, ...]:
        """Those whose name has the right form, in the order of the symbol table."""
        forms = (SYMBOL_FORM.fullmatch(name) for _, name in symbols_of(self.image))
        return tuple(LiveSymbol(form[1], form[2], int(form[3])) for form in forms if form)

    @cached_property
    def functions(self) -> tuple[PatchedFunction, ...]:
        """What its static struct klp_patch replaces; none where it makes that at run time."""
        return tuple(_Walk(self.image).functions())

    @property
    def objects(self) -> tuple[str, ...]:
        """Everything that it patches or resolves symbols of, vmlinux first, then as found."""
        sections = (SECTION_FORM.fullmatch(self.image.names[sec]) for sec in sections_of(self.image))
        names = [*(function.object for function in self.functions), *(form[1] for form in sections if form),
                 *(symbol.object for symbol in self.symbols)]  # fmt: skip
        return tuple(sorted(dict.fromkeys(names), key=lambda name: name != VMLINUX))


def live_patch_of(image: Image) -> LivePatch | None:
    """The live patch that a module is; None for any other file."""
    if image.linked:
        return None
    declared = any(b"livepatch=" in image.content(sec).tobytes() for sec in image.sections_named(".modinfo"))
    declared = declared and read_modinfo(image).first("livepatch") is not None
    special = SYMBOL.encode() in image.symbols.strtab or any(True for _ in symbols_of(image)) or sections_of(image)
    return LivePatch(image, declared) if declared or special else None


def sections_of(image: Image) -> list[int]:
    """The relocation tables that the live patching core applies, by flag or name."""
    flagged = image.shdr["sh_flags"] & np.uint64(SHF_RELA_LIVEPATCH) != 0
    return [sec for sec, name in enumerate(image.names) if flagged[sec] or name.startswith(SECTION)]


def symbols_of(image: Image) -> Iterator[tuple[int, str]]:
    """(row, name) of the symbols that the live patching core resolves, by their section number."""
    rows = np.flatnonzero(image.symbols.rows["st_shndx"] == SHN_LIVEPATCH).tolist()
    return ((row, image.symbols.name(row)) for row in rows)


class _Walk:
    """The pointers of a module's data, followed from struct klp_patch on."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.pointers = dict(self._pointers())
        self.left = MAX_STEPS
        self.by_section: dict[int, list[int]] = {}  # where pointers are, ascending
        for place in self.pointers:
            self.by_section.setdefault(place.sec, []).append(place.off)
        for offsets in self.by_section.values():
            offsets.sort()

    def _pointers(self) -> Iterator[tuple[_Place, tuple[int, _Place]]]:
        """Place of each pointer in data → (symbol row, place it leads to)."""
        image = self.image
        flags, left = image.shdr["sh_flags"], MAX_POINTERS
        for table in np.flatnonzero(image.shdr["sh_type"] == t.SHT_RELA).tolist():
            sec = int(image.shdr["sh_info"][table])
            data = sec < len(flags) and int(flags[sec]) & (t.SHF_ALLOC | t.SHF_EXECINSTR) == t.SHF_ALLOC
            rows = image.rows(table, t.RELA) if data else image.rows(table, t.RELA)[:0]
            rows = rows[(rows["r_info"] & np.uint64(0xFFFF_FFFF)) == np.uint64(image.arch.abs64)][:left]
            left -= len(rows)
            symbol = (rows["r_info"] >> np.uint64(32)).astype(np.int64)
            rows, symbol = rows[symbol < len(image.symbols.rows)], symbol[symbol < len(image.symbols.rows)]
            with np.errstate(over="ignore"):
                to = image.symbols.rows["st_value"][symbol] + rows["r_addend"].view(np.uint64)
            for off, row, target in zip(rows["r_offset"].tolist(), symbol.tolist(), to.tolist(), strict=True):
                yield _Place(sec, off), (row, _Place(int(image.symbols.shndx[row]), target))

    def functions(self) -> Iterator[PatchedFunction]:
        """Every struct klp_func of every struct klp_patch."""
        for place, (row, _) in self.pointers.items():
            objects = self.pointers.get(_Place(place.sec, place.off + 8))
            if self.image.symbols.name(row) == "__this_module" and objects is not None:
                for name, functions in self._objects(objects[1]):
                    yield from self._functions(name, functions)

    def _objects(self, start: _Place) -> Iterator[tuple[str, _Place]]:
        """(name, place of its functions) of each struct klp_object: what points at data is `funcs`, and the name is
        in front of it; callbacks point at code."""
        for off in self._in_array(start):
            place = _Place(start.sec, off)
            _, to = self.pointers[place]
            named = self.pointers.get(_Place(start.sec, off - 8)) if off - 8 >= start.off else None
            if self._is_data(to) and _Place(to.sec, to.off + 8) in self.pointers:
                yield (self._text(named[1]) if named else VMLINUX), to

    def _functions(self, name: str, start: _Place) -> Iterator[PatchedFunction]:
        for off in self._in_array(start):
            row, to = self.pointers[_Place(start.sec, off)]
            old = self.pointers.get(_Place(start.sec, off - 8)) if off - 8 >= start.off else None
            if old is not None and self._is_code(to):
                yield PatchedFunction(
                    name, self._text(old[1]), self._function(row, to), self._number(start.sec, off + 8)
                )

    def _in_array(self, start: _Place) -> list[int]:
        """Offsets of the pointers in the array that begins at a place, as long as its symbol says; else up to the
        next symbol."""
        symbols = self.image.symbols
        if self.left <= 0:
            return []
        here = np.flatnonzero((symbols.shndx == start.sec) & (symbols.type != t.STT_SECTION))
        value = symbols.rows["st_value"][here]
        exact = here[value == np.uint64(start.off)]
        size = int(symbols.rows["st_size"][exact].max(initial=0))
        behind = value[value > np.uint64(start.off)]
        limit = int(self.image.shdr["sh_size"][start.sec]) if start.sec >= 0 else 0
        end = start.off + size if size else int(behind.min()) if len(behind) else limit
        offsets = self.by_section.get(start.sec, [])
        inside = offsets[bisect_left(offsets, start.off) : bisect_left(offsets, end)][: max(self.left, 0)]
        self.left -= max(len(inside), ARRAY)
        return inside

    def _is_data(self, place: _Place) -> bool:
        return place.sec > 0 and not self.image.executable[place.sec]

    def _is_code(self, place: _Place) -> bool:
        return place.sec > 0 and bool(self.image.executable[place.sec])

    def _text(self, place: _Place) -> str:
        """The string at a place of the file's data; empty where there is none."""
        if not self._is_data(place):
            return ""
        content = self.image.content(place.sec)[place.off : place.off + t.MAX_NAME].tobytes()
        return content.partition(b"\0")[0].decode("utf-8", "backslashreplace")

    def _function(self, row: int, place: _Place) -> str:
        """The function at a place: by its symbol, else .text+0x…"""
        if self.image.symbols.type[row] == t.STT_FUNC:
            return self.image.symbols.name(row)
        va = self.image.base[place.sec] + np.uint64(place.off)
        low, high = self.image.functions.at(np.array([va], dtype=np.uint64))
        if low[0] < high[0]:
            return self.image.symbols.name(int(self.image.functions.row[low[0]]))
        return f"{self.image.names[place.sec]}+{place.off:#x}"

    def _number(self, sec: int, off: int) -> int:
        content = self.image.content(sec)[off : off + 8].tobytes()
        return int.from_bytes(content, "little")
