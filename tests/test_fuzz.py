"""Fuzzing, in short: some mutations per target, always the same ones; and what longer runs have found, each as a test.

The long run is `make fuzz`, which coverage guides. Nothing here needs atheris.
"""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
from corrupt_cases import RELA_PFE, rela
from elfedit import Elf
from elfwriter import MINI, symbol

from ftpatch.cli import run
from ftpatch.elf.tables import SHT_RELR, STT_FUNC
from ftpatch.errors import InputError
from ftpatch.journal.read import read_journal
from ftpatch.recovered.image import open_image
from tools import promises
from tools.fuzz import minimise, mutate, parsers, seeds, server
from tools.fuzz.bounds import Tally, bounded, execute
from tools.fuzz.files import Seen
from tools.fuzz.targets import TARGETS, Target

MINI_PPC = Path(__file__).parents[1] / "testdata" / "mini-ppc64le"
SEED, RUNS = 20, 5000  # of the short run, which test_fuzz_journeys.py does a part of
WHOLE = [name for name, target in TARGETS.items() if target.run.__module__ != parsers.__name__]
RELATIVE, CALL26 = 22, 283


# -- the short run -----------------------------------------------------------------------------------------------------


def short_run(name: str) -> Tally:
    """A target's part of 5,000 inputs, always the same ones."""
    target, tally = TARGETS[name], Tally()
    for data in target.seeds(False):
        execute(target, data, tally)
    with bounded():
        for number in range(RUNS * target.share // sum(each.share for each in TARGETS.values()) + 1):
            execute(target, target.case(SEED, number), tally)
    return tally


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in WHOLE])
def test_mutated_files_end_in_an_answer_or_a_refusal(name: str) -> None:
    assert short_run(name).findings == {}


@pytest.mark.parametrize("name", ["headers", "relocations", "symbols", "records", "metadata", "scan", "module"])
def test_at_least_half_of_the_mutations_get_past_the_headers(name: str) -> None:
    target, tally = TARGETS[name], Tally()
    for number in range(60):
        execute(target, target.case(SEED, number), tally)
    assert tally.n_deep >= 30


@pytest.mark.parametrize("change", [change for change, _ in mutate.CHANGES])
def test_every_change_of_a_structure_makes_other_bytes(change: mutate.Change) -> None:
    data = seeds.kernels_of()[0]
    made = set()
    for n in range(20):
        raw = bytearray(data)
        change(random.Random(n), raw, mutate.sections(raw))
        made.add(bytes(raw))
    assert len(made - {data}) >= 10


def test_an_exception_is_a_finding_and_a_refusal_is_none() -> None:
    def wrong(data: bytes, seen: object) -> None:
        if data == b"refused":
            raise InputError("no")
        raise ValueError("a bug")

    target, tally = TARGETS["relr"], Tally()
    other = replace(target, run=wrong)
    execute(other, b"refused", tally)
    assert tally.findings == {}
    execute(other, b"bad", tally)
    [(text, data)] = tally.findings.items()
    assert (text.split(" at ")[0], data) == ("ValueError", b"bad")


# -- the machinery -----------------------------------------------------------------------------------------------------


def faulty(data: bytes, seen: Seen) -> None:
    """A target that goes wrong in every way, by the first byte of its input."""
    if data[:1] == b"k":
        os.kill(os.getpid(), signal.SIGKILL)
    if data[:1] == b"m":
        bytearray(4 << 30)
    if data[:1] == b"r":
        raise InputError("no")
    if data[:1] == b"v":
        raise ValueError("a bug")


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> Target:
    target = Target(faulty, lambda real: (b"sound",), mutate.plain, (), 1)
    monkeypatch.setitem(TARGETS, "faulty", target)
    return target


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"sound", ""), (b"r", ""), (b"v", "ValueError at "), (b"k", "ended by SIGKILL"), (b"m", "MemoryError at ")],
)
def test_the_fork_server_survives_what_its_children_do_not(data: bytes, said: str, fault: Target) -> None:
    text = server.isolated("faulty", data)
    assert text.startswith(said) and bool(text) == bool(said)


