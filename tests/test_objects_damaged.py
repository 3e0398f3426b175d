"""Damaged objects: each ends in a refusal of one line or a right answer, never in an error of ours."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from ftpatch import api
from ftpatch.cli import run
from ftpatch.elf import tables as t
from ftpatch.recovered.image import open_image

DATA = Path(__file__).parent.parent / "testdata"
FENTRY, NOPS = DATA / "pg/x86_64-fentry.o", DATA / "mini/pfe2.o"
Change = Callable[[bytearray], None]


def rela_row(path: Path, section: str, row: int) -> int:
    """File position of a row of a section of relocations."""
    image = open_image(str(path))
    (sec,) = image.sections_named(section)
    return int(image.shdr["sh_offset"][sec]) + t.RELA.itemsize * row


def addend(path: Path, section: str, row: int, value: int) -> Change:
    at = rela_row(path, section, row) + 16
    return lambda file: struct.pack_into("<Q", file, at, value)


def section_symbol(path: Path, value: int) -> Change:
    """The symbol that the first record is relative to has a value."""
    image = open_image(str(path))
    (table,), at = image.sections_named(".symtab"), rela_row(path, ".rela__mcount_loc", 0) + 8
    symbol = struct.unpack_from("<Q", path.read_bytes(), at)[0] >> 32
    pos = int(image.shdr["sh_offset"][table]) + 24 * symbol + 8
    return lambda file: struct.pack_into("<Q", file, pos, value)


ON = ("enable", "--func", "*", "--target", "tracer")
FAR = addend(FENTRY, ".rela__mcount_loc", 0, 0x7FFF_FFFF_FFFF_FFFE)
ASKEW = addend(NOPS, ".rela__patchable_function_entries", 4, 0x33)  # one byte in front of the entry of vfs_read
DAMAGED = [
    ("far-record", FENTRY, FAR, ON, 0, "sites      12 enabled, calling tracer"),
    ("far-symbol", FENTRY, section_symbol(FENTRY, 1 << 63), ("record",), 0,
     "dropped    section 7 __mcount_loc, slot 0, 1, 2 … (11): it names no code"),
    ("askew", NOPS, ASKEW, ON, 5,
     "found vfs_read (row 2, .text+0x34): it shares words with a site that stays, expected all of them"),
    ("askew-left", NOPS, ASKEW, (*ON, "--skip-unpatchable"), 0, "sites      6 enabled, calling tracer"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "damage", "command", "code", "said"), [pytest.param(*row[1:], id=row[0]) for row in DAMAGED]
)
def test_records_of_damaged_objects(
    path: Path, damage: Change, command: tuple[str, ...], code: int, said: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    file = bytearray(path.read_bytes())
    damage(file)
    (tmp_path / "in.o").write_bytes(file)
    assert run([command[0], str(tmp_path / "in.o"), *command[1:], "-o", str(tmp_path / "out.o")]) == code
    out, err = capsys.readouterr()
    assert said in (out if code == 0 else err)


def test_a_call_without_its_prefix_has_its_mark_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    on, damaged = tmp_path / "on.o", tmp_path / "damaged.o"
    assert run(["enable", str(DATA / "pg/x86_64-got.o"), *ON[1:], "-o", str(on)]) == 0
    file = bytearray(on.read_bytes())
    file[int(api.scan(str(on)).sites.pos[0])] = 0x90  # was 0x67, of `addr32 call`
    damaged.write_bytes(file)
    capsys.readouterr()
    assert run(["enable", str(damaged), *ON[1:], "--unrecorded", "-o", str(tmp_path / "out.o")]) == 5
    assert "within.0 (no record, .text+0x7): its call has no single relocation to mcount" in capsys.readouterr().err
