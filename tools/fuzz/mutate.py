"""Changes to a file, one or a few at a time, most of them to a field whose place and meaning are known.

A random byte of an ELF file is padding or code nine times of ten, and in a header it ends every parser at its first
check. Here a change picks a table, then a row, then a field, then a value that is likely to be an edge. What it knows
of ELF it knows by itself: nothing here uses the program's own reader.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import lzma
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Field = tuple[int, str]  # offset in the row, struct format
EHDR: tuple[Field, ...] = (
    (4, "B"), (5, "B"), (6, "B"), (16, "H"), (18, "H"), (20, "I"), (24, "Q"), (32, "Q"), (40, "Q"), (48, "I"),
    (52, "H"), (54, "H"), (56, "H"), (58, "H"), (60, "H"), (62, "H"),
)  # fmt: skip
SHDR: tuple[Field, ...] = (
    (0, "I"), (4, "I"), (8, "Q"), (16, "Q"), (24, "Q"), (32, "Q"), (40, "I"), (44, "I"), (48, "Q"), (56, "Q"),
)  # fmt: skip
PHDR: tuple[Field, ...] = ((0, "I"), (4, "I"), (8, "Q"), (16, "Q"), (24, "Q"), (32, "Q"), (40, "Q"), (48, "Q"))
SYM: tuple[Field, ...] = ((0, "I"), (4, "B"), (5, "B"), (6, "H"), (8, "Q"), (16, "Q"))
RELA: tuple[Field, ...] = ((0, "Q"), (8, "I"), (12, "I"), (16, "Q"))
WORD64: tuple[Field, ...] = ((0, "Q"),)
SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_NOTE, SHT_NOBITS, SHT_RELR = 2, 3, 4, 7, 8, 19
SHF_EXECINSTR = 4
EDGES = (0, 1, 2, 3, 4, 7, 8, 16, 24, 40, 64, 0x7F, 0x80, 0xFF, 0xFF00, 0xFFF1, 0xFFF2, 0xFFFF, 1 << 31, (1 << 32) - 1,
         1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 8, (1 << 64) - 4, (1 << 64) - 1)  # fmt: skip
# NOPs, calls and what an enabled site has, of every machine
CODE = (0xD503201F, 0xD503245F, 0xAA1E03E9, 0x94000000, 0x97FFFFFF, 0x14000000, 0x60000000, 0x7C0802A6, 0x48000001,
        0x48000000, 0x4BFFFFFD, 0xF8010010, 0x3C4C0000, 0x38420000, 0xE8, 0xE9, 0xC3, 0xCC, 0x25FF, 0x00441F0F,
        0xFA1E0FF3, 0, 0xFFFFFFFF)  # fmt: skip
EM_X86_64 = 62  # whose instructions lie at any address
N_SECTIONS = 512  # of a file that is still mutated by structure
MAX_SIZE = 1 << 17


@dataclass(frozen=True)
class Section:
    """What a change needs to know of a section header: where it stands itself, and what it says."""

    pos: int
    type: int
    flags: int
    offset: int
    size: int
    link: int


def sections(raw: bytes | bytearray) -> list[Section]:
    """The section headers, as far as they lie in the file; none where the file is not ELF."""
    if len(raw) < 64 or raw[:4] != b"\x7fELF":
        return []
    at, n = struct.unpack_from("<Q", raw, 40)[0], struct.unpack_from("<H", raw, 60)[0]
    found = []
    for pos in range(at, min(at + 64 * min(n, N_SECTIONS), len(raw) - 63), 64):
        _, kind, flags, _, offset, size, link, _, _, _ = struct.unpack_from("<2I4Q2I2Q", raw, pos)
        if kind == SHT_NOBITS or offset + size > len(raw):
            size = 0
        found.append(Section(pos, kind, flags, offset, size, link))
    return found


def named_sections(raw: bytes | bytearray) -> dict[str, Section]:
    """The sections of a sound file by name."""
    found = sections(raw)
    strings = found[struct.unpack_from("<H", raw, 62)[0]]
    starts = [strings.offset + struct.unpack_from("<I", raw, sec.pos)[0] for sec in found]
    return {raw[at : raw.index(0, at)].decode(): sec for at, sec in zip(starts, found, strict=True)}


def interesting(rng: random.Random, old: int, file_size: int, others: list[int]) -> int:
    """A value for a field that holds `old`: an edge, something near it, or what the same field holds elsewhere."""
    pick = rng.randrange(8)
    if pick == 0 and others:
        return rng.choice(others)
    if pick == 1:
        return rng.choice((file_size, file_size - 1, file_size + 1))
    if pick <= 3:
        return old + rng.choice((-24, -16, -8, -4, -2, -1, 1, 2, 4, 8, 16, 24))
    if pick == 4:
        return old ^ 1 << rng.randrange(64)
    if pick == 5:
        return rng.randrange(64)
    return rng.choice(EDGES)


def put(rng: random.Random, raw: bytearray, row: int, field: Field, others: list[int] | None = None) -> None:
    """Another value in one field of the row that starts at `row`."""
    offset, kind = field
    old = struct.unpack_from("<" + kind, raw, row + offset)[0]
    limit = 1 << 8 * struct.calcsize(kind)
    struct.pack_into("<" + kind, raw, row + offset, interesting(rng, old, len(raw), others or []) % limit)


# -- one change each, by what it knows ---------------------------------------------------------------------------------


def ehdr_field(rng: random.Random, raw: bytearray, secs: list[Section]) -> None:
    put(rng, raw, 0, rng.choice(EHDR))


def shdr_field(rng: random.Random, raw: bytearray, secs: list[Section]) -> None:
    field = rng.choice(SHDR)
    others = [struct.unpack_from("<" + field[1], raw, sec.pos + field[0])[0] for sec in secs]
    put(rng, raw, rng.choice(secs).pos, field, others)


def phdr_field(rng: random.Random, raw: bytearray, secs: list[Section]) -> None:
    at, n = struct.unpack_from("<Q", raw, 32)[0], struct.unpack_from("<H", raw, 56)[0]
    row = at + 56 * rng.randrange(max(min(n, 16), 1))
    if n and row + 56 <= len(raw):
        put(rng, raw, row, rng.choice(PHDR))


def table_row(rng: random.Random, raw: bytearray, secs: list[Section]) -> None:
    """A field of a symbol or relocation, or a whole row: doubled, exchanged, emptied."""
    table, fields, size = _table(rng, secs)
    if table is None or table.size < size:
        return
    rows = range(table.offset, table.offset + table.size - size + 1, size)
    row, other = rng.choice(rows), rng.choice(rows)
    what = rng.randrange(8)
    if what == 0:
        raw[row : row + size] = raw[other : other + size]
    elif what == 1:
        raw[row : row + size], raw[other : other + size] = raw[other : other + size], raw[row : row + size]
    elif what == 2:
        raw[row : row + size] = bytes(size)
    else:
        field = rng.choice(fields)
        some = [struct.unpack_from("<" + field[1], raw, rng.choice(rows) + field[0])[0] for _ in range(4)]
        put(rng, raw, row, field, some)


def _table(rng: random.Random, secs: list[Section]) -> tuple[Section | None, tuple[Field, ...], int]:
    kinds = {SHT_SYMTAB: (SYM, 24), SHT_RELA: (RELA, 24), SHT_RELR: (WORD64, 8)}
    found = [sec for sec in secs if sec.type in kinds and sec.size]
    if not found:
        return None, (), 0
    table = rng.choice(found)
    return table, *kinds[table.type]


def slot(rng: random.Random, raw: bytearray, secs: list[Section]) -> None:
    """An 8-byte word of data: a record, a pointer, a row of a kernel table."""
    found = [sec for sec in secs if sec.size >= 8 and sec.type == 1 and not sec.flags & SHF_EXECINSTR]
    if found:
        sec = rng.choice(found)
        rows = range(sec.offset, sec.offset + sec.size - 7, 8)
        some = [struct.unpack_from("<Q", raw, rng.choice(rows))[0] for _ in range(4)]
        put(rng, raw, rng.choice(rows), (0, "Q"), some)


def instruction(rng: random.Random, raw: bytearray, secs: list[Section]) -> None:
    """Four bytes of code: an instruction that sites are made of, a bit, or what stands elsewhere."""
    found = [sec for sec in secs if sec.size >= 4 and sec.flags & SHF_EXECINSTR]
    if not found:
        return
    sec = rng.choice(found)
    rows = range(sec.offset, sec.offset + sec.size - 3, 1 if raw[18] == EM_X86_64 else 4)
    at, other = rng.choice(rows), rng.choice(rows)
    word = struct.unpack_from("<I", raw, at)[0]
    new = rng.choice((rng.choice(CODE), word ^ 1 << rng.randrange(32), struct.unpack_from("<I", raw, other)[0]))
    struct.pack_into("<I", raw, at, new)


def string(rng: random.Random, raw: bytearray, secs: list[Section]) -> None:
    """A byte of strings: of names, of .modinfo, of versions."""
    found = [sec for sec in secs if sec.size and sec.type in (1, SHT_STRTAB) and not sec.flags & SHF_EXECINSTR]
    if found:
        sec = rng.choice(found)
        at = sec.offset + rng.randrange(sec.size)
        raw[at] = rng.choice((0, raw[at] ^ 1 << rng.randrange(8), *b"=.,_-\xff", rng.randrange(256)))


def anywhere(rng: random.Random, raw: bytearray, secs: list[Section]) -> None:
    at = rng.randrange(len(raw))
    raw[at] = rng.choice((0, 0xFF, raw[at] ^ 1 << rng.randrange(8)))


def whole_section(rng: random.Random, raw: bytearray, secs: list[Section]) -> None:
    """A section moved to the end, exchanged with another, laid over it, shortened, or emptied."""
    one, other = rng.choice(secs), rng.choice(secs)
    what = rng.randrange(6)
    if what == 0 and len(raw) + one.size < MAX_SIZE:
        raw += bytes(-len(raw) % 8)
        struct.pack_into("<Q", raw, one.pos + 24, len(raw))
        raw += raw[one.offset : one.offset + one.size]
    elif what == 1:  # offset and size, so that both still fit
        here, there = (bytes(raw[sec.pos + 24 : sec.pos + 40]) for sec in (one, other))
        raw[one.pos + 24 : one.pos + 40], raw[other.pos + 24 : other.pos + 40] = there, here
    elif what == 2:
        raw[one.pos : one.pos + 64] = raw[other.pos : other.pos + 64]
    elif what == 3:
        struct.pack_into("<Q", raw, one.pos + 24, max(other.offset + rng.choice((-8, 0, 1, 8)), 0))
    elif what == 4:
        step = {SHT_SYMTAB: 24, SHT_RELA: 24}.get(one.type, 8)
        size = struct.unpack_from("<Q", raw, one.pos + 32)[0]
        struct.pack_into("<Q", raw, one.pos + 32, max(size - step * rng.randrange(1, 4), 0))
    else:
        raw[one.offset : one.offset + one.size] = bytes(one.size)


def file_end(rng: random.Random, raw: bytearray, secs: list[Section]) -> None:
    """A shorter or longer file, or one with something like a signature behind it."""
    what = rng.randrange(3)
    if what == 0:
        del raw[len(raw) - rng.randrange(1, 64) :]
    elif what == 1:
        raw += bytes(rng.randrange(1, 64))
    else:
        sizes = [rng.choice((0, 1, 8, 255)), rng.choice((0, 1, 8, 255)), rng.choice((0, 1, 64, 1 << 31, (1 << 32) - 1))]
        raw += bytes(64) + struct.pack(">BBBBB3xI", 0, 0, 2, *sizes) + b"~Module signature appended~\n"


def note(rng: random.Random, raw: bytearray, secs: list[Section]) -> None:
    """A word of a note: the sizes of its name and content, its type, or its bytes."""
    found = [sec for sec in secs if sec.type == SHT_NOTE and sec.size >= 4]
    if found:
        sec = rng.choice(found)
        put(rng, raw, rng.choice(range(sec.offset, sec.offset + sec.size - 3, 4)), (0, "I"))


Change = Callable[[random.Random, bytearray, list[Section]], None]
CHANGES: tuple[tuple[Change, int], ...] = (
    (ehdr_field, 1), (shdr_field, 5), (phdr_field, 2), (table_row, 28), (slot, 16), (instruction, 20), (string, 16),
    (anywhere, 4), (whole_section, 4), (file_end, 1), (note, 1),
)  # fmt: skip
WEIGHTED = [change for change, weight in CHANGES for _ in range(weight)]


def elf(data: bytes, rng: random.Random) -> bytes:
    """An ELF file with one change, or a few; other bytes with a few changed ones."""
    raw = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 1, 2, 2, 3, 6))):
        if secs := sections(raw):
            rng.choice(WEIGHTED)(rng, raw, secs)
        else:
            return plain(bytes(raw), rng)
    return bytes(raw[:MAX_SIZE])


def notes(data: bytes, rng: random.Random) -> bytes:
    """A file whose notes are changed, nine times of ten."""
    raw = bytearray(data)
    for _ in range(rng.choice((1, 2, 4))):
        if rng.random() < 0.1 or not (secs := sections(raw)):
            return elf(bytes(raw), rng)
        note(rng, raw, secs)
    return bytes(raw)


def inside(prefix: str) -> Callable[[bytes, random.Random], bytes]:
    """A function that changes sections of these names: their words, their LEB128 numbers, their order."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        try:
            secs = [sec for name, sec in named_sections(data).items() if name.startswith(prefix) and sec.size >= 8]
        except (ValueError, IndexError, struct.error):
            secs = []
        if not secs or rng.random() < 0.1:
            return elf(data, rng)
        raw = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 3, 5))):
            _stream(rng, raw, rng.choice(secs))
        return bytes(raw)

    return mutate


