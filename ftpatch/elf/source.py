"""Source file and line of a function's entry, from the DWARF of just the units that hold the asked addresses.

    va ─ .debug_aranges ─> unit ─ .debug_info: its first entry ─> .debug_line: its program ─> fs/read_write.c:550

A vmlinux has 200 MB of .debug_info, of which nothing is read but unit headers and first entries: compilers that make no
.debug_aranges (clang) put a unit's ranges there. Modules are relocated in memory first, compressed sections unpacked.
What contradicts itself, or is of a kind not known here (split units that are elsewhere), has no line: no answer is
better than a wrong one. Source: DWARF 5, chapters 6 and 7, and the versions before it, from 2 on.
"""

from __future__ import annotations

import posixpath
import struct
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from ftpatch.arrays import U8, U64, Rows
from ftpatch.container.envelope import MAX_SIZE
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError

# Relocations of debug sections, by machine: those of eight bytes, those of four.
WIDE = {183: 257, 21: 38}  # R_AARCH64_ABS64, R_PPC64_ADDR64
NARROW = {183: 258, 21: 1}  # R_AARCH64_ABS32, R_PPC64_ADDR32
ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD = 1, 2
CHDR = struct.Struct("<IIQQ")  # ch_type, ch_reserved, ch_size, ch_addralign

STMT_LIST, LOW_PC, HIGH_PC, COMP_DIR, RANGES, ADDR_BASE, RNGLISTS_BASE = 0x10, 0x11, 0x12, 0x1B, 0x55, 0x73, 0x74
FORM_ADDR, FORM_STRING, FORM_STRP, FORM_INDIRECT, FORM_IMPLICIT = 0x01, 0x08, 0x0E, 0x16, 0x21
FORM_LINE_STRP, FORM_RNGLISTX = 0x1F, 0x23
ADDRX = (0x1B, 0x29, 0x2A, 0x2B, 0x2C, 0x1F01)
FIXED = {  # form: bytes
    0x05: 2, 0x06: 4, 0x07: 8, 0x0B: 1, 0x0C: 1, 0x11: 1, 0x12: 2, 0x13: 4, 0x14: 8, 0x19: 0, 0x1C: 4, 0x1E: 16,
    0x20: 8, 0x24: 8, 0x25: 1, 0x26: 2, 0x27: 3, 0x28: 4, 0x29: 1, 0x2A: 2, 0x2B: 3, 0x2C: 4,
}  # fmt: skip
OFFSETS = (0x0E, 0x17, 0x1D, 0x1F, 0x10, 0x1F20, 0x1F21)  # forms as wide as an offset; ref_addr since version 3
LEBS = (0x0D, 0x0F, 0x15, 0x1A, 0x1B, 0x22, 0x23, 0x1F01, 0x1F02)
BLOCKS = {0x03: 2, 0x04: 4, 0x09: 0, 0x0A: 1, 0x18: 0}  # form: bytes of the length; 0 is a LEB128
COMPILE, PARTIAL, SKELETON = 1, 3, 4
LNCT_PATH, LNCT_DIRECTORY = 1, 2
NEAR = 24  # bytes from an entry within which its first row begins: landing pad, global entry and NOPs
BROKEN = (
    ElfError,
    IndexError,
    ValueError,
    OverflowError,
    struct.error,
    zlib.error,
)  # what damaged debug information leads to

SPAN = np.dtype([("start", "<u8"), ("size", "<u8"), ("unit", "<i8")])

Attributes = dict[int, tuple[int, int]]  # attribute: (form, value); of a string in place, where it begins
Span = tuple[int, int]


def source_lines(image: Image, vas: Iterable[int]) -> list[str | None]:
    """`fs/read_write.c:550` of each va, relative to the top of the source tree; None where the file does not tell.

    vas: of entries or of the sites at them, in the image's address space as Image.va gives them, relocatable files
    included.
    """
    asked = _entries_at(image, np.array([int(va) for va in vas], np.uint64))
    wanted = sorted(set(asked))
    found: dict[int, str] = {}
    try:
        debug = Debug(image)
        for unit, inside in _units_of(debug, wanted):
            found |= {va: text for va, text in _lines(debug, unit, inside).items() if va not in found}
    except BROKEN:
        pass
    return [found.get(va) for va in asked]


