"""Where an image keeps its list of patch sites, and what the kernel will read there.

A linked vmlinux has an array of 8-byte slots between `__start_mcount_loc` and `__stop_mcount_loc`, in no section of its
own. What a slot is worth at boot depends on the link: the addend of an R_*_RELATIVE that covers it (the word in the
file may then be zero), or the word itself, moved by RELR or not at all. Objects, modules and some programs keep
sections `__patchable_function_entries` or `__mcount_loc`; in ET_REL the content is in their relocations.

Row n is slot n, for life: tables are masked, never re-ordered.
Source: include/asm-generic/vmlinux.lds.h MCOUNT_REC; arch/arm64/kernel/pi/relocate.c relocate_kernel().
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ftpatch.arch import Arch
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.tables import I64, U64, Mask
from ftpatch.errors import RecordError

START, STOP = "__start_mcount_loc", "__stop_mcount_loc"
SECTIONS = ("__patchable_function_entries", "__mcount_loc")
SLOT = 8
MINUS4 = np.uint64(0xFFFF_FFFF_FFFF_FFFC)  # becomes 0 when the kernel adds 4, and is skipped then


@dataclass(frozen=True)
class RecordTable:
    """One row per slot.

    slot: file position of the 8 bytes; word: what stands there; rela: row of the relocation that fills it, −1;
    relr: moved by the packed table; value: what the kernel reads at load bias 0 (ET_REL: offset in section `sec`);
    sec, off: the place it names, sec −1 where it names none.
    start: va of slot 0 in a vmlinux, else 0.
    """

    slot: I64
    word: U64
    rela: I64
    relr: Mask
    value: U64
    sec: I64
    off: I64
    start: int
    in_sections: bool = False

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
    def carrier(self) -> str:
        """Where the live records' values live: word, rela, relr, section, mixed or none."""
        if not self.live.any():
            return (
                "section" if self.in_sections and len(self) else "none" if not len(self) else self._carrier(self.null)
            )
        return "section" if self.in_sections else self._carrier(self.live)

    def _carrier(self, of: Mask) -> str:
        kinds = np.unique(np.where(self.rela[of] >= 0, "rela", np.where(self.relr[of], "relr", "word")))
        return str(kinds[0]) if len(kinds) == 1 else "mixed"


def read_records(image: Image, arch: Arch) -> RecordTable:
    """The record table of an image; one without rows where the kernel was built without a function tracer.

    Raises RecordError where the table contradicts the file.
    """
    if not image.linked:
        return _from_sections(image, arch)
    start, stop = _bound(image, START), _bound(image, STOP)
    if start is not None and stop is not None:
        return _from_span(image, arch, start, stop)
    if (start is None) != (stop is None):
        missing = START if start is None else STOP
        raise RecordError(f"only one end of the record table is named: no symbol {missing}", image.path)
    found = [sec for sec in image.sections_named(*SECTIONS) if image.has_bytes[sec]]
    if not found:
        if image.kind == "vmlinux":
            image.require_symbols()
        return join([])
    spans = [(int(image.base[sec]), int(image.base[sec]) + int(image.shdr["sh_size"][sec])) for sec in found]
    return join([_from_span(image, arch, *span) for span in spans])


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
    i64, u64 = np.zeros(0, np.int64), np.zeros(0, np.uint64)
    return RecordTable(
        slot=np.concatenate([i64, *(p.slot for p in parts)]),
        word=np.concatenate([u64, *(p.word for p in parts)]),
        rela=np.concatenate([i64, *(p.rela for p in parts)]),
        relr=np.concatenate([np.zeros(0, bool), *(p.relr for p in parts)]),
        value=np.concatenate([u64, *(p.value for p in parts)]),
        sec=np.concatenate([i64, *(p.sec for p in parts)]),
        off=np.concatenate([i64, *(p.off for p in parts)]),
        start=0,
        in_sections=any(p.in_sections for p in parts),
    )


def _from_span(image: Image, arch: Arch, start: int, stop: int) -> RecordTable:
    """The slots of a linked file between two addresses."""
    where = f"{image.path}: record table {start:#x}..{stop:#x}"
    if stop < start or (stop - start) % SLOT:
        raise RecordError("the ends of the record table do not fit", where, found=f"{stop - start} bytes",
                          expected=f"a positive multiple of {SLOT}")  # fmt: skip
    n = (stop - start) // SLOT
    if n == 0:
        return join([])
    first, last = image.pos_of_va(start), image.pos_of_va(stop - 1)
    if first < 0 or last != first + (stop - start) - 1:
        raise RecordError("the record table does not lie in one section of the file", where)
    word = t.cut(image.data, first, stop - start, where).view("<u8").astype(np.uint64)
    rela, value = _relative(image, arch, start, stop, word, where)
    relr = np.zeros(n, dtype=bool)
    places = image.relr_places(start, stop)
    relr[((places - np.uint64(start)) >> np.uint64(3)).view(np.int64)] = True
    sec, off = image.place(value)
    return RecordTable(
        slot=first + SLOT * np.arange(n, dtype=np.int64),
        word=word, rela=rela, relr=relr, value=value, sec=sec, off=off, start=start,
    )  # fmt: skip


