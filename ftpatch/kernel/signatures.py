"""Whether one function may take another's place: their signatures, and where their arguments travel.

Three sources tell of a signature, in this order: DWARF, BTF, and the hash that kCFI puts in front of a function, which
compilers make of its type. What none tells is a warning, never an answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ftpatch.arch.parts import Passed
from ftpatch.elf.c_types import AGGREGATES, WHOLE_NUMBERS, CType, Kind, NotKnown, Prototype
from ftpatch.elf.type_difference import Difference, Relation, differences
from ftpatch.kernel.kcfi import type_hash

if TYPE_CHECKING:
    from ftpatch.elf.function_types import FunctionTypes

SHOWN = 3  # differences that a message names
ASSEMBLY = "BTF has it as void (void), as it has functions in assembly"
ORDINALS = {1: "st", 2: "nd", 3: "rd"}


class Comparison(NamedTuple):
    """Of the signatures of two functions; both texts empty where they agree."""

    different: str = ""  # how they differ, as an error says it: "parameter 2: struct sk_buff *, but int"
    warning: str = ""  # why they could not be compared, or in what they differ that calls do not depend on
    source: str = ""  # what told: "DWARF", "BTF", "DWARF and BTF", "kCFI"; empty where nothing did


def compare_signatures(
    foo: FunctionTypes, foo_row: int, bar: FunctionTypes, bar_row: int, compiled: bool = False
) -> Comparison:
    """How the signature of BAR, which takes the place of FOO, differs from FOO's; two rows of their images' symbols.

    foo and bar may be the same file, a module and its kernel, or a module and an object that is linked to it. FOO has a
    patch site: it is no assembly. compiled: neither is BAR.
    """
    mine, other = foo.prototype(foo_row), bar.prototype(bar_row)
    names = foo.image.symbols.name(foo_row), bar.image.symbols.name(bar_row)
    if isinstance(mine, NotKnown) or isinstance(other, NotKnown) or (not compiled and is_assembly(mine, other)):
        return _by_hash(foo, foo_row, bar, bar_row) or Comparison(warning=not_compared(names, mine, other))
    return compare_prototypes(names, mine, other, foo.image.arch.widens)


def compare_prototypes(names: tuple[str, str], mine: Prototype, other: Prototype, widens: bool) -> Comparison:
    """How the second prototype differs from the first. names: of the two, for texts; widens: see Arch."""
    source = " and ".join(dict.fromkeys((mine.source, other.source)))
    found = list(differences(mine, other, widens))
    if different := _text(found, Relation.DIFFERENT):
        return Comparison(different, "", source)
    parts = []
    if close := _text(found, Relation.CLOSE):
        parts.append(f"the signatures of {names[0]} and {names[1]} differ: {close}")
    if unknown := _text(found, Relation.NOT_KNOWN):
        parts.append(f"the signatures of {names[0]} and {names[1]} could not be compared in full: {unknown}")
    return Comparison("", "; ".join(parts), source)


def is_assembly(foo: Prototype, bar: Prototype) -> bool:
    """Whether BAR's prototype says nothing, so that a difference from FOO's would say nothing."""
    return bar.assembly and not (foo.result.kind is Kind.VOID and not foo.parameters)


def _text(found: list[Difference], relation: Relation) -> str:
    texts = [difference.text for difference in found if difference.relation is relation]
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return "; ".join(texts[:SHOWN]) + more


def not_compared(names: tuple[str, str], foo: Prototype | NotKnown, bar: Prototype | NotKnown) -> str:
    """Why two signatures cannot be compared."""
    whys = [f"{name}: {told.why}" for name, told in zip(names, (foo, bar), strict=True) if isinstance(told, NotKnown)]
    whys = whys or [f"{names[1]}: {ASSEMBLY}"]
    if isinstance(foo, NotKnown) and foo == bar:
        whys = [foo.why]
    return f"the signatures of {names[0]} and {names[1]} could not be compared: {'; '.join(whys)}"


def _by_hash(foo: FunctionTypes, foo_row: int, bar: FunctionTypes, bar_row: int) -> Comparison | None:
    """By the type hashes of kCFI; None where one of the functions has none for sure."""
    mine, other = type_hash(foo.image, foo_row), type_hash(bar.image, bar_row)
    if mine is None or other is None:
        return None
    if mine == other:
        return Comparison(source="kCFI")
    return Comparison(f"kCFI type hash {mine:#010x}, but {other:#010x}", "", "kCFI")


# -- where arguments travel --------------------------------------------------------------------------------------------


def why_not_in_registers(types: FunctionTypes, row: int, compiled: bool = False) -> str | None:
    """Which argument does not travel in a register, or that the function is variadic; empty where all do, and on
    machines where that makes no difference (no Arch.in_registers); None where it is not known.

    compiled: the function is surely no assembly, because it has a patch site, or the signature of one that has.
    """
    arch = types.image.arch
    if arch.in_registers is None:
        return ""
    prototype = types.prototype(row)
    if isinstance(prototype, NotKnown) or (prototype.assembly and not compiled):
        return None
    if prototype.variadic:
        return "it is variadic"
    passed = [_passed(parameter) for parameter in prototype.parameters]
    result = _passed(prototype.result)
    if result is None:
        return None
    known = [one for one in passed[: passed.index(None)]] if None in passed else passed
    answers = arch.in_registers(result, [one for one in known if one is not None])
    if False in answers:
        number = answers.index(False)
        return _by_memory(number + 1, prototype.parameters[number])
    return None if None in (*answers, *passed) else ""


def _by_memory(number: int, parameter: CType) -> str:
    if parameter.kind in AGGREGATES:
        return f"it passes {parameter.text} ({parameter.size} bytes) by memory"
    ending = "th" if 10 <= number % 100 < 20 else ORDINALS.get(number % 10, "th")
    return f"its {number}{ending} argument is on the stack"


def _passed(type_: CType) -> Passed | None:
    """A type, as calling conventions see it; None where it is not understood here."""
    if type_.kind is Kind.VOID:
        return Passed("none", 0)
    if type_.size is None or type_.kind in (Kind.UNKNOWN, Kind.FUNCTION):
        return None
    if type_.kind in (*WHOLE_NUMBERS, Kind.POINTER):
        return Passed("number", type_.size)
    return Passed("aggregate" if type_.kind in AGGREGATES else "float", type_.size)
