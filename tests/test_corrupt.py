"""Files that contradict themselves: every one gets an answer or a refusal in one line, never a crash and never an OUT.

Each case is a good fixture with a few bytes changed. The editor below knows ELF by offsets of its own and shares
nothing with the program. Every case is scanned, and the kernels among them are patched too, under a limit of memory
and time.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from ftpatch.cli import run

ROOT = Path(__file__).parents[1]
MINI = ROOT / "testdata" / "mini"
MINI_PPC = ROOT / "testdata" / "mini-ppc64le"
MASK64 = (1 << 64) - 1
SECONDS = 10  # of one command on a file of 20 KiB; a healthy one takes a few milliseconds
PEAK = 32 << 20  # bytes that one command may allocate for a file of 20 KiB
SPACE = 1536 << 20  # address space of the commands that meet a huge file

CALLOPS, PFE2, EXEC, MODULE, OBJECT, PROGRAM = (
    "vmlinux-callops", "vmlinux-pfe2", "vmlinux-exec", "mini.ko", "pfe2.o", "program",
)  # fmt: skip
OOL, FAR = "vmlinux-ool", "vmlinux-far"  # of ppc64le
KERNELS = (CALLOPS, PFE2, EXEC, OOL, FAR)

Layout = dict[str, tuple[int, str]]
EHDR: Layout = {
    "ei_mag0": (0, "B"), "ei_mag3": (3, "B"), "ei_class": (4, "B"), "ei_data": (5, "B"), "ei_version": (6, "B"),
    "ei_osabi": (7, "B"), "ei_pad": (15, "B"), "e_type": (16, "H"), "e_machine": (18, "H"), "e_version": (20, "I"),
    "e_entry": (24, "Q"), "e_phoff": (32, "Q"), "e_shoff": (40, "Q"), "e_flags": (48, "I"), "e_ehsize": (52, "H"),
    "e_phentsize": (54, "H"), "e_phnum": (56, "H"), "e_shentsize": (58, "H"), "e_shnum": (60, "H"),
    "e_shstrndx": (62, "H"),
}  # fmt: skip
SHDR: Layout = {
    "sh_name": (0, "I"), "sh_type": (4, "I"), "sh_flags": (8, "Q"), "sh_addr": (16, "Q"), "sh_offset": (24, "Q"),
    "sh_size": (32, "Q"), "sh_link": (40, "I"), "sh_info": (44, "I"), "sh_addralign": (48, "Q"),
    "sh_entsize": (56, "Q"),
}  # fmt: skip
PHDR: Layout = {
    "p_type": (0, "I"), "p_flags": (4, "I"), "p_offset": (8, "Q"), "p_vaddr": (16, "Q"), "p_paddr": (24, "Q"),
    "p_filesz": (32, "Q"), "p_memsz": (40, "Q"), "p_align": (48, "Q"),
}  # fmt: skip
SYM: Layout = {
    "st_name": (0, "I"), "st_info": (4, "B"), "st_other": (5, "B"), "st_shndx": (6, "H"), "st_value": (8, "Q"),
    "st_size": (16, "Q"),
}  # fmt: skip
RELA: Layout = {"r_offset": (0, "Q"), "r_info": (8, "Q"), "r_addend": (16, "Q")}
WORD: Layout = {"word": (0, "Q")}
SHDR_SIZE, PHDR_SIZE, SYM_SIZE, RELA_SIZE = 64, 56, 24, 24
SHT_RELA, SHT_NOTE, SHT_NOBITS, SHT_RELR, ALLOC = 4, 7, 8, 19, 2
RELATIVE, ABS64 = 1027, 257


class Elf:
    """The bytes of a fixture and where its tables are; every change is one field."""

    def __init__(self, name: str) -> None:
        self.raw: bytearray = bytearray(original(name))

    # -- one field ---------------------------------------------------------------------------------------------

    def get(self, layout: Layout, at: int, field: str) -> int:
        offset, kind = layout[field]
        return int(struct.unpack_from("<" + kind, self.raw, at + offset)[0])

    def put(self, layout: Layout, at: int, field: str, value: int) -> Elf:
        offset, kind = layout[field]
        struct.pack_into("<" + kind, self.raw, at + offset, value & ((1 << 8 * struct.calcsize(kind)) - 1))
        return self

    def ehdr(self, **fields: int) -> Elf:
        for field, value in fields.items():
            self.put(EHDR, 0, field, value)
        return self

    # -- where things are --------------------------------------------------------------------------------------

    def n_sections(self) -> int:
        return self.get(EHDR, 0, "e_shnum")

    def header(self, index: int) -> int:
        return self.get(EHDR, 0, "e_shoff") + SHDR_SIZE * index

    def names(self) -> list[str]:
        table = self.get(SHDR, self.header(self.get(EHDR, 0, "e_shstrndx")), "sh_offset")
        starts = [table + self.get(SHDR, self.header(index), "sh_name") for index in range(self.n_sections())]
        return [self.raw[start : self.raw.index(0, start)].decode() for start in starts]

    def sec(self, name: str) -> int:
        return self.names().index(name)

    def of_sec(self, name: str, field: str) -> int:
        return self.get(SHDR, self.header(self.sec(name)), field)

    def sh(self, section: str, **fields: int) -> Elf:
        at = self.header(self.sec(section))
        for field, value in fields.items():
            self.put(SHDR, at, field, value)
        return self

    def symbols(self) -> range:
        """File positions of the symbols' rows."""
        first, size = self.of_sec(".symtab", "sh_offset"), self.of_sec(".symtab", "sh_size")
        return range(first, first + size, SYM_SIZE)

    def symbol(self, name: str) -> int:
        """File position of the symbol's row."""
        strings = self.of_sec(".strtab", "sh_offset")
        for at in self.symbols():
            start = strings + self.get(SYM, at, "st_name")
            if self.raw[start : start + len(name) + 1] == name.encode() + b"\0":
                return at
        raise KeyError(name)

    def sym(self, symbol: str, **fields: int) -> Elf:
        at = self.symbol(symbol)
        for field, value in fields.items():
            self.put(SYM, at, field, value)
        return self

    def value(self, symbol: str) -> int:
        return self.get(SYM, self.symbol(symbol), "st_value")

    def pos(self, va: int) -> int:
        for index in range(self.n_sections()):
            at = self.header(index)
            first, size = self.get(SHDR, at, "sh_addr"), self.get(SHDR, at, "sh_size")
            if self.get(SHDR, at, "sh_flags") & ALLOC and first <= va < first + size:
                return self.get(SHDR, at, "sh_offset") + va - first
        raise KeyError(hex(va))

    def slot(self, n: int) -> int:
        """File position of slot n of a kernel's record table."""
        return self.pos(self.value("__start_mcount_loc")) + 8 * n

    def rela(self, section: str, n: int, **fields: int) -> Elf:
        for field, value in fields.items():
            self.put(RELA, self.of_sec(section, "sh_offset") + RELA_SIZE * n, field, value)
        return self

    def relocation(self, section: str, n: int, field: str) -> int:
        return self.get(RELA, self.of_sec(section, "sh_offset") + RELA_SIZE * n, field)

    def words(self, pos: int, *values: int) -> Elf:
        struct.pack_into(f"<{len(values)}Q", self.raw, pos, *values)
        return self

    def fill(self, section: str, byte: bytes) -> Elf:
        first, size = self.of_sec(section, "sh_offset"), self.of_sec(section, "sh_size")
        self.raw[first : first + size] = byte * size
        return self

    # -- more of something -------------------------------------------------------------------------------------

    def add(self, content: bytes, repeat: int = 1, **fields: int) -> int:
        """Append bytes and `repeat` section headers over them; the header table moves to the end. First new index."""
        n, old = self.n_sections(), self.get(EHDR, 0, "e_shoff")
        table = bytes(self.raw[old : old + SHDR_SIZE * n])
        pos = self.append(content)
        one = bytearray(SHDR_SIZE)
        for field, value in ({"sh_offset": pos, "sh_size": len(content), "sh_addralign": 8} | fields).items():
            offset, kind = SHDR[field]
            struct.pack_into("<" + kind, one, offset, value)
        shoff = self.append(table + bytes(one) * repeat)
        total = n + repeat
        self.ehdr(e_shoff=shoff, e_shnum=total if total < 0xFF00 else 0)
        if total >= 0xFF00:
            self.put(SHDR, shoff, "sh_size", total)
        return n

    def append(self, content: bytes) -> int:
        self.raw += bytes(-len(self.raw) % 16)
        pos = len(self.raw)
        self.raw += content
        return pos

    def name_at(self, name: str) -> int:
        """sh_name of a section of that name."""
        return self.of_sec(name, "sh_name")


@cache
def original(name: str) -> bytes:
    return ((MINI_PPC if name in (OOL, FAR) else MINI) / name).read_bytes()


Build = Callable[[Elf], object]


@dataclass(frozen=True)
class Case:
    """One corrupted file. `code` and `message` are the whole answer of `scan`, where they are known; `facts` are
    figures of the report, as a path through the JSON and its value."""

    id: str
    fixture: str
    build: Build
    code: int | None = None
    message: str | None = None
    facts: tuple[tuple[str, Any], ...] = ()
    patch: tuple[int, str | None] | None = None  # code and message of `enable` with `choice`
    choice: tuple[str, ...] = ("--func", "vfs_read")


def case(
    id_: str, fixture: str, build: Build, code: int | None = None, message: str | None = None, /, *,
    patch: tuple[int, str | None] | None = None, choice: str = "vfs_read", **facts: Any,
) -> Case:  # fmt: skip
    words = tuple(word for name in choice.split() for word in (("--func", name) if name[:1] != "-" else (name,)))
    return Case(id_, fixture, build, code, message, tuple(facts.items()), patch, words)


# -- guards ----------------------------------------------------------------------------------------------------


class TooLong(BaseException):
    """Not an Exception, so that the program cannot take it for a failure of its own."""


def _too_long(signum: int, frame: FrameType | None) -> None:
    raise TooLong