def test_the_fork_server_goes_on_behind_an_input_that_ended_a_child(
    fault: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Target, "case", lambda self, seed, number, real: b"k" if number in (3, 9) else b"sound")
    outcome = server.serve([[server.Slice("faulty", end=10)]], server.run_slice, monotonic() + 60, 2)["faulty"]
    assert outcome.findings == {"ended by SIGKILL": b"k"}


@pytest.mark.parametrize(
    ("data", "seeds", "small"),
    [(b"....x...", (), b"x"), (b"abXdefgh", (b"abcdefgg",), b"abXdefgg"), (b"X" * 9, (b"other",), b"X")],
)
def test_an_input_is_made_smaller_while_it_goes_wrong(data: bytes, seeds: tuple[bytes, ...], small: bytes) -> None:
    assert minimise.smaller(data, seeds, lambda one: b"x" in one.lower()) == small


def test_the_same_seed_gives_the_same_inputs() -> None:
    for target in TARGETS.values():
        assert target.case(5, 7) == target.case(5, 7)


# -- findings ----------------------------------------------------------------------------------------------------------


def changed(name: str, tmp_path: Path, *bytes_of: tuple[int, int, int]) -> str:
    """A fixture with other bytes. bytes_of: (position, what stands there, what is to stand there)."""
    content = bytearray((MINI_PPC / name).read_bytes())
    for pos, old, new in bytes_of:
        assert content[pos] == old, "the fixture was built anew: find the places again"
        content[pos] = new
    (tmp_path / name).write_bytes(content)
    return str(tmp_path / name)


def enabled(path: str, *options: str) -> int:
    return run(["enable", path, "--func", "*", "--skip-unpatchable", "-o", f"{path}.out", *options])


def test_two_functions_of_one_address_with_other_local_entries_are_enabled(
    tmp_path: Path, ftpatch: Callable[..., str]
) -> None:
    """A flipped bit moved init_once to the address of vfs_read, whose local entry is 8 bytes further on. Of two such
    functions only the first one's local entry was looked at, so vfs_read was patched, and the self-check did not find
    it enabled: exit code 70."""
    path = changed("vmlinux-mprofile", tmp_path, (14200, 0x10, 0x30))
    assert enabled(path) == 0
    assert "enabled" in ftpatch("scan", f"{path}.out")


