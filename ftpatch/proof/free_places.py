"""Whether a place of the first file was free for a shared stub: nothing there, nobody's, and nobody gets there.

Read from the file anew, by what a place must not be. Where machines have far stubs, a place is zero bytes without an
owner, behind the text or in front of init text. Where they have veneers, it may be padding anywhere in ordinary text:
then the words in front of it, every branch and address of the code, and every pointer of the data are looked at.
"""

from __future__ import annotations

import numpy as np

from ftpatch.arch.proof_tables import ProofTables, tables_of
from ftpatch.arrays import U8, Mask
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.kernel import special_text
from ftpatch.kernel.init_text import in_init_text
from ftpatch.sites.scan import Scan

WORD = 4
LOOK_BACK = 1 << 12  # words in front of a place that are looked at for one that is no padding
AT_ONCE = 1 << 21  # words of code that are decoded at once


def why_not_free(before: Scan, va: int, size: int) -> str:
    """Why bytes that a shared stub now takes were not free in the first file; empty where they were."""
    image, tables = before.image, tables_of(before.arch)
    pos, last = image.pos_of_va(va), image.pos_of_va(va + size - 1)
    if pos < 0 or last != pos + size - 1:
        return "which is no place in the file"
    held = image.data[pos : pos + size]
    if held.any() and not (tables.veneer and _all_nops(tables, held)):
        return "where something else stood"
    if image.relocated(np.array([va], dtype=np.uint64), size)[0]:
        return "which the kernel relocates"
    rows, kind = image.symbols.rows, image.symbols.type
    start, end = rows["st_value"], rows["st_value"] + rows["st_size"]
    there: Mask = (image.symbols.shndx > 0) & (kind != t.STT_SECTION) & (start < np.uint64(va + size))
    there &= (end > np.uint64(va)) & ~_own_areas(before, va)
    if there.any():
        return f"which belongs to {image.symbols.name(int(np.argmax(there)))}"
    if not _is_text(image, va):
        return "which is no text"
    return _why_not_padding(before, tables, va, size) if tables.veneer else ""


def _own_areas(before: Scan, va: int) -> Mask:
    """Symbols of the areas at an address that the kernel fills at boot: they have no size, but as far as the next
    symbol where all are from kallsyms."""
    image, areas = before.image, np.zeros(len(before.image.symbols.rows), dtype=bool)
    if image.recovered is not None and before.arch.far is not None:
        for name in before.arch.far.areas:
            areas[image.symbols.rows_named(name)] = True
        areas &= image.symbols.rows["st_value"] == np.uint64(va)
    return areas


def is_left_empty(image: Image, pos: int, size: int) -> bool:
    """Whether nothing is left of a veneer: NOPs where a NOP stands in front of it, else zeros."""
    tables = tables_of(image.arch)
    held, front = image.data[pos : pos + size], image.data[pos - WORD : pos]
    return _all_nops(tables, held) if _all_nops(tables, front) else not held.any()


def _all_nops(tables: ProofTables, held: U8) -> bool:
    return len(held) % WORD == 0 and bool((np.ascontiguousarray(held).view("<u4") == tables.nop).all())


def _is_text(image: Image, va: int) -> bool:
    """Whether the kernel maps a place as code: in a section of it, or between its sections and the end of the text; on
    some machines up to init text, which on others lies behind data that nothing is executed from."""
    sec = image.place(np.array([va], dtype=np.uint64))[0][0]
    if sec >= 0:
        return bool(image.executable[sec])
    ends = [
        image.symbols.value("_etext"),
        image.symbols.value("__init_begin") if image.arch.text_reaches_init else None,
    ]
    low = int(image.base[image.executable].min()) if image.executable.any() else va + 1
    return any(end is not None and low <= va < end for end in ends)


# -- padding in the text -----------------------------------------------------------------------------------------------


def _why_not_padding(before: Scan, tables: ProofTables, va: int, size: int) -> str:
    """Why zeros or NOPs of code are more than padding; empty where they are not."""
    image = before.image
    if why := _special(image, va, size) or _unsized(image, va) or _of_a_site(before, tables, va, size):
        return why
    start = _behind_an_end(image, tables, va)
    if start is None:
        return "where execution may go on from the code in front"
    if _is_named(image, tables, start, va + size):
        return "which code of the file names, by a branch or as an address"
    return "which data names, as a pointer or a distance" if _is_pointed_to(image, start, va + size) else ""


def _special(image: Image, va: int, size: int) -> str:
    """What part of the text a place is in that is not executed as other code is; empty for none."""
    init = bool(in_init_text(image, np.array([va], dtype=np.uint64))[0])
    sec = int(image.place(np.array([va], dtype=np.uint64))[0][0])
    if sec >= 0 and special_text.special_sections(image, init)[sec]:
        return f"in {image.names[sec]}"
    if not special_text.mapped_executable(image, va, size):
        return "which no executable segment loads"
    for low, high in special_text.special_ranges(image, init):
        if low < va + size and va < high:
            return f"between the symbols of {low:#x} and {high:#x}, whose code is not executed as other code is"
    start, end = (side.view(np.uint64) for side in special_text.replacements(image))
    inside = (start < np.uint64(va + size)) & (end > np.uint64(va))
    return "in the code of an alternative" if inside.any() else ""


