"""Modules with an object linked in, by the command line: written, proven, restored; and damaged afterwards."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elfwriter import ALLOC, EXEC, WRITE, parsed, written
from test_link import FOLDERS, TESTDATA, WITH, Object
from test_module import Export, kernel

from ftpatch.cli import run

Damage = Callable[[bytearray], None]


class Made:
    """The object of testdata/link in the mini.ko of a machine, in the place of mini_step."""

    def __init__(self, folder: Path, arch: str) -> None:
        home, name = FOLDERS[arch]
        self.folder, self.before, self.after = folder, home / "mini.ko", folder / "after.ko"
        self.kernel = kernel(folder, name, Export("ktime_get"), Export("_printk"), folder=home)
        self.journal, patch = folder / "journal.json", TESTDATA / "link" / f"{arch}.o"
        pair = ("--func", "mini_step", "--to", "fixed_step")
        self.code = run(
            [
                "redirect",
                str(self.before),
                *pair,
                "--with",
                str(patch),
                "--keep-original",
                "old_step",
                "--against",
                str(self.kernel),
                "-o",
                str(self.after),
                "--report",
                f"json={self.journal}",
            ]
        )

    def verify(self, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
        capsys.readouterr()
        code = run(["verify", str(self.before), str(self.after), "--format", "json", *options])
        image: dict[str, Any] = json.loads(capsys.readouterr().out)["images"][0]
        assert code == bool(image["findings"])
        return image


def messages(image: dict[str, Any]) -> list[str]:
    return [f"{row['rule']}: {row['message']}" for row in image["findings"]]


@pytest.mark.parametrize(("arch", "note"), [
    ("arm64", "6 sections came along in an object, 613 bytes"),
    ("ppc64le", "8 sections came along in an object, 965 bytes"),
])  # fmt: skip
def test_a_module_with_an_object_is_written_proven_and_undone(
    arch: str, note: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, back = Made(tmp_path, arch), tmp_path / "back.ko"
    assert made.code == 0
    for options in ((), ("--against", str(made.kernel)), ("--journal", str(made.journal), "--require-emulation")):
        image = made.verify(capsys, *options)
        assert messages(image) == []
        assert image["proof"]["notes"] == [f"{note}: whether they are the object's is told by the journal alone"]
    assert image["proof"]["redirects"] == {"fixed_step": 1}
    assert run(["restore", str(made.after), "--journal", str(made.journal), "-o", str(back)]) == 0
    assert back.read_bytes() == made.before.read_bytes()
    assert run(["check", str(made.after)]) == 0


# -- damage ------------------------------------------------------------------------------------------------------------


def header(file: bytes, name: str) -> int:
    """File position of a section's header."""
    elf = parsed(file)
    return int(elf["e_shoff"] + 64 * elf.get_section_index(name))


def sets(name: str, field: int, form: str, value: int) -> Damage:
    """Change a field of a section's header."""
    return lambda file: struct.pack_into(form, file, header(bytes(file), name) + field, value)


def relocation(table: str, row: int, field: int, form: str, value: int) -> Damage:
    def damage(file: bytearray) -> None:
        at = int(parsed(bytes(file)).get_section_by_name(table)["sh_offset"]) + 24 * row + field
        struct.pack_into(form, file, at, value)

    return damage


def word(section: str, off: int, value: int) -> Damage:
    return lambda file: struct.pack_into(
        "<I", file, int(parsed(bytes(file)).get_section_by_name(section)["sh_offset"]) + off, value
    )


def of_symbol(name: str, field: int, form: str, value: int) -> Damage:
    def damage(file: bytearray) -> None:
        table = parsed(bytes(file)).get_section_by_name(".symtab")
        row = next(number for number, one in enumerate(table.iter_symbols()) if one.name == name)
        struct.pack_into(form, file, int(table["sh_offset"]) + 24 * row + field, value)

    return damage


