"""The types of `.BTF`, and which objects they let a site serve."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from elfwriter import OBJECT, Elf

from ftpatch.cli import run
from ftpatch.elf import btf
from ftpatch.elf.btf import Btf, Member, Variable, read_btf
from ftpatch.elf.image import Image
from ftpatch.errors import ElfError
from ftpatch.kernel.ftrace_ops import why_no_ops
from ftpatch.recovered.image import open_image

CALLOPS = Path(__file__).parent.parent / "testdata/mini/vmlinux-callops"


class Types:
    """Makes the content of a `.BTF`. first: number of its first type; strings: bytes of those of its base."""

    def __init__(self, strings: int = 0) -> None:
        self.types, self.strings, self.low = b"", b"\0" if not strings else b"", strings

    def name(self, text: str) -> int:
        if not text:
            return 0
        self.strings += text.encode() + b"\0"
        return self.low + len(self.strings) - len(text.encode()) - 1

    def add(self, kind: int, name: str, third: int, *members: tuple[int, ...], flag: bool = False, n: int = -1) -> None:
        n = len(members) if n < 0 else n
        self.types += struct.pack("<III", self.name(name), flag << 31 | kind << 24 | n, third)
        self.types += b"".join(struct.pack(f"<{len(member)}I", *member) for member in members)

    def content(self, **changed: int) -> bytes:
        fields = {"magic": 0xEB9F, "version": 1, "header": 24, "type_off": 0, "type_len": len(self.types),
                  "str_off": len(self.types), "str_len": len(self.strings), **changed}  # fmt: skip
        magic, version, *rest = fields.values()
        return struct.pack("<HBB5I", magic, version, 0, *rest) + self.types + self.strings


def sample() -> Types:
    types = Types()
    types.add(btf.INT, "int", 4, (32,), n=0)  # 1
    types.add(btf.PTR, "", 1)  # 2
    types.add(btf.STRUCT, "ftrace_ops", 96, (types.name("func"), 2, 0), (types.name("flags"), 1, 64))  # 3
    types.add(btf.CONST, "", 3)  # 4
    types.add(btf.TYPEDEF, "ops_t", 4)  # 5
    types.add(btf.ARRAY, "", 0, (5, 1, 3), n=0)  # 6
    types.add(btf.FUNC_PROTO, "", 1, (types.name("file"), 2), (0, 0))  # 7
    types.add(btf.FUNC, "vfs_read", 7)  # 8
    types.add(btf.VAR, "my_ops", 5, (1,), n=0)  # 9
    types.add(btf.VAR, "my_number", 1, (1,), n=0)  # 10
    types.add(btf.DATASEC, ".data", 100, (9, 0, 96), (10, 96, 4))  # 11
    types.add(btf.STRUCT, "bits", 4, (types.name("low"), 1, 3 << 24 | 5), flag=True)  # 12
    types.add(btf.FWD, "unknown", 0)  # 13
    return types


def image_of(folder: Path, content: bytes, objects: tuple[tuple[str, int], ...] = ()) -> Image:
    elf = Elf()
    data = elf.section(".data", bytes(4096), addr=0xFFFF_8000_0800_0000, flags=3)
    elf.section(".BTF", content)
    for number, (name, size) in enumerate(objects):
        elf.symbol(name, data, 0xFFFF_8000_0800_0000 + 256 * number, size, OBJECT)
    path = folder / "vmlinux"
    path.write_bytes(elf.build())
    return open_image(str(path))


def read(folder: Path, types: Types) -> Btf:
    made = read_btf(image_of(folder, types.content()))
    assert made is not None
    return made


def test_types_are_found_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten million types took ten times the section's size at once."""
    whole = read(tmp_path, sample()).start.tolist()
    for words in range(1, 9):
        monkeypatch.setattr(btf, "PIECE", words)
        assert read(tmp_path, sample()).start.tolist() == whole


def test_names_sizes_members_parameters_and_variables(tmp_path: Path) -> None:
    types = read(tmp_path, sample())
    assert (types.first, types.end) == (1, 14)
    assert [types.name(number) for number in (0, 1, 3, 5)] == ["void", "int", "ftrace_ops", "ops_t"]
    assert [types.size(number) for number in (1, 2, 3, 5, 6, 8, 13)] == [4, 8, 96, 96, 288, None, None]
    assert (types.plain(5), types.find(btf.STRUCT, "ftrace_ops"), types.find(btf.STRUCT, "ops")) == (3, 3, None)
    assert types.members(5) == [Member("func", 2, 0), Member("flags", 1, 64)]
    assert types.members(12) == [Member("low", 1, 5)]
    assert types.parameters(8) == types.parameters(7) == [Member("file", 2), Member("", 0)]
    assert types.target(types.target(8)) == 1
    assert types.variables(".data") == [Variable("my_ops", 5, 0, 96), Variable("my_number", 1, 96, 4)]
    assert (types.variable("my_ops"), types.variable("ops"), types.variables(".bss")) == (5, None, [])


