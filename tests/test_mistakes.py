"""Common mistakes, and the one line that each gets: what, where, found, expected, and what to do about it."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import pytest

from ftpatch.cli import run

MINI = Path(__file__).parents[1] / "testdata/mini"
AGAIN = "build or copy it again"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with sound files and others, which is also the current directory."""
    shutil.copyfile(MINI / "vmlinux-callops", tmp_path / "vmlinux")
    shutil.copyfile(MINI / "mini.ko", tmp_path / "mini.ko")
    packed = gzip.compress((MINI / "mini.ko").read_bytes())
    files = {
        "text": b"text\n",
        "empty": b"",
        "cut": (tmp_path / "vmlinux").read_bytes()[:3000],
        "cut.ko.gz": packed[:200],
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


MISTAKES = [
    # the file
    ("scan text", 3, "text: not an ELF file: found first bytes 74 65 78 74 0a, expected 7f 45 4c 46 – give the "
     "uncompressed ELF vmlinux of the same build (Debian: the -dbg package)"),
    ("scan empty", 3, f"empty: is an empty file: expected an ELF vmlinux, module or object – {AGAIN}"),
    ("scan folder", 3, "folder: no module in this tree: expected .ko, .ko.xz, .ko.gz, .ko.zst – name a vmlinux, an "
     "object or a program inside it"),
    ("enable folder --func x", 3, "folder: is a directory, not a regular file – name the vmlinux or module inside it"),
    ("scan cut", 3, "cut: section header table lies outside the file: found bytes 0x4d78..0x5138, expected at most "
     "0xbb8 – the file is truncated or corrupt"),
    ("scan cut.ko.gz", 3, "cut.ko.gz: gzip data ends too early: found 200 bytes – the file is truncated"),
    ("scan /dev/null", 3, "/dev/null: is not a regular file – copy its content to a file first"),
    # the choice
    ("enable vmlinux", 2, "nothing is chosen – --func NAME chooses functions, --func '*' all of them"),
    ("enable vmlinux --func row:999", 5, "row:999: no such row: found 19 rows, from 0 on, expected the row of a site – "
     "ftpatch scan --sites lists all"),
    ("enable vmlinux --func 0x1234", 5, "0x1234: no patch site at this place: found none, expected the address of a "
     "site, a record or an entry – ftpatch scan --sites lists all"),
    ("enable vmlinux --func .text+0x1", 5, ".text+0x1: no patch site at this place: found none, expected the address "
     "of a site, a record or an entry – ftpatch scan --sites lists all"),
    ("enable vmlinux --func @empty", 5, "@empty: the list names no function of this file: expected one function "
     "a line"),
    ("disable vmlinux --func vfs_read", 5, "vmlinux: 1 of 1 chosen sites cannot be patched: found vfs_read (row 12, "
     ".text+0x3b8): not enabled, expected all of them, or nothing is written – there is nothing to undo; ftpatch scan "
     "--sites --status enabled lists what is enabled"),
    # the output
    ("enable vmlinux --func vfs_read -o vmlinux", 2, "vmlinux: the output is the input – name another output, or use "
     "--in-place"),
    ("enable vmlinux --func vfs_read -o none/x", 2, "none/x: the output's directory does not exist – make it first, or "
     "name another"),
    ("enable vmlinux --func vfs_read -o folder", 2, "folder: the output is not a regular file – name a file"),
    ("enable vmlinux --func vfs_read -o x --in-place", 2, "--in-place and -o exclude each other – leave one of them "
     "out"),
    ("scan vmlinux --report json", 2, "json: --report takes FORMAT=FILE – for example --report json=journal.json"),
    ("scan vmlinux --report json=vmlinux", 2, "vmlinux: the report would replace another file of this run – name "
     "another report file"),
    # two files
    ("verify vmlinux mini.ko", 2, "mini.ko: the two files are not of one kind: found module of arm64, expected vmlinux "
     "of arm64 – name a file, and what was made of it"),
    ("diff vmlinux mini.ko", 2, "mini.ko: these two cannot be compared: found module, expected vmlinux, as vmlinux is "
     "– name the same file of both builds"),
    ("diff vmlinux folder", 2, "folder: a tree and a file cannot be compared: expected two files, or two directories – "
     "name the same of both builds"),
    ("restore vmlinux --journal text -o o", 3, "text: not a journal of a patch: found Expecting value: line 1 column 1 "
     "(char 0), expected JSON – the JSON report of the run that patched the file is one"),
    ("check mini.ko --against mini.ko", 2, "mini.ko: --against takes a vmlinux: found module – name the kernel that "
     "will load the modules"),
    ("check vmlinux --kconfig text", 2, "text: no kernel configuration: found no line CONFIG_…=…, expected a .config – "
     "the build tree has one, or zcat /proc/config.gz"),
    ("check vmlinux --baseline text", 2, "text: not a baseline: found Expecting value: line 1 column 1 (char 0), "
     "expected what --write-baseline wrote – ftpatch check --write-baseline FILE makes one"),
    # what a verb is not for
    ("image mini.ko -o o", 5, "mini.ko: no boot image can be made of this file: found kind module, expected a vmlinux "
     "– name the vmlinux of the build tree"),
    ("record vmlinux -o o", 5, "vmlinux: the record table of a linked file cannot grow: found vmlinux, expected an "
     "object or module (ET_REL) – record the objects, or vmlinux.o, and link again"),
    ("explain", 2, "wrong number of arguments: found 0, expected FUNC [FILE] – for example ftpatch explain vfs_read "
     "vmlinux"),
    ("explain --splat text vmlinux", 3, "no ftrace message in this text: found 1 lines, expected `ftrace bug` or "
     "another message of ftrace – give the whole log: dmesg > LOG"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "code", "said"), MISTAKES, ids=[line for line, _, _ in MISTAKES])
def test_a_mistake_gets_one_line_that_says_what_to_do(
    line: str, code: int, said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(os.listdir(here))
    answer = run(line.split())
    assert capsys.readouterr() == ("", f"ftpatch: {said}\n")
    assert answer == code
    assert sorted(os.listdir(here)) == before
