"""Prototypes of functions and their inlined copies, from DWARF and BTF."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from elfwriter import Elf
from test_btf import Types

from ftpatch.elf import btf
from ftpatch.elf.c_types import NotKnown, Prototype, spelled
from ftpatch.elf.function_types import FunctionTypes, InlinedCopies
from ftpatch.elf.image import Image
from ftpatch.elf.type_difference import differences
from ftpatch.recovered.image import open_image
from tools.kernels import Kernel

DWARF = Path(__file__).parent.parent / "testdata" / "dwarf"
TEXT = 0xFFFF_8000_0800_0000
C_FILES = ["types.o", "types-ppc64le.o"]  # DWARF 5 and 4


def told(types: FunctionTypes, name: str) -> str:
    """The prototype of a function as C spells it, or why it is not known."""
    row = types.image.symbols.defined(name)
    assert row is not None
    prototype = types.prototype(row)
    return prototype.why if isinstance(prototype, NotKnown) else spelled(prototype, name)


def types_of(path: Path, kernel: Image | None = None) -> FunctionTypes:
    return FunctionTypes(open_image(str(path)), kernel)


# -- DWARF -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", C_FILES)
@pytest.mark.parametrize(("name", "text"), [
    ("nothing", "void nothing(void)"),
    ("numbers", "long numbers(char, short, u32, long long, bool, enum colour)"),
    ("pointers", "size_t pointers(struct file *, const char *, char **, void *, const struct pair *const)"),
    ("calls", "int calls(compare_t, int (*)(struct file *, ...), int *, int (*)[3])"),
    ("by_value", "struct triple by_value(struct pair, struct triple, union word, pgd_t, __int128)"),
    ("many", "long many(long, long, long, long, long, long, long, long, long)"),
    ("text", "int text(const char *, ...)"),
    ("take", "int (*)(int) take(int)"),
    ("helper", "int helper(int)"),
    ("same", "int same(int)"),  # merged with shared(), so that DWARF has no address of it
    ("old", "DWARF has no prototype of it"),  # int old(a) int a;
    ("cloned.constprop.0", "the compiler made it for constant arguments (.constprop)"),
])  # fmt: skip
def test_dwarf_tells_the_prototype_in_the_source(file: str, name: str, text: str) -> None:
    assert told(types_of(DWARF / file), name) == text


@pytest.mark.parametrize("file", [
    "gcc3", "gcc4", "gcc5", "clang4", "clang5", "gcc4-noaranges", "gcc5-noaranges", "gcc5-zlib", "gcc5-zstd",
    "gcc4.o", "gcc5.o", "clang5.o", "ppc64le.o", "beside.o",
])  # fmt: skip
def test_dwarf_of_every_version_and_compiler_is_read(file: str) -> None:
    types = types_of(DWARF / file)
    assert (told(types, "one"), told(types, "begin")) == ("int one(int)", "int begin(int)")


def test_an_assembler_describes_functions_that_seem_to_take_nothing() -> None:
    assert told(types_of(DWARF / "asm.o"), "assembled") == "it is not written in C, says DWARF"


@pytest.mark.parametrize("file", C_FILES)
def test_only_what_is_declared_so_never_returns(file: str) -> None:
    types = types_of(DWARF / file)
    rows = [types.image.symbols.defined(name) for name in ("forever", "nothing")]
    assert [getattr(types.prototype(row or 0), "noreturn", None) for row in rows] == [True, False]


@pytest.mark.parametrize("file", C_FILES)
@pytest.mark.parametrize(("name", "copies"), [
    ("helper", InlinedCopies(("cloned", "first_user", "second_user"), 4)),
    ("shared", InlinedCopies(("third_user",), 1)),
    ("first_user", InlinedCopies()),
])  # fmt: skip
def test_inlined_copies_are_counted_by_the_functions_that_hold_them(
    file: str, name: str, copies: InlinedCopies
) -> None:
    types = types_of(DWARF / file)
    assert types.inlined(types.image.symbols.defined(name) or 0) == copies


def test_link_time_optimisation_may_have_put_copies_into_other_files(tmp_path: Path) -> None:
    path = tmp_path / "types.o"
    path.write_bytes((DWARF / "types.o").read_bytes().replace(b"third_user\0", b"thi.llvm.1\0"))
    types = types_of(path)
    why = "link-time optimisation may have put more of them into other files"
    assert types.inlined(types.image.symbols.defined("helper") or 0) == InlinedCopies(
        ("cloned", "first_user", "second_user"), 4, why
    )


def test_a_file_without_debug_information_says_so() -> None:
    types = types_of(DWARF.parent / "mini" / "vmlinux-callops")
    row = types.image.symbols.defined("vfs_read") or 0
    assert types.prototype(row) == NotKnown("the file has neither DWARF nor BTF")
    assert types.inlined(row) == InlinedCopies(why_not_known="the file has no DWARF")


@pytest.mark.parametrize(
    "section", [".debug_info", ".debug_abbrev", ".debug_str", ".debug_rnglists", ".rela.debug_info"]
)
def test_damaged_dwarf_is_not_known_and_never_an_error(section: str, tmp_path: Path) -> None:
    """Each byte in turn holds what it should not; nothing loops, nothing is believed that is no prototype."""
    source = DWARF / "types.o"
    image, chance = open_image(str(source)), random.Random(14)
    sec = image.sections_named(section)[0]
    start, size = int(image.shdr["sh_offset"][sec]), int(image.shdr["sh_size"][sec])
    for number in range(60):
        data = bytearray(source.read_bytes())
        for _ in range(1 + number % 3):
            data[start + chance.randrange(size)] = chance.choice((0, 1, 0x2E, 0x7F, 0x80, 0xFF))
        path = tmp_path / f"{number}.o"
        path.write_bytes(data)
        types = types_of(path)
        for row in (types.image.symbols.defined(name) or 0 for name in ("by_value", "helper")):
            assert isinstance(types.prototype(row), Prototype | NotKnown)
            assert isinstance(types.inlined(row), InlinedCopies)


def unit_of(abbrevs: bytes, entries: bytes, path: Path) -> FunctionTypes:
    """A file with one function at TEXT and one unit of C: its entry is declaration 1, of 23 bytes with the header."""
    elf = Elf()
    text = elf.section(".text", bytes(64), addr=TEXT, flags=6)
    root = b"\x01\x11\x01\x11\x01\x12\x0b\x13\x0b\0\0"  # DW_TAG_compile_unit: low_pc, high_pc, language
    body = struct.pack("<HBBI", 5, 1, 8, 0) + b"\x01" + struct.pack("<QBB", TEXT, 64, 12) + entries + b"\0"
    elf.section(".debug_info", struct.pack("<I", len(body)) + body)
    elf.section(".debug_abbrev", root + abbrevs + b"\0")
    elf.symbol("it", text, TEXT, 64)
    path.write_bytes(elf.build())
    return FunctionTypes(open_image(str(path)))


def test_many_functions_at_one_address_are_none(tmp_path: Path) -> None:
    """Each was read with all that it refers to, and kept."""
    types = unit_of(b"\x02\x2e\0\x11\x01\0\0", (b"\x02" + struct.pack("<Q", TEXT)) * 5000, tmp_path / "vmlinux")
    assert types.prototype(1) == NotKnown("DWARF describes 5000 functions at its address")


def test_functions_that_take_functions_like_themselves_are_not_known(tmp_path: Path) -> None:
    """Twelve deep, and as wide as the unit is long, they would never be read to their end."""
    abbrevs = (b"\x02\x2e\x01\x11\x01\x27\x19\0\0"  # DW_TAG_subprogram: low_pc, prototyped
               b"\x03\x05\0\x49\x13\0\0"  # DW_TAG_formal_parameter: type
               b"\x04\x15\x01\x27\x19\0\0")  # DW_TAG_subroutine_type: prototyped  # fmt: skip
    where = 23 + 1 + 8 + 5 + 1  # of the type in the unit
    parameter = b"\x03" + struct.pack("<I", where)
    function = b"\x02" + struct.pack("<Q", TEXT) + parameter + b"\0"
    types = unit_of(abbrevs, function + b"\x04" + parameter * 2000 + b"\0", tmp_path / "vmlinux")
    why = "its DWARF cannot be read (a prototype has too many types: found more than 1024)"
    assert types.prototype(1) == NotKnown(why)


# -- BTF ---------------------------------------------------------------------------------------------------------------


def kernel_types() -> Types:
    types = Types()
    types.add(btf.INT, "int", 4, (1 << 24 | 32,), n=0)  # 1
    types.add(btf.INT, "long unsigned int", 8, (64,), n=0)  # 2
    types.add(btf.TYPEDEF, "size_t", 2)  # 3
    types.add(btf.STRUCT, "file", 96)  # 4
    types.add(btf.PTR, "", 4)  # 5
    types.add(btf.INT, "char", 1, (8,), n=0)  # 6
    types.add(btf.CONST, "", 6)  # 7
    types.add(btf.PTR, "", 7)  # 8
    types.add(btf.FUNC_PROTO, "", 3, (types.name("file"), 5), (types.name("text"), 8))  # 9
    types.add(btf.FUNC, "vfs_read", 9)  # 10
    types.add(btf.FUNC_PROTO, "", 0, (types.name("fmt"), 8), (0, 0))  # 11
    types.add(btf.FUNC, "_printk", 11)  # 12
    types.add(btf.FUNC_PROTO, "", 0)  # 13
    types.add(btf.FUNC, "memcpy", 13)  # 14
    types.add(btf.PTR, "", 11)  # 15
    types.add(btf.STRUCT, "", 8)  # 16
    types.add(btf.TYPEDEF, "pgd_t", 16)  # 17
    types.add(btf.ENUM, "colour", 4)  # 18
    types.add(btf.FWD, "word", 0, flag=True)  # 19
    types.add(btf.PTR, "", 19)  # 20
    types.add(btf.INT, "_Bool", 1, (4 << 24 | 8,), n=0)  # 21
    types.add(btf.ARRAY, "", 0, (1, 2, 3), n=0)  # 22
    types.add(btf.PTR, "", 22)  # 23
    types.add(btf.PTR, "", 0)  # 24
    types.add(btf.FUNC_PROTO, "", 24, *[(0, number) for number in (15, 17, 18, 20, 21, 23)])  # 25
    types.add(btf.FUNC, "every", 25)  # 26
    types.add(btf.FUNC, "twice", 9)  # 27
    types.add(btf.FUNC, "twice", 11)  # 28
    types.add(btf.FUNC, "shared", 9)  # 29
    return types


def file_of(path: Path, content: bytes, names: tuple[str, ...], module: bool = False, base: bytes = b"") -> Image:
    """A file with functions of these names, in their order; a repeated name is a second function."""
    elf = Elf(e_type=1 if module else 3)
    text = elf.section(".text", bytes(4096), addr=0 if module else TEXT, flags=6)
    if module:
        elf.section(".modinfo", b"name=m\0", flags=2)
    if content:
        elf.section(".BTF", content)
    if base:
        elf.section(".BTF.base", base)
    for number, name in enumerate(names):
        elf.symbol(name, text, (0 if module else TEXT) + 64 * number, 64)
    path.write_bytes(elf.build())
    return open_image(str(path))


KERNEL_NAMES = ("vfs_read", "_printk", "memcpy", "every", "twice", "shared", "shared", "absent", "_printk.isra.0")


@pytest.mark.parametrize(("name", "text"), [
    ("vfs_read", "size_t vfs_read(struct file *, const char *)"),
    ("_printk", "void _printk(const char *, ...)"),
    ("every", "void * every(void (*)(const char *, ...), pgd_t, enum colour, union word *, bool, int (*)[3])"),
    ("memcpy", "void memcpy(void)"),
    ("twice", "BTF has 2 functions of that name"),
    ("shared", "2 functions of the file have that name, and BTF goes by names"),
    ("absent", "BTF does not have it"),
    ("_printk.isra.0", "the compiler made it with other parameters (.isra)"),
])  # fmt: skip
@pytest.mark.parametrize("few", [64, -1])  # searched for; from the names of all functions
def test_btf_tells_the_prototype_of_a_name(
    few: int, name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftpatch.elf.function_types.FEW", few)
    assert told(FunctionTypes(file_of(tmp_path / "vmlinux", kernel_types().content(), KERNEL_NAMES)), name) == text


def test_what_btf_has_as_void_of_void_may_be_assembly(tmp_path: Path) -> None:
    """gas describes functions, and pahole takes over what it says: memcpy() and clear_page() of arm64 kernels."""
    image = file_of(tmp_path / "vmlinux", kernel_types().content(), KERNEL_NAMES)
    types = FunctionTypes(image)
    assert [getattr(types.prototype(image.symbols.defined(name) or 0), "assembly", None)
            for name in ("memcpy", "_printk")] == [True, False]  # fmt: skip


def test_btf_knows_a_function_by_another_of_its_names(tmp_path: Path) -> None:
    image = file_of(tmp_path / "vmlinux", kernel_types().content(), ("vfs_read",))
    elf = Elf()
    text = elf.section(".text", bytes(4096), addr=TEXT, flags=6)
    elf.section(".BTF", image.content(image.sections_named(".BTF")[0]).tobytes())
    for name in ("alias_of_it", "vfs_read"):
        elf.symbol(name, text, TEXT, 64)
    (tmp_path / "two").write_bytes(elf.build())
    types = FunctionTypes(open_image(str(tmp_path / "two")))
    assert told(types, "alias_of_it") == "size_t alias_of_it(struct file *, const char *)"
    assert types.aliases(types.image.symbols.defined("vfs_read") or 0) == ["alias_of_it"]


def module_content(kernel: Types) -> bytes:
    own = Types(strings=len(kernel.strings))
    own.add(btf.FUNC_PROTO, "", 1, (own.name("file"), 5))  # 30
    own.add(btf.FUNC, "mine", 30)  # 31
    return own.content()


@pytest.mark.parametrize(("base", "text"), [
    ("", "its BTF goes on from that of a kernel that is not given (--against)"),
    ("kernel", "int mine(struct file *)"),
    ("another", "its BTF goes on from that of another kernel than the one given (--against)"),
    ("none", "the kernel that is given (--against) has no BTF"),
    ("own", "int mine(struct file *)"),
])  # fmt: skip
def test_the_types_of_a_module_go_on_from_its_kernels(base: str, text: str, tmp_path: Path) -> None:
    """With another kernel's types in front, each number is another type."""
    kernel, another = kernel_types(), kernel_types()
    another.add(btf.STRUCT, "grown", 8)
    content = {"kernel": kernel.content(), "another": another.content(), "none": b""}.get(base)
    given = None if content is None else file_of(tmp_path / "vmlinux", content, KERNEL_NAMES)
    own_base = kernel.content() if base == "own" else b""
    module = file_of(tmp_path / "m.ko", module_content(kernel), ("mine",), module=True, base=own_base)
    assert told(FunctionTypes(module, given), "mine") == text


