"""The prototype of one function as BTF tells it, by its name.

pahole takes it from DWARF when the kernel is built, and leaves out what has no prototype, functions whose parameters
the compiler changed, and (from 1.25 on) names that several functions with different prototypes bear.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ftpatch.elf import btf as b
from ftpatch.elf.btf import Btf
from ftpatch.elf.c_types import (
    VOID,
    CType,
    Kind,
    NotKnown,
    Prototype,
    array_of,
    function_of,
    number_of,
    pointer_to,
    qualified,
)
from ftpatch.errors import ElfError

MAX_TYPES, MAX_DEPTH = 1 << 10, 12  # types that one prototype may take; types that refer to each other
TAGGED = {b.STRUCT: Kind.STRUCT, b.UNION: Kind.UNION, b.ENUM: Kind.ENUM, b.ENUM64: Kind.ENUM}
QUALIFIERS = {b.CONST: "const", b.VOLATILE: "volatile", b.RESTRICT: "", b.TYPE_TAG: ""}


def rows_by_name(types: Btf) -> dict[str, list[int]]:
    """The functions of a file, by name, for those who ask for many; ElfError: damaged."""
    functions: dict[str, list[int]] = {}
    rows = np.flatnonzero(types.kinds == b.FUNC)
    for row, offset in zip(rows.tolist(), types.words[types.start[rows]].tolist(), strict=True):
        functions.setdefault(types.string(offset), []).append(row)
    return functions


def btf_prototype(types: Btf, name: str, by_name: Mapping[str, list[int]] | None = None) -> Prototype | NotKnown:
    """The prototype of the function of that name in a file, whose base has other functions; ElfError: damaged.

    by_name: what `rows_by_name` made; without it the name is searched for.
    """
    if by_name is not None:
        named = by_name.get(name, [])
    else:
        rows = np.flatnonzero(types.kinds == b.FUNC)
        named = rows[types.named(types.words[types.start[rows]], name)].tolist()
    if len(named) != 1:
        return NotKnown(f"BTF has {len(named)} functions of that name" if len(named) else "BTF does not have it")
    prototype = _Reader(types).prototype(types.target(types.first + int(named[0])), 0)
    return prototype._replace(assembly=prototype.result == VOID and not prototype.parameters)


class _Reader:
    """Reads the types of one prototype."""

    def __init__(self, types: Btf) -> None:
        self._types = types
        self._left = MAX_TYPES

    def prototype(self, number: int, depth: int) -> Prototype:
        types = self._types
        parameters = types.parameters(number)
        variadic = bool(parameters) and parameters[-1].type == 0
        shown = parameters[: len(parameters) - variadic]
        result = self.read(types.target(number), depth)
        return Prototype(result, tuple(self.read(p.type, depth) for p in shown), variadic, source="BTF")

    def read(self, number: int, depth: int) -> CType:
        """The type of that number."""
        types, qualifiers, alias, name = self._types, list[str](), "", ""
        outer: list[str] | None = None
        while (kind := types.kind(number)) in b.SAME:
            self._left -= 1
            if self._left < 0:
                raise ElfError("a prototype has too many types", types.where, found=f"more than {MAX_TYPES}")
            if kind == b.TYPEDEF:
                alias, name = alias or types.name(number), types.name(number) or name
                outer = list(qualifiers) if outer is None else outer
            else:
                qualifiers += [word for word in [QUALIFIERS[kind]] if word]
            number = types.target(number)
        self._left -= 1
        return qualified(self._plain(number, kind, name, depth), qualifiers, alias, outer)

    def _plain(self, number: int, kind: int, alias: str, depth: int) -> CType:
        """A type that is neither typedef nor qualifier. alias: the typedef around it, for want of a tag."""
        types = self._types
        name = types.name(number)
        if kind == 0:
            return VOID
        if kind == b.INT:
            encoding = types.encoding(number)
            whole = Kind.BOOL if encoding & b.BOOL else Kind.INTEGER
            return number_of(whole, name, types.size(number), bool(encoding & b.SIGNED))
        if kind in TAGGED or kind == b.FWD:
            tagged = TAGGED.get(kind) or (Kind.UNION if types.flag(number) else Kind.STRUCT)
            text = f"{tagged.value} {name}" if name else alias or f"{tagged.value} without a name"
            return CType(tagged, text, name or alias, types.size(number))
        if kind == b.FLOAT:
            return CType(Kind.FLOAT, name, size=types.size(number))
        if depth >= MAX_DEPTH or self._left < 0:
            return CType(Kind.UNKNOWN, "a type of many others")
        if kind == b.PTR:
            return pointer_to(self.read(types.target(number), depth + 1), b.POINTER)
        if kind == b.ARRAY:
            return self._array(number, depth)
        return function_of(self.prototype(number, depth + 1)) if kind == b.FUNC_PROTO else CType(Kind.UNKNOWN, name)

    def _array(self, number: int, depth: int) -> CType:
        counts: list[int | None] = []
        while self._types.kind(number) == b.ARRAY and len(counts) < MAX_DEPTH:
            number, count = self._types.array(number)
            counts.append(count)
        return array_of(self.read(number, depth + 1), counts)
