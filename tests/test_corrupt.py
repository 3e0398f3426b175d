"""Files that contradict themselves: every one gets an answer or a refusal in one line, never a crash and never an OUT.

The cases are a table in corrupt_cases.py. Every one is scanned, and the kernels among them are patched too, under a
limit of memory and time.
"""

from __future__ import annotations

import json
import resource
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from corrupt_cases import CASES, NOWHERE, RELA_PFE, Answer, Case, second_rela
from elfedit import (
    ALLOC,
    CALLOPS,
    EXEC,
    FAR,
    KERNELS,
    MASK64,
    MODULE,
    OBJECT,
    OOL,
    PFE2,
    PROGRAM,
    RELA_SIZE,
    SHDR,
    SHDR_SIZE,
    SHT_RELA,
    SHT_RELR,
    SYM_SIZE,
    WORD,
    Elf,
    original,
)  # fmt: skip
from limits import SPACE, limited

from ftpatch.cli import run

ROOT = Path(__file__).parents[1]
SECONDS = 10  # of one command on a file of 20 KiB; a healthy one takes a few milliseconds
PEAK = 32 << 20  # bytes that one command may allocate for a file of 20 KiB


# -- guards ----------------------------------------------------------------------------------------------------


@contextmanager
def guarded() -> Iterator[None]:
    """A limit on time, on address space, and on what is allocated inside."""
    with limited(SECONDS):
        tracemalloc.start(1)
        try:
            yield
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < PEAK, f"{peak >> 20} MiB were allocated for a small file"


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, list[str]]:
    """(exit code, stdout, lines of stderr) of one command line that keeps the promises of every command line."""
    capsys.readouterr()
    with guarded():
        code = run(list(arguments))
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert "Traceback" not in err, err
    assert code in (0, 3, 4, 5), (code, err)
    said = [line for line in lines if line.startswith("ftpatch: ") and not _is_note(line)]
    assert said == lines[-1:] if code else not said, err
    return code, out, lines


def _is_note(line: str) -> bool:
    return line.startswith("ftpatch: warning: ") or line.endswith(
        "all of them are taken (name@file.c tells them apart)"
    )


def check_scan(capsys: pytest.CaptureFixture[str], path: Path) -> tuple[int, dict[str, Any], str]:
    """Scan the file; (exit code, the report, the refusal without the file's name)."""
    code, out, err = command(capsys, "scan", "--sites", "--format", "json", str(path))
    document: dict[str, Any] = json.loads(out)
    assert document["schema"] == 1 and document["command"] == "scan"
    assert len(document["images"]) == (code == 0)
    if code:
        line = err[-1].removeprefix("ftpatch: ")
        assert line.startswith(f"{path}: "), "which file is it?"
        assert ": : " not in line, "which section is it?"
        assert document["errors"] == [{"file": str(path), "code": code, "message": line}]
        return code, document, line.replace(f"{path}: ", "")
    summary, sites = document["images"][0]["summary"], document["images"][0]["sites"]
    assert summary["live"] + summary["null"] == summary["slots"]
    assert len(sites) == summary["slots"] + summary["without_record"]
    assert sum(summary["by_status"].values()) == summary["live"]
    return code, document, ""


def check_enable(
    capsys: pytest.CaptureFixture[str], path: Path, *more: str, choice: tuple[str, ...] = ("--func", "vfs_read")
) -> tuple[int, str]:
    """Enable something; (exit code, the refusal without the file's name). OUT is there if and only if that is 0."""
    before = path.read_bytes()
    out = path.with_name("out")
    code, _, err = command(capsys, "enable", str(path), *choice, "-o", str(out), *more)
    assert path.read_bytes() == before
    assert sorted(file.name for file in path.parent.iterdir()) == sorted([path.name, *(["out"] if code == 0 else [])])
    if code:
        return code, err[-1].removeprefix("ftpatch: ").replace(f"{path}: ", "")
    assert len(out.read_bytes()) == len(before) and out.read_bytes() != before
    assert command(capsys, "scan", str(out))[0] == 0
    return 0, ""


def look_up(document: dict[str, Any], path: str) -> Any:
    """`summary.live` or `sites.3.status` of the only image."""
    found: Any = document["images"][0]
    for key in path.split("__"):
        found = found[int(key)] if isinstance(found, list) else found.get(key)
    return found


def is_answer(answer: tuple[int, str], expected: Answer | None) -> bool:
    """Whether the code and the whole message are as expected, as far as they are known."""
    return expected is None or answer == (expected[0], answer[1] if expected[1] is None else expected[1])