TEXT, RELA, ORIGINAL = f".text{WITH}.text", f".rela.text{WITH}.text", ".text.ftpatch.original"
DAMAGES: list[tuple[str, str, Damage, list[str]]] = [
    ("writable code", "arm64", sets(TEXT, 8, "<Q", ALLOC | EXEC | WRITE), [
     "verify-section: new section 25 .text.ftpatch.with.text is none that a patch makes: type 1, flags "
      "0x7, address, alignment, link, info, entry size 0x0, 0x8, 0x0, 0x0, 0x0",
    ]),
    ("a wide alignment", "arm64", sets(f".data{WITH}.data", 48, "<Q", 1 << 13), [
     "verify-byte: not all of the 3020 bytes at file position 0x21fc belong to a section or to a patch "
      "that was made before",
     "verify-section: new section 26 .data.ftpatch.with.data is none that a patch makes: type 1, flags "
      "0x3, address, alignment, link, info, entry size 0x0, 0x2000, 0x0, 0x0, 0x0",
    ]),
    ("a got", "arm64", relocation(RELA, 0, 8, "<I", 311), [
     "verify-relocation: .rela.text.ftpatch.with.text row 0 has type 311, which the loader does not apply",
    ]),
    ("init text", "arm64", relocation(RELA, 4, 12, "<I", 20), [
     "verify-relocation: .rela.text.ftpatch.with.text row 4 names mini_init in .init.text, which is freed "
      "with init memory, and .text.ftpatch.with.text stays",
    ]),
    ("outside", "arm64", relocation(RELA, 1, 0, "<Q", 0x1E9), [
     "verify-relocation: .rela.text.ftpatch.with.text row 1 writes at 0x1e9, which is not in what came "
      "along",
    ]),
    ("an entry's word", "arm64", word(ORIGINAL, 0, 0xD503201F), [
     "verify-stub: .text.ftpatch.original: old_step is not the code of an entry",
    ]),
    ("an entry's jump", "arm64", relocation(f".rela{ORIGINAL}", 0, 16, "<q", 0x10), [
     "verify-stub: .text.ftpatch.original: old_step leads to no place behind the site of a redirected "
      "function",
    ]),
    ("a long symbol", "arm64", of_symbol("fixed_work", 16, "<Q", 0x1000), [
     "verify-symbol: new symbol 54 fixed_work ends at 0x1188, behind its section",
    ]),
    ("a local one", "arm64", of_symbol("steps", 4, "<B", 0x01), [
     "verify-symbol: new symbol 55 steps is not simply global",
    ]),
    ("a record", "arm64", relocation(".rela__patchable_function_entries", 5, 16, "<q", 4), [
     "verify-record: slot 5 has a record of what came along that is no site as it was compiled",
    ]),
    ("the TOC", "ppc64le", relocation(f".rela{ORIGINAL}", 0, 16, "<q", 0), [
     "verify-stub: .text.ftpatch.original: old_step does not find the module's TOC pointer",
    ]),
    ("its load", "ppc64le", word(ORIGINAL, 8, 0xE84CFFF0), [
     "verify-stub: .text.ftpatch.original: old_step is not the code of an entry",
    ]),
    ("a front", "ppc64le", word(ORIGINAL, 16, 0x7C0802A6), [
     "verify-stub: .text.ftpatch.original: old_step is not the code of an entry",
    ]),
    ("no nop", "ppc64le", word(TEXT, 0x258, 0x60420000), [
     "verify-relocation: .rela.text.ftpatch.with.text row 31 is a call of another file without a nop "
      "behind it",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("arch", "damage", "told"), [row[1:] for row in DAMAGES], ids=[row[0] for row in DAMAGES])
def test_damage_is_told(
    arch: str, damage: Damage, told: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Made(tmp_path, arch)
    file = bytearray(made.after.read_bytes())
    damage(file)
    made.after.write_bytes(file)
    assert messages(made.verify(capsys)) == told


def test_a_byte_of_the_object_is_held_by_the_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Made(tmp_path, "arm64")
    file = bytearray(made.after.read_bytes())
    word(TEXT, 0x80, 0xD503201F)(file)
    made.after.write_bytes(file)
    assert messages(made.verify(capsys)) == []
    assert [row.partition(":")[0] for row in messages(made.verify(capsys, "--journal", str(made.journal)))] == [
        "verify-journal", "verify-journal"
    ]  # fmt: skip


def test_a_second_object_comes_along_with_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its sections have names of their own; entries of the first object's are no functions of the module's own."""
    made, patch, second = Made(tmp_path, "arm64"), Object(), tmp_path / "second.ko"
    path = written(tmp_path / "second.o", patch.build())
    wanted = ("--func", "mini_work", "--to", "fixed", "--with", path, "--keep-original", "old_work")
    assert run(["redirect", str(made.after), *wanted, "-o", str(second)]) == 0
    made.after = second
    image = made.verify(capsys, "--require-emulation")
    assert messages(image) == []
    assert image["proof"]["redirects"] == {"fixed": 1, "fixed_step": 1}
    names = [section.name for section in parsed(second.read_bytes()).iter_sections()]
    assert f".text{WITH}.text.2" in names and f"{ORIGINAL}.2" in names
    assert run(["disable", str(second), "--func", "mini_work", "-o", str(tmp_path / "third.ko")]) == 0


def test_an_object_does_not_come_along_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, path = Made(tmp_path, "arm64"), TESTDATA / "link" / "arm64.o"
    capsys.readouterr()
    wanted = ("--func", "mini_work", "--to", "fixed_work", "--with", str(path), "--keep-original", "old_work")
    assert run(["redirect", str(made.after), *wanted, "-o", str(tmp_path / "second.ko")]) == 5
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"ftpatch: {path}: the object defines a symbol that the module has: found shared_count, which the module "
        "defines at .bss.ftpatch.with.common+0x0, expected a new name – rename it, or make it static"
    )


@pytest.mark.parametrize("arch", FOLDERS)
def test_what_two_patches_add_has_names_of_its_own(
    arch: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A module that was enabled twice had two sections .text.ftpatch: newer kernels did not load it (EEXIST)."""
    home, name = FOLDERS[arch]
    (tmp_path / "one").mkdir()
    vmlinux = kernel(tmp_path / "one", name, Export("hook"), Export("_printk"), folder=home)
    first, second = tmp_path / "first.ko", tmp_path / "second.ko"
    for before, function, after in ((home / "mini.ko", "mini_work", first), (first, "mini_step", second)):
        wanted = ("--func", function, "--hook", "hook", "--against", str(vmlinux))
        assert run(["enable", str(before), *wanted, "-o", str(after)]) == 0
    names = [section.name for section in parsed(second.read_bytes()).iter_sections() if section["sh_flags"] & ALLOC]
    assert [one for one in names if "ftpatch" in one] == [".text.ftpatch", ".text.ftpatch.2"]
    assert run(["verify", str(home / "mini.ko"), str(second), "--require-emulation"]) == 0
    file = bytearray(second.read_bytes())
    (at,) = struct.unpack_from("<I", file, header(bytes(file), ".text.ftpatch"))
    sets(".text.ftpatch.2", 0, "<I", at)(file)
    second.write_bytes(file)
    capsys.readouterr()
    assert run(["verify", str(home / "mini.ko"), str(second)]) == 1
    said = capsys.readouterr().out
    assert "is a second one of the name .text.ftpatch: newer kernels do not load the module (EEXIST)" in said
