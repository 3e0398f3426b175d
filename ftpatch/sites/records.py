"""Where an image keeps its list of patch sites, and what the kernel will read there.

A linked vmlinux has an array of 8-byte slots between `__start_mcount_loc` and `__stop_mcount_loc`, in no section of its
own. What a slot is worth at boot depends on the link: the addend of an R_*_RELATIVE that covers it (the word in the
file may then be zero), or the word itself, moved by RELR or not at all. Objects, modules and some programs keep
sections `__patchable_function_entries` or `__mcount_loc`; in ET_REL the content is in their relocations.

Row n is slot n, for life: tables are masked, never re-ordered.
Source: include/asm-generic/vmlinux.lds.h MCOUNT_REC; arch/arm64/kernel/pi/relocate.c relocate_kernel().
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arrays import I64, U64, Mask, Rows, distinct
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.kind import PROGRAMS
from ftpatch.errors import RecordError, UnsupportedError
from ftpatch.sites.stripped import refuse_stripped_kernel, refuse_stripped_module
from ftpatch.sites.table_end import end_in_code

START, STOP = "__start_mcount_loc", "__stop_mcount_loc"
PADDING, MCOUNT = "__patchable_function_entries", "__mcount_loc"
SECTIONS = (PADDING, MCOUNT)
SLOT = 8
MAX_SLOTS = 1 << 21  # of all tables of a file; kernels have 50,000
FEW_DESCENTS = 3  # records out of order that are no order of a linker
MINUS4 = np.uint64(0xFFFF_FFFF_FFFF_FFFC)  # becomes 0 when the kernel adds 4, and is skipped then


@dataclass(frozen=True, eq=False, repr=False)
class RecordTable:
    """One row per slot, null or not, in the order of the file."""

    slot: I64  # file position of the 8 bytes
    word: U64  # what is in the file there
    rela: I64  # row of the relocation that fills the slot; −1: none
    relr: Mask  # the packed table (RELR) moves the word
    value: U64  # what the kernel reads there at load bias 0; in ET_REL the offset in section `sec`
    sec: I64  # section of the place that the value names; −1 where it names none
    off: I64  # byte offset of that place
    start: int  # va of slot 0 in a vmlinux, else 0
    in_sections: bool = False  # the slots are sections of their own, as in modules and objects

    def __len__(self) -> int:
        return len(self.slot)

    @cached_property
    def zero(self) -> Mask:
        """Slots that hold no record: dead weak functions of a sorted table, or dropped ones."""
        return np.asarray((self.value == 0) & (self.sec < 0))

    @cached_property
    def null(self) -> Mask:
        """Slots that the kernel skips: zeros, and −4 where no relocation moves it."""
        return np.asarray(self.zero | ((self.value == MINUS4) & (self.rela < 0) & ~self.relr))

    @cached_property
    def live(self) -> Mask:
        return ~self.null

    @cached_property
    def descents(self) -> I64:
        """Rows of live records that are less than the live one in front of them."""
        rows = np.flatnonzero(self.live)
        value = self.value[rows]
        return rows[1:][value[1:] < value[:-1]]

    @cached_property
    def zeros_lead(self) -> bool:
        """Whether the table shows that the build sorted it: zeros come first, and hardly a record is out of order (one
        in forty descends where the order is the linker's)."""
        if not len(self) or not self.zero[0]:
            return False
        return len(self.descents) <= max(FEW_DESCENTS, int(self.live.sum()) // 100)

    @cached_property
    def uniform(self) -> bool:
        """Whether every slot, null or not, is filled in the same way, so that values may move from slot to slot."""
        return self.in_sections or not len(self) or self._carrier(np.ones(len(self), dtype=bool)) != "mixed"

    @cached_property
    def carrier(self) -> str:
        """Where the values of live records, else of null ones, are kept: word, rela, relr, section, mixed or none."""
        if self.in_sections or not len(self):
            return "section" if len(self) else "none"
        return self._carrier(self.live if self.live.any() else self.null)

    def _carrier(self, of: Mask) -> str:
        kinds = distinct(np.where(self.rela[of] >= 0, "rela", np.where(self.relr[of], "relr", "word")))
        return str(kinds[0]) if len(kinds) == 1 else "mixed"


def read_records(image: Image) -> RecordTable:
    """The record table of an image; one without rows where the kernel was built without a function tracer.

    Raises RecordError where the table contradicts the file.
    """
    if not image.linked:
        return _from_sections(image)
    start, stop = _bound(image, START), _bound(image, STOP)
    if start is not None and stop is not None:
        return _from_span(image, start, stop if image.recovered is None else end_in_code(image, start, stop))
    if (start is None) != (stop is None):
        missing = START if start is None else STOP
        raise RecordError(f"only one end of the record table is named: no symbol {missing}", image.path)
    secs = record_sections(image)
    if not secs:
        refuse_stripped_kernel(image)  # neither the table nor a function shows
    spans = [(int(image.base[sec]), int(image.base[sec]) + int(image.shdr["sh_size"][sec])) for sec in secs]
    return join([_from_span(image, *span) for span in spans])


def record_names(image: Image) -> tuple[str, ...]:
    """What sections are called whose records ftrace reads; of a program those that compilers write."""
    if not image.arch.padded:
        return SECTIONS
    # no ftrace reads a program's records, and nothing but its sites is in the list of NOPs
    listed = image.kind in PROGRAMS and any(image.has_bytes[sec] for sec in image.sections_named(PADDING))
    return (PADDING,) if listed else (MCOUNT,)


def record_sections(image: Image) -> list[int]:
    """The sections whose records ftrace reads."""
    return [sec for sec in image.sections_named(*record_names(image)) if image.has_bytes[sec]]


def n_padding(image: Image) -> int:
    """How many places a file lists as patchable although ftrace of its machine never looks at such a list."""
    secs = image.sections_named(PADDING) if image.arch.padded and image.kind not in PROGRAMS else []
    return int(sum(image.shdr["sh_size"][secs].tolist())) // SLOT


def read_section(image: Image, sec: int) -> RecordTable:
    """The slots of one section of any name. Raises RecordError where it is no table of records."""
    if image.linked:
        start = int(image.base[sec])
        return _from_span(image, start, start + int(image.shdr["sh_size"][sec]))
    of_section = (image.shdr["sh_type"] == t.SHT_RELA) & (image.shdr["sh_info"] == sec)
    return _from_section(image, sec, np.flatnonzero(of_section).tolist())


def _bound(image: Image, name: str) -> int | None:
    rows = image.symbols.rows_named(name)
    values = {int(value) for value in image.symbols.rows["st_value"][rows[image.symbols.shndx[rows] != t.SHN_UNDEF]]}
    if len(values) > 1:
        raise RecordError(f"symbol {name} has several values", image.path, found=", ".join(map(hex, sorted(values))))
    return values.pop() if values else None


def join(parts: list[RecordTable]) -> RecordTable:
    """Tables of several sections as one, rows in the order given."""
    if len(parts) == 1:
        return parts[0]
    columns = (
        ("slot", "i8"),
        ("word", "u8"),
        ("rela", "i8"),
        ("relr", "?"),
        ("value", "u8"),
        ("sec", "i8"),
        ("off", "i8"),
    )
    joined = {
        name: np.concatenate([np.zeros(0, dtype), *(getattr(part, name) for part in parts)]) for name, dtype in columns
    }
    return RecordTable(**joined, start=0, in_sections=any(part.in_sections for part in parts))


def _from_span(image: Image, start: int, stop: int) -> RecordTable:
    """The slots of a linked file between two addresses."""
    where = f"{image.path}: record table {start:#x}..{stop:#x}"
    aligned = start % SLOT == 0 or image.kind in PROGRAMS  # gcc's __mcount_loc asks for no alignment
    if stop < start or (stop - start) % SLOT or not aligned:
        raise RecordError("the ends of the record table do not fit", where, found=f"{stop - start} bytes",
                          expected=f"a positive multiple of {SLOT}, aligned")  # fmt: skip
    n = (stop - start) // SLOT
    if n == 0:
        return replace(join([]), start=start)  # what a shrunk table leaves: its place is still known
    first = image.pos_of_va(start)
    sec = image.place(np.array([start, stop - 1], dtype=np.uint64))[0]
    if first < 0 or sec[0] < 0 or sec[0] != sec[1]:
        raise RecordError("the record table does not lie in one section of the file", where)
    _require_few(n, where)
    word = t.cut(image.data, first, stop - start, where).view("<u8").astype(np.uint64)
    rela, value = _relative(image, start, stop, word, where)
    if image.recovered is not None and image.recovered.moved:  # zeros were moved as all the rest
        value[value == np.uint64(image.recovered.moved)] = 0
    relr = np.zeros(n, dtype=bool)
    relr[_slots_of(image.relr_places(max(start - SLOT + 1, 0), stop), start, where)] = True
    _require_once(np.concatenate([np.flatnonzero(relr), np.flatnonzero(rela >= 0)]), where)
    sec, off = image.place(value)
    sec = np.where(value == 0, -1, sec)  # the kernel skips a zero, though a section may begin at address 0
    return RecordTable(
        slot=first + SLOT * np.arange(n, dtype=np.int64),
        word=word, rela=rela, relr=relr, value=value, sec=sec, off=off, start=start,
    )  # fmt: skip


def _require_few(n_slots: int, where: str) -> None:
    if n_slots > MAX_SLOTS:  # a sparse file of any size costs nothing to make; a slot takes 250 bytes here
        raise UnsupportedError("more records than are read", where, found=f"{n_slots} slots",
                               expected=f"at most {MAX_SLOTS}", todo="docs/limits.md has all limits")  # fmt: skip


def _relative(image: Image, start: int, stop: int, word: U64, where: str) -> tuple[I64, U64]:
    """(relocation row, value) of every slot: a RELATIVE addend wins over the word in the file."""
    rows, _ = image.rela
    offset = rows["r_offset"]
    hit = np.flatnonzero((offset >= np.uint64(max(start - SLOT + 1, 0))) & (offset < np.uint64(stop)))
    hit = hit[(rows["r_info"][hit] & 0xFFFF_FFFF) == image.arch.relative]
    slot = _slots_of(offset[hit], start, where)
    rela, value = np.full(len(word), -1, dtype=np.int64), word.copy()
    rela[slot] = hit
    value[slot] = rows["r_addend"][hit].view(np.uint64)
    return rela, value


def _slots_of(places: U64, start: int, where: str) -> I64:
    """Slot number of each relocated address; RecordError where one lies across two slots, or two on one slot."""
    off = places.view(np.int64) - np.uint64(start).astype(np.int64)
    odd = np.flatnonzero(off % SLOT)
    if len(odd):
        raise RecordError("a relocation lies across two slots", where, found=f"{int(places[odd[0]]):#x}")
    _require_once(off // SLOT, where)
    return off // SLOT


def _require_once(slots: I64, where: str) -> None:
    """RecordError where a slot is relocated twice."""
    twice = np.bincount(slots) > 1
    if twice.any():
        raise RecordError("a slot has two relocations", where, found=f"slot {int(np.argmax(twice))}")


def _from_sections(image: Image) -> RecordTable:
    """The slots of an ET_REL file, section by section; their values are in the relocations of those sections."""
    tables: dict[int, list[int]] = {}
    for table in np.flatnonzero(image.shdr["sh_type"] == t.SHT_RELA).tolist():
        tables.setdefault(int(image.shdr["sh_info"][table]), []).append(table)
    secs = record_sections(image)
    if secs:
        refuse_stripped_module(image, "records")
    _require_few(sum(image.shdr["sh_size"][secs].tolist()) // SLOT, f"{image.path}: record sections")
    return join([_from_section(image, sec, tables.get(sec, [])) for sec in secs])


def _from_section(image: Image, sec: int, tables: list[int]) -> RecordTable:
    where = f"{image.path}: section {sec} {image.names[sec]}"
    size = int(image.shdr["sh_size"][sec])
    if size % SLOT:
        raise RecordError("the record section holds no whole number of slots", where, found=f"{size} bytes")
    n = size // SLOT
    word = image.content(sec).view("<u8").astype(np.uint64)
    value, target, rela = word.copy(), np.full(n, -1, dtype=np.int64), np.full(n, -1, dtype=np.int64)
    for table in tables:
        rows = image.rows(table, t.RELA)
        number, slot = _slot_relocations(image.arch, rows, n, where)
        names = (rows["r_info"][number] >> 32).astype(np.int64)
        _require_symbols_of(image, names, slot, where)
        _require_once(np.concatenate([np.flatnonzero(rela >= 0), slot]), where)
        rela[slot], target[slot] = number, image.symbols.shndx[names]
        with np.errstate(over="ignore"):
            value[slot] = image.symbols.rows["st_value"][names] + rows["r_addend"][number].view(np.uint64)
    return RecordTable(
        slot=int(image.shdr["sh_offset"][sec]) + SLOT * np.arange(n, dtype=np.int64),
        word=word, rela=rela, relr=np.zeros(n, dtype=bool), value=value,
        sec=target, off=value.view(np.int64), start=0, in_sections=True,
    )  # fmt: skip


def _slot_relocations(arch: Arch, rows: Rows, n: int, where: str) -> tuple[I64, I64]:
    """(row, slot) of the relocations of one table that fill slots; RecordError where another kind touches them."""
    kind = rows["r_info"] & 0xFFFF_FFFF
    foreign = np.flatnonzero((kind != arch.abs64) & (kind != arch.none))
    if len(foreign):
        raise RecordError("a record has a relocation of another type", where, found=f"type {int(kind[foreign[0]])}",
                          expected=f"type {arch.abs64}, a 64-bit address")  # fmt: skip
    number = np.flatnonzero(kind == arch.abs64)
    offset = rows["r_offset"][number].view(np.int64)
    if np.any(offset % SLOT) or np.any((offset < 0) | (offset >= n * SLOT)):
        raise RecordError("a record's relocation lies outside the section's slots", where)
    return number, offset // SLOT


def _require_symbols_of(image: Image, names: I64, slot: I64, where: str) -> None:
    """RecordError where a record is made from a symbol that this file does not have, or does not define."""
    if np.any(names >= len(image.symbols.rows)):
        found, limit = f"symbol {int(names.max())}", f"less than {len(image.symbols.rows)}"
        raise RecordError("a record's relocation names no symbol of this file", where, found=found, expected=limit)
    lost = np.flatnonzero(image.symbols.shndx[names] <= t.SHN_UNDEF)
    if len(lost):
        raise RecordError("a record names a symbol that is not defined here", where, found=f"slot {int(slot[lost[0]])}")
