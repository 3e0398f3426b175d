"""Object files that are linked into a module: where everything goes, and that each relocation keeps its meaning."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from elfwriter import (
    ALLOC,
    ET_REL,
    EXEC,
    FUNC,
    GLOBAL,
    LOCAL,
    MINI,
    NOP,
    NOTYPE,
    OBJECT,
    RELA,
    RET,
    SECTION,
    WEAK,
    WRITE,
    Elf,
    Section,
    as_code,
    extended,
    parsed,
    rela,
    relocations_by_table,
    symbol,
    written,
)
from test_editor import result
from test_module import Export, kernel

from ftpatch.elf.editor import Editor
from ftpatch.errors import FtpatchError
from ftpatch.kernel.module import Kernel, Module
from ftpatch.plan.link.carry import Carried, carry
from ftpatch.plan.link.original import keep_original
from ftpatch.plan.link.symbols import Target
from ftpatch.plan.request import Against
from ftpatch.recovered.image import open_image
from ftpatch.sites.scan import scan_file

TESTDATA = MINI.parent
PPC = TESTDATA / "mini-ppc64le"
FOLDERS = {"arm64": (MINI, "vmlinux-callops"), "ppc64le": (PPC, "vmlinux-ool")}
ABS64, PREL32, CALL26, JUMP26, REL24 = 257, 261, 283, 282, 10
NOT_KNOWN = "that {path} was compiled for the kernel of this module is not known: no file tells its configuration"


@dataclass
class Linked:
    """What became of a module and an object."""

    before: bytes
    after: bytes
    carried: Carried


@dataclass
class Object(Elf):
    """An object with the function `fixed` in .text."""

    e_type: int = ET_REL
    words: Sequence[int] = (NOP, RET)
    relocations: list[tuple[int, int, int, int]] = field(default_factory=list)  # offset, type, addend, symbol row
    text: int = 0
    fixed: int = 0

    def __post_init__(self) -> None:
        self.text = self.section(".text", as_code(self.words), flags=ALLOC | EXEC, align=4)
        self.fixed = self.symbol("fixed", self.text, 0, 4 * len(self.words))

    def relocate(self, kind: int, symbol: int, off: int = 0, addend: int = 0) -> None:
        self.relocations.append((off, kind, addend, symbol))

    def build(self) -> bytes:
        if self.relocations:
            rows = b"".join(rela(off, kind, addend, row) for off, kind, addend, row in self.relocations)
            self.section(".rela.text", rows, type=RELA, info=self.text, align=8, entsize=24)
        return super().build()


class Case:
    """A module of the fixtures that an object is linked into."""

    def __init__(self, folder: Path, arch: str = "arm64", more: Sequence[Section] = (), kernel: bool = True) -> None:
        self.folder, self.arch, self.against = folder, arch, Against()
        shipped = (FOLDERS[arch][0] / "mini.ko").read_bytes()
        self.open(extended(shipped, more) if more else shipped)
        if kernel:
            self.against = Against(Kernel(scan_file(str(self.kernel()))))

    def open(self, content: bytes) -> None:
        """Take another module, unchanged as yet."""
        self.content = content
        self.module = Module(scan_file(written(self.folder / "mini.ko", content)))
        self.editor = Editor(self.module.image)

    def kernel(self) -> Path:
        home, name = FOLDERS[self.arch]
        exports = (Export("ktime_get"), Export("gpl_only", gpl=True), Export("spaced", namespace="SPACE"))
        return kernel(self.folder, name, *exports, folder=home)

    def original(self, function: str, name: str) -> dict[str, Target]:
        sites = self.module.scan.sites
        site = next(i for i in range(len(sites)) if sites.name(i) == function)
        return {name: keep_original(self.editor, self.module, site, name)}

    def link(self, content: bytes, **originals: Target) -> Linked:
        path = written(self.folder / "fix.o", content)
        carried = carry(self.editor, self.module, open_image(path), self.against, originals)
        return Linked(self.module.image.data.tobytes(), result(self.editor), carried)

    def refused(self, content: bytes, **originals: Target) -> str:
        with pytest.raises(FtpatchError) as caught:
            self.link(content, **originals)
        return str(caught.value).replace(str(self.folder / "fix.o"), "fix.o")


def table(name: str, size: int, rows: list[bytes], index: int) -> list[Section]:
    """A table of the loader's with its relocations, for the module; index: its section number there."""
    return [Section(name, bytes(size), flags=ALLOC | WRITE, align=4),
            Section(".rela" + name, b"".join(rows), type=RELA, link=20, info=index, align=8, entsize=24)]  # fmt: skip