def _stream(rng: random.Random, raw: bytearray, sec: Section) -> None:
    """One change to bytes that are read one after the other: the first of them are a header, often."""
    at = sec.offset + rng.randrange(min(sec.size - 7, 32) if rng.random() < 0.4 else sec.size - 7)
    what, end = rng.randrange(7), sec.offset + sec.size
    if what <= 2:
        put(rng, raw, at, (0, "HIQ"[what]))
    elif what == 3:
        put(rng, raw, at, (0, "B"))
    elif what == 4:  # a number that goes on
        n = rng.choice((1, 4, 9, 10, 64))
        raw[at : min(at + n, end)] = (b"\x80" if rng.random() < 0.5 else b"\xff") * (min(at + n, end) - at)
    else:  # a piece from elsewhere
        n = rng.choice((1, 2, 4, 12, 24))
        other = sec.offset + rng.randrange(sec.size)
        piece = bytes(raw[other : min(other + n, end)])[: end - at]
        raw[at : at + len(piece)] = piece


# -- what is not ELF ---------------------------------------------------------------------------------------------------


def plain(data: bytes, rng: random.Random) -> bytes:
    """Bytes with a few changed, added, doubled or left out."""
    raw = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, n = rng.randrange(len(raw) or 1), rng.choice((1, 1, 2, 4, 8, 16))
        what = rng.randrange(6)
        if what == 0 and len(raw) > n:
            del raw[at : at + n]
        elif what == 1:
            raw[at:at] = rng.randbytes(n)
        elif what == 2:
            raw[at:at] = raw[at : at + n]
        elif what == 3:
            raw[at : at + n] = rng.choice(EDGES).to_bytes(8, rng.choice(("little", "big")))[: len(raw[at : at + n])]
        elif raw:
            raw[at % len(raw)] ^= 1 << rng.randrange(8)
    return bytes(raw[:MAX_SIZE])


