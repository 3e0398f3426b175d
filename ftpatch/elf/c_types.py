"""C types as a function's prototype has them: as much of each as callers and calls depend on.

DWARF and BTF are both read into these, so that a prototype of one can be compared with one of the other. Typedefs and
qualifiers are seen through, but a structure without a tag has the name of its typedef. A type behind a pointer is known
by its tag and size alone: what a structure holds is never walked.
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


class Prototype(NamedTuple):
    """How a function is called."""

    result: CType
    parameters: tuple[CType, ...]
    variadic: bool = False
    noreturn: bool = False  # it is declared to never return
    source: str = ""  # which of the file's descriptions tells: DWARF or BTF
    # It may be a function in assembly, whose true prototype is not told: BTF has those as void (void).
    assembly: bool = False


class NotKnown(NamedTuple):
    """That a prototype is not told."""

    why: str  # as the end of "the prototype of FOO is not known: "
    sure: bool = False  # the file says that there is none, so that nothing else in it has to be asked


VOID = CType(Kind.VOID, "void")


def qualified(plain: CType, qualifiers: list[str], alias: str = "", outer: list[str] | None = None) -> CType:
    """A type with its qualifiers. alias: the typedef that the source names it by, which has the qualifiers `outer`
    around it; all others are in it."""
    words = qualifiers if outer is None else outer
    text = alias or plain.text
    if words:
        shown = " ".join(dict.fromkeys(words))
        # `const int *` is a pointer to what is const, `int *const` a const pointer.
        text = f"{text}{shown}" if plain.kind is Kind.POINTER and not alias else f"{shown} {text}"
    return plain._replace(text=text, qualifiers=frozenset(qualifiers))


def pointer_to(target: CType, size: int) -> CType:
    """A pointer, as C spells it."""
    text = f"{target.text}{'' if target.text.endswith('*') else ' '}*"
    if target.function is not None and target.text == spelled(target.function, ""):
        text = spelled(target.function, "(*)")
    elif target.kind is Kind.ARRAY and " [" in target.text:
        text = target.text.replace(" [", " (*)[", 1)
    elif "(*" in target.text:  # a pointer to one of these
        text = target.text.replace("(*", "(**", 1)
    return CType(Kind.POINTER, text, size=size, target=target)


def array_of(element: CType, counts: list[int | None]) -> CType:
    """An array, as C spells it. counts: elements of each dimension; None where that is not told."""
    size = element.size
    for count in counts:
        size = None if size is None or count is None else size * count
    dimensions = "".join(f"[{'' if count is None else count}]" for count in counts or [None])
    return CType(Kind.ARRAY, f"{element.text} {dimensions}", size=size, target=element)


def function_of(function: Prototype | None) -> CType:
    """A type of functions; None: declared without a prototype."""
    return CType(Kind.FUNCTION, "a function" if function is None else spelled(function, ""), function=function)


def spelled(function: Prototype, declarator: str) -> str:
    """A prototype as C has it, of a function of that name, or with `(*)` in its place."""
    texts = [parameter.text for parameter in function.parameters] + ["..."] * function.variadic
    return f"{function.result.text} {declarator}({', '.join(texts) or 'void'})"


# How gcc names what C spells otherwise, by order and by words that may be left out.
SPELLINGS = {
    "long int": "long", "long unsigned int": "unsigned long", "long long int": "long long",
    "long long unsigned int": "unsigned long long", "short int": "short", "short unsigned int": "unsigned short",
    "__int128 unsigned": "unsigned __int128", "_Bool": "bool",
}  # fmt: skip


def number_of(kind: Kind, name: str, size: int | None, signed: bool | None) -> CType:
    """A type of numbers, by its name in debug information."""
    return CType(kind, SPELLINGS.get(name, name), size=size, signed=signed)
