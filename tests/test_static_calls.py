"""`static-calls`: what is read of sites, keys and trampolines, by files whose source stands beside them."""

from __future__ import annotations

import csv
import io
import json
import struct
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from elfedit import Elf as EditedElf
from elfwriter import ALLOC, ET_EXEC, EXEC, OBJECT, WRITE, Elf
from static_call_files import DATA, KEYS, RODATA, TEXT, kernel

from ftpatch.cli import run
from ftpatch.document.schema import schema
from ftpatch.document.static_call_rows import Asked, static_calls_object
from ftpatch.errors import FtpatchError
from ftpatch.sites.static_calls import static_calls_of

ROOT = Path(__file__).resolve().parents[1]
X86, ARM64 = ROOT / "testdata" / "static_calls", ROOT / "testdata" / "static_calls_arm64"
Read = Callable[..., dict[str, Any]]


@pytest.fixture
def read(capsys: pytest.CaptureFixture[str]) -> Read:
    """What `static-calls --format json` says of a file."""

    def one(path: object, *options: str) -> dict[str, Any]:
        assert run(["static-calls", str(path), "--format", "json", *options]) == 0
        document = json.loads(capsys.readouterr().out)
        jsonschema.validate(document, schema())
        found: dict[str, Any] = document["images"][0]["static_calls"]
        return found

    return one


SITES = [
    # key, function, kind, destination, crosses a line, tail, init
    ("clock", "lines", "call", "__SCT__clock", False, False, False),
    ("clock", "lines", "call", "__SCT__clock", False, False, False),
    ("clock", "lines", "call", "__SCT__clock", True, False, False),
    ("idle", "lines", "call", "__SCT__idle", True, False, False),
    ("clock", "forms", "conditional", "__SCT__clock", False, True, False),
    ("clock", "forms", "call", "clock_slow", False, False, False),
    ("idle", "forms", "nop", None, None, False, False),
    ("steal", "forms", "return0", None, None, False, False),
    ("probe", "forms", "return", None, None, True, False),
    ("zero", "forms", "unknown", None, None, False, False),
    ("clock", "forms", "tail", "__SCT__clock", False, True, False),
    ("clock", "start_kernel", "call", "__SCT__clock", False, False, True),
]
KINDS = {"call": 6, "tail": 1, "conditional": 1, "nop": 1, "return": 1, "return0": 1, "unknown": 1}
OF_KEYS = {
    # function, kind of the trampoline, sites, who sets it (init), what points to it
    "clock": ("clock_slow", "jump", 7, [("set_clock", False)], []),
    "idle": ("NULL", "thunk", 2, [("set_two", False)], []),
    "steal": ("return0", "return0", 1, [("start_kernel", True)], []),
    "probe": ("NULL", "null", 1, [], ["table"]),
    "zero": ("return0", "return0", 1, [], []),
    "unused": ("clock_fast", "jump", 0, [], []),
}


@pytest.mark.parametrize("name", ["vmlinux", "calls.o"])
def test_every_form_of_a_site_is_what_it_is(name: str, read: Read) -> None:
    found = read(X86 / name, "--sites")
    assert (found["sites"], found["by_kind"]) == (12, KINDS)
    rows = [tuple(call[field] for field in ("key", "function", "kind", "destination", "crosses_line", "tail", "init"))
            for call in found["calls"]]  # fmt: skip
    known = SITES if name == "vmlinux" else [*SITES[:-1], (*SITES[-1][:4], None, *SITES[-1][5:])]
    assert rows == known
    classes = {False: "single", True: "cross-line", None: None}
    assert [call["concurrency"] for call in found["calls"]] == [
        classes[call["crosses_line"]] for call in found["calls"]
    ]
    assert (found["cross_line"], found["not_known"]) == (2, int(name != "vmlinux"))


