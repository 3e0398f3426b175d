"""Pads and switches that somebody damaged, or that are not as a compiler leaves them: told by `scan`, refused by
`enable`, found by `verify`."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from elfwriter import ALLOC, ET_EXEC, EXEC, TEXT, Elf, as_code, written
from test_pads import BTI, PIE, statuses
from test_verify import enabled, verify

from ftpatch.cli import run
from ftpatch.proof.prove import Checks, prove
from ftpatch.recovered.image import open_image
from ftpatch.sites.scan import scan_file

NOP, RET, TO_X9, FROM_X9 = 0xD503_201F, 0xD65F_03C0, 0xAA1E_03E9, 0xAA09_03FE
PUSH, POP = 0xA9BF_7BFD, 0xA8C1_7BFD


def place(path: Path, function: str) -> int:
    """File position of a function's symbol."""
    image = open_image(str(path))
    va = image.symbols.value(function)
    assert va is not None
    return image.pos_of_va(va)


def damaged(path: Path, out: Path, changes: dict[int, int]) -> Path:
    """A copy with other words at some file positions."""
    content = bytearray(path.read_bytes())
    for pos, word in changes.items():
        struct.pack_into("<I", content, pos, word)
    out.write_bytes(content)
    return out


def branch(kind: int, words: int) -> int:
    """b (0x14000000) or bl (0x94000000) by some words."""
    return kind | words & 0x3FF_FFFF


B, BL = 0x1400_0000, 0x9400_0000
# Words of `numbers` from its entry on (negative: of its pad) → the status, and why enable refuses it, if it does.
STATES = [
    ("nothing", {}, "ready", ""),
    ("a word in the pad", {-3: RET}, "unexpected", "the NOPs in front of its entry are no NOPs any more, and no pad "
     "either"),
    ("half a pad", {-5: TO_X9}, "unexpected", "the NOPs in front of its entry are no NOPs any more, and no pad either"),
    ("a pad that goes on elsewhere", {-5: TO_X9, -4: branch(BL, 60), -3: branch(B, 5)}, "unexpected",
     "the NOPs in front of its entry are no NOPs any more, and no pad either"),
    ("another switch", {0: RET}, "unexpected", "its switch is neither a NOP nor a jump to its pad"),
    ("a switch to an empty pad", {0: branch(B, -5)}, "unexpected", "its switch is neither a NOP nor a jump to its pad"),
    ("a switch into the pad", {-5: TO_X9, -4: branch(BL, 60), -3: branch(B, 4), 0: branch(B, -4)}, "unexpected",
     "its switch is neither a NOP nor a jump to its pad"),
    ("a pad of another tool at the end", {-3: TO_X9, -2: branch(BL, 60), -1: branch(B, 2), 0: branch(B, -3)}, "enabled",
     "already enabled"),
    ("a switch to the NOPs before such a pad", {-3: TO_X9, -2: branch(BL, 60), -1: branch(B, 2), 0: branch(B, -5)},
     "enabled", "already enabled"),
    ("such a pad, off", {-3: TO_X9, -2: branch(BL, 60), -1: branch(B, 2)}, "armed", ""),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "status", "why"), [row[1:] for row in STATES], ids=[row[0] for row in STATES])
