"""Hostile debug information: every case is answered with "not known", in bounded time and memory."""

from __future__ import annotations

import resource
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf import debug_names
from ftpatch.elf.debug_info import attempt
from ftpatch.elf.debug_lines import source_lines
from ftpatch.elf.debug_stream import Steps, Stream
from ftpatch.elf.image import Image
from ftpatch.elf.tables import SHF_COMPRESSED
from ftpatch.recovered.image import open_image

DWARF = Path(__file__).parent.parent / "testdata" / "dwarf"
SECONDS, BYTES = 8.0, 512 << 20  # processor time and memory of one case; the longest takes a fifth of either

NAME, STMT_LIST, LOW_PC, HIGH_PC, RANGES, COMP_DIR, SIBLING, ORIGIN = 0x03, 0x10, 0x11, 0x12, 0x55, 0x1B, 0x01, 0x31
ADDR, STRING, STRP, DATA8, OFFSET, REF4, INDIRECT, IMPLICIT = 0x01, 0x08, 0x0E, 0x07, 0x17, 0x13, 0x16, 0x21
TAG_UNIT, TAG_FUNCTION, TAG_INLINED = 0x11, 0x2E, 0x1D
ENDLESS = b"\x80" * (1 << 20)  # a LEB128 number that never ends


def declaration(code: int, tag: int, *attributes: tuple[int, int], children: int = 1) -> bytes:
    """One abbreviation; its numbers are below 128."""
    return bytes([code, tag, children]) + b"".join(bytes(one) for one in attributes) + b"\0\0"


def unit(entries: bytes, version: int = 4, length: int | None = None, abbrevs: int = 0) -> bytes:
    head = struct.pack("<HIB", version, abbrevs, 8) if version < 5 else struct.pack("<HBBI", version, 1, 8, abbrevs)
    return struct.pack("<I", len(head + entries) if length is None else length) + head + entries


def line_program(program: bytes, version: int = 4, line_range: int = 14, opcode_base: int = 13) -> bytes:
    """A line program of one file; of version 5 if the program brings its tables along."""
    head = bytes([1, 1, 1, 0xFB, line_range, opcode_base]) + bytes(max(opcode_base - 1, 0))
    tables = b"\0one.c\0\0\0\0\0" if version < 5 else b""
    sizes = b"" if version < 5 else b"\x08\0"
    body = struct.pack("<H", version) + sizes + struct.pack("<I", len(head + tables)) + head + tables + program
    return struct.pack("<I", len(body)) + body


def compressed(kind: int, claim: int, body: bytes) -> bytes:
    return struct.pack("<IIQQ", kind, 0, claim, 1) + body


SET_ADDRESS = b"\0\x09\x02" + struct.pack("<Q", 0x400000)
ROOT = declaration(1, TAG_UNIT, (LOW_PC, ADDR), (HIGH_PC, DATA8), (STMT_LIST, OFFSET))
WHOLE = b"\x01" + struct.pack("<QQI", 0x400000, 0x10000, 0)  # an entry of ROOT that covers every function
RANGED = declaration(1, TAG_UNIT, (LOW_PC, ADDR), (RANGES, OFFSET), (STMT_LIST, OFFSET))
SOUND = {
    ".debug_abbrev": ROOT + b"\0",
    ".debug_info": unit(WHOLE),
    ".debug_line": line_program(SET_ADDRESS + b"\x01" * 9),
}

