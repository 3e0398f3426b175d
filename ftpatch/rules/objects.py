"""Rules about objects and modules as compilers and linkers leave them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.arch.shape import MATCH_OLD
from ftpatch.arrays import I64
from ftpatch.rules.case import Case, Hit
from ftpatch.rules.patchers import others
from ftpatch.rules.words import first
from ftpatch.sites.records import SECTIONS
from ftpatch.sites.table import CALL_RECORDS, OURS

SHF_LINK_ORDER = 0x80


def unrecorded(case: Case) -> I64:
    """Rows of `image.functions` whose entry is a site by its words, without a record for it.

    Words that a static key or an alternative rewrites are theirs; NOPs between functions belong to no entry.
    """
    image, table, shape = case.image, case.the(), case.the().shape
    functions = image.functions
    if shape is None or shape.anywhere or not len(functions.va):
        return np.zeros(0, dtype=np.int64)
    entry = functions.va if shape.at_global else functions.local
    rows = np.sort(np.unique(entry, return_index=True)[1])
    sec, off = image.place(entry[rows])
    code = (sec >= 0) & image.executable[np.maximum(sec, 0)] & ~np.isin(sec, image.sections_named(".exit.text"))
    sec, off = np.where(code, sec, -1), off - shape.entry
    window = image.window(sec, off)
    found = (shape.match(window) == MATCH_OLD) & code
    if shape.literal is not None:
        front = window[:, shape.literal // shape.unit - shape.first :][:, :2]
        found &= (front == np.uint32(case.arch.nop)).all(axis=1)
    site = image.va(sec, off) + shape.site(window).view(np.uint64)
    known = np.sort(table.va[table.sec >= 0])  # a record elsewhere in the function is another rule's
    start = image.va(sec, off)
    low, high = start - np.minimum(start, np.uint64(8)), np.maximum(functions.end[rows], site + np.uint64(4))
    found &= np.searchsorted(known, low) == np.searchsorted(known, high)
    for _, start, _ in others(image) if found.any() else ():
        found &= ~np.isin(site, start)
    return np.asarray(rows[found], dtype=np.int64)


def nops_without_record(case: Case) -> Iterator[Hit]:
    """Functions that are built to be traced and are not recorded."""
    image = case.image
    shape = case.the().shape
    if shape is None or shape.called or OURS.encode() in image.symbols.strtab:
        return
    for row in unrecorded(case).tolist():
        va = image.functions.va[row : row + 1]
        sec, off = image.place(va)
        name, section = image.symbols.name(int(image.functions.row[row])), image.names[int(sec[0])]
        yield Hit(f"{name} starts with the NOPs of a site and has no record", None, name, section, int(off[0]))


def link_order(case: Case) -> Iterator[Hit]:
    """Record sections that a linker may drop or order apart from the code they name."""
    image, records = case.image, case.slots()
    for sec in image.sections_named(*SECTIONS):
        if image.names[sec] == CALL_RECORDS or not image.has_bytes[sec]:
            continue
        low = int(image.shdr["sh_offset"][sec])
        mine = (records.slot >= low) & (records.slot < low + int(image.shdr["sh_size"][sec])) & (records.sec >= 0)
        named = np.unique(records.sec[mine]).tolist()
        link, flags = int(image.shdr["sh_link"][sec]), int(image.shdr["sh_flags"][sec])
        where = first([image.names[one] for one in named])
        if not flags & SHF_LINK_ORDER or not link:
            text = f"section {sec} with {int(mine.sum())} records of {where} has no SHF_LINK_ORDER"
        elif case.kind == "object" and named and named != [link] and link < len(image.names):
            text = f"section {sec} is linked to {image.names[link]}, its {int(mine.sum())} records name {where}"
        else:
            continue
        yield Hit(text, section=image.names[sec], count=int(mine.sum()))


FINDS = {
    "nops-without-record": nops_without_record,
    "link-order": link_order,
}