def _unsized(image: Image, va: int) -> str:
    """Whether the last symbol in front of a place has no size, so that nobody knows where it ends; empty where not."""
    symbols = image.symbols
    value = symbols.rows["st_value"]
    sec = int(image.place(np.array([va], dtype=np.uint64))[0][0])
    low = int(image.base[sec]) if sec >= 0 else 0
    known = (symbols.shndx > 0) & ~np.isin(symbols.type, (t.STT_SECTION, t.STT_FILE)) & (value <= np.uint64(va))
    known &= value >= np.uint64(low)
    order = np.flatnonzero(known)[np.argsort(value[known], kind="stable")][::-1]
    at = None
    for row in order.tolist():  # from the nearest one back to the first that is no mapping symbol
        if at is not None and int(value[row]) != at:
            break
        if symbols.rows["st_size"][row]:
            return ""
        if not symbols.name(row).startswith(("$x", "$d")):
            at = int(value[row])
            nearest = row
    if at is None or special_text.bounds_something(image, nearest):
        return ""
    return f"behind {symbols.name(nearest)}, which has no size"


def _of_a_site(before: Scan, tables: ProofTables, va: int, size: int) -> str:
    """Whether a place is part of a patch site, or may be: NOPs in front of a function are left for one."""
    sites, image = before.sites, before.image
    placed = sites.sec >= 0
    start, end = sites.va[placed], sites.body_va[placed] + np.uint64(sites.shape.size if sites.shape else 0)
    if ((start < np.uint64(va + size)) & (end > np.uint64(va))).any():
        return "which is part of a patch site"
    pos = image.pos_of_va(va)
    if not _all_nops(tables, image.data[pos : pos + WORD]):
        return ""
    ahead = max(0, *(shape.entry for shape in image.arch.shapes),
                int((sites.entry_va - sites.va)[placed].view(np.int64).max(initial=0)))  # fmt: skip
    entry = image.functions.va
    near = entry[(entry >= np.uint64(va)) & (entry < np.uint64(va + size + ahead))]
    return "which lies in front of a function, where its site may be" if len(near) else ""


def _behind_an_end(image: Image, tables: ProofTables, va: int) -> int | None:
    """Where the padding begins in which a place is, if the word in front of it lets nothing go on; else None."""
    for start in range(va, va - WORD * LOOK_BACK, -WORD):
        pos = image.pos_of_va(start - WORD)
        word = int(image.word_at(np.array([pos]))[0]) if pos >= 0 else None
        if word is None or word not in (0, tables.nop):
            return start if word is not None and tables.leaves is not None and tables.leaves(word) else None
    return None


def _is_named(image: Image, tables: ProofTables, low: int, high: int) -> bool:
    """Whether an instruction of the file goes into [low, high) or makes an address there."""
    for sec in np.flatnonzero(image.executable).tolist():
        first, n = int(image.base[sec]), int(image.shdr["sh_size"][sec]) // WORD
        for at in range(0, n, AT_ONCE):
            words = image.code(first + WORD * at, min(AT_ONCE, n - at))
            if tables.names is not None and tables.names(words, first + WORD * at, low, high):
                return True
    return False


def _is_pointed_to(image: Image, start: int, end: int) -> bool:
    """Whether eight aligned bytes of data, or what a relocation will write, are an address in [start, end), or four
    the distance from themselves to one."""
    low, high = np.uint64(start), np.uint64(end)
    addend = image.rela[0]["r_addend"].view(np.uint64)
    found = [bool(((addend >= low) & (addend < high)).any())]
    kinds = (t.SHT_RELA, t.SHT_RELR, t.SHT_NOBITS)
    for sec, head in enumerate(image.shdr):
        if int(head["sh_flags"]) & t.SHF_ALLOC and not image.executable[sec] and int(head["sh_type"]) not in kinds:
            content, skip = image.content(sec), -int(head["sh_addr"]) % 8
            values = content[skip : skip + (len(content) - skip & ~7)].view("<u8")
            found.append(bool(((values >= low) & (values < high)).any()))
            found.append(_leads_to(content[-int(head["sh_addr"]) % 4 :], int(head["sh_addr"]) + 3 & ~3, start, end))
    return any(found)


def _leads_to(content: U8, va: int, start: int, end: int) -> bool:
    """Whether four bytes of a section, from an address on, are the distance from themselves to [start, end)."""
    distances = content[: len(content) & ~3].view("<i4")
    lowest, highest = start - va, end - va - 1
    if highest < -(1 << 31) or lowest >= (1 << 31) + len(content):
        return False
    places = distances.astype(np.int64) + 4 * np.arange(len(distances), dtype=np.int64)
    return bool(((places >= lowest) & (places <= highest)).any())
