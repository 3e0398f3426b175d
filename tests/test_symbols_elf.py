"""`symbols -o`: the ELF file that is made of a kernel without a symbol table, as other tools read it."""

from __future__ import annotations

import csv
import json
import lzma
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from elfwriter import (
    ALLOC,
    EXEC,
    MINI,
    NOBITS,
    TEXT,
    WRITE,
    Elf,
    as_code,
    parsed,
    written,
)
from kallsymswriter import FORMS, LINK, Symbol, banner_pos, symbols_for
from kallsymswriter import kernel as written_kernel

from ftpatch.cli import run
from ftpatch.container.envelope import open_file
from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image, image_of
from ftpatch.elf.recovered import Recovered
from ftpatch.errors import ApplyError, FtpatchError
from ftpatch.recovered.image import open_image
from ftpatch.recovered.symbol_list import symbols_in
from ftpatch.write import contents
from ftpatch.write.with_symbols import write_with_symbols
from tools.kernels import Kernel

Capture = pytest.CaptureFixture[str]
RODATA, DATA, BSS = TEXT + 0x1000, TEXT + 0x2000, TEXT + 0x3000
BUILD_ID = struct.pack("<3I4s", 4, 4, 3, b"GNU\0") + b"\xab\xcd\xef\x01"
# name, nm's letter, address, size, section number, st_other: as kallsyms and the code tell
SYMBOLS = [
    ("absolute", "A", 0x1234, 0, -1, 0),
    ("_text", "T", TEXT, 0, 1, 0),
    ("first", "T", TEXT, 16, 1, 0x60),
    ("second", "t", TEXT + 16, 48, 1, 0),
    ("weak", "W", TEXT + 16, 48, 1, 0),
    ("_etext", "D", TEXT + 64, 0, -1, 0),
    ("table", "r", RODATA, 8, 2, 0),
    ("counter", "d", DATA, 8, 4, 0),
    ("zeros", "B", BSS, 256, 5, 0),
    ("_end", "B", BSS + 0x100, 0, -1, 0),
]
LINES = [f"{va:016x} {letter} {name}" for name, letter, va, _, _, _ in SYMBOLS]


def sections(elf: Elf) -> None:
    """Code, constants, a build-id, data and zeros, at their addresses."""
    elf.section(".text", as_code(range(16)), flags=ALLOC | EXEC, addr=TEXT, align=16)
    elf.section(".rodata", b"readonly", flags=ALLOC, addr=RODATA, align=16)
    elf.section(".notes", BUILD_ID, type=7, flags=ALLOC, addr=RODATA + 0x100, align=4)
    elf.section(".data", b"writable", flags=ALLOC | WRITE, addr=DATA, align=16)
    elf.section(".bss", type=NOBITS, size=0x100, flags=ALLOC | WRITE, addr=BSS, align=16)


def stripped() -> bytes:
    elf = Elf(2)
    sections(elf)
    return elf.build()


def recovered(flat: bool) -> Recovered:
    """SYMBOLS, as a reader of kallsyms hands them over."""
    rows, strings = np.zeros(len(SYMBOLS), t.SYM), b""
    for row, (name, letter, va, size, number, other) in zip(rows, SYMBOLS, strict=True):
        bind = t.STB_WEAK if letter == "W" else t.STB_GLOBAL if letter.isupper() else t.STB_LOCAL
        kind = {"T": 2, "t": 2, "W": 2, "A": 0, "D": 0}.get(letter, 1) if size else 0
        row["st_name"], row["st_value"], row["st_size"] = len(strings), va, size
        row["st_shndx"] = number if number >= 0 else 0xFFF1
        row["st_info"], row["st_other"] = bind << 4 | kind, other
        strings += name.encode() + b"\0"
    letters = np.frombuffer("".join(symbol[1] for symbol in SYMBOLS).encode(), np.uint8)
    shndx = np.array([symbol[4] for symbol in SYMBOLS], np.int64)
    return Recovered(t.Symbols(rows, strings, shndx), "kallsyms", flat, letters)