def fixture(case: Case) -> Linked:
    """The object of testdata/link in the module, with the original of mini_step."""
    originals = case.original("mini_step", "old_step")
    return case.link((TESTDATA / "link" / f"{case.arch}.o").read_bytes(), **originals)


def sections(file: bytes, first: int) -> list[tuple[str, int, int, int]]:
    """(name, flags, size, alignment) of the sections from one on that are loaded."""
    rows = list(parsed(file).iter_sections())[first:]
    return [(row.name, row["sh_flags"], row["sh_size"], row["sh_addralign"]) for row in rows
            if row["sh_flags"] & ALLOC]  # fmt: skip


def n_sections(file: bytes) -> int:
    return int(parsed(file).num_sections())


WITH = ".ftpatch.with"


@pytest.mark.parametrize(("arch", "rows"), [
    ("arm64", [
        (".text.ftpatch.original", ALLOC | EXEC, 8, 16), (f".text{WITH}.text", ALLOC | EXEC, 492, 8),
        (f".data{WITH}.data", ALLOC | WRITE, 4, 4), (f".bss{WITH}.bss", ALLOC | WRITE, 4, 4),
        (f".rodata{WITH}.rodata.str1.8", ALLOC, 45, 8), (f".rodata{WITH}.rodata", ALLOC, 64, 8),
        (f".bss{WITH}.common", ALLOC | WRITE, 4, 4),
    ]),
    ("ppc64le", [
        (".text.ftpatch.original", ALLOC | EXEC, 20, 16), (f".text{WITH}.text", ALLOC | EXEC, 780, 16),
        (f".data{WITH}.data", ALLOC | WRITE, 4, 4), (f".bss{WITH}.bss", ALLOC | WRITE, 4, 4),
        (f".data{WITH}.toc", ALLOC | WRITE, 64, 8), (f".rodata{WITH}.rodata.str1.8", ALLOC, 45, 8),
        (f".rodata{WITH}.rodata", ALLOC, 32, 8), (f".data{WITH}.data.rel.ro", ALLOC | WRITE, 32, 8),
        (f".bss{WITH}.common", ALLOC | WRITE, 4, 4),
    ]),
])  # fmt: skip
def test_every_section_of_the_object_comes_along_once(
    arch: str, rows: list[tuple[str, int, int, int]], tmp_path: Path
) -> None:
    made = fixture(Case(tmp_path, arch))
    assert sections(made.after, n_sections(made.before)) == rows
    assert made.after.startswith(made.before[:40])


def test_records_of_the_object_go_behind_those_of_the_module(tmp_path: Path) -> None:
    made = fixture(Case(tmp_path))
    before, after = (relocations_by_table(file) for file in (made.before, made.after))
    (old,), (new,) = ([rows for name, rows in tables if "patchable" in name] for tables in (before, after))
    assert new[: len(old)] == old
    assert [(row.offset, row.symbol, row.addend) for row in new[len(old) :]] == [
        (48, "ftpatch_with.text", 0), (56, "ftpatch_with.text", 40), (64, "ftpatch_with.text", 208),
        (72, "ftpatch_with.text", 384),
    ]  # fmt: skip
    scan = scan_file(written(tmp_path / "after.ko", made.after))
    names = [scan.sites.name(i) for i in range(len(scan.sites))]
    assert names[6:10] == ["ftpatch_with.count", "ftpatch_with.weigh", "fixed_step", "fixed_work"]
    assert scan.sites.status[6:10].tolist() == [0, 0, 0, 0]  # ready


def places(file: bytes) -> dict[str, tuple[str, int]]:
    """(section, value) of every named symbol."""
    elf = parsed(file)
    found = {}
    for one in elf.get_section_by_name(".symtab").iter_symbols():
        index = one["st_shndx"]
        found[one.name] = (elf.get_section(index).name if isinstance(index, int) else index, one["st_value"])
    return found


