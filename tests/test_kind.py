"""Which files are kernels. arm64's are ET_DYN, as shared objects are: only what is in the file tells."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from elfedit import MINI, MINI_PPC, Elf, without_symbols
from elfwriter import ALLOC, ET_DYN, ET_EXEC, ET_REL, EXEC, RET, as_code
from elfwriter import Elf as Writer

from ftpatch.cli import run
from ftpatch.recovered.image import open_image

HIGH, LOW = 0xFFFF_8000_8000_0000, 0x1_0000
NEEDED, SONAME, FLAGS_1, PIE = 1, 14, 0x6FFF_FFFB, 0x0800_0000
LOAD, DYNAMIC, INTERP, INFO = 1, 2, 3, 4
Tags = list[tuple[int, int]]


def file_of(
    e_type: int, base: int, sections: list[str], symbols: list[str], tags: Tags | None = None, interp: bool = False,
    machine: int = 183,
) -> bytes:  # fmt: skip
    """A linked file of one function, with more sections and symbols, and program headers of a program."""
    elf = Writer(e_type, machine)
    text = elf.section(".text", as_code((RET,)) * 4, flags=ALLOC | EXEC, addr=base, align=4)
    for n, name in enumerate(sections, 1):
        elf.section(name, bytes(8), flags=ALLOC, addr=base + 0x1000 * n, align=8)
    for name in ["first", *symbols]:
        elf.symbol(name, text, base, 4)
    content = bytearray(elf.build())
    rows = [(DYNAMIC, b"".join(struct.pack("<QQ", *tag) for tag in [*tags, (0, 0)]))] if tags is not None else []
    rows += [(INTERP, b"/lib/ld-linux-aarch64.so.1\0")] if interp else []
    headers = b""
    for kind, data in rows:
        headers += struct.pack("<IIQQQQQQ", kind, 4, len(content), base, base, len(data), len(data), 8)
        content += data
    struct.pack_into("<Q", content, 32, len(content))
    struct.pack_into("<H", content, 56, len(rows))
    return bytes(content + headers)


CASES = [  # expected, type, address, sections, symbols, dynamic table, with an interpreter
    ("vmlinux", ET_DYN, HIGH, [".head.text"], [], None, False),
    ("vmlinux", ET_DYN, HIGH, [".init.text", ".init.data"], [], None, False),
    ("vmlinux", ET_DYN, HIGH, ["__ksymtab"], [], [], False),  # lld leaves a dynamic table
    ("vmlinux", ET_EXEC, HIGH, [], ["_stext"], None, False),
    ("vmlinux", ET_DYN, HIGH, [], ["linux_banner"], None, False),
    ("vmlinux", ET_EXEC, HIGH, [], ["__start_mcount_loc", "__stop_mcount_loc"], None, False),
    ("program", ET_EXEC, HIGH, [], [], None, False),
    ("shared-object", ET_DYN, HIGH, [], [], None, False),
    # at addresses of programs one name is chance
    ("shared-object", ET_DYN, LOW, [], [], [(SONAME, 1)], False),
    ("shared-object", ET_DYN, LOW, [], [], [(NEEDED, 1)], False),
    ("shared-object", ET_DYN, LOW, [], [], [], False),  # a vDSO, a plug-in
    ("shared-object", ET_DYN, 0, [".init.text"], [], [], False),
    ("shared-object", ET_DYN, LOW, [".init.text", ".init.data"], ["_stext", "_sinittext"], [], False),  # other kernels
    ("shared-object", ET_DYN, LOW, [], ["__start_mcount_loc", "__stop_mcount_loc"], [], False),
    ("shared-object", ET_DYN, LOW, [], ["start_kernel", "_text"], [(NEEDED, 1)], False),
    ("program", ET_EXEC, LOW, [".init.text"], ["start_kernel"], None, False),
    ("vmlinux", ET_EXEC, LOW, ["__ksymtab", "__param"], ["linux_banner"], None, False),
    # the kernel as a library, or as a program: what loads programs loads it
    ("shared-object", ET_DYN, LOW, ["__ksymtab", "__param"], ["linux_banner"], [(SONAME, 1), (NEEDED, 2)], False),
    ("program", ET_DYN, LOW, ["__ksymtab", "__param"], ["linux_banner"], [], True),
    # programs that may lie anywhere
    ("program", ET_DYN, LOW, [], [], [(NEEDED, 1), (FLAGS_1, PIE)], True),
    ("program", ET_DYN, LOW, [], [], [(FLAGS_1, PIE)], False),  # static
    ("program", ET_DYN, LOW, [], [], [], True),
    ("shared-object", ET_DYN, LOW, [], [], [(SONAME, 1)], True),  # the C library can be run, too
    ("program", ET_EXEC, LOW, [], [], [(NEEDED, 1)], True),
]  # fmt: skip


@pytest.mark.parametrize("machine", [183, 21])
@pytest.mark.parametrize("case", CASES)
def test_a_kernel_is_told_by_evidence(
    case: tuple[str, int, int, list[str], list[str], Tags | None, bool], machine: int, tmp_path: Path
) -> None:
    expected, e_type, base, sections, symbols, tags, interp = case
    path = tmp_path / "file"
    path.write_bytes(file_of(e_type, base, sections, symbols, tags, interp, machine))
    assert open_image(str(path)).kind == expected


@pytest.mark.parametrize("file", [MINI / "vmlinux-pfe2", MINI / "vmlinux-callops", MINI_PPC / "vmlinux-ool"])
def test_a_kernel_without_symbols_is_still_a_kernel(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(without_symbols(file.read_bytes(), lambda *symbol: True))
    assert open_image(str(path)).kind == "vmlinux"


def test_a_relocatable_file_is_no_shared_object(tmp_path: Path) -> None:
    path = tmp_path / "x.o"
    path.write_bytes(file_of(ET_REL, 0, [".init.text"], ["start_kernel", "linux_banner"]))
    assert open_image(str(path)).kind == "object"


@pytest.fixture
def shared(tmp_path: Path) -> str:
    """The position-independent program of the fixtures without the flag that says so."""
    content = bytearray((MINI / "program").read_bytes())
    at = content.index(struct.pack("<QQ", FLAGS_1, PIE))
    struct.pack_into("<Q", content, at + 8, 0)
    path = tmp_path / "lib.so"
    path.write_bytes(content)
    return str(path)


def test_nothing_boots_a_shared_object(shared: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["scan", shared]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{shared}: arm64 shared-object, ") and "at boot" not in text
    assert run(["scan", shared, "--format", "json"]) == 0
    image = json.loads(capsys.readouterr().out)["images"][0]
    assert (image["kind"], image["summary"]["boot"], image["summary"]["live"]) == ("shared-object", None, 4)
    assert run(["check", shared, "--predict", "--format", "json"]) == 0
    image = json.loads(capsys.readouterr().out)["images"][0]
    assert "oracle" not in image and {row["rule"] for row in image["findings"]} == {"record-order"}  # main is first
    for verb, code, message in (
        (["enable", shared, "--func", "*"], 5, "nothing says what the sites call"),
        (["image", shared, "-o", str(tmp_path / "Image")], 5, "no boot image can be made of this file"),
        (["check", str(MINI / "mini.ko"), "--against", shared], 2, "--against takes a vmlinux"),
    ):
        assert run(verb) == code
        assert message in capsys.readouterr().err


def test_a_stripped_shared_object_is_read_by_its_dynamic_symbols(
    shared: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`strip` leaves .dynsym; every function of a stripped library was code without a name."""
    elf = Elf(Path(shared)).sh(".dynsym", sh_type=0).sh(".symtab", sh_type=11)
    Path(shared).write_bytes(elf.raw)
    assert run(["scan", shared, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"][0]["summary"]["by_status"] == {"ready": 4}


def test_a_kernel_is_not_read_by_its_dynamic_symbols(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """ppc64le kernels have a .dynsym of a few odd symbols, which stays when all others are stripped."""
    path = tmp_path / "vmlinux"
    path.write_bytes(Elf(MINI_PPC / "vmlinux-pfe2").sh(".symtab", sh_type=0).raw)
    assert run(["scan", str(path)]) == 5
    assert f"{path}: no symbol table: found a stripped ELF file" in capsys.readouterr().err