@contextmanager
def guarded() -> Iterator[None]:
    """A limit on time and on the address space of this process, and on what is allocated inside."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (now + SPACE, hard))
    tracemalloc.start(1)
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert peak < PEAK, f"{peak >> 20} MiB were allocated for a small file"


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, list[str]]:
    """(exit code, stdout, lines of stderr) of one command line that keeps the promises of every command line."""
    capsys.readouterr()
    with guarded():
        code = run(list(arguments))
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert "Traceback" not in err, err
    assert code in (0, 3, 4, 5), (code, err)
    said = [line for line in lines if line.startswith("ftpatch: ") and not _is_note(line)]
    assert said == lines[-1:] if code else not said, err
    return code, out, lines


def _is_note(line: str) -> bool:
    return line.startswith("ftpatch: warning: ") or line.endswith(
        "all of them are taken (name@file.c tells them apart)"
    )


def check_scan(capsys: pytest.CaptureFixture[str], path: Path) -> tuple[int, dict[str, Any], str]:
    """Scan the file; (exit code, the report, the refusal without the file's name)."""
    code, out, err = command(capsys, "scan", "--sites", "--format", "json", str(path))
    document: dict[str, Any] = json.loads(out)
    assert document["schema"] == 1 and document["command"] == "scan"
    assert len(document["images"]) == (code == 0)
    if code:
        line = err[-1].removeprefix("ftpatch: ")
        assert line.startswith(f"{path}: "), "which file is it?"
        assert ": : " not in line, "which section is it?"
        assert document["errors"] == [{"file": str(path), "code": code, "message": line}]
        return code, document, line.replace(f"{path}: ", "")
    summary, sites = document["images"][0]["summary"], document["images"][0]["sites"]
    assert summary["live"] + summary["null"] == summary["slots"]
    assert len(sites) == summary["slots"] + summary["without_record"]
    assert sum(summary["by_status"].values()) == summary["live"]
    return code, document, ""


def check_enable(
    capsys: pytest.CaptureFixture[str], path: Path, *more: str, choice: tuple[str, ...] = ("--func", "vfs_read")
) -> tuple[int, str]:
    """Enable something; (exit code, the refusal without the file's name). OUT is there if and only if that is 0."""
    before = path.read_bytes()
    out = path.with_name("out")
    code, _, err = command(capsys, "enable", str(path), *choice, "-o", str(out), *more)
    assert path.read_bytes() == before
    assert sorted(file.name for file in path.parent.iterdir()) == sorted([path.name, *(["out"] if code == 0 else [])])
    if code:
        return code, err[-1].removeprefix("ftpatch: ").replace(f"{path}: ", "")
    assert len(out.read_bytes()) == len(before) and out.read_bytes() != before
    assert command(capsys, "scan", str(out))[0] == 0
    return 0, ""


def look_up(document: dict[str, Any], path: str) -> Any:
    """`summary.live` or `sites.3.status` of the only image."""
    found: Any = document["images"][0]
    for key in path.split("__"):
        found = found[int(key)] if isinstance(found, list) else found.get(key)
    return found


# -- the cases -------------------------------------------------------------------------------------------------

WRONG: dict[str, Callable[[int], int]] = {
    "is-0": lambda _: 0,
    "is-1": lambda _: 1,
    "is-max": lambda _: MASK64,
    "plus-1": lambda value: value + 1,
    "minus-1": lambda value: value - 1,
}


def fields(prefix: str, fixture: str, layout: Layout, at: Callable[[Elf], int], only: str = "") -> list[Case]:
    """Every field of one row set to every wrong value; values that it has already make no case."""
    found, good = [], Elf(fixture)
    for field, (_, kind) in layout.items():
        mask = (1 << 8 * struct.calcsize(kind)) - 1
        value, seen = good.get(layout, at(good), field), set[int]()
        for name, wrong in WRONG.items():
            bad = wrong(value) & mask
            if bad == value or bad in seen:
                continue
            seen.add(bad)

            def build(elf: Elf, field: str = field, bad: int = bad) -> object:
                return elf.put(layout, at(elf), field, bad)

            id_ = f"{fixture}-{prefix}-{field}-{name}"
            found.append(case(id_, fixture, build))
    return found


def section_fields(fixture: str, *sections: str) -> list[Case]:
    return [
        one
        for section in sections
        for one in fields(section.strip("._"), fixture, SHDR, lambda elf, s=section: elf.header(elf.sec(s)))  # type: ignore[misc]
    ]


HEADERS = [
    *fields("ehdr", CALLOPS, EHDR, lambda _: 0),
    *fields("ehdr", MODULE, EHDR, lambda _: 0),
    *fields("ehdr", PROGRAM, EHDR, lambda _: 0),
    *fields("phdr0", CALLOPS, PHDR, lambda elf: elf.get(EHDR, 0, "e_phoff")),
    *fields("phdr2", EXEC, PHDR, lambda elf: elf.get(EHDR, 0, "e_phoff") + 2 * PHDR_SIZE),
]
SECTIONS = [
    *section_fields(CALLOPS, ".text", ".init.data", ".symtab", ".strtab", ".shstrtab", ".rela.dyn", ".relr.dyn"),
    *section_fields(PFE2, ".rela.dyn"),
    *section_fields(EXEC, ".init.data"),
    *section_fields(MODULE, ".text", ".symtab", "__patchable_function_entries", ".rela__patchable_function_entries"),
    *section_fields(OBJECT, ".rela__patchable_function_entries"),
    *section_fields(PROGRAM, "__patchable_function_entries", ".rela.dyn"),
]

DATA_VA, NOWHERE = 0xFFFF800080021000, 0x1000
READ_PFE2, WRITE_PFE2 = 0xFFFF8000800007E4, 0xFFFF8000800008C0  # vfs_read and vfs_write in vmlinux-exec
READ_ROW, N_SLOTS = 13, 19


def slot_is(n: int, value: int) -> Build:
    return lambda elf: elf.words(elf.slot(n), value)


def bounds(start: int, stop: int) -> Build:
    """The record table's symbols moved by so many bytes."""

    def build(elf: Elf) -> object:
        one, two = elf.value("__start_mcount_loc") + start, elf.value("__stop_mcount_loc") + stop
        return elf.sym("__start_mcount_loc", st_value=one).sym("__stop_mcount_loc", st_value=two)

    return build


def bounds_at(start: int, stop: int) -> Build:
    return lambda elf: elf.sym("__start_mcount_loc", st_value=start).sym("__stop_mcount_loc", st_value=stop)


def relr_is(*words: int) -> Build:
    """The first words of the packed table, and its size."""

    def build(elf: Elf) -> object:
        elf.words(elf.of_sec(".relr.dyn", "sh_offset"), *words)
        return elf.sh(".relr.dyn", sh_size=8 * len(words))

    return build


def never_ends(elf: Elf) -> object:
    """A second packed table, of bitmaps from the first slot on to far behind the last."""
    table = struct.pack("<Q", elf.value("__start_mcount_loc")) + struct.pack("<Q", MASK64) * 4000
    return elf.add(table, sh_type=SHT_RELR, sh_entsize=8)


def second_rela(elf: Elf) -> object:
    good = {field: elf.of_sec(".rela.dyn", field) for field in ("sh_name", "sh_offset", "sh_size", "sh_flags")}
    good["sh_addr"] = elf.of_sec(".bss", "sh_addr") + 0x10000
    return elf.add(b"", sh_type=SHT_RELA, sh_entsize=RELA_SIZE, **good)


def same_slot_twice(row: int) -> Build:
    """Relocation `row` fills vfs_read's slot, as another one does already."""

    def build(elf: Elf) -> object:
        slot = elf.value("__start_mcount_loc") + 8 * READ_ROW
        return elf.rela(".rela.dyn", row, r_offset=slot, r_addend=READ_PFE2)

    return build


NO_SITE = (
    "vfs_read: the function has no patch site: found a symbol without record, expected a traceable function – "
    "it is notrace, assembly, or was dropped from the table"
)


def section_behind_the_end(n: int) -> Build:
    """A nameless section that ends `n` bytes behind the file."""

    def build(elf: Elf) -> object:
        at = elf.header(elf.add(b"", sh_type=1))
        return elf.put(SHDR, at, "sh_size", len(elf.raw) - elf.get(SHDR, at, "sh_offset") + n)

    return build


RELA_PFE = ".rela__patchable_function_entries"

SPECIAL = [
    # the ELF header and its counts
    case(
        "class-is-32-bit",
        CALLOPS,
        lambda elf: elf.ehdr(ei_class=1),
        4,
        "not a 64-bit ELF file: found EI_CLASS 1, expected 2 (ELFCLASS64) – give the vmlinux of a 64-bit kernel",
    ),
    case(
        "data-is-big-endian",
        CALLOPS,
        lambda elf: elf.ehdr(ei_data=2),
        4,
        "not a little-endian ELF file: found EI_DATA 2, expected 1 (ELFDATA2LSB) – give the vmlinux "
        "of a little-endian kernel",
    ),
    case(
        "type-is-core",
        CALLOPS,
        lambda elf: elf.ehdr(e_type=4),
        3,
        "not a kernel, module, object or program: found e_type 4, expected ET_REL, ET_EXEC or ET_DYN",
    ),
    case(
        "machine-is-x86-64",
        CALLOPS,
        lambda elf: elf.ehdr(e_machine=62),
        4,
        "machine not supported: found e_machine 62 (x86-64), expected 183 (arm64), 21 (ppc64le) – "
        "give a kernel, module or object of one of these",
    ),
    case(
        "machine-is-nobody",
        MODULE,
        lambda elf: elf.ehdr(e_machine=0x7777),
        4,
        "machine not supported: found e_machine 30583 (unknown), expected 183 (arm64), 21 (ppc64le) – "
        "give a kernel, module or object of one of these",
    ),
    case(
        "no-section-headers",
        CALLOPS,
        lambda elf: elf.ehdr(e_shoff=0),
        3,
        "no section headers – give the vmlinux that the build produced, sections kept",
    ),
    case(
        "section-headers-outside",
        CALLOPS,
        lambda elf: elf.ehdr(e_shoff=0x100000),
        3,
        "section header table lies outside the file: found bytes 0x100000..0x1003c0, expected at most 0x5138 – "
        "the file is truncated or corrupt",
    ),
    case(
        "section-headers-end-one-row-late",
        MODULE,
        lambda elf: elf.ehdr(e_shnum=24),
        3,
        "section header table lies outside the file: found bytes 0xdc0..0x13c0, expected at most 0x1380 – the "
        "file is truncated or corrupt",
    ),
    case(
        "section-header-rows-of-40-bytes",
        MODULE,
        lambda elf: elf.ehdr(e_shentsize=40),
        3,
        "wrong e_shentsize: found 40, expected 64",
    ),
    case(
        "program-header-rows-of-32-bytes",
        CALLOPS,
        lambda elf: elf.ehdr(e_phentsize=32),
        3,
        "wrong e_phentsize: found 32, expected 56",
    ),
    case(
        "program-headers-outside",
        CALLOPS,
        lambda elf: elf.ehdr(e_phoff=0x100000),
        3,
        "program header table lies outside the file: found bytes 0x100000..0x1000e0, expected at most 0x5138 – "
        "the file is truncated or corrupt",
    ),
    case(
        "no-sections-at-all",
        CALLOPS,
        lambda elf: elf.ehdr(e_shnum=0),
        3,
        "e_shstrndx names no string table: found section 13 of 0",
    ),
    case(
        "section-count-in-section-0",
        CALLOPS,
        lambda elf: (elf.put(SHDR, elf.header(0), "sh_size", 15), elf.ehdr(e_shnum=0)),
        0,
        "",
        patch=(0, ""),
        summary__live=16,
    ),
    case(
        "section-count-in-section-0-is-huge",
        CALLOPS,
        lambda elf: (elf.put(SHDR, elf.header(0), "sh_size", 1 << 58), elf.ehdr(e_shnum=0)),
        3,
        "section header table lies outside the file: found bytes 0x4d78..0x10000000000004d78, expected at most "
        "0x5138 – the file is truncated or corrupt",
    ),
    case(
        "section-count-in-section-0-is-max",
        CALLOPS,
        lambda elf: (elf.put(SHDR, elf.header(0), "sh_size", MASK64), elf.ehdr(e_shnum=0)),
        3,
        "section header table lies outside the file: found bytes 0x4d78..0x400000000000004d38, expected at most "
        "0x5138 – the file is truncated or corrupt",
    ),
    case(
        "name-table-index-in-section-0",
        CALLOPS,
        lambda elf: (elf.put(SHDR, elf.header(0), "sh_link", 13), elf.ehdr(e_shstrndx=0xFFFF)),
        0,
        "",
        patch=(0, ""),
        summary__live=16,
    ),
    case(
        "name-table-index-in-section-0-is-huge",
        CALLOPS,
        lambda elf: (elf.put(SHDR, elf.header(0), "sh_link", 1 << 31), elf.ehdr(e_shstrndx=0xFFFF)),
        3,
        "e_shstrndx names no string table: found section 2147483648 of 15",
    ),
    case(
        "name-table-is-no-string-table",
        CALLOPS,
        lambda elf: elf.ehdr(e_shstrndx=2),
        3,
        "e_shstrndx names no string table: found section 2 of 15",
    ),
    case(
        "segment-count-in-section-0",
        CALLOPS,
        lambda elf: (elf.put(SHDR, elf.header(0), "sh_info", 4), elf.ehdr(e_phnum=0xFFFF)),
        0,
        "",
        patch=(0, ""),
        summary__live=16,
    ),
    case("segment-count-in-section-0-is-0", CALLOPS, lambda elf: elf.ehdr(e_phnum=0xFFFF), 0, "", patch=(0, "")),
    case(
        "segment-count-in-section-0-is-max",
        CALLOPS,
        lambda elf: (elf.put(SHDR, elf.header(0), "sh_info", MASK64), elf.ehdr(e_phnum=0xFFFF)),
        3,
        "program header table lies outside the file: found bytes 0x40..0x3800000008, expected at most 0x5138 – "
        "the file is truncated or corrupt",
    ),
    # sections
    case(
        "section-name-outside",
        CALLOPS,
        lambda elf: elf.sh(".text", sh_name=0x7A),
        3,
        "a section's name lies outside the name table: found 0x7a",
    ),
    case("section-names-without-nul", CALLOPS, lambda elf: elf.fill(".shstrtab", b"A")),
    case(
        "text-outside",
        CALLOPS,
        lambda elf: elf.sh(".text", sh_offset=0x100000),
        3,
        "section .text lies outside the file: found bytes 0x100000 + 0x5a8, expected at most 0x5138 – the file "
        "is truncated or corrupt",
    ),
    case("section-up-to-the-last-byte", MODULE, section_behind_the_end(0), 0, "", summary__live=6),
    case(
        "section-one-byte-behind-the-last",
        MODULE,
        section_behind_the_end(1),
        3,
        "section 23 lies outside the file: found bytes 0x1380 + 0x601, expected at most 0x1980 "
        "– the file is truncated or corrupt",
    ),
    case(
        "text-size-wraps",
        CALLOPS,
        lambda elf: elf.sh(".text", sh_size=MASK64),
        3,
        "section .text lies outside the file: found bytes 0x1400 + 0xffffffffffffffff, expected at most 0x5138 – "
        "the file is truncated or corrupt",
    ),
    case(
        "text-overlaps-rodata",
        CALLOPS,
        lambda elf: elf.sh(".text", sh_size=0x700),
        3,
        "sections overlap in the file: found .text and .rodata share bytes",
    ),
    case(
        "text-overlaps-rodata-by-a-byte",
        CALLOPS,
        lambda elf: elf.sh(".text", sh_size=0x601),
        3,
        "sections overlap in the file: found .text and .rodata share bytes",
    ),
    case(
        "text-at-the-end-of-the-address-space",
        CALLOPS,
        lambda elf: elf.sh(".text", sh_addr=MASK64 - 7),
        3,
        "section .text ends behind the last address: found 0xfffffffffffffff8 + 0x5a8",
    ),
    case(
        "text-up-to-the-last-byte-but-one-of-the-address-space",
        CALLOPS,
        lambda elf: elf.sh(".text", sh_addr=MASK64 - 0x5A8),
        0,
        "",
        patch=(5, NO_SITE),
    ),
    case(
        "data-over-text",
        CALLOPS,
        lambda elf: elf.sh(".data", sh_addr=0xFFFF800080000400),
        3,
        "sections overlap in memory: found .text ends behind .data's start",
    ),
    case(
        "all-sections-at-0",
        CALLOPS,
        lambda elf: [elf.put(SHDR, elf.header(i), "sh_addr", 0) for i in range(15)],
        3,
        "sections overlap in memory: found .head.text ends behind .text's start",
    ),
    case("text-without-flags", CALLOPS, lambda elf: elf.sh(".text", sh_flags=0), 0, "", patch=(5, NO_SITE)),
    case(
        "text-not-executable",
        CALLOPS,
        lambda elf: elf.sh(".text", sh_flags=ALLOC),
        0,
        "",
        patch=(5, "--target ftrace_caller: the target is no code of this file: found 0xffff800080000400"),
    ),
    case(
        "nothing-executable",
        CALLOPS,
        lambda elf: [elf.sh(s, sh_flags=ALLOC) for s in (".head.text", ".text", ".init.text")],
        3,
        "no text at all: found no executable section, expected a kernel, module or object",
    ),
    case(
        "text-nobits",
        CALLOPS,
        lambda elf: [elf.sh(s, sh_type=SHT_NOBITS) for s in (".head.text", ".text", ".init.text")],
        3,
        "text without contents: found a debug-only file (NOBITS text), expected code – use the file that it is "
        "the debug companion of",
    ),
    case(
        "records-nobits",
        CALLOPS,
        lambda elf: elf.sh(".init.data", sh_type=SHT_NOBITS),
        3,
        "record table 0xffff800080020010..0xffff8000800200a8: the record table does not lie in one section of the file",
    ),
    case(
        "records-section-cut-short",
        CALLOPS,
        lambda elf: elf.sh(".init.data", sh_size=0xA0),
        3,
        "record table 0xffff800080020010..0xffff8000800200a8: the record table does not lie in one section of the file",
    ),
    case(
        "bss-behind-the-last-address",
        CALLOPS,
        lambda elf: elf.sh(".bss", sh_size=1 << 63),
        3,
        "section .bss ends behind the last address: found 0xffff800080021030 + 0x8000000000000000",
    ),
    case("bss-huge", CALLOPS, lambda elf: elf.sh(".bss", sh_size=1 << 46), 0, "", patch=(0, ""), summary__live=16),
    case(
        "every-section-links-to-itself",
        CALLOPS,
        lambda elf: [elf.put(SHDR, elf.header(i), "sh_link", i) for i in range(15)],
        3,
        "the symbol table's sh_link names no string table: found section 12",
    ),
    case(
        "symbols-and-strings-link-in-a-circle",
        CALLOPS,
        lambda elf: elf.sh(".strtab", sh_link=12),
        0,
        "",
        patch=(0, ""),
        summary__live=16,
    ),
    case(
        "symbols-link-to-no-section",
        MODULE,
        lambda elf: elf.sh(".symtab", sh_link=99),
        3,
        "the symbol table's sh_link names no string table: found section 99",
    ),
    case("symbols-info-max", MODULE, lambda elf: elf.sh(".symtab", sh_info=MASK64), 0, "", summary__live=6),
    case(
        "symbols-in-rows-of-16-bytes",
        CALLOPS,
        lambda elf: elf.sh(".symtab", sh_entsize=16),
        3,
        "section .symtab: wrong sh_entsize: found 16, expected 24",
    ),
    case(
        "symbols-end-inside-a-row",
        CALLOPS,
        lambda elf: elf.sh(".symtab", sh_size=0x92F),
        3,
        "section .symtab is 2351 bytes long, which is no multiple of its 24-byte rows",
    ),
    case(
        "relocations-in-rows-of-16-bytes",
        PFE2,
        lambda elf: elf.sh(".rela.dyn", sh_entsize=16),
        3,
        "section .rela.dyn: wrong sh_entsize: found 16, expected 24",
    ),
    case(
        "relocations-end-inside-a-row",
        PFE2,
        lambda elf: elf.sh(".rela.dyn", sh_size=0x257),
        3,
        "section .rela.dyn is 599 bytes long, which is no multiple of its 24-byte rows",
    ),
    case(
        "packed-relocations-in-rows-of-4-bytes",
        CALLOPS,
        lambda elf: elf.sh(".relr.dyn", sh_entsize=4),
        3,
        "section .relr.dyn: wrong sh_entsize: found 4, expected 8",
    ),
    case(
        "packed-relocations-end-inside-a-row",
        CALLOPS,
        lambda elf: elf.sh(".relr.dyn", sh_size=0x2F),
        3,
        "section .relr.dyn is 47 bytes long, which is no multiple of its 8-byte rows",
    ),
    case(
        "two-sections-of-one-name",
        OBJECT,
        lambda elf: elf.sh(".init.text", sh_name=elf.name_at(".text")),
        0,
        "",
        summary__by_section={".text": 8},
    ),
    case(
        "relocation-table-twice",
        CALLOPS,
        second_rela,
        3,
        "sections overlap in the file: found .rela.dyn and .rela.dyn share bytes",
    ),
    case(
        "records-lie-on-their-relocations",
        PFE2,
        lambda elf: elf.sh(".init.data", sh_offset=elf.of_sec(".rela.dyn", "sh_offset")),
        3,
        "sections overlap in the file: found .init.data and .rela.dyn share bytes",
    ),
    # symbols
    case(
        "no-symbol-table",
        CALLOPS,
        lambda elf: elf.sh(".symtab", sh_type=1),
        5,
        "no symbol table: found a stripped ELF file, expected .symtab – use the vmlinux of the build tree or of "
        "the debug package (stripping debug info alone is fine)",
    ),
    case(
        "empty-symbol-table",
        CALLOPS,
        lambda elf: elf.sh(".symtab", sh_size=0),
        5,
        "no symbol table: found a stripped ELF file, expected .symtab – use the vmlinux of the build tree or of "
        "the debug package (stripping debug info alone is fine)",
    ),
    case(
        "no-name-for-any-symbol",
        CALLOPS,
        lambda elf: elf.sh(".strtab", sh_size=0),
        0,
        "",
        patch=(
            5,
            "vfs_read: nothing of that name: found no patch site, expected a function, see ftpatch scan --sites "
            "– it may be inlined, renamed by the compiler (.isra, .constprop), or in a module",
        ),
        summary__slots=0,
    ),
    case("symbol-names-without-last-nul", CALLOPS, lambda elf: elf.sh(".strtab", sh_size=0x3A1), 0, "", patch=(0, "")),
    case(
        "function-name-outside",
        CALLOPS,
        lambda elf: elf.sym("vfs_read", st_name=MASK64),
        0,
        "",
        patch=(
            5,
            "vfs_read: nothing of that name: found no patch site, expected a function, see ftpatch scan --sites "
            "– it may be inlined, renamed by the compiler (.isra, .constprop), or in a module",
        ),
        sites__12__function="",
        sites__12__status="ready",
    ),
    case(
        "function-in-no-section",
        CALLOPS,
        lambda elf: elf.sym("vfs_read", st_shndx=0x4000),
        0,
        "",
        patch=(5, NO_SITE),
        sites__12__function=None,
    ),
    case(
        "function-in-the-section-of-common-symbols",
        CALLOPS,
        lambda elf: elf.sym("vfs_read", st_shndx=0xFFF2),
        0,
        "",
        patch=(5, NO_SITE),
        sites__12__function=None,
    ),
    case(
        "function-with-an-extended-section-index-of-nowhere",
        CALLOPS,
        lambda elf: elf.sym("vfs_read", st_shndx=0xFFFF),
        3,
        "symbols use SHN_XINDEX but there is no SHT_SYMTAB_SHNDX table for them",
    ),
    case(
        "function-at-the-end-of-the-address-space",
        CALLOPS,
        lambda elf: elf.sym("vfs_read", st_value=MASK64),
        0,
        "",
        patch=(5, NO_SITE),
        sites__12__function=None,
    ),
    case(
        "function-one-byte-away",
        CALLOPS,
        lambda elf: elf.sym("vfs_read", st_value=elf.value("vfs_read") + 1),
        0,
        "",
        patch=(5, NO_SITE),
        sites__12__function=None,
    ),
    case(
        "function-of-no-size",
        CALLOPS,
        lambda elf: elf.sym("vfs_read", st_size=0),
        0,
        "",
        patch=(0, ""),
        sites__12__function="vfs_read",
    ),
    case(
        "function-without-end",
        CALLOPS,
        lambda elf: elf.sym("vfs_read", st_size=MASK64),
        0,
        "",
        patch=(0, ""),
        sites__12__function="vfs_read",
    ),
    case(
        "every-function-at-0",
        CALLOPS,
        lambda elf: [elf.put(SYM, at, "st_value", 0) for at in elf.symbols() if elf.raw[at + 4] & 15 == 2],
        0,
        "",
        patch=(5, NO_SITE),
    ),
    case(
        "trampoline-in-no-section",
        CALLOPS,
        lambda elf: elf.sym("ftrace_caller", st_shndx=0),
        0,
        "",
        patch=(5, "ftrace_caller: no such symbol: found nothing of that name in .symtab, expected a defined symbol"),
    ),
    case(
        "trampoline-in-data",
        CALLOPS,
        lambda elf: elf.sym("ftrace_caller", st_value=DATA_VA),
        0,
        "",
        patch=(5, "--target ftrace_caller: the target is no code of this file: found 0xffff800080021000"),
    ),
    case(
        "trampoline-nowhere",
        CALLOPS,
        lambda elf: elf.sym("ftrace_caller", st_value=NOWHERE),
        0,
        "",
        patch=(5, "--target ftrace_caller: the target is no code of this file: found 0x1000"),
    ),
    case(
        "trampoline-misaligned",
        CALLOPS,
        lambda elf: elf.sym("ftrace_caller", st_value=elf.value("ftrace_caller") + 2),
        0,
        "",
        patch=(5, "--target ftrace_caller: the target is no code of this file: found 0xffff800080000402"),
    ),
    case(
        "trampoline-is-another-function",
        CALLOPS,
        lambda elf: elf.sym("ftrace_caller", st_value=elf.value("asm_nops")),
        0,
        "",
        patch=(
            5,
            "ftrace_caller does not fit the layout of the sites: found no load of an ops pointer in "
            "ftrace_caller, expected a load of one in layout callops – is --layout forced wrongly, or is this "
            "another kernel's vmlinux?",
        ),
    ),
    case(
        "ops-nowhere",
        CALLOPS,
        lambda elf: elf.sym("ftrace_list_ops", st_value=NOWHERE),
        0,
        "",
        patch=(5, "--ops list: not an ftrace_ops: found 0x1000, expected an object in a data section"),
    ),
    case(
        "ops-at-0",
        CALLOPS,
        lambda elf: elf.sym("ftrace_list_ops", st_value=0),
        0,
        "",
        patch=(5, "--ops list: not an ftrace_ops: found 0x0, expected an object in a data section"),
    ),
    case(
        "ops-too-small",
        CALLOPS,
        lambda elf: elf.sym("ftrace_list_ops", st_size=80),
        0,
        "",
        patch=(
            5,
            "--ops list: not an ftrace_ops: found symbol type 1, 80 bytes, expected an object of at least 88 "
            "bytes: direct_call is read at 80",
        ),
    ),
    case(
        "ops-is-a-function",
        CALLOPS,
        lambda elf: elf.sym("ftrace_list_ops", st_info=0x12),
        0,
        "",
        patch=(
            5,
            "--ops list: not an ftrace_ops: found symbol type 2, 96 bytes, expected an object of at least 88 "
            "bytes: direct_call is read at 80",
        ),
    ),
    case(
        "init-without-code",
        EXEC,
        lambda elf: elf.sym("ftrace_init", st_size=0),
        0,
        "",
        patch=(
            5,
            "ftrace_init: the table cannot shrink: found 0 places that form its end 0xffff8000800200a8, expected "
            "exactly one – --records null or minus4, if this kernel accepts them",
        ),
    ),
    case("init-without-end", EXEC, lambda elf: elf.sym("ftrace_init", st_size=MASK64), 0, "", patch=(0, "")),
    case(
        "init-nowhere",
        EXEC,
        lambda elf: elf.sym("ftrace_init", st_value=NOWHERE),
        0,
        "",
        patch=(
            5,
            "ftrace_init: the table cannot shrink: found 0 places that form its end 0xffff8000800200a8, expected "
            "exactly one – --records null or minus4, if this kernel accepts them",
        ),
    ),
    case(
        "init-misaligned",
        EXEC,
        lambda elf: elf.sym("ftrace_init", st_value=elf.value("ftrace_init") + 2),
        0,
        "",
        patch=(
            5,
            "ftrace_init: the table cannot shrink: found 0 places that form its end 0xffff8000800200a8, expected "
            "exactly one – --records null or minus4, if this kernel accepts them",
        ),
    ),
    # the bounds of the record table
    case(
        "bounds-reversed",
        CALLOPS,
        bounds(0x98, -0x98),
        3,
        "record table 0xffff8000800200a8..0xffff800080020010: the ends of the record table do not fit: found "
        "-152 bytes, expected a positive multiple of 8, aligned",
    ),
    case("bounds-equal", CALLOPS, bounds(0x98, 0), 0, "", patch=(5, NO_SITE), summary__slots=0),
    case(
        "bounds-not-a-multiple",
        CALLOPS,
        bounds(0, -4),
        3,
        "record table 0xffff800080020010..0xffff8000800200a4: the ends of the record table do not fit: found 148 "
        "bytes, expected a positive multiple of 8, aligned",
    ),
    case(
        "bounds-misaligned",
        CALLOPS,
        bounds(4, -4),
        3,
        "record table 0xffff800080020014..0xffff8000800200a4: the ends of the record table do not fit: found 144 "
        "bytes, expected a positive multiple of 8, aligned",
    ),
    case(
        "bounds-huge",
        CALLOPS,
        bounds(0, 1 << 40),
        3,
        "record table 0xffff800080020010..0xffff8100800200a8: the record table does not lie in one section of the file",
    ),
    case(
        "bounds-from-0-to-max",
        CALLOPS,
        bounds_at(0, MASK64 & ~7),
        3,
        "record table 0x0..0xfffffffffffffff8: the record table does not lie in one section of the file",
    ),
    case(
        "bounds-at-the-end-of-the-address-space",
        CALLOPS,
        bounds_at(MASK64 - 15, MASK64 - 7),
        3,
        "record table 0xfffffffffffffff0..0xfffffffffffffff8: the record table does not lie in one section of the file",
    ),
    case(
        "bounds-nowhere",
        EXEC,
        bounds_at(0x1000, 0x1008),
        3,
        "record table 0x1000..0x1008: the record table does not lie in one section of the file",
    ),
    case(
        "bounds-in-bss",
        EXEC,
        bounds_at(0xFFFF800080021020, 0xFFFF800080021028),
        3,
        "record table 0xffff800080021020..0xffff800080021028: the record table does not lie in one section of the file",
    ),
    case(
        "bounds-across-two-sections",
        EXEC,
        bounds_at(0xFFFF800080000950, 0xFFFF800080000A10),
        3,
        "record table 0xffff800080000950..0xffff800080000a10: the record table does not lie in one section of the file",
    ),
    case(
        "bounds-one-slot-less",
        EXEC,
        bounds(0, -8),
        0,
        "",
        patch=(
            5,
            "ftrace_init: the table cannot shrink: found 0 places that form its end 0xffff8000800200a0, expected "
            "exactly one – --records null or minus4, if this kernel accepts them",
        ),
        summary__slots=18,
    ),
    case("bounds-one-slot-more", EXEC, bounds(-8, 0), 0, "", patch=(0, ""), summary__slots=20),
    case(
        "bounds-one-slot-behind-the-section",
        EXEC,
        bounds(0, 8),
        3,
        "record table 0xffff800080020010..0xffff8000800200b0: the record table does not lie in one section of the file",
    ),
    case("bounds-in-text", EXEC, bounds_at(0xFFFF800080000400, 0xFFFF800080000440), 0, "", patch=(5, NO_SITE)),
    case(
        "bounds-start-undefined",
        EXEC,
        lambda elf: elf.sym("__start_mcount_loc", st_shndx=0),
        3,
        "only one end of the record table is named: no symbol __start_mcount_loc",
    ),
    case(
        "bounds-stop-undefined",
        EXEC,
        lambda elf: elf.sym("__stop_mcount_loc", st_shndx=0),
        3,
        "only one end of the record table is named: no symbol __stop_mcount_loc",
    ),
    case(
        "bounds-both-undefined",
        EXEC,
        lambda elf: (elf.sym("__start_mcount_loc", st_shndx=0), elf.sym("__stop_mcount_loc", st_shndx=0)),
        0,
        "",
        patch=(5, NO_SITE),
        summary__slots=0,
    ),
    case(
        "bounds-named-twice",
        EXEC,
        lambda elf: elf.sym("vfs_write", st_name=elf.get(SYM, elf.symbol("__stop_mcount_loc"), "st_name")),
        3,
        "symbol __stop_mcount_loc has several values: found 0xffff8000800008c0, 0xffff8000800200a8",
    ),
    # record values
    case("record-in-data", EXEC, slot_is(13, DATA_VA), 0, "", patch=(5, NO_SITE), sites__13__status="outside-text"),
    case("record-nowhere", EXEC, slot_is(13, NOWHERE), 0, "", patch=(5, NO_SITE), sites__13__status="outside-text"),
    case(
        "record-in-bss",
        EXEC,
        slot_is(13, 0xFFFF800080021100),
        0,
        "",
        patch=(5, NO_SITE),
        sites__13__status="outside-text",
    ),
    case("record-max", EXEC, slot_is(13, MASK64), 0, "", patch=(5, NO_SITE), sites__13__status="outside-text"),
    case(
        "record-one-byte-late",
        EXEC,
        slot_is(13, READ_PFE2 + 1),
        0,
        "",
        patch=(5, NO_SITE),
        sites__13__status="unexpected",
    ),
    case(
        "record-two-bytes-late",
        EXEC,
        slot_is(13, READ_PFE2 + 2),
        0,
        "",
        patch=(5, NO_SITE),
        sites__13__status="unexpected",
    ),
    case(
        "record-one-word-late",
        EXEC,
        slot_is(13, READ_PFE2 + 4),
        0,
        "",
        patch=(5, NO_SITE),
        sites__13__status="unexpected",
    ),
    case(
        "record-one-word-early",
        EXEC,
        slot_is(13, READ_PFE2 - 4),
        0,
        "",
        patch=(5, NO_SITE),
        sites__13__status="unexpected",
    ),
    case(
        "record-on-the-last-word-of-text",
        EXEC,
        slot_is(13, 0xFFFF8000800009BC),
        0,
        "",
        patch=(5, NO_SITE),
        sites__13__status="unexpected",
    ),
    case(
        "record-on-the-last-byte-of-text",
        EXEC,
        slot_is(13, 0xFFFF8000800009BF),
        0,
        "",
        patch=(5, NO_SITE),
        sites__13__status="unexpected",
    ),
    case(
        "record-just-behind-text",
        EXEC,
        slot_is(13, 0xFFFF8000800009C0),
        0,
        "",
        patch=(5, NO_SITE),
        sites__13__status="outside-text",
    ),
    case("record-0", EXEC, slot_is(13, 0), 0, "", patch=(5, NO_SITE), sites__13__status="null"),
    case("record-minus-4", EXEC, slot_is(13, MASK64 - 3), 0, "", patch=(5, NO_SITE), sites__13__status="null"),
    case(
        "record-of-vfs-read-twice",
        EXEC,
        slot_is(0, READ_PFE2),
        0,
        "",
        patch=(
            5,
            "2 of 2 chosen sites cannot be patched: found vfs_read (row 0, .text+0x3e4): several records name this "
            "site; vfs_read (row 13, .text+0x3e4): several records name this site, expected all of them, or nothing is "
            "written – --skip-unpatchable patches the others",
        ),
    ),
    case("record-of-vfs-write-twice", EXEC, slot_is(0, WRITE_PFE2), 0, "", patch=(0, "")),
    case(
        "records-all-the-same",
        EXEC,
        lambda elf: elf.words(elf.slot(0), *[READ_PFE2] * 19),
        0,
        "",
        patch=(
            5,
            "19 of 19 chosen sites cannot be patched: found vfs_read (row 0, .text+0x3e4): several records name this "
            "site; vfs_read (row 1, .text+0x3e4): several records name this site; vfs_read (row 2, .text+0x3e4): "
            "several records name this site; …, expected all of them, or nothing is written – --skip-unpatchable "
            "patches the others",
        ),
    ),
    case(
        "records-all-in-data",
        EXEC,
        lambda elf: elf.words(elf.slot(0), *[DATA_VA] * 19),
        0,
        "",
        patch=(5, NO_SITE),
        summary__by_status={"outside-text": 19},
    ),
    case(
        "records-all-0",
        EXEC,
        lambda elf: elf.words(elf.slot(0), *[0] * 19),
        0,
        "",
        patch=(5, NO_SITE),
        summary__null=19,
    ),
    case(
        "records-all-of-asm-nops-plus-4",
        EXEC,
        lambda elf: elf.words(elf.slot(0), *[elf.value("asm_nops") + 4] * 19),
        0,
        "",
        patch=(5, NO_SITE),
    ),
    case(
        "records-half-of-another-layout",
        CALLOPS,
        lambda elf: elf.words(elf.slot(3), *[elf.get(WORD, elf.slot(n), "word") + 8 for n in range(3, 19)]),
        0,
        "",
        patch=(
            5,
            "ftrace_caller does not fit the layout of the sites: found a load of an ops pointer in "
            "ftrace_caller, expected no load of one in layout pfe2 – is --layout forced wrongly, or is this "
            "another kernel's vmlinux?",
        ),
    ),
    # relocations of a kernel
    case(
        "relocation-across-two-slots",
        PFE2,
        lambda elf: elf.rela(".rela.dyn", 10, r_offset=elf.value("__start_mcount_loc") + 4),
        3,
        "record table 0xffff800080020010..0xffff8000800200a8: a relocation lies across two slots: found "
        "0xffff800080020014",
    ),
    case(
        "relocation-into-the-first-slot-from-before",
        PFE2,
        lambda elf: elf.rela(".rela.dyn", 24, r_offset=elf.value("__start_mcount_loc") - 4),
        3,
        "record table 0xffff800080020010..0xffff8000800200a8: a relocation lies across two slots: found "
        "0xffff80008002000c",
    ),
    case(
        "relocation-of-another-type",
        PFE2,
        lambda elf: elf.rela(".rela.dyn", 16, r_info=ABS64),
        0,
        "",
        patch=(5, NO_SITE),
    ),
    case(
        "relocation-addend-nowhere",
        PFE2,
        lambda elf: elf.rela(".rela.dyn", 16, r_addend=NOWHERE),
        0,
        "",
        patch=(5, NO_SITE),
        sites__13__status="outside-text",
    ),
    case(
        "relocation-addend-0",
        PFE2,
        lambda elf: elf.rela(".rela.dyn", 16, r_addend=0),
        0,
        "",
        patch=(5, NO_SITE),
        sites__13__status="null",
    ),
    case(
        "relocation-addend-minus-4",
        PFE2,
        lambda elf: elf.rela(".rela.dyn", 16, r_addend=MASK64 - 3),
        0,
        "",
        patch=(5, NO_SITE),
        sites__13__status="outside-text",
    ),
    case(
        "relocation-of-a-slot-twice-first",
        PFE2,
        same_slot_twice(0),
        3,
        "record table 0xffff800080020010..0xffff8000800200a8: a slot has two relocations: found slot 13",
    ),
    case(
        "relocation-of-a-slot-twice-last",
        PFE2,
        same_slot_twice(24),
        3,
        "record table 0xffff800080020010..0xffff8000800200a8: a slot has two relocations: found slot 13",
    ),
    case(
        "relocation-removed",
        PFE2,
        lambda elf: elf.rela(".rela.dyn", 16, r_offset=0, r_info=0, r_addend=0),
        0,
        "",
        patch=(5, NO_SITE),
        sites__13__status="null",
    ),
    case(
        "relocation-and-packed-relocation-of-one-slot",
        CALLOPS,
        lambda elf: elf.rela(
            ".rela.dyn", 0, r_offset=elf.value("__start_mcount_loc") + 8 * 12, r_addend=0xFFFF8000800007B0
        ),
        3,
        "record table 0xffff800080020010..0xffff8000800200a8: a slot has two relocations: found slot 12",
    ),
    case(
        "relocation-of-the-ops-literal",
        CALLOPS,
        lambda elf: elf.rela(".rela.dyn", 0, r_offset=0xFFFF8000800007B0),
        0,
        "",
        patch=(
            5,
            "1 of 1 chosen sites cannot be patched: found vfs_read (row 12, .text+0x3b8): its ops literal at "
            "0xffff8000800007b0 has a relocation, expected all of them, or nothing is written – "
            "--skip-unpatchable patches the others",
        ),
    ),
    case(
        "relocation-into-the-ops-literal",
        CALLOPS,
        lambda elf: elf.rela(".rela.dyn", 0, r_offset=0xFFFF8000800007B4),
        0,
        "",
        patch=(
            5,
            "1 of 1 chosen sites cannot be patched: found vfs_read (row 12, .text+0x3b8): its ops literal at "
            "0xffff8000800007b0 has a relocation, expected all of them, or nothing is written – "
            "--skip-unpatchable patches the others",
        ),
    ),
    case("no-free-relocation", CALLOPS, lambda elf: elf.sh(".rela.dyn", sh_size=0x30), 0, "", patch=(0, "")),
    case(
        "ops-literal-not-empty",
        CALLOPS,
        lambda elf: elf.words(elf.pos(0xFFFF8000800007B0), 1),
        0,
        "",
        patch=(
            5,
            "1 of 1 chosen sites cannot be patched: found vfs_read (row 12, .text+0x3b8): its ops literal at "
            "0xffff8000800007b0 is not empty, expected all of them, or nothing is written – --skip-unpatchable "
            "patches the others",
        ),
    ),
    # RELR
    case(
        "relr-starts-with-a-bitmap",
        CALLOPS,
        relr_is(0x7FFFF),
        3,
        ".relr.dyn: RELR table starts with a bitmap: found 0x000000000007ffff, expected an address",
    ),
    case("relr-empty", CALLOPS, relr_is(), 0, "", patch=(0, ""), carrier="word"),
    case("relr-of-zeros", CALLOPS, relr_is(0, 0, 0, 0, 0, 0), 0, "", patch=(0, ""), carrier="word"),
    case("relr-address-max", CALLOPS, relr_is(MASK64 - 1, MASK64, MASK64), 0, "", patch=(0, ""), carrier="word"),
    case(
        "relr-wraps-round-the-address-space",
        CALLOPS,
        relr_is(MASK64 - 1, *[MASK64] * 5),
        0,
        "",
        patch=(0, ""),
        carrier="word",
    ),
    case("relr-half-of-the-slots", CALLOPS, relr_is(0xFFFF800080020010, 0xFFF), 0, "", patch=(0, ""), carrier="mixed"),
    case(
        "relr-places-between-slots",
        CALLOPS,
        relr_is(0xFFFF800080020014, 0x7FFFF),
        3,
        "record table 0xffff800080020010..0xffff8000800200a8: a relocation lies across two slots: found "
        "0xffff800080020014",
    ),
    case(
        "relr-repeats-one-window",
        CALLOPS,
        lambda elf: elf.add(
            struct.pack("<QQ", 0xFFFF800080020010, MASK64) * 1000,
            sh_type=SHT_RELR,
            sh_entsize=8,
            sh_name=elf.name_at(".relr.dyn"),
        ),
        3,
        ".relr.dyn: RELR table covers the same words more than once: found 19000 places",
    ),
    case(
        "relr-repeats-one-address",
        CALLOPS,
        lambda elf: elf.add(
            struct.pack("<Q", 0xFFFF800080020010) * 4000,
            sh_type=SHT_RELR,
            sh_entsize=8,
            sh_name=elf.name_at(".relr.dyn"),
        ),
        3,
        ".relr.dyn: RELR table covers the same words more than once: found 4000 places",
    ),
    case(
        "relr-of-a-nameless-section-repeats-one-window",
        CALLOPS,
        lambda elf: elf.add(struct.pack("<QQ", 0xFFFF800080020010, MASK64) * 1000, sh_type=SHT_RELR, sh_entsize=8),
        3,
    ),
    case(
        "relr-never-ends",
        CALLOPS,
        lambda elf: never_ends(elf.sh(".relr.dyn", sh_size=0)),
        0,
        "",
        patch=(0, ""),
        summary__live=16,
    ),
    case(
        "relr-never-ends-and-another-one",
        CALLOPS,
        lambda elf: never_ends(elf),
        3,
        "record table 0xffff800080020010..0xffff8000800200a8: a slot has two relocations: found slot 0",
    ),
    case(
        "relr-table-twice",
        CALLOPS,
        lambda elf: elf.add(
            b"", sh_type=SHT_RELR, sh_entsize=8, sh_offset=elf.of_sec(".relr.dyn", "sh_offset"), sh_size=0x30
        ),
        3,
        "sections overlap in the file: found .relr.dyn and 15 share bytes",
    ),
    # objects and modules
    case(
        "record-section-not-a-multiple",
        MODULE,
        lambda elf: elf.sh("__patchable_function_entries", sh_size=0x2C),
        3,
        "section 14 __patchable_function_entries: the record section holds no whole number of slots: found 44 bytes",
    ),
    case(
        "record-section-shorter-than-its-relocations",
        MODULE,
        lambda elf: elf.sh("__patchable_function_entries", sh_size=0x28),
        3,
        "section 14 __patchable_function_entries: a record's relocation lies outside the section's slots",
    ),
    case(
        "record-section-longer-than-its-relocations",
        MODULE,
        lambda elf: elf.sh("__patchable_function_entries", sh_size=0x48),
        0,
        "",
    ),
    case(
        "record-section-nobits",
        MODULE,
        lambda elf: elf.sh("__patchable_function_entries", sh_type=SHT_NOBITS),
        0,
        "",
        summary__slots=0,
    ),
    case("record-relocations-for-another-section", MODULE, lambda elf: elf.sh(RELA_PFE, sh_info=2), 0, ""),
    case("record-relocations-for-no-section", MODULE, lambda elf: elf.sh(RELA_PFE, sh_info=MASK64), 0, ""),
    case(
        "record-relocations-end-inside-a-row",
        MODULE,
        lambda elf: elf.sh(RELA_PFE, sh_size=0x8F),
        3,
        "section .rela__patchable_function_entries is 143 bytes long, which is no multiple of its 24-byte rows",
    ),
    case(
        "record-relocations-in-rows-of-16-bytes",
        MODULE,
        lambda elf: elf.sh(RELA_PFE, sh_entsize=16),
        3,
        "section .rela__patchable_function_entries: wrong sh_entsize: found 16, expected 24",
    ),
    case("record-relocations-of-another-type", MODULE, lambda elf: elf.sh(RELA_PFE, sh_type=9), 0, ""),
    case(
        "record-relocation-across-two-slots",
        MODULE,
        lambda elf: elf.rela(RELA_PFE, 1, r_offset=4),
        3,
        "section 14 __patchable_function_entries: a record's relocation lies outside the section's slots",
    ),
    case(
        "record-relocation-behind-the-slots",
        MODULE,
        lambda elf: elf.rela(RELA_PFE, 1, r_offset=0x30),
        3,
        "section 14 __patchable_function_entries: a record's relocation lies outside the section's slots",
    ),
    case(
        "record-relocation-at-max",
        MODULE,
        lambda elf: elf.rela(RELA_PFE, 1, r_offset=MASK64 - 7),
        3,
        "section 14 __patchable_function_entries: a record's relocation lies outside the section's slots",
    ),
    case(
        "record-relocation-to-no-symbol",
        MODULE,
        lambda elf: elf.rela(RELA_PFE, 1, r_info=46 << 32 | ABS64),
        3,
        "section 14 __patchable_function_entries: a record's relocation names no symbol of this file: found "
        "symbol 46, expected less than 46",
    ),
    case(
        "record-relocation-to-symbol-max",
        MODULE,
        lambda elf: elf.rela(RELA_PFE, 1, r_info=0xFFFFFFFF << 32 | ABS64),
        3,
        "section 14 __patchable_function_entries: a record's relocation names no symbol of this file: found "
        "symbol 4294967295, expected less than 46",
    ),
    case(
        "record-relocation-to-symbol-0",
        MODULE,
        lambda elf: elf.rela(RELA_PFE, 1, r_info=ABS64),
        3,
        "section 14 __patchable_function_entries: a record names a symbol that is not defined here: found slot 1",
    ),
    case(
        "record-relocation-of-a-foreign-type",
        MODULE,
        lambda elf: elf.rela(RELA_PFE, 1, r_info=elf.relocation(RELA_PFE, 1, "r_info") & ~0xFFFF | 258),
        3,
        "section 14 __patchable_function_entries: a record has a relocation of another type: found type 258, expected "
        "type 257, a 64-bit address",
    ),
    case(
        "record-relocation-addend-behind-the-section",
        MODULE,
        lambda elf: elf.rela(RELA_PFE, 1, r_addend=0x10000),
        0,
        "",
        sites__1__status="unexpected",
    ),
    case(
        "record-relocation-addend-negative",
        MODULE,
        lambda elf: elf.rela(RELA_PFE, 1, r_addend=MASK64 - 7),
        0,
        "",
        sites__1__status="unexpected",
    ),
    case(
        "record-relocation-twice-for-one-slot",
        MODULE,
        lambda elf: elf.rela(RELA_PFE, 1, r_offset=0),
        3,
        "section 14 __patchable_function_entries: a slot has two relocations: found slot 0",
    ),
    case(
        "module-without-symbols",
        MODULE,
        lambda elf: elf.sh(".symtab", sh_type=1),
        3,
        "section 14 __patchable_function_entries: a record's relocation names no symbol of this file: found "
        "symbol 3, expected less than 0",
    ),
    case(
        "object-with-bss-larger-than-the-file",
        OBJECT,
        lambda elf: elf.sh(".bss", sh_size=1 << 32),
        0,
        "",
        summary__by_status={"ready": 8},
    ),
    case("object-record-in-another-section", OBJECT, lambda elf: elf.rela(RELA_PFE, 0, r_info=3 << 32 | ABS64), 0, ""),
    # programs
    case(
        "program-records-at-the-end-of-the-address-space",
        PROGRAM,
        lambda elf: elf.sh("__patchable_function_entries", sh_addr=MASK64 - 7),
        3,
        "section __patchable_function_entries ends behind the last address: found 0xfffffffffffffff8 + 0x20",
    ),
    case(
        "program-records-end-at-the-end-of-the-address-space",
        PROGRAM,
        lambda elf: elf.sh("__patchable_function_entries", sh_addr=MASK64 - 31),
        3,
        "section __patchable_function_entries ends behind the last address: found 0xffffffffffffffe0 + 0x20",
    ),
    case(
        "program-records-not-a-multiple",
        PROGRAM,
        lambda elf: elf.sh("__patchable_function_entries", sh_size=0x1C),
        3,
        "record table 0x2000..0x201c: the ends of the record table do not fit: found 28 bytes, expected a "
        "positive multiple of 8, aligned",
    ),
    case(
        "program-records-not-loaded",
        PROGRAM,
        lambda elf: elf.sh("__patchable_function_entries", sh_flags=0),
        3,
        "record table 0x2000..0x2020: the record table does not lie in one section of the file",
    ),
    case(
        "program-records-empty",
        PROGRAM,
        lambda elf: elf.sh("__patchable_function_entries", sh_size=0),
        0,
        "",
        summary__slots=0,
    ),
]


# -- ppc64le: stubs out of line, far calls, early boot ---------------------------------------------------------

AREAS = ("ftrace_ool_stub_text", "ftrace_ool_stub_text_end", "ftrace_ool_stub_inittext")
PPC_READ_ROW, PPC_READ = 16, {OOL: 0xC000000000000A68, FAR: 0xC000000000000A18}
PPC_NOP = 0x6000_0000
LAST_TEXT, LAST_INIT = 0xC000000000000DC0, 0xC000000000001BA0  # the last slots of the areas that end them
KERNEL_TEXT, KERNEL_DATA = 0xC000000000000400, 0xC000000000002400


def word_is(va: int, *words: int) -> Build:
    return lambda elf: struct.pack_into(f"<{len(words)}I", elf.raw, elf.pos(va), *words)


def count_is(area: str, n: int) -> Build:
    return lambda elf: word_is(elf.value(area + "_count"), n)(elf)


def symbol_is(symbol: str, **fields: int) -> Build:
    return lambda elf: elf.sym(symbol, **fields)


def moved(symbol: str, by: int) -> Build:
    return lambda elf: elf.sym(symbol, st_value=elf.value(symbol) + by)


def without(symbol: str, size: int, bits: int, mask: int, new: int = PPC_NOP) -> Build:
    """The instructions of that pattern in `size` bytes of code become another one."""

    def build(elf: Elf) -> object:
        first, found = elf.pos(elf.value(symbol)), 0
        for at in range(first, first + size, 4):
            if struct.unpack_from("<I", elf.raw, at)[0] & mask == bits:
                struct.pack_into("<I", elf.raw, at, new)
                found += 1
        assert found
        return elf

    return build


def row_of(elf: Elf, va: int) -> int:
    """Row of the relocation at va."""
    n = elf.of_sec(".rela.dyn", "sh_size") // RELA_SIZE
    return next(row for row in range(n) if elf.relocation(".rela.dyn", row, "r_offset") == va)


def record_relocation(row: int, **fields: int) -> Build:
    """Change the relocation that fills slot `row`."""
    return lambda elf: elf.rela(".rela.dyn", row_of(elf, elf.value("__start_mcount_loc") + 8 * row), **fields)


def relocation_at(va: int) -> Build:
    """The relocation of b_ctor, which no record needs, is at `va` instead."""
    return lambda elf: elf.rela(".rela.dyn", row_of(elf, elf.value("b_ctor")), r_offset=va)


def both(*builds: Build) -> Build:
    return lambda elf: [build(elf) for build in builds]


TRAMPS = ("ftrace_tramp_text", "ftrace_tramp_init")
TOC_LOAD = (0xE84D_0000, 0xFFFF_0003)  # ld r2,X(r13)
OPS_LOAD = (0xE80B_FFF0, 0xFC1F_FFFF)  # ld rX,-16(r11)
CALL = (0x4800_0001, 0xFC00_0003)  # bl

SIZES = {AREAS[0]: (4, 96), AREAS[1]: (17, 408), AREAS[2]: (11, 264)}  # slots and bytes
NO_FUNCTION = "{}: no such symbol: found nothing of that name in .symtab, expected a defined symbol"
NOT_EMPTY = (
    "a stub slot that the kernel will hand out is not empty: found ftrace_ool_stub_text_end – another tool patched "
    "this image"
)
READ_SITE, LATE_SITE = "vfs_read (row 16, .text+0x868)", "b_late (row 31, .init.text+0x658)"
FAR_SITE, SPAN = "b_late (row 31, .init.text+0xbf8)", "a call spans -0x2000000..+0x1fffffc"
TOO_FAR = "out of reach: -0x2000330 bytes to ftrace_caller, "
NO_SLOT = "out of reach: no free stub slot that its branch reaches"
UNEXPECTED = "unexpected words, or not at a function's entry"
DISAGREE = "its record's word and relocation disagree"


def unfit(area: str, size: int | None = None, n: int | None = None, each: int = 24) -> tuple[int, str]:
    n, size = SIZES[area][0] if n is None else n, SIZES[area][1] if size is None else size
    return (
        5,
        f"{area}: an area of out-of-line stubs does not fit the kernel's code: found {size} bytes for {n} stubs, "
        f"expected {each} bytes each",
    )


def missing(area: str) -> tuple[int, str]:
    return 5, f"an area of out-of-line stubs is missing: found no {area} with its count"


def unpatchable(*reasons: str, n: int = 1) -> tuple[int, str]:
    """Each reason begins with the site."""
    return (
        5,
        f"{n} of {n} chosen sites cannot be patched: found {'; '.join(reasons)}, expected all of them, or nothing is "
        "written – --skip-unpatchable patches the others",
    )


PPC64LE = [
    case("ool-untouched-but-for-the-flags-of-the-machine", OOL, lambda elf: elf.ehdr(e_flags=0), patch=(0, "")),
    # the areas of stubs
    *[case(f"ool-count-of-{area}-is-{n:#x}", OOL, count_is(area, n), 0, "", patch=unfit(area, n=n))
      for area in AREAS for n in (0, 1, 100, 0xFFFF_FFFF)],
    *[case(f"ool-size-of-{area}-is-{n:#x}", OOL, symbol_is(area, st_size=n), 0, "", patch=unfit(area, n))
      for area in AREAS for n in (0, 8, MASK64)],
    *[case(f"ool-no-{area}", OOL, symbol_is(area, st_shndx=0), 0, "", patch=missing(area)) for area in AREAS],
    *[case(f"ool-no-{area}-count", OOL, symbol_is(f"{area}_count", st_shndx=0), 0, "", patch=missing(area))
      for area in AREAS],
    case("ool-count-in-bss", OOL, symbol_is(AREAS[1] + "_count", st_value=0xC000000000002800), 0, "",
         patch=missing(AREAS[1])),
    case("ool-count-at-max", OOL, symbol_is(AREAS[1] + "_count", st_value=MASK64), 0, "", patch=missing(AREAS[1])),
    case("ool-count-misaligned", OOL, moved(AREAS[1] + "_count", 1), 0, "", patch=unfit(AREAS[1], n=0)),
    case("ool-count-on-the-last-byte-of-data", OOL, symbol_is(AREAS[1] + "_count", st_value=0xC000000000002747), 0, "",
         patch=unfit(AREAS[1], n=192)),
    case("ool-area-in-data", OOL, symbol_is(AREAS[1], st_value=KERNEL_DATA), 0, "", patch=(5, NOT_EMPTY)),
    case("ool-area-in-bss", OOL, symbol_is(AREAS[1], st_value=0xC000000000002800), 0, "", patch=unfit(AREAS[1])),
    case("ool-area-nowhere", OOL, symbol_is(AREAS[1], st_value=NOWHERE), 0, "", patch=unfit(AREAS[1])),
    case("ool-area-at-max", OOL, symbol_is(AREAS[1], st_value=MASK64), 0, "", patch=unfit(AREAS[1])),
    case("ool-area-misaligned", OOL, moved(AREAS[1], 2), 0, "", patch=(5, None)),
    case("ool-area-over-functions", OOL, symbol_is(AREAS[1], st_value=KERNEL_TEXT), 0, "", patch=(5, None)),
    case("ool-area-one-slot-down", OOL, moved(AREAS[1], -24), 0, "", patch=(5, NOT_EMPTY)),
    case("ool-area-one-slot-up", OOL, moved(AREAS[1], 24), 0, "", patch=(0, "")),
    case("ool-area-over-another", OOL, lambda elf: elf.sym(AREAS[0], st_value=elf.value(AREAS[1])), 0, ""),
    case("ool-slot-that-is-handed-out-not-empty", OOL, word_is(0xC000000000000C40, 1), 0, "", patch=(5, NOT_EMPTY)),
    case("ool-only-free-slot-not-empty", OOL, word_is(LAST_TEXT + 8, 1), 0, "",
         patch=unpatchable(f"{READ_SITE}: {NO_SLOT}")),
    case("ool-relocation-in-the-only-free-slot", OOL, relocation_at(LAST_TEXT), 0, "",
         patch=unpatchable(f"{READ_SITE}: {NO_SLOT}")),
    case("ool-relocation-in-the-middle-of-the-only-free-slot", OOL, relocation_at(LAST_TEXT + 16), 0, "",
         patch=unpatchable(f"{READ_SITE}: {NO_SLOT}")),
    case("ool-relocation-into-the-only-free-slot-from-before", OOL, relocation_at(LAST_TEXT - 4), 0, "",
         patch=(5, NOT_EMPTY)),
    case("ool-relocation-in-the-only-free-slot-of-init-text", OOL, relocation_at(LAST_INIT), 0, "", choice="b_late",
         patch=unpatchable(f"{LATE_SITE}: {NO_SLOT}")),
    # records whose word and relocation disagree
    case("ool-word-of-the-record-is-0", OOL, slot_is(PPC_READ_ROW, 0), 0, "",
         patch=unpatchable(f"{READ_SITE}: {DISAGREE}")),
    case("ool-word-of-the-record-is-the-next-one", OOL, slot_is(PPC_READ_ROW, PPC_READ[OOL] + 4), 0, "",
         patch=unpatchable(f"{READ_SITE}: {DISAGREE}")),
    case("ool-word-of-another-record-is-0", OOL, slot_is(PPC_READ_ROW - 1, 0), 0, ""),
    case("ool-relocation-of-the-record-is-another-one", OOL,
         record_relocation(PPC_READ_ROW, r_addend=PPC_READ[OOL] + 4), 0, "", patch=(5, NO_SITE)),
    case("ool-relocation-of-the-record-is-none", OOL, record_relocation(PPC_READ_ROW, r_info=0), 0, "",
         patch=unpatchable(f"{READ_SITE}: {DISAGREE}")),
    case("ool-relocation-of-the-record-is-unaligned", OOL, record_relocation(PPC_READ_ROW, r_info=43), 0, "",
         patch=unpatchable(f"{READ_SITE}: {DISAGREE}")),
    case("ool-relocation-of-the-record-has-a-symbol", OOL, record_relocation(PPC_READ_ROW, r_info=1 << 32 | 22), 0, ""),
    case("ool-relocation-of-the-record-is-elsewhere", OOL, record_relocation(PPC_READ_ROW, r_offset=KERNEL_DATA), 0,
         "", patch=unpatchable(f"{READ_SITE}: {DISAGREE}")),
    case("ool-two-relocations-of-one-record", OOL,
         lambda elf: relocation_at(elf.value("__start_mcount_loc") + 8 * PPC_READ_ROW)(elf), 3,
         "record table 0xc000000000001c10..0xc000000000001d10: a slot has two relocations: found slot 16"),
    case("ool-relocation-across-two-records", OOL,
         lambda elf: relocation_at(elf.value("__start_mcount_loc") + 4)(elf), 3,
         "record table 0xc000000000001c10..0xc000000000001d10: a relocation lies across two slots: found "
         "0xc000000000001c14"),
    case("ool-relocations-not-loaded", OOL, lambda elf: elf.sh(".rela.dyn", sh_flags=0), 0, "", patch=(0, "")),
    case("ool-relocations-in-rows-of-16-bytes", OOL, lambda elf: elf.sh(".rela.dyn", sh_entsize=16), 3,
         "section .rela.dyn: wrong sh_entsize: found 16, expected 24"),
    case("ool-all-records-the-same", OOL, lambda elf: [record_relocation(n, r_addend=PPC_READ[OOL])(elf)
         and slot_is(n, PPC_READ[OOL])(elf) for n in range(32)], 0, "", patch=unpatchable(
        *[f"vfs_read (row {n}, .text+0x868): several records name this site" for n in range(3)], "…", n=32)),
    case("ool-record-in-the-big-endian-code-of-the-head", OOL, both(
        record_relocation(PPC_READ_ROW, r_addend=0xC000000000000010), slot_is(PPC_READ_ROW, 0xC000000000000010)), 0, "",
        patch=(5, NO_SITE)),
    case("ool-no-records", OOL, lambda elf: elf.sym("__stop_mcount_loc", st_value=elf.value("__start_mcount_loc")), 0,
         "", patch=(5, NO_SITE), summary__slots=0),
    # the site
    case("ool-site-is-a-branch-to-nowhere", OOL, word_is(PPC_READ[OOL], 0x4800_0400), 0, "",
         patch=unpatchable(f"{READ_SITE}: {UNEXPECTED}")),
    case("ool-site-is-a-branch-to-itself", OOL, word_is(PPC_READ[OOL], 0x4800_0000), 0, "",
         patch=unpatchable(f"{READ_SITE}: {UNEXPECTED}")),
    case("ool-site-is-the-end-of-a-stub", OOL, both(
        word_is(PPC_READ[OOL], 0x4800_0000 | LAST_TEXT + 8 - PPC_READ[OOL]),
        word_is(LAST_TEXT + 8, 0x7C08_02A6, 0x4800_0001, 0x7C08_03A6, 0x4BFF_FFF0)), 0, "",
         patch=unpatchable(f"{READ_SITE}: {UNEXPECTED}")),
    *[case(f"ool-st-other-of-the-function-is-{n << 5:#x}", OOL, symbol_is("vfs_read", st_other=n << 5), 0, "",
           patch=(5, NO_SITE)) for n in (0, 1, 2, 4, 7)],
    # the trampoline
    case("ool-trampoline-without-its-load-of-the-ops", OOL, without("ftrace_caller", 0xA8, *OPS_LOAD), 0, "",
         patch=unfit(AREAS[0], each=16)),
    case("ool-trampoline-without-its-load-of-the-toc", OOL, without("ftrace_caller", 0xA8, *TOC_LOAD), 0, "",
         patch=(0, "")),
    case("ool-trampoline-of-zeros", OOL, lambda elf: word_is(elf.value("ftrace_caller"), *[0] * 42)(elf), 0, "",
         patch=unfit(AREAS[0], each=16)),
    case("ool-trampoline-of-ones", OOL, lambda elf: word_is(elf.value("ftrace_caller"), *[MASK64 >> 32] * 42)(elf), 0,
         "", patch=unfit(AREAS[0], each=16)),
    case("ool-trampoline-missing", OOL, symbol_is("ftrace_caller", st_shndx=0), 0, "", patch=(
        5, NO_FUNCTION.format("ftrace_caller"))),
    case("ool-trampoline-on-the-last-word-of-text", OOL, symbol_is("ftrace_caller", st_value=0xC000000000000E54), 0,
         "", patch=unfit(AREAS[0], each=16)),
    case("ool-trampoline-in-the-head", OOL, symbol_is("ftrace_caller", st_value=0xC000000000000010), 0, "",
         patch=unfit(AREAS[0], each=16)),
    case("ool-ops-missing", OOL, symbol_is("ftrace_list_ops", st_shndx=0), 0, "", patch=(
        5, NO_FUNCTION.format("ftrace_list_ops"))),
    case("ool-ops-too-small", OOL, symbol_is("ftrace_list_ops", st_size=207), 0, "", patch=(
        5, "--ops list: not an ftrace_ops: found symbol type 1, 207 bytes, expected an object of at least 208 bytes: "
        "direct_call is read at 200")),
    case("ool-ops-just-large-enough", OOL, symbol_is("ftrace_list_ops", st_size=208), 0, "", patch=(0, "")),
    case("ool-ops-at-max", OOL, symbol_is("ftrace_list_ops", st_value=MASK64), 0, "", patch=(
        5, "--ops list: not an ftrace_ops: found 0xffffffffffffffff, expected an object in a data section")),
    case("ool-ops-without-end", OOL, symbol_is("ftrace_list_ops", st_size=MASK64), 0, "", patch=(
        5, "--ops list: not an ftrace_ops: found 0xc000000000000f30, expected an object in a data section")),
    # init text
    *[case(f"ool-{symbol.strip('_')}-is-{value:#x}", OOL, symbol_is(symbol, st_value=value), 0, "")
      for symbol in ("_sinittext", "_einittext", "__init_begin") for value in (0, MASK64)],
    case("ool-init-text-without-bounds", OOL, both(*[symbol_is(name, st_shndx=0) for name in (
        "_sinittext", "_einittext", "__init_begin", "__init_end")]), 0, "", patch=(5, None)),
    # early boot
    case("ool-early-setup-missing", OOL, symbol_is("early_setup", st_shndx=0), 0, "", patch=(0, "")),
    case("ool-setup-paca-missing", OOL, symbol_is("setup_paca", st_shndx=0), 0, "", patch=(0, "")),
    case("ool-early-functions-are-refused-without-early-setup", OOL, symbol_is("early_setup", st_shndx=0), 0, "",
         choice="fixup_boot_paca", patch=unpatchable(
             "fixup_boot_paca (row 30, .init.text+0x640): it runs before setup_paca is done, when ftrace_caller finds "
             "no paca (--force-early overrides)")),
    case("ool-early-setup-in-data", OOL, symbol_is("early_setup", st_value=KERNEL_DATA), 0, "", patch=(0, "")),
    case("ool-early-setup-at-max", OOL, symbol_is("early_setup", st_value=MASK64), 0, "", patch=(0, "")),
    case("ool-early-setup-is-a-loop", OOL, lambda elf: word_is(elf.value("early_setup") + 0x1C, 0x4800_0000)(elf), 0,
         "", patch=(0, "")),
    case("ool-early-setup-calls-itself", OOL, lambda elf: word_is(elf.value("early_setup") + 0x1C, 0x4BFF_FFE5)(elf),
         0, "", patch=(0, "")),
    case("ool-early-setup-calls-nothing", OOL, without("early_setup", 0x98, *CALL), 0, "", patch=(0, "")),
    case("ool-early-setup-calls-everything", OOL, lambda elf: word_is(elf.value("early_setup") + 12, *[
        0x4800_0001 | (elf.value(name) - elf.value("early_setup") - 12 - 4 * n & 0x3FF_FFFC) for n, name in enumerate(
            ("vfs_write", "start_kernel", "b_late", "ftrace_caller", "vfs_read", "setup_paca"))])(elf), 0, "",
         patch=unpatchable(f"{READ_SITE}: it runs before setup_paca is done, when ftrace_caller finds no paca "
                           "(--force-early overrides)")),
    case("ool-early-setup-jumps-out-of-the-kernel", OOL,
         lambda elf: word_is(elf.value("early_setup") + 0x1C, 0x49FF_FFFC)(elf), 0, "", patch=(0, "")),
    # far calls
    case("far-no-toc", FAR, symbol_is(".TOC.", st_shndx=0), 0, "", choice="b_late",
         patch=unpatchable(f"{FAR_SITE}: {TOO_FAR}{SPAN}")),
    case("far-no-toc-is-needed-nearby", FAR, symbol_is(".TOC.", st_shndx=0), 0, "", patch=(0, "")),
    *[case(f"far-toc-is-{value:#x}", FAR, symbol_is(".TOC.", st_value=value), 0, "", choice="b_late",
           patch=unpatchable(f"{FAR_SITE}: {TOO_FAR}{SPAN}"))
      for value in (0, MASK64, 0xC000000080010000, 1 << 63)],
    case("far-trampoline-without-its-load-of-the-toc", FAR, without("ftrace_caller", 0xC4, *TOC_LOAD), 0, "",
         choice="b_late", patch=unpatchable(f"{FAR_SITE}: {TOO_FAR}{SPAN}")),
    case("far-trampoline-with-another-load-of-the-toc", FAR,
         without("ftrace_caller", 0xC4, *TOC_LOAD, 0xE84D_7FFC), 0, "", choice="b_late", patch=(0, "")),
    case("far-trampoline-missing", FAR, symbol_is("ftrace_caller", st_shndx=0), 0, "", choice="b_late", patch=(
        5, NO_FUNCTION.format("ftrace_caller"))),
    case("far-no-trampoline-with-registers", FAR, symbol_is("ftrace_regs_caller", st_shndx=0), 0, "", choice="b_late",
         patch=(0, "")),
    case("far-trampoline-with-registers-nowhere", FAR, symbol_is("ftrace_regs_caller", st_value=NOWHERE), 0, "",
         choice="b_late"),
    case("far-no-trampolines-of-the-kernel", FAR, both(*[symbol_is(name, st_shndx=0) for name in TRAMPS]), 0, "",
         choice="b_late", patch=(0, "")),
    case("far-trampolines-not-empty", FAR, lambda elf: [word_is(elf.value(name), 1)(elf) for name in TRAMPS], 0, "",
         choice="b_late", patch=(0, "")),
    case("far-trampolines-not-empty-at-their-ends", FAR,
         lambda elf: [word_is(elf.value(name) + 16, 1)(elf) for name in TRAMPS], 0, "", choice="b_late",
         patch=(0, "")),
    *[case(f"far-trampolines-at-{value:#x}", FAR, both(*[symbol_is(name, st_value=value) for name in TRAMPS]), 0, "",
           choice="b_late") for value in (0, NOWHERE, MASK64, MASK64 - 15, 0xC000000002001800, 0xC000000002000C52)],
    case("far-relocation-into-the-trampoline", FAR, lambda elf: relocation_at(elf.value(TRAMPS[1]) + 12)(elf), 0, "",
         choice="b_late", patch=(0, "")),
    case("far-nothing-is-free", FAR, both(
        lambda elf: [word_is(elf.value(name), 1)(elf) for name in TRAMPS],
        lambda elf: elf.raw.__setitem__(slice(0x2404, 0x3000), b"\xff" * 0xBFC)), 0, "", choice="b_late",
        patch=unpatchable(f"{FAR_SITE}: {TOO_FAR}-0x200001c to text tail, {SPAN}")),
    *[case(f"far-{symbol.strip('_')}-is-{value:#x}", FAR, both(
        *[symbol_is(name, st_shndx=0) for name in TRAMPS], symbol_is(symbol, st_value=value)), 0, "", choice="b_late")
      for symbol in ("__init_begin", "_etext") for value in (0, 1, MASK64)],
    case("far-no-init-begin", FAR, both(
        *[symbol_is(name, st_shndx=0) for name in (*TRAMPS, "__init_begin")]), 0, "", choice="b_late",
         patch=unpatchable(f"{FAR_SITE}: {TOO_FAR}-0x200003c to text tail, {SPAN}")),
    case("far-segments-missing", FAR, both(
        *[symbol_is(name, st_shndx=0) for name in TRAMPS], lambda elf: elf.ehdr(e_phnum=0)), 0, "", choice="b_late",
        patch=unpatchable(f"{FAR_SITE}: {TOO_FAR}-0x200003c to text tail, {SPAN}")),
    *[case(f"far-segment-{field}-is-{value:#x}", FAR, both(
        *[symbol_is(name, st_shndx=0) for name in TRAMPS],
        lambda elf, field=field, value=value: elf.put(  # type: ignore[misc]
            PHDR, elf.get(EHDR, 0, "e_phoff") + PHDR_SIZE, field, value)), choice="b_late")
      for field in ("p_offset", "p_vaddr", "p_filesz") for value in (0, MASK64)],
    case("far-linker-stubs-of-one-name-to-nowhere", FAR, lambda elf: [
        elf.put(SYM, at, "st_name", elf.get(SYM, elf.symbol("00000033.long_branch.island"), "st_name"))
        for at in elf.symbols()], 0, ""),
]  # fmt: skip


def cut_at(end: int) -> Build:
    return lambda elf: elf.raw.__delitem__(slice(end, None))


def truncated(fixture: str) -> list[Case]:
    """The file cut inside every header and table, and beside their ends."""
    elf = Elf(fixture)
    size, shoff = len(elf.raw), elf.get(EHDR, 0, "e_shoff")
    ends = {4, 5, 6, 15, 16, 17, 40, 63, 64, 65, 64 + 20, 64 + PHDR_SIZE, size // 2, size - 1, shoff - 1, shoff}
    for index in range(elf.n_sections()):
        at = elf.header(index)
        ends |= {at + 1, at + 32, at + SHDR_SIZE - 1}
        if elf.get(SHDR, at, "sh_type") not in (0, SHT_NOBITS):
            first, length = elf.get(SHDR, at, "sh_offset"), elf.get(SHDR, at, "sh_size")
            ends |= {first, first + 1, first + length // 2, first + length - 1}
    table = shoff, shoff + SHDR_SIZE * elf.n_sections()
    found = []
    for end in sorted(end for end in ends if 4 <= end < size):
        code, message = 3, None
        if end < 16:
            message = ends_early("ELF header", 0, 16, end)
        elif end < 64:
            message = ends_early("ELF header", 0, 64, end)
        elif end < table[1]:
            message = ends_early("section header table", *table, end)
        found.append(case(f"{fixture}-cut-at-{end:#x}", fixture, cut_at(end), code, message))
    return found


def ends_early(what: str, first: int, last: int, size: int) -> str:
    return (
        f"{what} lies outside the file: found bytes {first:#x}..{last:#x}, expected at most {size:#x} "
        "– the file is truncated or corrupt"
    )


TRUNCATED = [one for fixture in (CALLOPS, MODULE) for one in truncated(fixture)]


def flipped(seed: int) -> Case:
    """One to eight random bytes of headers, symbols, relocations and records changed; the seed says which."""
    chance = random.Random(seed)
    fixture = chance.choice((CALLOPS, PFE2, EXEC, MODULE, OBJECT, PROGRAM))

    def build(elf: Elf) -> object:
        chance = random.Random(seed)
        chance.choice(range(6))
        table = elf.get(EHDR, 0, "e_shoff"), SHDR_SIZE * elf.n_sections()
        areas = [(0, 64), (64, PHDR_SIZE * elf.get(EHDR, 0, "e_phnum")), table, table]
        for index in range(elf.n_sections()):
            at = elf.header(index)
            if elf.get(SHDR, at, "sh_type") in (2, 3, SHT_RELA, SHT_RELR):
                areas.append((elf.get(SHDR, at, "sh_offset"), elf.get(SHDR, at, "sh_size")))
        if fixture in KERNELS:
            areas.append((elf.slot(0), 8 * N_SLOTS))
        for _ in range(chance.randint(1, 8)):
            first, size = chance.choice([area for area in areas if area[1]])
            at = first + chance.randrange(size)
            # the magic and the two bytes behind it have cases of their own; here they would hide the rest
            if at >= 6:
                elf.raw[at] ^= chance.choice((1, 0x80, 0xFF, chance.randrange(1, 256)))
        return elf

    return case(f"{fixture}-flips-{seed}", fixture, build)


FLIPPED = [flipped(seed) for seed in range(150)]


def flipped_code(seed: int) -> Case:
    """Some words of ftrace_caller, the early functions, the stubs and the tables of a ppc64le kernel changed."""
    chance = random.Random(1000 + seed)
    fixture = chance.choice((OOL, FAR))
    choice = chance.choice(("vfs_read", "b_late", "b_mid asm_toc", "* --skip-unpatchable", "* --force-early"))

    def build(elf: Elf) -> object:
        chance = random.Random(seed)
        spots = [elf.pos(elf.value(name)) for name in ("ftrace_caller", "early_setup", "initialise_paca", *TRAMPS)]
        spots += [elf.pos(elf.value(name)) - 8 for name in AREAS] if fixture == OOL else []
        spots += [elf.of_sec(".rela.dyn", "sh_offset"), elf.slot(0), elf.of_sec(".symtab", "sh_offset"), elf.header(0)]
        sizes = [0x80] * (len(spots) - 4) + [RELA_SIZE * 40, 256, elf.of_sec(".symtab", "sh_size"), SHDR_SIZE * 21]
        for _ in range(chance.randint(1, 6)):
            which = chance.randrange(len(spots))
            at = spots[which] + chance.randrange(sizes[which])
            elf.raw[at] ^= chance.choice((1, 4, 0x80, 0xFF, chance.randrange(1, 256)))
        return elf

    return case(f"{fixture}-code-{seed}", fixture, build, choice=choice)


FLIPPED_CODE = [flipped_code(seed) for seed in range(80)]

CASES = [*HEADERS, *SECTIONS, *SPECIAL, *PPC64LE, *TRUNCATED, *FLIPPED, *FLIPPED_CODE]


def parameters(cases: list[Case]) -> list[Any]:
    return [pytest.param(one, id=one.id) for one in cases]


@pytest.mark.parametrize("corrupt", parameters(CASES))
def test_corrupt_file_gets_an_answer_or_a_refusal_in_one_line(
    corrupt: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elf = Elf(corrupt.fixture)
    corrupt.build(elf)
    assert bytes(elf.raw) != original(corrupt.fixture)
    folder = tmp_path / "kernel"
    folder.mkdir()
    path = folder / corrupt.fixture
    path.write_bytes(elf.raw)
    code, document, message = check_scan(capsys, path)
    if corrupt.code is not None:
        assert code == corrupt.code
    if corrupt.message is not None:
        assert message == corrupt.message
    for key, value in corrupt.facts:
        assert look_up(document, key) == value
    assert path.read_bytes() == elf.raw
    if corrupt.fixture not in KERNELS:
        return
    patched, refusal = check_enable(capsys, path, choice=corrupt.choice)
    if code:
        assert (patched, refusal) == (code, message)
    if corrupt.patch:
        assert patched == corrupt.patch[0]
        if corrupt.patch[1] is not None:
            assert refusal == corrupt.patch[1]


@pytest.mark.parametrize("fixture", [CALLOPS, PFE2, EXEC, OOL, FAR, MODULE, OBJECT, PROGRAM])
def test_editor_without_a_change_leaves_a_good_file(
    fixture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The harness itself: an untouched fixture passes every check of a corrupted one, and is patched."""
    path = tmp_path / fixture
    path.write_bytes(Elf(fixture).raw)
    assert check_scan(capsys, path)[0] == 0
    if fixture in KERNELS:
        assert check_enable(capsys, path) == (0, "")


def test_case_ids_are_unique() -> None:
    assert len({one.id for one in CASES}) == len(CASES)


def test_free_relocations_that_two_tables_share_are_not_used_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second .rela.dyn over the bytes of the first doubles the eight free rows; sixteen sites want sixteen."""
    elf = Elf(CALLOPS)
    second_rela(elf)
    path = tmp_path / CALLOPS
    path.write_bytes(elf.raw)
    line = f"ftpatch: {path}: sections overlap in the file: found .rela.dyn and .rela.dyn share bytes"
    answer = command(capsys, "enable", str(path), "--func", "*", "-o", str(tmp_path / "out"))
    assert answer == (3, "", [line])
    assert not (tmp_path / "out").exists()


def test_free_relocations_of_two_tables_are_all_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second .rela.dyn with eight free rows of its own: enough for the literals of all sixteen sites."""
    elf = Elf(CALLOPS)
    place = elf.of_sec(".bss", "sh_addr") + 0x10000
    elf.add(bytes(8 * RELA_SIZE), sh_type=SHT_RELA, sh_flags=ALLOC, sh_entsize=RELA_SIZE, sh_addr=place,
            sh_name=elf.name_at(".rela.dyn"))  # fmt: skip
    path = tmp_path / CALLOPS
    path.write_bytes(elf.raw)
    assert check_enable(capsys, path, "--ops-via", "literal", choice=("--func", "*")) == (0, "")
    table = path.with_name("out").read_bytes()[-SHDR_SIZE * 16 - 8 * RELA_SIZE :]
    assert sum(any(table[RELA_SIZE * n : RELA_SIZE * (n + 1)]) for n in range(8)) == 8


@pytest.mark.parametrize("value", [0, NOWHERE, MASK64])
def test_ops_out_of_reach_of_a_thunk_are_refused(
    value: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / CALLOPS
    path.write_bytes(Elf(CALLOPS).sym("ftrace_list_ops", st_value=value).raw)
    assert check_enable(capsys, path, "--ops-via", "thunk") == (
        5, f"--ops list: not an ftrace_ops: found {value:#x}, expected an object in a data section",
    )  # fmt: skip


def test_ops_in_data_out_of_reach_of_a_thunk_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An ADRP reaches 4 GiB; a thunk keeps some distance from that."""
    elf, place = Elf(CALLOPS), 0xFFFF800180000000
    elf.add(bytes(96), sh_type=1, sh_flags=ALLOC, sh_addr=place)
    elf.sym("ftrace_list_ops", st_value=place)
    path = tmp_path / CALLOPS
    path.write_bytes(elf.raw)
    assert check_enable(capsys, path, "--ops-via", "thunk") == (
        5, f"the ops are too far from the text for a thunk: found ftrace_list_ops {place:#x}",
    )  # fmt: skip
    assert check_enable(capsys, path, "--ops-via", "literal") == (0, "")


# -- huge ones, each in a process of its own -------------------------------------------------------------------

HIGH = 0xFFFF900000000000
CPU = 5  # seconds; the files have a few MiB, which a healthy scan reads in well under one


def huge(elf: Elf, folder: Path, *arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of one command on the file under a limit of address space and CPU time."""
    path = folder / "huge"
    path.write_bytes(elf.raw)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU))

    line = [sys.executable, "-m", "ftpatch", *(arguments or ("scan",)), str(path)]
    done = subprocess.run(line, cwd=ROOT, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert sorted(file.name for file in folder.iterdir()) in (["huge"], ["huge", "out"])
    return done.returncode, done.stdout, done.stderr


def is_sober(answer: tuple[int, str, str]) -> bool:
    """Whether the command ended by itself, with an answer or a refusal in one line."""
    code, _, err = answer
    return code == 0 or (code in (3, 4, 5) and len(err.splitlines()) == 1 and err.startswith("ftpatch: "))


def each_its_bytes(elf: Elf, first: int, n: int) -> None:
    """Deal the bytes that n sections share out among them."""
    pos, size = elf.get(SHDR, elf.header(first), "sh_offset"), elf.get(SHDR, elf.header(first), "sh_size") // n
    for i in range(n):
        elf.put(SHDR, elf.header(first + i), "sh_offset", pos + i * size)
        elf.put(SHDR, elf.header(first + i), "sh_size", size)


def move_table(elf: Elf, n: int) -> Elf:
    """The record table becomes n zeros in a section of its own."""
    elf.add(bytes(8 * n), sh_type=1, sh_flags=ALLOC, sh_addr=HIGH)
    return elf.sym("__start_mcount_loc", st_value=HIGH).sym("__stop_mcount_loc", st_value=HIGH + 8 * n)


def test_table_of_three_million_nulls_is_counted(tmp_path: Path) -> None:
    code, out, err = huge(move_table(Elf(EXEC), 3_000_000), tmp_path)
    assert (code, err) == (0, "")
    assert "  records    3000000 slots, 3000000 null, 0 live\n" in out


def test_packed_relocations_of_24_mib_that_run_past_the_table_are_read(tmp_path: Path) -> None:
    elf = Elf(CALLOPS).sh(".relr.dyn", sh_size=0)
    table = struct.pack("<Q", elf.value("__start_mcount_loc")) + bytes([255]) * 8 * 3_000_000
    elf.add(table, sh_type=SHT_RELR, sh_entsize=8)
    code, out, err = huge(elf, tmp_path)
    assert (code, err) == (0, "")
    assert "  records    19 slots, 3 null, 16 live\n" in out


def test_half_a_million_packed_repeats_of_one_address_are_refused(tmp_path: Path) -> None:
    elf = Elf(CALLOPS)
    table, name = struct.pack("<Q", elf.value("__start_mcount_loc")) * 500_000, elf.name_at(".relr.dyn")
    elf.add(table, sh_type=SHT_RELR, sh_entsize=8, sh_name=name)
    line = ".relr.dyn: RELR table covers the same words more than once: found 16384 places"
    assert huge(elf, tmp_path) == (3, "", f"ftpatch: {tmp_path}/huge: {line}\n")


def test_packed_relocations_that_repeat_a_window_over_a_long_table_are_bounded(tmp_path: Path) -> None:
    """2,000,000 words all unpack at the same 64 slots of a table of as many slots, so the count alone allows them."""
    elf = move_table(Elf(CALLOPS), 2_000_000)
    elf.add(struct.pack("<QQ", HIGH, MASK64) * 1_000_000, sh_type=SHT_RELR, sh_entsize=8)
    assert is_sober(huge(elf, tmp_path))


def test_packed_relocations_between_two_distant_sites_are_not_unpacked(tmp_path: Path) -> None:
    """.init.text lies near address 0, so that 3,000,000 bitmap words lie between the literals of two chosen sites."""
    elf, far = Elf(CALLOPS), 0xFFFF800080010000 - 0x10000
    elf.sh(".init.text", sh_addr=0x10000)
    for name in ("b_setup", "b_late", "start_kernel", "a_setup"):
        elf.sym(name, st_value=elf.value(name) - far)
    for slot in range(15, 19):
        elf.words(elf.slot(slot), elf.get(WORD, elf.slot(slot), "word") - far)
    table = struct.pack("<Q", 0x20000) + bytes([255]) * 8 * 3_000_000
    elf.add(table, sh_type=SHT_RELR, sh_entsize=8)
    choice = ("--func", "vfs_read", "--func", "b_late", "--ops-via", "literal", "--skip-unpatchable")
    assert is_sober(huge(elf, tmp_path, "enable", *choice, "-o", str(tmp_path / "out")))


def test_many_sections_with_one_long_name_are_bounded(tmp_path: Path) -> None:
    elf = Elf(CALLOPS)
    index, names = elf.sec(".shstrtab"), elf.append(b"x" * 8192 + bytes(1))
    elf.add(b"", 400_000, sh_type=1)
    elf.put(SHDR, elf.header(index), "sh_offset", names).put(SHDR, elf.header(index), "sh_size", 8193)
    code, out, err = huge(elf, tmp_path)
    assert (code, err) == (0, "")
    assert "  records    19 slots, 3 null, 16 live\n" in out


def test_many_record_sections_over_the_same_bytes_are_bounded(tmp_path: Path) -> None:
    elf = Elf(OBJECT)
    elf.add(bytes(1 << 20), 800, sh_name=elf.name_at("__patchable_function_entries"), sh_type=1, sh_flags=3)
    line = (
        "sections overlap in the file: found __patchable_function_entries and __patchable_function_entries share bytes"
    )
    assert huge(elf, tmp_path) == (3, "", f"ftpatch: {tmp_path}/huge: {line}\n")


def test_many_relocation_tables_over_the_same_bytes_are_bounded(tmp_path: Path) -> None:
    elf = Elf(PFE2)
    first = elf.add(bytes(RELA_SIZE * 40_000), 1500, sh_type=SHT_RELA, sh_flags=ALLOC, sh_entsize=RELA_SIZE)
    for n in range(1500):
        elf.put(SHDR, elf.header(first + n), "sh_addr", (n + 1) << 24)
    line = "sections overlap in the file: found 15 and 16 share bytes"
    assert huge(elf, tmp_path) == (3, "", f"ftpatch: {tmp_path}/huge: {line}\n")


def test_object_with_thousands_of_record_sections_is_read_in_linear_time(tmp_path: Path) -> None:
    """What clang -ffunction-sections makes of a whole kernel: one record section, and its relocations, per function."""
    elf, n = Elf(OBJECT), 8000
    names = elf.name_at("__patchable_function_entries"), elf.name_at(RELA_PFE)
    each_its_bytes(elf, elf.add(bytes(8 * n), n, sh_name=names[0], sh_type=1, sh_flags=3), n)
    first = elf.add(bytes(RELA_SIZE * n), n, sh_name=names[1], sh_type=SHT_RELA, sh_entsize=RELA_SIZE)
    each_its_bytes(elf, first, n)
    code, out, err = huge(elf, tmp_path)
    assert (code, err) == (0, "")
    assert "  records    8008 slots, 8000 null, 8 live\n" in out


def test_name_that_the_string_table_repeats_is_found_in_linear_time(tmp_path: Path) -> None:
    elf, n, name = Elf(EXEC), 200_000, b"__start_mcount_loc\0"
    strings = elf.append(name * n)
    rows = [struct.pack("<IBBHQQ", len(name) * row, 0, 0, 1, 0xFFFF800080020010, 0) for row in range(n)]
    symbols = elf.append(b"".join(rows))
    elf.sh(".strtab", sh_offset=strings, sh_size=len(name) * n)
    elf.sh(".symtab", sh_offset=symbols, sh_size=SYM_SIZE * n)
    code, _, err = huge(elf, tmp_path)
    assert code == 3
    assert err.endswith(": only one end of the record table is named: no symbol __stop_mcount_loc\n")


def test_half_a_million_aliases_of_one_function_are_scanned(tmp_path: Path) -> None:
    elf, n = Elf(EXEC), 500_000
    rows = elf.symbols()
    one = bytes(elf.raw[elf.symbol("vfs_read") : elf.symbol("vfs_read") + SYM_SIZE])
    symbols = elf.append(bytes(elf.raw[rows.start : rows.stop]) + one * n)
    elf.sh(".symtab", sh_offset=symbols, sh_size=len(rows) * SYM_SIZE + n * SYM_SIZE)
    code, out, err = huge(elf, tmp_path)
    assert (code, err) == (0, "")
    assert "  status     ready 16, weak-leftover 3\n" in out