def document(data: bytes, rng: random.Random) -> bytes:
    """A JSON text with one value changed, one member left out or doubled; or its bytes changed."""
    try:
        found: Any = json.loads(data)
    except (ValueError, RecursionError):
        return plain(data, rng)
    if rng.random() < 0.05 or not isinstance(found, dict):
        return plain(data, rng)
    for _ in range(rng.choice((1, 1, 2))):
        _member(found, rng)
    return json.dumps(found).encode()


def _member(found: Any, rng: random.Random) -> None:
    """Change one value at some depth."""
    while True:
        keys = list(found) if isinstance(found, dict) else list(range(len(found)))
        if not keys:
            return
        deeper = [key for key in keys if isinstance(found[key], dict | list)]
        key = rng.choice(deeper if deeper and rng.random() < 0.7 else keys)
        inner = found[key]
        if not isinstance(inner, dict | list) or rng.random() < 0.05:
            break
        found = inner
    what = rng.randrange(12)
    if what == 0:
        del found[key]
    elif what == 1 and isinstance(found, list):
        found.insert(key, inner)
    elif isinstance(inner, str) and what < 10:
        found[key] = _text(inner, what, rng)
    elif isinstance(inner, int) and what < 10:
        found[key] = inner + rng.choice((-4, -1, 1, 4, 1 << 31, 1 << 64))
    elif what >= 10:
        found[key] = rng.choice((None, True, 0, -1, 1 << 70, 1.5, "", "00", [], {}, [[]]))