@pytest.mark.parametrize("corrupt", [pytest.param(one, id=one.id) for one in CASES])
def test_corrupt_file_gets_an_answer_or_a_refusal_in_one_line(
    corrupt: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elf = Elf(corrupt.fixture)
    corrupt.build(elf)
    assert bytes(elf.raw) != original(corrupt.fixture)
    folder = tmp_path / "kernel"
    folder.mkdir()
    path = folder / corrupt.fixture
    path.write_bytes(elf.raw)
    code, document, message = check_scan(capsys, path)
    assert is_answer((code, message), corrupt.scan)
    for key, value in corrupt.facts:
        assert look_up(document, key) == value
    assert path.read_bytes() == elf.raw
    if corrupt.fixture not in KERNELS:
        return
    patched, refusal = check_enable(capsys, path, choice=corrupt.choice)
    if code:
        assert (patched, refusal) == (code, message)
    assert is_answer((patched, refusal), corrupt.enable)


@pytest.mark.parametrize("fixture", [CALLOPS, PFE2, EXEC, OOL, FAR, MODULE, OBJECT, PROGRAM])
def test_editor_without_a_change_leaves_a_good_file(
    fixture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The harness itself: an untouched fixture passes every check of a corrupted one, and is patched."""
    path = tmp_path / fixture
    path.write_bytes(Elf(fixture).raw)
    assert check_scan(capsys, path)[0] == 0
    if fixture in KERNELS:
        assert check_enable(capsys, path) == (0, "")


def test_case_ids_are_unique() -> None:
    assert len({one.id for one in CASES}) == len(CASES)


def test_free_relocations_that_two_tables_share_are_not_used_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second .rela.dyn over the bytes of the first doubles the eight free rows; sixteen sites want sixteen."""
    elf = Elf(CALLOPS)
    second_rela(elf)
    path = tmp_path / CALLOPS
    path.write_bytes(elf.raw)
    line = f"ftpatch: {path}: sections overlap in the file: found .rela.dyn and .rela.dyn share bytes"
    answer = command(capsys, "enable", str(path), "--func", "*", "-o", str(tmp_path / "out"))
    assert answer == (3, "", [line])
    assert not (tmp_path / "out").exists()


def test_free_relocations_of_two_tables_are_all_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second .rela.dyn with eight free rows of its own: enough for the literals of all sixteen sites."""
    elf = Elf(CALLOPS)
    place = elf.of_sec(".bss", "sh_addr") + 0x10000
    elf.add(bytes(8 * RELA_SIZE), sh_type=SHT_RELA, sh_flags=ALLOC, sh_entsize=RELA_SIZE, sh_addr=place,
            sh_name=elf.name_at(".rela.dyn"))  # fmt: skip
    path = tmp_path / CALLOPS
    path.write_bytes(elf.raw)
    assert check_enable(capsys, path, "--ops-via", "literal", choice=("--func", "*")) == (0, "")
    table = path.with_name("out").read_bytes()[-SHDR_SIZE * 16 - 8 * RELA_SIZE :]
    assert sum(any(table[RELA_SIZE * n : RELA_SIZE * (n + 1)]) for n in range(8)) == 8


@pytest.mark.parametrize("value", [0, NOWHERE, MASK64])
def test_ops_out_of_reach_of_a_thunk_are_refused(
    value: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / CALLOPS
    path.write_bytes(Elf(CALLOPS).sym("ftrace_list_ops", st_value=value).raw)
    assert check_enable(capsys, path, "--ops-via", "thunk") == (
        5, f"--ops list: not an ftrace_ops: found {value:#x}, expected an object in a data section",
    )  # fmt: skip


def test_ops_in_data_out_of_reach_of_a_thunk_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An ADRP reaches 4 GiB; a thunk keeps some distance from that."""
    elf, place = Elf(CALLOPS), 0xFFFF800180000000
    elf.add(bytes(96), sh_type=1, sh_flags=ALLOC, sh_addr=place)
    elf.sym("ftrace_list_ops", st_value=place)
    path = tmp_path / CALLOPS
    path.write_bytes(elf.raw)
    assert check_enable(capsys, path, "--ops-via", "thunk") == (
        5, f"the ops are too far from the text for a thunk: found ftrace_list_ops {place:#x}",
    )  # fmt: skip
    assert check_enable(capsys, path, "--ops-via", "literal") == (0, "")


# -- huge ones, each in a process of its own -------------------------------------------------------------------

HIGH = 0xFFFF900000000000
CPU = 10  # seconds; the files have a few MiB, which a healthy scan reads in well under one, and enable in four


def huge(elf: Elf, folder: Path, *arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of one command on the file under a limit of address space and CPU time."""
    path = folder / "huge"
    path.write_bytes(elf.raw)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU))

    line = [sys.executable, "-m", "ftpatch", *(arguments or ("scan",)), str(path)]
    done = subprocess.run(line, cwd=ROOT, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert sorted(file.name for file in folder.iterdir()) in (["huge"], ["huge", "out"])
    return done.returncode, done.stdout, done.stderr


def is_sober(answer: tuple[int, str, str]) -> bool:
    """Whether the command ended by itself, with an answer or a refusal in one line."""
    code, _, err = answer
    return code == 0 or (code in (3, 4, 5) and len(err.splitlines()) == 1 and err.startswith("ftpatch: "))


def each_its_bytes(elf: Elf, first: int, n: int) -> None:
    """Deal the bytes that n sections share out among them."""
    pos, size = elf.get(SHDR, elf.header(first), "sh_offset"), elf.get(SHDR, elf.header(first), "sh_size") // n
    for i in range(n):
        elf.put(SHDR, elf.header(first + i), "sh_offset", pos + i * size)
        elf.put(SHDR, elf.header(first + i), "sh_size", size)


def move_table(elf: Elf, n: int) -> Elf:
    """The record table becomes n zeros in a section of its own."""
    elf.add(bytes(8 * n), sh_type=1, sh_flags=ALLOC, sh_addr=HIGH)
    return elf.sym("__start_mcount_loc", st_value=HIGH).sym("__stop_mcount_loc", st_value=HIGH + 8 * n)


def test_table_of_two_million_nulls_is_counted(tmp_path: Path) -> None:
    code, out, err = huge(move_table(Elf(EXEC), 2_000_000), tmp_path)
    assert (code, err) == (0, "")
    assert "  records    2000000 slots, 2000000 null, 0 live\n" in out


def test_table_of_three_million_nulls_is_more_than_is_read(tmp_path: Path) -> None:
    code, out, err = huge(move_table(Elf(EXEC), 3_000_000), tmp_path)
    assert (code, out) == (4, "")
    line = "more records than are read: found 3000000 slots, expected at most 2097152 – docs/limits.md has all limits"
    assert err.endswith(f": {line}\n")


def test_packed_relocations_of_24_mib_that_run_past_the_table_are_read(tmp_path: Path) -> None:
    elf = Elf(CALLOPS).sh(".relr.dyn", sh_size=0)
    table = struct.pack("<Q", elf.value("__start_mcount_loc")) + bytes([255]) * 8 * 3_000_000
    elf.add(table, sh_type=SHT_RELR, sh_entsize=8)
    code, out, err = huge(elf, tmp_path)
    assert (code, err) == (0, "")
    assert "  records    19 slots, 3 null, 16 live\n" in out


def test_half_a_million_packed_repeats_of_one_address_are_refused(tmp_path: Path) -> None:
    elf = Elf(CALLOPS)
    table, name = struct.pack("<Q", elf.value("__start_mcount_loc")) * 500_000, elf.name_at(".relr.dyn")
    elf.add(table, sh_type=SHT_RELR, sh_entsize=8, sh_name=name)
    line = ".relr.dyn: RELR table covers the same words more than once: found 16384 places"
    assert huge(elf, tmp_path) == (3, "", f"ftpatch: {tmp_path}/huge: {line}\n")


def test_packed_relocations_that_repeat_a_window_over_a_long_table_are_bounded(tmp_path: Path) -> None:
    """2,000,000 words all unpack at the same 64 slots of a table of as many slots, so the count alone allows them."""
    elf = move_table(Elf(CALLOPS), 2_000_000)
    elf.add(struct.pack("<QQ", HIGH, MASK64) * 1_000_000, sh_type=SHT_RELR, sh_entsize=8)
    assert is_sober(huge(elf, tmp_path))


def test_packed_relocations_between_two_distant_sites_are_not_unpacked(tmp_path: Path) -> None:
    """.init.text lies near address 0, so that 3,000,000 bitmap words lie between the literals of two chosen sites."""
    elf, far = Elf(CALLOPS), 0xFFFF800080010000 - 0x10000
    elf.sh(".init.text", sh_addr=0x10000)
    for name in ("b_setup", "b_late", "start_kernel", "a_setup"):
        elf.sym(name, st_value=elf.value(name) - far)
    for slot in range(15, 19):
        elf.words(elf.slot(slot), elf.get(WORD, elf.slot(slot), "word") - far)
    table = struct.pack("<Q", 0x20000) + bytes([255]) * 8 * 3_000_000
    elf.add(table, sh_type=SHT_RELR, sh_entsize=8)
    choice = ("--func", "vfs_read", "--func", "b_late", "--ops-via", "literal", "--skip-unpatchable")
    assert is_sober(huge(elf, tmp_path, "enable", *choice, "-o", str(tmp_path / "out")))


def test_many_sections_with_one_long_name_are_bounded(tmp_path: Path) -> None:
    elf = Elf(CALLOPS)
    index, names = elf.sec(".shstrtab"), elf.append(b"x" * 8192 + bytes(1))
    elf.add(b"", 400_000, sh_type=1)
    elf.put(SHDR, elf.header(index), "sh_offset", names).put(SHDR, elf.header(index), "sh_size", 8193)
    code, out, err = huge(elf, tmp_path)
    assert (code, err) == (0, "")
    assert "  records    19 slots, 3 null, 16 live\n" in out


def test_many_record_sections_over_the_same_bytes_are_bounded(tmp_path: Path) -> None:
    elf = Elf(OBJECT)
    elf.add(bytes(1 << 20), 800, sh_name=elf.name_at("__patchable_function_entries"), sh_type=1, sh_flags=3)
    line = (
        "sections overlap in the file: found __patchable_function_entries and __patchable_function_entries share bytes"
    )
    assert huge(elf, tmp_path) == (3, "", f"ftpatch: {tmp_path}/huge: {line}\n")


def test_many_relocation_tables_over_the_same_bytes_are_bounded(tmp_path: Path) -> None:
    elf = Elf(PFE2)
    first = elf.add(bytes(RELA_SIZE * 40_000), 1500, sh_type=SHT_RELA, sh_flags=ALLOC, sh_entsize=RELA_SIZE)
    for n in range(1500):
        elf.put(SHDR, elf.header(first + n), "sh_addr", (n + 1) << 24)
    line = "sections overlap in the file: found 15 and 16 share bytes"
    assert huge(elf, tmp_path) == (3, "", f"ftpatch: {tmp_path}/huge: {line}\n")


def test_object_with_thousands_of_record_sections_is_read_in_linear_time(tmp_path: Path) -> None:
    """What clang -ffunction-sections makes of a whole kernel: one record section, and its relocations, per function."""
    elf, n = Elf(OBJECT), 8000
    names = elf.name_at("__patchable_function_entries"), elf.name_at(RELA_PFE)
    each_its_bytes(elf, elf.add(bytes(8 * n), n, sh_name=names[0], sh_type=1, sh_flags=3), n)
    first = elf.add(bytes(RELA_SIZE * n), n, sh_name=names[1], sh_type=SHT_RELA, sh_entsize=RELA_SIZE)
    each_its_bytes(elf, first, n)
    code, out, err = huge(elf, tmp_path)
    assert (code, err) == (0, "")
    assert "  records    8008 slots, 8000 null, 8 live\n" in out


def test_name_that_the_string_table_repeats_is_found_in_linear_time(tmp_path: Path) -> None:
    elf, n, name = Elf(EXEC), 200_000, b"__start_mcount_loc\0"
    strings = elf.append(name * n)
    rows = [struct.pack("<IBBHQQ", len(name) * row, 0, 0, 1, 0xFFFF800080020010, 0) for row in range(n)]
    symbols = elf.append(b"".join(rows))
    elf.sh(".strtab", sh_offset=strings, sh_size=len(name) * n)
    elf.sh(".symtab", sh_offset=symbols, sh_size=SYM_SIZE * n)
    code, _, err = huge(elf, tmp_path)
    assert code == 3
    assert err.endswith(": only one end of the record table is named: no symbol __stop_mcount_loc\n")


def test_half_a_million_aliases_of_one_function_are_scanned(tmp_path: Path) -> None:
    elf, n = Elf(EXEC), 500_000
    rows = elf.symbols()
    one = bytes(elf.raw[elf.symbol("vfs_read") : elf.symbol("vfs_read") + SYM_SIZE])
    symbols = elf.append(bytes(elf.raw[rows.start : rows.stop]) + one * n)
    elf.sh(".symtab", sh_offset=symbols, sh_size=len(rows) * SYM_SIZE + n * SYM_SIZE)
    code, out, err = huge(elf, tmp_path)
    assert (code, err) == (0, "")
    assert "  status     ready 16, weak-leftover 3\n" in out
