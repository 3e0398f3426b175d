"""`symbols`: the lines that nm writes, from a table that is there; the rows of its other formats; what it refuses."""

from __future__ import annotations

import csv
import json
import lzma
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from elfwriter import (
    ABS,
    ALLOC,
    BASE,
    EXEC,
    FILE,
    FUNC,
    GLOBAL,
    LOCAL,
    MINI,
    NOBITS,
    NOTYPE,
    OBJECT,
    RELA,
    SECTION,
    TEXT,
    WEAK,
    WRITE,
    Elf,
    written,
)

import ftpatch
from ftpatch.cli import run
from ftpatch.document.schema import schema
from ftpatch.errors import printable
from tools.kernels import Kernel

COMMON, COMMON_TYPE, TLS, IFUNC, UNIQUE = 0xFFF2, 5, 6, 10, 10
X86_64, PPC64LE, ARM64 = 62, 21, 183
Capture = pytest.CaptureFixture[str]
NM = {"arm64": "aarch64-linux-gnu-nm", "ppc64le": "powerpc64le-linux-gnu-nm", "x86_64": "x86_64-linux-gnu-nm"}


def listed(path: str | Path, capsys: Capture, *options: str) -> str:
    assert run(["symbols", str(path), *options]) == 0
    return capsys.readouterr().out


# section (name, keywords), type and bind of a symbol at 0x10 in it, its letter: as GNU nm 2.40 gives it
IN_SECTIONS: list[tuple[str, dict[str, Any], int, int, str]] = [
    ("text", {"flags": ALLOC | EXEC}, FUNC, GLOBAL, "T"),
    ("local text", {"flags": ALLOC | EXEC}, FUNC, LOCAL, "t"),
    ("code that is not loaded", {"flags": EXEC}, FUNC, LOCAL, "t"),
    ("code that can be written", {"flags": ALLOC | EXEC | WRITE}, OBJECT, GLOBAL, "T"),
    ("code without bytes", {"flags": ALLOC | EXEC, "type": NOBITS}, NOTYPE, LOCAL, "t"),
    ("data", {"flags": ALLOC | WRITE}, OBJECT, GLOBAL, "D"),
    ("local data", {"flags": ALLOC | WRITE}, OBJECT, LOCAL, "d"),
    ("a function in data", {"flags": ALLOC | WRITE}, FUNC, GLOBAL, "D"),
    ("read-only data", {"flags": ALLOC}, OBJECT, GLOBAL, "R"),
    ("bss", {"flags": ALLOC | WRITE, "type": NOBITS}, OBJECT, GLOBAL, "B"),
    ("bss that is not loaded", {"type": NOBITS}, OBJECT, LOCAL, "b"),
    ("comment", {}, NOTYPE, LOCAL, "n"),
    ("a global symbol there", {}, NOTYPE, GLOBAL, "N"),
    ("not loaded, to be written", {"flags": WRITE}, NOTYPE, LOCAL, "?"),
    ("the same, global", {"flags": WRITE}, NOTYPE, GLOBAL, "?"),
    (".debug_info", {}, NOTYPE, LOCAL, "N"),
    (".debug_info", {"flags": ALLOC}, NOTYPE, LOCAL, "r"),
    (".stab.excl", {}, NOTYPE, LOCAL, "N"),
    (".gdb_index", {}, NOTYPE, LOCAL, "N"),
    (".gdb_index2", {}, NOTYPE, LOCAL, "n"),
    ("strings", {"type": 3}, NOTYPE, GLOBAL, "N"),
    ("strings that are loaded", {"type": 3, "flags": ALLOC}, NOTYPE, GLOBAL, "R"),
    (".edata", {"flags": ALLOC}, NOTYPE, GLOBAL, "E"),
    (".idata$4", {"flags": ALLOC}, NOTYPE, LOCAL, "i"),
    (".pdata2", {"flags": ALLOC}, NOTYPE, LOCAL, "p"),
    (".pdatas", {"flags": ALLOC}, NOTYPE, LOCAL, "r"),
    (".drectve", {"flags": ALLOC | EXEC}, FUNC, LOCAL, "i"),
    ("thread-local", {"flags": ALLOC | WRITE | 0x400}, TLS, GLOBAL, "D"),
    ("weak function", {"flags": ALLOC | EXEC}, FUNC, WEAK, "W"),
    ("weak without type", {"flags": ALLOC | WRITE}, NOTYPE, WEAK, "W"),
    ("weak data", {"flags": ALLOC | WRITE}, OBJECT, WEAK, "V"),
    ("weak common type", {"flags": ALLOC | WRITE}, COMMON_TYPE, WEAK, "V"),
    ("chosen at run time", {"flags": ALLOC | EXEC}, IFUNC, GLOBAL, "i"),
    ("the same, weak", {"flags": ALLOC | EXEC}, IFUNC, WEAK, "i"),
    ("unique", {"flags": ALLOC | WRITE}, OBJECT, UNIQUE, "u"),
    ("another bind", {"flags": ALLOC | WRITE}, OBJECT, 13, "?"),
]
# section number, type, bind, and what nm writes in front of the name
SPECIAL: list[tuple[str, int, int, int, str]] = [
    ("undefined", 0, NOTYPE, GLOBAL, " " * 16 + " U"),
    ("local and undefined", 0, NOTYPE, LOCAL, " " * 16 + " U"),
    ("weak and undefined", 0, FUNC, WEAK, " " * 16 + " w"),
    ("weak, undefined data", 0, OBJECT, WEAK, " " * 16 + " v"),
    ("absolute", ABS, NOTYPE, GLOBAL, "0000000000000010 A"),
    ("local absolute", ABS, OBJECT, LOCAL, "0000000000000010 a"),
    ("weak absolute", ABS, NOTYPE, WEAK, "0000000000000010 W"),
    ("common", COMMON, OBJECT, GLOBAL, "0000000000000008 C"),
    ("of no section", 40, FUNC, GLOBAL, "0000000000000010 A"),
    ("of a processor", 0xFF10, OBJECT, GLOBAL, "0000000000000010 A"),
]


