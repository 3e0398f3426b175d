"""Names that anybody may have made: of symbols, sections, files, modules and selectors, in every report.

A terminal obeys ESC, a reader is misled by marks that turn text around, a log takes what follows a line break for a
line of its own, and a spreadsheet runs a cell that begins with `=`. JSON escapes all of it and stays as it is.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from pathlib import Path

import pytest
from elfedit import MINI, Elf

from ftpatch.cli import run
from ftpatch.errors import printable
from ftpatch.report import FORMATS

# ESC, a mark that turns text around, one that isolates, no width, CR LF, signs of the formats, BEL, CSI of one byte,
# an unassigned character, one of private use, a tag
EVIL = '\x1b[31mR\u202eB\u2066\u200b\r\nINJ,="<x>|`#::\x07\x9b\u0378\ue000\U000e0001'
SHOWN = r'\x1b[31mR\u202eB\u2066\u200b\x0d\x0aINJ,="<x>|`#::\x07\x9b\u0378\ue000\U000e0001'
TEXT_FORMATS = [name for name in FORMATS if name not in ("json", "sarif")]
FILE = "=f\x1b[2m\u202e\r\nINJ"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of a hostile name with a module and a kernel, all of whose names are."""
    top = tmp_path / "d\x1b[1m\u202e\r\nINJ"
    top.mkdir()
    symbols = {"mini_step": f"=s{EVIL}", "mini_work": f"w{EVIL}", "mini_util": f"@u{EVIL}", "mini_mod.c": f"+{EVIL}.c"}
    module = Elf("mini.ko").rename(".strtab", symbols).rename(".shstrtab", {".text": f".t{EVIL}"})
    (top / f"{FILE}.ko").write_bytes(module.raw)
    functions = {"vfs_read": f"-r{EVIL}", "vfs_write": f"w{EVIL}", "a.c": f"a{EVIL}", "sys_getppid": f"s{EVIL}"}
    kernel = Elf("vmlinux-pfe2").rename(".strtab", functions).rename(".shstrtab", {".init.text": f".i{EVIL}"})
    (top / f"{FILE}.vm").write_bytes(kernel.raw)
    return top