def test_damaged_btf_is_not_known(tmp_path: Path) -> None:
    image = file_of(tmp_path / "vmlinux", kernel_types().content(version=2), KERNEL_NAMES)
    assert told(FunctionTypes(image), "vfs_read") == (
        f"its BTF cannot be read ({tmp_path}/vmlinux: .BTF: the types are of an unknown form: found magic 0xeb9f, "
        "version 2, expected 0xeb9f, 1)"
    )


def test_types_without_an_end_are_not_known(tmp_path: Path) -> None:
    """A typedef of itself, and a function whose parameters are functions like it."""
    types = Types()
    types.add(btf.TYPEDEF, "loop", 1)  # 1
    types.add(btf.FUNC_PROTO, "", 1)  # 2
    types.add(btf.FUNC, "loops", 2)  # 3
    types.add(btf.PTR, "", 5)  # 4
    types.add(btf.FUNC_PROTO, "", 0, *[(0, 4)] * 60)  # 5
    types.add(btf.FUNC, "fans_out", 5)  # 6
    found = FunctionTypes(file_of(tmp_path / "vmlinux", types.content(), ("loops", "fans_out")))
    assert told(found, "loops").startswith("its BTF cannot be read")
    assert len(told(found, "fans_out")) < 1 << 20


# -- real kernels ------------------------------------------------------------------------------------------------------


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["arm64-6.1", "arm64-6.12"])
def test_dwarf_and_btf_of_a_real_kernel_agree(kernel: Callable[[str], Kernel], name: str) -> None:
    types = types_of(Path(kernel(name).vmlinux))
    rows = random.Random(1).sample(types.image.functions.row.tolist(), 150)
    pairs = [(types.image.symbols.name(row), types._by_dwarf(types.image.symbols.name(row), row),
              types._by_btf(types.image.symbols.name(row), row)) for row in rows]  # fmt: skip
    both = [(name, mine, other) for name, mine, other in pairs
            if isinstance(mine, Prototype) and isinstance(other, Prototype)]  # fmt: skip
    assert [(name, list(differences(mine, other, True))) for name, mine, other in both
            if list(differences(mine, other, True))] == []  # fmt: skip
    assert len(both) > 100