def _text(old: str, what: int, rng: random.Random) -> str:
    """Another text: most of those in a journal are hex digits, and stay so."""
    if what < 8 and old:
        at = rng.randrange(len(old))
        return old[:at] + rng.choice("0123456789abcdef") + old[at + 1 :]
    return plain(old.encode(), rng).decode("utf-8", "replace") if what == 8 else old[: -2 * rng.randrange(1, 4)]


def packed(data: bytes, rng: random.Random) -> bytes:
    """A file as it is shipped: its bytes changed, or those that are packed in it, or something put behind it."""
    what = rng.randrange(8)
    if what == 0:
        return (data + rng.choice((b"\0" * 4, b"\0" * 3, b"x", data[:64], data)))[:MAX_SIZE]
    if data[:4] == b"\x7fELF" and what < 7:
        changed = elf(data, rng)
        return changed if rng.random() < 0.8 else rng.choice(PACKERS)[2](changed)
    for magic, unpack, pack in PACKERS if what < 5 else ():
        if data.startswith(magic):
            with contextlib.suppress(OSError, EOFError, ValueError, lzma.LZMAError, zlib.error):
                return pack(elf(unpack(data)[:MAX_SIZE], rng))
    return plain(data, rng)


def _fast_xz(data: bytes) -> bytes:
    return lzma.compress(data, check=lzma.CHECK_CRC32, preset=0)


Packer = tuple[bytes, Callable[[bytes], bytes], Callable[[bytes], bytes]]  # first bytes, unpack, pack
PACKERS: tuple[Packer, ...] = ((b"\x1f\x8b", gzip.decompress, gzip.compress), (b"\xfd7zXZ", lzma.decompress, _fast_xz))
