"""What a kernel and a module export: every format of the table, and the real kernels against their own symbols."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from elfwriter import ALLOC, BASE, ET_DYN, ET_EXEC, ET_REL, EXEC, LOCAL, NOTYPE, RELA, Elf, rela, written

from ftpatch.elf.image import Image
from ftpatch.errors import ElfError
from ftpatch.kernel.exports import Export, Exports, read_exports
from ftpatch.recovered.image import open_image
from tools import kernels

ARM64, PPC64 = 183, 21
TEXT, DATA, TABLE, GPL, STRINGS = BASE, BASE + 0x10_0000, BASE + 0x20_0000, BASE + 0x28_0000, BASE + 0x30_0000
RELATIVE = {ARM64: 1027, PPC64: 22}


@dataclass
class Row:
    """One exported symbol of a test: its place, licence, namespace, CRC."""

    name: str
    va: int = TEXT
    gpl: bool = False
    namespace: str = ""
    crc: int = 0


@dataclass
class Builder:
    """A kernel of nothing but tables of exports. width, fields: of a row; style: how absolute fields are filled."""

    rows: Sequence[Row]
    machine: int = ARM64
    width: int = 4
    fields: int = 3
    style: str = "rela"
    crcs: bool = True
    symbols: bool = False
    flags: bool = False  # one table, and a byte per row
    strings: bytes = field(default=b"\0")

    def at(self, text: str) -> int:
        if not text:
            return STRINGS
        self.strings += text.encode() + b"\0"
        return STRINGS + len(self.strings) - 1 - len(text)

    def table(self, start: int, rows: Sequence[Row]) -> tuple[bytes, bytes]:
        """The table's bytes and the dynamic relocations that belong to it."""
        content, moved = b"", b""
        for row in rows:
            for va in (row.va, self.at(row.name), self.at(row.namespace))[: self.fields]:
                here = start + len(content)
                if self.width == 4:
                    content += struct.pack("<i", va - here)
                else:
                    content += struct.pack("<Q", 0 if self.style == "rela" else va)
                    moved += rela(here, RELATIVE[self.machine], va)
        return content, moved if self.style in ("rela", "both") else b""

    def build(self, path: Path) -> Image:
        elf = Elf(ET_DYN if self.machine == ARM64 else ET_EXEC, self.machine)
        elf.section(".text", bytes(64), flags=ALLOC | EXEC, addr=TEXT)
        elf.section(".data", bytes(64), flags=ALLOC, addr=DATA)
        plain = [row for row in self.rows if self.flags or not row.gpl]
        moved = self.part(elf, "", TABLE, plain)
        if not self.flags:
            moved += self.part(elf, "_gpl", GPL, [row for row in self.rows if row.gpl])
        elif plain:
            elf.section("__kflagstab", bytes(row.gpl for row in plain), flags=ALLOC, addr=TABLE + 0x6_0000)
        elf.section("__ksymtab_strings", self.strings, flags=ALLOC, addr=STRINGS)
        if moved and self.width == 8:
            elf.section(".rela.dyn", moved, type=RELA, flags=ALLOC, addr=STRINGS + 0x8_0000, entsize=24)
        return open_image(written(path / "vmlinux", elf.build()))

    def part(self, elf: Elf, suffix: str, start: int, rows: Sequence[Row]) -> bytes:
        content, moved = self.table(start, rows)
        crc = struct.pack(f"<{len(rows)}I", *(row.crc for row in rows)) if self.crcs else b""
        if self.symbols:  # one section for all, as some linker scripts have it
            sec = elf.section(".rodata" + suffix, content + crc, flags=ALLOC, addr=start)
            for name, low, size in ("__ksymtab", 0, len(content)), ("__kcrctab", len(content), len(crc)):
                elf.symbol(f"__start_{name}{suffix}", sec, start + low, type=NOTYPE)
                elf.symbol(f"__stop_{name}{suffix}", sec, start + low + size, type=NOTYPE)
        else:
            elf.section("__ksymtab" + suffix, content, flags=ALLOC, addr=start)
            elf.section("__kcrctab" + suffix, crc, flags=ALLOC, addr=start + 0x4_0000)
        return moved


