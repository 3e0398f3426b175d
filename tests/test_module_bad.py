"""Modules that contradict themselves, and results that are not what was planned: one line and an exit code, no file."""

from __future__ import annotations

import bz2
import lzma
import os
import random
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elfedit import SHDR, SYM
from elfedit import Elf as Edited
from elfwriter import ALLOC, ET_REL, EXEC, LOCAL, MINI, RELA, SECTION, Elf, as_code, parsed, rela, written
from limits import limited
from test_module import Export, kernel

from ftpatch import api
from ftpatch.cli import run
from ftpatch.elf.editor import Editor
from ftpatch.errors import ApplyError, FtpatchError
from ftpatch.plan.plan import Plan
from ftpatch.plan.request import EnableRequest
from ftpatch.recovered.image import open_image
from ftpatch.sites import select
from ftpatch.sites.scan import Scan
from ftpatch.write import comparison, contents

MINI_PPC = MINI.parent / "mini-ppc64le"
ARM64, PPC64LE = MINI / "mini.ko", MINI_PPC / "mini.ko"
SECONDS = 5
NOP, RET, ABS64 = 0xD503201F, 0xD65F03C0, 257


# -- one command -------------------------------------------------------------------------------------------------------


Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """A function: a file's bytes, a verb and its options → (exit code, the one line without the file's name).

    OUT is there if and only if the code is 0, and the file is as it was.
    """

    def call(content: bytes | bytearray, verb: str, *options: str, name: str = "m.ko") -> tuple[int, str]:
        path, out = tmp_path / name, tmp_path / "out.ko"
        path.write_bytes(content)
        out.unlink(missing_ok=True)
        capsys.readouterr()
        with limited(SECONDS):
            code = run([verb, str(path), *options, *(("-o", str(out)) if verb == "enable" else ())])
        err = capsys.readouterr().err
        lines = [line for line in err.splitlines() if not line.startswith(("  ", "ftpatch: warning: "))]
        assert "Traceback" not in err and len(lines) == (code != 0), err
        assert path.read_bytes() == content
        left = {name, "out.ko"} if verb == "enable" and code == 0 else {name}
        assert {one.name for one in tmp_path.iterdir()} == left
        return code, "".join(lines).removeprefix("ftpatch: ").replace(str(path), "M")

    return call


# -- one defect at a time ----------------------------------------------------------------------------------------------

CHOICE = ("--func", "mini_work")
HOOKED = ("--func", "mini_work", "--hook", "_printk")
ALL = ("--func", "*")


@dataclass(frozen=True)
class Case:
    """A defect; what `scan` answers (code 0: it reads the file), and what `enable` does."""

    id: str
    change: Callable[[Edited], Edited]
    scan: tuple[int, str]
    enable: tuple[int, str]
    options: tuple[str, ...] = CHOICE
    path: Path = ARM64


FINE = (0, "")
LINK = "M: section 3 .rela.text: the relocations' sh_link is not the symbol table: found section"
INFO = "M: section 3 .rela.text: the relocations' sh_info is no section: found section"
OUTSIDE = "– the file is truncated or corrupt"
NONE = "M: 1 of 1 chosen sites cannot be patched: found mini_work (row 1, .text+0x58): "
ALL_OR_NONE = ", expected all of them, or nothing is written – --skip-unpatchable patches the others"


def both(code: int, message: str) -> tuple[tuple[int, str], tuple[int, str]]:
    return (code, message), (code, message)