def test_a_module_goes_on_from_its_kernel(tmp_path: Path) -> None:
    kernel = read(tmp_path, sample())
    own = Types(strings=kernel.all_strings)
    own.add(btf.STRUCT, "mine", 8, (own.name("ops"), 2, 0))
    own.add(btf.FUNC_PROTO, "", 0, (own.name("what"), 14))
    module = read_btf(image_of(tmp_path, own.content()), kernel)
    assert module is not None
    assert (module.first, module.end, module.name(14), module.size(3)) == (14, 16, "mine", 96)
    assert module.find(btf.STRUCT, "ftrace_ops") == 3
    assert module.find(btf.STRUCT, "mine") == 14
    assert module.parameters(15) == [Member("what", 14)]


def broken(change: str) -> bytes:
    types = sample()
    match change:
        case "kind":
            types.add(31, "", 0)
        case "cut":
            types.add(btf.STRUCT, "", 8, n=3)
    return types.content()


@pytest.mark.parametrize(("content", "line"), [
    (b"", "the types cannot be read: found 0 bytes, expected 24 to 268435456"),
    (sample().content(magic=0x9FEB),
     "the types are of an unknown form: found magic 0x9feb, version 1, expected 0xeb9f, 1"),
    (sample().content(version=2),
     "the types are of an unknown form: found magic 0xeb9f, version 2, expected 0xeb9f, 1"),
    (sample().content(type_len=2), "the types' header contradicts the section: found parts that end at 0x1a and 0x16f, "
     "expected at most 0x16f bytes"),
    (sample().content(str_len=1 << 31), "the types' header contradicts the section: found parts that end at 0x118 and "
     "0x80000118, expected at most 0x16f bytes"),
    (broken("kind"), "a type is of an unknown kind: found kind 31 at 0x100, expected 1 to 19"),
    (broken("cut"), "the last type is cut off: found it ends at 0x130, expected 0x10c"),
])  # fmt: skip
def test_what_contradicts_itself_is_one_line(content: bytes, line: str, tmp_path: Path) -> None:
    image = image_of(tmp_path, content)
    with pytest.raises(ElfError) as error:
        read_btf(image)
    assert str(error.value).replace(f"{image.path}: .BTF: ", "") == line


def test_references_to_nothing_and_circles_end(tmp_path: Path) -> None:
    types = Types()
    types.add(btf.CONST, "", 2)
    types.add(btf.TYPEDEF, "", 1)
    types.add(btf.ARRAY, "", 0, (3, 1, 0xFFFFFFFF), n=0)
    types.add(btf.PTR, "", 99)
    made = read(tmp_path, types)
    for ask in (lambda: made.plain(1), lambda: made.size(3), lambda: made.kind(99), lambda: made.string(1 << 30),
                lambda: made.members(4), lambda: made.target(3)):  # fmt: skip
        with pytest.raises(ElfError):
            ask()


@pytest.mark.parametrize(("name", "size", "why"), [
    ("my_ops", 96, ""),
    ("ftrace_list_ops", 96, ""),
    ("ftrace_list_ops", 64, "64 bytes, and struct ftrace_ops has 96"),
    ("init_task", 4736, "4736 bytes, and struct ftrace_ops has 96"),
    ("my_number", 96, "a type of kind 1, by BTF"),
    ("somebody", 96, "an object of a type that neither BTF nor DWARF tells here, and none of the known names"),
])  # fmt: skip
def test_an_ftrace_ops_is_known_by_its_type_or_its_name(name: str, size: int, why: str, tmp_path: Path) -> None:
    image = image_of(tmp_path, sample().content(), ((name, size),))
    row = image.symbols.defined(name)
    assert row is not None
    assert why_no_ops(image, row) == why


def test_types_that_cannot_be_read_leave_the_name(tmp_path: Path) -> None:
    image = image_of(tmp_path, b"junk", (("global_ops", 96), ("init_task", 96)))
    rows = [image.symbols.defined(name) or 0 for name in ("global_ops", "init_task")]
    assert [bool(why_no_ops(image, row)) for row in rows] == [False, True]


@pytest.mark.parametrize(("ops", "found"), [
    ("init_stack", "an object of a type that neither BTF nor DWARF tells here, and none of the known names, expected a "
     "struct ftrace_ops – ftrace_list_ops serves every tracer, ftrace_nop_ops none"),
    ("linux_banner", "symbol type 1, 47 bytes, expected an object of at least 88 bytes: direct_call is read at 80"),
    ("vfs_read", "symbol type 2, 140 bytes, expected an object of at least 88 bytes: direct_call is read at 80"),
])  # fmt: skip
def test_no_other_data_is_taken_for_ops(
    ops: str, found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any object that was large enough could be named: the kernel would have called what its first bytes are."""
    line = ["enable", str(CALLOPS), "--func", "row:8", "--ops", ops, "-o", str(tmp_path / "out")]
    assert run(line) == 5
    assert capsys.readouterr().err == f"ftpatch: --ops {ops}: not an ftrace_ops: found {found}\n"