@pytest.mark.parametrize("name", ["vmlinux", "calls.o"])
def test_every_key_has_its_function_trampoline_and_who_sets_it(name: str, read: Read) -> None:
    found = read(X86 / name)
    rows = {
        row["key"]: (
            row["function"], row["trampoline_kind"], row["sites"],
            [(one["function"], one["init"]) for one in row["updated_by"]], row["pointed_to_by"],
        )
        for row in found["entries"]
    }  # fmt: skip
    assert rows == OF_KEYS
    assert {row["trampoline"] for row in found["entries"]} == {f"__SCT__{name}" for name in OF_KEYS}
    assert (found["keys"], found["with_sites"], found["inline"], found["pointers"]) == (6, 5, True, 0)
    assert all(row["defined"] and not row["in_module"] and row["exported"] is None for row in found["entries"])


def test_a_call_that_sets_no_constant_is_counted_by_its_function(read: Read) -> None:
    assert read(X86 / "vmlinux")["other_updates"] == [{"function": "set_two", "init": False, "calls": 1}]


def test_a_module_names_keys_of_others_by_trampoline_or_key(read: Read) -> None:
    found = read(X86 / "calls.ko", "--sites")
    fields = ("key", "function", "defined", "in_module", "sites")
    assert [tuple(row[field] for field in fields) for row in found["entries"]] == [
        ("own", "own_slow", True, True, 3), ("idle", None, False, False, 1), ("clock", None, False, False, 1),
    ]  # fmt: skip
    assert [(call["section"], call["address"], call["crosses_line"]) for call in found["calls"]] == [
        (".text", "0x3c", True), (".text", "0x42", False), (".text", "0x47", False), (".text.late", "0x0", False),
        (".init.text", "0x0", False),
    ]  # fmt: skip