def said(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    capfd.readouterr()
    code = run(arguments)
    return code, *capfd.readouterr()


def require_harmless(text: str) -> None:
    odd = [char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")]
    assert set(odd) <= {"\n"}
    assert not [line for line in text.split("\n") if line.startswith("INJ")]


READING = [
    ["scan", "K", "--sites"], ["scan", "V", "--sites"], ["scan", "D"], ["scan", "D", "--sites"], ["scan", "K.none"],
    ["check", "K"], ["check", "V", "--predict"], ["check", "D"], ["diff", "K", str(MINI / "mini.ko")],
    ["diff", str(MINI / "mini.ko"), "K"], ["diff", "V", str(MINI / "vmlinux-pfe2"), "--all"],
    ["diff", "D", str(MINI)], ["explain", f"=s{EVIL}", "K"], ["explain", f"s{EVIL}", "V"], ["explain", "row:1", "K"],
    ["verify", "V", str(MINI / "vmlinux-pfe2")], ["enable", "V", "--func", "*", "--skip-unpatchable", "--dry-run"],
    ["drop", "K", "--func", "row:0", "--dry-run"],
]  # fmt: skip


def filled(arguments: list[str], folder: Path) -> list[str]:
    files = {"K": f"{folder}/{FILE}.ko", "V": f"{folder}/{FILE}.vm", "D": str(folder), "K.none": f"{folder}/{FILE}"}
    return [files.get(word, word) for word in arguments]


@pytest.mark.parametrize("arguments", READING, ids=range(len(READING)))
def test_no_report_obeys_a_name(arguments: list[str], folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in TEXT_FORMATS:
        code, out, err = said([*filled(arguments, folder), "--format", name], capfd)
        assert code != 70
        require_harmless(out)
        require_harmless(err)


REFUSED = [  # what a user, or a script, hands over
    (2, ["scan", "K", "--status", EVIL]), (2, ["scan", "K", "--format", EVIL]), (2, [EVIL]), (2, ["scan", f"--{EVIL}"]),
    (2, ["scan", "K", "--report", EVIL]), (2, ["check", "K", "--select", EVIL]),
    (2, ["scan", "K", "--max-size", EVIL]), (2, ["restore", "K", "--journal", EVIL]),
    (3, ["scan", EVIL]), (3, ["check", "K", "--config", EVIL]), (3, ["check", "K", "--kconfig", EVIL]),
    (3, ["check", "K", "--baseline", EVIL]), (3, ["drop", "K", "--func", f"@{EVIL}"]),
    (3, ["explain", "--splat", EVIL]),
    (4, ["scan", "K", "--layout", EVIL]),
    (5, ["drop", "K", "--func", EVIL]), (5, ["drop", "K", "--func", f"/{EVIL}(/"]),
    (5, ["drop", "K", "--section", EVIL]), (5, ["drop", "K", "--func", f"a@{EVIL}"]),
    (5, ["enable", "V", "--func", "row:1", "--target", EVIL]), (5, ["enable", "K", "--func", "row:1", "--hook", EVIL]),
    (5, ["explain", f"{EVIL}*", "K"]),
]  # fmt: skip


@pytest.mark.parametrize(("code", "arguments"), REFUSED, ids=range(len(REFUSED)))
def test_no_error_line_obeys_what_it_repeats(
    code: int, arguments: list[str], folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    got, out, err = said(filled(arguments, folder), capfd)
    assert got == code
    require_harmless(out)
    require_harmless(err)
    assert err


def test_every_culprit_of_a_refusal_is_a_line(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(filled(["disable", "K", "--func", "row:0", "--func", "row:1", "--dry-run"], folder), capfd)
    assert (code, err.count("\n")) == (5, 3)
    assert err.startswith(f"  =s{SHOWN} (row 0, .t{SHOWN}+0x8): not enabled\n")
    require_harmless(err)


def test_a_log_of_a_kernel_is_obeyed_by_nobody(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    log.write_text(
        "------------[ ftrace bug ]------------\nftrace failed to modify\n"
        "[<ffff800008015f34>] vfs\x1b[31m_read+0x4/0x100 [mo\u202ed]\n actual:   1f:20:03:d5\n"
        "Not tainted 6.1\u202e\x1b[2m-x #1\nMisaligned patch-site y\u202e\x1b[1mINJ\n"
    )
    for name in TEXT_FORMATS:
        code, out, _ = said(["explain", "--splat", str(log), "--format", name], capfd)
        assert code == 0
        require_harmless(out)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (EVIL, SHOWN), ("plain ümläut 漢字 é", "plain ümläut 漢字 é"), ("\t\v\0\x7f\x85", r"\x09\x0b\x00\x7f\x85"),
        ("\u2028\u2029\u061c\ufeff\u180e", r"\u2028\u2029\u061c\ufeff\u180e"), ("a\udcffb\ud800", r"a\xdcffb\xd800"),
        ("\U0001f600", "\U0001f600"), ("\U000e0020\U0010ffff", r"\U000e0020\U0010ffff"),
    ],
)  # fmt: skip
def test_what_is_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_cell_is_no_formula(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _, out, _ = said(filled(["scan", "K", "--format", "csv"], folder), capfd)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["function"] for row in rows[:2]] == [f"'=s{SHOWN}", f"w{SHOWN}"]
    assert f'"\'=s{SHOWN.replace(chr(34), 2 * chr(34))}"' in out  # in quotes, too
    assert not [cell for row in rows for cell in row.values() if cell and cell[0] in "=+-@\t\r"]


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", " =", "  @"])
def test_what_a_spreadsheet_would_run_is_text(first: str) -> None:
    from ftpatch.report.formats.csv import _cell

    assert _cell(f"{first}1") == f'"\'{printable(first)}1"'
    assert _cell([f"{first}1", "x"]) == f'"\'{printable(first)}1 x"'


def test_numbers_of_a_table_stay_numbers() -> None:
    from ftpatch.report.formats.csv import _cell

    assert [_cell(value) for value in (-5, 7, None, True, "0x1f", "a,b", 'a"b', "a-b")] == [
        "-5", "7", "", "True", "0x1f", '"a,b"', '"a""b"', "a-b",
    ]  # fmt: skip


def test_json_has_the_names_as_they_are(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _, out, _ = said(filled(["scan", "K", "--format", "json"], folder), capfd)
    image = json.loads(out)["images"][0]
    assert image["file"] == f"{folder}/{FILE}.ko"
    assert image["sites"][0]["function"] == f"=s{EVIL}" and image["sites"][0]["section"] == f".t{EVIL}"
    require_harmless(out)


def test_a_usage_error_keeps_a_line_break_within_its_line(capfd: pytest.CaptureFixture[str]) -> None:
    """What click says of arguments too many has them as they are: one could add a line that ftpatch never wrote."""
    assert run(["explain", "--splat", "log", "--", "a", "b\nftpatch: all is well"]) == 2
    wrong = "wrong number of arguments: found 2, expected [FILE] – for example ftpatch explain vfs_read vmlinux"
    assert capfd.readouterr().err == f"ftpatch: {wrong}\n"
    assert run(["image", "a", "b\nftpatch: all is well", "-o", "c"]) == 2
    assert capfd.readouterr().err == (
        "ftpatch: image: got unexpected extra argument (b\\x0aftpatch: all is well) – ftpatch image --help shows all\n"
    )