ROWS = (
    Row("_printk", TEXT + 8, crc=0x9299_1598),
    Row("jiffies", DATA + 16, crc=2),
    Row("vfs_fsync", TEXT + 12, gpl=True, namespace="VFS", crc=3),
    Row("kvm_get", TEXT + 16, gpl=True, namespace="module:kvm,kvm-*"),
)


def read(image: Image) -> Exports:
    return read_exports(image)


def rows_of(exports: Exports) -> list[Export]:
    return [exports.row(index) for index in range(len(exports))]


def wanted(rows: Sequence[Row] = ROWS, fields: int = 3, crcs: bool = True) -> list[Export]:
    return [
        Export(
            row.name, row.va, 1 if row.va < DATA else 2, row.va & 0xFFFF, row.gpl,
            row.namespace if fields == 3 else "", row.crc if crcs else None,
        )
        for row in rows
    ]  # fmt: skip


@pytest.mark.parametrize("symbols", [False, True])
@pytest.mark.parametrize("fields", [3, 2])
@pytest.mark.parametrize(
    ("machine", "width", "style"),
    [(ARM64, 4, ""), (ARM64, 8, "rela"), (ARM64, 8, "word"), (PPC64, 4, ""), (PPC64, 8, "both"), (PPC64, 8, "rela")],
)
def test_every_format_gives_the_same_rows(
    tmp_path: Path, machine: int, width: int, style: str, fields: int, symbols: bool
) -> None:
    found = read(Builder(ROWS, machine, width, fields, style, symbols=symbols).build(tmp_path))
    assert rows_of(found) == wanted(fields=fields)


def test_one_name_is_looked_up(tmp_path: Path) -> None:
    found = read(Builder(ROWS).build(tmp_path))
    assert found.find("jiffies") == wanted()[1]
    assert found.find("jiffie") is None
    assert found.find("jiffies_64") is None
    assert found.rows(np.array([b"kvm_get", b"nobody", b"_printk"])).tolist() == [3, -1, 0]


def test_flags_tell_the_licence_where_there_is_one_table(tmp_path: Path) -> None:
    found = read(Builder(ROWS, PPC64, 8, style="both", flags=True, crcs=False).build(tmp_path))
    assert rows_of(found) == wanted(crcs=False)


def test_a_kernel_without_exports_has_no_rows(tmp_path: Path) -> None:
    found = read(Builder((), symbols=True).build(tmp_path))
    assert (len(found), found.find("_printk")) == (0, None)


def test_a_table_that_names_nothing_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "vmlinux")
    with pytest.raises(ElfError) as refused:
        read(Builder((Row("123"),)).build(tmp_path))
    assert str(refused.value) == (
        f"{path}: __ksymtab: the table of exports is in no known format: found 12 bytes, "
        "expected rows of 12, 24, 8 or 16 bytes, each with a name"
    )


def test_crcs_of_another_number_are_refused(tmp_path: Path) -> None:
    elf = Elf(ET_EXEC, ARM64)
    elf.section(".text", bytes(16), flags=ALLOC | EXEC, addr=TEXT)
    elf.section("__ksymtab", struct.pack("<3i", TEXT - TABLE, STRINGS - TABLE - 4, 0), flags=ALLOC, addr=TABLE)
    elf.section("__kcrctab", bytes(8), flags=ALLOC, addr=TABLE + 64)
    elf.section("__ksymtab_strings", b"name\0", flags=ALLOC, addr=STRINGS)
    image = open_image(written(tmp_path / "k", elf.build()))
    with pytest.raises(
        ElfError, match="__kcrctab has another length than the table of exports: found 8 bytes, expected 1"
    ):
        read(image)


def test_a_null_namespace_is_none(tmp_path: Path) -> None:
    """Kernels 5.4 to 5.19 wrote no pointer where a symbol had no namespace."""
    elf = Elf(ET_EXEC, ARM64)
    elf.section(".text", bytes(16), flags=ALLOC | EXEC, addr=TEXT)
    elf.section("__ksymtab", struct.pack("<3i", TEXT - TABLE, STRINGS - TABLE - 4, 0), flags=ALLOC, addr=TABLE)
    elf.section("__ksymtab_strings", b"name\0", flags=ALLOC, addr=STRINGS)
    image = open_image(written(tmp_path / "k", elf.build()))
    assert rows_of(read(image)) == [Export("name", TEXT, 1, 0, False, "", None)]