def test_a_modules_code_is_laid_out_from_the_start_of_a_page(read: Read) -> None:
    """.text has 0x5a bytes and .text.late is aligned to 16: its call is at 0x60 of the page, and not at 0."""
    lines = {
        size: read(X86 / "calls.ko", "--line-size", str(size))["cross_line"] for size in (8, 16, 32, 64, 128, 4096)
    }
    words = [0x3C + 1, 0x42 + 1, 0x47 + 1, 0x60 + 1, 1]
    assert lines == {size: sum(word // size != (word + 3) // size for word in words) for size in lines}


def test_the_keys_of_a_module_are_found_in_the_kernel_that_loads_it(read: Read) -> None:
    rows = read(ARM64 / "mini.ko", "--against", str(ARM64 / "vmlinux-rela"))["entries"]
    found = {row["key"]: (row["function"], row["usable"], row["found_in"] is not None) for row in rows}
    assert found == {"wear": ("wear_plain", None, False), "wear_hook": ("NULL", None, False),
                     "report_level": ("level_low", True, True), "clock_read": ("clock_slow", True, True)}  # fmt: skip
    rows = read(X86 / "calls.ko", "--against", str(X86 / "vmlinux"), "--key", "clock")["entries"]
    assert [(row["function"], row["usable"]) for row in rows] == [("clock_slow", False)]  # it exports nothing


OF_ARM64 = {
    "clock_read": ("clock_slow", "jump", "clock_slow", 3, "key"),
    "idle_hook": ("NULL", "return0", "__static_call_return0", 2, None),
    "steal_time": ("return0", "return0", "__static_call_return0", 1, None),
    "report_level": ("level_low", "jump", "level_low", 1, "trampoline"),
}


@pytest.mark.parametrize("name", ["vmlinux-rela", "vmlinux-relr", "kernel.o"])
def test_trampolines_with_a_literal_are_read_and_branches_to_them_are_sites(name: str, read: Read) -> None:
    found = read(ARM64 / name)
    rows = {row["key"]: (row["function"], row["trampoline_kind"], row["leads_to"], row["sites"], row["exported"])
            for row in found["entries"]}  # fmt: skip
    if name == "kernel.o":
        rows = {key: (*row[:4], OF_ARM64[key][4]) for key, row in rows.items()}
    assert rows == OF_ARM64
    assert (found["inline"], found["by_kind"]) == (False, {"call": 5, "tail": 2, "conditional": 0})


def test_a_kernel_without_static_calls_has_no_keys(read: Read) -> None:
    found = read(ROOT / "testdata/mini/vmlinux-callops", "--sites")
    assert (found["sites"], found["keys"], found["entries"], found["calls"]) == (0, 0, [], [])


NO_SYMBOLS = (
    "found no symbol table: all symbols and relocations are stripped, expected .symtab – strip with --strip-debug "
    "alone (INSTALL_MOD_STRIP=1); no kernel loads the module"
)


def test_a_stripped_module_has_static_calls_that_nobody_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stripped = tmp_path / "calls.ko"
    stripped.write_bytes(EditedElf(ROOT / "testdata/static_calls/calls.ko").sh(".symtab", sh_type=0).raw)
    assert run(["static-calls", str(stripped)]) == 3
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"ftpatch: {stripped}: its static calls name nothing: {NO_SYMBOLS}\n")


@pytest.mark.parametrize("path", [X86 / "vmlinux", ARM64 / "vmlinux-rela"], ids=["x86_64", "arm64"])
def test_a_stripped_kernel_is_not_one_without_static_calls(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stripped = tmp_path / "vmlinux"
    stripped.write_bytes(EditedElf(path).sh(".symtab", sh_type=0).raw)
    assert run(["static-calls", str(stripped)]) == 5
    assert capsys.readouterr() == ("", f"ftpatch: {stripped}: no symbol table: found a stripped ELF file, expected "
                                   ".symtab – use the vmlinux of the build tree or of the debug package (stripping "
                                   "debug info alone is fine)\n")  # fmt: skip


@pytest.mark.parametrize(
    ("selectors", "chosen"),
    [
        (["clock"], ["clock"]),
        (["__SCK__clock", "__SCT__idle"], ["clock", "idle"]),
        (["__SCT__*o*"], ["clock", "probe", "zero"]),
        (["/^(clock|zero)$/"], ["clock", "zero"]),
        (["*", "!*e*"], ["clock"]),
        (["!clock", "!/^u/"], ["idle", "probe", "steal", "zero"]),
    ],
)
def test_keys_are_chosen_with_or_without_their_prefix(selectors: list[str], chosen: list[str], read: Read) -> None:
    found = read(X86 / "vmlinux", "--sites", *(word for selector in selectors for word in ("--key", selector)))
    assert sorted(row["key"] for row in found["entries"]) == chosen
    assert {call["key"] for call in found["calls"]} <= set(chosen)
    assert (found["keys"], found["sites"]) == (6, 12)  # of all


NEAR = "no static call of that name: found 6 keys of other names, expected a key – did you mean clock?"
NONE = (
    "no static call of that name: found 6 keys of other names, expected a key – ftpatch static-calls --key '*' lists "
    "all"
)
REFUSED = [
    ((X86 / "vmlinux", "--key", "clok"), 5, f"clok: {NEAR}"),
    ((X86 / "vmlinux", "--key", "clock", "--key", "x*"), 5, f"x*: {NONE}"),
    ((X86 / "vmlinux", "--key", "clock", "--key", "!clock"), 5, "{0}: the selection is empty: found no key is left by "
     "--key"),
    ((X86 / "vmlinux", "--key", "/(/"), 5, "/(/: not a regular expression: found missing ), unterminated subpattern at "
     "position 0"),
    ((ROOT / "testdata/mini-ppc64le/vmlinux", "--key", "a"), 4, "{0}: kernels of this machine have no static calls: "
     "found ppc64le"),
    ((X86 / "calls.ko", "--against", str(ARM64 / "vmlinux-rela")), 2, f"{ARM64}/vmlinux-rela: --against is for another "
     "machine: found arm64, expected x86_64"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "code", "line"), REFUSED, ids=[row[2][:40] for row in REFUSED])
def test_what_cannot_be_answered_is_said_in_a_line(
    words: tuple[Any, ...], code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(next(words[0].parent.glob("vmlinux*"))) if "ppc64le" in str(words[0]) else str(words[0])
    assert run(["static-calls", path, *words[1:]]) == code
    assert capsys.readouterr() == ("", f"ftpatch: {line.format(path)}\n")


@pytest.mark.parametrize("size", ["48", "4", "8192", "0", "x"])
def test_a_line_of_no_possible_size_is_usage(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["static-calls", str(X86 / "vmlinux"), "--line-size", size]) == 2
    assert "ftpatch: static-calls: invalid value for '--line-size'" in capsys.readouterr().err


def test_csv_lists_keys_or_sites(capsys: pytest.CaptureFixture[str]) -> None:
    tables = []
    for options in ([], ["--sites"]):
        assert run(["static-calls", str(X86 / "vmlinux"), "--format", "csv", *options]) == 0
        tables.append(list(csv.DictReader(io.StringIO(capsys.readouterr().out))))
    keys, sites = tables
    assert (len(keys), len(sites)) == (6, 12)
    assert {row["key"]: row["sections"] for row in keys}["clock"] == ".text 6 .init.text 1"
    assert {row["key"]: row["updated_by"] for row in keys}["steal"] == "start_kernel:init"
    assert [row["kind"] for row in sites] == [row[2] for row in SITES]


def test_the_text_lists_keys_with_the_most_sites_first_and_says_who_sets_those_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["static-calls", str(X86 / "vmlinux")]) == 0
    assert capsys.readouterr().out.split("\n")[1:9] == [
        "  sites      12: call 6, tail 1, conditional 1, nop 1, return 1, return0 1, unknown 1",
        "  sections   .text 11, .init.text 1",
        "  lines      2 destinations lie in two cache lines of 64 bytes (cross-line)",
        "  keys       6, 5 of them with sites",
        "  trampoline jump 2, return0 2, null 1, thunk 1",
        "  sites cross  trampoline key -> function",
        "      7     1  jump       clock -> clock_slow",
        "      2     1  thunk      idle -> NULL",
    ]
    assert run(["static-calls", str(X86 / "vmlinux"), "--key", "probe"]) == 0
    assert capsys.readouterr().out.split("\n")[-3:] == [
        "      1     0  null       probe -> NULL",
        f"{'':<26}pointed to by: table; keys that are no constant are set by set_two",
        "",
    ]


# -- damaged and hostile files -----------------------------------------------------------------------------------------

STOP = "__stop_static_call_sites"
TABLE = f"table of static calls {RODATA:#x}..{{:#x}}"
DAMAGED: list[tuple[str, Mapping[str, Any], int, str]] = [
    ("half named", {"without": [STOP]}, 3, "{path}: only one end of the table of static calls is named: found no "
     "symbol " + STOP),
    ("half an entry", {"symbols": {STOP: RODATA + 12}}, 3, "{path}: " + TABLE.format(RODATA + 12) + ": the table of "
     "static calls holds no whole number of entries: found 12 bytes, expected a multiple of 8"),
    ("backwards", {"symbols": {STOP: RODATA - 8}}, 3, "{path}: " + TABLE.format(RODATA - 8) + ": the table of static "
     "calls holds no whole number of entries: found -8 bytes, expected a multiple of 8"),
    ("too many", {"symbols": {STOP: DATA + 8}}, 4, "{path}: " + TABLE.format(DATA + 8) + ": more "
     "static calls than are read: found 262145 entries, expected at most 262144 – docs/limits.md has all limits"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "code", "line"), [row[1:] for row in DAMAGED], ids=[row[0] for row in DAMAGED])
def test_a_table_that_contradicts_the_file_is_refused(
    what: Mapping[str, Any], code: int, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(kernel(**what))
    assert run(["static-calls", str(path)]) == code
    assert capsys.readouterr() == ("", f"ftpatch: {line.format(path=path)}\n")


def test_entries_that_lead_nowhere_are_shown_as_such(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "vmlinux"
    far = RODATA + 0x7000_0000
    path.write_bytes(kernel(entries=((far, "a", 0), (TEXT + 0x11, far, 0), (TEXT + 0x11, KEYS["a"] + 4, 0))))
    rows = read(path, "--sites")["calls"]
    assert [(row["key"], row["section"], row["kind"], row["destination"]) for row in rows] == [
        ("a", None, "unknown", None), (None, ".text", "call", "__SCT__a"),
        (hex(KEYS["a"] + 4), ".text", "call", "__SCT__a"),
    ]  # fmt: skip


def test_a_kernel_without_symbols_of_keys_names_them_by_their_address(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(kernel(without=[f"{prefix}{name}" for name in KEYS for prefix in ("__SCK__", "__SCT__")]))
    found = read(path)
    assert sorted((row["key"], row["function"], row["sites"]) for row in found["entries"]) == [
        (hex(KEYS["a"]), "f", 2), (hex(KEYS["b"]), "g", 1), (hex(KEYS["n"]), "NULL", 1),
    ]  # fmt: skip


def test_a_kernel_whose_table_no_symbol_names_is_said_to_have_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(kernel(without=["__start_static_call_sites", STOP]))
    assert run(["static-calls", str(path)]) == 0
    assert capsys.readouterr().out.split("\n")[1:4] == [
        "  sites      0", "  keys       4, 0 of them with sites",
        "             no table lists any site: calls go to the trampolines, or are not told by this file",
    ]  # fmt: skip


def test_keys_of_one_name_in_two_source_files_are_two(tmp_path: Path, read: Read) -> None:
    FILE, LOCAL, ABS = 4, 0, 0xFFF1
    elf = Elf(ET_EXEC, 62)
    text = elf.section(".text", b"\xc3" * 64, addr=TEXT, flags=ALLOC | EXEC, align=16)
    data = elf.section(
        ".data", struct.pack("<4Q", TEXT, 1, TEXT + 1, 1), addr=TEXT + 0x1000, flags=ALLOC | WRITE, align=16
    )
    for number, file in enumerate(("a.c", "b.c")):
        elf.symbol(file, ABS, 0, 0, FILE, LOCAL)
        elf.symbol(f"f{number}", text, TEXT + number, 1, 2, LOCAL)
        elf.symbol("__SCT__same", text, TEXT + 16 + 8 * number, 8, 2, LOCAL)
        elf.symbol("__SCK__same", data, TEXT + 0x1000 + 16 * number, 16, OBJECT, LOCAL)
    for mark in ("linux_banner", "start_kernel", "init_task"):
        elf.symbol(mark, text, TEXT, 0, OBJECT)
    path = tmp_path / "vmlinux"
    path.write_bytes(elf.build())
    rows = [(row["key"], row["function"], row["trampoline_address"]) for row in read(path)["entries"]]
    assert rows == [("same", "f0", hex(TEXT + 16)), ("same", "f1", hex(TEXT + 24))]


def test_names_with_control_characters_do_not_reach_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(kernel().replace(b"__SCK__a\0", b"__SCK__\x1b\0").replace(b"__SCT__a\0", b"__SCT__\x1b\0"))
    assert run(["static-calls", str(path), "--key", "*", "--sites"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\\x1b in user" in out


@pytest.mark.parametrize("value", [-(3 << 60), (1 << 64) - 4096, 1 << 31])
def test_any_eight_bytes_of_an_object_may_be_damaged(value: int, tmp_path: Path) -> None:
    """Addends in front of all sections, and functions that begin there, ended in an exception of numpy."""
    path, whole = tmp_path / "damaged.o", (X86 / "calls.o").read_bytes()
    for pos in range(0, len(whole), 8):
        path.write_bytes(whole[:pos] + (value & (1 << 64) - 1).to_bytes(8, "little") + whole[pos + 8 :])
        try:
            table = static_calls_of(str(path))
            assert len(static_calls_object(table, Asked(calls=True))["calls"]) == len(table.calls)
        except FtpatchError as error:
            assert error.exit_code in (3, 4)


def test_the_fixtures_are_what_their_source_makes(tmp_path: Path) -> None:
    subprocess.run([str(X86 / "build.sh"), str(tmp_path)], check=True, capture_output=True, timeout=60)
    for name in ("vmlinux", "calls.o", "calls.ko"):
        assert (tmp_path / name).read_bytes() == (X86 / name).read_bytes(), name
