"""What came along in object files, held against these files: every byte, every relocation and every symbol.

Where each section of an object is now is found out from both alone: new sections have the order that they have in the
object, tables of the loader's grow by what it has of them, each part aligned as it says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ftpatch.arrays import Rows, is_in
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import UsageError
from ftpatch.kernel.module_sections import APPENDED, DROPPED, FOLDED, treatment
from ftpatch.proof.case import Case
from ftpatch.proof.linked import NAMED
from ftpatch.sites.records import SECTIONS as RECORD_SECTIONS

WITH, COMMON = ".ftpatch.with", ".ftpatch.with.common"
TYPE = np.uint64(0xFFFF_FFFF)


@dataclass(frozen=True)
class Part:
    """A section of an object, and where it is in the module."""

    number: int  # in the object
    name: str  # there
    sec: int  # of the module
    off: int  # of its first byte in that
    size: int


@dataclass
class Held:
    """One look at a module and the objects that were linked into it."""

    case: Case
    free: list[int]  # sections that came along and are no object's yet, ascending
    ends: dict[int, int]  # table of the loader's → where the next rows of an object begin
    parts: dict[int, Part] = field(default_factory=dict)  # of the object that is looked at, by its sections

    @property
    def image(self) -> Image:
        return self.case.after.image


def check_objects(case: Case, objects: Sequence[Image]) -> None:
    """Findings for all in which what came along is not what the objects hold. Raises UsageError for another file."""
    linked, names = case.linked, case.after.image.names
    own = sorted(sec for sec in linked.sections if NAMED.fullmatch(names[sec]))
    tables = {sec: 0 for sec in linked.sections if WITH not in names[sec]}
    held = Held(case, own, {**tables, **linked.grown})
    for patch in objects:
        if patch.kind != "object" or patch.arch is not case.arch:
            found = f"{patch.kind} of {patch.arch.name}"
            raise UsageError("no object for this module", patch.path, found=found, expected=f"one of {case.arch.name}")
        _find_parts(held, patch)
        for part in held.parts.values():
            _check_content(held, patch, part)
            _check_relocations(held, patch, part)
        _check_symbols(held, patch)
    for sec in held.free:
        if COMMON not in names[sec]:
            case.say("verify-section", f"{names[sec]} came along in none of the objects", sec=sec)
    for sec, end in linked.grown.items():
        if (now := held.ends[sec]) != (size := int(case.after.image.shdr["sh_size"][sec])):
            case.say("verify-section", f"{names[sec]} has {size} bytes, {end} of the module and {now - end} of objects",
                     sec=sec)  # fmt: skip


def _find_parts(held: Held, patch: Image) -> None:
    """Where the sections of an object are; findings for those that are nowhere."""
    held.parts = {}
    linking = held.case.modules.linking
    for number in np.flatnonzero((patch.shdr["sh_flags"] & t.SHF_ALLOC != 0) & (patch.shdr["sh_size"] > 0)).tolist():
        name, size = patch.names[number], int(patch.shdr["sh_size"][number])
        treated = treatment(name, linking) if linking is not None else None
        folded = treated is not None and treated.what == FOLDED
        homes = held.image.sections_named(treated.name) if treated is not None and treated.name else []
        if treated is None or treated.what == DROPPED or name in RECORD_SECTIONS or (folded and not homes):
            continue  # records are looked at with the sites
        if treated.what in (APPENDED, FOLDED):
            sec = homes[0] if homes and homes[0] in held.ends else -1
            align = max(int(patch.shdr["sh_addralign"][number]), 1)
            off = -(-held.ends.get(sec, 0) // align) * align
            held.ends[sec] = off + size
        else:
            wanted = re.compile(re.escape(WITH + (name if name.startswith(".") else f".{name}")) + r"(\.\d+)?")
            sec = next((sec for sec in held.free if wanted.search(held.image.names[sec])), -1)
            off, held.free = 0, [other for other in held.free if other != sec]
        if sec < 0 or off + size > int(held.image.shdr["sh_size"][sec]):
            held.case.say("verify-section", f"{name} of {patch.path} did not come along")
            continue
        held.parts[number] = Part(number, name, sec, off, size)


def _check_content(held: Held, patch: Image, part: Part) -> None:
    """Every byte of a section; of one of its own, its length and alignment too."""
    case, image, head = held.case, held.image, held.image.shdr[part.sec]
    where = f"{image.names[part.sec]}: {part.name} of {patch.path}"
    own = part.sec in case.linked.sections and WITH in image.names[part.sec]
    if own:
        size, aligned = (int(patch.shdr[name][part.number]) for name in ("sh_size", "sh_addralign"))
        # assemblers may leave the alignment of code to whoever links it
        aligned = max(aligned, patch.arch.unit if patch.executable[part.number] else 1)
        same = (int(head["sh_size"]), int(head["sh_addralign"])) == (size, aligned)
        if not same or image.has_bytes[part.sec] != patch.has_bytes[part.number]:
            case.say("verify-section", f"{where} has another size, alignment or kind there", sec=part.sec)
            return
    old = patch.content(part.number)
    new = image.content(part.sec)[part.off : part.off + part.size]
    if not patch.has_bytes[part.number]:
        old = np.zeros(len(new), dtype=np.uint8)
    if not np.array_equal(old, new):
        at = int(np.argmax(old != new)) if len(old) == len(new) else min(len(old), len(new))
        case.say("verify-byte", f"{where} has other bytes there from {at:#x} on", sec=part.sec, off=part.off + at)


def _rows(image: Image, sec: int, low: int, high: int) -> Rows:
    """The relocations of a part of a section, in the file's order."""
    rows = np.concatenate(
        [np.zeros(0, t.RELA), *(image.rows(table, t.RELA) for table in image.rela_tables.get(sec, []))]
    )
    return rows[(rows["r_offset"] >= np.uint64(low)) & (rows["r_offset"] < np.uint64(high))]