def elf_image(tmp_path: Path, file: bytes | None = None, headers: bool = True) -> Image:
    """A stripped kernel; or one without section headers, whose sections were recovered."""
    image = open_image(written(tmp_path / "stripped", stripped() if file is None else file))
    if not headers:
        data = bytearray(image.data.tobytes())
        data[40:48], data[58:64] = bytes(8), bytes(6)  # e_shoff; e_shentsize, e_shnum, e_shstrndx
        image = replace(image, data=FileBytes.of(bytes(data)), shdr=image.shdr[:6].copy(), names=image.names[:6])
    return replace(image, recovered=recovered(not headers))


def flat_image(tmp_path: Path) -> Image:
    """The same kernel as a loader of flat images takes it."""
    image = elf_image(tmp_path)
    memory = bytearray(DATA + 0x10 - TEXT)
    for sec in range(1, 5):
        start = int(image.base[sec]) - TEXT
        memory[start : start + int(image.shdr["sh_size"][sec])] = image.content(sec).tobytes()
    shdr = image.shdr[:6].copy()
    shdr["sh_offset"][1:5] = shdr["sh_addr"][1:5] - TEXT
    data = FileBytes.of(bytes(memory))
    return replace(image, data=data, raw=data, shdr=shdr, names=image.names[:6], recovered=recovered(True))


MADE: dict[str, Callable[[Path], Image]] = {
    "stripped": elf_image,
    "no section headers": lambda path: elf_image(path, headers=False),
    "flat": flat_image,
}
EVERY = pytest.mark.parametrize("form", MADE)


def made(form: str, tmp_path: Path) -> tuple[Image, Path]:
    """The image, and the file that was made of it."""
    image, out = MADE[form](tmp_path), tmp_path / "out"
    assert write_with_symbols(image, str(out), pytest.fail) == out.stat().st_size
    return image, out


def output_of(*command: object) -> str:
    """What a tool says, which complains of nothing."""
    environment = {**os.environ, "LC_ALL": "C"}
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True, env=environment)
    assert result.stderr == ""
    return result.stdout


@EVERY
def test_nm_lists_what_the_kernel_lists(form: str, tmp_path: Path) -> None:
    """But for a mark at the end of code, which the kernel has as data and nm as the code that it ends."""
    _, out = made(form, tmp_path)
    lines = [line.replace("D _etext", "T _etext") for line in LINES]
    assert sorted(output_of("nm", "-n", out).splitlines()) == sorted(lines)


@EVERY
def test_what_is_loaded_stays_where_and_what_it_is(form: str, tmp_path: Path) -> None:
    image, out = made(form, tmp_path)
    file = out.read_bytes()
    elf = parsed(file)
    for sec in range(1, 6):
        new = elf.get_section(sec)
        assert (new.name, new["sh_addr"], new["sh_size"]) == (
            image.names[sec], image.base[sec], image.shdr["sh_size"][sec],
        )  # fmt: skip
        assert image.names[sec] == ".bss" or new.data() == image.content(sec).tobytes()
    assert "Build ID: abcdef01" in output_of("readelf", "-n", out)
    if form != "flat":
        n = len(image.data)
        assert file[:40] + file[48:58] + file[64:n] == (lambda old: old[:40] + old[48:58] + old[64:])(
            image.data.tobytes()
        )


@EVERY
def test_local_symbols_come_first_and_have_what_the_image_says(form: str, tmp_path: Path) -> None:
    _, out = made(form, tmp_path)
    table = parsed(out.read_bytes()).get_section_by_name(".symtab")
    rows = [(row.name, row["st_size"], row["st_shndx"], row.entry["st_other"]["local"]) for row in table.iter_symbols()]
    assert table["sh_info"] == 4
    assert [name for name, *_ in rows[:4]] == ["", "second", "table", "counter"]
    assert rows[4:] == [
        ("absolute", 0, "SHN_ABS", 0), ("_text", 0, 1, 0), ("first", 16, 1, 3), ("weak", 48, 1, 0),
        ("_etext", 0, 1, 0), ("zeros", 256, 5, 0), ("_end", 0, 5, 0),
    ]  # fmt: skip


@EVERY
def test_the_file_is_sound_and_its_symbols_are_read_back(form: str, tmp_path: Path) -> None:
    image, out = made(form, tmp_path)
    assert "Warning" not in output_of("readelf", "-SlsW", out)
    names = [section.name for section in parsed(out.read_bytes()).iter_sections()]
    assert names == [*image.names[:6], *([".shstrtab"] if form == "stripped" else []), ".symtab", ".strtab",
                     ".ftpatch.kallsyms", *([] if form == "stripped" else [".shstrtab"])]  # fmt: skip
    again = symbols_in(image_of(str(out), open_file(str(out))))
    assert (again.source, sorted(again.names())) == ("symtab", sorted(symbols_in(image).names()))
    assert symbols_in(image).source == "kallsyms"


