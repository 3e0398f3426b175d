"""How two prototypes differ, as C and the machine's ABI see it.

    DIFFERENT  what one passes, the other does not understand: another size, another structure, a pointer for a number
    CLOSE      C tells them apart, and calls do not: `const` behind a pointer, `void *` for another pointer, the sign
    SAME       `long` and `long long` of one size; an enum and the integer that holds it; typedefs of one type

The sign is more than that where the caller widens what is narrower than a register: `int` -1 and `unsigned int`
0xffffffff are then passed as different numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from ftpatch.elf.c_types import WHOLE_NUMBERS, CType, Kind, Prototype

REGISTER = 8  # bytes


class Relation(IntEnum):
    """Of two types; the greatest counts where one has several parts."""

    SAME = 0
    CLOSE = 1
    NOT_KNOWN = 2  # one of them is not understood here
    DIFFERENT = 3


class Difference(NamedTuple):
    """In what two prototypes differ."""

    relation: Relation
    text: str  # "parameter 2: struct sk_buff *, but int"


def differences(foo: Prototype, bar: Prototype, widened: bool) -> Iterator[Difference]:
    """All in which they differ, the result first. widened: callers widen numbers by their sign (Arch.widens)."""
    relation = relation_of(foo.result, bar.result, widened)
    if relation:
        yield Difference(relation, f"returns {_both(foo.result, bar.result)}")
    n_foo, n_bar = len(foo.parameters), len(bar.parameters)
    if n_foo != n_bar:
        yield Difference(Relation.DIFFERENT, f"{n_foo} parameter{'s' * (n_foo != 1)}, but {n_bar}")
    if foo.variadic != bar.variadic:
        yield Difference(Relation.DIFFERENT, "one is variadic")
    for number, (mine, other) in enumerate(zip(foo.parameters, bar.parameters, strict=False), 1):
        if relation := relation_of(mine, other, widened):
            yield Difference(relation, f"parameter {number}: {_both(mine, other)}")


def relation_of(foo: CType, bar: CType, widened: bool = False) -> Relation:
    """How two types are related. widened: they are passed in registers whose upper part depends on the sign."""
    if Kind.UNKNOWN in (foo.kind, bar.kind):
        return Relation.NOT_KNOWN
    if foo.kind in WHOLE_NUMBERS and bar.kind in WHOLE_NUMBERS:
        return _numbers(foo, bar, widened)
    if foo.kind is not bar.kind:
        return Relation.DIFFERENT
    if foo.target is not None and bar.target is not None:
        return _pointers(foo, bar) if foo.kind is Kind.POINTER else max(_sizes(foo, bar), _targets(foo, bar))
    if foo.kind is Kind.FUNCTION:
        return _functions(foo.function, bar.function)
    if foo.kind is Kind.FLOAT and foo.text != bar.text:
        return max(_sizes(foo, bar), Relation.CLOSE)
    if foo.name != bar.name:
        return Relation.DIFFERENT
    return max(_sizes(foo, bar), Relation.SAME if foo.name or foo.kind is Kind.VOID else Relation.CLOSE)


def _sizes(foo: CType, bar: CType) -> Relation:
    """By size, where both tell one: what is only declared has none."""
    known = foo.size is not None and bar.size is not None
    return Relation.DIFFERENT if known and foo.size != bar.size else Relation.SAME


def _numbers(foo: CType, bar: CType, widened: bool) -> Relation:
    if foo.size is None or bar.size is None:
        return Relation.NOT_KNOWN
    tags = {one.name for one in (foo, bar) if one.kind is Kind.ENUM and one.name}
    if foo.size != bar.size or len(tags) > 1:
        return Relation.DIFFERENT
    if None not in (foo.signed, bar.signed) and foo.signed is not bar.signed:
        return Relation.DIFFERENT if widened and foo.size < REGISTER else Relation.CLOSE
    return Relation.SAME if (foo.kind is Kind.BOOL) == (bar.kind is Kind.BOOL) else Relation.CLOSE


def _pointers(foo: CType, bar: CType) -> Relation:
    assert foo.target is not None and bar.target is not None
    if (foo.target.kind is Kind.VOID) != (bar.target.kind is Kind.VOID):
        return Relation.CLOSE
    return _targets(foo, bar)


def _targets(foo: CType, bar: CType) -> Relation:
    assert foo.target is not None and bar.target is not None
    qualifiers = Relation.SAME if foo.target.qualifiers == bar.target.qualifiers else Relation.CLOSE
    return max(relation_of(foo.target, bar.target), qualifiers)


def _functions(foo: Prototype | None, bar: Prototype | None) -> Relation:
    if foo is None or bar is None:  # one is declared without a prototype
        return Relation.SAME if foo is bar else Relation.CLOSE
    return max((difference.relation for difference in differences(foo, bar, widened=False)), default=Relation.SAME)


def _both(foo: CType, bar: CType) -> str:
    """Two types for people, told apart."""
    if foo.text != bar.text:
        return f"{foo.text}, but {bar.text}"
    mine, other = _innermost(foo), _innermost(bar)
    return f"{foo.text} ({mine}), but {bar.text} ({other})" if mine != other else f"{foo.text}, but another {bar.text}"


def _innermost(of: CType) -> str:
    """What a type is, or what it points to."""
    while of.target is not None:
        of = of.target
    return " ".join(filter(None, (of.kind.value, of.name, "" if of.size is None else f"of {of.size} bytes")))