def one_symbol(machine: int, name: str, symbol: tuple[int, int, int], **section: Any) -> bytes:
    """An object with a symbol at 0x10 of 8 bytes: number of its section, type and bind."""
    shndx, kind, bind = symbol
    elf = Elf(1, machine)
    keywords = {"size": 32} if section.get("type") == NOBITS else {}
    elf.section(name, b"" if keywords else bytes(32), **section, **keywords)
    elf.symbol("symbol", shndx, 0x10, 8, type=kind, bind=bind)
    return elf.build()


@pytest.mark.parametrize(
    ("name", "section", "kind", "bind", "letter"), IN_SECTIONS, ids=[f"{row[0]}-{row[4]}" for row in IN_SECTIONS]
)
def test_a_letter_follows_from_section_type_and_bind(
    name: str, section: dict[str, Any], kind: int, bind: int, letter: str, tmp_path: Path, capsys: Capture
) -> None:
    path = written(tmp_path / "f.o", one_symbol(X86_64, name, (1, kind, bind), **section))
    assert listed(path, capsys) == f"0000000000000010 {letter} symbol\n"
    assert nm("x86_64", path) == f"0000000000000010 {letter} symbol\n"


@pytest.mark.parametrize(("name", "shndx", "kind", "bind", "line"), SPECIAL, ids=[row[0] for row in SPECIAL])
def test_symbols_without_a_section_have_letters_too(
    name: str, shndx: int, kind: int, bind: int, line: str, tmp_path: Path, capsys: Capture
) -> None:
    path = written(tmp_path / "f.o", one_symbol(X86_64, ".text", (shndx, kind, bind), flags=ALLOC | EXEC))
    assert listed(path, capsys) == f"{line} symbol\n" == nm("x86_64", path)