@pytest.mark.parametrize(
    ("name", "flips"),
    [
        ("vmlinux-ool", ((14846, 0, 2), (16107, 0, 1))),
        ("vmlinux-ool-noops", ((15347, 0, 2), (15407, 0, 64))),
        ("vmlinux-ool", ((4730, 0, 32), (15951, 0, 2))),
        ("vmlinux-ool-noops", ((14774, 0, 8), (16461, 0, 8))),
    ],
)
def test_a_choice_that_leaves_records_of_no_layout_is_refused(
    name: str, flips: tuple[tuple[int, int, int], ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flipped bits in symbols left more odd records than sound ones once all that could be patched had gone. The result
    had no layout for anyone who read it again, the self-check included: exit code 70, where a refusal is due."""
    path = changed(name, tmp_path, *flips)
    assert enabled(path) == 5
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        f"ftpatch: {path}: the records that stay would not show the layout of the sites: found no single site layout "
        "explains the records, expected ool – choose fewer sites, or --layout NAME forces it"
    )
    assert not Path(f"{path}.out").exists()
    assert enabled(path, "--layout", "ool") == 0


def test_records_of_one_kind_may_stay_where_there_were_two(tmp_path: Path) -> None:
    """Two records had lost their relocations. What is patched left, those two stayed, and the self-check wanted to find
    both kinds of records still: exit code 70."""
    content = bytearray((MINI_PPC / "vmlinux-ool-noops").read_bytes())
    low, high, init = (
        symbol(bytes(content), name) for name in ("__start_mcount_loc", "__stop_mcount_loc", "_sinittext")
    )
    table = mutate.named_sections(content)[".rela.dyn"]
    rows = range(table.offset, table.offset + table.size, 24)
    place = {row: struct.unpack_from("<3Q", content, row) for row in rows}
    mine = [row for row, (offset, _, addend) in place.items() if low <= offset < high and addend < init]
    for row in mine[:2]:
        assert place[row][1] == RELATIVE
        struct.pack_into("<Q", content, row + 8, 0)
    path = tmp_path / "vmlinux"
    path.write_bytes(content)
    chosen = ("--status", "ready", "--status", "weak-leftover")
    assert run(["enable", str(path), *chosen, "--skip-unpatchable", "--records", "null", "--force-early"]) == 0


def test_a_journal_takes_no_more_room_than_it_has(tmp_path: Path) -> None:
    """Half a gigabyte was set aside before the first byte of a journal was read; where there is not so much address
    space, that was a MemoryError."""
    path = tmp_path / "journal"
    path.write_text(json.dumps({"schema": 1, "command": "scan", "images": []}))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="not a journal of a patch"):
            read_journal(str(path))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_the_last_addresses_may_be_asked_for_their_relocations() -> None:
    """A section was moved to the last address. What lies 8 bytes behind that is no number of 64 bits: OverflowError."""
    image = open_image(str(MINI / "vmlinux-callops"))
    assert (image.shdr["sh_type"] == SHT_RELR).any()
    last = np.array([(1 << 64) - 1, (1 << 64) - 8, (1 << 64) - 16], dtype=np.uint64)
    assert image.relocated(last, 8).tolist() == [False] * 3


def test_calls_of_mcount_without_any_function_symbol_are_scanned(tmp_path: Path, ftpatch: Callable[..., str]) -> None:
    """Changed symbol types left a file without functions. Such calls lie deep inside theirs, so those were looked for:
    IndexError."""
    content = bytearray((MINI / "pg.o").read_bytes())
    table = mutate.named_sections(content)[".symtab"]
    for row in range(table.offset, table.offset + table.size, 24):
        if content[row + 4] & 15 == STT_FUNC:
            content[row + 4] &= 0xF0
    path = tmp_path / "pg.o"
    path.write_bytes(content)
    assert "layout     mcount" in ftpatch("scan", str(path))


def rows(content: bytes | bytearray, section: str, size: int = 24) -> range:
    """File positions of a table's rows."""
    table = mutate.named_sections(content)[section]
    return range(table.offset, table.offset + table.size, size)


@pytest.mark.parametrize("name", ["ftrace_ool_stub_inittext", "ftrace_ool_stub_text"])
def test_an_area_of_stubs_that_no_section_holds_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An area that began in front of its section had stubs without a place in the file. They would have been written in
    front of the file's first byte, had the self-check not seen it: exit code 70, and with two of them an
    AssertionError."""
    content = bytearray((MINI_PPC / "vmlinux-ool").read_bytes())
    value = symbol(bytes(content), name)
    [row] = [row for row in rows(content, ".symtab") if struct.unpack_from("<Q", content, row + 8)[0] == value][:1]
    start = 0xC000000000000F00 - 24  # the last slot of it, and some of .rodata
    struct.pack_into("<Q", content, row + 8, start)
    path = tmp_path / "vmlinux"
    path.write_bytes(content)
    assert enabled(str(path)) == 5
    assert f"{name}: an area of out-of-line stubs does not fit the kernel's code" in capsys.readouterr().err


def test_a_site_of_several_records_is_not_disabled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A changed addend made two records name one site, which `disable` then wanted to write twice: AssertionError."""
    content = bytearray((MINI_PPC / "vmlinux-mprofile").read_bytes())
    low, high, init = (
        symbol(bytes(content), name) for name in ("__start_mcount_loc", "__stop_mcount_loc", "_sinittext")
    )
    place = {row: struct.unpack_from("<3Q", content, row) for row in rows(content, ".rela.dyn")}
    one, two = [row for row, (offset, _, addend) in place.items() if low <= offset < high and addend < init][:2]
    content[two + 16 : two + 24] = content[one + 16 : one + 24]
    path = tmp_path / "vmlinux"
    path.write_bytes(content)
    assert run(["disable", str(path), "--func", "*"]) == 5
    assert "several records name this site" in capsys.readouterr().err
    assert run(["disable", str(path), "--func", "*", "--skip-unpatchable"]) == 0


@pytest.mark.parametrize("verb", ["disable", "drop"])
def test_an_empty_slot_of_a_module_is_no_record(verb: str, tmp_path: Path) -> None:
    """A slot had lost its relocation. It was counted among the records that stay, but nobody finds one there: the
    self-check failed, exit code 70."""
    content = bytearray((MINI / "mini.ko").read_bytes())
    row = rows(content, ".rela__patchable_function_entries")[1]
    content[row : row + 24] = bytes(24)
    path = tmp_path / "mini.ko"
    path.write_bytes(content)
    chosen = ["--func", "mini_*"] if verb == "drop" else ["--func", "*"]
    assert run([verb, str(path), *chosen, "--skip-unpatchable"]) == 0


def test_a_site_with_a_relocation_too_many_is_not_disabled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A changed offset led a relocation into the words of a patched site. It was not the call's and stayed, so a loader
    would still have written there: the self-check failed, exit code 70."""
    out = tmp_path / "patched.ko"
    assert run(["enable", str(MINI / "mini.ko"), "--func", "*", "--skip-unpatchable", "-o", str(out)]) == 0
    content = bytearray(out.read_bytes())
    table = rows(content, ".rela.text")
    [*_, call] = [row for row in table if struct.unpack_from("<I", content, row + 8)[0] == CALL26]  # behind a move
    offset = struct.unpack_from("<Q", content, call)[0]
    struct.pack_into("<Q", content, table[0], offset - 3)
    out.write_bytes(content)
    capsys.readouterr()
    assert run(["disable", str(out), "--func", "*"]) == 5
    assert "a relocation beside that of its call writes into its words" in capsys.readouterr().err


@pytest.mark.parametrize(("pos", "what"), [("0", "the ELF header"), ("e_shoff", "the section headers")])
def test_a_section_over_the_headers_is_refused(
    pos: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table of relocations was moved to the start of the file. When the module grew, so did e_shoff, and with it what
    the table held: the self-check failed, exit code 70."""
    content = bytearray((MINI / "mini.ko").read_bytes())
    start = 0 if pos == "0" else struct.unpack_from("<Q", content, 40)[0]
    struct.pack_into("<Q", content, mutate.named_sections(content)[".rela.gnu.linkonce.this_module"].pos + 24, start)
    path = tmp_path / "mini.ko"
    path.write_bytes(content)
    assert run(["scan", str(path)]) == 3
    assert capsys.readouterr().err == (
        f"ftpatch: {path}: sections overlap in the file: found .rela.gnu.linkonce.this_module and {what} share bytes\n"
    )


def test_a_record_in_front_of_its_section_has_no_line_and_no_offset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The addend of a record was -2: its place was printed as `0x-2`, and `check --lines` asked for the source line of
    address -2: OverflowError."""
    elf, path = Elf("pfe2.o"), tmp_path / "pfe2.o"
    rela(RELA_PFE, 0, r_addend=(1 << 64) - 2)(elf)
    path.write_bytes(elf.raw)
    capsys.readouterr()
    assert run(["check", str(path), "--lines", "--format", "json"]) == 1
    document = json.loads(capsys.readouterr().out)
    promises.validator().validate(document)
    assert [row["offset"] for row in document["images"][0]["findings"] if row["row"] == 0] == [None]