# What is wrong → the sections that differ from SOUND.
HOSTILE: dict[str, dict[str, bytes]] = {
    "no abbreviations": {".debug_abbrev": b""},
    "abbreviations without end": {".debug_abbrev": declaration(2, 0x34, (NAME, STRP)) * 200_000},
    "a declaration without end": {".debug_abbrev": b"\x01\x11\x01" + b"\x03\x08" * 1_000_000},
    "an abbreviation of half a million constants": {
        ".debug_abbrev": b"\x01\x11\x01" + bytes([NAME, IMPLICIT, 1]) * 500_000 + b"\0\0\0"
    },
    "an abbreviation's number without end": {".debug_abbrev": ENDLESS},
    "an entry's number without end": {".debug_info": unit(ENDLESS)},
    "an unknown form": {".debug_abbrev": declaration(1, TAG_UNIT, (LOW_PC, 0x7E)) + b"\0"},
    "an indirect form that leads to itself": {
        ".debug_abbrev": declaration(1, TAG_UNIT, (LOW_PC, INDIRECT)) + b"\0",
        ".debug_info": unit(b"\x01" + bytes([INDIRECT]) * 1_000_000),
    },
    "a unit of length 0": {".debug_info": unit(WHOLE, length=0)},
    "a unit that is longer than the section": {".debug_info": unit(WHOLE, length=0x7FFF_FFFF)},
    "a unit of a reserved length": {".debug_info": unit(WHOLE, length=0xFFFF_FFF5)},
    "a 64-bit unit of 2**63 bytes": {".debug_info": struct.pack("<IQ", 0xFFFF_FFFF, 1 << 63) + unit(WHOLE)[4:]},
    "a unit of version 1": {".debug_info": unit(WHOLE, version=1)},
    "a unit of version 6": {".debug_info": unit(WHOLE, version=6)},
    "each unit of another version": {".debug_info": b"".join(unit(WHOLE, version=n) for n in range(6, 20_000))},
    "a million units": {".debug_info": unit(b"\x01") * 1_000_000},
    "every unit has a table of a megabyte": {
        ".debug_info": b"".join(unit(b"\x05" + bytes(20), abbrevs=n) for n in range(1000)),
        ".debug_abbrev": declaration(2, 0x34, (NAME, STRP)) * 150_000,
    },
    "a file name without end": {
        ".debug_abbrev": declaration(1, TAG_UNIT, (COMP_DIR, STRP), (LOW_PC, ADDR), (HIGH_PC, DATA8)) + b"\0",
        ".debug_info": unit(b"\x01" + bytes(4) + WHOLE[1:17]),
        ".debug_str": b"a" * (8 << 20),
    },
    "a string in place without end": {
        ".debug_abbrev": declaration(1, TAG_UNIT, (COMP_DIR, STRING)) + b"\0",
        ".debug_info": unit(b"\x01" + b"a" * (1 << 20)),
    },
    "a range list without end": {
        ".debug_abbrev": RANGED + b"\0",
        ".debug_info": unit(b"\x01" + struct.pack("<QII", 0, 0, 0)),
        ".debug_ranges": b"\x01" * (1 << 20),
    },
    "a list of base addresses without end": {
        ".debug_abbrev": RANGED + b"\0",
        ".debug_info": unit(b"\x01" + struct.pack("<QII", 0, 0, 0), version=5),
        ".debug_rnglists": b"\x05" * (1 << 20),
    },
    "a line program beyond the section": {".debug_line": b"\xff\xff\xff\x7f" + line_program(b"\x01")[4:]},
    "a line program of version 9": {".debug_line": line_program(b"\x01", version=9)},
    "a line program of four megabytes": {".debug_line": line_program(SET_ADDRESS + b"\x01" * (4 << 20))},
    "a line program of many rows, and cut": {
        ".debug_line": line_program(SET_ADDRESS + b"\x01" * 300_000 + b"\x02" + b"\x80" * 10)
    },
    "a line program that divides by 0": {".debug_line": line_program(SET_ADDRESS + b"\xff", line_range=0)},
    "a line program without opcodes": {".debug_line": line_program(SET_ADDRESS + b"\xff", opcode_base=0)},
    "an address advance without end": {".debug_line": line_program(SET_ADDRESS + b"\x02" + ENDLESS[: 1 << 19])},
    "a line advance without end": {".debug_line": line_program(SET_ADDRESS + b"\x03" + ENDLESS[: 1 << 19])},
    "extended opcodes of no length": {".debug_line": line_program(SET_ADDRESS + b"\0\0\x70" * 100_000)},
    "an extended opcode of 2**62 bytes": {".debug_line": line_program(b"\0" + b"\xff" * 8 + b"\x7f\x70")},
    "2**63 directories without fields": {
        ".debug_line": line_program(b"\0" + b"\x80" * 9 + b"\x01" + b"\0\0", version=5),
    },
    "2**63 files without fields": {
        ".debug_line": line_program(b"\x01\x01\x08\x01/\0" + b"\0" + b"\x80" * 9 + b"\x01", version=5),
    },
    "2**63 files of a field that takes no bytes": {
        ".debug_line": line_program(b"\x01\x01\x08\x01/\0" + b"\x01\x01\x19" + b"\x80" * 9 + b"\x01", version=5),
    },
    "line numbers without measure": {
        ".debug_line": line_program(SET_ADDRESS + b"\x03" + b"\xff" * 60 + b"\x3f\x01\x01")
    },
}  # fmt: skip

