"""What a patch of a program appends to the file: code of its own, and the tables that make the loader map it.

    first file │ zeros │ program headers, zeros, code │ section names │ zeros │ section headers
               │       └──── a new segment, R E ──────┘               │ to 8  │
               └──────────────────────────── one patch ──────────────────────┘

What the file had stays where it was. The tables of earlier patches stay too, and nothing names them any more; their
segments and sections do stay in use. All of it follows from the addresses of the new segments and the sizes of the code
in them, so it is computed here from the first file, and each byte must be the one that is expected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftpatch.arrays import Rows
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.proof.case import Case

NAME = ".text.ftpatch"
ALIGN_CODE, ALIGN_HEADERS = 16, 8
READ_EXECUTE, PT_PHDR = 5, 6
CODE = t.SHF_ALLOC | t.SHF_EXECINSTR
LOWER_HALF = 1 << 63  # addresses of programs end before
# of the ELF header, which change: byte offsets and bytes
FIELDS = {"e_phoff": (32, 8), "e_shoff": (40, 8), "e_phnum": (56, 2), "e_shnum": (60, 2)}


@dataclass(frozen=True)
class Added:
    """What one patch appended to be executed."""

    va: int  # of the code's first byte
    size: int  # bytes of code
    start: int  # va of the segment that it is in
    pos: int  # file position of the code


class Odd(Exception):
    """What is wrong with what was appended: rule, text, and the file position."""

    def __init__(self, text: str, pos: int, rule: str = "verify-section") -> None:
        super().__init__(text)
        self.rule, self.text, self.pos = rule, text, pos


@dataclass
class _Tables:
    """The tables of the file as each patch leaves them."""

    phdr: Rows
    shdr: Rows
    names: bytes  # content of the section of section names
    end: int  # bytes of the file


def read_added(case: Case) -> tuple[Added, ...] | None:
    """What the patches of a program appended, in the order in which they did; None, with a finding, where that is
    nothing that a patch appends."""
    before, after = case.before.image, case.after.image
    if len(after.data) == len(before.data) and np.array_equal(after.shdr, before.shdr):
        return ()
    for offset, size in FIELDS.values():
        case.account_for("ELF header", [offset], size)
    if taken := _taken_away(before, after):
        case.kinds["segment taken away"] += taken
        return ()
    try:
        added = _read(before, after)
    except Odd as odd:
        case.say(odd.rule, odd.text, pos=odd.pos)
        return None
    case.kinds["new segment"] += len(added)
    return added


def _taken_away(before: Image, after: Image) -> int:
    """How many patches the first file has that the second one, which was restored, has not."""
    try:
        return len(_read(after, before)) if len(after.data) < len(before.data) else 0
    except Odd:
        return 0


def _read(before: Image, after: Image) -> tuple[Added, ...]:
    if len(after.data) < len(before.data):
        raise Odd(f"the file has {len(after.data)} bytes, it had {len(before.data)}", len(after.data), "verify-byte")
    segments, sections = _new_segments(before, after), after.shdr[len(before.shdr) :]
    if len(segments) != len(sections) or not len(segments):
        raise Odd(f"{len(segments)} new segments and {len(sections)} new sections, expected one of each for a patch", 0)
    string_section = int(before.ehdr["e_shstrndx"])
    tables = _Tables(before.phdr, before.shdr, before.content(string_section).tobytes(), len(before.data))
    added = []
    for number, (segment, section) in enumerate(zip(segments, sections, strict=True)):
        name = after.names[len(before.shdr) + number]
        if name != NAME:
            raise Odd(f"new section {len(before.shdr) + number} is called {name}, expected {NAME}", 0)
        _check_segment(segment, tables)
        added.append(_check_patch(after, segment, section, tables, string_section))
    if tables.end != len(after.data):
        raise Odd(f"{len(after.data) - tables.end} bytes at the end, from {tables.end:#x} on, belong to no patch",
                  tables.end, "verify-byte")  # fmt: skip
    _check_header(after, tables, int(segments["p_offset"][-1]))
    return tuple(added)


def _new_segments(before: Image, after: Image) -> Rows:
    """The rows behind the last PT_LOAD that the first file had."""
    loads = np.flatnonzero(before.phdr["p_type"] == t.PT_LOAD)
    n = len(after.phdr) - len(before.phdr)
    if not len(loads):
        raise Odd("the first file has no segment that is loaded", 0)
    return after.phdr[loads[-1] + 1 : loads[-1] + 1 + max(n, 0)]


def _check_segment(segment: Rows, tables: _Tables) -> None:
    """A new segment is read and executed, and lies behind all others, on pages of its own."""
    loads = tables.phdr[tables.phdr["p_type"] == t.PT_LOAD]
    pos, va, paddr, size, memory, align = (
        int(segment[field]) for field in ("p_offset", "p_vaddr", "p_paddr", "p_filesz", "p_memsz", "p_align")
    )
    kind, flags, biggest = int(segment["p_type"]), int(segment["p_flags"]), max(int(loads["p_align"].max()), 1)
    page = biggest if biggest & biggest - 1 == 0 else 1
    behind = max(-(-int(row["p_vaddr"] + row["p_memsz"]) // page) * page for row in loads)
    distance = int(loads["p_vaddr"][0]) - int(loads["p_offset"][0])
    for wrong, text in (
        (kind != t.PT_LOAD, f"has type {kind}, expected 1 (PT_LOAD)"),
        (flags != READ_EXECUTE, f"has flags {flags:#x}, expected {READ_EXECUTE:#x} (R E)"),
        (size != memory, f"has {size:#x} bytes in the file and {memory:#x} in memory, expected as many"),
        (paddr != va, f"has p_paddr {paddr:#x}, expected p_vaddr {va:#x}"),
        (align != biggest, f"has p_align {align:#x}, expected that of the others, {biggest:#x}"),
        (va < behind, f"is at {va:#x}, expected {behind:#x} at the least, behind the pages of all others"),
        (va + memory > LOWER_HALF, f"ends at {va + memory:#x}, where no program can be"),
        (va - pos != distance, f"is loaded {va - pos:#x} from its place in the file, expected {distance:#x} as the "
                               "first is: older kernels find the program headers so"),
        (pos < tables.end, f"is at file position {pos:#x}, expected {tables.end:#x} at the least"),
    ):  # fmt: skip
        if wrong:
            raise Odd(f"the new segment {text}", pos)


def _check_patch(image: Image, segment: Rows, section: Rows, tables: _Tables, string_section: int) -> Added:
    """One patch, whose segment and section are given: all bytes from the end of the file before it to its own end."""
    start, size, va = (int(segment[field]) for field in ("p_offset", "p_filesz", "p_vaddr"))
    phdr = _with_segment(tables.phdr, segment)
    code = int(section["sh_offset"])
    first = -(-(start + phdr.nbytes) // ALIGN_CODE) * ALIGN_CODE
    expected = np.zeros(1, t.SHDR)[0]
    expected["sh_name"], expected["sh_type"], expected["sh_flags"] = section["sh_name"], t.SHT_PROGBITS, CODE
    expected["sh_addr"], expected["sh_offset"], expected["sh_size"] = va + first - start, first, start + size - first
    expected["sh_addralign"] = ALIGN_CODE
    if section != expected or start + size <= first:
        raise Odd(f"the header of {NAME} is not that of all code in its segment: address {int(section['sh_addr']):#x}, "
                  f"file position {code:#x}, {int(section['sh_size']):#x} bytes", code)  # fmt: skip
    _require(image, tables.end, bytes(start - tables.end), "the bytes in front of the new segment", "verify-byte")
    _require(image, start, phdr.tobytes(), "the program headers", "verify-section")
    behind = start + phdr.nbytes
    _require(image, behind, bytes(first - behind), "the bytes in front of the new code", "verify-byte")
    end = start + size
    for names in (tables.names + NAME.encode() + b"\0", tables.names):
        shdr = np.append(tables.shdr, section)
        shdr["sh_offset"][string_section], shdr["sh_size"][string_section] = end, len(names)
        headers = -(-(end + len(names)) // ALIGN_HEADERS) * ALIGN_HEADERS
        if image.data[headers : headers + shdr.nbytes].tobytes() == shdr.tobytes():
            break
    else:
        raise Odd(f"the section headers behind {end:#x} are not those that there were, with {NAME} behind them", end)
    _require(image, end, names, "the section names", "verify-section")
    _require(image, end + len(names), bytes(headers - end - len(names)), "the bytes in front of the section headers",
             "verify-byte")  # fmt: skip
    tables.phdr, tables.shdr, tables.names, tables.end = phdr, shdr, names, headers + shdr.nbytes
    return Added(int(section["sh_addr"]), int(section["sh_size"]), va, first)


def _with_segment(old: Rows, segment: Rows) -> Rows:
    """Program headers with a new segment behind the last that is loaded, at the start of which they are."""
    at = int(np.flatnonzero(old["p_type"] == t.PT_LOAD)[-1]) + 1
    rows: Rows = np.concatenate([old[:at], np.atleast_1d(segment), old[at:]])
    for field in ("p_offset", "p_vaddr", "p_paddr"):
        rows[field][rows["p_type"] == PT_PHDR] = segment[field]
    for field in ("p_filesz", "p_memsz"):
        rows[field][rows["p_type"] == PT_PHDR] = rows.nbytes
    return rows


def _require(image: Image, pos: int, expected: bytes, what: str, rule: str) -> None:
    """Raise Odd where the file has other bytes."""
    content = image.data[pos : pos + len(expected)].tobytes()
    if content == expected:
        return
    at = next((at for at, (one, other) in enumerate(zip(content, expected, strict=False)) if one != other),
              min(len(content), len(expected)))  # fmt: skip
    found, wanted = content[at : at + 8].hex() or "nothing", expected[at : at + 8].hex()
    raise Odd(f"{what} are not what a patch leaves at file position {pos + at:#x}: found {found}, expected {wanted}",
              pos + at, rule)  # fmt: skip


def _check_header(after: Image, tables: _Tables, phoff: int) -> None:
    """The ELF header names the tables of the last patch."""
    for name, expected in (
        ("e_phoff", phoff), ("e_phnum", len(tables.phdr)), ("e_shoff", tables.end - tables.shdr.nbytes),
        ("e_shnum", len(tables.shdr)),
    ):  # fmt: skip
        if int(after.ehdr[name]) != expected:
            raise Odd(f"{name} is {int(after.ehdr[name]):#x}, expected {expected:#x}", FIELDS[name][0])
