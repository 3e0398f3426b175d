"""The debug information of one image, read by pyelftools: what a unit covers, its line table, its entries.

This file alone uses pyelftools, which is imported only when lines or names are asked for. pyelftools never sees the
file. It gets each debug section as a `Stream` over its bytes, unpacked and relocated as a linker would leave it, and
parses headers of units, declarations, entries, range lists and line programs from there.

pyelftools trusts its input: on damaged files it may raise anything, loop for as long as a count says, and keep all it
ever parsed. Therefore:

* every field that it reads, and every position that it asks for, is a step. All queries to one image may take a number
  of steps in proportion to the size of its debug sections (`Steps`), so that time is linear in the size of the file;
* a LEB128 number ends after MAX_LEB bytes: pyelftools would build a number of a million bits, in quadratic time;
* the header of a unit, and that of a line program, is checked before pyelftools parses it: length, version, address
  size. A line program is at most MAX_PROGRAM bytes, since pyelftools keeps 0.5 KB for each of its rows;
* a table of file names whose rows have no fields is refused: pyelftools would repeat nothing, up to 2**64 times;
* declarations are read one by one, up to the one asked for and to MAX_ABBREVS, where pyelftools reads whole tables;
* each unit gets a DWARFInfo of its own, so that what pyelftools keeps is gone with the unit;
* a compressed section may unpack to a hundred times its size (`debug_sections`);
* whatever pyelftools raises is caught in `attempt`, once, and means: not known.

Source: DWARF 5, chapters 6 and 7; the versions from 2 on are read.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from elftools.common.exceptions import DWARFError, ELFError
from elftools.common.utils import struct_parse
from elftools.construct import ConstructError
from elftools.construct.lib.container import Container
from elftools.dwarf.abbrevtable import AbbrevDecl, AbbrevTable
from elftools.dwarf.compileunit import CompileUnit
from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo
from elftools.dwarf.enums import DW_FORM_raw2name
from elftools.dwarf.lineprogram import LineProgram
from elftools.dwarf.ranges import BaseAddressEntry
from elftools.dwarf.structs import DWARFStructs

from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf.debug_sections import NOTHING, OTHERS, PARSED, SECTIONS, extent, section_content
from ftpatch.elf.debug_stream import Steps, Stream, as_file
from ftpatch.elf.image import Image
from ftpatch.errors import ChangedError, ElfError, FtpatchError

T = TypeVar("T")
D = TypeVar("D")
Program = LineProgram  # .get_entries(), whose .state has .address, .file, .line, .end_sequence; header fields by name
Span = tuple[int, int]  # [first va, va behind the last)

MAX_PROGRAM = 1 << 19  # bytes; the longest line program of Debian's vmlinux files (6.1, 6.12) has 370,441
MAX_ABBREVS = 1 << 16  # bytes of one unit's table of abbreviations; the longest of those kernels has 5,856
MAX_UNITS = 1 << 16  # of one file; Debian's vmlinux files have 2,500, an allyesconfig kernel some 30,000

DW_UT_COMPILE, DW_UT_PARTIAL, DW_UT_SKELETON = 1, 3, 4  # the kinds of unit that may cover code of this file

# What damaged debug information leads to, in pyelftools and here.
REFUSALS = (ArithmeticError, AssertionError, AttributeError, ConstructError, DWARFError, ELFError, FtpatchError,
            LookupError, NotImplementedError, TypeError, ValueError, struct.error)  # fmt: skip


def attempt(read: Callable[[], T], otherwise: D) -> T | D:
    """What `read` returns, or `otherwise` where the debug information is damaged or of an unknown kind."""
    try:
        return read()
    except ChangedError:  # says nothing of the debug information
        raise
    except REFUSALS:
        return otherwise


# -- what pyelftools reads from -----------------------------------------------------------------------------------


class _Declarations(AbbrevTable):
    """pyelftools' table of abbreviations, read only as far as a declaration is asked for.

    known: declarations by their bytes, for all tables of a file: units have nearly the same ones.
    """

    __slots__ = ("_known", "_next", "_section")

    def __init__(self, structs: DWARFStructs, stream: Stream, offset: int, known: dict[bytes, Container]) -> None:
        self.structs, self.stream, self.offset = structs, as_file(stream), offset
        self._section = stream
        self._abbrev_map = {}
        self._known = known
        self._next: int | None = offset  # position of the next declaration; None behind the last

    def get_abbrev(self, code: int) -> AbbrevDecl:
        while code not in self._abbrev_map and self._next is not None:
            at, self._next = self._next, None  # what is damaged is not tried again
            number: int = struct_parse(_uleb128(self.structs), self.stream, at)
            if number == 0:
                break
            self._abbrev_map.setdefault(number, AbbrevDecl(number, self._declaration()))
            self._next = self.stream.tell()
        return self._abbrev_map[code]

    def _declaration(self) -> Container:
        """The one at the stream's position. Most end at the first two zeros; those alone are remembered."""
        start, octets = self.stream.tell(), self._section.ahead(b"\0\0")
        declaration = self._known.get(octets)
        if declaration is None:
            declaration = struct_parse(self.structs.Dwarf_abbrev_declaration, self.stream)
            if self.stream.tell() - start == len(octets):
                self._known[octets] = declaration
        else:
            self.stream.seek(start + len(octets))
        return declaration