@pytest.mark.parametrize("arch", FOLDERS)
def test_every_relocation_of_the_object_names_the_same_thing(arch: str, tmp_path: Path) -> None:
    """Read by pyelftools: what each names in the object, and what it names in the module."""
    made = fixture(Case(tmp_path, arch))
    patch = (TESTDATA / "link" / f"{arch}.o").read_bytes()
    first = n_sections(made.before)
    was, known = dict(relocations_by_table(patch)), places(made.after)
    homes = {section.name: (parsed(made.after).get_section(section.sec).name, section.off)
             for section in made.carried.sections}  # fmt: skip
    is_ = {(row.section, row.offset): row for name, rows in relocations_by_table(made.after) for row in rows}
    n = 0
    for section in made.carried.sections:
        for row in was.get(f".rela{section.name}", []):
            new = is_.pop((section.sec, section.off + row.offset))
            assert (new.type, new.addend) == (row.type, row.addend)
            assert known[new.symbol] == named(row.symbol, patch, homes, known), row
            n += 1
    assert n == {"arm64": 37, "ppc64le": 53}[arch]
    assert not [key for key in is_ if key[0] >= first and not parsed(made.after).get_section(key[0]).name.endswith(
        ".original")]  # fmt: skip


def named(
    name: str, patch: bytes, homes: dict[str, tuple[str, int]], known: dict[str, tuple[str, int]]
) -> tuple[str, int]:  # fmt: skip
    """Where in the module the thing is that a name of the object means."""
    if name in homes:  # a section's symbol
        return homes[name]
    home, value = places(patch)[name]
    if home in homes:
        return homes[home][0], homes[home][1] + value
    if home == "SHN_COMMON":
        return f".bss{WITH}.common", 0
    return known[name.partition("@")[0]]


SYMBOLS = {
    "arm64": [
        ("old_step", "FUNC", "GLOBAL", 0, 8, 0), ("shared_count", "OBJECT", "GLOBAL", 0, 4, 0),
        ("ftpatch_with.count", "FUNC", "GLOBAL", 8, 28, 0), ("ftpatch_with.weigh", "FUNC", "GLOBAL", 48, 156, 0),
        ("ftpatch_with.words", "OBJECT", "GLOBAL", 0, 32, 0), ("ftpatch_with.limit", "OBJECT", "GLOBAL", 0, 4, 0),
        ("ftpatch_with.calls", "OBJECT", "GLOBAL", 0, 4, 0), ("fixed_step", "FUNC", "GLOBAL", 216, 164, 0),
        ("fixed_work", "FUNC", "GLOBAL", 392, 100, 0), ("steps", "OBJECT", "GLOBAL", 40, 24, 0),
        ("possibly", "OBJECT", "GLOBAL", 32, 8, 0), ("maybe", "NOTYPE", "WEAK", 0, 0, 0),
    ],
    "ppc64le": [
        ("old_step", "FUNC", "GLOBAL", 8, 12, 3), ("shared_count", "OBJECT", "GLOBAL", 0, 4, 0),
        ("ftpatch_with.count", "FUNC", "GLOBAL", 8, 48, 3), ("ftpatch_with.weigh", "FUNC", "GLOBAL", 72, 288, 3),
        ("ftpatch_with.words", "OBJECT", "GLOBAL", 0, 32, 0), ("ftpatch_with.limit", "OBJECT", "GLOBAL", 0, 4, 0),
        ("ftpatch_with.calls", "OBJECT", "GLOBAL", 0, 4, 0), ("fixed_step", "FUNC", "GLOBAL", 376, 244, 3),
        ("fixed_work", "FUNC", "GLOBAL", 632, 148, 3), ("steps", "OBJECT", "GLOBAL", 8, 24, 0),
        ("possibly", "OBJECT", "GLOBAL", 0, 8, 0), ("maybe", "NOTYPE", "WEAK", 0, 0, 0),
    ],
}  # fmt: skip


@pytest.mark.parametrize("arch", FOLDERS)
def test_names_kinds_and_entries_of_symbols_are_kept(arch: str, tmp_path: Path) -> None:
    """The local entry of a function with two stands in st_other."""
    made = fixture(Case(tmp_path, arch))
    tables = [parsed(file).get_section_by_name(".symtab") for file in (made.before, made.after)]
    new = list(tables[1].iter_symbols())[tables[0].num_symbols() :]
    rows = [(row.name, row["st_info"]["type"][4:], row["st_info"]["bind"][4:], row["st_value"], row["st_size"],
             row["st_other"]["local"]) for row in new]  # fmt: skip
    starts = [row for row in rows if row[1:3] == ("NOTYPE", "GLOBAL")]
    assert [row for row in rows if row not in starts] == SYMBOLS[arch]
    assert {row[3:] for row in starts} == {(0, 0, 0)}
    names = [row.name for row in tables[1].iter_symbols()]
    assert len(set(names[tables[0].num_symbols() :])) == len(new)
    own = {name.removeprefix("ftpatch_with."): row for row, name in enumerate(names) if name in {
        row[0] for row in SYMBOLS[arch][1:-1]}}  # fmt: skip
    assert made.carried.symbols == own


