"""How the entries of a unit of debug information are declared: .debug_abbrev, read only as far as it is asked for.

Source: DWARF 5, 7.5.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf import debug_numbers as n
from ftpatch.errors import ElfError

MAX_ABBREVS = 1 << 16  # bytes of one unit's table; the longest of Debian's vmlinux files has 5,856
MAX_KEPT = 1 << 12  # declarations that are kept for other units: those of a file are nearly the same in each


class Declaration(NamedTuple):
    """What all entries with one number in front are."""

    tag: int
    children: bool
    attributes: tuple[tuple[int, int, int], ...]  # attribute, form, the value where the form is implicit_const
    skips: tuple[int, ...]  # how to pass over an entry: bytes, or one of debug_numbers' rules (negative)


Kept = dict[tuple[bool, int, bytes], Declaration]  # by what the bytes behind the number are


@dataclass(eq=False)
class Declarations:
    """A unit's table of declarations, read only as far as one is asked for."""

    section: FileBytes  # .debug_abbrev
    pos: int  # where in it the table begins
    form: tuple[bool, int]  # whether the unit is 64-bit DWARF, and its version
    kept: Kept  # of all units of the file
    known: dict[int, Declaration] = field(default_factory=dict)  # those read, by their numbers
    _at: int = 0

    @cached_property
    def _data(self) -> bytes:
        return self.section.peek(self.pos, self.pos + MAX_ABBREVS)

    def read(self, number: int) -> Declaration:
        """The declaration of a number; ElfError where the table has none."""
        while number not in self.known:
            found, at = n.uleb(self._data, self._at)
            if found == 0:
                raise ElfError("an entry is not declared", found=f"number {number}")
            declaration, self._at = self._next(at)
            self.known.setdefault(found, declaration)
        return self.known[number]

    def _next(self, at: int) -> tuple[Declaration, int]:
        """The declaration whose tag stands at `at`, and where the next begins. Most end at the first two zeros; those
        alone are kept."""
        end = self._data.find(b"\0\0", at) + 2
        key = (*self.form, self._data[at:end])
        if key in self.kept:
            return self.kept[key], end
        declaration, behind = self._parsed(at)
        if behind == end and len(self.kept) < MAX_KEPT:
            self.kept[key] = declaration
        return declaration, behind

    def _parsed(self, at: int) -> tuple[Declaration, int]:
        data = self._data
        tag, at = n.uleb(data, at)
        children, at = data[at], at + 1
        attributes: list[tuple[int, int, int]] = []
        skips = [0]
        while True:
            attribute, at = n.uleb(data, at)
            form, at = n.uleb(data, at)
            constant = 0
            if form == n.DW_FORM_IMPLICIT_CONST:
                constant, at = n.uleb(data, at)
            if (attribute, form) == (0, 0):
                return Declaration(tag, children != 0, tuple(attributes), tuple(skip for skip in skips if skip)), at
            attributes.append((attribute, form, constant))
            skip = n.skip(form, *self.form)
            if skip >= 0 and skips[-1] >= 0:
                skips[-1] += skip
            else:
                skips.append(skip)


def behind_attribute(data: bytes, at: int, rule: int) -> int:
    """Where an attribute ends whose length stands in it."""
    if rule == n.NUMBER:
        while data[at] >= 0x80:
            at += 1
        return at + 1
    if rule == n.TEXT:
        return data.index(0, at) + 1
    if rule == n.BLOCK:
        size, at = n.uleb(data, at)
        return at + size
    width = -rule - n.BLOCK_OF  # bytes of the length
    return at + width + int.from_bytes(data[at : at + width], "little")