def _entries_at(image: Image, va: U64) -> list[int]:
    """The entry of the function that begins at most NEAR bytes in front of each va, else the va itself."""
    if not len(va) or not len(image.functions.va):
        return [int(one) for one in va]
    entry = image.functions.va[image.functions.containing(va)]
    return [int(one) for one in np.where(image.functions.inside(va) & (va - entry <= np.uint64(NEAR)), entry, va)]


# -- sections --------------------------------------------------------------------------------------------------


class Debug:
    """The debug sections of an image by name, each read when it is first asked for."""

    def __init__(self, image: Image) -> None:
        self.section = cache(lambda name: _content(image, name).data)

    def string(self, name: str, pos: int) -> str:
        """The string at `pos` of a section."""
        raw = bytes(self.section(name)[pos : pos + t.MAX_NAME])
        return raw.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def _content(image: Image, name: str) -> U8:
    """Bytes of a section as a linker would leave them; none where there is no such section."""
    for sec in image.sections_named(name)[:1]:
        content = image.content(sec)
        if int(image.shdr["sh_flags"][sec]) & t.SHF_COMPRESSED:
            content = _unpacked(content)
        return content if image.linked else _relocated(image, sec, content)
    return np.zeros(0, np.uint8)


def _unpacked(packed: U8) -> U8:
    """The content of an SHF_COMPRESSED section."""
    kind, _, size, _ = CHDR.unpack_from(packed.data)
    body = packed[CHDR.size :].data
    if size > MAX_SIZE:
        raise ElfError("a debug section unpacks to too much", found=f"{size} bytes")
    if kind == ELFCOMPRESS_ZLIB:
        plain = zlib.decompressobj().decompress(body, size) if size else b""
    elif kind == ELFCOMPRESS_ZSTD:
        import zstandard

        try:
            plain = zstandard.ZstdDecompressor().stream_reader(body).read(size)
        except zstandard.ZstdError:
            plain = b""
    else:
        plain = b""
    if len(plain) != size:
        raise ElfError("a debug section cannot be unpacked", found=f"ch_type {kind}")
    return np.frombuffer(plain, np.uint8)


def _relocated(image: Image, sec: int, content: U8) -> U8:
    """A debug section with its relocations applied: addresses as in Image.base, debug sections from 0 on."""
    data = content.copy()
    symbols, alloc = image.symbols, image.shdr["sh_flags"] & t.SHF_ALLOC != 0
    base = np.where(alloc, image.base, np.uint64(0))
    for table in np.flatnonzero((image.shdr["sh_type"] == t.SHT_RELA) & (image.shdr["sh_info"] == sec)).tolist():
        rows = image.rows(table, t.RELA)
        symbol = (rows["r_info"] >> np.uint64(32)).astype(np.int64)
        if len(symbol) and int(symbol.max()) >= len(symbols.rows):
            raise ElfError("a relocation names no symbol of this file", image.path, found=f"symbol {symbol.max()}")
        shndx = symbols.shndx[symbol]
        start = np.where(shndx >= 0, base[np.maximum(shndx, 0)], np.uint64(0))
        value = start + symbols.rows["st_value"][symbol] + rows["r_addend"].view(np.uint64)
        octets = np.ascontiguousarray(value.astype("<u8")).view(np.uint8).reshape(-1, 8)
        kind, pos = rows["r_info"] & np.uint64(0xFFFF_FFFF), rows["r_offset"]
        for size, wanted in ((8, WIDE.get(image.e_machine)), (4, NARROW.get(image.e_machine))):
            mask = (kind == np.uint64(wanted or 0)) & (pos <= np.uint64(max(len(data) - size, 0)))
            if wanted and len(data) >= size:
                data[pos[mask].astype(np.int64)[:, None] + np.arange(size)] = octets[mask, :size]
    return data


# -- numbers ---------------------------------------------------------------------------------------------------


class Cursor:
    """Reads one number or string behind the other; an IndexError at the end of the data."""

    __slots__ = ("at", "data")

    def __init__(self, data: memoryview | bytes, at: int) -> None:
        self.data, self.at = data, at

    def number(self, size: int) -> int:
        """An unsigned number of `size` bytes."""
        at, self.at = self.at, self.at + size
        if at < 0 or self.at > len(self.data):
            raise IndexError(at)
        return int.from_bytes(self.data[at : self.at], "little")

    def length(self) -> tuple[int, int]:
        """An initial length, and the size of offsets that it announces."""
        found = self.number(4)
        return (self.number(8), 8) if found == 0xFFFF_FFFF else (found, 4)

    def leb(self) -> int:
        value, self.at = uleb(self.data, self.at)
        return value

    def string(self) -> bytes:
        """The bytes before the next NUL."""
        raw = bytes(self.data[self.at : self.at + t.MAX_NAME])
        text, nul, _ = raw.partition(b"\0")
        if not nul:
            raise IndexError(self.at)
        self.at += len(text) + 1
        return text


