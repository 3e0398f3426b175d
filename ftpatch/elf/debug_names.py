"""Whether debug information knows a function that has no symbol: what the compiler inlined everywhere.

A kernel's .debug_info has 200 MB, which pyelftools would walk for an hour. Here the name is looked for in `.debug_str`,
references to that string in `.debug_info`, and only the entries around these are read (`debug_info`).
A reference is believed where a subprogram begins with it, as compilers write it. Not found are names of up to three
letters, which gcc writes into the entry itself; clang's in DWARF 5 are numbers, which is said (`unreadable`).
Source: DWARF 5, 3.3.8.1 (DW_AT_inline) and 3.3.8.2 (inlined copies refer to the entry that is inlined).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ftpatch.arrays import is_in
from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf.image import Image
from ftpatch.elf.tables import places_of

if TYPE_CHECKING:
    from ftpatch.elf.debug_info import DebugInfo, Unit

NEEDED = (".debug_info", ".debug_abbrev", ".debug_str")  # sections
# How such entries begin: tag, name and form of the first attribute.
NAMED_FUNCTION = ("DW_TAG_subprogram", "DW_AT_name", "DW_FORM_strp")
INLINED_COPY = ("DW_TAG_inlined_subroutine", "DW_AT_abstract_origin", "DW_FORM_ref4")
DW_INL_INLINED, DW_INL_DECLARED_INLINED = 1, 3  # of DW_AT_inline: it is inlined somewhere
MAX_INL = 3  # the greatest value of DW_AT_inline
MAX_REFERENCES = 1 << 18  # references, and bytes that look like one, that are gathered; zeros look like those to byte 0
MAX_HITS = 1024  # references that are looked at: one per unit that uses the function
MAX_NAMES, CHUNK = 64, 16 << 20  # strings that end in the name; bytes that are searched at a time
MAX_CODE = 3  # bytes of the number with which an entry begins; kernels have some hundred abbreviations in a unit
BYTES_PER_STEP = 64  # searching a unit for references is as costly as reading one of this many bytes


class Subprogram(NamedTuple):
    """One function that a unit describes."""

    inlined: bool  # some of its callers have it inlined
    copies: int  # how often the unit has it inlined
    line: int | None  # in its source file


class DebugMention(NamedTuple):
    """What debug information says of a name."""

    unreadable: str  # why nothing can be said, or empty
    mentioned: bool  # something is called so, whatever it is
    functions: tuple[Subprogram, ...]  # one per unit that describes a function of that name


def find(image: Image, name: str) -> DebugMention:
    """What the debug information of an image knows of a function of that name."""
    if not all(image.sections_named(section, f".z{section[1:]}") for section in NEEDED):
        return DebugMention("no debug information in this file", False, ())
    from ftpatch.elf.debug_info import DebugInfo, attempt

    debug = DebugInfo(image)
    info, strings = debug.section("debug_info"), debug.section("debug_str")
    if not len(info) or not len(strings):
        return DebugMention("its debug information cannot be unpacked", False, ())
    offsets = _strings(strings, name)
    hits = sorted(islice(references_to(info, offsets), MAX_REFERENCES))
    if not hits and any(references_to(debug.section("debug_str_offsets"), offsets)):
        return DebugMention("its debug information refers to names by number (clang), and is not searched", True, ())
    functions = attempt(lambda: tuple(_subprograms(debug, hits[:MAX_HITS])), ())
    return DebugMention("", bool(hits), functions)


def _strings(strings: FileBytes, name: str) -> list[int]:
    """Where the name is a string, or else where it ends one: linkers merge tails, so that any of these may be it."""
    data, wanted = strings.peek(0, len(strings)), name.encode() + b"\0"
    places: list[int] = []
    for at in islice(places_of(wanted, data), MAX_NAMES):
        if at == 0 or data[at - 1] == 0:
            return [at]
        places.append(at)
    return places


def strings_at(strings: FileBytes, names: Sequence[str]) -> dict[int, str]:
    """Those of many names that are whole strings, by their place: one walk serves all."""
    wanted, at = {name.encode(): name for name in names}, 0
    places: dict[int, str] = {}
    for text in strings.peek(0, len(strings)).split(b"\0"):
        if text in wanted:
            places[at] = wanted[text]
        at += len(text) + 1
    return places


def references_to(info: FileBytes, offsets: list[int]) -> Iterator[int]:
    """Positions of 4-byte references to these offsets. One is searched as bytes; for many, their low halves are looked
    up, which costs the same for any number of them."""
    needle = offsets[0].to_bytes(4, "little") if offsets else b""
    wanted, low = np.array(offsets, dtype=np.uint32), np.zeros(1 << 16, dtype=bool)
    low[wanted & 0xFFFF] = True
    for start in range(0, len(info) if offsets else 0, CHUNK):
        piece = info.peek(start, start + CHUNK + 3)
        if len(offsets) == 1:
            yield from (start + at for at in places_of(needle, piece))
            continue
        for phase in range(min(4, len(piece) - 3)):
            words = np.frombuffer(piece, "<u4", (len(piece) - phase) // 4, phase)
            near = np.flatnonzero(low[words.view("<u2")[::2]])
            yield from (start + phase + 4 * near[is_in(words[near], wanted)]).tolist()


def _subprograms(debug: DebugInfo, hits: list[int]) -> Iterator[Subprogram]:
    """The functions whose names stand at these ascending positions of .debug_info."""
    extents = debug.extents() if hits else []
    unit: Unit | None = None
    data = b""
    for pos in hits:
        start, end = extents[max(bisect_right(extents, (pos, 0)) - 1, 0)] if extents else (0, 0)
        if not start < pos < end:
            continue
        if unit is None or unit.pos != start:
            unit, data = debug.unit(start), debug.section("debug_info").peek(start, end)
        entry = _entry_with(unit, data, pos, NAMED_FUNCTION) if unit else None
        if unit and entry is not None:
            debug.steps.take(len(data) // BYTES_PER_STEP)
            values = unit.values(entry)
            if not _plausible(values, entry - unit.pos, len(data)):
                continue
            inlined = values.get("DW_AT_inline") in (DW_INL_INLINED, DW_INL_DECLARED_INLINED)
            yield Subprogram(inlined, _copies(unit, data, entry) if inlined else 0, values.get("DW_AT_decl_line"))


def _plausible(values: dict[str, Any], entry: int, size: int) -> bool:
    """Whether these are the attributes of a subprogram at byte `entry` of its unit, not bytes that look like one by
    chance: the next sibling does not lie in front of it, and DW_AT_inline is one of four values."""
    return bool(entry <= values.get("DW_AT_sibling", entry) < size and values.get("DW_AT_inline", 0) <= MAX_INL)


def _entry_with(unit: Unit, data: bytes, pos: int, first: tuple[str, str, str]) -> int | None:
    """Position of the entry of this tag whose first attribute has this name and form and stands at `pos`, if it is one.

    pos: in .debug_info; data: the bytes of the unit.
    """
    at, code = pos - unit.pos, 0
    for width in range(1, MAX_CODE + 1):  # in front of the attribute stands the entry's number, a LEB128
        byte = data[at - width] if at >= width else 0
        if (width == 1) == (byte >= 0x80):
            break
        code = code << 7 | byte & 0x7F
        if unit.begins(code) == first:
            return pos - width
    return None


def _copies(unit: Unit, data: bytes, entry: int) -> int:
    """How many inlined copies of the entry the unit has: each begins with a reference to it."""
    places = places_of((entry - unit.pos).to_bytes(4, "little"), data)
    return sum(_entry_with(unit, data, unit.pos + at, INLINED_COPY) is not None for at in places)
