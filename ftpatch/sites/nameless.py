"""Why a site has no name: what is left of an overridden weak function, or a function whose symbol was stripped.

A linker that finds a strong definition of a weak function keeps the code of the weak one, and its record, without a
symbol. Nothing refers to such code: whoever calls the name comes to the other definition. A static function is kept by
a compiler only because something refers to it, and `strip --strip-unneeded` takes its symbol all the same. So a site
that is called, jumped to or pointed at is not left of a weak function. Of one that nothing refers to, the file tells
what it is only where the names of other static functions are still there. A kernel's own kallsyms tell it all.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftpatch.arch.shape import Branch, Shape
from ftpatch.arrays import I64, U8, U32, U64, Mask, distinct, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.sites.matching import PROLOGUE
from ftpatch.sites.named_at_build import named_at_build
from ftpatch.sites.records import SECTIONS, SLOT, RecordTable

# of unwinders, and of what may not be jumped to: these name functions that nothing else refers to
SILENT = (*SECTIONS, ".eh_frame", ".orc_unwind_ip", ".ibt_endbr_seal")
WEAK, STRIPPED, UNKNOWN = range(3)  # why a site has no name
MANY = 1 << 16  # nameless sites up to which so many bytes are looked through
WHOLE = 4 << 20  # bytes of code and data up to which a linked file is searched whole
MAX_FRONT = 16  # units of code in front of a function that are looked at for NOPs
NEAR = 1 << 19  # bytes of code, for all sites together, that are searched around them in a larger one
RARE = 32  # one nameless site in so many is what weak functions leave in a kernel


def why_nameless(
    image: Image, records: RecordTable, shape: Shape, va: U64, window: U32, n_static: int, n_live: int
) -> U8:
    """WEAK, STRIPPED or UNKNOWN for each record at `va`, all of them without a name.

    n_static: static functions that have their name; n_live: sites in all.
    """
    entries = _entries(image, shape, va, window)
    if image.linked and (named := named_at_build(image, entries.ravel())) is not None:
        return np.where(named.reshape(entries.shape).any(axis=1), STRIPPED, WEAK).astype(np.uint8)
    if image.linked and not image.arch.sorts_at_boot and records.zeros_lead:
        # sorttable emptied the slots of all that had no symbol when the kernel was built: what is left had one
        return np.full(len(va), STRIPPED, dtype=np.uint8)
    rare = len(va) * RARE <= n_live and int(image.shdr["sh_size"][image.has_bytes].sum()) > WHOLE
    used = _referred_to(image, records, entries, near=image.linked and rare)
    # a linked file does not show who takes an address in code, so that most names have to be there
    kept = n_static >= int((~used).sum()) if image.linked else _keeps_names(image)
    why = np.where(used, STRIPPED, WEAK if kept else UNKNOWN).astype(np.uint8)
    why[in_front_of(image, va) >= 0] = UNKNOWN
    return why


def in_front_of(image: Image, va: U64) -> I64:
    """Index of the function that nothing but NOPs leads into, per record; −1 where there is other code in between, as
    a weak function has. Compilers put NOPs there for -fpatchable-function-entry=N,M."""
    starts = image.functions.va
    index = np.searchsorted(starts, va, side="right").astype(np.int64)
    index[index == len(starts)] = -1
    if not len(starts):
        return index
    sec, off = image.place(va)
    index[(sec < 0) | ((starts[index] - va) > np.uint64(MAX_FRONT * image.arch.unit))] = -1
    rows = np.flatnonzero(index >= 0)
    words = image.words(sec[rows], off[rows], 0, MAX_FRONT)
    behind = (starts[index[rows]] - va[rows])[:, None] <= np.uint64(image.arch.unit) * np.arange(
        MAX_FRONT, dtype=np.uint64
    )
    index[rows[~(behind | (words == image.arch.nop)).all(axis=1)]] = -1
    return index


def _keeps_names(image: Image) -> bool:
    """Whether a relocatable file has a local symbol that no relocation needs: `strip --strip-unneeded` leaves none."""
    symbols = image.symbols
    kinds = is_in(symbols.type, (t.STT_OBJECT, t.STT_FUNC, t.STT_FILE))
    local = np.flatnonzero(kinds & (symbols.bind == t.STB_LOCAL) & (symbols.rows["st_name"] != 0))
    needed = np.zeros(len(symbols.rows), dtype=bool)
    for table in np.flatnonzero(image.shdr["sh_type"] == t.SHT_RELA).tolist():
        named = (image.rows(table, t.RELA)["r_info"] >> np.uint64(32)).astype(np.int64)
        needed[named[named < len(needed)]] = True
    return not bool(needed[local].all())


def _entries(image: Image, shape: Shape, va: U64, window: U32) -> U64:
    """(n, …) addresses at which each site's function may be entered."""
    entry = va + shape.to_entry(window).view(np.uint64)
    if shape.anywhere:  # somewhere in front of the call, behind the functions that have a name
        reach = PROLOGUE if len(entry) <= MANY else 0
        steps = np.arange(0, reach + 1, image.arch.unit).astype(np.uint64)
        near = entry[:, None] - np.minimum(steps, entry[:, None])
        named = image.functions.inside(near.ravel()).reshape(near.shape)
        return np.where(named, entry[:, None], near)
    other = entry.copy()  # the global entry of a local one, or the other way round
    for code in image.arch.global_entry:
        sec, off = image.place(entry)
        words, n = image.words(sec, off, -len(code), 2 * len(code)), len(code)
        front = np.logical_and.reduce([word.matches(words[:, i]) for i, word in enumerate(code)])
        behind = np.logical_and.reduce([word.matches(words[:, n + i]) for i, word in enumerate(code)])
        size = np.uint64(image.arch.unit * n)
        other = np.where(front, entry - size, np.where(behind, entry + size, other))
    return np.stack([entry, other], axis=1)