def nm(machine: str, path: str | Path, *options: str) -> str:
    """What nm says of a file, in the order of the bytes of names; what a terminal would obey as reports show it."""
    command = [NM[machine] if machine != "x86_64" else "nm", "-n", *options, str(path)]
    result = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "LC_ALL": "C"})
    return "\n".join(map(printable, result.stdout.decode("utf-8", "backslashreplace").split("\n")))


# -- whole outputs -----------------------------------------------------------------------------------------------------


def kernel(tmp_path: Path, *, machine: int = ARM64) -> str:
    """A linked file whose table is in no order: equal addresses, marks of code and data, a section's and a file's name,
    and names that are no text."""
    elf = Elf(2, machine)
    text = elf.section(".text", bytes(64), flags=ALLOC | EXEC, addr=TEXT)
    data = elf.section(".data", bytes(64), flags=ALLOC | WRITE, addr=BASE + 0x10_0000)
    for name, shndx, value, size, kind, bind in (
        ("", text, TEXT, 0, SECTION, LOCAL),
        ("a.c", ABS, 0, 0, FILE, LOCAL),
        ("$x", text, TEXT, 0, NOTYPE, LOCAL),
        ("$d.realdata", data, BASE + 0x10_0000, 0, NOTYPE, LOCAL),
        ("$tail", text, TEXT + 32, 0, NOTYPE, LOCAL),
        ("counter", data, BASE + 0x10_0000, 8, OBJECT, LOCAL),
        ("tail", text, TEXT + 32, 16, FUNC, LOCAL),
        ("zeta", text, TEXT, 32, FUNC, GLOBAL),
        ("alpha", text, TEXT, 32, FUNC, WEAK),
        ("\x1b[1mb,\u00e9", text, TEXT + 4, 4, FUNC, GLOBAL),
        ("later", 0, 0, 0, NOTYPE, WEAK),
        ("_printk", 0, 0, 0, NOTYPE, GLOBAL),
    ):
        elf.symbol(name, shndx, value, size, type=kind, bind=bind)
    return written(tmp_path / "vmlinux", elf.build())


LINES = """\
                 U _printk
                 w later
ffff800080010000 W alpha
ffff800080010000 T zeta
ffff800080010004 T \\x1b[1mb,é
ffff800080010020 t $tail
ffff800080010020 t tail
ffff800080100000 d counter
"""


def test_the_lines_are_those_of_nm(tmp_path: Path, capsys: Capture) -> None:
    assert listed(kernel(tmp_path), capsys) == LINES


def test_marks_of_code_and_data_are_symbols_where_the_machine_has_none(tmp_path: Path, capsys: Capture) -> None:
    lines = listed(kernel(tmp_path, machine=X86_64), capsys).splitlines()
    assert [line for line in lines if "$" in line] == [
        "ffff800080010000 t $x", "ffff800080010020 t $tail", "ffff800080100000 d $d.realdata",
    ]  # fmt: skip


def test_json_has_a_row_for_each_and_follows_the_schema(tmp_path: Path, capsys: Capture) -> None:
    path = kernel(tmp_path)
    document = json.loads(listed(path, capsys, "--format", "json"))
    jsonschema.validate(document, schema())
    (image,) = document["images"]
    assert (document["command"], image["file"], image["source"], image["notes"]) == ("symbols", path, "symtab", [])
    assert image["sha256"] == ftpatch.symbols(path).image.sha256
    assert image["symbols"][:3] == [
        {"name": "_printk", "type": "U", "address": None, "size": None},
        {"name": "later", "type": "w", "address": None, "size": None},
        {"name": "alpha", "type": "W", "address": "0xffff800080010000", "size": 32},
    ]
    assert [row["size"] for row in image["symbols"][3:]] == [32, 4, 0, 16, 8]