def _check_relocations(held: Held, patch: Image, part: Part) -> None:
    """Every relocation of a section: its place, type, addend, and what it names."""
    case, image = held.case, held.image
    old, new = _rows(patch, part.number, 0, part.size), _rows(image, part.sec, part.off, part.off + part.size)
    old = old[is_in(old["r_info"] & TYPE, sorted(case.tables.apply) + sorted(case.tables.also_applied))]
    where = f"{image.names[part.sec]}: {part.name} of {patch.path}"
    if len(old) != len(new):
        case.say("verify-relocation", f"{where} has {len(old)} relocations, there are {len(new)}", sec=part.sec)
        return
    for number, (was, is_) in enumerate(zip(old, new, strict=True)):
        same = int(was["r_offset"]) + part.off == int(is_["r_offset"]) and was["r_addend"] == is_["r_addend"]
        same &= (int(was["r_info"]) ^ int(is_["r_info"])) & 0xFFFF_FFFF == 0
        if not same or not _same_symbol(held, patch, int(was["r_info"]) >> 32, int(is_["r_info"]) >> 32):
            now = image.symbols.name(int(is_["r_info"]) >> 32)
            text = f"{where}: relocation {number} is another there, at {int(is_['r_offset']):#x} to {now}"
            case.say("verify-relocation", text, sec=part.sec, off=int(is_["r_offset"]))


def _same_symbol(held: Held, patch: Image, was: int, now: int) -> bool:
    """Whether a symbol of the module is what a symbol of the object means."""
    old, new = patch.symbols, held.image.symbols
    if was >= len(old.rows) or now >= len(new.rows):
        return False
    sec, place = int(old.shndx[was]), (int(new.shndx[now]), int(new.rows["st_value"][now]))
    if sec in held.parts:
        part = held.parts[sec]
        if place == (part.sec, part.off + int(old.rows["st_value"][was])):
            return True
        return bool(old.bind[was] == t.STB_WEAK) and new.name(now) == old.name(was)  # it gave way to the module's
    return new.name(now) == old.name(was).partition("@")[0]  # name@file.c is a static one of the module


def _check_symbols(held: Held, patch: Image) -> None:
    """Every function and object that others may use."""
    old, new = patch.symbols, held.image.symbols
    for row in range(1, len(old.rows)):
        part = held.parts.get(int(old.shndx[row]))
        if part is None or old.bind[row] != t.STB_GLOBAL:
            continue
        wanted = (
            part.sec,
            part.off + int(old.rows["st_value"][row]),
            int(old.rows["st_size"][row]),
            int(old.type[row]),
        )
        rows = new.rows_named(old.name(row)).tolist()
        places = [(int(new.shndx[at]), int(new.rows["st_value"][at]), int(new.rows["st_size"][at]), int(new.type[at]))
                  for at in rows]  # fmt: skip
        if wanted not in places:
            held.case.say("verify-symbol", f"{old.name(row)} of {patch.path} is not where its section came to")