CASES = [
    Case("a relocation names a symbol that is not there", lambda m: m.rela(".rela.text", 0, r_sym=999), FINE,
         (3, "M: section 2 .text: a relocation names no symbol of this file: found symbol 999, expected less than 46")),
    Case("one of another section does", lambda m: m.rela(".rela.exit.text", 0, r_sym=1 << 31), FINE,
         (3, "M: section 7 .rela.exit.text: a relocation names no symbol of this file: found symbol 2147483648, "
             "expected less than 46")),
    Case("a record does", lambda m: m.rela(".rela__patchable_function_entries", 0, r_sym=46),
         *both(3, "M: section 14 __patchable_function_entries: a record's relocation names no symbol of this file: "
                  "found symbol 46, expected less than 46")),
    Case("a record names an undefined symbol", lambda m: m.rela(".rela__patchable_function_entries", 1, r_sym=42),
         *both(3, "M: section 14 __patchable_function_entries: a record names a symbol that is not defined here: found "
                  "slot 1")),
    Case("relocations that link to themselves", lambda m: m.sh(".rela.text", sh_link=3), FINE,
         (3, f"{LINK} 3, expected section 20")),
    Case("relocations that link to nothing", lambda m: m.sh(".rela.text", sh_link=23), FINE,
         (3, "M: a section's sh_link is no section: found section 3, expected a link below 23")),
    Case("relocations that link to strings", lambda m: m.sh(".rela.text", sh_link=21), FINE,
         (3, f"{LINK} 21, expected section 20")),
    Case("relocations of section 0", lambda m: m.sh(".rela.text", sh_info=0), FINE,
         (3, f"{INFO} 0, expected one below 23")),
    Case("relocations of no section", lambda m: m.sh(".rela.text", sh_info=0xFFFF_FFFF), FINE,
         (3, f"{INFO} 4294967295, expected one below 23")),
    Case("relocations of themselves", lambda m: m.sh(".rela.text", sh_info=3), FINE, FINE),
    Case("relocations of the symbol table", lambda m: m.sh(".rela.text", sh_info=20), FINE, FINE),
    Case("symbols that link to themselves", lambda m: m.sh(".symtab", sh_link=20),
         *both(3, "M: the symbol table's sh_link names no string table: found section 20")),
    Case("symbols that link to nothing", lambda m: m.sh(".symtab", sh_link=0xFFFF),
         *both(3, "M: the symbol table's sh_link names no string table: found section 65535")),
    Case("symbols that are more local than there are", lambda m: m.sh(".symtab", sh_info=47), FINE,
         (3, "M: .symtab: the symbol table's sh_info is greater than its length: found 47, expected at most 46")),
    Case("a section behind the end", lambda m: m.sh(".exit.text", sh_offset=0x10_0000),
         *both(3, "M: section .exit.text lies outside the file: found bytes 0x100000 + 0x18, expected at most 0x1380 "
                  f"{OUTSIDE}")),
    Case("a section of 2⁶³ bytes", lambda m: m.sh(".text", sh_size=1 << 63),
         *both(3, f"M: section .text lies outside the file: found bytes 0x68 + {1 << 63:#x}, expected at most 0x1380 "
                  f"{OUTSIDE}")),
    Case("a section that wraps around", lambda m: m.sh(".text", sh_size=(1 << 64) - 1),
         *both(3, f"M: section .text lies outside the file: found bytes 0x68 + {(1 << 64) - 1:#x}, expected at most "
                  f"0x1380 {OUTSIDE}")),
    Case("sections that overlap", lambda m: m.sh(".init.text", sh_offset=0x100),
         *both(3, "M: sections overlap in the file: found .text and .init.text share bytes")),
    Case("a record section of odd size", lambda m: m.sh("__patchable_function_entries", sh_size=0x2F),
         *both(3, "M: section 14 __patchable_function_entries: the record section holds no whole number of slots: "
                  "found 47 bytes")),
    Case("a relocation table of odd size", lambda m: m.sh(".rela.text", sh_size=0x11F), FINE,
         (3, "M: section .rela.text is 287 bytes long, which is no multiple of its 24-byte rows")),
    Case("rows of another size", lambda m: m.sh(".rela.exit.text", sh_entsize=16), FINE,
         (3, "M: section .rela.exit.text: wrong sh_entsize: found 16, expected 24")),
    Case("records behind the section's slots", lambda m: m.rela(".rela__patchable_function_entries", 5, r_offset=0x30),
         *both(3, "M: section 14 __patchable_function_entries: a record's relocation lies outside the section's "
                  "slots")),
    Case("two records in a slot", lambda m: m.rela(".rela__patchable_function_entries", 5, r_offset=0),
         *both(3, "M: section 14 __patchable_function_entries: a slot has two relocations: found slot 0")),
    Case("a record of another type", lambda m: m.rela(".rela__patchable_function_entries", 0, r_type=260),
         *both(3, "M: section 14 __patchable_function_entries: a record has a relocation of another type: found type "
                  "260, expected type 257, a 64-bit address")),
    Case("a record of data", lambda m: m.rela(".rela__patchable_function_entries", 1, r_sym=8, r_addend=0), FINE,
         (5, "mini_work: the function has no patch site: found a symbol without record, expected a traceable function "
             "– it is notrace, assembly, or was dropped from the table")),
    Case("a record of data, by its row", lambda m: m.rela(".rela__patchable_function_entries", 1, r_sym=8, r_addend=0),
         FINE, (5, "M: 1 of 1 chosen sites cannot be patched: found unnamed site (row 1, .rodata+0x8): the record "
                   f"points outside the text of this file{ALL_OR_NONE}"), ("--func", "row:1")),
    Case("a relocation on the site", lambda m: m.rela(".rela.text", 3, r_offset=0x5C), FINE,
         (5, f"{NONE}a relocation writes into its words{ALL_OR_NONE}")),
    Case("a wide relocation that ends in the site", lambda m: m.rela(".rela.text", 3, r_offset=0x52, r_type=257), FINE,
         (5, f"{NONE}a relocation writes into its words{ALL_OR_NONE}")),
    Case("a narrow one that ends before it", lambda m: m.rela(".rela.text", 3, r_offset=0x54, r_type=275), FINE, FINE,
         HOOKED),
    Case("a relocation on the ops literal", lambda m: m.rela(".rela.text", 3, r_offset=0x54, r_type=275), FINE,
         (5, f"{NONE}its ops literal at .text+0x50 has a relocation{ALL_OR_NONE}")),
    Case("something in the ops literal", lambda m: m.poke(".text", 0x50, b"\0\0\0\0"), FINE,
         (5, f"{NONE}its ops literal at .text+0x50 is not empty{ALL_OR_NONE}")),
    Case("text that is not aligned", lambda m: m.sh(".text", sh_addralign=4), FINE,
         (5, f"{NONE}its ops literal at .text+0x50 is not 8-byte aligned{ALL_OR_NONE}")),
    Case("a relocation beyond 2⁶³", lambda m: m.rela(".rela.text", 0, r_offset=(1 << 64) - 8), FINE, FINE),
    Case("relocations that do nothing, anywhere", lambda m: m.rela(".rela__patchable_function_entries", 2, r_type=0,
                                                                   r_offset=0xFFFF_FFFF_FFFF), FINE, FINE),
    Case("no symbol table", lambda m: m.sh(".symtab", sh_type=1),
         *both(3, "M: its records name nothing: found no symbol table: all symbols and relocations are stripped, "
                  "expected .symtab – strip with --strip-debug alone (INSTALL_MOD_STRIP=1); no kernel "
                  "loads the module")),
    Case("a symbol's name outside the strings", lambda m: m.sym("state", st_name=0xE2), FINE,
         (3, "M: .symtab: a symbol's name lies outside the string table: found symbol 25, expected less than 0xe2")),
    Case("a symbol of a section that is not there", lambda m: m.sym("state", st_shndx=23), FINE,
         (3, "M: .symtab: a symbol lies in no section of the file: found symbol 25, expected a section below 23")),
    Case("a symbol of a wide number without a table", lambda m: m.sym("state", st_shndx=0xFFFF),
         *both(3, "M: symbols use SHN_XINDEX but there is no SHT_SYMTAB_SHNDX table for them")),
    Case("an alignment of 2⁶³", lambda m: m.sh(".strtab", sh_addralign=1 << 63), FINE,
         (3, "M: section 21 .strtab must move, and cannot be aligned: found 0x8000000000000000, expected a power of "
             "two up to 0x10000")),
    Case("an alignment of 3", lambda m: m.sh(".rela.text", sh_addralign=3), FINE,
         (3, "M: section 3 .rela.text must move, and cannot be aligned: found 0x3, expected a power of two up to "
             "0x10000")),
    Case("65,535 sections", lambda m: m.ehdr(e_shnum=0xFFFF),
         *both(3, "M: section header table lies outside the file: found bytes 0xdc0..0x400d80, expected at most 0x1380 "
                  f"{OUTSIDE}")),
    Case("2⁶⁰ sections", lambda m: m.ehdr(e_shnum=0).put(SHDR, 0xDC0, "sh_size", 1 << 60),
         *both(3, "M: section header table lies outside the file: found bytes 0xdc0..0x40000000000000dc0, expected "
                  f"at most 0x1380 {OUTSIDE}")),
    Case("no sections", lambda m: m.ehdr(e_shnum=0),
         *both(3, "M: e_shstrndx names no string table: found section 22 of 0")),
    Case("names without an end", lambda m: m.poke(".shstrtab", 0xDC, b"x"), FINE, FINE),
    Case("ppc64le: a relocation on the site", lambda m: m.rela(".rela.text", 14, r_offset=0x90), FINE,
         (5, "M: 1 of 1 chosen sites cannot be patched: found mini_work (row 6, .text+0x90): a relocation writes into "
             f"its words{ALL_OR_NONE}"), HOOKED, PPC64LE),
    Case("ppc64le: a pointer that ends in it", lambda m: m.rela(".rela.text", 14, r_offset=0x8C, r_type=38), FINE,
         (5, "M: 1 of 1 chosen sites cannot be patched: found mini_work (row 6, .text+0x90): a relocation writes into "
             f"its words{ALL_OR_NONE}"), HOOKED, PPC64LE),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_defect_is_named_in_one_line(command: Command, case: Case) -> None:
    content = case.change(Edited(case.path)).raw
    assert command(content, "scan") == case.scan
    assert command(content, "enable", *case.options) == case.enable


def test_a_scan_of_a_patched_module_names_a_relocation_without_a_symbol(command: Command, tmp_path: Path) -> None:
    """Only there does a scan look who is called; it was an IndexError."""
    assert command(ARM64.read_bytes(), "enable", *HOOKED) == (0, "")
    patched = Edited(tmp_path / "out.ko").rela(".rela.text", 0, r_sym=1000).raw
    message = "M: section 2 .text: a relocation names no symbol of this file: found symbol 1000, expected less than 47"
    assert command(patched, "enable", "--func", "mini_util", "--hook", "_printk") == (3, message)
    (tmp_path / "out.ko").unlink(missing_ok=True)
    assert command(patched, "scan") == (3, message)


@pytest.mark.parametrize("path", [ARM64, PPC64LE], ids=["arm64", "ppc64le"])
def test_a_file_cut_off_anywhere_is_refused(command: Command, path: Path) -> None:
    whole = path.read_bytes()
    elf = parsed(whole)
    ends = {0, 1, 4, 16, 63, 64, elf["e_shoff"], *(elf["e_shoff"] + 64 * sec for sec in range(elf.num_sections()))}
    for section in elf.iter_sections():
        ends |= {section["sh_offset"], section["sh_offset"] + section["sh_size"], section["sh_offset"] + 1}
    for end in sorted(ends | {len(whole) - 1}):
        assert end < len(whole)
        for verb, options in ("scan", ()), ("enable", HOOKED):
            code, line = command(whole[:end], verb, *options)
            assert code == 3, (end, line)
            assert re.search("is an empty file|not an ELF file|lies outside the file|no section headers", line), line


@pytest.mark.parametrize(
    ("pack", "message"),
    [
        (lambda data: b"\x04\x22\x4d\x18" + data, "M: lz4 data cannot be unpacked: found "),
        (lambda data: lzma.compress(data)[:-40], "M: xz data ends too early: found "),
        (lambda data: b"\x1f\x8b" + data, "M: gzip data cannot be unpacked: found "),
    ],
    ids=["lz4", "half an xz", "no gzip"],
)  # fmt: skip
def test_a_module_in_a_form_that_is_not_read_is_refused(
    command: Command, pack: Callable[[bytes], bytes], message: str
) -> None:
    for verb, options in ("scan", ()), ("enable", CHOICE):
        code, line = command(pack(ARM64.read_bytes()), verb, *options, name="m.ko.xz")
        assert (code, line[: len(message)]) == (3, message)


@pytest.mark.parametrize(
    "pack",
    [
        bz2.compress,
        lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
        lambda data: lzma.compress(lzma.compress(data)),
    ],
    ids=["bzip2", "lzma", "twice"],
)
def test_a_module_in_other_layers_is_patched_as_it_is(
    command: Command, tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    """OUT is called .ko, so that it is in no layers."""
    results = []
    for content in ARM64.read_bytes(), pack(ARM64.read_bytes()):
        assert command(content, "enable", *HOOKED) == (0, "")
        results.append((tmp_path / "out.ko").read_bytes())
    assert results[0] == results[1]


@pytest.mark.parametrize("name", [b"mini\n\x1b[31", b"\x1b]0;x\x07\r\n", b"\xff\xfe\x80\xc3\xa4i_u", b"ftpatch: "])
def test_names_with_control_characters_stay_on_their_line(
    command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: bytes
) -> None:
    """mini_util's name is made by whoever made the file; it is in the report, in refusals, and in the journal."""
    file = ARM64.read_bytes().replace(b"\0mini_util\0", b"\0" + name.ljust(9, b"x") + b"\0")
    assert file != ARM64.read_bytes()
    assert command(file, "scan", "--sites") == (0, "")
    assert command(file, "enable", "--func", "row:3") == (0, "")
    once = (tmp_path / "out.ko").read_bytes()
    code, line = command(once, "enable", "--func", ".text+0xc4")
    assert code == 5 and line.isprintable() and "already enabled" in line
    path = tmp_path / "m.ko"
    for arguments in ["scan", str(path), "--sites"], ["enable", str(path), "--func", "row:2", "--dry-run"]:
        capsys.readouterr()
        assert run(arguments) == 0
        assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("hook", ["\udcff", "a\nb", "\x1b[31m", "no such", "ä", "x" * 5000, ".text", "/", "*"])
def test_a_hook_of_any_name_is_refused_in_one_line(command: Command, tmp_path: Path, hook: str) -> None:
    """A name of other bytes than UTF-8 was a UnicodeEncodeError as soon as there was a kernel to look it up in."""
    code, line = command(ARM64.read_bytes(), "enable", *CHOICE, "--hook", hook)
    assert code == 5 and line.isprintable()
    (tmp_path / "m.ko").unlink()
    vmlinux = kernel(tmp_path.parent, "vmlinux-callops", Export("_printk"))
    code, line = command(ARM64.read_bytes(), "enable", *CHOICE, "--hook", hook, "--against", str(vmlinux))
    assert code == 5 and "no such exported symbol" in line and line.isprintable()


# -- sites in each other's way -----------------------------------------------------------------------------------------


def crowded(records: list[int], entries: list[int]) -> bytes:
    """A module of NOPs with functions and records anywhere among them."""
    elf = Elf(ET_REL)
    text = elf.section(".text", as_code([NOP] * 16 + [RET]), flags=ALLOC | EXEC, align=8)
    elf.section(".modinfo", b"name=crowded\0license=GPL\0", flags=ALLOC)
    elf.section(".text.ftrace_trampoline", b"\0", flags=ALLOC | EXEC)
    slots = elf.section("__patchable_function_entries", bytes(8 * len(records)), flags=ALLOC, align=8)
    rows = b"".join(rela(8 * i, ABS64, off, 1) for i, off in enumerate(records))
    elf.section(".rela__patchable_function_entries", rows, type=RELA, link=6, info=slots, align=8, entsize=24)
    elf.symbol("", text, 0, type=SECTION, bind=LOCAL)
    for number, entry in enumerate(entries):
        elf.symbol(f"f{number}", text, entry, 4)
    return elf.build()


@pytest.mark.parametrize(
    ("records", "entries", "options"),
    [([0, 4], [0, 4], ("--layout", "pfe2")), ([0, 8], [8, 16], ("--layout", "callops"))],
    ids=["words", "literal"],
)
def test_sites_that_share_words_are_refused_together(
    command: Command, records: list[int], entries: list[int], options: tuple[str, ...]
) -> None:
    """Two edits of the same bytes were an AssertionError; a pointer on another site's words went unseen."""
    file = crowded(records, entries)
    code, line = command(file, "enable", *ALL, *options)
    assert (code, line.count("it shares words with another chosen site")) == (5, 2)
    assert line.startswith("M: 2 of 2 chosen sites cannot be patched: found f0 (row 0, .text+")
    alone = command(file, "enable", "--func", "f0", *options)
    if records[1] == 4:  # the words of the second site, which keeps its record
        assert alone[0] == 5 and "found f0 (row 0, .text+0x0): it shares words with a site that stays, " in alone[1]
    else:  # the pointer in front of the second one, which the kernel reads when that is called
        assert alone == (0, "")


# -- any byte ----------------------------------------------------------------------------------------------------------


def table_bytes(file: bytes) -> list[int]:
    """Positions of the ELF header, section headers, symbols, strings, relocations and .modinfo."""
    elf = parsed(file)
    found = [*range(64), *range(elf["e_shoff"], elf["e_shoff"] + 64 * elf.num_sections())]
    for section in elf.iter_sections():
        if section["sh_type"] in ("SHT_SYMTAB", "SHT_RELA", "SHT_STRTAB") or section.name == ".modinfo":
            found += range(section["sh_offset"], section["sh_offset"] + section["sh_size"])
    return found


def complaints(path: Path) -> int:
    """Lines that readelf has to say against a file."""
    done = subprocess.run(["readelf", "-aW", str(path)], capture_output=True, check=False)
    return len(done.stderr.splitlines()) + (done.returncode != 0)


@pytest.mark.parametrize(
    ("path", "options", "n"),
    [
        (ARM64, ALL, 1500),
        (PPC64LE, ("--func", "*", "--func", "!mini_util", "--hook", "mini_util"), 1500),
        (ARM64, ("--func", "mini_*", "--hook", "_printk", "--skip-unpatchable"), 300),
    ],
    ids=["arm64", "ppc64le", "arm64 with a hook"],
)
def test_any_wrong_byte_is_an_answer_or_a_refusal(
    tmp_path: Path, command: Command, path: Path, options: tuple[str, ...], n: int
) -> None:
    """Up to 1,500 places of the tables; where something is written, readelf says no more of it than of the input."""
    whole, choose, codes = path.read_bytes(), random.Random(20240607), dict.fromkeys((0, 3, 4, 5), 0)
    for at in choose.sample(table_bytes(whole), n):
        file = bytearray(whole)
        file[at] ^= choose.choice([1, 2, 4, 8, 16, 32, 64, 128, 255, choose.randrange(1, 256)])
        where = f"byte {at:#x} is {file[at]:#04x}"
        assert command(file, "scan")[0] in codes, where
        code, _ = command(file, "enable", *options)
        assert code in codes, where
        codes[code] += 1
        if code == 0 and (said := complaints(tmp_path / "out.ko")):
            assert said <= complaints(tmp_path / "m.ko"), where
    assert codes[0] > n // 2 and codes[3] > n // 10


# -- results that are not what was planned -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A module, its plan, and the file that it makes."""

    scan: Scan
    plan: Plan
    good: bytes

    def position(self, name: str, at: int = 0) -> int:
        """File position of a byte of a section, as the result has it."""
        return int(parsed(self.good).get_section_by_name(name)["sh_offset"]) + at

    def head(self, name: str, field: str) -> int:
        elf = parsed(self.good)
        return int(elf["e_shoff"]) + 64 * int(elf.get_section_index(name)) + SHDR[field][0]

    def row(self, table: str, number: int, at: int) -> int:
        """Position in a row of relocations, counted from the end where negative."""
        n = int(parsed(self.good).get_section_by_name(table)["sh_size"]) // 24
        return self.position(table, 24 * (number % n) + at)

    def symbol(self, name: str, field: str) -> int:
        symbols = list(parsed(self.good).get_section_by_name(".symtab").iter_symbols())
        row = next(row for row, one in enumerate(symbols) if one.name == name)
        return self.position(".symtab", 24 * row + SYM[field][0])


def job(path: Path, *func: str, **request: Any) -> Job:
    scan = api.scan(str(path))
    plan = api.make_plan(scan, EnableRequest(select.select(scan.sites, func).mask, **request))
    return Job(scan, plan, bytes(contents.assembled(scan.image, plan.edits)))


JOBS: dict[str, Callable[[], Job]] = {
    "ops": lambda: job(ARM64, "mini_work", "mini_init"),
    "hook": lambda: job(ARM64, "mini_work", "mini_init", hook="mini_util"),
    "ppc": lambda: job(PPC64LE, "mini_work", "mini_init", hook="mini_util"),
}
Place = Callable[[Job], int]
SABOTAGE: dict[str, tuple[str, Place]] = {
    "site word": ("ops", lambda j: j.position(".text", 0x58)),
    "branch word": ("ops", lambda j: j.position(".text", 0x5C)),
    "ppc64le site word": ("ppc", lambda j: j.position(".text", 0x90)),
    "call's relocation, offset": ("ops", lambda j: j.row(".rela.text", -2, 0)),
    "call's relocation, type": ("ops", lambda j: j.row(".rela.text", -2, 8)),
    "call's relocation, symbol": ("ops", lambda j: j.row(".rela.text", -2, 12)),
    "call's relocation, a symbol that is not there": ("ops", lambda j: j.row(".rela.text", -2, 15)),
    "call's relocation, addend": ("ops", lambda j: j.row(".rela.text", -2, 16)),
    "literal's relocation, offset": ("ops", lambda j: j.row(".rela.text", -1, 0)),
    "literal's relocation, type": ("ops", lambda j: j.row(".rela.text", -1, 8)),
    "literal's relocation, symbol": ("ops", lambda j: j.row(".rela.text", -1, 12)),
    "literal's relocation, addend": ("ops", lambda j: j.row(".rela.text", -1, 16)),
    "old relocation, addend": ("ops", lambda j: j.row(".rela.text", 0, 16)),
    "old relocation of a table that stays": ("ops", lambda j: j.row(".rela.exit.text", 0, 16)),
    "ops relocation, type": ("ops", lambda j: j.row(".rela.data.ftpatch", 0, 8)),
    "ops relocation, symbol": ("ops", lambda j: j.row(".rela.data.ftpatch", 0, 12)),
    "ops relocation, offset": ("ops", lambda j: j.row(".rela.data.ftpatch", 0, 0)),
    "ops object": ("ops", lambda j: j.position(".data.ftpatch", 80)),
    "ops function": ("ops", lambda j: j.position(".text.ftpatch.ops", 4)),
    "symbol value": ("hook", lambda j: j.symbol("ftpatch_call", "st_value")),
    "symbol's section": ("hook", lambda j: j.symbol("ftpatch_call", "st_shndx")),
    "symbol type": ("hook", lambda j: j.symbol("ftpatch_call", "st_info")),
    "symbol name": ("hook", lambda j: j.symbol("ftpatch_call", "st_name")),
    "jump's offset": ("ops", lambda j: j.symbol("ftpatch_ftrace_caller", "st_value")),
    "old symbol's value": ("hook", lambda j: j.symbol("mini_util", "st_value")),
    "old name": ("hook", lambda j: j.position(".strtab", 1)),
    "record section, size": ("ops", lambda j: j.head("__patchable_function_entries", "sh_size")),
    "record section, place": ("ops", lambda j: j.head("__patchable_function_entries", "sh_offset")),
    "records' relocations, size": ("ops", lambda j: j.head(".rela__patchable_function_entries", "sh_size")),
    "record's relocation": ("ops", lambda j: j.row(".rela__patchable_function_entries", 0, 16)),
    "hook stub": ("hook", lambda j: j.position(".text.ftpatch", 40)),
    "hook's relocation, offset": ("hook", lambda j: j.row(".rela.text.ftpatch", 0, 0)),
    "hook's relocation, type": ("hook", lambda j: j.row(".rela.text.ftpatch", 0, 8)),
    "hook's relocation, symbol": ("hook", lambda j: j.row(".rela.text.ftpatch", 0, 12)),
    "stub of init text": ("hook", lambda j: j.position(".init.text.ftpatch", 40)),
    "ppc64le stub": ("ppc", lambda j: j.position(".text.ftpatch", 0xC0)),
    "ppc64le way back": ("ppc", lambda j: j.row(".rela.text.ftpatch", -1, 16)),
    "ppc64le call in the stub": ("ppc", lambda j: j.row(".rela.text.ftpatch", -2, 16)),
    "ppc64le TOC": ("ppc", lambda j: j.row(".rela.text.ftpatch", 0, 16)),
    "new section, flags": ("hook", lambda j: j.head(".text.ftpatch", "sh_flags")),
    "new section, type": ("hook", lambda j: j.head(".text.ftpatch", "sh_type")),
    "new section, alignment": ("hook", lambda j: j.head(".text.ftpatch", "sh_addralign")),
    "new section, address": ("hook", lambda j: j.head(".text.ftpatch", "sh_addr")),
    "new section, place": ("hook", lambda j: j.head(".text.ftpatch", "sh_offset")),
    "new table's sh_info": ("hook", lambda j: j.head(".rela.text.ftpatch", "sh_info")),
    "new table's sh_link": ("hook", lambda j: j.head(".rela.text.ftpatch", "sh_link")),
    "old section, flags": ("hook", lambda j: j.head(".rodata", "sh_flags")),
    "old section, place": ("hook", lambda j: j.head(".rodata", "sh_offset")),
    "symbols, sh_info": ("hook", lambda j: j.head(".symtab", "sh_info")),
    "number of sections": ("hook", lambda j: 60),
    "machine flags": ("hook", lambda j: 48),
    "metadata": ("hook", lambda j: j.position(".modinfo", 3)),
}


@pytest.mark.parametrize("kind", SABOTAGE)
@pytest.mark.parametrize("bit", [0x01, 0x04, 0x80])
def test_a_wrong_byte_in_a_result_is_found_by_following_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, bit: int
) -> None:
    """The check has two halves; this one would find what the plan itself, and so the comparison with it, has wrong."""
    if (kind, bit) in (("symbol value", 0x01), ("new section, place", 0x01)):
        bit = 0x10
    name, place = SABOTAGE[kind]
    made = JOBS[name]()
    monkeypatch.setattr(comparison, "require_bytes", lambda *_: None)
    out = tmp_path / "out.ko"
    out.write_bytes(made.good)
    comparison.check_result(made.plan, open_image(str(out)))
    file = bytearray(made.good)
    file[place(made)] ^= bit
    out.write_bytes(file)
    if kind == "metadata":  # no section of its own moved: that is for the other half
        monkeypatch.undo()
    with pytest.raises(FtpatchError):
        comparison.check_result(made.plan, open_image(str(out)))


def test_what_following_cannot_find_is_names_sizes_and_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any byte that the plan writes, a sample: what goes unseen without the comparison has no meaning to a loader."""
    monkeypatch.setattr(comparison, "require_bytes", lambda *_: None)
    missed, choose = set(), random.Random(7)
    for name in JOBS:
        made = JOBS[name]()
        elf, out = parsed(made.good), tmp_path / "out.ko"
        start = len(made.scan.image.data)
        for at in choose.sample(range(start, len(made.good)), 500):
            file = bytearray(made.good)
            file[at] ^= choose.choice([1, 2, 16, 128])
            out.write_bytes(file)
            try:
                after = open_image(str(out))
                comparison.check_result(made.plan, after)
            except FtpatchError:
                continue
            if at >= elf["e_shoff"]:
                field = (at - elf["e_shoff"]) % 64
                missed.add(next(key for key, (low, _) in reversed(SHDR.items()) if low <= field))
                continue
            if not made.good[at & ~3 : (at & ~3) + 4].strip(b"\0") and name == "ppc":
                missed.add("a gap")  # between the code of a section and its stubs
                continue
            home = [one for one in elf.iter_sections() if one["sh_type"] != "SHT_NOBITS"
                    and one["sh_offset"] <= at < one["sh_offset"] + one["sh_size"]]  # fmt: skip
            field = (at - home[0]["sh_offset"]) % 24 if home else 0
            missed.add(
                "a gap" if not home else "st_size" if home[0].name == ".symtab" and field >= 16 else home[0].name
            )
    # A stub of init text may as well call the code that the patch has in core text.
    assert missed <= {"a gap", ".strtab", ".shstrtab", "sh_size", "st_size", ".rela.init.text.ftpatch"}


@pytest.mark.parametrize(("writer", "options"), [("write", ()), ("assembled", ("--report", "json=J"))])
def test_a_result_that_fails_its_check_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], writer: str,
    options: tuple[str, ...],
) -> None:  # fmt: skip
    out = tmp_path / ("out.ko" if writer == "write" else "out.ko.xz")
    made = JOBS["ops"]()

    def write(image: Any, edits: Any, fd: int) -> None:
        real_write(image, edits, fd)
        os.pwrite(fd, bytes([made.good[made.position(".text", 0x58)] ^ 1]), made.position(".text", 0x58))

    def assembled(image: Any, edits: Any) -> bytearray:
        file = real_assembled(image, edits)
        file[made.position(".text.ftpatch.ops", 4)] ^= 1
        return file

    real_write, real_assembled = contents.write, contents.assembled
    monkeypatch.setattr(contents, "write", write)
    monkeypatch.setattr(contents, "assembled", assembled)
    monkeypatch.chdir(tmp_path)
    code = run(["enable", str(ARM64), "--func", "mini_work", "--func", "mini_init", "-o", str(out), *options])
    err = capsys.readouterr().err
    assert code == 70 and "Traceback" not in err
    found = "the site edits" if writer == "write" else "what was appended"
    line = err.splitlines()[-1].partition("self-check")
    assert "".join(line[1:]) == (
        f"self-check failed on {found}: found other bytes than planned, expected what the plan says – the output was "
        "not kept; please report this"
    )
    assert list(tmp_path.iterdir()) == []


def drop_relocation(editor: Editor, sec: int, off: int, kind: int, symbol: int, addend: int = 0) -> None:
    """A builder that forgets the relocations of old sections."""
    if sec >= len(editor.image.shdr):
        real_relocate(editor, sec, off, kind, symbol, addend)


def shift_relocation(editor: Editor, sec: int, off: int, kind: int, symbol: int, addend: int = 0) -> None:
    real_relocate(editor, sec, off, kind, symbol, addend + 4)


def double_relocation(editor: Editor, sec: int, off: int, kind: int, symbol: int, addend: int = 0) -> None:
    for _ in range(2):
        real_relocate(editor, sec, off, kind, symbol, addend)


def wrong_type(editor: Editor, sec: int, off: int, kind: int, symbol: int, addend: int = 0) -> None:
    real_relocate(editor, sec, off, kind - 1, symbol, addend)


def stray_relocation(editor: Editor, sec: int, off: int, kind: int, symbol: int, addend: int = 0) -> None:
    real_relocate(editor, sec, off, kind, symbol, addend)
    real_relocate(editor, sec, off + 0x20, kind, symbol, addend)


def keep_slots(editor: Editor, sec: int, gone: Any, first: int) -> None:
    """A cut that does not happen."""


def cut_the_next(editor: Editor, sec: int, gone: Any, first: int) -> None:
    real_cut(editor, sec, np.roll(gone, 1), first)


real_relocate, real_cut = Editor.relocate, Editor.cut_slots


@pytest.mark.parametrize("path", [ARM64, PPC64LE], ids=["arm64", "ppc64le"])
@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        ("relocate", drop_relocation), ("relocate", shift_relocation), ("relocate", double_relocation),
        ("relocate", wrong_type), ("relocate", stray_relocation), ("cut_slots", keep_slots),
        ("cut_slots", cut_the_next),
    ],
)  # fmt: skip
def test_a_plan_that_is_wrong_itself_fails_its_check(
    command: Command, monkeypatch: pytest.MonkeyPatch, path: Path, method: str, wrong: Callable[..., None]
) -> None:
    """Here the file is what the plan says; it is the plan that does not do what its sites need."""
    monkeypatch.setattr(Editor, method, wrong)
    code, line = command(path.read_bytes(), "enable", *HOOKED)
    assert code == 70 and "self-check failed" in line


def test_the_check_of_a_sound_result_passes(tmp_path: Path) -> None:
    for name in JOBS:
        made = JOBS[name]()
        out = written(tmp_path / f"{name}.ko", made.good)
        comparison.check_result(made.plan, open_image(out))


def test_a_missing_piece_at_the_end_is_found(tmp_path: Path) -> None:
    made = JOBS["hook"]()
    out = written(tmp_path / "out.ko", made.good + b"\0")
    with pytest.raises(ApplyError) as failed:
        comparison.check_result(made.plan, open_image(out))
    assert str(failed.value) == (
        f"{out}: self-check failed on the size: found {len(made.good) + 1} bytes, planned {len(made.good)}, expected "
        "what the plan says – the output was not kept; please report this"
    )
