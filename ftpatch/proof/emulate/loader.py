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
from ftpatch.arch.proof_tables import Link, Spot, tables_of
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of
from ftpatch.proof.emulate.memory import Block, Memory, Moved, kernel_constants

FAKE_TOC = 0xC000_0000_0180_0000  # of a kernel that is not given
GAP, APART = 1 << 16, 64
MAX_SIZE = 1 << 26  # of a section that has no bytes in the file
OURS, TOC = "ftpatch", ".toc"


@dataclass(frozen=True)
class Loaded:
    """A module in the emulator's memory."""

    image: Image
    memory: Memory
    base: tuple[int, ...]  # va of every section; 0 for those that are not loaded
    fakes: Mapping[str, int]  # va of every symbol of other files, and of the kernel's entries

    def va(self, sec: int, off: int) -> int:
        """Address of a place."""
        return self.base[sec] + off

    def address_of(self, name: str) -> int | None:
        """Address of a symbol: where it is defined, else the one that stands for it; None if nobody names it."""
        row = self.image.symbols.defined(name)
        return _address(self.image, self.base, row) if row is not None else self.fakes.get(name)

    def called(self, name: str) -> int | None:
        """Where a call of the symbol from within the module arrives: the local entry of a function that has two."""
        row, va = self.image.symbols.defined(name), self.address_of(name)
        return va if row is None or va is None else va + _local(self.image, row)


def load_module(image: Image, arch: Arch, kernel: Image | None = None) -> Loaded:
    """A relocatable file as it is loaded. kernel: the one whose TOC and entries a trampoline of its own goes to."""
    assert not image.linked and arch.modules is not None
    base, contents, free = _lay_out(image, arch)
    toc = _own_toc(image, base, free) if tables_of(arch).module_toc else None
    fakes = _fakes(image, arch, kernel)
    link = Link(free, toc, tables_of(arch).stub)
    _fill_jumps(image, arch, base, contents, fakes)
    for sec in (one for one in _relocated(image) if one in contents):
        _apply(image, sec, base, contents[sec], fakes, link)
    order = sorted(link.pointers)
    moved = Moved(np.array(order, dtype=np.uint64), np.array([link.pointers[at] for at in order], dtype=np.uint64),
                  np.zeros(0, np.uint64))  # fmt: skip
    runs = [(base[sec], bytes(content)) for sec, content in contents.items()] + [(free, bytes(link.stubs))]
    blocks = [Block(va, np.frombuffer(data, dtype=np.uint8)) for va, data in sorted(runs) if data]
    kernel_toc, toc_at = kernel_constants(kernel, arch) if kernel else (FAKE_TOC if arch.far else None, None)
    memory = Memory(tuple(blocks), moved, True, kernel_toc, toc_at, toc, tables_of(arch).module_area[1])
    return Loaded(image, memory, tuple(base), fakes)


def _lay_out(image: Image, arch: Arch) -> tuple[list[int], dict[int, bytearray], int]:
    """(va of every section, content of those that have one, where there is room for stubs)."""
    modules = arch.modules
    jumps = len(arch.entries) * modules.jump if modules else 0
    member = np.flatnonzero((image.shdr["sh_flags"] & t.SHF_ALLOC != 0) & (image.shdr["sh_size"] > 0)).tolist()
    base, contents, at = [0] * len(image.shdr), {}, tables_of(arch).module_area[0]
    free = 0
    for group in range(4):
        for sec in (one for one in member if _group(image, arch, one) == group):
            align = min(max(int(image.shdr["sh_addralign"][sec]), 16), GAP)
            at += -at % align
            base[sec] = at
            if modules and image.names[sec] in modules.trampolines:
                contents[sec] = bytearray(jumps)
            elif image.has_bytes[sec]:
                contents[sec] = bytearray(image.content(sec).tobytes())
            at += max(min(int(image.shdr["sh_size"][sec]), MAX_SIZE), jumps)
        at += GAP - at % GAP
        if group == 0:
            free, at = at, at + _stub_room(image)
    return base, contents, free


def _group(image: Image, arch: Arch, sec: int) -> int:
    """0 core text, 1 init text, 2 core data, 3 init data; a jump of the loader's is text, whatever its flags."""
    name = image.names[sec]
    code = bool(image.shdr["sh_flags"][sec] & t.SHF_EXECINSTR)
    code |= arch.modules is not None and name in arch.modules.trampolines
    return (0 if code else 2) + name.startswith(".init")


def _stub_room(image: Image) -> int:
    """Bytes for stubs: one for every call is more than enough."""
    n = sum(int(np.isin(relocations_of(image, sec).kind, image.arch.loader.calls).sum()) for sec in _relocated(image))
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
    found = {name: tables_of(arch).module_area[1] + APART * at for at, name in enumerate(names)}
    if kernel is not None and arch.far is not None:
        known = {name: kernel.symbols.value(name) for name in arch.entries}
        found |= {name: va for name, va in known.items() if va is not None}
    return found


def _fill_jumps(
    image: Image, arch: Arch, base: list[int], contents: dict[int, bytearray], fakes: Mapping[str, int]
) -> None:
    """The loader's own jumps to the kernel's entries."""
    modules = arch.modules
    assert modules is not None
    for sec in image.sections_named(*modules.trampolines):
        if sec not in contents:
            continue
        for number, name in enumerate(arch.entries):
            at = number * modules.jump
            link = Link(base[sec] + at, None, tables_of(arch).stub)
            link.stub(fakes[name])
            contents[sec][at : at + modules.jump] = link.stubs[: modules.jump]


def _apply(image: Image, sec: int, base: list[int], content: bytearray, fakes: Mapping[str, int], link: Link) -> None:
    """Apply the relocations of one section."""
    found, symbols = relocations_of(image, sec), image.symbols
    addend = _addends(image, found.table.tolist(), found.row.tolist())
    names: dict[int, tuple[int, int, bool]] = {}
    for off, size, kind, row, more in zip(found.off.tolist(), found.size.tolist(), found.kind.tolist(),
                                          found.symbol.tolist(), addend, strict=True):  # fmt: skip
        apply = tables_of(image.arch).apply.get(kind)
        if apply is None or not 0 <= off <= len(content) - size or row >= len(symbols.rows):
            continue
        if row not in names:
            undefined = symbols.shndx[row] == t.SHN_UNDEF
            name = symbols.name(row) if undefined else ""
            if name == ".TOC." and link.toc is not None:
                names[row] = link.toc, 0, False
            elif undefined:
                names[row] = fakes.get(name, 0), 0, True
            else:
                names[row] = _address(image, base, row), _local(image, row), False
        va, local, outside = names[row]
        apply(link, Spot(content, off, base[sec] + off, va + more & (1 << 64) - 1, local, outside))


def _addends(image: Image, tables: list[int], rows: list[int]) -> list[int]:
    parts = {table: image.rows(table, t.RELA)["r_addend"].tolist() for table in set(tables)}
    return [parts[table][row] for table, row in zip(tables, rows, strict=True)]


def _address(image: Image, base: tuple[int, ...] | list[int], row: int) -> int:
    sec = int(image.symbols.shndx[row])
    return (base[sec] if sec > 0 else 0) + int(image.symbols.rows["st_value"][row]) & (1 << 64) - 1


def _local(image: Image, row: int) -> int:
    """Bytes from a function's symbol to the entry that calls within the module use."""
    if image.arch.local_entry is None or image.symbols.type[row] not in (t.STT_FUNC, 0):
        return 0
    return int(image.arch.local_entry(image.symbols.rows["st_other"][row : row + 1])[0])