def test_csv_has_the_columns_of_json(tmp_path: Path, capsys: Capture) -> None:
    path = kernel(tmp_path)
    rows = list(csv.reader(listed(path, capsys, "--format", "csv").splitlines()))
    assert rows[0] == ["file", "name", "type", "address", "size"]
    assert rows[1] == [path, "_printk", "U", "", ""]
    assert rows[5] == [path, "\\x1b[1mb,é", "T", "0xffff800080010004", "4"]
    assert len(rows) == 9


NAMED: list[tuple[tuple[str, ...], list[str]]] = [
    (("zeta",), ["zeta"]),
    (("*ta*",), ["zeta", "$tail", "tail"]),
    (("/^[a-l]/",), ["later", "alpha", "counter"]),
    (("/^[a-l]/", "!later"), ["alpha", "counter"]),
    (("!*a*",), ["_printk", "\\x1b[1mb,é", "counter"]),
]


@pytest.mark.parametrize(("selectors", "names"), NAMED, ids=[" ".join(row[0]) for row in NAMED])
def test_names_choose(selectors: tuple[str, ...], names: list[str], tmp_path: Path, capsys: Capture) -> None:
    options = [word for selector in selectors for word in ("--name", selector)]
    lines = listed(kernel(tmp_path), capsys, *options).splitlines()
    assert [line[19:] for line in lines] == names


REFUSED: list[tuple[tuple[str, ...], int, str]] = [
    (("--name", "no_such"), 5, "no_such: no symbol of that name: found 8 symbols of other names, expected a name, glob "
     "or /regex/"),
    (("--name", ""), 5, "{file}: an empty selector: expected the name of a symbol"),
    (("--name", "zeta", "--name", "!*"), 5, "{file}: the selection is empty: found no symbol is left by --name"),
    (("--name", "/[/"), 5, "/[/: not a regular expression: found unterminated character set at position 0"),
    (("--name", "zeta", "-o", "out"), 2, "--name narrows the list, and -o writes all symbols – leave one of them out"),
    (("-o", "out"), 5, "{file}: the file has a symbol table, so that nothing is to be added: found 13 symbols – give "
     "the file itself to other tools"),
    (("-o", ""), 2, "--output: an empty value – leave the option out, or give it one"),
    (("-o", "out", "--report", "json=out"), 2, "out: the report would replace another file of this run – name another "
     "report file"),
    (("--report", "json={file}"), 2, "{file}: the report would replace another file of this run – name another report "
     "file"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "code", "message"), REFUSED, ids=[" ".join(row[0]) for row in REFUSED])