def _referred_to(image: Image, records: RecordTable, entries: U64, near: bool) -> Mask:
    """Which sites something in the file calls, jumps to or points at. entries: (n, …) addresses, see `_entries`;
    near: only calls and jumps are looked at, and only those that are not far away."""
    wanted = distinct(entries.ravel())
    found = [np.zeros(0, np.uint64)]
    branches = [branch for branch in (image.arch.call, image.arch.jump) if branch is not None]
    for branch in branches:
        places = _branches_near(image, branch, entries[:, 0]) if near else _branches(image, branch)
        found += [target[is_in(target, wanted)] for target in places]
    if not near:
        pointers = _pointers(image, records) if image.linked else _relocated(image)
        found += [target[is_in(target, wanted)] for target in pointers]
    return np.asarray(is_in(entries.ravel(), distinct(np.concatenate(found))).reshape(entries.shape).any(axis=1))


def _branches(image: Image, branch: Branch) -> Iterator[U64]:
    """Where the direct branches of a kind go, section by section; one to itself waits for its relocation."""
    for sec in np.flatnonzero(image.executable).tolist():
        start = image.base[sec]
        at, distance = branch.find(_code(image, sec))
        moved = distance != 0
        yield start + (at[moved] + distance[moved]).view(np.uint64)


def _branches_near(image: Image, branch: Branch, entry: U64) -> Iterator[U64]:
    """Where those go that lie around some addresses, in one array for each section."""
    if branch.n_units > 1:
        return
    reach = NEAR // (2 * branch.unit * len(entry))
    secs, offs = image.place(entry)
    for sec in distinct(secs[secs >= 0]).tolist():
        code = _code(image, sec)
        index = offs[secs == sec][:, None] // branch.unit + np.arange(-reach, reach)
        index = index[(index >= 0) & (index < len(code))]
        words = code[index]
        hit = branch.word.matches(words)
        yield image.base[sec] + (branch.unit * index[hit] + branch.decode(words[hit])).view(np.uint64)


def _code(image: Image, sec: int) -> U32:
    """The code of a section in units."""
    content, unit = image.content(sec), image.arch.unit
    return content.astype(np.uint32) if unit == 1 else content[: len(content) & ~3].view("<u4")


def _relocated(image: Image) -> Iterator[U64]:
    """What the relocations of a relocatable file name, section by section; those of records and debug information,
    which name every function, left out."""
    symbols, silent = image.symbols, image.sections_named(*SILENT)
    for table in np.flatnonzero(image.shdr["sh_type"] == t.SHT_RELA).tolist():
        of = int(image.shdr["sh_info"][table])
        flags = int(image.shdr["sh_flags"][of]) if of < len(image.shdr) else 0
        if not flags & t.SHF_ALLOC or flags & t.SHF_LINK_ORDER or of in silent:
            continue
        rows = image.rows(table, t.RELA)
        symbol = (rows["r_info"] >> np.uint64(32)).astype(np.int64)
        rows, symbol = rows[symbol < len(symbols.rows)], symbol[symbol < len(symbols.rows)]
        rows, symbol = rows[symbols.shndx[symbol] > 0], symbol[symbols.shndx[symbol] > 0]
        start = image.base[symbols.shndx[symbol]] + symbols.rows["st_value"][symbol]
        yield start + rows["r_addend"].view(np.uint64)


def _pointers(image: Image, records: RecordTable) -> Iterator[U64]:
    """The addresses that the data of a linked file holds, but for its records."""
    rows, _ = image.rela
    moved = rows[(rows["r_info"] & 0xFFFF_FFFF) == image.arch.relative]
    yield moved["r_addend"][~_in_table(records, moved["r_offset"])].view(np.uint64)
    kinds = is_in(image.shdr["sh_type"], (t.SHT_PROGBITS,)) & (image.shdr["sh_flags"] & t.SHF_ALLOC != 0)
    for sec in np.flatnonzero(kinds & ~image.executable).tolist():
        if image.names[sec] in SECTIONS:
            continue
        content, start = image.content(sec), image.base[sec]
        skip = int(-int(start) % SLOT)
        words = content[skip : skip + (len(content) - skip & ~7)].view("<u8") if len(content) > skip else content[:0]
        va = start + np.uint64(skip) + SLOT * np.arange(len(words), dtype=np.uint64)
        yield words[~_in_table(records, va)].astype(np.uint64)


def _in_table(records: RecordTable, va: U64) -> Mask:
    """Which addresses are slots of the record table of a linked kernel."""
    start, stop = np.uint64(records.start), np.uint64(records.start + SLOT * len(records))
    return np.asarray((va >= start) & (va < stop))