def test_what_a_switch_and_its_pad_show(
    changes: dict[int, int], status: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = place(PIE, "numbers")
    path = damaged(PIE, tmp_path / "in", {at + 4 * word: value for word, value in changes.items()})
    assert statuses(path)["numbers"] == status
    found = run(["enable", str(path), "--func", "numbers", "--target", "plain", "-o", str(tmp_path / "out")])
    last = capsys.readouterr().err.splitlines()
    if why:
        todo = "--skip-unpatchable patches the others"
        if why == "already enabled":
            todo = "there is nothing to do; ftpatch disable and restore are the ways back"
        assert found == 5 and last[-1] == (
            f"ftpatch: {path}: 1 of 1 chosen sites cannot be patched: found numbers (row 2, .text+0x58): {why}, "
            f"expected all of them, or nothing is written – {todo}"
        )
    else:
        assert found == 0


BEHIND = "not behind the site at {behind:#x}"
# Words of `numbers` in a file that is enabled, by `plain`, with BTI → what verify says of the site.
FOUND = {
    "no return address is kept": ({-5: NOP}, "in front of the entry: call, from x9, jump: no pad"),
    "another register": ({-5: 0xAA1E_03EA}, "in front of the entry: 0xaa1e03ea, call, from x9, jump: no pad"),
    "no call": ({-4: NOP}, "in front of the entry: to x9, nop, from x9, jump: no pad"),
    "it is not brought back": ({-3: branch(B, 5), -2: NOP}, None),
    "it is brought back twice": ({-2: FROM_X9}, "in front of the entry: to x9, call, from x9, from x9: no pad"),
    "a frame that stays": ({-5: PUSH}, "in front of the entry: push, call, from x9, jump: no pad"),
    "the jump back is one short": ({-2: branch(B, 3)}, "its pad goes on at {site:#x}, " + BEHIND),
    "the jump back is one long": ({-2: branch(B, 5)}, "its pad goes on at {long:#x}, " + BEHIND),
    "the switch is one long": ({1: branch(B, -5)}, "its switch leads to {late:#x}, where no pad begins"),
    "the switch leads elsewhere": ({1: branch(B, -7)}, "its switch leads to {early:#x}, where no pad begins"),
    "the switch is a call": ({1: branch(BL, -6)}, "its switch is neither a NOP nor a jump"),
    "code behind the pad": ({-1: RET}, "in front of the entry: to x9, call, from x9, jump, 0xd65f03c0: no pad"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_verify_finds_damage_of_a_pad(name: str, tmp_path: Path) -> None:
    after, _ = enabled(BTI, tmp_path, "--func", "numbers", "--target", "plain")
    changes, text = FOUND[name]
    at = place(BTI, "numbers")
    bad = damaged(after, tmp_path / "bad", {at + 4 * word: value for word, value in changes.items()})
    findings = verify(BTI, bad, code=1)["findings"]
    va = open_image(str(BTI)).symbols.value("numbers") or 0
    if text is None:
        expected = ("verify-branch", f"numbers: its pad calls {open_image(str(BTI)).symbols.value('plain'):#x}, which "
                    "was not shown to keep a site's contract (it does not return with the old x9 in x30, so the traced "
                    "function would never return)")  # fmt: skip
    else:
        told = text.format(site=va + 4, behind=va + 8, long=va + 12, late=va - 16, early=va - 24)
        expected = ("verify-site", f"numbers: {told}; expected a NOP or a jump to a whole pad")
    assert expected in [(finding["rule"], finding["message"]) for finding in findings]


def test_a_pad_that_calls_what_keeps_too_little_is_found(tmp_path: Path) -> None:
    after, _ = enabled(PIE, tmp_path, "--func", "numbers", "--target", "plain")
    image, at = open_image(str(PIE)), place(PIE, "numbers")
    symbols = image.symbols
    far = ((symbols.value("uses_x9") or 0) - (symbols.value("numbers") or 0)) // 4
    bad = damaged(after, tmp_path / "bad", {at - 16: branch(BL, far + 4)})
    assert [finding["message"] for finding in verify(PIE, bad, code=1)["findings"]] == [
        f"numbers: its pad calls {symbols.value('uses_x9'):#x}, which was not shown to keep what a pad needs kept (it "
        "changes x9)"
    ]


def field_of_symbol(path: Path, name: str, off: int) -> int:
    """File position of a field of a symbol in .symtab."""
    image = open_image(str(path))
    row = int(image.symbols.rows_named(name)[0])
    return int(image.shdr["sh_offset"][image.sections_named(".symtab")[0]]) + 24 * row + off


def refusal(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The reason why `numbers` stays as it is."""
    arguments = options or ("--func", "numbers", "--target", "plain")
    assert run(["enable", str(path), *arguments, "-o", str(tmp_path / "out")]) == 5
    text = capsys.readouterr().err.splitlines()[-1]
    start = f"ftpatch: {path}: 1 of 1 chosen sites cannot be patched: found numbers (row 2, .text+0x58): "
    end = ", expected all of them, or nothing is written – --skip-unpatchable patches the others"
    assert text.startswith(start) and text.endswith(end), text
    return text.removeprefix(start).removesuffix(end)


def test_a_pad_inside_another_function_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = damaged(PIE, tmp_path / "in", {field_of_symbol(PIE, name, 16): 40 for name in ("work", "also")})
    assert refusal(path, tmp_path, capsys) == "its pad lies inside work, by the size of that"


def test_a_relocation_in_a_pad_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The row of the last record is made one of a word in the pad, so that the record is not moved any more."""
    image = open_image(str(PIE))
    rows, pos = image.rela
    va = image.symbols.value("numbers") or 0
    last = max(range(len(rows)), key=lambda row: int(rows["r_offset"][row]))
    path = damaged(PIE, tmp_path / "in", {int(pos[last]): va - 8, int(pos[last]) + 4: 0})
    assert refusal(path, tmp_path, capsys) == (
        "the dynamic linker writes into its pad or its switch when the program starts (a text relocation)"
    )


def test_a_record_in_the_middle_of_a_pad_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = scan_file(str(PIE))
    rows, pos = scan.image.rela
    slot = int(scan.records.rela[0])
    va = scan.image.symbols.value("numbers") or 0
    assert int(rows["r_offset"][slot])
    path = damaged(PIE, tmp_path / "in", {int(pos[slot]) + 16: va - 8, int(pos[slot]) + 20: 0})
    assert refusal(path, tmp_path, capsys, "--func", "numbers", "--target", "plain", "--layout", "pad-before") == (
        "another record names a place in its pad"
    )


def test_a_target_out_of_reach_is_refused_with_the_distance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    elf = Elf(ET_EXEC)
    text = elf.section(".text", as_code((NOP,) * 6 + (RET,)), flags=ALLOC | EXEC, addr=TEXT, align=4)
    far = elf.section(".far", as_code((RET,)), flags=ALLOC | EXEC, addr=TEXT + (1 << 27) + 4, align=4)
    elf.section("__patchable_function_entries", struct.pack("<Q", TEXT), flags=ALLOC, addr=TEXT + (1 << 28), align=8)
    elf.symbol("f", text, TEXT + 20, 8)
    elf.symbol("far", far, TEXT + (1 << 27) + 4, 4)
    path = written(tmp_path / "in", elf.build())
    assert run(["enable", path, "--func", "f", "--target", "far", "-o", str(tmp_path / "out")]) == 5
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"ftpatch: {path}: 1 of 1 chosen sites cannot be patched: found f (row 0, .text+0x14): out of reach: "
        "+0x8000000 bytes to far, a call spans -0x8000000..+0x7fffffc, expected all of them, or nothing is written – "
        "--skip-unpatchable patches the others"
    )


@pytest.mark.parametrize("on", [True, False], ids=["on", "armed"])
def test_every_bit_of_a_pad_and_its_switch_counts(on: bool, tmp_path: Path) -> None:
    """But where a call may lead to another function that does for a pad, and none does here."""
    after, _ = enabled(BTI, tmp_path, "--func", "numbers", "--target", "plain", *(() if on else ("--arm",)))
    before, at = scan_file(str(BTI)), place(BTI, "numbers")
    content = after.read_bytes()
    unseen = []
    for word in (*range(-5, 0), 1):
        for bit in range(32):
            bad = bytearray(content)
            bad[at + 4 * word + bit // 8] ^= 1 << bit % 8
            (tmp_path / "bad").write_bytes(bad)
            proof = prove(before, open_image(str(tmp_path / "bad")), checks=Checks(execute=False, deep=None))
            if not proof.findings:
                unseen.append((word, bit))
    assert unseen == []
