"""The record sections of a relocatable file as they are: which records are sound, and what is wrong with the sections.

A record is lost with its function where a linker dropped the function's section (a COMDAT group that another object
has, --gc-sections): what stays is a slot without a relocation, or one against no symbol. The kernel takes it for an
address, and switches ftrace off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import I64, Mask, Rows, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import RecordError
from ftpatch.plan.record.places import Places
from ftpatch.sites.records import SLOT, record_names

# why a record leaves, by number; 0: it stays
STAYS, NO_RELOCATION, NO_SYMBOL, NO_CODE, TWICE = range(5)
REASONS = ("", "it has no relocation: its function was discarded", "its relocation names no symbol: its function was "
           "discarded", "it names no code", "another record names the same place")  # fmt: skip


@dataclass(frozen=True, eq=False)
class RecordSection:
    """One section of records."""

    sec: int
    table: int | None  # of its relocations; None where it has none
    words: bytes  # its slots as they are in the file
    rows: Rows  # (n,) the relocation of each slot; zeros where it has none
    places: Places  # (n,) where each record points; section −1 where that is nowhere
    why: I64  # (n,) index in REASONS

    @property
    def sound(self) -> Mask:
        return np.asarray(self.why == STAYS)

    @property
    def kept(self) -> Places:
        """The places of the records that stay."""
        return self.places.where(self.sound)


def read_existing(image: Image) -> tuple[RecordSection, ...]:
    """All record sections that a kernel of the machine reads, in the order of their numbers.

    Raises RecordError where one cannot be read for certain.
    """
    require_addends(image)
    size = np.minimum(image.shdr["sh_size"], np.uint64(1 << 40)).astype(np.int64)
    sections = tuple(_read(image, sec, size) for sec in image.sections_named(*record_names(image)))
    key = np.concatenate([np.zeros(0, np.int64), *(section.kept.key for section in sections)])
    first = np.zeros(len(key), dtype=bool)
    first[np.unique(key, return_index=True)[1]] = True
    start = 0
    for section in sections:  # of records of one place the first stays
        sound = np.flatnonzero(section.sound)
        section.why[sound[~first[start : start + len(sound)]]] = TWICE
        start += len(sound)
    return sections


def require_addends(image: Image) -> None:
    """Refuse relocations without addends (SHT_REL) for code or records: no toolchain of these machines makes them."""
    target = image.shdr["sh_info"].astype(np.int64)
    names = image.sections_named(*record_names(image))
    meant = (target < len(image.shdr)) & (image.shdr["sh_type"] == t.SHT_REL)
    meant[meant] = image.executable[target[meant]] | is_in(target[meant], np.array(names, np.int64))
    for table in np.flatnonzero(meant)[:1].tolist():
        where = f"{image.path}: section {table} {image.names[table]}"
        raise RecordError("relocations without addends", where, found="SHT_REL", expected="SHT_RELA",
                          todo="the compilers of this machine make no such table")  # fmt: skip


def _read(image: Image, sec: int, sizes: I64) -> RecordSection:
    """One section. sizes: bytes of every section."""
    where = f"{image.path}: section {sec} {image.names[sec]}"
    if not image.has_bytes[sec]:
        raise RecordError("the record section has no contents", where, found="SHT_NOBITS", expected="SHT_PROGBITS")
    size = int(image.shdr["sh_size"][sec])
    if size % SLOT:
        raise RecordError("the record section holds no whole number of slots", where, found=f"{size} bytes")
    tables = image.rela_tables.get(sec, [])
    if len(tables) > 1:
        raise RecordError("the record section has several tables of relocations", where, found=str(len(tables)))
    n = size // SLOT
    rows, has_row = _rows_of(image, tables[0], n, where) if tables else (np.zeros(n, t.RELA), np.zeros(n, bool))
    places, why = _judge(image, rows, has_row, sizes, where)
    return RecordSection(sec, tables[0] if tables else None, image.content(sec).tobytes(), rows, places, why)


def _rows_of(image: Image, table: int, n: int, where: str) -> tuple[Rows, Mask]:
    """(n,) the relocation of each slot, and whether it has one."""
    all_rows = image.rows(table, t.RELA)
    kind = all_rows["r_info"] & np.uint64(0xFFFF_FFFF)
    all_rows, kind = all_rows[kind != image.arch.none], kind[kind != image.arch.none]
    foreign = np.flatnonzero(kind != image.arch.abs64)
    if len(foreign):
        raise RecordError("a record has a relocation of another type", where, found=f"type {int(kind[foreign[0]])}",
                          expected=f"type {image.arch.abs64}, a 64-bit address")  # fmt: skip
    offset = all_rows["r_offset"].astype(np.int64)
    if np.any(offset % SLOT) or np.any((offset < 0) | (offset >= n * SLOT)):
        raise RecordError("a record's relocation lies outside the section's slots", where)
    slot = offset // SLOT
    if len(np.unique(slot)) != len(slot):
        raise RecordError("a slot has two relocations", where)
    rows, has_row = np.zeros(n, t.RELA), np.zeros(n, dtype=bool)
    rows[slot], has_row[slot] = all_rows, True
    return rows, has_row


def _judge(image: Image, rows: Rows, has_row: Mask, sizes: I64, where: str) -> tuple[Places, I64]:
    """Where each record points, and why it leaves: for reasons of its own."""
    symbol = (rows["r_info"] >> np.uint64(32)).astype(np.int64)
    if len(symbol) and int(symbol.max()) >= len(image.symbols.rows):
        raise RecordError("a record's relocation names no symbol of this file", where,
                          found=f"symbol {int(symbol.max())}",
                          expected=f"less than {len(image.symbols.rows)}")  # fmt: skip
    if not len(image.symbols.rows):
        return Places(np.full(len(rows), -1, np.int64), np.zeros(len(rows), np.int64)), np.full(
            len(rows), NO_RELOCATION, dtype=np.int64
        )
    sec = np.where(has_row, image.symbols.shndx[symbol], -1)
    named = (image.symbols.rows["st_name"][symbol] > 0) & has_row & (sec == t.SHN_UNDEF)
    for row in symbol[named][:1].tolist():
        raise RecordError("a record names a symbol that is not defined here", where, found=image.symbols.name(row),
                          expected="a place in the code of this file")  # fmt: skip
    with np.errstate(over="ignore"):
        off = (image.symbols.rows["st_value"][symbol] + rows["r_addend"].view(np.uint64)).view(np.int64)
    in_code = (sec > 0) & image.executable[np.maximum(sec, 0)] & (off >= 0) & (off < sizes[np.maximum(sec, 0)])
    why = np.where(in_code, STAYS, NO_CODE)
    why[sec == t.SHN_UNDEF] = NO_SYMBOL
    why[~has_row] = NO_RELOCATION
    sec = np.where(why == STAYS, sec, -1)
    return Places(sec, np.where(why == STAYS, off, 0)), why.astype(np.int64)
