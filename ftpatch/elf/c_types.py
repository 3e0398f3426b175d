"""C types as a function's prototype has them: as much of each as callers and calls depend on.

DWARF and BTF are both read into these, so that a prototype of one can be compared with one of the other. Typedefs and
qualifiers are seen through, but a structure without a tag has the name of its typedef. A type behind a pointer is known
by its tag and size alone: what a structure holds is never walked, unless it is passed by value.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """What a type is, in the sense of an ABI."""

    VOID = "void"
    INTEGER = "integer"
    BOOL = "bool"
    ENUM = "enum"
    FLOAT = "float"  # floating point of any kind, complex numbers and vectors, too
    POINTER = "pointer"
    STRUCT = "struct"
    UNION = "union"
    ARRAY = "array"
    FUNCTION = "function"
    UNKNOWN = "unknown"  # a kind that is not understood here, or a chain of types without end


AGGREGATES = (Kind.STRUCT, Kind.UNION, Kind.ARRAY)
WHOLE_NUMBERS = (Kind.INTEGER, Kind.BOOL, Kind.ENUM)


class CType(NamedTuple):
    """One type, under its typedefs and qualifiers."""

    kind: Kind
    text: str  # as the source has it, typedefs and qualifiers included
    name: str = ""  # tag of a struct, union or enum; of one without a tag its typedef; else empty
    size: int | None = None  # bytes; None where it is not told: what is only declared, void, functions
    signed: bool | None = None  # of whole numbers; None where it is not told
    qualifiers: frozenset[str] = frozenset()  # `const` and `volatile` of the type that a pointer points to
    target: CType | None = None  # what a pointer points to, what an array is of
    function: Prototype | None = None  # of a function: how it is called
    # Of an aggregate that is passed by value: its greatest alignment in bytes, and whether it holds floating point.
    # None where that is not told.
    align: int | None = None
    floats: bool | None = None


class Prototype(NamedTuple):
    """How a function is called."""

    result: CType
    parameters: tuple[CType, ...]
    variadic: bool = False
    noreturn: bool = False  # it is declared to never return
    source: str = ""  # which of the file's descriptions tells: DWARF or BTF


class NotKnown(NamedTuple):
    """That a prototype is not told."""

    why: str  # as the end of "the prototype of FOO is not known: "


VOID = CType(Kind.VOID, "void")