@pytest.mark.parametrize(("arch", "notes", "warnings"), [
    ("arm64", [NOT_KNOWN, "maybe is weak in {path}, and nobody defines it: its address is 0"], []),
    ("ppc64le", [NOT_KNOWN, "no function of {path} has a record: none of them can be traced",
                 "maybe is weak in {path}, and nobody defines it: its address is 0"],
     ["the module does not tell of which source file state is: the only one of that name was taken for mini_mod.c"]),
])  # fmt: skip
def test_what_cannot_be_told_is_said(arch: str, notes: list[str], warnings: list[str], tmp_path: Path) -> None:
    made, path = fixture(Case(tmp_path, arch)), tmp_path / "fix.o"
    assert list(made.carried.notes) == [note.format(path=path) for note in notes]
    assert list(made.carried.warnings) == warnings


@pytest.mark.parametrize(("arch", "machine", "word", "option"), [
    ("arm64", 183, 0x1E62_0821, "-mgeneral-regs-only"),  # fmul d1, d1, d2
    ("arm64", 183, 0x3DC0_0000, "-mgeneral-regs-only"),  # ldr q0, [x0]
    ("ppc64le", 21, 0xC989_0000, "-msoft-float -mno-altivec -mno-vsx"),  # lfd f12, 0(r9)
    ("ppc64le", 21, 0x7C00_18CE, "-msoft-float -mno-altivec -mno-vsx"),  # lvx v0, 0, r3
    ("ppc64le", 21, 0xF403_0009, "-msoft-float -mno-altivec -mno-vsx"),  # lxv vs32, 0(r3)
])  # fmt: skip
def test_registers_of_user_programs_are_told(arch: str, machine: int, word: int, option: str, tmp_path: Path) -> None:
    made = Case(tmp_path, arch).link(Object(machine=machine, words=(word, RET)).build())
    assert list(made.carried.warnings) == [
        f"fixed of {tmp_path / 'fix.o'} changes floating-point or vector registers, which are a user program's: "
        f"compile with {option}, as the kernel does, unless it asks for them"
    ]


@pytest.mark.parametrize(("arch", "machine", "words"), [
    ("arm64", 183, (0xF940_0001, 0x8B01_0000)),  # ldr x1, [x0]; add x0, x0, x1
    ("ppc64le", 21, (0xFFFF_FF9C, 0xE869_0000, 0x7C63_1A14)),  # of a jump table; ld r3, 0(r9); add r3, r3, r3
])  # fmt: skip
def test_other_registers_are_no_concern(arch: str, machine: int, words: tuple[int, ...], tmp_path: Path) -> None:
    made = Case(tmp_path, arch).link(Object(machine=machine, words=words).build())
    assert list(made.carried.warnings) == []


# -- the original of a function ---------------------------------------------------------------------------------------

KEPT = {
    # one entry: bti c; b
    ("arm64", "mini_step"): ([0xD503245F, 0x14000000], [(4, JUMP26, ".text", 0xC)], (0, 8, 0)),
    ("arm64", "mini_init"): ([0xD503245F, 0x14000000], [(4, JUMP26, ".init.text", 0xC)], (0, 8, 0)),
    # two: the TOC's distance; ld r2,-8(r12); add r2,r2,r12; b
    ("ppc64le", "mini_step"): (
        [0, 0, 0xE84CFFF8, 0x7C426214, 0x48000000], [(0, 44, ".TOC.", -8), (16, REL24, ".text", 0x14)], (8, 12, 3)
    ),
    ("ppc64le", "mini_util"): ([0x48000000], [(0, REL24, ".text", 0x144)], (0, 4, 0)),
}  # fmt: skip


@pytest.mark.parametrize(("arch", "function"), KEPT)
def test_an_original_is_entered_behind_its_site(arch: str, function: str, tmp_path: Path) -> None:
    case = Case(tmp_path, arch, kernel=False)
    case.original(function, "old")
    after = result(case.editor)
    home = ".init.text.ftpatch.original" if "init" in function else ".text.ftpatch.original"
    content = parsed(after).get_section_by_name(home).data()
    words, rows, entry = KEPT[arch, function]
    row = parsed(after).get_section_by_name(".symtab").get_symbol_by_name("old")[0]
    assert list(struct.unpack(f"<{len(words)}I", content)) == words
    assert [(one.offset, one.type, one.symbol, one.addend) for name, some in relocations_by_table(after)
            if name == ".rela" + home for one in some] == rows  # fmt: skip
    assert (row["st_value"], row["st_size"], row["st_other"]["local"]) == entry


