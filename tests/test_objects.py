"""Object files: sites of -pg and of NOPs are enabled by relocations, switched off, and known again by marks."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from ftpatch import api
from ftpatch.cli import run
from ftpatch.elf import tables as t
from ftpatch.elf.image import Image
from ftpatch.elf.relocations import relocations_of
from ftpatch.recovered.image import open_image
from ftpatch.sites.table import STATUSES

DATA = Path(__file__).parent.parent / "testdata"
PG, CALLS, MINI, PPC, X86 = (DATA / name for name in ("pg", "calls", "mini", "mini-ppc64le", "x86_64"))
Run = Callable[..., str]


class Case(NamedTuple):
    """An object, its sites, the bytes of an enabled one and of one that is off, and the function that it called."""

    layout: str
    sites: int
    on: str
    off: str
    called: str


BL, BL_PPC, E8 = "00000094", "01000048", "e800000000"
NOP, NOP_PPC, NOP5, NOP6 = "1f2003d5", "00000060", "0f1f440000", "660f1f440000"
OBJECTS = {
    PG / "arm64.o": Case("mcount", 12, BL, NOP, "_mcount"),
    PG / "ppc64le.o": Case("mcount", 12, BL_PPC, NOP_PPC, "_mcount"),
    PG / "ppc64le-mprofile.o": Case("mprofile", 12, BL_PPC, NOP_PPC, "_mcount"),
    PG / "x86_64.o": Case("mcount", 13, E8, NOP5, "mcount"),
    PG / "x86_64-got.o": Case("mcount-got", 13, "67" + E8, NOP6, "mcount"),
    PG / "x86_64-fentry.o": Case("fentry", 13, E8, NOP5, "__fentry__"),
    CALLS / "arm64-sections.o": Case("mcount", 5, BL, NOP, "_mcount"),
    CALLS / "ppc64le-pcrel.o": Case("mcount", 5, BL_PPC, NOP_PPC, "_mcount"),
    CALLS / "x86_64-got.o": Case("fentry-got", 5, "67" + E8, NOP6, "__fentry__"),
    CALLS / "x86_64-comdat.o": Case("fentry", 3, E8, NOP5, "__fentry__"),
    MINI / "pg.o": Case("mcount", 8, BL, NOP, "_mcount"),
}
# sites of NOPs, which called nothing
NOPS = {
    MINI / "pfe2.o": Case("pfe2", 8, "e9031eaa" + BL, NOP * 2, ""),
    MINI / "callops.o": Case("callops", 8, "e9031eaa" + BL, NOP * 2, ""),
    MINI / "clang-sections.o": Case("pfe2", 8, "e9031eaa" + BL, NOP * 2, ""),
    PPC / "pfe2.o": Case("pfe2", 9, "a602087c" + BL_PPC, NOP_PPC * 2, ""),
}


def site_bytes(path: Path, positions: list[int], size: int) -> set[str]:
    data = path.read_bytes()
    return {data[pos : pos + size].hex() for pos in positions}


def called(image: Image, sec: int, field: int) -> list[tuple[int, str, int]]:
    """(type, symbol, addend) of the relocations of a place."""
    rows = relocations_of(image, sec)
    found = []
    for at in np.flatnonzero(rows.off == field).tolist():
        row = image.rows(int(rows.table[at]), t.RELA)[rows.row[at]]
        found.append((int(rows.kind[at]), image.symbols.name(int(rows.symbol[at])), int(row["r_addend"])))
    return sorted(found)


def statuses(path: Path) -> set[str]:
    return {STATUSES[status] for status in api.scan(str(path)).sites.status.tolist()}


@pytest.mark.parametrize(("path", "case"), OBJECTS.items(), ids=[f"{path.parent.name}/{path.name}" for path in OBJECTS])
def test_calls_are_retargeted_switched_off_and_given_back(path: Path, case: Case, tmp_path: Path, ftpatch: Run) -> None:
    on, off, again, back, old = (tmp_path / name for name in ("on", "off", "again", "back", "old"))
    before = api.scan(str(path))
    places = [(int(sec), int(pos)) for sec, pos in zip(before.sites.sec, before.sites.pos, strict=True)]
    positions, size = [pos for _, pos in places], len(case.on) // 2
    assert before.sites.shape is not None
    assert (before.sites.shape.name, len(positions)) == (case.layout, case.sites)
    ftpatch(
        "enable", path, "--func", "*", "--target", "my_tracer", "-o", on, "--report", f"json={tmp_path / 'journal'}"
    )
    proof = api.verify(str(path), str(on), str(tmp_path / "journal"), require_emulation=True)
    assert (proof.findings, proof.outcome.n, dict(proof.callees)) == ((), case.sites, {"my_tracer": case.sites})
    assert site_bytes(on, positions, size) == {case.on} and statuses(on) == {"enabled"}
    image, arch = open_image(str(on)), before.arch
    kinds = {
        (sec, pos): called(before.image, sec, pos - int(image.shdr["sh_offset"][sec]) + size - 4)[0][0]
        for sec, pos in places
    }
    addend = -4 if arch.unit == 1 else 0
    for sec, pos in places:
        mark, call = called(image, sec, pos - int(image.shdr["sh_offset"][sec]) + size - 4)
        assert mark == (0, case.called, kinds[sec, pos])  # what was there, and of which type
        assert call[0] in arch.direct_calls and call[1:] == ("my_tracer", addend)
    assert len(api.scan(str(on)).records) == 0  # none names what is no call of the compiler's
    ftpatch("disable", on, "--func", "*", "-o", off)
    assert site_bytes(off, positions, size) == {case.off} and statuses(off) == {"off"}
    ftpatch("enable", off, "--func", "*", "--target", "another", "-o", again)
    assert site_bytes(again, positions, size) == {case.on} and statuses(again) == {"enabled"}
    for one, two in ((on, off), (path, off), (off, again), (path, again)):
        assert api.verify(str(one), str(two)).findings == ()
    ftpatch("disable", path, "--func", "*", "-o", off)
    ftpatch("enable", off, "--func", "*", "--target", case.called, "-o", back)
    assert api.verify(str(off), str(back)).findings == ()
    if not len(before.records):
        assert back.read_bytes() == path.read_bytes()
    ftpatch("restore", on, "--journal", tmp_path / "journal", "-o", old)
    assert old.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(("path", "case"), NOPS.items(), ids=[f"{path.parent.name}/{path.name}" for path in NOPS])
def test_sites_of_nops_get_calls_and_their_records_back(path: Path, case: Case, tmp_path: Path, ftpatch: Run) -> None:
    on, off = tmp_path / "on", tmp_path / "off"
    before = api.scan(str(path))
    positions, size = before.sites.pos.tolist(), len(case.on) // 2
    ftpatch("enable", path, "--func", "*", "--target", "my_tracer", "-o", on)
    proof = api.verify(str(path), str(on), require_emulation=True)
    assert (proof.findings, proof.outcome.n, proof.live) == ((), case.sites, (case.sites, 0))
    assert site_bytes(on, positions, size) == {case.on} and statuses(on) == {"enabled"}
    ftpatch("disable", on, "--func", "*", "-o", off)
    assert site_bytes(off, positions, size) == {case.off} and statuses(off) == {"ready"}
    after = api.scan(str(off))
    assert sorted(zip(after.records.sec, after.records.off, strict=True)) == sorted(
        zip(before.records.sec, before.records.off, strict=True)
    )
    for one in (path, on):
        assert api.verify(str(one), str(off)).findings == ()


def test_a_compilers_nops_are_sites_behind_prologues_too(tmp_path: Path, ftpatch: Run) -> None:
    """-mnop-mcount leaves nothing that names the function: the mark names nothing either."""
    path, on, off = PG / "x86_64-nop.o", tmp_path / "on", tmp_path / "off"
    ftpatch("enable", path, "--func", "*", "--target", "tracer", "-o", on)
    assert api.verify(str(path), str(on), require_emulation=True).findings == ()
    scan = api.scan(str(on))
    assert scan.sites.shape is not None and scan.sites.shape.name == "mcount" and statuses(on) == {"enabled"}
    ftpatch("disable", on, "--func", "*", "-o", off)
    assert statuses(off) == {"off"} and api.verify(str(path), str(off)).findings == ()


SOME = CALLS / "x86_64-some.o"


@pytest.mark.parametrize(
    ("options", "n"),
    [
        (("--func", "*"), 5),  # those with a record, where there are some
        (("--func", "*", "--unrecorded"), 5),
        (("--unrecorded",), 5),
        (("--func", "inner2"), 1),
        (("--func", "inner", "--func", "inner2"), 2),
    ],
)
def test_what_no_record_names_is_chosen_by_an_option(
    options: tuple[str, ...], n: int, tmp_path: Path, ftpatch: Run
) -> None:
    out = tmp_path / "out"
    ftpatch("enable", SOME, *options, "--target", "tracer", "-o", out)
    table = api.scan(str(out)).sites
    names = {table.name(at) for at in np.flatnonzero(table.status == STATUSES.index("enabled")).tolist()}
    assert len(names) == n
    assert all(str(name).endswith("2") for name in names) == (
        "--unrecorded" in options or options == ("--func", "inner2")
    )


UNLINKED = "expected a linked vmlinux or a module – enable and disable take objects"
KEPT_X86 = "all registers but r10 and r11 kept, returns behind the call"
REFUSED: list[tuple[str, Path, tuple[str, ...], int, str]] = [
    ("no-target", PG / "arm64.o", ("enable", "--func", "outer"), 5,
     "F: nothing says what the sites call: expected --target SYMBOL – ftrace_caller is the kernel's own, and keeps "
     "what its entries keep"),
    ("address", PG / "arm64.o", ("enable", "--func", "outer", "--target", "0x10"), 5,
     "--target 0x10: an object has no addresses yet: expected a symbol"),
    ("no-name", PG / "arm64.o", ("enable", "--func", "outer", "--target", "a\nb"), 5,
     "--target a\\x0ab: not a symbol's name"),
    ("panic", PG / "arm64.o", ("enable", "--func", "outer", "--target", "panic"), 5,
     "--target panic: the target never returns: found panic, expected code that returns to its site"),
    ("itself", PG / "arm64.o", ("enable", "--func", "*", "--target", "outer"), 5,
     "--target outer: the target is itself among the chosen sites: found a call that leads back to itself, expected "
     "another function – --func '!outer' leaves it out"),
    ("spoils-arm64", PG / "arm64.o", ("enable", "--func", "outer", "--target", "spoiler"), 5,
     "--target spoiler: the target does not behave as a trampoline for patch sites: found it changes x19, expected "
     "x18-x29 and sp kept, return to x30, as functions of C do – --force-target takes it nevertheless"),
    ("spoils-ppc64le", PG / "ppc64le.o", ("enable", "--func", "outer", "--target", "spoiler"), 5,
     "--target spoiler: the target does not behave as a trampoline for patch sites: found it changes r31, expected r1, "
     "r2, r13-r31 and cr2-cr4 kept, return to LR, as functions of C do – --force-target takes it nevertheless"),
    ("spoils-mprofile", PG / "ppc64le-mprofile.o", ("enable", "--func", "outer", "--target", "spoiler"), 5,
     "--target spoiler: the target does not behave as a trampoline for patch sites: found it changes r31, expected "
     "r1-r10 kept, LR := r0, return to the old LR – --force-target takes it nevertheless"),
    ("spoils-x86_64", PG / "x86_64-got.o", ("enable", "--func", "outer", "--target", "spoiler"), 5,
     f"--target spoiler: the target does not behave as a trampoline for patch sites: found it changes rdi, expected "
     f"{KEPT_X86} – --force-target takes it nevertheless"),
    ("init", PG / "arm64.o", ("enable", "--func", "outer", "--target", "starts"), 5,
     "--target starts: the target is init text, which is freed after boot: found chosen sites outside, expected a "
     "target that stays – --force-target takes it nevertheless"),
    ("data", MINI / "pg.o", ("enable", "--func", "vfs_read", "--target", "$d"), 5,
     "--target $d: several symbols of that name: found 3 places in this object, expected one"),
    ("already", PG / "arm64.o", ("enable", "--func", "outer", "--target", "_mcount"), 5,
     "F: 1 of 1 chosen sites cannot be patched: found outer (no record, .text+0x78): it calls _mcount already, "
     "expected all of them, or nothing is written – --skip-unpatchable patches the others"),
    ("hook", PG / "arm64.o", ("enable", "--func", "outer", "--hook", "tracer"), 2,
     "F: --hook is not for objects: expected --target SYMBOL"),
    ("ops", PG / "arm64.o", ("enable", "--func", "outer", "--target", "tracer", "--ops", "nop"), 2,
     "F: --ops is not for objects: expected --target SYMBOL"),
    ("null", PG / "arm64.o", ("enable", "--func", "outer", "--target", "tracer", "--records", "null"), 5,
     "F: --records null does not work in an object: expected shrink: slot and relocation leave"),
    ("out-of-line", PPC / "clang.o", ("enable", "--func", "vfs_read", "--target", "tracer"), 4,
     "F: layout ool-global cannot be enabled in an object: found sites that call from stubs of their own, expected "
     "sites that call in line – enable takes the module or kernel that is linked of it"),
    ("drop", MINI / "pg.o", ("drop", "--func", "vfs_read"), 4,
     f"F: this verb does not suit files of kind object: {UNLINKED}"),
    ("not-enabled", MINI / "pfe2.o", ("disable", "--func", "vfs_read"), 5,
     "F: 1 of 1 chosen sites cannot be patched: found vfs_read (row 2, .text+0x34): not enabled, expected all of them, "
     "or nothing is written – there is nothing to undo; ftpatch scan --sites --status enabled lists what is enabled"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "command", "code", "line"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED])
def test_what_cannot_be_is_refused_in_one_line(
    path: Path, command: tuple[str, ...], code: int, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([command[0], str(path), *command[1:], "-o", str(tmp_path / "out")]) == code
    assert capsys.readouterr().err.strip().splitlines()[-1] == "ftpatch: " + line.replace("F: ", f"{path}: ", 1)
    assert not list(tmp_path.iterdir())


def test_a_forced_target_is_told(tmp_path: Path, ftpatch: Run) -> None:
    out, journal = tmp_path / "out", tmp_path / "journal"
    ftpatch("enable", PG / "x86_64.o", "--func", "outer", "--target", "spoiler", "--force-target", "-o", out,
            "--report", f"json={journal}")  # fmt: skip
    notes = json.loads(journal.read_text())["images"][0]["notes"]
    assert notes[0] == "target spoiler was not shown to keep the contract of a patch site (it changes rdi); forced"
    (finding,) = api.verify(str(PG / "x86_64.o"), str(out)).findings
    assert finding.rule == "verify-branch"
    assert api.verify(str(PG / "x86_64.o"), str(out), str(journal)).findings == ()


def _poke(file: bytearray, at: int, new: bytes) -> None:
    file[at : at + len(new)] = new


def _rows(path: Path) -> tuple[int, np.ndarray[tuple[int, ...], np.dtype[np.void]]]:
    """(file position, rows) of .rela.text."""
    image = open_image(str(path))
    (sec,) = image.sections_named(".rela.text")
    return int(image.shdr["sh_offset"][sec]), image.rows(sec, t.RELA)


def _row_of(path: Path, kind: int, name: str) -> int:
    """File position of the first row of a type about a symbol."""
    image = open_image(str(path))
    start, rows = _rows(path)
    for at, row in enumerate(rows):
        if int(row["r_info"]) & 0xFFFF_FFFF == kind and image.symbols.name(int(row["r_info"]) >> 32) == name:
            return start + at * t.RELA.itemsize
    raise AssertionError("no such row")


SABOTAGE: dict[str, tuple[Callable[[Path, bytearray], None], str]] = {
    "another-word": (lambda path, file: _poke(file, int(api.scan(str(path)).sites.pos[0]) + 3, b"\x14"), "verify-site"),
    "another-target": (
        lambda path, file: _poke(file, _row_of(path, 283, "tracer") + 12, struct.pack("<I", _symbol(path, "spoiler"))),
        "verify-branch",
    ),
    "an-addend": (lambda path, file: _poke(file, _row_of(path, 283, "tracer") + 16, b"\x08"), "verify-site"),
    "another-type": (
        lambda path, file: _poke(file, _row_of(path, 283, "tracer") + 8, struct.pack("<I", 282)), "verify-site",
    ),
    "a-mark-with-an-addend": (lambda path, file: _poke(file, _row_of(path, 0, "_mcount") + 16, b"\x08"), "verify-site"),
    "a-mark-of-another": (
        lambda path, file: _poke(file, _row_of(path, 0, "_mcount") + 12, struct.pack("<I", _symbol(path, "outside"))),
        "verify-site",
    ),
    "a-mark-that-does": (
        lambda path, file: _poke(file, _row_of(path, 0, "_mcount") + 8, struct.pack("<I", 283)), "verify-site",
    ),
    "another-call": (
        lambda path, file: _poke(file, _row_of(path, 283, "outside") + 12, struct.pack("<I", _symbol(path, "weakly"))),
        "verify-relocation",
    ),
    "code-beside": (lambda path, file: _poke(file, int(api.scan(str(path)).sites.pos[0]) + 4, b"\x1f\x20\x03\xd5"),
                    "verify-byte"),
}  # fmt: skip


def _symbol(path: Path, name: str) -> int:
    return int(open_image(str(path)).symbols.rows_named(name)[0])


@pytest.mark.parametrize("kind", SABOTAGE)
def test_damage_is_seen(kind: str, tmp_path: Path, ftpatch: Run) -> None:
    out = tmp_path / "out"
    ftpatch("enable", PG / "arm64.o", "--func", "*", "--target", "tracer", "-o", out)
    damage, rule = SABOTAGE[kind]
    file = bytearray(out.read_bytes())
    damage(out, file)
    out.write_bytes(file)
    assert rule in {finding.rule for finding in api.verify(str(PG / "arm64.o"), str(out)).findings}


def test_a_jump_to_the_profiling_function_is_no_site(tmp_path: Path) -> None:
    """`b _mcount` comes back to the caller: nothing could be called there and come back to the function."""
    path = tmp_path / "jump.o"
    scan = api.scan(str(PG / "ppc64le.o"))
    file = bytearray((PG / "ppc64le.o").read_bytes())
    _poke(file, int(scan.sites.pos[0]), struct.pack("<I", 0x4800_0000))
    path.write_bytes(file)
    assert len(api.scan(str(path)).sites) == len(scan.sites) - 1