# What is wrong in .debug_aranges → its bytes: the units themselves tell their ranges.
HOSTILE_ARANGES = {
    "without end": struct.pack("<IHIBB", 1 << 30, 2, 0, 8, 0) + b"\x01" * (1 << 20),
    "sets within each other": struct.pack("<IHIBBI", 12, 2, 0, 8, 0, 0xFFFF_FFFF) * 50_000,
    "four gigabytes": struct.pack("<IHIBBI", 0xFFFF_FFEF, 2, 0, 8, 0, 0),
    "segments": struct.pack("<IHIBBI", 12, 2, 0, 8, 4, 0),
    "addresses of two bytes": struct.pack("<IHIBBI", 12, 2, 0, 2, 0, 0),
    "a unit that is not there": struct.pack("<IHIBBIQQQQ", 44, 2, 0x7FFF_FFFF, 8, 0, 0, 0x400000, 0x10000, 0, 0),
}

COMPRESSED = {
    "zlib that claims two gigabytes": compressed(1, 2 << 30, zlib.compress(bytes(1 << 20))),
    "zlib that holds a thousand times its size": compressed(1, 64 << 20, zlib.compress(bytes(64 << 20), 9)),
    "zlib that is damaged": compressed(1, 100, b"\0" * 100),
    "zlib that is shorter than it claims": compressed(1, 4096, zlib.compress(bytes(100))),
    "zstd that claims two gigabytes": compressed(2, 2 << 30, zstandard.ZstdCompressor().compress(bytes(1 << 20))),
    "zstd that is damaged": compressed(2, 100, b"\0" * 100),
    "an unknown compression": compressed(9, 100, b"\0" * 100),
    "no compression header": b"\x01",
}


def image_with(sections: dict[str, bytes], flags: int = 0) -> Image:
    """testdata/dwarf/gcc5 with other debug sections: these and no more. flags: of all of them."""
    image = open_image(str(DWARF / "gcc5"))
    shdr, names, data = image.shdr.copy(), list(image.names), image.data.tobytes()
    free = [sec for sec, name in enumerate(names) if name.startswith(".debug")]
    free += [sec for sec, name in enumerate(names) if name in (".comment", ".ARM.attributes")]
    for sec in free:
        names[sec] = f"unused{sec}"
    for sec, (name, content) in zip(free, sections.items(), strict=False):
        names[sec] = name
        shdr["sh_offset"][sec], shdr["sh_size"][sec], shdr["sh_flags"][sec] = len(data), len(content), flags
        data += content
    assert len(sections) <= len(free)
    octets = FileBytes.of(data)
    return replace(image, data=octets, raw=octets, shdr=shdr, names=tuple(names))