def uleb(data: memoryview | bytes, at: int) -> tuple[int, int]:
    """An unsigned LEB128, and the position behind it."""
    value = shift = 0
    while (byte := data[at]) & 0x80:
        value |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if shift > 63:
            raise IndexError(at)
    return value | byte << shift, at + 1


def sleb(data: bytes, at: int) -> tuple[int, int]:
    """A signed LEB128, and the position behind it."""
    value, end = uleb(data, at)
    bits = 7 * (end - at)
    return value - (1 << bits) if value >> (bits - 1) else value, end


# -- units -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unit:
    """A unit's header: where its first entry is, what comes behind the unit, and how wide its fields are."""

    version: int
    kind: int
    offset_size: int
    address_size: int
    abbrev: int
    die: int
    end: int


def _unit(info: memoryview, pos: int) -> Unit:
    """The header at `pos` of .debug_info."""
    cursor = Cursor(info, pos)
    length, offset_size = cursor.length()
    end, version, kind = cursor.at + length, cursor.number(2), COMPILE
    if version >= 5:
        kind, address_size, abbrev = cursor.number(1), cursor.number(1), cursor.number(offset_size)
        cursor.at += 8 if kind == SKELETON else 0
    else:
        abbrev, address_size = cursor.number(offset_size), cursor.number(1)
    return Unit(version, kind, offset_size, address_size, abbrev, cursor.at, end)


def _units_of(debug: Debug, wanted: list[int]) -> Iterator[tuple[Unit, list[int]]]:
    """Units that hold wanted addresses, with these: by .debug_aranges, then by the ranges of units it lacks."""
    info = debug.section(".debug_info")
    spans = _aranges(debug.section(".debug_aranges"))
    unit_of = _holders(spans, wanted, 0)
    for near in (0, NEAR) if len(unit_of) < len(wanted) else ():
        spans = spans if near else np.concatenate([spans, _unlisted(debug, set(spans["unit"].tolist()))])
        unit_of |= _holders(spans, [va for va in wanted if va not in unit_of], near)
    by_unit: dict[int, list[int]] = {}
    for va in wanted:
        by_unit.setdefault(unit_of.get(va, len(info)), []).append(va)
    yield from ((_unit(info, pos), inside) for pos, inside in sorted(by_unit.items()) if pos < len(info))


def _holders(spans: Rows, wanted: list[int], near: int) -> dict[int, int]:
    """The unit of each wanted address: whose span it is in or, with `near`, at most that many bytes in front of."""
    order = np.argsort(spans["start"], kind="stable")
    start, size, unit = (spans[name][order] for name in ("start", "size", "unit"))
    found = {}
    for va, behind in zip(
        wanted, np.searchsorted(start, np.array(wanted, np.uint64), side="right").tolist(), strict=True
    ):
        if behind and va - int(start[behind - 1]) < int(size[behind - 1]):
            found[va] = int(unit[behind - 1])
        elif near and behind < len(start) and int(start[behind]) - va <= near:  # NOPs in front of the first row
            found[va] = int(unit[behind])
    return found


