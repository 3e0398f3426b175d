"""Rules about objects and modules as compilers and linkers leave them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.arch.shape import MATCH_OLD
from ftpatch.arrays import first_of_each
from ftpatch.rules.case import Case, Hit, first
from ftpatch.rules.patchers import others
from ftpatch.sites.records import SECTIONS
from ftpatch.sites.table import CALL_RECORDS, OURS

SHF_LINK_ORDER = 0x80


def unrecorded(case: Case) -> Iterator[tuple[str, str, int]]:
    """(function, section, offset of its symbol) of functions whose entry is a site by its words, without a record.

    Words that a static key or an alternative rewrites are theirs; NOPs between functions belong to no entry.
    """
    image, shape, functions = case.image, case.table.shape, case.image.functions
    if shape is None or shape.anywhere or not len(functions.va):
        return
    entry = functions.va if shape.at_global else functions.local
    rows = first_of_each(entry)
    sec, off = image.place(entry[rows])
    code = (sec >= 0) & image.executable[np.maximum(sec, 0)] & ~np.isin(sec, image.sections_named(".exit.text"))
    sec, off = np.where(code, sec, -1), off - shape.entry
    window = image.window(sec, off)
    bare = (shape.match(window) == MATCH_OLD) & code
    if shape.literal is not None:
        front = window[:, shape.literal // shape.unit - shape.first :][:, :2]
        bare &= (front == np.uint32(case.arch.nop)).all(axis=1)
    known = np.sort(case.table.va[case.table.sec >= 0])  # a record elsewhere in the function is another rule's
    start = image.va(sec, off)
    site = start + shape.site(window).view(np.uint64)
    low, high = start - np.minimum(start, np.uint64(8)), np.maximum(functions.end[rows], site + np.uint64(4))
    bare &= np.searchsorted(known, low) == np.searchsorted(known, high)
    for _, start, _ in others(image) if bare.any() else ():
        bare &= ~np.isin(site, start)
    sec, off = image.place(functions.va[rows[bare]])
    for row, section, offset in zip(functions.row[rows[bare]].tolist(), sec.tolist(), off.tolist(), strict=True):
        yield image.symbols.name(row), image.names[section], offset


def nops_without_record(case: Case) -> Iterator[Hit]:
    """Functions that are built to be traced and are not recorded."""
    shape = case.table.shape
    if shape is None or shape.called or OURS.encode() in case.image.symbols.strtab:
        return
    for name, section, offset in unrecorded(case):
        yield Hit(f"{name} starts with the NOPs of a site and has no record", None, name, section, offset)


def link_order(case: Case) -> Iterator[Hit]:
    """Record sections that a linker may drop or order apart from the code they name."""
    image, records = case.image, case.records
    for sec in image.sections_named(*SECTIONS):
        if image.names[sec] == CALL_RECORDS or not image.has_bytes[sec]:
            continue
        low, size = int(image.shdr["sh_offset"][sec]), int(image.shdr["sh_size"][sec])
        mine = (records.slot >= low) & (records.slot < low + size) & (records.sec >= 0)
        named, n = np.unique(records.sec[mine]).tolist(), int(mine.sum())
        link, flags = int(image.shdr["sh_link"][sec]), int(image.shdr["sh_flags"][sec])
        where = first([image.names[target] for target in named])
        if not flags & SHF_LINK_ORDER or not link:
            text = f"section {sec} with {n} records of {where} has no SHF_LINK_ORDER"
        elif named and named != [link] and link < len(image.names):
            text = f"section {sec} is linked to {image.names[link]}, its {n} records name {where}"
        else:
            continue
        yield Hit(text, section=image.names[sec], count=n)
