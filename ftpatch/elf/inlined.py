"""Whether debug information knows a function that has no symbol: what the compiler inlined everywhere.

A kernel's DWARF is 200 MB and takes minutes to walk. This does not walk it: the name is looked for in `.debug_str`,
references to that string in `.debug_info`, and only what stands around these is read, by the abbreviations of its unit.
A find is believed where it is the first attribute of a subprogram, as compilers write it, and the rest can be read.
Source: DWARF 5, 7.5 (units and entries), 7.5.6 (forms); DW_AT_inline 3.3.8.1.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import U8
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image

SUBPROGRAM, INLINED = 0x2E, 0x1D  # DW_TAG_subprogram, DW_TAG_inlined_subroutine
NAME, INLINE, ORIGIN, LINE = 0x03, 0x20, 0x31, 0x3B  # DW_AT_*
STRP, REF4, IMPLICIT = 0x0E, 0x13, 0x21  # DW_FORM_*
FIXED = {0x0B: 1, 0x11: 1, 0x0C: 1, 0x25: 1, 0x29: 1, 0x05: 2, 0x12: 2, 0x26: 2, 0x2A: 2, 0x06: 4, 0x13: 4, 0x0E: 4,
         0x17: 4, 0x1F: 4, 0x28: 4, 0x2C: 4, 0x07: 8, 0x14: 8, 0x20: 8, 0x01: 8, 0x10: 4, 0x19: 0}  # fmt: skip
VARIABLE = (0x0D, 0x0F, 0x15, 0x1A, 0x1B, 0x22, 0x23)  # sdata, udata, ref_udata, strx, addrx, loclistx, rnglistx
MAX_HITS = 1024  # references that are looked at
MAX_NAMES, CHUNK = 64, 16 << 20  # strings that end in the name; bytes that are searched at a time
MAX_ABBREVS = 1 << 18  # bytes of abbreviations that one unit has
HEAD = 12  # bytes in front of the first entry of a DWARF 5 unit; 11 in DWARF 2 to 4
Abbrev = tuple[int, tuple[tuple[int, int, int], ...]]  # tag, (attribute, form, constant)


@dataclass(frozen=True)
class Subprogram:
    """One function that a unit describes. inlined: DW_INL_inlined or DW_INL_declared_inlined; copies: how often the
    unit has it inlined somewhere; line: in its source file."""

    inlined: bool
    copies: int
    line: int | None


@dataclass(frozen=True)
class Found:
    """What debug information says of a name. unreadable: why nothing can be said, or ""; mentioned:
    something is called so, whatever it is."""

    unreadable: str
    mentioned: bool
    functions: tuple[Subprogram, ...]


def find(image: Image, name: str) -> Found:
    """What the debug information of an image knows of a function of that name."""
    sections = [image.sections_named(one)[:1] for one in (".debug_info", ".debug_abbrev", ".debug_str")]
    if not all(sections):
        return Found("no debug information in this file", False, ())
    flags = [int(image.shdr["sh_flags"][sec]) for secs in sections for sec in secs]
    if not image.linked or any(one & t.SHF_COMPRESSED for one in flags):
        return Found("its debug information is compressed or not linked, and is not read", False, ())
    info, abbrevs, strings = (image.content(secs[0]) for secs in sections)
    wanted = _strings(strings, name)
    hits = sorted(pos for pos in _references(info, wanted))
    units = _units(info) if hits else []
    found: list[Subprogram] = []
    last, data = -1, b""
    known: dict[int, Abbrev] = {}
    for pos in hits[:MAX_HITS]:  # a name has a few declarations, and one definition per unit that inlines it
        at = bisect_right(units, (pos, 0, 0)) - 1
        start, end, table = units[at]
        if at != last:
            last, known, data = at, _abbrevs(abbrevs, table), info[start:end].tobytes()
        if start < pos < end and (one := _subprogram(data, known, pos - start)):
            found.append(one)
    return Found("", bool(hits), tuple(found))


def _strings(strings: U8, name: str) -> list[int]:
    """Where the name is a string, or else where it ends one: linkers merge tails, so that any of these may be it."""
    data, wanted = strings.tobytes(), name.encode() + b"\0"
    found: list[int] = []
    at = data.find(wanted)
    while at >= 0 and len(found) < MAX_NAMES:
        if at == 0 or data[at - 1] == 0:
            return [at]
        found.append(at)
        at = data.find(wanted, at + 1)
    return found


def _references(info: U8, offsets: list[int]) -> Iterator[int]:
    """Positions of 4-byte references to these offsets. One is searched as bytes; for many, their low halves are looked
    up, which costs the same for any number of them."""
    needle = offsets[0].to_bytes(4, "little") if offsets else b""
    wanted, low = np.array(offsets, dtype=np.uint32), np.zeros(1 << 16, dtype=bool)
    low[wanted & 0xFFFF] = True
    for start in range(0, len(info) if offsets else 0, CHUNK):
        piece = info[start : start + CHUNK + 3].tobytes()
        if len(offsets) == 1:
            at = piece.find(needle)
            while at >= 0:
                yield start + at
                at = piece.find(needle, at + 1)
            continue
        for phase in range(min(4, len(piece) - 3)):
            words = np.frombuffer(piece, "<u4", (len(piece) - phase) // 4, phase)
            near = np.flatnonzero(low[words.view("<u2")[::2]])
            yield from (start + phase + 4 * near[np.isin(words[near], wanted)]).tolist()


def _units(info: U8) -> list[tuple[int, int, int]]:
    """(start, end, position in .debug_abbrev) of every 32-bit unit that can be read."""
    found, at = [], 0
    head = memoryview(info.data)  # 4,000 units in a kernel
    while at + HEAD <= len(head):
        size = int.from_bytes(head[at : at + 4], "little")
        version = int.from_bytes(head[at + 4 : at + 6], "little")
        if size >= 0xFFFF_FFF0 or size < HEAD - 4:
            break
        where = at + 8 if version >= 5 else at + 6
        found.append((at, at + 4 + size, int.from_bytes(head[where : where + 4], "little")))
        at += 4 + size
    return found or [(0, 0, 0)]


def _subprogram(unit: bytes, known: dict[int, Abbrev], pos: int) -> Subprogram | None:
    """The subprogram whose name is referred to at byte `pos` of its unit, if it is one."""
    for width in (1, 2, 3):  # the entry begins with its abbreviation's number
        at = pos - width
        code, size = _uleb(unit, at) if at >= HEAD - 1 else (0, 0)
        tag, attributes = known.get(code, (0, ()))
        if size == width and tag == SUBPROGRAM and attributes and attributes[0][:2] == (NAME, STRP):
            values = _values(unit, at + size, attributes)
            inlined = values.get(INLINE, 0) in (1, 3)
            return Subprogram(inlined, _copies(unit, known, at) if inlined else 0, values.get(LINE))
    return None


def _copies(unit: bytes, known: dict[int, Abbrev], entry: int) -> int:
    """How many inlined copies of the entry the unit has: each begins with a reference to it."""
    needle, n = entry.to_bytes(4, "little"), 0
    at = unit.find(needle)
    while at >= 0:
        for width in (1, 2, 3):
            code, size = _uleb(unit, at - width)
            tag, attributes = known.get(code, (0, ()))
            n += size == width and tag == INLINED and attributes[:1] == ((ORIGIN, REF4, 0),)
        at = unit.find(needle, at + 1)
    return n


def _values(unit: bytes, at: int, attributes: tuple[tuple[int, int, int], ...]) -> dict[int, int]:
    """The numbers among an entry's attributes, up to the first of a form that has no size of its own."""
    found: dict[int, int] = {}
    for attribute, form, constant in attributes:
        if form == IMPLICIT:
            found[attribute] = constant
        elif form in FIXED:
            found[attribute] = int.from_bytes(unit[at : at + FIXED[form]], "little")
            at += FIXED[form]
        elif form in VARIABLE:
            found[attribute], size = _uleb(unit, at)
            at += size
        else:
            break
    return found


def _abbrevs(data: U8, at: int) -> dict[int, Abbrev]:
    """The abbreviations of one unit by number."""
    table = data[at : at + MAX_ABBREVS].tobytes()
    found: dict[int, Abbrev] = {}
    at = 0
    while at < len(table):
        code, size = _uleb(table, at)
        if code == 0:
            break
        tag, more = _uleb(table, at + size)
        at += size + more + 1  # a byte tells whether there are children
        attributes = []
        while at < len(table):
            attribute, one = _uleb(table, at)
            form, two = _uleb(table, at + one)
            constant, three = _uleb(table, at + one + two) if form == IMPLICIT else (0, 0)
            at += one + two + three
            if not attribute and not form:
                break
            attributes.append((attribute, form, constant))
        found[code] = (tag, tuple(attributes))
    return found


def _uleb(data: bytes, at: int) -> tuple[int, int]:
    """A number in LEB128 and its size in bytes; (0, 0) outside of the data."""
    value = shift = size = 0
    while 0 <= at + size < len(data) and size < 10:
        byte = data[at + size]
        value |= (byte & 0x7F) << shift
        shift, size = shift + 7, size + 1
        if byte < 0x80:
            return value, size
    return 0, 0