def test_a_flat_image_has_a_segment_for_each_kind_of_memory(tmp_path: Path) -> None:
    image, out = made("flat", tmp_path)
    file = out.read_bytes()
    elf, size = parsed(file), len(image.data)
    loads = [segment for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD"]
    assert [(one["p_vaddr"], one["p_flags"], one["p_filesz"], one["p_memsz"]) for one in loads] == [
        (TEXT, 5, 0x1000, 0x1000), (RODATA, 4, 0x1000, 0x1000), (DATA, 6, 0x10, 0x1100),
    ]  # fmt: skip
    assert b"".join(one.data() for one in loads) == image.data.tobytes()
    assert [(one["p_vaddr"] - one["p_offset"]) % 0x1_0000 for one in loads] == [0, 0, 0]
    (note,) = (one for one in elf.iter_segments() if one["p_type"] == "PT_NOTE")
    assert (note.data(), note["p_vaddr"]) == (BUILD_ID, RODATA + 0x100)
    assert (elf["e_entry"], elf["e_machine"], size) == (TEXT, "EM_AARCH64", DATA + 0x10 - TEXT)


def test_a_table_with_nothing_in_it_takes_the_symbols(tmp_path: Path) -> None:
    """strip leaves one behind where a relocation names it: a file has one table of symbols at most."""
    elf = Elf(2)
    sections(elf)
    elf.section(".symtab", bytes(24), type=2, link=7, info=1, align=8, entsize=24)
    elf.section(".strtab", b"\0", type=3)
    out = tmp_path / "out"
    write_with_symbols(elf_image(tmp_path, elf.build()), str(out), pytest.fail)
    assert [section.name for section in parsed(out.read_bytes()).iter_sections()][6:] == [
        ".symtab", ".strtab", ".shstrtab", ".ftpatch.kallsyms",
    ]  # fmt: skip
    assert len(output_of("nm", out).splitlines()) == len(SYMBOLS)


def test_the_sites_of_a_flat_image_are_those_of_its_vmlinux(tmp_path: Path, capsys: Capture) -> None:
    """Records that relocations carry, of both kinds, among them."""
    vmlinux = open_image(str(MINI / "vmlinux-callops"))
    assert run(["image", vmlinux.path, "-o", str(tmp_path / "Image")]) == 0
    data = FileBytes.of((tmp_path / "Image").read_bytes())
    held = vmlinux.shdr["sh_flags"] & ALLOC != 0
    shdr = np.where(held, vmlinux.shdr, np.zeros(1, t.SHDR))
    shdr["sh_offset"] = np.where(vmlinux.has_bytes & held, shdr["sh_addr"] - vmlinux.base[held].min(), 0)
    symbols = vmlinux.own_symbols
    kept = (symbols.shndx > 0) & (symbols.type != t.STT_SECTION)
    table = t.Symbols(symbols.rows[kept], symbols.strtab, symbols.shndx[kept])
    letters = np.full(len(table.rows), ord("t"), np.uint8)
    flat = replace(vmlinux, path="Image", data=data, raw=data, shdr=shdr, phdr=vmlinux.phdr[:0],
                   recovered=Recovered(table, "kallsyms", True, letters))  # fmt: skip
    write_with_symbols(flat, str(tmp_path / "out"), pytest.fail)
    capsys.readouterr()
    tables = []
    for path in (vmlinux.path, str(tmp_path / "out")):
        assert run(["scan", path, "--sites", "--format", "csv"]) == 0
        rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
        tables.append([{key: value for key, value in row.items() if key not in ("file", "pos")} for row in rows])
    assert tables[0] == tables[1] and len(tables[0]) > 10


def test_a_packed_kernel_that_has_a_table_comes_out_as_it_is(tmp_path: Path, capsys: Capture) -> None:
    vmlinux = (MINI / "vmlinux-callops").read_bytes()
    path = written(tmp_path / "vmlinux.xz", lzma.compress(vmlinux))
    assert run(["symbols", path, "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out").read_bytes() == vmlinux
    assert capsys.readouterr() == (f"{tmp_path / 'out'}: arm64 ELF file with 66 symbols, from symtab\n", "")


def test_more_sections_than_can_be_numbered_are_refused(tmp_path: Path) -> None:
    image = elf_image(tmp_path)
    many = replace(image, shdr=np.zeros(0xFEFC, t.SHDR), names=("",) * 0xFEFC)
    with pytest.raises(FtpatchError) as caught:
        write_with_symbols(many, str(tmp_path / "out"), pytest.fail)
    assert (caught.value.exit_code, str(caught.value)) == (
        4, f"{image.path}: a symbol table cannot be added to so many sections: found 65276, expected at most 65275",
    )  # fmt: skip


@EVERY
@pytest.mark.parametrize("at", ["a symbol", "the code"])
def test_a_result_that_is_damaged_is_not_kept(
    form: str, at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, write = MADE[form](tmp_path), contents.write_pieces

    def damage(fd: int, pieces: list[tuple[int, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]]) -> int:
        size = write(fd, pieces)
        file = os.pread(fd, size, 0)
        if at == "the code":
            os.pwrite(fd, b"?", file.index(as_code(range(16))))
        else:
            os.ftruncate(fd, size - 1)
        return size

    monkeypatch.setattr(contents, "write_pieces", damage)
    with pytest.raises(ApplyError, match="self-check failed: the new file does not hold what the image does"):
        write_with_symbols(image, str(tmp_path / "out"), pytest.fail)
    assert os.listdir(tmp_path) == ["stripped"]


def test_the_output_is_not_the_input(tmp_path: Path) -> None:
    image = elf_image(tmp_path)
    shutil.copyfile(image.path, tmp_path / "before")
    with pytest.raises(FtpatchError, match="the output would replace another file of this run"):
        write_with_symbols(image, image.path, pytest.fail)
    assert (tmp_path / "before").read_bytes() == (tmp_path / "stripped").read_bytes()


@pytest.mark.corpus
def test_a_kernel_image_can_be_disassembled_by_name(
    kernel: Callable[[str], Kernel], tmp_path: Path, capsys: Capture
) -> None:
    vmlinux, image, out = kernel("arm64-6.12").vmlinux, tmp_path / "Image", tmp_path / "Image.elf"
    assert run(["image", str(vmlinux), "-o", str(image)]) == 0
    assert run(["symbols", str(image), "-o", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{out}: arm64 ELF file with 115644 symbols, from kallsyms"
    code = []
    for path in (vmlinux, out):
        text = output_of("aarch64-linux-gnu-objdump", "-d", "--disassemble=vfs_read", path)
        code.append(re.findall(r"^([0-9a-f]{16}.*)$", text, re.MULTILINE))
    assert code[0][0].endswith("<vfs_read>:") and len(code[0]) > 100
    # nops that fill up to the next function may count
    assert code[1][: len(code[0])] == code[0] and len(code[1]) < len(code[0]) + 16


# -- kernels with kallsyms ---------------------------------------------------------------------------------------------


def kernel_file(tmp_path: Path, form: str, first: Sequence[Symbol] = ()) -> tuple[str, list[Symbol]]:
    """A stripped kernel of 600 symbols in its kallsyms, and these. first: symbols in front of the others."""
    made = written_kernel(600, FORMS[form], [*first, *symbols_for(600, FORMS[form])])
    elf = Elf(2)
    code = banner_pos(600)
    elf.section(".text", made.data[:code], flags=ALLOC | EXEC, addr=LINK, align=16)
    elf.section(".rodata", made.data[code:], flags=ALLOC | WRITE, addr=LINK + code, align=16)
    elf.section(".init.text", as_code((0xD65F03C0,)), flags=ALLOC | EXEC, addr=LINK + 0x100_0000, align=16)
    return written(tmp_path / "vmlinux", elf.build()), made.symbols


OF_KALLSYMS = (
    "the symbols are from kallsyms, which has no sizes, types or source files: in an ELF file made by -o, sizes and "
    "types are what code and sections tell"
)
CODE_ONLY = "kallsyms has the symbols of code alone (no CONFIG_KALLSYMS_ALL): none of data"
PER_CPU = "kallsyms calls the variables of each processor absolute (A): these are offsets, no addresses"
TABLES: list[tuple[str, list[Symbol], list[str]]] = [
    ("4.4", [], [OF_KALLSYMS, CODE_ONLY]),
    ("6.1", [], [OF_KALLSYMS, CODE_ONLY]),
    ("6.4-x86", [("A", "__per_cpu_start", 0), ("D", "variable", 0)], [OF_KALLSYMS, CODE_ONLY, PER_CPU]),
    ("6.4-x86", [("D", "__per_cpu_start", 0)], [OF_KALLSYMS, CODE_ONLY]),
    ("7.0", [("B", "bss", LINK)], [OF_KALLSYMS]),
]


@pytest.mark.parametrize(("form", "first", "notes"), TABLES)
def test_a_kernel_without_a_table_lists_its_kallsyms_in_their_order(
    form: str, first: list[Symbol], notes: list[str], tmp_path: Path, capsys: Capture
) -> None:
    path, symbols = kernel_file(tmp_path, form, first)
    assert run(["symbols", path]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"{va:016x} {letter} {name}" for letter, name, va in symbols]
    assert err.splitlines() == [f"ftpatch: {note}" for note in notes]
    assert run(["symbols", path, "--format", "json"]) == 0
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert (image["source"], image["symbols_from"], image["notes"]) == ("kallsyms", "kallsyms", notes)
    assert [row["size"] for row in image["symbols"]] == [None] * len(symbols)


def test_the_written_file_is_read_as_the_kernel_is(tmp_path: Path, capsys: Capture) -> None:
    """Its kallsyms again, not the symbol table that was made of them; and written again, it is what it was."""
    path, symbols = kernel_file(tmp_path, "6.4")
    out, again = str(tmp_path / "out"), str(tmp_path / "again")
    assert run(["symbols", path, "-o", out, "--format", "json"]) == 0
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert image["output"] == {"file": out, "sha256": sha256(Path(out).read_bytes()).hexdigest(), "elf_sha256": None}
    assert len(image["symbols"]) == len(symbols)
    lines = []
    for file in (path, out):
        assert run(["symbols", file]) == 0
        lines.append(capsys.readouterr().out)
    assert lines[0] == lines[1]
    assert run(["symbols", out, "-o", again]) == 0
    tables = [parsed(Path(file).read_bytes()).get_section_by_name(".symtab").data() for file in (out, again)]
    assert tables[0] == tables[1]
    assert sorted(output_of("nm", out).splitlines()) == sorted(lines[0].splitlines())


def test_a_kernel_without_kallsyms_has_no_symbols_even_where_its_records_were_found(tmp_path: Path) -> None:
    """The ends of its record table then have names, which are not its own."""
    image = elf_image(tmp_path)
    assert image.recovered is not None
    image = replace(image, recovered=image.recovered._replace(source="none", letters=None))
    listed = symbols_in(image)
    assert (listed.source, len(listed), listed.names()) == ("none", 0, [])
    with pytest.raises(FtpatchError) as caught:
        write_with_symbols(image, str(tmp_path / "out"), pytest.fail)
    assert (caught.value.exit_code, str(caught.value)) == (
        5, f"{image.path}: there are no symbols to write: found no symbol table and no kallsyms",
    )  # fmt: skip


def test_symbols_that_were_found_besides_kallsyms_are_in_the_file_alone(tmp_path: Path) -> None:
    image = elf_image(tmp_path)
    assert image.recovered is not None and image.recovered.letters is not None
    fewer = image.recovered._replace(letters=image.recovered.letters[:-1])  # _end, which is behind .bss
    image = replace(image, recovered=fewer)
    assert symbols_in(image).names() == [name for name, *_ in SYMBOLS if name != "_end"]
    write_with_symbols(image, str(tmp_path / "out"), pytest.fail)
    assert f"{BSS + 0x100:016x} B _end" in output_of("nm", tmp_path / "out").splitlines()


def test_a_damaged_kallsyms_is_refused_with_the_name_of_the_file(tmp_path: Path, capsys: Capture) -> None:
    path, _ = kernel_file(tmp_path, "6.4")
    file = Path(path).read_bytes()
    names = file.index(b"Linux version") + 0x100  # behind the number of symbols
    written(Path(path), file[:names] + b"\xff" * 256 + file[names + 256 :])
    assert run(["symbols", path]) == 3
    assert capsys.readouterr().err.startswith(f"ftpatch: {path}: position 0x")