class _Info(DWARFInfo):
    """pyelftools' reader with that table."""

    debug: DebugInfo

    def get_abbrev_table(self, offset: int) -> AbbrevTable:
        if offset not in self._abbrevtable_cache:
            section = self.debug.section("debug_abbrev")
            table = section.part(0, min(offset + MAX_ABBREVS, len(section)))
            declarations = _Declarations(self.structs, Stream(table, self.debug.steps), offset, self.debug.declarations)
            self._abbrevtable_cache[offset] = declarations
        return self._abbrevtable_cache[offset]


# -- an image's debug information ---------------------------------------------------------------------------------


class DebugInfo:
    """The debug sections of an image, and the units in them."""

    def __init__(self, image: Image) -> None:
        self._content: dict[str, FileBytes] = {}
        self.problems: list[str] = []  # why sections cannot be read
        for name in SECTIONS:
            try:
                self._content[name] = section_content(image, f".{name}")
            except REFUSALS as error:
                self._content[name] = NOTHING
                self.problems.append(f".{name}: {error}")
        parsed = sum(len(self._content[name]) for name in PARSED)
        self.steps = Steps.for_size(parsed)
        self.declarations: dict[bytes, Container] = {}  # see _Declarations
        unread = {f"{name}_sec" for name in OTHERS}.intersection(_Info.__init__.__code__.co_varnames)
        self._sections: dict[str, DebugSectionDescriptor | None] = dict.fromkeys(unread)
        for name, content in self._content.items():
            stream = as_file(Stream(content, self.steps))
            descriptor = DebugSectionDescriptor(stream, f".{name}", None, len(content), 0)
            self._sections[f"{name}_sec"] = descriptor if len(content) else None

    def section(self, name: str) -> FileBytes:
        """The bytes of one of SECTIONS; none where the file lacks it, or where it cannot be unpacked."""
        return self._content[name]

    def reader(self) -> DWARFInfo:
        """A new reader, which remembers nothing."""
        info = _Info(DwarfConfig(little_endian=True, machine_arch="", default_address_size=8), **self._sections)
        info.debug = self
        return info

    def aranges(self) -> list[tuple[int, int, int]]:
        """(va, size, position of the unit) of all code that .debug_aranges lists; nothing where that is damaged."""
        table = attempt(self.reader().get_aranges, None)
        end = len(self.section("debug_info"))
        entries = table.entries if table else []
        return [(row.begin_addr, row.length, row.info_offset) for row in entries if row.info_offset < end]

    def extents(self) -> list[Span]:
        """[first byte, end) of every unit in .debug_info, up to the first that contradicts the section."""
        spans: list[Span] = []
        at, info = 0, self.section("debug_info")
        while at + 12 <= len(info) and len(spans) < MAX_UNITS:
            end = extent(info, at)[0]
            if not at < end <= len(info):
                break
            spans.append((at, end))
            at = end
        return spans

    def unit(self, pos: int) -> Unit | None:
        """The unit at a position in .debug_info; None where there is none that may cover code."""
        return attempt(lambda: Unit(self, pos), None)


