"""The entries of one unit of debug information, walked in order: some microseconds for each.

pyelftools (`debug_info`) makes an object of every entry, and would need a minute for the unit of a driver. Here an
entry that nobody asks for is only passed over: its declaration tells how long it is, or where its length stands.

    .debug_abbrev ─ Declaration: tag, (attribute, form)… ─ skips: bytes to pass over, once for each declaration
    .debug_info ─── Unit.walk ─> (position, depth, Declaration) of every entry ─ Unit.entry ─> what it says

Nothing is believed: every entry takes at least a byte, so that a walk ends with its unit, and all that is read of an
image is counted (`Steps`). What contradicts itself is one of DAMAGE, and means: not known. Positions are those in
.debug_info.
Source: DWARF 5, 7.5 (units, declarations, forms); the versions from 2 on are read. GNU's forms for split units and
other files are not.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf import debug_numbers as n
from ftpatch.elf import tables as t
from ftpatch.elf.debug_sections import extent, section_content
from ftpatch.elf.debug_stream import Steps
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError

MAX_ABBREVS = 1 << 16  # bytes of one unit's table; the longest of Debian's vmlinux files has 5,856
MAX_ROOT = 4096  # bytes of a unit's first entry
PIECE = 256  # entries that are walked between two looks at how much may be read

# What damaged debug information leads to.
DAMAGE = (ElfError, LookupError, OverflowError, TypeError, ValueError, struct.error)


class Declaration(NamedTuple):
    """What all entries with one number in front are."""

    tag: int
    children: bool
    attributes: tuple[tuple[int, int, int], ...]  # attribute, form, the value where the form is implicit_const
    skips: tuple[int, ...]  # how to pass over an entry: bytes, or one of debug_numbers' rules (negative)


class Entry(NamedTuple):
    """What an entry says, as far as its forms are known here."""

    pos: int
    tag: int
    # By attribute: numbers, addresses (DW_AT_high_pc always is one), flags (1), and references and lists as positions
    # in their sections.
    numbers: dict[int, int]
    name: str  # DW_AT_name; empty where it has none


@dataclass(eq=False)
class DebugSections:
    """Debug sections of an image, unpacked and relocated when they are first asked for."""

    image: Image
    _kept: dict[str, FileBytes] = field(default_factory=dict)

    def section(self, name: str) -> FileBytes:
        """The bytes of a section; none where the file lacks it. ElfError where they cannot be unpacked."""
        if name not in self._kept:
            self._kept[name] = section_content(self.image, name)
        return self._kept[name]

    @cached_property
    def steps(self) -> Steps:
        """How much may be read in all: in proportion to the size of the file."""
        return Steps.for_size(len(self.section(".debug_info")) + len(self.section(".debug_abbrev")))

    def number(self, section: str, pos: int, size: int) -> int:
        """A number of `size` bytes in a section; ElfError where it lies outside."""
        octets = self.section(section).peek(pos, pos + size) if pos >= 0 else b""
        if len(octets) < size:
            raise ElfError("debug information refers to what is outside a section", found=f"{section}+{pos:#x}")
        return int.from_bytes(octets, "little")

    def string(self, section: str, pos: int) -> str:
        """A string in a section."""
        return self.section(section).peek(pos, pos + t.MAX_NAME).partition(b"\0")[0].decode("utf-8", "backslashreplace")


class Unit:
    """One unit of .debug_info. Its methods raise one of DAMAGE where it is damaged, or of a kind without code here.

    pos, end: where it is. root: its first entry.
    """

    def __init__(self, debug: DebugSections, pos: int) -> None:
        info = debug.section(".debug_info")
        self.pos, self.debug = pos, debug
        self.end, at = extent(info, pos)
        head = info.peek(at, at + 16)
        self.wide = at == pos + 12  # the unit has offsets of eight bytes
        offset = "Q" if self.wide else "I"
        (self.version,) = struct.unpack_from("<H", head)
        if self.version >= 5:
            _, kind, address_size, abbrevs = struct.unpack_from(f"<HBB{offset}", head)
        else:
            kind, (_, abbrevs, address_size) = n.DW_UT_COMPILE, struct.unpack_from(f"<H{offset}B", head)
        if not (at < self.end <= len(info) and 2 <= self.version <= 5 and address_size == 8):
            raise ElfError("a unit's header cannot be read", found=f"version {self.version}")
        if kind not in (n.DW_UT_COMPILE, n.DW_UT_PARTIAL):
            raise ElfError("a unit has no code in this file", found=f"unit type {kind}")
        self.first = at + (4 if self.version >= 5 else 3) + (8 if self.wide else 4)
        self._declarations = _Declarations(debug, abbrevs, self.wide, self.version)

    @cached_property
    def data(self) -> bytes:
        """All bytes of the unit."""
        return self.debug.section(".debug_info").peek(self.pos, self.end)

    @cached_property
    def root(self) -> Entry:
        """The entry of the unit itself, read from the little that it takes."""
        return self._entry(self._head, 0, self.first)

    @cached_property
    def _head(self) -> bytes:
        return self.debug.section(".debug_info").peek(self.first, min(self.first + MAX_ROOT, self.end))

    def walk(self, pos: int | None = None) -> Iterator[tuple[int, int, Declaration]]:
        """(position, depth, declaration) of the entry at `pos` and of all below it; of the whole unit without it."""
        data, known, n_read = self.data, self._declarations.known, 0
        self.debug.steps.take(1)
        at, depth = (self.first if pos is None else pos) - self.pos, 0
        while at < len(data):
            start = at
            number, at = data[at], at + 1
            if number >= 0x80:
                number, at = n.uleb(data, start)
            n_read += 1
            if n_read == PIECE:
                self.debug.steps.take(n_read)
                n_read = 0
            if number == 0:
                depth -= 1
            else:
                declaration = known.get(number) or self._declarations.read(number)
                yield self.pos + start, depth, declaration
                depth += declaration.children
                for skip in declaration.skips:
                    at = at + skip if skip >= 0 else _behind(data, at, skip)
            if depth <= 0:
                return

    def entry(self, pos: int) -> Entry:
        """What the entry at a position says."""
        return self._entry(self.data, pos - self.pos, pos)

    def _entry(self, data: bytes, at: int, pos: int) -> Entry:
        """The entry at data[at:], which stands at `pos`."""
        number, at = n.uleb(data, at)
        declaration, name = self._declarations.read(number), ""
        numbers: dict[int, int] = {}
        self.debug.steps.take(1 + len(declaration.attributes))
        for attribute, form, constant in declaration.attributes:
            skip = n.skip(form, self.wide, self.version)
            behind = at + skip if skip >= 0 else _behind(data, at, skip)
            if behind > len(data):
                raise ElfError("an entry lies outside its unit", found=f"{pos:#x}")
            if attribute == n.DW_AT_NAME:
                name = self._string(data[at:behind], form)
            elif (value := self._number(data[at:behind], form, constant)) is not None:
                relative = attribute == n.DW_AT_HIGH_PC and form not in n.ADDRESSES  # a number of bytes
                numbers.setdefault(attribute, value + (numbers.get(n.DW_AT_LOW_PC, 0) if relative else 0))
            at = behind
        return Entry(pos, declaration.tag, numbers, name)

    def _number(self, octets: bytes, form: int, constant: int) -> int | None:
        """The value of an attribute that is a number or a place; None for all others."""
        if form in n.PLAIN:
            return int.from_bytes(octets, "little")
        if form == n.DW_FORM_IMPLICIT_CONST:
            return constant
        if form == n.DW_FORM_FLAG_PRESENT:
            return 1
        if form in (n.DW_FORM_UDATA, n.DW_FORM_SDATA):
            return n.uleb(octets, 0)[0]  # no sizes and counts are negative
        if form in n.UNIT_REFERENCES:
            return self.pos + (
                n.uleb(octets, 0)[0] if form == n.DW_FORM_REF_UDATA else int.from_bytes(octets, "little")
            )
        if form in n.ADDRESS_INDICES:
            return self.address(n.uleb(octets, 0)[0] if form == n.DW_FORM_ADDRX else int.from_bytes(octets, "little"))
        if form == n.DW_FORM_RNGLISTX:
            base, size = self._base(n.DW_AT_RNGLISTS_BASE), 8 if self.wide else 4
            return base + self.debug.number(".debug_rnglists", base + size * n.uleb(octets, 0)[0], size)
        return None

    def _string(self, octets: bytes, form: int) -> str:
        """The value of an attribute that is a string; empty for those that stand in another file."""
        if form == n.DW_FORM_STRING:
            return octets[:-1][: t.MAX_NAME].decode("utf-8", "backslashreplace")
        if form in (n.DW_FORM_STRP, n.DW_FORM_LINE_STRP):
            section = ".debug_str" if form == n.DW_FORM_STRP else ".debug_line_str"
            return self.debug.string(section, int.from_bytes(octets, "little"))
        if form in n.STRING_INDICES:
            number, size = int.from_bytes(octets, "little"), 8 if self.wide else 4
            if form == n.DW_FORM_STRX:
                number = n.uleb(octets, 0)[0]
            at = self._base(n.DW_AT_STR_OFFSETS_BASE) + size * number
            return self.debug.string(".debug_str", self.debug.number(".debug_str_offsets", at, size))
        return ""

    def address(self, index: int) -> int:
        """The address of an index."""
        return self.debug.number(".debug_addr", self._base(n.DW_AT_ADDR_BASE) + 8 * index, 8)

    def _base(self, attribute: int) -> int:
        """What indices of the unit are counted from. Its first entry may use them in front of telling the base."""
        if attribute not in self._bases:
            raise ElfError("a unit has indices but no base", found=f"{self.pos:#x}")
        return self._bases[attribute]

    @cached_property
    def _bases(self) -> dict[int, int]:
        """The plain numbers of the first entry, by attribute."""
        octets = self._head
        number, at = n.uleb(octets, 0)
        bases = {}
        for attribute, form, _ in self._declarations.read(number).attributes:
            skip = n.skip(form, self.wide, self.version)
            behind = at + skip if skip >= 0 else _behind(octets, at, skip)
            if form == n.DW_FORM_SEC_OFFSET:
                bases[attribute] = int.from_bytes(octets[at:behind], "little")
            at = behind
        return bases


class _Declarations:
    """A unit's table of declarations, read only as far as one is asked for. known: those read, by their numbers."""

    def __init__(self, debug: DebugSections, pos: int, wide: bool, version: int) -> None:
        self.known: dict[int, Declaration] = {}
        self._form = (wide, version)
        self._debug, self._pos = debug, pos
        self._at = 0

    @cached_property
    def _data(self) -> bytes:
        return self._debug.section(".debug_abbrev").peek(self._pos, self._pos + MAX_ABBREVS)

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
        """The declaration whose tag stands at `at`, and where the next begins."""
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
            skip = n.skip(form, *self._form)
            if skip >= 0 and skips[-1] >= 0:
                skips[-1] += skip
            else:
                skips.append(skip)


def _behind(data: bytes, at: int, rule: int) -> int:
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