def _relative(image: Image, arch: Arch, start: int, stop: int, word: U64, where: str) -> tuple[I64, U64]:
    """(relocation row, value) of every slot: a RELATIVE addend wins over the word in the file."""
    rows, _ = image.rela
    offset = rows["r_offset"]
    hit = np.flatnonzero((offset >= np.uint64(start)) & (offset < np.uint64(stop)))
    hit = hit[(rows["r_info"][hit] & 0xFFFF_FFFF) == arch.relative]
    index = (offset[hit] - np.uint64(start)).view(np.int64)
    if np.any(index % SLOT):
        raise RecordError(
            "a relocation lies across two slots", where, found=f"{int(offset[hit][index % SLOT != 0][0]):#x}"
        )
    rela, value = np.full(len(word), -1, dtype=np.int64), word.copy()
    rela[index // SLOT] = hit
    value[index // SLOT] = rows["r_addend"][hit].view(np.uint64)
    return rela, value


def _from_sections(image: Image, arch: Arch) -> RecordTable:
    """The slots of an ET_REL file, section by section; their values are in the relocations of those sections."""
    parts = []
    for sec in image.sections_named(*SECTIONS):
        if not image.has_bytes[sec]:
            continue
        parts.append(_from_section(image, arch, sec))
    return join(parts)


def _from_section(image: Image, arch: Arch, sec: int) -> RecordTable:
    where = f"{image.path}: section {sec} {image.names[sec]}"
    size = int(image.shdr["sh_size"][sec])
    if size % SLOT:
        raise RecordError("the record section holds no whole number of slots", where, found=f"{size} bytes")
    n = size // SLOT
    value, target = np.zeros(n, dtype=np.uint64), np.full(n, -1, dtype=np.int64)
    rela = np.full(n, -1, dtype=np.int64)
    for table in np.flatnonzero(image.shdr["sh_type"] == t.SHT_RELA):
        if int(image.shdr["sh_info"][table]) != sec:
            continue
        rows = t.rows_of(
            image.data, int(image.shdr["sh_offset"][table]), int(image.shdr["sh_size"][table]), t.RELA, where
        )
        index, names, addend = _slot_relocations(image, arch, rows, n, where)
        rela[index] = np.arange(len(rows))[rows["r_info"] & 0xFFFF_FFFF == arch.abs64]
        target[index] = image.symbols.shndx[names]
        with np.errstate(over="ignore"):
            value[index] = image.symbols.rows["st_value"][names] + addend
    lost = (target >= 0) & ((target == t.SHN_UNDEF) | (target == t.SHN_ABS))
    if lost.any():
        raise RecordError(
            "a record names a symbol that is not defined here", where, found=f"slot {int(np.argmax(lost))}"
        )
    word = image.content(sec).view("<u8").astype(np.uint64)
    value = np.where(rela >= 0, value, word)
    return RecordTable(
        slot=int(image.shdr["sh_offset"][sec]) + SLOT * np.arange(n, dtype=np.int64),
        word=word, rela=rela, relr=np.zeros(n, dtype=bool), value=value,
        sec=target, off=value.view(np.int64), start=0, in_sections=True,
    )  # fmt: skip


def _slot_relocations(image: Image, arch: Arch, rows: t.Rows, n: int, where: str) -> tuple[I64, I64, U64]:
    """(slot, symbol row, addend) of the 64-bit pointers of one relocation table."""
    rows = rows[rows["r_info"] & 0xFFFF_FFFF == arch.abs64]
    index = rows["r_offset"].astype(np.int64)
    if np.any(index % SLOT) or np.any((index < 0) | (index >= n * SLOT)):
        raise RecordError("a record's relocation lies outside the section's slots", where)
    names = (rows["r_info"] >> 32).astype(np.int64)
    if np.any(names >= len(image.symbols.rows)):
        found, limit = f"symbol {int(names.max())}", f"less than {len(image.symbols.rows)}"
        raise RecordError("a record's relocation names no symbol of this file", where, found=found, expected=limit)
    return index // SLOT, names, rows["r_addend"].view(np.uint64)