class Unit:
    """One unit of .debug_info. Its methods raise one of REFUSALS where the unit is damaged, but for those that say so.

    pos, end: where it is in .debug_info.
    """

    def __init__(self, debug: DebugInfo, pos: int) -> None:
        info = debug.section("debug_info")
        self.pos = pos
        self.end, at = extent(info, pos)
        head = info.peek(at, at + 12)
        version = struct.unpack_from("<H", head)[0]
        behind = 2 + (8 if at == pos + 12 else 4)  # before DWARF 5 an offset stands in front of the address size
        kind, address_size = (head[2], head[3]) if version >= 5 else (DW_UT_COMPILE, head[behind])
        if not (at < self.end <= len(info) and 2 <= version <= 5 and address_size == 8):
            raise ElfError("a unit's header cannot be read", found=f"version {version}, address size {address_size}")
        if kind not in (DW_UT_COMPILE, DW_UT_PARTIAL, DW_UT_SKELETON):
            raise ElfError("a unit has no code in this file", found=f"unit type {kind}")
        self._debug = debug
        self._unit: CompileUnit = debug.reader().get_CU_at(pos)

    def declared(self, code: int) -> tuple[str, list[tuple[str, str]]]:
        """What entries with this number in front are: their tag, and name and form of each attribute."""
        declaration = attempt(partial(self._unit.get_abbrev_table().get_abbrev, code), None)
        return (declaration["tag"], [(a.name, a.form) for a in declaration["attr_spec"]]) if declaration else ("", [])

    def begins(self, code: int) -> tuple[str, str, str] | None:
        """How an entry with this number in front begins: tag, name and form of its first attribute."""
        tag, attributes = self.declared(code)
        return (tag, *attributes[0]) if attributes else None

    def entry(self, pos: int) -> tuple[str, dict[str, Any]]:
        """Tag and attributes by name of the entry at `pos` of .debug_info; nothing where it cannot be read."""
        entry = attempt(partial(self._unit.get_DIE_from_refaddr, pos), None)
        values = {name: attribute.value for name, attribute in entry.attributes.items()} if entry else {}
        return str(entry.tag) if entry else "", values

    def values(self, pos: int) -> dict[str, Any]:
        """The attributes of the entry at `pos` of .debug_info by name; none where it cannot be read."""
        return self.entry(pos)[1]

    def spans(self) -> list[Span]:
        """The code that the unit covers."""
        root = self._unit.get_top_DIE().attributes
        low: int = root["DW_AT_low_pc"].value if "DW_AT_low_pc" in root else 0
        if "DW_AT_ranges" in root:
            return self._range_list(root["DW_AT_ranges"].value, low)
        if "DW_AT_high_pc" not in root:
            return []
        high = root["DW_AT_high_pc"]  # an address, or else a number of bytes
        absolute = high.form.startswith("DW_FORM_addr")
        return [(low, high.value if absolute else low + high.value)]

    def _range_list(self, pos: int, base: int) -> list[Span]:
        """A list in .debug_ranges or .debug_rnglists; base: what its offsets are added to, until it says otherwise."""
        lists, spans = self._unit.dwarfinfo.range_lists(), []
        for item in lists.get_range_list_at_offset(pos, self._unit) if lists else ():
            if isinstance(item, BaseAddressEntry):
                base = item.base_address
            else:
                start = 0 if item.is_absolute else base
                spans.append((start + item.begin_offset, start + item.end_offset))
        return spans

    def compiler_directory(self) -> bytes:
        """Where the compiler ran; empty where the unit does not tell."""
        root = self._unit.get_top_DIE().attributes
        directory = root["DW_AT_comp_dir"].value if "DW_AT_comp_dir" in root else b""
        return directory if isinstance(directory, bytes) else b""

    def line_program(self) -> Program | None:
        """The unit's line program, not yet run."""
        where = self._unit.get_top_DIE().attributes.get("DW_AT_stmt_list")
        if where is None:
            return None
        line = self._debug.section("debug_line")
        end, at = extent(line, where.value)
        version = struct.unpack_from("<H", line.peek(at, at + 2))[0]
        if not (at < end <= len(line) and 2 <= version <= 5) or end - at > MAX_PROGRAM:
            raise ElfError("a line program cannot be read", found=f"version {version}, {end - at} bytes")
        if version == 5:
            _require_fields(Stream(line, self._debug.steps), at, self._unit.structs)
        program = self._unit.dwarfinfo.line_program_for_CU(self._unit)
        return program if program and program["opcode_base"] else None


def _uleb128(structs: DWARFStructs) -> Any:
    """The parser of a LEB128 number, which pyelftools before 0.31 makes by a function."""
    return getattr(structs, "the_Dwarf_uleb128", None) or structs.Dwarf_uleb128("")


def _require_fields(line: Stream, at: int, structs: DWARFStructs) -> None:
    """Refuse a line program's tables of directories and files that have rows, but rows without fields.

    at: where its version stands. The directories have to be passed over, because the files come behind them.
    """
    number, stream = _uleb128(structs), as_file(line)
    line.seek(at + 2 + 2 + structs.dwarf_format // 8 + 5)  # behind line_range
    line.seek(line.read(1)[0] - 1, os.SEEK_CUR)  # standard_opcode_lengths
    for last in (False, True):
        forms: list[int] = []
        for _ in range(line.read(1)[0]):
            struct_parse(number, stream)  # what the field is, a path or a number
            forms.append(struct_parse(number, stream))
        n_rows: int = struct_parse(number, stream)
        if n_rows and not forms:
            raise ElfError("a line program's table has rows without fields", found=f"{n_rows} rows")
        for _ in range(0 if last else n_rows):
            for form in forms:
                field = structs.Dwarf_dw_form[DW_FORM_raw2name[form]]
                struct_parse(field, stream)  # type: ignore[arg-type]
