"""C types as DWARF describes them, read entry by entry: for the parameters and the result of one function.

Source: DWARF 5, chapter 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ftpatch.elf import debug_numbers as n
from ftpatch.elf.c_types import VOID, CType, Kind, Prototype, array_of, function_of, number_of, pointer_to, qualified
from ftpatch.elf.debug_entries import Entry, Unit
from ftpatch.errors import ElfError

MAX_TYPES, MAX_DEPTH = 1 << 10, 12  # entries that one prototype may take; types that refer to each other
QUALIFIERS = {n.DW_TAG_CONST_TYPE: "const", n.DW_TAG_VOLATILE_TYPE: "volatile", n.DW_TAG_RESTRICT_TYPE: "",
              n.DW_TAG_ATOMIC_TYPE: "_Atomic"}  # fmt: skip
TAGGED = {n.DW_TAG_STRUCTURE_TYPE: Kind.STRUCT, n.DW_TAG_UNION_TYPE: Kind.UNION, n.DW_TAG_ENUMERATION_TYPE: Kind.ENUM}
SIGNED = {n.DW_ATE_SIGNED: True, n.DW_ATE_SIGNED_CHAR: True, n.DW_ATE_UNSIGNED: False, n.DW_ATE_UNSIGNED_CHAR: False,
          n.DW_ATE_UTF: False}  # fmt: skip
PARAMETERS = (n.DW_TAG_FORMAL_PARAMETER, n.DW_TAG_UNSPECIFIED_PARAMETERS)  # the latter stands for `...`
POINTER = 8  # bytes


class TypeReader:
    """Reads the types of one prototype. unit_at: gives the unit that holds a position."""

    def __init__(self, unit_at: Callable[[int], Unit]) -> None:
        self._unit_at = unit_at
        self._left = MAX_TYPES

    def read(self, pos: int, depth: int = 0) -> CType:
        """The type at a position; its unit's errors are one of DAMAGE."""
        qualifiers: list[str] = []
        alias = ""  # the typedef that the source names, and what its qualifiers are
        name = ""  # the last typedef
        outer: list[str] | None = None
        while True:
            self._left -= 1
            if self._left < 0:
                raise ElfError("a prototype has too many types", found=f"more than {MAX_TYPES}")
            unit = self._unit_at(pos)
            entry = unit.entry(pos)
            if entry.tag == n.DW_TAG_TYPEDEF:
                alias, name = alias or entry.name, entry.name or name
                outer = list(qualifiers) if outer is None else outer
            elif entry.tag in QUALIFIERS:
                qualifiers += [word for word in [QUALIFIERS[entry.tag]] if word]
            else:
                return qualified(self._plain(unit, entry, name, depth), qualifiers, alias, outer)
            if n.DW_AT_TYPE not in entry.numbers:
                return qualified(VOID, qualifiers, alias, outer)
            pos = entry.numbers[n.DW_AT_TYPE]

    def _plain(self, unit: Unit, entry: Entry, alias: str, depth: int) -> CType:
        """A type that is neither typedef nor qualifier. alias: the typedef around it, for want of a tag."""
        size = entry.numbers.get(n.DW_AT_BYTE_SIZE)
        if entry.tag == n.DW_TAG_BASE_TYPE:
            return _number(entry, size)
        if entry.tag in TAGGED:
            kind = TAGGED[entry.tag]
            signed = SIGNED.get(entry.numbers.get(n.DW_AT_ENCODING, -1)) if kind is Kind.ENUM else None
            text = f"{kind.value} {entry.name}" if entry.name else alias or f"{kind.value} without a name"
            declared = n.DW_AT_DECLARATION in entry.numbers
            return CType(kind, text, entry.name or alias, None if declared else size, signed)
        if depth >= MAX_DEPTH:
            return CType(Kind.UNKNOWN, "a type of many others")
        if entry.tag == n.DW_TAG_POINTER_TYPE:
            return pointer_to(self._target(entry, depth), size or POINTER)
        if entry.tag == n.DW_TAG_ARRAY_TYPE:
            element = self._target(entry, depth)
            if n.DW_AT_GNU_VECTOR in entry.numbers:
                return CType(Kind.FLOAT, f"a vector of {element.text}", size=size)
            return array_of(element, list(_counts(unit, entry)))
        if entry.tag == n.DW_TAG_SUBROUTINE_TYPE:
            return function_of(self._function(unit, entry, depth))
        return CType(Kind.UNKNOWN, entry.name or "a type of another language", size=size)

    def _target(self, entry: Entry, depth: int) -> CType:
        """The type that an entry refers to."""
        return self.read(entry.numbers[n.DW_AT_TYPE], depth + 1) if n.DW_AT_TYPE in entry.numbers else VOID

    def _function(self, unit: Unit, entry: Entry, depth: int) -> Prototype | None:
        """How a function of that type is called; None where it is declared without a prototype."""
        if not entry.numbers.get(n.DW_AT_PROTOTYPED):
            return None
        listed = list(children(unit, entry, PARAMETERS))
        parameters = [child for child in listed if child.tag == n.DW_TAG_FORMAL_PARAMETER]
        types = tuple(self.read(child.numbers[n.DW_AT_TYPE], depth + 1) for child in parameters)
        return Prototype(self._target(entry, depth), types, variadic=len(parameters) < len(listed))


def _number(entry: Entry, size: int | None) -> CType:
    encoding = entry.numbers.get(n.DW_AT_ENCODING, -1)
    if encoding == n.DW_ATE_BOOLEAN:
        return number_of(Kind.BOOL, entry.name, size, signed=False)
    if encoding in SIGNED:
        return number_of(Kind.INTEGER, entry.name, size, SIGNED[encoding])
    return number_of(Kind.FLOAT if encoding in n.FLOATS else Kind.UNKNOWN, entry.name, size, None)


def _counts(unit: Unit, entry: Entry) -> Iterator[int | None]:
    """The elements of each dimension of an array; None where that is not told."""
    for child in children(unit, entry, (n.DW_TAG_SUBRANGE_TYPE,)):
        count, last = child.numbers.get(n.DW_AT_COUNT), child.numbers.get(n.DW_AT_UPPER_BOUND)
        yield count if count is not None else None if last is None else last + 1


def children(unit: Unit, entry: Entry, tags: tuple[int, ...]) -> Iterator[Entry]:
    """The entries with these tags right below an entry, in their order."""
    for pos, depth, declaration in unit.walk(entry.pos):
        if depth == 1 and declaration.tag in tags:
            yield unit.entry(pos)
