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
from ftpatch.elf.debug_declarations import Declaration, Declarations, Kept, behind_attribute
from ftpatch.elf.debug_sections import extent, section_content
from ftpatch.elf.debug_stream import Steps
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError

MAX_ROOT = 4096  # bytes of a unit's first entry
MAX_TEXT = 1 << 16  # bytes of a string
BYTES_PER_STEP = 16  # of a string, which somebody will take apart
PIECE = 256  # entries that are walked between two looks at how much may be read

# What damaged debug information leads to.
DAMAGE = (ElfError, LookupError, OverflowError, TypeError, ValueError, struct.error)


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
    kept: Kept = field(default_factory=dict)  # declarations of entries
    _sections: dict[str, FileBytes] = field(default_factory=dict)

    def section(self, name: str) -> FileBytes:
        """The bytes of a section; none where the file lacks it. ElfError where they cannot be unpacked."""
        if name not in self._sections:
            self._sections[name] = section_content(self.image, name)
        return self._sections[name]

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
        """A string in a section, cut where it is longer than any: command lines of compilers may be long."""
        octets = self.section(section).peek(pos, pos + t.MAX_NAME)
        if b"\0" not in octets and len(octets) == t.MAX_NAME:
            octets = self.section(section).peek(pos, pos + MAX_TEXT)
        return octets.partition(b"\0")[0].decode("utf-8", "backslashreplace")


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
        if kind not in (n.DW_UT_COMPILE, n.DW_UT_PARTIAL, n.DW_UT_SKELETON):
            raise ElfError("a unit has no code in this file", found=f"unit type {kind}")
        self.first = at + (4 if self.version >= 5 else 3) + (8 if self.wide else 4) + 8 * (kind == n.DW_UT_SKELETON)
        section = debug.section(".debug_abbrev")
        self._declarations = Declarations(section, abbrevs, (self.wide, self.version), debug.kept)

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

    def texts(self) -> dict[int, str]:
        """What the entry of the unit itself has as strings, by attribute."""
        number, at = n.uleb(self._head, 0)
        texts: dict[int, str] = {}
        attributes = self._declarations.read(number).attributes
        self.debug.steps.take(1 + len(attributes))
        for attribute, form, _ in attributes:
            skip = n.skip(form, self.wide, self.version)
            behind = at + skip if skip >= 0 else behind_attribute(self._head, at, skip)
            if form in n.STRINGS:
                texts.setdefault(attribute, self._string(self._head[at:behind], form))
                self.debug.steps.take(len(texts[attribute]) // BYTES_PER_STEP)
            at = behind
        return texts

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
                    at = at + skip if skip >= 0 else behind_attribute(data, at, skip)
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
            behind = at + skip if skip >= 0 else behind_attribute(data, at, skip)
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
            behind = at + skip if skip >= 0 else behind_attribute(octets, at, skip)
            if form == n.DW_FORM_SEC_OFFSET:
                bases[attribute] = int.from_bytes(octets[at:behind], "little")
            at = behind
        return bases
