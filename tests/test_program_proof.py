"""`ftpatch verify` on programs and shared objects: sound patches are found sound, damage by its rule, at its place."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from program_patch import findings
from test_verify import enabled, verify

from ftpatch.recovered.image import open_image

SMALL = Path(__file__).parent.parent / "testdata" / "programs" / "small"
ARM64 = [SMALL / f"arm64-{kind}" for kind in ("pie", "exec", "so")]
DIRECT = ("--func", "work", "--func", "numbers", "--target", "direct")


@pytest.fixture(params=ARM64, ids=lambda path: path.name)
def direct(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path, Path]:
    """A program, the same with two sites that call a function of it, and the journal."""
    return request.param, *enabled(request.param, tmp_path, *DIRECT)


def test_sites_that_call_a_function_of_the_program_are_found_sound(direct: tuple[Path, Path, Path]) -> None:
    before, after, journal = direct
    image = verify(before, after, "--journal", str(journal), "--require", "emulation")
    proof = image["proof"]
    assert proof["sites"]["site enabled"] == 2 and proof["callees"] == {"direct": 2} and proof["emulated"] == 2
    assert proof["records"] == {"live": [5, 5], "slots": [5, 5], "record taken out": 0, "record returned": 0}
    assert proof["edits"] == {"site words": 2} and not proof["notes"]


def test_disabled_sites_are_what_they_were(direct: tuple[Path, Path, Path], tmp_path: Path) -> None:
    before, after, _ = direct
    back, journal = enabled(after, tmp_path, "--func", "work", "--func", "numbers", verb="disable", out="back")
    assert back.read_bytes() == before.read_bytes()
    image = verify(after, back, "--journal", str(journal), "--require", "emulation")
    assert image["proof"]["sites"]["site disabled"] == 2 and not image["proof"]["callees"]


def changed(path: Path, out: Path, pos: int, new: bytes) -> Path:
    """The file with other bytes at a position."""
    content = bytearray(path.read_bytes())
    content[pos : pos + len(new)] = new
    out.write_bytes(content)
    return out


# Where, as (section, offset in it), and what is written there → rule, and what the message says.
FIXED = {
    "a record": ("__patchable_function_entries", 0, b"\0" * 8, "verify-record"),
    "a relocation of a record": (".rela.dyn", 0x20, struct.pack("<Q", 0), "verify-relocation"),
    "an import": (".rela.plt", 0, b"\x08", "verify-relocation"),
    "the dynamic table": (".dynamic", 8, b"\x02", "verify-section"),
    "a symbol": (".symtab", 24 * 8 + 8, b"\x01", "verify-symbol"),
    "a symbol that the loader looks up": (".dynsym", 24 * 3 + 8, b"\x01", "verify-symbol"),
    "code beside the sites": (".text", 8, b"\x01", "verify-byte"),
}


@pytest.mark.parametrize("name", FIXED)
def test_nothing_but_sites_may_change(name: str, tmp_path: Path) -> None:
    before = ARM64[0]
    after, _ = enabled(before, tmp_path, *DIRECT)
    section, off, new, rule = FIXED[name]
    image = open_image(str(before))
    pos = int(image.shdr["sh_offset"][image.sections_named(section)[0]]) + off
    old = before.read_bytes()[pos : pos + len(new)]
    bad = changed(after, tmp_path / "bad", pos, new)
    first = next(at for at in range(len(new)) if old[at] != new[at])
    last = max(at for at in range(len(new)) if old[at] != new[at]) + 1
    told = f"{old[first:last].hex()} became {new[first:last].hex()}"
    expected = f"{section}+{off + first:#x} (file position {pos + first:#x}): {told}, which is no edit of any kind"
    assert (rule, expected) in findings(before, bad)


@pytest.mark.parametrize("pos", [24, 48], ids=["e_entry", "e_flags"])
def test_the_elf_header_stays(pos: int, tmp_path: Path) -> None:
    after, _ = enabled(ARM64[2], tmp_path, *DIRECT)
    old = ARM64[2].read_bytes()[pos]
    bad = changed(after, tmp_path / "bad", pos, bytes([old ^ 1]))
    expected = f"file position {pos:#x}: {old:02x} became {old ^ 1:02x}, which is no edit of any kind"
    assert ("verify-section", expected) in findings(ARM64[2], bad)


def site(path: Path, name: str) -> tuple[int, int]:
    """File position of a function's site, and its va."""
    image = open_image(str(path))
    va = image.symbols.value(name)
    assert va is not None
    return image.pos_of_va(va), va


def call(word: int, at: int, to: int) -> bytes:
    return struct.pack("<2I", 0xAA1E_03E9, word | to - at - 4 >> 2 & 0x3FF_FFFF)


BL, B = 0x9400_0000, 0x1400_0000
# The function called, how, and why that is wrong.
CALLS = {
    "changes registers": ("hook", BL, "which was not shown to keep a site's contract (it does not return with the old "
                          "x9 in x30, so the traced function would never return)"),
    "inside a function": ("direct+4", BL, "where no function begins"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_site_may_not_call_anything(name: str, tmp_path: Path) -> None:
    target, word, why = CALLS[name]
    symbol, _, more = target.partition("+")
    pos, va = site(ARM64[0], "work")
    to = site(ARM64[0], symbol)[1] + int(more or 0)
    bad = changed(ARM64[0], tmp_path / "bad", pos, call(word, va, to))
    assert findings(ARM64[0], bad) == [("verify-branch", f"work: its call goes to {to:#x}, {why}")]


def test_a_function_of_a_program_is_not_redirected(tmp_path: Path) -> None:
    """`redirect` takes kernels and modules; in a program a jump at a site is damage."""
    pos, va = site(ARM64[0], "work")
    new = struct.pack("<2I", B | site(ARM64[0], "numbers")[1] - va >> 2, 0xD503_201F)
    bad = changed(ARM64[0], tmp_path / "bad", pos, new)
    expected = (
        "work: d503201f d503201f became 14000005 d503201f, expected mov x9, x30, bl, or the compiler's words back"
    )
    assert ("verify-site", expected) in findings(ARM64[0], bad)


def test_a_function_that_the_loader_looks_up_when_it_is_called_is_no_target(tmp_path: Path) -> None:
    before = ARM64[1]  # lazily bound
    image = open_image(str(before))
    pos, va = site(before, "work")
    plt = int(image.shdr["sh_addr"][image.sections_named(".plt")[0]]) + 32
    bad = changed(before, tmp_path / "bad", pos, call(BL, va, plt))
    expected = (f"work: its call goes to {plt:#x}, which the loader looks up when it is first called, and changes "
                "registers then (no BIND_NOW)")  # fmt: skip
    assert findings(before, bad) == [("verify-branch", expected)]


def test_a_second_reading_names_programs(direct: tuple[Path, Path, Path]) -> None:
    image = verify(direct[0], direct[1])
    assert image["proof"]["reader"] == "none (--deep reads a program a second time, by lief)"
    assert verify(direct[0], direct[1], "--deep")["proof"]["reader"] == "lief"
