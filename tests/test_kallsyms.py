"""The names that a running kernel gives to sites without one: small files whose symbols are placed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from elfwriter import ALLOC, EXEC, FUNC, GLOBAL, LOCAL, NOTYPE, OBJECT, WEAK, WRITE, Elf, parsed, written
from test_ppc64le import MINI, rows

from ftpatch.elf.image import Image
from ftpatch.kernel.kallsyms import listed_as
from ftpatch.recovered.image import open_image

TEXT, DATA = 0xC000_0000_0000_0000, 0xC000_0000_0010_0000
INVALID = "__ftrace_invalid_address__"

Symbol = tuple[str, int, int, int]  # name, offset in the text, type, binding


def image(tmp_path: Path, *symbols: Symbol, rodata: bytes = b"", machine: int = 21) -> Image:
    elf = Elf(2, machine)
    text = elf.section(".text", bytes(0x1000), flags=ALLOC | EXEC, addr=TEXT, align=16)
    data = elf.section(".data", bytes(0x100), flags=ALLOC | WRITE, addr=DATA, align=16)
    elf.section(".rodata", rodata or bytes(16), flags=ALLOC, addr=DATA + 0x1000, align=16)
    for name, offset, kind, bind in sorted(symbols, key=lambda one: one[3] != LOCAL):
        elf.symbol(name, text, TEXT + offset, 4, type=kind, bind=bind)
    elf.symbol("in_data", data, TEXT + 0x200, 4, type=OBJECT)
    return open_image(written(tmp_path / "v", elf.build()))


def listed(found: Image, *offsets: int) -> list[str]:
    return listed_as(found, np.array([TEXT + at for at in offsets], dtype=np.uint64))


F: Symbol = ("f", 0x100, FUNC, GLOBAL)
G: Symbol = ("g", 0x300, FUNC, GLOBAL)


def test_the_nearest_symbol_before_it_lends_its_name(tmp_path: Path) -> None:
    found = image(tmp_path, F, G)
    assert listed(found, 0x100, 0x104, 0x2FC, 0x300, 0x304, 0xFFC) == ["f", "f", "f", "g", "g", "g"]
    assert listed(found, 0xFC) == [""]
    assert listed(found) == []


def test_in_an_object_without_symbols_of_code_nothing_has_a_name(tmp_path: Path) -> None:
    """There was no symbol to take the section of: IndexError. Found by fuzzing."""
    elf = Elf(1, 21)
    elf.section(".text", bytes(64), flags=ALLOC | EXEC, align=16)
    elf.symbol("in_data", elf.section(".data", bytes(64), flags=ALLOC | WRITE, align=16), 0, 4, type=OBJECT)
    found = open_image(written(tmp_path / "v.o", elf.build()))
    assert listed_as(found, found.base[1:2] + np.uint64(8)) == [""]


@pytest.mark.parametrize(
    ("offset", "name"), [(0x100, "f"), (0x10C, "f"), (0x110, "f"), (0x114, INVALID), (0x2FC, INVALID), (0xFC, INVALID)]
)
def test_beyond_16_bytes_a_kernel_with_the_string_lists_an_invalid_address(
    offset: int, name: str, tmp_path: Path
) -> None:
    """FTRACE_MCOUNT_MAX_OFFSET; the text of the name is in the kernel that prints it."""
    assert listed(image(tmp_path, F, G, rodata=b"..." + INVALID.encode() + b"\0"), offset) == [name]


def test_without_the_string_there_is_no_limit(tmp_path: Path) -> None:
    assert listed(image(tmp_path, F, rodata=b"__ftrace_invalid\0"), 0x114, 0xF00) == ["f", "f"]


def test_on_arm64_there_is_no_limit(tmp_path: Path) -> None:
    found = image(tmp_path, F, rodata=INVALID.encode() + b"\0", machine=183)
    assert listed(found, 0x114, 0xF00, 0xFC) == ["f", "f", ""]


@pytest.mark.parametrize(
    "name",
    [
        "00000033.plt_branch.g", "00000033.long_branch.g", "00000033.plt_branch.59:5", "$x", "$d.4", ".L12", ".Lfunc",
        "",
    ],
)  # fmt: skip
def test_linker_stubs_mapping_symbols_and_labels_are_no_names(name: str, tmp_path: Path) -> None:
    found = image(tmp_path, F, (name, 0x108, NOTYPE, LOCAL), (name, 0x10C, FUNC, LOCAL))
    assert listed(found, 0x108, 0x10C, 0x200) == ["f", "f", "f"]


def test_the_limit_counts_from_the_symbol_that_lends_its_name(tmp_path: Path) -> None:
    found = image(tmp_path, F, ("1.plt_branch.g", 0x110, NOTYPE, LOCAL), rodata=INVALID.encode())
    assert listed(found, 0x110, 0x114) == ["f", INVALID]


def test_symbols_of_any_kind_of_code_count_and_of_data_do_not(tmp_path: Path) -> None:
    """in_data lies at +0x200, but in a section that is no code."""
    found = image(tmp_path, F, ("literals", 0x140, OBJECT, LOCAL), ("label", 0x180, NOTYPE, LOCAL))
    assert listed(found, 0x13C, 0x140, 0x180, 0x204) == ["f", "literals", "label", "label"]


def test_of_several_names_kallsyms_keeps_the_strong_one_with_fewest_underscores(tmp_path: Path) -> None:
    both = (("weak", 0x100, FUNC, WEAK), ("__long", 0x100, FUNC, GLOBAL), ("_short", 0x100, FUNC, GLOBAL))
    assert listed(image(tmp_path, *both), 0x104) == ["_short"]
    assert listed(image(tmp_path, *both[:2]), 0x104) == ["__long"]
    assert listed(image(tmp_path, ("first", 0x100, FUNC, GLOBAL), ("other", 0x100, FUNC, GLOBAL)), 0x104) == ["first"]
    stub = ("0.long_branch.x", 0x100, NOTYPE, LOCAL)
    assert listed(image(tmp_path, stub, ("weak", 0x100, FUNC, WEAK)), 0x104) == ["weak"]


@pytest.mark.parametrize("name", ["vmlinux-pfe2", "vmlinux-mprofile", "vmlinux-ool", "vmlinux-clang", "vmlinux-far"])
def test_leftovers_of_the_fixtures_bear_their_neighbours_names_or_none(name: str, tmp_path: Path) -> None:
    """One call word of four lies exactly 16 behind tiny_notrace, the others farther behind theirs."""
    left = [row for row in rows(MINI / name) if row["status"] == "weak-leftover"]
    assert len(left) == 4
    assert [row["listed_as"] for row in left].count("tiny_notrace") == 1
    file = (MINI / name).read_bytes()
    head = parsed(file).get_section_by_name(".rodata")
    banner = file.index(b"Linux version 0.0.0-mini", head["sh_offset"])
    path = tmp_path / "v"
    path.write_bytes(file[:banner] + INVALID.encode() + b"\0" + file[banner + len(INVALID) + 1 :])
    marked = [row["listed_as"] for row in rows(path) if row["status"] == "weak-leftover"]
    assert sorted(marked) == sorted([INVALID] * 3 + ["tiny_notrace"])


@pytest.mark.parametrize("name", ["vmlinux-pfe2", "vmlinux-ool"])
def test_sites_with_a_name_are_listed_under_it_alone(name: str) -> None:
    assert {row["listed_as"] for row in rows(MINI / name) if row["status"] == "ready"} == {None}