# -- modules -----------------------------------------------------------------------------------------------------------


def module(tmp_path: Path, width: int, flags: bool = False) -> Image:
    """A module that exports `one` (.text+4) and, GPL-only and for a namespace, `two` (.data+8)."""
    elf = Elf(ET_REL, ARM64 if width == 4 else PPC64)
    elf.section(".text", bytes(16), flags=ALLOC | EXEC)
    elf.section(".data", bytes(16), flags=ALLOC)
    strings = elf.section("__ksymtab_strings", b"one\0\0two\0NS\0", flags=ALLOC)
    kind = 261 if width == 4 else 38  # R_AARCH64_PREL32, R_PPC64_ADDR64
    elf.symbol("", strings, 0, type=3, bind=LOCAL)
    elf.symbol("one", 1, 4)
    elf.symbol("two", 2, 0)
    first = [(0, 2, 0), (1, 1, 0), (2, 1, 3)]
    second = [(0, 3, 8), (1, 1, 5), (2, 1, 9)]
    if flags:
        tables = {"__ksymtab": first + [(at + 3, symbol, addend) for at, symbol, addend in second]}
        elf.section("__kflagstab", b"\0\1", flags=ALLOC)
    else:
        tables = {"__ksymtab": first, "__ksymtab_gpl": second}
    for name, fields in tables.items():
        sec = elf.section(name, bytes(width * len(fields)), flags=ALLOC)
        content = b"".join(rela(width * at, kind, addend, symbol) for at, symbol, addend in fields)
        elf.section(".rela" + name, content, type=RELA, info=sec, entsize=24)
    elf.section("__kcrctab_gpl" if not flags else ".unused", struct.pack("<I", 7), flags=ALLOC)
    return open_image(written(tmp_path / "m.ko", elf.build()))


@pytest.mark.parametrize("flags", [False, True])
@pytest.mark.parametrize("width", [4, 8])
def test_a_modules_exports_are_read_from_relocations(tmp_path: Path, width: int, flags: bool) -> None:
    assert rows_of(read(module(tmp_path, width, flags))) == [
        Export("one", 0, 1, 4, False, "", None),
        Export("two", 0, 2, 8, True, "NS", None if flags else 7),
    ]


def test_a_module_that_exports_nothing_has_no_rows(mini: Path) -> None:
    assert len(read(open_image(str(mini / "mini.ko")))) == 0


# -- the real kernels --------------------------------------------------------------------------------------------------


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "n", "n_gpl", "n_crc"),
    [
        ("arm64-6.1", 9587, 4971, 9587), ("arm64-6.12", 10418, 5785, 10418), ("ppc64le-6.1", 9494, 4812, 9494),
        ("ppc64le-6.12", 10237, 5410, 10237), ("ppc64le-sid", 10935, 5960, 0),
    ],
)  # fmt: skip
def test_a_kernels_exports_are_those_of_its_symbols(
    kernel: Callable[[str], kernels.Kernel], name: str, n: int, n_gpl: int, n_crc: int
) -> None:
    """Every export has its `__ksymtab_` symbol, the address of the symbol of its name, and its `__crc_` word."""
    image = open_image(str(kernel(name).vmlinux))
    found, symbols = read(image), image.symbols
    entries = np.flatnonzero(symbols.shndx > 0)
    values: dict[str, set[int]] = {}
    for row in entries.tolist():
        values.setdefault(symbols.name(row), set()).add(int(symbols.rows["st_value"][row]))
    names = [name.decode() for name in found.names.tolist()]
    assert sorted(names) == sorted(name.removeprefix("__ksymtab_") for name in values if name.startswith("__ksymtab_"))
    for index, export in enumerate(names):
        assert int(found.va[index]) in values[export]
        if found.has_crc[index]:
            words = {int(image.word_at(np.array([image.pos_of_va(va)]))[0]) for va in values["__crc_" + export]}
            assert int(found.crc[index]) in words
    assert abs(len(found) - n) < n // 20 and abs(int(found.gpl_only.sum()) - n_gpl) < n_gpl // 20
    assert bool(found.has_crc.any()) is bool(n_crc)
