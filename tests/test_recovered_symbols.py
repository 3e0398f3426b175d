"""Symbols of a kernel's own kallsyms in place of a symbol table: no sizes, no source files, marks among functions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from elfwriter import MINI

from ftpatch.arch import arch_of
from ftpatch.cli import run
from ftpatch.container.file_bytes import FileBytes
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.recovered import Recovered
from ftpatch.errors import SelectionError
from ftpatch.explanation.function import explain_function
from ftpatch.recovered.image import open_image
from ftpatch.recovered.layout import sections_of
from ftpatch.recovered.marks import marks_of
from ftpatch.recovered.memory import Memory
from ftpatch.recovered.sizes import sizes_of
from ftpatch.sites.reading import read_sites
from ftpatch.sites.records import read_records
from ftpatch.sites.scan import Scan
from ftpatch.sites.select import select
from ftpatch.sites.table import STATUSES
from ftpatch.sites.unsized import bounded, may_be_functions

PPC = MINI.parent / "mini-ppc64le"


def without_sizes(image: Image) -> Image:
    """The image with the symbols that kallsyms would have: by address, each as long as it is to the next, without
    source files and sections, labels of assembly as if they were functions."""
    symbols = image.symbols
    wanted = np.flatnonzero((symbols.shndx > 0) & (symbols.type <= t.STT_FUNC))
    wanted = wanted[np.argsort(symbols.rows["st_value"][wanted], kind="stable")]
    rows = symbols.rows[wanted].copy()
    value = rows["st_value"]
    following = np.searchsorted(np.unique(value), value, side="right")
    ends = np.append(np.unique(value), value.max() + np.uint64(16))
    rows["st_size"] = ends[following] - value
    code = image.executable[symbols.shndx[wanted]] & (rows["st_info"] & 0xF == 0)
    labels = [not symbols.name(row).startswith(("$", ".L")) for row in wanted.tolist()]
    starts = rows["st_name"].astype(np.int64)
    ascending = np.argsort(starts, kind="stable")
    marks = np.zeros(len(rows), dtype=bool)
    marks[ascending] = marks_of(symbols.strtab, starts[ascending], value[ascending], code[ascending])
    rows["st_info"][code & labels & ~marks] |= t.STT_FUNC
    rows = np.concatenate([symbols.rows[:1], rows])
    shndx = np.concatenate([symbols.shndx[:1], symbols.shndx[wanted]])
    return replace(image, recovered=Recovered(t.Symbols(rows, symbols.strtab, shndx), "kallsyms", False))


@pytest.mark.parametrize(
    "path",
    [
        *(MINI / f"vmlinux-{name}" for name in ("pfe2", "callops", "exec", "kcfi", "pfe2-bti", "callops-bti")),
        *(PPC / f"vmlinux-{name}" for name in ("mprofile", "ool", "pfe2", "clang", "gcc12", "far", "saved")),
    ],
    ids=lambda path: f"{path.parent.name}-{path.name}",
)
def test_sites_are_the_same_by_symbols_without_sizes(path: object) -> None:
    """What is left of weak functions lay inside the functions in front of it, and was no site any more."""
    image = open_image(str(path))
    records = read_records(image)
    sized = read_sites(image, records)
    other = read_sites(without_sizes(image), records)
    assert sized.shape == other.shape
    assert [STATUSES[status] for status in other.status] == [STATUSES[status] for status in sized.status]
    for column in ("row", "sec", "off", "site", "redirected"):
        assert getattr(other, column).tolist() == getattr(sized, column).tolist(), column
    assert [other.name(i) for i in range(len(other))] == [sized.name(i) for i in range(len(sized))]
    assert [other.aliases(i) for i in range(len(other))] == [sized.aliases(i) for i in range(len(sized))]


@pytest.mark.parametrize(
    "path",
    [
        *(MINI / f"vmlinux-{name}" for name in ("pfe2", "callops", "exec")),
        *(PPC / f"vmlinux-{name}" for name in ("mprofile", "ool", "pfe2")),
        *(MINI.parent / "x86_64" / f"vmlinux-{name}" for name in ("nop", "rela")),
    ],
    ids=lambda path: f"{path.parent.name}-{path.name}",
)
def test_what_an_earlier_patch_enabled_is_told_from_labels_of_assembly(path: Path, tmp_path: Path) -> None:
    """A label in front of a call, as within ftrace_caller, looks like a site whose record was taken away."""
    patched = tmp_path / "patched"
    assert run(["enable", str(path), "--func", "vfs_read", "-o", str(patched)]) == 0
    image = open_image(str(patched))
    records = read_records(image)
    sized, other = read_sites(image, records), read_sites(without_sizes(image), records)
    assert [STATUSES[status] for status in other.status] == [STATUSES[status] for status in sized.status]
    assert (other.row < 0).sum() == 1 and other.name(len(other) - 1) == "vfs_read"


@pytest.mark.parametrize(
    ("path", "alignment"), [("mini/vmlinux-callops", 8), ("mini-ppc64le/vmlinux-ool", 16), ("x86_64/vmlinux-nop", 16)]
)
def test_functions_begin_as_others_do_and_go_on_behind_their_sites(path: str, alignment: int) -> None:
    image = open_image(str(MINI.parent / path))
    known = read_sites(image, read_records(image))
    symbols, functions = image.symbols, image.functions
    va = np.array([symbols.value("vfs_read")] * 3, dtype=np.uint64) + np.array([0, alignment // 2, 0], np.uint64)
    row = symbols.defined("vfs_read")
    assert row is not None and known.shape is not None
    end = symbols.rows["st_value"][row] + symbols.rows["st_size"][row]
    sec, off = image.place(np.array([va[0] + np.uint64(known.shape.size), va[0], end], dtype=np.uint64))
    assert may_be_functions(known, va, sec, off).tolist() == [True, False, False]
    assert may_be_functions(known, functions.va[:0], sec[:0], off[:0]).tolist() == []


@pytest.mark.parametrize("path", ["mini/vmlinux-pfe2", "mini-ppc64le/vmlinux-mprofile"])
def test_functions_end_where_a_record_names_code_without_a_symbol(path: str) -> None:
    image = open_image(str(MINI.parent / path))
    sites = read_sites(image, read_records(image))
    leftover = int(sites.va[[STATUSES[status] == "weak-leftover" for status in sites.status]][0])
    inside = np.array([leftover + 4], dtype=np.uint64)
    assert image.functions.containing(inside).tolist() == [-1]
    other = without_sizes(image)
    assert other.functions.containing(inside).tolist() != [-1]
    cut = bounded(read_sites(other, read_records(other)))
    assert cut.image.functions.containing(inside).tolist() == [-1]
    assert [cut.name(site) for site in range(len(cut))] == [sites.name(site) for site in range(len(sites))]
    assert bounded(sites) is sites


def test_a_source_file_that_kallsyms_does_not_tell_is_not_said_to_be_another() -> None:
    image = without_sizes(open_image(str(MINI / "vmlinux-pfe2")))
    scan = Scan(image, read_records(image), read_sites(image, read_records(image)))
    text = ("vfs_read@a.c: no source file is known: found the kernel's own kallsyms, which has names alone, expected a "
            "name without @ – row:N or 0xVA tell functions of one name apart")  # fmt: skip
    for ask in (lambda: select(scan.sites, ["vfs_read@a.c"]), lambda: explain_function(scan, "vfs_read@a.c")):
        with pytest.raises(SelectionError) as refused:
            ask()
        assert str(refused.value) == text
    assert [symbol["size"] for symbol in explain_function(scan, "vfs_read").sites[0]["symbols"]] == [None]
    assert select(scan.sites, ["init_once"]).notes == (
        "init_once names 2 functions, all of them are taken (row:N or 0xVA tells them apart)",
    )


MARKS = [  # address, name, whether it is one
    (0x1000, "_text", True), (0x1000, "_stext", True), (0x1000, "__start", False), (0x1000, "__pi__text", True),
    (0x1010, "hrtimer_start", False), (0x1020, "__sched_text_start", True), (0x1020, "schedule", False),
    (0x1030, "template_end", True), (0x1030, "after_template", False), (0x1030, "__sched_text_end", True),
    (0x1040, "copy_end", False), (0x1040, "__lock_text_start", True), (0x1050, "a_end", False),
    (0x1050, "b_end", False), (0x1060, "my_stext", False), (0x1060, "_etext", True), (0x1070, "x_text", False),
    (0x1080, "_end", False), (0x1080, "variable", False),
]  # fmt: skip


def test_marks_between_functions_are_no_functions() -> None:
    names = [name.encode() for _, name, _ in MARKS]
    starts = np.cumsum([1, *(len(name) + 2 for name in names[:-1])])  # behind nm's letters
    va = np.array([va for va, _, _ in MARKS], dtype=np.uint64)
    marks = marks_of(b"".join(b"T" + name + b"\0" for name in names), starts, va, va < 0x1080)
    assert [
        (int(at), name.decode(), bool(is_mark)) for at, name, is_mark in zip(va, names, marks, strict=True)
    ] == MARKS


def test_no_symbols_have_no_marks() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert marks_of(b"", none, none.astype(np.uint64), none.astype(bool)).tolist() == []


GETPPID = ("__se_sys_getppid", "sys_getppid")
PPC_LONGER = ("slot_probe", "vfs_write", "tiny_notrace")
LONGER = {  # functions that seem longer than their symbols say, and how long: a nameless one is behind each
    "mini/vmlinux-callops": {"__arm64_sys_getppid": 104, "slot_probe": 72, "vfs_write": 132}
    | dict.fromkeys(GETPPID, 104),
    "mini-ppc64le/vmlinux-mprofile": dict.fromkeys(GETPPID, 140) | dict(zip(PPC_LONGER, (88, 152, 28), strict=True)),
    "mini-ppc64le/vmlinux-ool": dict.fromkeys(GETPPID, 120) | dict(zip(PPC_LONGER, (84, 148, 28), strict=True)),
    "x86_64/vmlinux-nop": {"slot_probe": 67, "arch_hook_power": 20},  # the latter ends in a jump and int3
    "x86_64/vmlinux-rela": {"slot_probe": 87, "arch_hook_power": 24},
}  # fmt: skip


@pytest.mark.parametrize("path", LONGER)
def test_functions_end_where_the_filling_in_front_of_the_next_begins(path: str) -> None:
    image = open_image(str(MINI.parent / path))
    symbols = image.symbols
    rows = np.flatnonzero((symbols.shndx > 0) & (symbols.type <= t.STT_FUNC) & (symbols.rows["st_name"] > 0))
    rows = rows[[not symbols.name(row).startswith(("$", ".L")) for row in rows.tolist()]]
    sec = symbols.shndx[rows]
    functions = (symbols.type[rows] == t.STT_FUNC) & image.executable[sec]
    sizes = sizes_of(image, symbols.rows["st_value"][rows], sec, functions)
    real = symbols.rows["st_size"][rows]
    other = np.flatnonzero(functions & (real > 0) & (sizes != real))
    assert {symbols.name(int(rows[at])): int(sizes[at]) for at in other} == LONGER[path]
    assert functions.sum() >= 20


LAID_OUT = [  # address, name, whether nm's letter is of code
    (0x1000, "_text", True), (0x1000, "_stext", True), (0x1010, "f", True), (0x1800, "_etext", True),
    (0x1900, "__start_rodata", False), (0x1F00, "__end_rodata", False),
    (0x2000, "_sdata", True), (0x2010, "argv_init", True), (0x2100, "__SCK__key", True), (0x2800, "_edata", True),
    (0x3000, "__init_begin", False), (0x3000, "_sinittext", True), (0x3010, "g", True), (0x3800, "_einittext", True),
    (0x3900, "initial_data", False), (0x4000, "__init_end", False),
]  # fmt: skip
UPPER = 0xFFFFFFFF81000000


def test_data_that_has_the_letters_of_code_is_data() -> None:
    """Linux 7.2 for x86_64 has .data marked as executable: all static calls named keys that are never written."""
    names = b"".join(b"\0" + name.encode() for _, name, _ in LAID_OUT) + b"\0"
    rows = np.zeros(len(LAID_OUT), t.SYM)
    rows["st_name"] = [names.index(b"\0" + name.encode() + b"\0") + 1 for _, name, _ in LAID_OUT]
    rows["st_value"] = np.array([va for va, _, _ in LAID_OUT], dtype=np.uint64) + np.uint64(UPPER)
    rows["st_info"] = [t.STT_FUNC if code else t.STT_OBJECT for _, _, code in LAID_OUT]
    symbols = t.Symbols(rows, names, np.full(len(rows), t.NO_SECTION, dtype=np.int64))
    data = np.full(0x3000, 0x10, dtype=np.uint8)
    packed = np.arange(UPPER + 0x3400, UPPER + 0x3400 + 80 * 24, 24, dtype=np.uint64).repeat(2)
    packed[1::2] = 3  # as of a table that moves two words each
    data[0x1200 : 0x1200 + 8 * len(packed)] = packed.view(np.uint8)
    data[0x2400:0x2F00] = np.full(0xB00 // 8, UPPER + 0x1010, dtype=np.uint64).view(np.uint8)
    memory = Memory(FileBytes.of(data.tobytes()), np.array([UPPER + 0x1000], np.uint64), np.zeros(1, np.int64),
                    np.array([len(data)]))  # fmt: skip
    shdr, names_of = sections_of(memory, symbols, arch_of(62, "x"))
    flags = dict(zip(names_of, shdr["sh_flags"].tolist(), strict=True))
    assert {name: flags.get(name) for name in (".text", ".data", ".init.text")} == {
        ".text": t.SHF_ALLOC | t.SHF_EXECINSTR, ".data": t.SHF_ALLOC | t.SHF_WRITE,
        ".init.text": t.SHF_ALLOC | t.SHF_EXECINSTR,
    }  # fmt: skip
    (at,) = (row for row, name in zip(shdr, names_of, strict=True) if name == ".data")
    assert (int(at["sh_addr"]), int(at["sh_offset"])) == (UPPER + 0x2000, 0x1000)
    assert ".relr.dyn" not in names_of and ".rodata.text" not in names_of
