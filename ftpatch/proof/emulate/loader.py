"""Loads a module for the emulation, as the kernel's loader does in spirit: sections laid out, relocations applied.

    BASE        core text, the loader's stubs for it, init text behind a gap, then data, all within a branch's reach
    OUTSIDE     what lives in other files, one address per symbol, out of every branch's reach

Only what a site may execute or read is relocated: code, the TOC, and the sections that patches bring along. A
relocation of a type that is not known here leaves its place as it is.
Source: kernel/module/main.c layout_sections(), simplify_symbols(); the machines' part is in `relocate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arch.parts import Modules
from ftpatch.arch.proof_tables import Apply, Link, Spot, tables_of
from ftpatch.arrays import U64, Mask, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of
from ftpatch.proof.emulate.memory import Block, Memory, Moved, kernel_constants

FAKE_TOC = 0xC000_0000_0180_0000  # of a kernel that is not given
GAP, APART = 1 << 16, 64
MAX_SIZE = 1 << 26  # of a section that has no bytes in the file
OURS, TOC = "ftpatch", ".toc"


@dataclass(frozen=True)
class SymbolValues:
    """Where the symbols of a module are, by row."""

    va: U64  # 0 for what is nowhere
    local: U64  # bytes from there to the entry that calls within the module use
    outside: Mask  # whether it lives in another file


@dataclass(frozen=True)
class Loaded:
    """A module in the emulator's memory."""

    image: Image
    memory: Memory
    base: tuple[int, ...]  # va of every section; 0 for those that are not loaded
    symbols: SymbolValues
    fakes: Mapping[str, int]  # va of every symbol of other files, and of the kernel's entries

    def va(self, sec: int, off: int) -> int:
        """Address of a place."""
        return self.base[sec] + off

    def called(self, name: str) -> int | None:
        """Where a call of the symbol from within the module arrives: the local entry of a function that has two.

        For data, its address; for what another file defines, the one that stands for it; None if nobody names it.
        """
        row = self.image.symbols.defined(name)
        return int(self.symbols.va[row] + self.symbols.local[row]) if row is not None else self.fakes.get(name)


def load_module(image: Image, arch: Arch, kernel: Image | None = None, near: bool = False) -> Loaded:
    """A relocatable file as it is loaded. kernel: the one whose TOC and entries a trampoline of its own goes to; near:
    what lives in other files is linked with it, and in reach."""
    modules, tables = arch.modules, tables_of(arch)
    assert not image.linked and modules is not None
    base, contents, free = _lay_out(image, modules)
    toc = _own_toc(image, base, free) if tables.module_toc else None
    fakes = _fakes(image, arch, kernel)
    if near:
        fakes = {name: _behind(image, base) + APART * at for at, name in enumerate(fakes)}
    symbols = _symbol_values(image, base, fakes, toc)
    if near:
        symbols = SymbolValues(symbols.va, symbols.local, np.zeros(len(symbols.va), dtype=bool))
    for sec in (sec for sec in image.sections_named(*modules.trampolines) if sec in contents):
        for number, name in enumerate(arch.entries):  # the loader's own jumps to the kernel's entries
            at = number * modules.jump
            jump = Link(base[sec] + at, None, tables.stub)
            jump.stub(fakes[name])
            contents[sec][at : at + modules.jump] = jump.stubs[: modules.jump]
    link = Link(free, toc, tables.stub)
    for sec in (sec for sec in _relocated(image) if sec in contents):
        _apply(image, sec, (base[sec], contents[sec]), symbols, link)
    order = sorted(link.pointers)
    moved = Moved(np.array(order, dtype=np.uint64), np.array([link.pointers[at] for at in order], dtype=np.uint64),
                  np.zeros(0, np.uint64))  # fmt: skip
    runs = [(base[sec], bytes(content)) for sec, content in contents.items()] + [(free, bytes(link.stubs))]
    runs += [(fakes[name], code) for name, code in tables.stand_ins.items() if name in fakes]
    blocks = [Block(va, np.frombuffer(data, dtype=np.uint8)) for va, data in sorted(runs) if data]
    kernel_toc, toc_at = kernel_constants(kernel, arch) if kernel else (FAKE_TOC if arch.far else None, None)
    memory = Memory(tuple(blocks), moved, True, kernel_toc, toc_at, toc, tables.module_area[1])
    return Loaded(image, memory, tuple(base), symbols, fakes)


def _lay_out(image: Image, modules: Modules) -> tuple[list[int], dict[int, bytearray], int]:
    """(va of every section, content of those that have one, where there is room for stubs)."""
    jumps = len(image.arch.entries) * modules.jump
    member = np.flatnonzero((image.shdr["sh_flags"] & t.SHF_ALLOC != 0) & (image.shdr["sh_size"] > 0)).tolist()
    base, contents, at = [0] * len(image.shdr), {}, tables_of(image.arch).module_area[0]
    free = 0
    for group in range(4):
        for sec in (sec for sec in member if _group(image, modules, sec) == group):
            align = min(max(int(image.shdr["sh_addralign"][sec]), 16), GAP)
            at += -at % align
            base[sec] = at
            if image.names[sec] in modules.trampolines:
                contents[sec] = bytearray(jumps)
            elif image.has_bytes[sec]:
                contents[sec] = bytearray(image.content(sec).tobytes())
            at += max(min(int(image.shdr["sh_size"][sec]), MAX_SIZE), jumps)
        at += GAP - at % GAP
        if group == 0:
            free, at = at, at + _stub_room(image)
    return base, contents, free