@contextmanager
def bounded() -> Iterator[None]:
    """Fails what takes more than SECONDS of processor time, or more than BYTES of memory beside what is in use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES, hard))
    began = time.process_time()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert time.process_time() - began < SECONDS


def test_what_the_hostile_cases_start_from_is_sound() -> None:
    image = image_with(SOUND)
    assert source_lines(image, [0x400000]) == ["one.c:1"]


@pytest.mark.parametrize("sections", HOSTILE.values(), ids=HOSTILE)
def test_hostile_debug_information_has_no_line_and_no_name(sections: dict[str, bytes]) -> None:
    image = image_with(SOUND | {".debug_str": b"one\0"} | sections)
    with bounded():
        assert source_lines(image, image.functions.va.tolist()) == [None] * len(image.functions.va)
    with bounded():
        assert debug_names.find(image, "one").functions == ()


@pytest.mark.parametrize("content", HOSTILE_ARANGES.values(), ids=HOSTILE_ARANGES)
def test_hostile_address_ranges_give_way_to_those_of_the_units(content: bytes) -> None:
    image = image_with(SOUND | {".debug_aranges": content})
    with bounded():
        assert source_lines(image, [0x400000]) == ["one.c:1"]


@pytest.mark.parametrize("content", COMPRESSED.values(), ids=COMPRESSED)
@pytest.mark.parametrize("name", [".debug_info", ".debug_line", ".debug_str"])
def test_hostile_compressed_sections_are_as_if_not_there(name: str, content: bytes) -> None:
    sections = {name: compressed(1, len(plain), zlib.compress(plain)) for name, plain in SOUND.items()}
    sections[".debug_str"] = compressed(1, 4, zlib.compress(b"one\0"))
    image = image_with(sections | {name: content}, SHF_COMPRESSED)
    expected = ["one.c:1"] if name == ".debug_str" else [None]
    with bounded():
        assert source_lines(image, [0x400000]) == expected
    with bounded():
        assert debug_names.find(image, "one").functions == ()


def test_compressed_sections_are_read() -> None:
    """What the hostile ones start from."""
    sections = {name: compressed(1, len(plain), zlib.compress(plain)) for name, plain in SOUND.items()}
    assert source_lines(image_with(sections, SHF_COMPRESSED), [0x400000]) == ["one.c:1"]


def test_entries_that_refer_to_themselves_are_counted_once() -> None:
    """A function that is its own inlined copy, its own sibling and its own parent: nothing is followed."""
    abbrevs = (
        declaration(1, TAG_UNIT, (NAME, STRING))
        + declaration(2, TAG_FUNCTION, (NAME, STRP), (SIBLING, REF4), (ORIGIN, REF4), (0x20, 0x0B), (0x3B, 0x0B))
        + declaration(3, TAG_INLINED, (ORIGIN, REF4), (SIBLING, REF4))
        + b"\0"
    )
    at = struct.pack("<I", 14)  # behind the unit's header and its first entry
    entries = b"\x01a\0" + b"\x02" + bytes(4) + at + at + b"\x01\x07" + (b"\x03" + at + at) * 3
    image = image_with(SOUND | {".debug_abbrev": abbrevs, ".debug_info": unit(entries), ".debug_str": b"one\0"})
    with bounded():
        found = debug_names.find(image, "one")
    assert found == debug_names.DebugMention("", True, (debug_names.Subprogram(True, 3, 7),))


def test_references_to_a_name_without_measure_are_bounded() -> None:
    """A section that is nothing but references to the name, in one unit of four megabytes."""
    abbrevs = ROOT + declaration(2, TAG_FUNCTION, (NAME, STRP), (0x20, 0x0B)) + b"\0"
    entries = WHOLE + (b"\x02" + struct.pack("<I", 1) + b"\x01") * 700_000
    image = image_with(SOUND | {".debug_abbrev": abbrevs, ".debug_info": unit(entries), ".debug_str": b"\0one\0"})
    with bounded():
        assert debug_names.find(image, "one").mentioned


def test_zeros_that_look_like_references_are_bounded() -> None:
    """Thirty megabytes of zeros were thirty million references to the string at 0, and took 1.3 GB."""
    image = image_with(SOUND | {".debug_info": unit(WHOLE + bytes(30 << 20)), ".debug_str": b"one\0"})
    with bounded():
        assert debug_names.find(image, "one").functions == ()


def test_a_step_too_many_is_refused() -> None:
    steps = Steps(2)
    stream = Stream(FileBytes.of(b"abc"), steps)
    assert (stream.read(2), stream.tell()) == (b"ab", 2)
    assert attempt(lambda: stream.read(1), b"refused") == b"refused"