def _aranges(data: memoryview) -> Rows:
    """The spans that .debug_aranges lists."""
    parts, at = [np.zeros(0, SPAN)], 0
    while at + 12 <= len(data):
        cursor = Cursor(data, at)
        length, offset_size = cursor.length()
        first, at = at, cursor.at + length
        _, unit, address_size, segment_size = (cursor.number(n) for n in (2, offset_size, 1, 1))
        low = cursor.at + -(cursor.at - first) % 16  # the first pair is aligned to its own size
        if address_size == 8 and not segment_size and low < at <= len(data):
            pairs = np.frombuffer(data[low : low + (at - low) // 16 * 16], "<u8").reshape(-1, 2)
            part = np.zeros(len(pairs), SPAN)
            part["start"], part["size"], part["unit"] = pairs[:, 0], pairs[:, 1], unit
            parts.append(part[part["size"] > 0] if len(pairs) > 1 else part)
    return np.concatenate(parts)


def _unlisted(debug: Debug, listed: set[int]) -> Rows:
    """The spans of all units that are not listed elsewhere."""
    info, found, pos = debug.section(".debug_info"), [], 0
    while pos < len(info):
        unit = _unit(info, pos)
        if pos not in listed and unit.kind in (COMPILE, PARTIAL, SKELETON):
            found += [(low, high - low, pos) for low, high in _spans(debug, unit) if 0 <= low < high < 1 << 64]
        pos = unit.end
    return np.array(found, SPAN)


def _root(debug: Debug, unit: Unit) -> Attributes:
    """The attributes of a unit's first entry, as far as their forms are known."""
    cursor = Cursor(debug.section(".debug_info"), unit.die)
    code = cursor.leb()
    found: Attributes = {}
    for name, form, implicit in _abbreviation(debug.section(".debug_abbrev"), unit.abbrev, code):
        while form == FORM_INDIRECT:
            form = cursor.leb()
        found[name] = (form, implicit if form == FORM_IMPLICIT else _value(cursor, form, unit))
    return found


def _abbreviation(data: memoryview, pos: int, wanted: int) -> list[tuple[int, int, int]]:
    """(attribute, form, implicit value) of one abbreviation of the table at `pos`."""
    cursor = Cursor(data, pos)
    while code := cursor.leb():
        cursor.leb()
        cursor.at += 1
        found = []
        while True:
            name, form = cursor.leb(), cursor.leb()
            implicit = cursor.leb() if form == FORM_IMPLICIT else 0
            if not name and not form:
                break
            found.append((name, form, implicit))
        if code == wanted:
            return found
    raise ElfError("a unit's first entry has no abbreviation", found=str(wanted))


def _value(cursor: Cursor, form: int, unit: Unit) -> int:
    """The value of one attribute; where it is no number, its position, so that the cursor gets behind it."""
    if form in OFFSETS:
        return cursor.number(unit.offset_size)
    if form in FIXED:
        return cursor.number(FIXED[form])
    if form in LEBS:
        return cursor.leb()
    if form == FORM_ADDR:
        return cursor.number(unit.address_size)
    at = cursor.at
    if form == FORM_STRING:
        cursor.string()
    elif form in BLOCKS:
        size = cursor.number(BLOCKS[form]) if BLOCKS[form] else cursor.leb()
        cursor.at += size
    else:
        raise ElfError("an attribute has an unknown form", found=hex(form))
    return at


# -- the ranges of a unit --------------------------------------------------------------------------------------


def _spans(debug: Debug, unit: Unit) -> list[Span]:
    """[low, high) of a unit's code; empty where it does not tell."""
    try:
        root = _root(debug, unit)
        base = root.get(ADDR_BASE, (0, 2 * unit.offset_size))[1]
        low = _address(debug, root.get(LOW_PC, (FORM_ADDR, 0)), base)
        if RANGES in root:
            return list((_rnglist if unit.version >= 5 else _ranges)(debug, unit, root, low, base))
        form, high = root.get(HIGH_PC, (0, 0))
        end = _address(debug, (form, high), base) if form == FORM_ADDR or form in ADDRX else low + high
        return [(low, end)] if low < end else []
    except BROKEN:
        return []


def _address(debug: Debug, value: tuple[int, int], base: int) -> int:
    """An address attribute, by way of .debug_addr where it is an index."""
    form, number = value
    return _indexed(debug, number, base) if form in ADDRX else number


def _indexed(debug: Debug, index: int, base: int) -> int:
    return Cursor(debug.section(".debug_addr"), base + 8 * index).number(8)


def _ranges(debug: Debug, unit: Unit, root: Attributes, low: int, base: int) -> Iterator[Span]:
    """The list of a unit in .debug_ranges (DWARF 2 to 4)."""
    cursor, top = Cursor(debug.section(".debug_ranges"), root[RANGES][1]), (1 << 64) - 1
    while True:
        start, end = cursor.number(8), cursor.number(8)
        if start == top:
            low = end
        elif start == end == 0:
            return
        else:
            yield low + start, low + end


def _rnglist(debug: Debug, unit: Unit, root: Attributes, low: int, base: int) -> Iterator[Span]:
    """The list of a unit in .debug_rnglists (DWARF 5)."""
    form, pos = root[RANGES]
    cursor = Cursor(debug.section(".debug_rnglists"), pos)
    if form == FORM_RNGLISTX:
        table = root.get(RNGLISTS_BASE, (0, 0))[1]
        cursor.at = table + unit.offset_size * pos
        cursor.at = table + cursor.number(unit.offset_size)
    while kind := cursor.number(1):
        if kind in (1, 5):  # base_addressx, base_address
            low = _indexed(debug, cursor.leb(), base) if kind == 1 else cursor.number(8)
        elif kind == 4:  # offset_pair
            start, end = low + cursor.leb(), low + cursor.leb()
            yield start, end
        elif kind in (2, 3):  # startx_endx, startx_length
            start, second = _indexed(debug, cursor.leb(), base), cursor.leb()
            yield start, _indexed(debug, second, base) if kind == 2 else start + second
        elif kind in (6, 7):  # start_end, start_length
            start, second = cursor.number(8), cursor.number(8) if kind == 6 else cursor.leb()
            yield start, second if kind == 6 else start + second
        else:
            raise ElfError("a range list has an unknown entry", found=hex(kind))


# -- the line program ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lines:
    """A line program, with what its header says: file names by number, and the numbers that opcodes are made of."""

    program: bytes
    files: dict[int, str]
    min_length: int
    line_base: int
    line_range: int
    opcode_base: int
    n_operands: bytes


def _lines(debug: Debug, unit: Unit, wanted: list[int]) -> dict[int, str]:
    """`file:line` of the wanted addresses that the unit's line program knows; they are ascending."""
    try:
        root = _root(debug, unit)
        lines = _line_header(debug, root) if STMT_LIST in root else None
        rows = _rows_near(lines, wanted) if lines else {}
    except BROKEN:
        return {}
    return {va: f"{lines.files[file]}:{line}" for va, (file, line) in rows.items() if lines and lines.files.get(file)}


def _rows_near(lines: Lines, wanted: list[int]) -> dict[int, tuple[int, int]]:
    """(file, line) of the row for each wanted address: the first that begins there, else soon behind, else around it.

    gcc before 13 has no row for the NOPs at an entry: the row around an entry is the last of the function before.
    """
    begins: dict[int, tuple[int, int, int]] = {}
    around: dict[int, tuple[int, int]] = {}
    row: tuple[int, int, int] | None = None
    for va, file, line in _rows(lines):
        if row and row[0] < va and row[2] > 0:
            for one in wanted[bisect_left(wanted, row[0]) : bisect_left(wanted, va)]:
                around.setdefault(one, row[1:])
        row = (va, file, line) if file >= 0 else None
        if row and line > 0 and wanted[0] <= va <= wanted[-1] + NEAR:
            for one in wanted[bisect_left(wanted, va - NEAR) : bisect_right(wanted, va)]:
                if one not in begins or va - one < begins[one][0]:
                    begins[one] = (va - one, file, line)
    return around | {va: (file, line) for va, (_, file, line) in begins.items()}


def _rows(lines: Lines) -> Iterator[tuple[int, int, int]]:
    """(va, file, line) of every row of the table; file is −1 behind a sequence."""
    data, low, span, top = lines.program, lines.line_base, lines.line_range, lines.opcode_base
    at, va, file, line = 0, 0, 1, 1
    while at < len(data):  # a byte-coded program: it can only be run
        code, at = data[at], at + 1
        if code >= top:
            va += (code - top) // span * lines.min_length
            line += low + (code - top) % span
            yield va, file, line
        elif code == 0:  # extended: length, opcode, operands
            size, at = uleb(data, at)
            if size and data[at] == 1:  # end_sequence
                yield va, -1, 0
                va, file, line = 0, 1, 1
            elif size and data[at] == 2:  # set_address
                va = int.from_bytes(data[at + 1 : at + size], "little")
            at += size
        elif code == 1:  # copy
            yield va, file, line
        elif code == 3:  # advance_line
            step, at = sleb(data, at)
            line += step
        elif code == 8:  # const_add_pc
            va += (255 - top) // span * lines.min_length
        elif code == 9:  # fixed_advance_pc
            va, at = va + int.from_bytes(data[at : at + 2], "little"), at + 2
        else:
            for _ in range(lines.n_operands[code - 1]):
                value, at = uleb(data, at)
                va += value * lines.min_length if code == 2 else 0  # advance_pc
                file = value if code == 4 else file  # set_file


def _line_header(debug: Debug, root: Attributes) -> Lines:
    """The header in front of a unit's line program."""
    data = debug.section(".debug_line")
    cursor = Cursor(data, root[STMT_LIST][1])
    length, offset_size = cursor.length()
    end, version = cursor.at + length, cursor.number(2)
    cursor.at += 2 if version >= 5 else 0  # address_size, segment_selector_size
    header = cursor.number(offset_size)
    program = cursor.at + header
    min_length, n_ops = cursor.number(1), cursor.number(1) if version >= 4 else 1
    _, line_base, line_range, opcode_base = (cursor.number(1) for _ in range(4))
    if not 2 <= version <= 5 or n_ops != 1 or not line_range or not opcode_base:
        raise ElfError("a line program is of an unknown kind", found=f"version {version}")
    n_operands = bytes(data[cursor.at : cursor.at + opcode_base - 1])
    cursor.at += opcode_base - 1
    if version >= 5:
        files = dict(enumerate(_files(debug, cursor, offset_size)))
    else:
        files = dict(enumerate(_old_files(debug, cursor, root), 1))
    signed = line_base - 256 if line_base > 127 else line_base
    return Lines(bytes(data[program:end]), files, min_length, signed, line_range, opcode_base, n_operands)


def _files(debug: Debug, cursor: Cursor, offset_size: int) -> list[str]:
    """File names of a header of version 5."""
    directories = [one.get(LNCT_PATH, "") for one in _entries(debug, cursor, offset_size)]
    return [
        relative(str(one.get(LNCT_PATH, "")), int(one.get(LNCT_DIRECTORY, 0)), [str(name) for name in directories])
        for one in _entries(debug, cursor, offset_size)
    ]


def _entries(debug: Debug, cursor: Cursor, offset_size: int) -> list[dict[int, str | int]]:
    """A table of directories or files: its format, then its rows."""
    formats = [(cursor.leb(), cursor.leb()) for _ in range(cursor.number(1))]
    rows: list[dict[int, str | int]] = []
    n_rows = cursor.leb() if formats else 0
    if n_rows > len(cursor.data) - cursor.at:
        raise IndexError(n_rows)
    for _ in range(n_rows):
        row: dict[int, str | int] = {}
        for content, form in formats:
            row[content] = _entry(debug, cursor, form, offset_size)
        rows.append(row)
    return rows


def _entry(debug: Debug, cursor: Cursor, form: int, offset_size: int) -> str | int:
    if form == FORM_STRING:
        return cursor.string().decode("utf-8", "backslashreplace")
    value = _value(cursor, form, Unit(5, COMPILE, offset_size, 8, 0, 0, 0))
    where = {FORM_LINE_STRP: ".debug_line_str", FORM_STRP: ".debug_str"}.get(form)
    return debug.string(where, value) if where else value


def _old_files(debug: Debug, cursor: Cursor, root: Attributes) -> list[str]:
    """File names of a header of versions 2 to 4, where the compiler's directory stands in the unit."""
    form, pos = root.get(COMP_DIR, (0, 0))
    where = {FORM_STRP: ".debug_str", FORM_LINE_STRP: ".debug_line_str", FORM_STRING: ".debug_info"}.get(form)
    directories = [debug.string(where, pos) if where else ""]
    while name := cursor.string():
        directories.append(name.decode("utf-8", "backslashreplace"))
    files = []
    while name := cursor.string():
        directory, _, _ = (cursor.leb() for _ in range(3))  # mtime, length
        files.append(relative(name.decode("utf-8", "backslashreplace"), directory, directories))
    return files


def relative(name: str, directory: int, directories: Sequence[str]) -> str:
    """A source file's path below the top of the tree, as the kernel's developers name it.

    directories: the first is where the compiler ran: the top of the tree, or a build directory in it or beside it.
    """
    top = directories[0] if directories else ""
    path = name
    if 0 < directory < len(directories):
        path = posixpath.join(directories[directory], name)
    if not name:
        return ""
    path = posixpath.normpath(path)
    if posixpath.isabs(path):
        if not posixpath.isabs(top) or posixpath.commonpath([path, top]) == "/":
            return path
        path = posixpath.relpath(path, top)
    while path.startswith("../"):
        path = path[3:]
    return path
