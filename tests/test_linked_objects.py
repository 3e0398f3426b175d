"""`verify --with`: what came along in an object is held against the object, byte by byte, relocation by relocation."""

from __future__ import annotations

from pathlib import Path

import pytest
from elfwriter import ALLOC, EXEC, NOTYPE, RET, as_code, parsed, written
from test_link import FOLDERS, TESTDATA, Object
from test_link_proof import Damage, Made, messages, of_symbol, relocation, sets, word

from ftpatch.cli import run
from ftpatch.errors import FtpatchError
from ftpatch.proof.prove import Checks, prove
from ftpatch.recovered.image import open_image
from ftpatch.sites.scan import scan_file

TEXT, RODATA = ".text.ftpatch.with.text", ".rodata.ftpatch.with.rodata"
ARM64, PPC64LE = TESTDATA / "link/arm64.o", TESTDATA / "link/ppc64le.o"


def flip(section: str, off: int) -> Damage:
    def damage(file: bytearray) -> None:
        file[int(parsed(bytes(file)).get_section_by_name(section)["sh_offset"]) + off] ^= 0x10

    return damage


@pytest.mark.parametrize("arch", ["arm64", "ppc64le"])
def test_what_came_along_is_what_the_object_holds(
    arch: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Made(tmp_path, arch)
    image = made.verify(capsys, "--with", str(TESTDATA / f"link/{arch}.o"))
    assert (messages(image), image["proof"]["notes"]) == ([], [])


@pytest.mark.parametrize(("arch", "machine", "back"), [("arm64", 183, RET), ("ppc64le", 21, 0x4E80_0020)])
def test_code_that_an_assembler_did_not_align_is_aligned(
    arch: str, machine: int, back: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, module = Object(machine=machine, words=(back, back)), str(FOLDERS[arch][0] / "mini.ko")
    made.sections[made.text].align = 1
    made.symbol("label", made.section(".text.more", as_code((back,)), flags=ALLOC | EXEC), 0, type=NOTYPE)
    patch, out = written(tmp_path / "fix.o", made.build()), tmp_path / "mini.ko"
    redirect = ["redirect", module, "--func", "mini_work", "--with", patch, "-o", str(out)]
    assert run([*redirect, "--to", "fixed"]) == 0
    assert parsed(out.read_bytes()).get_section_by_name(TEXT)["sh_addralign"] == 4
    assert run(["verify", module, str(out), "--with", patch, "--require-emulation"]) == 0
    capsys.readouterr()
    assert run([*redirect, "--to", "label"]) == 5
    assert capsys.readouterr().err == (
        f"ftpatch: --to label: the replacement is no function: found a label of {patch}, expected a function – "
        ".type NAME, %function makes it one\n"
    )


DAMAGES: list[tuple[str, Damage, list[str]]] = [
    ("a word", word(TEXT, 0x40, 0xD503_201F), ["verify-byte: {text} has other bytes there from 0x40 on"]),
    ("a byte of a constant", flip(RODATA, 0x3F), ["verify-byte: {rodata} has other bytes there from 0x3f on"]),
    ("an addend", relocation(f".rela{TEXT}", 1, 16, "<q", 4), [
        "verify-relocation: {text}: relocation 1 is another there, at 0x14 to ftpatch_with.bss"]),
    ("a type", relocation(f".rela{TEXT}", 5, 8, "<I", 283), [
        "verify-relocation: {text}: relocation 5 is another there, at 0x80 to mini_util"]),
    ("a symbol", relocation(f".rela{TEXT}", 5, 12, "<I", 45), [
        "verify-relocation: {text}: relocation 5 is another there, at 0x80 to mini_work"]),
    ("a size", of_symbol("fixed_work", 16, "<Q", 8), [
        "verify-symbol: fixed_work of {path} is not where its section came to"]),
    ("an alignment", sets(RODATA, 48, "<Q", 4), ["verify-section: {rodata} has another size, alignment or kind there"]),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "expected"), [case[1:] for case in DAMAGES], ids=[case[0] for case in DAMAGES])
def test_damage_to_what_came_along_is_found(
    damage: Damage, expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the object nobody could tell, but by the journal."""
    made = Made(tmp_path, "arm64")
    file = bytearray(made.after.read_bytes())
    damage(file)
    made.after.write_bytes(file)
    names = {"text": f"{TEXT}: .text of {ARM64}", "rodata": f"{RODATA}: .rodata of {ARM64}", "path": ARM64}
    assert messages(made.verify(capsys)) == []
    assert messages(made.verify(capsys, "--with", str(ARM64))) == [line.format(**names) for line in expected]


def test_any_changed_byte_of_what_came_along_is_found(tmp_path: Path) -> None:
    """Of contents and relocations, one bit of each; of the records that came along too the sites tell."""
    made = Made(tmp_path, "ppc64le")
    before, sound = scan_file(str(made.before)), made.after.read_bytes()
    checks, elf, missed = Checks(execute=False, deep=None, objects=(open_image(str(PPC64LE)),)), parsed(sound), []
    for section in elf.iter_sections():
        if ".ftpatch.with" not in section.name or section["sh_type"] == "SHT_NOBITS":
            continue
        for off in range(0, int(section["sh_size"]), 13):  # every bit and every field of a row in the end
            file, at = bytearray(sound), int(section["sh_offset"]) + off
            file[at] ^= 1 << off % 8
            made.after.write_bytes(file)
            try:
                proof = prove(before, open_image(str(made.after)), checks=checks)
            except FtpatchError:
                continue
            if not proof.findings:
                missed.append((section.name, off))
    assert missed == []


def test_another_object_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Made(tmp_path, "arm64")
    for option, line in (
        (PPC64LE, f"{PPC64LE}: no object for this module: found object of ppc64le, expected one of arm64\n"),
        (made.before, f"{made.before}: no object for this module: found module of arm64, expected one of arm64\n"),
    ):
        assert run(["verify", str(made.before), str(made.after), "--with", str(option)]) == 2
        assert capsys.readouterr().err.endswith(line)


def test_an_object_that_did_not_come_along_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Made(tmp_path, "arm64")
    made.after.write_bytes(made.before.read_bytes())
    names = (".text", ".data", ".bss", ".rodata.str1.8", ".rodata")
    assert messages(made.verify(capsys, "--with", str(ARM64))) == [
        f"verify-section: {name} of {ARM64} did not come along" for name in names
    ]


def test_kernels_have_no_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernel = TESTDATA / "mini/vmlinux-exec"
    assert run(["verify", str(kernel), str(kernel), "--with", str(ARM64)]) == 2
    assert capsys.readouterr().err == (
        f"ftpatch: {kernel}: --with is for modules, into which objects are linked: found vmlinux\n"
    )