# -- tables of the loader, and what else is special --------------------------------------------------------------------


def rows_of(file: bytes, name: str) -> list[tuple[int, int, str, int]]:
    return [(row.offset, row.type, row.symbol, row.addend) for table, rows in relocations_by_table(file)
            if table == name for row in rows]  # fmt: skip


def content_of(file: bytes, name: str) -> bytes:
    return bytes(parsed(file).get_section_by_name(name).data())


def test_rows_of_a_table_go_behind_those_of_the_module(tmp_path: Path) -> None:
    """Each row means the same place as before, told by the symbol that stands for the start of the object's part."""
    more = table("__ex_table", 12, [rela(0, PREL32, 0, 18), rela(4, PREL32, 8, 18)], 23)
    case, made = Case(tmp_path, more=more, kernel=False), Object()
    sec = made.section("__ex_table", b"\7" * 24, flags=ALLOC, align=4)
    own = [rela(12 * row + at, PREL32, at, made.fixed) for row in range(2) for at in (0, 4)]
    made.section(".rela__ex_table", b"".join(own), type=RELA, info=sec, align=8, entsize=24)
    linked = case.link(made.build())
    assert content_of(linked.after, "__ex_table") == bytes(12) + b"\7" * 24
    assert rows_of(linked.after, ".rela__ex_table") == [
        (0, PREL32, "mini_step", 0), (4, PREL32, "mini_step", 8), (12, PREL32, "fixed", 0), (16, PREL32, "fixed", 4),
        (24, PREL32, "fixed", 0), (28, PREL32, "fixed", 4),
    ]  # fmt: skip


def test_a_table_that_the_module_lacks_keeps_its_name(tmp_path: Path) -> None:
    case, made = Case(tmp_path, kernel=False), Object()
    sec = made.section("__ex_table", bytes(12), flags=ALLOC, align=4)
    made.section(".rela__ex_table", rela(0, PREL32, 0, made.fixed), type=RELA, info=sec, align=8, entsize=24)
    linked = case.link(made.build())
    assert sections(linked.after, n_sections(linked.before))[1:] == [("__ex_table", ALLOC, 12, 4)]


def test_per_cpu_variables_lie_behind_those_of_the_module(tmp_path: Path) -> None:
    """The loader adds the place of the module's per-cpu memory to the symbols of that section alone."""
    more = [Section(".data..percpu", b"\1" * 12, flags=ALLOC | WRITE, align=4)]
    case, made = Case(tmp_path, more=more, kernel=False), Object()
    sec = made.section(".data..percpu", b"\2" * 16, flags=ALLOC | WRITE, align=16)
    made.relocate(ABS64, made.symbol("counter", sec, 8, 8, OBJECT))
    linked = case.link(made.build())
    elf = parsed(linked.after)
    home = elf.get_section_by_name(".data..percpu")
    row = elf.get_section_by_name(".symtab").get_symbol_by_name("counter")[0]
    assert content_of(linked.after, ".data..percpu") == b"\1" * 12 + bytes(4) + b"\2" * 16
    assert (home["sh_addralign"], elf.get_section(row["st_shndx"]).name, row["st_value"]) == (16, ".data..percpu", 24)


def test_unwinding_tables_are_for_loaders_that_look_at_them(tmp_path: Path) -> None:
    """Kernels that put a shadow call stack into functions when they are loaded find these by .init.eh_frame."""
    for home, wanted in (((), []), ((Section(".init.eh_frame", b"\1" * 24, flags=ALLOC, align=8),), [(32, PREL32)])):
        case, made = Case(tmp_path, more=home, kernel=False), Object()
        sec = made.section(".eh_frame", bytes(24), flags=ALLOC, align=8)
        made.section(".rela.eh_frame", rela(8, PREL32, 0, made.fixed), type=RELA, info=sec, align=8, entsize=24)
        linked = case.link(made.build())
        assert not [name for name, *_ in sections(linked.after, n_sections(linked.before)) if "eh_frame" in name]
        assert [row[:2] for row in rows_of(linked.after, ".rela.init.eh_frame")] == wanted