def _behind(image: Image, base: list[int]) -> int:
    """The first free address behind all sections."""
    size = np.minimum(image.shdr["sh_size"], MAX_SIZE).tolist()
    return max((va + size[sec] for sec, va in enumerate(base) if va), default=GAP) // GAP * GAP + 2 * GAP


def _group(image: Image, modules: Modules, sec: int) -> int:
    """0 core text, 1 init text, 2 core data, 3 init data; a jump of the loader's is text, whatever its flags."""
    name = image.names[sec]
    code = bool(image.shdr["sh_flags"][sec] & t.SHF_EXECINSTR) or name in modules.trampolines
    return (0 if code else 2) + name.startswith(".init")


def _stub_room(image: Image) -> int:
    """Bytes for stubs: one for every call is more than enough."""
    n = sum(int(is_in(relocations_of(image, sec).kind, image.arch.loader.calls).sum()) for sec in _relocated(image))
    return (n * tables_of(image.arch).stub_size + GAP - 1) // GAP * GAP


def _relocated(image: Image) -> list[int]:
    return [sec for sec in np.flatnonzero(image.has_bytes & (image.shdr["sh_flags"] & t.SHF_ALLOC != 0)).tolist()
            if image.executable[sec] or OURS in image.names[sec] or image.names[sec] == TOC]  # fmt: skip


def _own_toc(image: Image, base: list[int], free: int) -> int:
    """The module's TOC pointer. Source: arch/powerpc/kernel/module_64.c my_r2()."""
    secs = [sec for sec in image.sections_named(TOC) if base[sec]]
    return ((base[secs[0]] if secs else free) & ~0xFF) + 0x8000


def _fakes(image: Image, arch: Arch, kernel: Image | None) -> dict[str, int]:
    """An address per symbol of other files; the entries of a kernel that is given are where they are."""
    symbols = image.symbols
    rows = np.flatnonzero(symbols.shndx == t.SHN_UNDEF).tolist()[1:]
    names = dict.fromkeys([*arch.entries, *(symbols.name(row) for row in rows)])
    fakes = {name: tables_of(arch).module_area[1] + APART * at for at, name in enumerate(names)}
    if kernel is not None and arch.far is not None:
        known = {name: kernel.symbols.value(name) for name in arch.entries}
        fakes |= {name: va for name, va in known.items() if va is not None}
    return fakes


def _symbol_values(image: Image, base: list[int], fakes: Mapping[str, int], toc: int | None) -> SymbolValues:
    symbols, local_entry = image.symbols, image.arch.local_entry
    va = symbols.rows["st_value"] + np.array(base, dtype=np.uint64)[np.maximum(symbols.shndx, 0)]
    outside = np.asarray(symbols.shndx == t.SHN_UNDEF)
    local = np.zeros(len(va), dtype=np.uint64)
    if local_entry is not None:
        two = ~outside & ((symbols.type == t.STT_FUNC) | (symbols.type == 0))
        local[two] = local_entry(symbols.rows["st_other"][two])
    for row in np.flatnonzero(outside).tolist():
        name = symbols.name(row)
        outside[row] = name != ".TOC." or toc is None  # the loader's own name for the TOC
        va[row] = fakes.get(name, 0) if outside[row] else toc or 0
    return SymbolValues(va, local, outside)


def _applied(image: Image) -> Mapping[int, Apply]:
    """What relocations write; in an object, which a linker sees first, also those of calls that no loader knows."""
    known, modules = tables_of(image.arch).apply, image.arch.modules
    if image.kind != "object" or modules is None:
        return known
    return {**dict.fromkeys(image.arch.direct_calls, known[modules.branch]), **known}


def _apply(image: Image, sec: int, place: tuple[int, bytearray], symbols: SymbolValues, link: Link) -> None:
    """Apply the relocations of one section. place: its va and content."""
    rows, known, (base, content) = relocations_of(image, sec), _applied(image), place
    addend = np.zeros(len(rows.off), dtype=np.int64)
    for table in np.unique(rows.table).tolist():
        of_table = rows.table == table
        addend[of_table] = image.rows(table, t.RELA)["r_addend"][rows.row[of_table]]
    value, local, outside = symbols.va[rows.symbol] + addend.view(np.uint64), symbols.local, symbols.outside
    columns = (rows.off, rows.size, rows.kind, value, local[rows.symbol], outside[rows.symbol])
    for off, size, kind, *of_symbol in zip(*(column.tolist() for column in columns), strict=True):
        if kind in known and 0 <= off <= len(content) - size:
            known[kind](link, Spot(content, off, base + off, *of_symbol))
