"""Functions that a program imports: the slots that the dynamic linker fills with their addresses, and the stubs of a
.plt that jump through those."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ftpatch.arch.program_parts import Programs
from ftpatch.arrays import U64
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.image_tables import symbols_of
from ftpatch.elf.kind import dynamic_of

DT_FLAGS, DT_FLAGS_1, DT_BIND_NOW = 30, (7 << 28) - 5, 24
DF_BIND_NOW, DF_1_NOW = 8, 1
PLT = (".plt", ".plt.sec", ".plt.got", ".plt.bnd", ".iplt")
STUB = 24  # bytes of a stub that are read
TYPE = np.uint64(0xFFFF_FFFF)


class Import(NamedTuple):
    """An imported function, as this file reaches it."""

    slot: int  # va of the word that holds its address
    late: bool  # whether that may be filled when the function is first called
    plt: int  # va of a stub that jumps through that word; 0 for none
    weak: bool  # whether the program starts without it, too


def find_import(image: Image, programs: Programs, name: str) -> Import | None:
    """How the file reaches the imported function of a name; None where nothing of it is in the file."""
    symbols = symbols_of(image, t.SHT_DYNSYM)
    wanted = symbols.rows_named(name)
    wanted = wanted[symbols.shndx[wanted] == t.SHN_UNDEF].astype(np.uint64)
    rows = image.rela[0]
    rows = rows[np.isin(rows["r_info"] >> np.uint64(32), wanted[wanted > 0]) & (rows["r_addend"] == 0)]
    kind = rows["r_info"] & TYPE
    early, late = (rows[kind == np.uint64(number)] for number in (programs.glob_dat, programs.jump_slot))
    if not len(early) and not len(late):
        return None
    slots = np.concatenate([early, late])["r_offset"]
    stubs, through = _plt_stubs(image)
    plt: dict[int, int] = {}
    for va, to in zip(stubs.tolist(), through.tolist(), strict=True):
        plt.setdefault(to, va)  # behind a mark for indirect jumps stands what looks like the stub again
    best = next((slot for slot in slots.tolist() if slot in plt), int(slots[0]))
    weak = bool((symbols.bind[wanted.astype(np.int64)] == t.STB_WEAK).all())
    return Import(best, best not in early["r_offset"].tolist() and not binds_now(image), plt.get(best, 0), weak)


def own_behind_stubs(image: Image, programs: Programs) -> dict[int, int]:
    """va of functions of the file by the stubs of a .plt that lead to them, unless another file has one of their name:
    shared objects call their own functions so."""
    symbols, rows = symbols_of(image, t.SHT_DYNSYM), image.rela[0]
    number = (rows["r_info"] >> np.uint64(32)).astype(np.int64)
    kind = rows["r_info"] & TYPE
    slot = (kind == np.uint64(programs.jump_slot)) | (kind == np.uint64(programs.glob_dat))
    rows, number = rows[slot & (number < len(symbols.rows))], number[slot & (number < len(symbols.rows))]
    own = symbols.shndx[number] > 0
    values = dict(zip(rows["r_offset"][own].tolist(), symbols.rows["st_value"][number[own]].tolist(), strict=True))
    stubs, through = _plt_stubs(image) if values else (rows["r_offset"][:0], rows["r_offset"][:0])
    return {va: values[to] for va, to in zip(stubs.tolist(), through.tolist(), strict=True) if to in values}


def binds_now(image: Image) -> bool:
    """Whether the dynamic linker fills all slots before the program starts."""
    rows = dynamic_of(image)
    flags = {tag: int(np.bitwise_or.reduce(rows["d_val"][rows["d_tag"] == np.uint64(tag)], initial=0))
             for tag in (DT_FLAGS, DT_FLAGS_1)}  # fmt: skip
    now = bool(flags[DT_FLAGS] & DF_BIND_NOW or flags[DT_FLAGS_1] & DF_1_NOW)
    return now or bool((rows["d_tag"] == np.uint64(DT_BIND_NOW)).any())


def _plt_stubs(image: Image) -> tuple[U64, U64]:
    """(va, va of the slot that it jumps through) of everything in the .plt sections that is such a stub."""
    arch, nothing = image.arch, np.zeros(0, np.uint64)
    places, slots = [nothing], [nothing]
    if arch.plt_slot is None:
        return nothing, nothing
    got = next((int(image.base[sec]) for sec in image.sections_named(".got")), 0)
    for sec in image.sections_named(*PLT):
        if not image.executable[sec]:
            continue
        va = image.base[sec] + np.arange(0, int(image.shdr["sh_size"][sec]), max(arch.unit, 4), dtype=np.uint64)
        through = arch.plt_slot(image.words(*image.place(va), 0, STUB // arch.unit), va, got)
        places.append(va[through > 0])
        slots.append(through[through > 0])
    return np.concatenate(places), np.concatenate(slots)
