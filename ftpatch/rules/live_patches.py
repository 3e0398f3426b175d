"""Rules about live patch modules: names and sections that the live patching core reads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.elf import tables as t
from ftpatch.kernel.live_patch import (
    SECTION_FORM,
    SHF_RELA_LIVEPATCH,
    SHN_LIVEPATCH,
    SYMBOL,
    SYMBOL_FORM,
    live_patch_of,
    sections_of,
    symbols_of,
)
from ftpatch.rules.case import Case, Hit


def live_patch_form(case: Case) -> Iterator[Hit]:
    """What the live patching core refuses in a live patch module."""
    image = case.image
    patch = live_patch_of(image)
    if patch is None:
        return
    if not patch.declared:
        yield Hit("it has live patch symbols or sections, and its .modinfo does not say livepatch=Y")
    for row, name in symbols_of(image):
        if not SYMBOL_FORM.fullmatch(name):
            yield Hit(f"symbol {row} is named {name!r}, not .klp.sym.OBJECT.NAME,POSITION")
    for row in _unmarked(case):
        yield Hit(f"symbol {row} {image.symbols.name(row)} is not marked: its section number is not SHN_LIVEPATCH")
    for sec in sections_of(image):
        yield from _section(case, sec)


def _unmarked(case: Case) -> Iterator[int]:
    """Rows of symbols with a live patch symbol's name and another section number."""
    symbols = case.image.symbols
    starts = list(t.places_of(SYMBOL.encode(), symbols.strtab))
    rows = np.flatnonzero(np.isin(symbols.rows["st_name"], starts) & (symbols.rows["st_shndx"] != SHN_LIVEPATCH))
    yield from rows.tolist()


def _section(case: Case, sec: int) -> Iterator[Hit]:
    """What is wrong with one relocation table for the live patching core."""
    image, name = case.image, case.image.names[sec]
    head = image.shdr[sec]
    form, of = SECTION_FORM.fullmatch(name), int(head["sh_info"])
    if not form:
        yield Hit(f"section {sec} is named {name!r}, not .klp.rela.OBJECT.SECTION", section=name)
    elif of < len(image.names) and image.names[of] != form[2]:
        yield Hit(f"section {sec} {name} is for {image.names[of] or of}, as its sh_info has it", section=name)
    if not int(head["sh_flags"]) & SHF_RELA_LIVEPATCH:
        yield Hit(f"section {sec} {name} has no SHF_RELA_LIVEPATCH: the loader applies it at once", section=name)
    if head["sh_type"] != t.SHT_RELA or of >= len(image.names):
        yield Hit(f"section {sec} {name} is no table of relocations of a section of this file", section=name)
        return
    symbols = (image.rows(sec, t.RELA)["r_info"] >> np.uint64(32)).astype(np.int64)
    known = symbols[symbols < len(image.symbols.rows)]
    n = int((image.symbols.rows["st_shndx"][known] != SHN_LIVEPATCH).sum()) + len(symbols) - len(known)
    if n:
        yield Hit(f"section {sec} {name} has {n} relocations against symbols that are not SHN_LIVEPATCH", section=name)
