"""The values that the JSON reports are made of: numbers and strings with their limits, for types and schema alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Pattern:
    """A string of this form (a regular expression)."""

    regex: str


@dataclass(frozen=True)
class Values:
    """One of these values; the type is wider where it comes from a table of strings."""

    values: tuple[str | None, ...]


@dataclass(frozen=True)
class Register:
    """One of the names that a register has: see `document.schema.registers`. A new machine adds to them."""

    name: str


@dataclass(frozen=True)
class PatternRegister:
    """A string of one of the forms that a register has: machines differ in it."""

    name: str


@dataclass(frozen=True)
class Range:
    """Limits of a number, or of a list's length."""

    low: int
    high: int | None = None


Hex = Annotated[str, Pattern("^0x[0-9a-f]+$")]
Word = Annotated[str, PatternRegister("word")]  # of the code of a site
Sha256 = Annotated[str, Pattern("^[0-9a-f]{64}$")]
HexBytes = Annotated[str, Pattern("^([0-9a-f]{2})*$")]
Count = Annotated[int, Range(0)]
Pair = Annotated[list[int], Range(2, 2), "before and after"]
Counts = dict[str, Annotated[int, Range(1)]]  # by name; what there is none of is left out

Kind = Annotated[str, Values(("vmlinux", "module", "object", "program", "shared-object"))]
Severity = Annotated[str, Values(("note", "warning", "error"))]
# of edits, by what a live kernel allows
CLASSES = ("single", "pair", "literal", "cross-line", "boot-only", "unsafe", "unreached", "data", "load-only")
ANSWERS = ("yes", "in-order", "no")  # whether a running system could be changed so
EditKind = Annotated[str, Values(CLASSES)]
