"""The debug sections of an image, as a linker would leave them: unpacked, and in modules relocated.

    .debug_info of a module ─ SHF_COMPRESSED? unpack ─ .rela.debug_info: write S + A ─> what a debugger reads

A compressed section may not unpack to more than MAX_RATIO times its size: a file of some kilobytes can claim gigabytes.
Source: System V gABI, chapter 4 (section compression).
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from ftpatch.arrays import U8, U64, Rows
from ftpatch.container.envelope import MAX_SIZE
from ftpatch.container.file_bytes import FileBytes
from ftpatch.container.wrappings import DICTIONARIES, zstandard_package
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError

MAX_RATIO = 100  # zlib reaches 1,032; debug sections of kernels are packed three to six times
ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD = 1, 2
GNU_HEAD = 12  # bytes in front of the stream of a .zdebug section
CHDR = struct.Struct("<IIQQ")  # ch_type, ch_reserved, ch_size, ch_addralign
NOTHING = FileBytes.of(b"")
DWARF64 = 0xFFFF_FFFF  # in place of a length: an eight-byte length follows, and offsets have eight bytes

# Sections that pyelftools gets, by its own names for them. Those not named here hold nothing that is asked for.
SECTIONS = ("debug_info", "debug_abbrev", "debug_str", "debug_line", "debug_line_str", "debug_aranges", "debug_ranges",
            "debug_rnglists", "debug_addr", "debug_str_offsets")  # fmt: skip
# Those that pyelftools wants to hear of and nobody reads; before 0.32 it does not take the last.
OTHERS = ("debug_frame", "eh_frame", "debug_loc", "debug_pubtypes", "debug_pubnames", "debug_loclists", "debug_sup",
          "gnu_debugaltlink", "debug_types")  # fmt: skip
PARSED = ("debug_abbrev", "debug_line", "debug_aranges", "debug_ranges", "debug_rnglists")


def section_content(image: Image, name: str) -> FileBytes:
    """Bytes of a debug section as a linker would leave them; none where there is no such section."""
    sections = image.sections_named(name, f".z{name[1:]}")
    # In a group are those of types (-fdebug-types-section), which a linker keeps once.
    sections.sort(key=lambda sec: int(image.shdr["sh_flags"][sec]) & t.SHF_GROUP)
    for sec in sections[:1]:
        content = image.part(sec)
        if int(image.shdr["sh_flags"][sec]) & t.SHF_COMPRESSED:
            content = FileBytes.of(_unpacked(content[:]))
        elif image.names[sec].startswith(".z"):  # as binutils wrote them before the gABI had a flag
            content = FileBytes.of(_unpacked_gnu(content[:]))
        return content if image.linked else FileBytes.of(_relocated(image, sec, content[:]))
    return NOTHING


def extent(info: FileBytes, pos: int) -> tuple[int, int]:
    """Where the unit at `pos` ends, and where its version stands."""
    head = info.peek(pos, pos + 12)
    length = struct.unpack_from("<I", head)[0]
    if length < 0xFFFF_FFF0:
        return pos + 4 + length, pos + 4
    return (pos + 12 + struct.unpack_from("<Q", head, 4)[0], pos + 12) if length == DWARF64 else (0, 0)


def _unpacked(packed: U8) -> U8:
    """The content of an SHF_COMPRESSED section."""
    kind, _, size, _ = CHDR.unpack_from(packed.data)
    body = packed[CHDR.size :].data
    if size > min(MAX_SIZE, MAX_RATIO * len(packed)):
        raise ElfError("a debug section claims to unpack to too much", found=f"{size} bytes from {len(packed)}")
    plain, errors = b"", zlib.error
    try:
        if kind == ELFCOMPRESS_ZLIB and size:
            plain = zlib.decompressobj().decompress(body, size)
        elif kind == ELFCOMPRESS_ZSTD:
            zstandard = zstandard_package("a debug section")
            errors = zstandard.ZstdError
            plain = zstandard.ZstdDecompressor(max_window_size=DICTIONARIES).stream_reader(body).read(size)
    except errors as error:
        raise ElfError("a debug section cannot be unpacked", found=str(error)) from None
    if len(plain) != size:
        raise ElfError("a debug section cannot be unpacked", found=f"ch_type {kind}")
    return np.frombuffer(plain, np.uint8)


def _unpacked_gnu(packed: U8) -> U8:
    """The content of a .zdebug section: `ZLIB`, the size as eight bytes in big-endian order, and the stream."""
    head = packed[:GNU_HEAD].tobytes()
    if len(head) < GNU_HEAD or head[:4] != b"ZLIB":
        raise ElfError("a debug section cannot be unpacked", found="no ZLIB in front")
    header = CHDR.pack(ELFCOMPRESS_ZLIB, 0, int.from_bytes(head[4:], "big"), 1)
    return _unpacked(np.concatenate([np.frombuffer(header, np.uint8), packed[GNU_HEAD:]]))


def _relocated(image: Image, sec: int, content: U8) -> U8:
    """A debug section with its relocations applied: addresses as in Image.base, debug sections from 0 on.

    pyelftools does that, too, but one relocation at a time: a large module has millions. A section with a relocation
    that is of an unknown type, or outside it, is refused: it would be read with holes.
    """
    data = content.copy()
    targets = image.shdr["sh_info"] == sec
    if (targets & (image.shdr["sh_type"] == t.SHT_REL)).any():
        raise ElfError("relocations without addends", found=f"SHT_REL for {image.names[sec]}", expected="SHT_RELA")
    for table in np.flatnonzero(targets & (image.shdr["sh_type"] == t.SHT_RELA)).tolist():
        rows = image.rows(table, t.RELA)
        value, kind, pos = _values(image, rows), rows["r_info"] & np.uint64(0xFFFF_FFFF), rows["r_offset"]
        known = np.isin(kind, np.array([image.arch.none, *image.arch.tls], dtype=np.uint64))
        octets = np.ascontiguousarray(value.astype("<u8")).view(np.uint8).reshape(-1, 8)
        for size, wanted in ((8, image.arch.abs64), (4, image.arch.abs32)):
            mask = kind == np.uint64(wanted)
            known |= mask
            outside = mask & ((pos > np.uint64(len(data))) | (np.uint64(len(data)) - pos < np.uint64(size)))
            if outside.any():
                raise ElfError("a relocation is outside its section", found=f"{image.names[sec]}+{pos[outside][0]:#x}",
                               expected=f"less than {len(data):#x}")  # fmt: skip
            data[pos[mask].astype(np.int64)[:, None] + np.arange(size)] = octets[mask, :size]
        if not known.all():
            raise ElfError("a relocation of an unknown type", found=f"type {kind[~known][0]} in {image.names[sec]}")
    return data


def _values(image: Image, rows: Rows) -> U64:
    """S + A of each relocation."""
    symbols, alloc = image.symbols, image.shdr["sh_flags"] & t.SHF_ALLOC != 0
    base = np.where(alloc, image.base, np.uint64(0))
    symbol = (rows["r_info"] >> np.uint64(32)).astype(np.int64)
    if len(symbol) and int(symbol.max()) >= len(symbols.rows):
        raise ElfError("a relocation names no symbol of this file", image.path, found=f"symbol {symbol.max()}")
    shndx = symbols.shndx[symbol]
    start = np.where(shndx >= 0, base[np.maximum(shndx, 0)], np.uint64(0))
    return np.asarray(start + symbols.rows["st_value"][symbol] + rows["r_addend"].view(np.uint64))
