"""Of which type a variable is, as DWARF tells: for the few that are asked for, in 200 MB.

The variable is looked for by its address, which stands in its entry's location; the entry begins a few bytes before.
Source: DWARF 5, 2.6.1.1.1 (DW_OP_addr), 4.1 (data objects), 5.3 (modifiers).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf.image import Image
from ftpatch.elf.tables import places_of

if TYPE_CHECKING:
    from ftpatch.elf.debug_info import DebugInfo, Unit

DW_OP_ADDR, VARIABLE = 3, "DW_TAG_variable"
# Bytes of the forms that compilers give the attributes of a variable.
SIZES = {f"DW_FORM_{form}": size for form, size in (
         ("strp", 4), ("line_strp", 4), ("ref4", 4), ("data1", 1), ("data2", 2), ("data4", 4), ("flag", 1),
         ("flag_present", 0), ("implicit_const", 0), ("sec_offset", 4), ("ref_addr", 4))}  # fmt: skip
MAX_CODE = 3  # bytes of the number of a declaration
CHUNK, MAX_HITS = 16 << 20, 16  # bytes that are searched at a time; places that are looked at
MAX_ENTRY = 40  # bytes of a variable's entry in front of its location
MAX_CHAIN = 16  # qualifiers and typedefs around a type
QUALIFIERS = ("DW_TAG_const_type", "DW_TAG_volatile_type", "DW_TAG_typedef", "DW_TAG_restrict_type")
KINDS = {"DW_TAG_structure_type": "struct", "DW_TAG_union_type": "union", "DW_TAG_enumeration_type": "enum",
         "DW_TAG_array_type": "an array of", "DW_TAG_pointer_type": "a pointer to"}  # fmt: skip


def variable_type(image: Image, va: int) -> str:
    """The type of the variable at an address, as C spells it: "struct ftrace_ops"; empty where that is not told."""
    if not all(image.sections_named(section) for section in (".debug_info", ".debug_abbrev")):
        return ""
    from ftpatch.elf.debug_info import DebugInfo, attempt

    debug = DebugInfo(image)
    return next((text for text in attempt(lambda: list(_types(debug, va)), []) if text), "")


def _types(debug: DebugInfo, va: int) -> Iterator[str]:
    extents = debug.extents()
    location = bytes([DW_OP_ADDR]) + va.to_bytes(8, "little")
    for pos in islice(_places(debug.section("debug_info"), bytes([len(location)]) + location), MAX_HITS):
        start, end = extents[max(bisect_right(extents, (pos, 0)) - 1, 0)] if extents else (0, 0)
        unit = debug.unit(start) if start < pos < end else None
        if unit is not None:
            front = debug.section("debug_info").peek(max(pos - MAX_ENTRY, start), pos)
            yield _at(unit, pos, front, list(location))


def _places(info: FileBytes, wanted: bytes) -> Iterator[int]:
    for start in range(0, len(info), CHUNK):
        yield from (start + at for at in places_of(wanted, info.peek(start, start + CHUNK + len(wanted) - 1)))


def _at(unit: Unit, pos: int, front: bytes, location: list[int]) -> str:
    """The type of the variable whose location stands at `pos`; empty where no entry is seen around it. front: the bytes
    before. An entry begins with the number of a declaration, which tells whether it is one of a variable."""
    for start in range(len(front) - 1, -1, -1):
        number, code_size = _number(front[start:])
        tag, attributes = unit.declared(number) if number else ("", [])
        if tag != VARIABLE or start + code_size + _before_location(attributes) != len(front):
            continue
        values = unit.values(pos - len(front) + start)
        if values.get("DW_AT_location") != location:
            continue
        if "DW_AT_specification" in values:  # the declaration has the type
            values = unit.entry(unit.pos + values["DW_AT_specification"])[1]
        if "DW_AT_type" in values:
            return _text(unit, values["DW_AT_type"])
    return ""


def _number(octets: bytes) -> tuple[int, int]:
    """(the LEB128 number that octets begin with, its bytes); 0, which no declaration has, where it is longer."""
    number = 0
    for at, octet in enumerate(octets[:MAX_CODE]):
        number |= (octet & 0x7F) << 7 * at
        if octet < 0x80:
            return number, at + 1
    return 0, 0


def _before_location(attributes: list[tuple[str, str]]) -> int:
    """Bytes of an entry's attributes in front of its location; −1 where their forms do not tell, or it has none."""
    size = 0
    for name, form in attributes:
        if name == "DW_AT_location":
            return size if form == "DW_FORM_exprloc" else -1
        if form not in SIZES:
            return -1
        size += SIZES[form]
    return -1


def _text(unit: Unit, offset: int) -> str:
    """A type under its qualifiers. offset: of its entry in the unit."""
    for _ in range(MAX_CHAIN):
        tag, values = unit.entry(unit.pos + offset)
        if tag not in QUALIFIERS:
            break
        if "DW_AT_type" not in values:
            return "void"
        offset = values["DW_AT_type"]
    name = values.get("DW_AT_name", b"")
    if tag in ("DW_TAG_array_type", "DW_TAG_pointer_type"):
        return f"{KINDS[tag]} {_text(unit, values['DW_AT_type']) if 'DW_AT_type' in values else 'void'}"
    return f"{KINDS.get(tag, '')} {name.decode(errors='replace') if isinstance(name, bytes) else ''}".strip()
