"""Rules about sites of programs where a hook may not work: before main, and in functions that are no plain C ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.arch.program_parts import programs_of
from ftpatch.arrays import I64, U64, is_in
from ftpatch.elf.image import Image
from ftpatch.elf.image_tables import symbols_of
from ftpatch.elf.kind import DT_SONAME, dynamic_of
from ftpatch.elf.tables import SHT_DYNSYM, STT_GNU_IFUNC
from ftpatch.rules.case import Case, Hit
from ftpatch.sites.table import ENABLED, READY, STRIPPED, UNNAMED

LOADERS = ("ld-linux", "ld64.so", "ld.so", "ld-musl", "ld-uClibc")  # how the DT_SONAME of a dynamic linker begins
ARRAYS = (".preinit_array", ".init_array", ".ctors")  # sections of pointers to functions that run before main
DT_INIT, DT_STRTAB = 12, 5
MAX_NAME = 256


def _sites_at(case: Case, entries: U64) -> I64:
    """Sound sites of the functions at these addresses."""
    table, index = case.table, case.live_with(READY, ENABLED, STRIPPED, UNNAMED)
    if table.shape is None:
        return index
    entry = table.va[index] + table.shape.to_entry(table.window[index]).view(np.uint64)
    return index[is_in(entry, entries) | is_in(table.entry_va[index], entries)]


def ifunc_resolver(case: Case) -> Iterator[Hit]:
    """Sites in functions that choose an implementation while the file is still being relocated."""
    image, symbols = case.image, case.image.symbols
    kinds = (symbols.type == STT_GNU_IFUNC) & (symbols.shndx > 0)
    starts = [symbols.rows["st_value"][kinds]]
    if (kind := image.arch.irelative) is not None:
        rows, _ = image.rela
        starts.append(rows["r_addend"][rows["r_info"] & 0xFFFF_FFFF == kind].view(np.uint64))
    sites = _sites_at(case, np.concatenate(starts))
    for site in sites.tolist():
        name = case.table.name(site) or case.table.place_text(site)
        yield Hit(f"{name} has a site and is an IFUNC resolver", site)


def variant_calls(case: Case) -> Iterator[Hit]:
    """Sites of functions that are called in another way than C functions are."""
    programs, table = programs_of(case.arch), case.table
    index = np.flatnonzero(case.live & case.named)
    if programs is None or programs.variant is None or not len(index):
        return
    other = case.image.symbols.rows["st_other"][case.image.functions.row[table.func[index]]]
    sites = index[programs.variant(other)]
    if len(sites):
        are = "site is of a function" if len(sites) == 1 else "sites are of functions"
        yield Hit(f"{len(sites)} {are} with a calling convention of its own: {case.some(sites)}", count=len(sites))


def startup_site(case: Case) -> Iterator[Hit]:
    """Sites of constructors, of the start of the program, and of a dynamic linker."""
    image = case.image
    if (soname := _soname(image)).startswith(LOADERS):
        n = int(case.live.sum())
        if n:
            yield Hit(f"{n} sites are in the dynamic linker itself ({soname})", count=n)
        return
    dynamic = dynamic_of(image)
    starts = [np.array([int(image.ehdr["e_entry"])], dtype=np.uint64), dynamic["d_val"][dynamic["d_tag"] == DT_INIT]]
    rows, _ = image.rela
    for sec in image.sections_named(*ARRAYS):
        if not image.has_bytes[sec]:
            continue
        low, size = int(image.base[sec]), int(image.shdr["sh_size"][sec])
        mine = (rows["r_offset"] >= np.uint64(low)) & (rows["r_offset"] < np.uint64(low + size))
        content = image.content(sec)
        starts += [rows["r_addend"][mine].view(np.uint64), content[: len(content) & ~7].view("<u8")]
        starts.append(_named(image, rows["r_info"][mine]))
    entries = np.concatenate(starts)
    sites = _sites_at(case, entries[entries != 0])
    if len(sites):
        sites_run = "site runs" if len(sites) == 1 else "sites run"
        yield Hit(f"{len(sites)} {sites_run} before main: {case.some(sites)}", count=len(sites))


def _named(image: Image, info: U64) -> U64:
    """Addresses of the symbols that relocations of pointers name, where those are of this file."""
    symbols = symbols_of(image, SHT_DYNSYM)
    number = (info[info & 0xFFFF_FFFF == image.arch.abs64] >> np.uint64(32)).astype(np.int64)
    number = number[number < len(symbols.rows)]
    return np.asarray(symbols.rows["st_value"][number[symbols.shndx[number] > 0]])


def _soname(image: Image) -> str:
    """The name by which other files ask for a shared object."""
    dynamic = dynamic_of(image)
    name = dynamic["d_val"][dynamic["d_tag"] == DT_SONAME]
    table = dynamic["d_val"][dynamic["d_tag"] == DT_STRTAB]
    pos = image.pos_of_va(int(table[0])) if len(name) and len(table) else -1
    if pos < 0 or int(name[0]) > len(image.data):
        return ""
    start = pos + int(name[0])
    return bytes(image.data[start : start + MAX_NAME]).partition(b"\0")[0].decode("utf-8", "backslashreplace")
