"""No result replaces a file that the same run reads, whichever option names it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from elfwriter import MINI

from ftpatch.cli import run

ENABLE = "enable mini.ko --func * --hook _printk"
LINES = [
    ("stub.S", f"{ENABLE} --stub-asm stub.S -o stub.S"),
    ("stub.S", f"{ENABLE} --stub-asm stub.S -o link"),
    ("stub.S", f"{ENABLE} --stub-asm stub.S -o out.ko --report json=stub.S"),
    ("vmlinux", f"{ENABLE} --against vmlinux -o vmlinux"),
    ("vmlinux", f"{ENABLE} --against vmlinux --in-place --report json=vmlinux"),
    ("key.pem", f"{ENABLE} --sign key.pem cert.pem -o key.pem"),
    ("cert.pem", f"{ENABLE} --sign key.pem cert.pem -o out.ko --report text=cert.pem"),
    ("names", "enable vmlinux --func @names -o names"),
    ("names", "disable vmlinux --func * --func !@names -o names"),
    ("names", "drop vmlinux --all-but @names -o names"),
    ("names", "drop vmlinux --all-but @names -o out --report json=names"),
    ("names", "scan vmlinux --func @names --report csv=names"),
    ("names", "explain @names vmlinux --report json=names"),
    ("vmlinux", "explain mini_work mini.ko --against vmlinux --report json=vmlinux"),
    ("tree/a.ko", "explain no_such vmlinux --modules tree --report json=tree/a.ko"),
    ("tree/a.ko", "check tree --write-baseline tree/a.ko"),
    ("vmlinux", "image vmlinux -o vmlinux"),
]


@pytest.mark.parametrize(("name", "line"), LINES, ids=[line for _, line in LINES])
def test_no_result_replaces_a_file_that_is_read(
    name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`enable --func @names -o names` made a kernel of the list, `--sign key.pem … -o key.pem` would one of the key."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(MINI / "vmlinux-callops", "vmlinux")
    shutil.copyfile(MINI / "mini.ko", "mini.ko")
    Path("tree").mkdir()
    shutil.copyfile("mini.ko", "tree/a.ko")
    for text in ("names", "stub.S", "key.pem", "cert.pem"):
        Path(text).write_text("vfs_read\n")
    Path("link").symlink_to("stub.S")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run(line.split()) == 2
    err = capsys.readouterr().err
    given = "link" if "link" in line else name
    what = "report" if "report" in line or "baseline" in line else "output"
    where = " file" if what == "report" else ""
    assert err == f"ftpatch: {given}: the {what} would replace another file of this run – name another {what}{where}\n"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("option", ["--against", "--modules"])
def test_an_option_that_a_log_has_no_use_for_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`explain --splat LOG --against vmlinux` left the option out without a word."""
    assert run(["explain", "--splat", "log", option, "vmlinux"]) == 2
    line = "--against and --modules say nothing of a log – leave them out, or name a function"
    assert capsys.readouterr() == ("", f"ftpatch: {line}\n")
