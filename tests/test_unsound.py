"""Files that are damaged in a way that shows only in a result: the reason is told, and it is not a fault of ftpatch."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftpatch.cli import run
from ftpatch.elf import tables as t
from ftpatch.recovered.image import open_image

ROOT = Path(__file__).parent.parent / "testdata/mini-ppc64le"
MODULE = Path(__file__).parent.parent / "testdata/mini/mini.ko"
ALL = ("--func", "*", "--skip-unpatchable")


def damaged(folder: Path, name: str, *changes: tuple[int, int, int]) -> Path:
    """A fixture with other numbers in it. changes: file position, bytes, value."""
    data = bytearray((ROOT / name).read_bytes())
    for pos, size, value in changes:
        data[pos : pos + size] = value.to_bytes(size, "little")
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("name", "changes"), [
    ("vmlinux-far", ((0x3DA8, 8, 0xC000_0004_0000_0B28), (0x512E, 2, 0x4982), (0x4F10, 8, 0x1E60_6747_3CF3_D7F0))),
    ("vmlinux-unreachable", ((0x5198, 8, 0x80_0000_0000),)),
])  # fmt: skip
def test_a_symbol_that_reaches_over_free_text_leaves_no_room_there(
    name: str, changes: tuple[tuple[int, int, int], ...], tmp_path: Path
) -> None:
    """The stub was put there, and the check of the result asked to report that: exit code 70."""
    before, after = damaged(tmp_path, name, *changes), tmp_path / "after"
    assert run(["enable", str(before), *ALL, "-o", str(after)]) in (0, 5)
    assert not after.exists() or run(["verify", str(before), str(after)]) == 0


def test_a_slot_that_was_emptied_by_its_addend_alone_repeats_it_again(tmp_path: Path) -> None:
    """The file has its addends a second time in the words; one addend was 0, and its word was not."""
    before = damaged(tmp_path, "vmlinux-clang", (0x30D8, 8, 0))
    once, back = tmp_path / "once", tmp_path / "back"
    assert run(["enable", str(before), *ALL, "-o", str(once)]) == 0
    assert run(["disable", str(once), "--status", "enabled", "--skip-unpatchable", "-o", str(back)]) == 0


def test_what_is_wrong_before_is_no_fault_of_the_patch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sites that call where no symbol is: as they are in the file, and not as the patch makes them."""
    before = damaged(tmp_path, "vmlinux-saved", (0x4340, 8, 0x69A3_6E9A_8C03_54BE))
    assert run(["enable", str(before), *ALL, "-o", str(tmp_path / "after")]) == 3
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"ftpatch: {before}: the file is not sound before it is patched: found verify-branch: paca_checksum: its call "
        "goes to 0xc0000000000009bc, where no symbol stands, expected nothing that verify finds – ftpatch verify FILE "
        "FILE shows all of it"
    )


@pytest.mark.parametrize("options", [(), ("--records", "null")])
@pytest.mark.parametrize("verb", ["enable", "drop"])
def test_a_slot_of_zero_names_no_place_though_a_section_begins_at_address_0(
    verb: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    """.bss at 0, as .data..percpu is on some machines: every emptied slot looked like a record for it, exit code 70."""
    before, after, journal = damaged(tmp_path, "vmlinux-mprofile", (0x4760, 8, 0)), tmp_path / "after", tmp_path / "log"
    assert run([verb, str(before), *ALL, *options, "-o", str(after), "--report", f"json={journal}"]) == 0
    assert run(["verify", str(before), str(after), "--journal", str(journal)]) == 0


@pytest.mark.parametrize(("table", "function"), [(".rela.text", "mini_util"), (".rela.init.text", "mini_util_probe")])
def test_a_site_that_two_relocations_write_is_not_disabled(
    table: str, function: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rows that stay were counted as rows that go, and the check of the result asked to report that."""
    enabled = tmp_path / "enabled.ko"
    assert run(["enable", str(MODULE), *ALL, "-o", str(enabled)]) == 0
    image = open_image(str(enabled))
    sec = image.names.index(table)
    data, start, size = bytearray(enabled.read_bytes()), int(image.shdr["sh_offset"][sec]), t.RELA.itemsize
    last = start + int(image.shdr["sh_size"][sec]) - 2 * size
    data[start + 2 * size : start + 2 * size + 8] = data[last : last + 8]  # of a load of an address
    enabled.write_bytes(data)
    capsys.readouterr()
    assert run(["disable", str(enabled), "--func", "*", "--status", "enabled", "-o", str(tmp_path / "after.ko")]) == 3
    assert capsys.readouterr().err == (
        f"ftpatch: {enabled}: the file is not sound before it is patched: found verify-branch: {function}: 2 "
        "relocations write its branch, expected one, expected nothing that verify finds – ftpatch "
        "verify FILE FILE shows all of it\n"
    )
