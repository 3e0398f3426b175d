"""The prototype of one function as DWARF tells it, and the functions that hold inlined copies of it.

    va ─ debug_spans ─> unit ─ walk ─> DW_TAG_subprogram at va ─ DW_AT_abstract_origin ─> the function in the source
                                                                                          ├ DW_AT_type, parameters
                                                                                          └ its inlined copies

The entry of the machine code may have lost parameters; that of the source has them all, and is what callers were
compiled against. Only what C declares with a prototype is believed: assemblers describe their functions, too, as if
they took nothing and returned nothing.
Source: DWARF 5, 3.3 (subprograms), 3.3.8 (inlined ones).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from ftpatch.elf import debug_numbers as n
from ftpatch.elf.c_types import VOID, NotKnown, Prototype
from ftpatch.elf.debug_ctypes import PARAMETERS, TypeReader, children
from ftpatch.elf.debug_entries import DebugSections, Entry, Unit
from ftpatch.elf.debug_spans import Span, UnitSpans, extents, spans_of

NEAR = 24  # bytes from a symbol within which gcc's entry begins: it counts from behind landing pad and NOPs
PLACES = (n.DW_AT_LOW_PC, n.DW_AT_RANGES)  # one of these has each function with code
MAX_KEPT = 64  # units, of which the longest of Debian's have 0.8 MB
MAX_PIECES = 4  # of one function: compilers make two, the likely and the unlikely one
MAX_THERE = 64  # functions at one address
MAX_CODE = 3  # bytes of the number with which an entry begins
MAX_ORIGINS = 4  # entries that one function refers on to


class Subprogram(NamedTuple):
    """A function with machine code, as a unit describes it."""

    unit: Unit
    entry: Entry  # of the machine code
    chain: tuple[tuple[Unit, Entry], ...]  # the entry itself, then those that it refers to: of the source

    @property
    def name(self) -> str:
        return next((entry.name for _, entry in self.chain if entry.name), "")

    def number(self, attribute: int) -> int | None:
        """An attribute, from the first of its entries that has it."""
        return next((entry.numbers[attribute] for _, entry in self.chain if attribute in entry.numbers), None)


class Copies(NamedTuple):
    """Inlined copies of one function."""

    functions: tuple[str, ...]  # that hold them, ascending
    n_copies: int


@dataclass(eq=False)
class DebugFunctions:
    """The functions that an image's debug information describes. Made once for an image: what is read is kept."""

    debug: DebugSections
    _units: dict[int, Unit] = field(default_factory=dict)
    _functions: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # see _begins

    def prototype(self, name: str, va: int, end: int) -> Prototype | NotKnown:
        """The prototype of the function at [va, end). name: of its symbol. Raises one of DAMAGE."""
        found = self.find(name, va, end)
        if isinstance(found, NotKnown):
            return found
        language = found.unit.root.numbers.get(n.DW_AT_LANGUAGE)
        if language not in n.C_LANGUAGES:
            return NotKnown("it is not written in C, says DWARF", sure=True)
        if not found.number(n.DW_AT_PROTOTYPED):
            return NotKnown("DWARF has no prototype of it", sure=True)
        if found.number(n.DW_AT_CALLING_CONVENTION) == n.DW_CC_NOCALL:
            return NotKnown("the compiler changed its parameters, says DWARF (DW_CC_nocall)", sure=True)
        return self._prototype(found)

    def declared(self, unit: Unit, hits: Mapping[int, str]) -> Iterator[tuple[str, Prototype]]:
        """(name, prototype) of the functions that a unit declares or defines. hits: the names, by where an entry refers
        to them. Raises one of DAMAGE."""
        for pos, _, declaration in unit.walk():
            if declaration.tag != n.DW_TAG_SUBPROGRAM:
                continue
            # an entry begins with the number of its kind, and mostly with its name
            if name := next((hits[pos + size] for size in range(1, MAX_CODE + 1) if pos + size in hits), None):
                entry = unit.entry(pos)
                if entry.name == name and n.DW_AT_PROTOTYPED in entry.numbers:
                    yield name, self._prototype(Subprogram(unit, entry, ((unit, entry),)))

    def _prototype(self, function: Subprogram) -> Prototype:
        types = TypeReader(self.unit_at)
        of = function.chain[1:] if len(function.chain) > 1 else function.chain
        listed = next(filter(None, (list(children(unit, entry, PARAMETERS)) for unit, entry in of)), [])
        parameters = [entry for entry in listed if entry.tag == n.DW_TAG_FORMAL_PARAMETER]
        result = function.number(n.DW_AT_TYPE)
        return Prototype(
            VOID if result is None else types.read(result),
            tuple(types.read(self._type_of(entry)) for entry in parameters),
            variadic=len(parameters) < len(listed),
            noreturn=bool(function.number(n.DW_AT_NORETURN)),
            source="DWARF",
        )

    def _type_of(self, parameter: Entry) -> int:
        """Position of a parameter's type; KeyError where it has none."""
        for _ in range(MAX_ORIGINS):
            if n.DW_AT_TYPE in parameter.numbers:
                break
            origin = parameter.numbers[n.DW_AT_ABSTRACT_ORIGIN]
            parameter = self.unit_at(origin).entry(origin)
        return parameter.numbers[n.DW_AT_TYPE]

    # -- finding ---------------------------------------------------------------------------------------------------

    def find(self, name: str, va: int, end: int) -> Subprogram | NotKnown:
        """The function whose code begins at va, or soon behind it and before `end`; name: of its symbol.

        Of functions with equal code (-fipa-icf) gcc gives one addresses in DWARF, and the others only a symbol, there
        or at a copy: the unit that has the code has them by name, of which C allows one.
        """
        limit = min(va + NEAR + 1, end)
        units = [self.unit(pos) for pos in self._spans.units_with(va, limit)]
        begins: dict[int, list[tuple[Unit, int]]] = {}
        for unit in units:
            for start, pos in self._begins(unit):
                if va <= start < limit:
                    begins.setdefault(start, []).append((unit, pos))
        there = list(dict.fromkeys(begins[min(begins)])) if begins else []
        if len(there) > MAX_THERE:
            return NotKnown(f"DWARF describes {len(there)} functions at its address")
        functions = [self._subprogram(unit, unit.entry(pos)) for unit, pos in there]
        named = [function for function in functions if function.name == name or name.startswith(f"{function.name}.")]
        functions = named or [self._subprogram(*merged) for merged in _merged(units, name)] or functions
        if len(functions) == 1:
            return functions[0]
        return NotKnown(f"DWARF describes {len(functions) or 'no'} function{'s' * (len(functions) > 1)} at its address")

    def _subprogram(self, unit: Unit, entry: Entry) -> Subprogram:
        chain = [(unit, entry)]
        for _ in range(MAX_ORIGINS):
            numbers = chain[-1][1].numbers
            to = numbers.get(n.DW_AT_ABSTRACT_ORIGIN, numbers.get(n.DW_AT_SPECIFICATION))
            if to is None:
                break
            other = self.unit_at(to)
            chain.append((other, other.entry(to)))
        return Subprogram(unit, entry, tuple(chain))

    def _begins(self, unit: Unit) -> list[tuple[int, int]]:
        """(va, position) of each piece of code of the unit's functions."""
        if unit.pos not in self._functions:
            entries = _subprograms(unit, PLACES)
            self._functions[unit.pos] = [
                (low, entry.pos) for entry in entries for low, _ in spans_of(unit, entry, MAX_PIECES)
            ]
        return self._functions[unit.pos]

    def unit(self, pos: int) -> Unit:
        """The unit that begins at a position."""
        if pos not in self._units:
            if len(self._units) >= MAX_KEPT:
                self._units.pop(next(iter(self._units)))
            self._units[pos] = Unit(self.debug, pos)
        return self._units[pos]

    def unit_at(self, pos: int) -> Unit:
        """The unit that holds a position."""
        known = next((unit for unit in self._units.values() if unit.first <= pos < unit.end), None)
        return known or self.unit(self._extents[bisect_right(self._extents, (pos, pos)) - 1][0])

    @cached_property
    def _spans(self) -> UnitSpans:
        return UnitSpans(self.debug)

    @cached_property
    def _extents(self) -> list[Span]:
        return list(extents(self.debug))

    # -- inlined copies ----------------------------------------------------------------------------------------------

    def inlined(self, function: Subprogram) -> Copies:
        """The copies of a function in the units that describe it."""
        roots = {entry.pos for _, entry in function.chain if not entry.numbers.keys() & set(PLACES)}
        holders: Counter[str] = Counter()
        for unit in {unit.pos: unit for unit, _ in function.chain}.values() if roots else ():
            for holder in self._holders(unit, roots):
                holders[self._subprogram(unit, unit.entry(holder)).name] += 1
        return Copies(tuple(sorted(holders)), holders.total())

    def _holders(self, unit: Unit, roots: set[int]) -> Iterator[int]:
        """Positions of the functions with code of a unit, once for each inlined copy of one of `roots` in them."""
        holder, holder_depth = 0, -1  # the function around; −1: none
        for pos, depth, declaration in unit.walk():
            if depth <= holder_depth:
                holder_depth = -1
            if declaration.tag == n.DW_TAG_SUBPROGRAM:
                holder, holder_depth = pos, depth
            elif declaration.tag != n.DW_TAG_INLINED_SUBROUTINE or holder_depth < 0:
                continue
            elif unit.entry(pos).numbers.get(n.DW_AT_ABSTRACT_ORIGIN) in roots and _has_code(unit, holder):
                yield holder


def _subprograms(unit: Unit, one_of: tuple[int, ...]) -> Iterator[Entry]:
    """The functions of a unit that have one of these attributes."""
    for pos, _, declaration in unit.walk():
        if declaration.tag == n.DW_TAG_SUBPROGRAM and any(at in one_of for at, _, _ in declaration.attributes):
            yield unit.entry(pos)


def _merged(units: list[Unit], name: str) -> Iterator[tuple[Unit, Entry]]:
    """The functions of that name that are defined in a unit, and have no addresses."""
    for unit in units:
        for entry in _subprograms(unit, (n.DW_AT_PROTOTYPED,)):
            if entry.name == name and not entry.numbers.keys() & {n.DW_AT_DECLARATION, *PLACES}:
                yield unit, entry


def _has_code(unit: Unit, pos: int) -> bool:
    """Whether the function at a position is one of machine code."""
    return bool(unit.entry(pos).numbers.keys() & set(PLACES))