def test_what_is_not_done_is_said_in_a_line(
    options: tuple[str, ...], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    path = kernel(tmp_path)
    assert run(["symbols", path, *(option.format(file=path) for option in options)]) == code
    assert capsys.readouterr() == ("", f"ftpatch: {message.format(file=path)}\n")
    assert sorted(os.listdir()) == ["vmlinux"]


# -- files of others ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_a_module_may_be_compressed(packed: bool, tmp_path: Path, capsys: Capture) -> None:
    module = (MINI / "mini.ko").read_bytes()
    path = written(tmp_path / "mini.ko", lzma.compress(module, check=lzma.CHECK_CRC32) if packed else module)
    lines = listed(path, capsys).splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("                 U _printk", "00000000000000c0 T mini_util", 18)


def test_a_program_without_a_table_shows_what_its_loader_finds(tmp_path: Path, capsys: Capture) -> None:
    path = str(tmp_path / "program")
    subprocess.run(["strip", "-o", path, "/bin/true"], check=True)
    assert run(["symbols", path]) == 0
    out, err = capsys.readouterr()
    assert out == nm("x86_64", path, "-D", "--without-symbol-versions")
    assert err == ("ftpatch: the file has no symbol table (stripped): these are the names that the loader of programs "
                   "finds in it\n")  # fmt: skip
    assert run(["symbols", path, "-o", str(tmp_path / "out")]) == 5


def test_the_address_of_a_section_counts_in_an_object(tmp_path: Path, capsys: Capture) -> None:
    """Linkers leave addresses in some modules: nm adds them, and so do we."""
    elf = Elf(1, X86_64)
    elf.symbol("symbol", elf.section(".text", bytes(32), flags=ALLOC | EXEC, addr=0x30), 8)
    path = written(tmp_path / "f.ko", elf.build())
    assert listed(path, capsys) == "0000000000000038 T symbol\n" == nm("x86_64", path)


def test_a_file_without_any_symbol_says_so(tmp_path: Path, capsys: Capture) -> None:
    elf = Elf(1, X86_64)
    elf.section(".text", bytes(32), flags=ALLOC | EXEC)
    path = written(tmp_path / "f.o", elf.build())
    assert run(["symbols", path]) == 0
    assert capsys.readouterr() == ("", "ftpatch: there are no symbols: the file has no symbol table (stripped)\n")
    assert run(["symbols", path, "-o", str(tmp_path / "out")]) == 5
    assert capsys.readouterr().err == (
        f"ftpatch: {path}: there are no symbols to write: found no symbol table and no kallsyms\n"
    )


@pytest.mark.parametrize("strings", [b"", b"\0symbol", b"\0symbol\0\xff"], ids=["empty", "no end", "no text"])
def test_a_damaged_table_of_strings_is_read_as_far_as_it_goes(strings: bytes, tmp_path: Path, capsys: Capture) -> None:
    file = one_symbol(X86_64, ".text", (1, FUNC, GLOBAL), flags=ALLOC | EXEC)
    at = file.index(b"\0symbol\0")
    damaged = file[:at] + strings.ljust(8, b"z")[:8] + file[at + 8 :]
    path = written(tmp_path / "f.o", damaged)
    (name,) = ftpatch.symbols(path).names()
    assert listed(path, capsys) == f"0000000000000010 T {name}\n"


def test_a_symbol_in_a_table_of_relocations_is_absolute(tmp_path: Path, capsys: Capture) -> None:
    """No program has such a section in its list of sections."""
    elf = Elf(1, X86_64)
    text = elf.section(".text", bytes(32), flags=ALLOC | EXEC)
    rela = elf.section(".rela.text", bytes(24), type=RELA, link=3, info=text, align=8, entsize=24)
    elf.symbol("symbol", rela, 8, type=NOTYPE)
    path = written(tmp_path / "f.o", elf.build())
    assert listed(path, capsys) == "0000000000000008 A symbol\n" == nm("x86_64", path)


def test_one_string_for_too_many_names_is_refused(tmp_path: Path, capsys: Capture) -> None:
    """A table of two megabytes would fill gigabytes with copies of one name."""
    elf = Elf(1, X86_64)
    elf.symbol("x" * 4000, elf.section(".text", bytes(32), flags=ALLOC | EXEC), 0)
    file = bytearray(elf.build())
    head = next(at for at in range(len(file) - 64 * 5, len(file), 64) if file[at + 4] == 2)  # of .symtab
    at = len(file)
    file += file[int.from_bytes(file[head + 24 : head + 32], "little") + 24 :][:24] * 20_000
    file[head + 24 : head + 40] = at.to_bytes(8, "little") + (24 * 20_000).to_bytes(8, "little")
    path = written(tmp_path / "f.o", file)
    assert run(["symbols", path]) == 3
    assert capsys.readouterr() == (
        "", f"ftpatch: {path}: names of symbols overlap: found 4002 bytes for 79996000 of 19999 names\n",
    )  # fmt: skip


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["arm64-6.12", "ppc64le-6.1", "x86_64-6.12"])
def test_kernels_and_modules_have_the_lines_of_nm(name: str, kernel: Callable[[str], Kernel], capsys: Capture) -> None:
    debian, machine = kernel(name), name.split("-")[0]
    modules = sorted(debian.modules.rglob("*.ko*")) if debian.modules else []
    plain = [path for path in modules[:: len(modules) // 8 or 1] if path.suffix == ".ko"]
    for path in (debian.vmlinux, *plain):
        assert listed(path, capsys) == nm(machine, path)