def test_sections_of_one_name_get_names_of_their_own(tmp_path: Path) -> None:
    """/sys/module has a file for each section: a second of a name is a splat, and no file at all."""
    case, made = Case(tmp_path, kernel=False), Object()
    made.section(".text", as_code((RET,)), flags=ALLOC | EXEC, align=4)
    made.symbol("second", 2, 0, 4)
    first = case.link(made.build())
    names = [f".text{WITH}.text", f".text{WITH}.text.2"]
    assert [row[0] for row in sections(first.after, n_sections(first.before))] == names
    case.open(first.after)
    again = Object()
    again.symbols[0] = ("other", again.text, 0, 8, FUNC, GLOBAL)
    second = case.link(again.build())
    assert [row[0] for row in sections(second.after, n_sections(first.before))] == [*names, f".text{WITH}.text.3"]


def test_local_names_that_the_module_has_are_no_obstacle(tmp_path: Path) -> None:
    case, made = Case(tmp_path, kernel=False), Object()
    made.symbols[:] = [("mini_step", made.text, 0, 4, FUNC, LOCAL), ("mini_step", made.text, 4, 4, FUNC, LOCAL),
                       ("fixed", made.text, 0, 8, FUNC, GLOBAL)]  # fmt: skip
    linked = case.link(made.build())
    names = [row.name for row in parsed(linked.after).get_section_by_name(".symtab").iter_symbols()]
    assert names[-3:] == ["ftpatch_with.mini_step", "ftpatch_with.mini_step.2", "fixed"]
    assert symbol(linked.after, "mini_step") == symbol(linked.before, "mini_step")


def test_a_weak_definition_gives_way_to_the_module(tmp_path: Path) -> None:
    case, made = Case(tmp_path, kernel=False), Object()
    made.relocate(CALL26, made.symbol("mini_work", made.text, 4, 4, FUNC, WEAK))
    linked = case.link(made.build())
    assert rows_of(linked.after, f".rela.text{WITH}.text") == [(0, CALL26, "mini_work", 0)]
    assert linked.carried.notes[-1] == f"mini_work is weak in {tmp_path}/fix.o: the module's is used"
    assert symbol(linked.after, "mini_work") == symbol(linked.before, "mini_work")


def test_init_code_may_use_what_is_freed_with_it(tmp_path: Path) -> None:
    case, made = Case(tmp_path, kernel=False), Object()
    made.sections[made.text].name = ".init.text"
    made.relocate(CALL26, made.symbol("mini_init", 0, 0, 0, NOTYPE))
    linked = case.link(made.build())
    assert rows_of(linked.after, f".rela.init.text{WITH}.init.text") == [(0, CALL26, "mini_init", 0)]


def test_nothing_that_does_not_run_comes_along(tmp_path: Path) -> None:
    case, made = Case(tmp_path, kernel=False), Object()
    for name in (".note.gnu.property", ".BTF", ".discard.reachable", ".note.Linux"):
        made.section(name, bytes(16), flags=ALLOC, align=8)
    made.section(".modinfo", b"license=GPL v2\0author=me\0", flags=ALLOC)
    made.section(".debug_info", bytes(16))
    linked = case.link(made.build())
    assert sections(linked.after, n_sections(linked.before)) == [(f".text{WITH}.text", ALLOC | EXEC, 8, 4)]


def test_a_static_name_of_the_module_that_hides_an_export_is_told(tmp_path: Path) -> None:
    case, made = Case(tmp_path), Object()
    case.against = Against(Kernel(scan_file(str(kernel(tmp_path, "vmlinux-callops", Export("mini_step"))))))
    made.relocate(CALL26, made.symbol("mini_step", 0, 0, 0, NOTYPE))
    linked = case.link(made.build())
    assert linked.carried.warnings == (
        f"{tmp_path}/fix.o uses mini_step: the module's own static one was taken, not the kernel's export",
    )
    assert linked.carried.uses == {(2, 8)}


def test_a_section_symbol_that_is_not_at_the_start_keeps_its_place(tmp_path: Path) -> None:
    case, made = Case(tmp_path, kernel=False), Object()
    made.symbols.insert(0, ("", made.text, 4, 0, SECTION, LOCAL))
    made.fixed = 2
    made.relocate(CALL26, 1, addend=-4)
    linked = case.link(made.build())
    (row,) = rows_of(linked.after, f".rela.text{WITH}.text")
    assert (row[0], row[3], symbol(linked.after, row[2])) == (0, -4, 4)
