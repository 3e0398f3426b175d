"""Files that anybody may have made: what is opened, what is not, and how much is read."""

from __future__ import annotations

import io
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from elfwriter import MINI
from limits import limited

from ftpatch.cli import run
from ftpatch.errors import InputError
from ftpatch.inputs import open_regular, read_file, read_input

Capture = pytest.CaptureFixture[str]
LIMIT = 1 << 20
NOT_REGULAR = "is not a regular file – copy its content to a file first"
A_DIRECTORY = "is a directory, not a regular file – name a file"


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # the name of a socket is short


def links_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


# What has the name, how it is made, and what is said of it.
IRREGULAR: list[tuple[str, Callable[[Path], object], str]] = [
    ("fifo", lambda path: os.mkfifo(path), NOT_REGULAR),
    ("socket", a_socket, NOT_REGULAR),
    ("directory", lambda path: path.mkdir(), A_DIRECTORY),
    ("zero", links_to("/dev/zero"), NOT_REGULAR),
    ("full", links_to("/dev/full"), NOT_REGULAR),
    ("null", links_to("/dev/null"), NOT_REGULAR),
    ("terminal", links_to("/dev/tty"), NOT_REGULAR),
    ("missing", lambda path: None, "cannot be read: No such file or directory"),
    (
        "dangling",
        links_to("gone"),
        "cannot be read: No such file or directory – it is a symbolic link to gone, which does not exist",
    ),
    ("loop", links_to("x"), "cannot be read: Too many levels of symbolic links"),
    ("below-a-file", links_to("/etc/passwd/x"), "cannot be read: Not a directory"),
    ("huge", sparse, "is too large: found 1099511627776 bytes, expected at most {limit} bytes"),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("make", "line"), [pytest.param(*case[1:], id=case[0]) for case in IRREGULAR])
def test_what_is_no_regular_file_of_some_size_is_refused(make: Callable[[Path], object], line: str, here: Path) -> None:
    make(here / "x")
    with pytest.raises(InputError) as caught:
        read_file("x", LIMIT)
    assert str(caught.value) == f"x: {line.format(limit=LIMIT)}"


@pytest.mark.parametrize("name", ["a\0b", "\ud900"])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="cannot be read: no file can have this name"):
        read_file(name, LIMIT)


def test_a_name_of_5000_characters_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be read: File name too long"):
        read_file("n" * 5000, LIMIT)


@pytest.mark.parametrize("size", [0, 1, LIMIT - 1, LIMIT])
def test_a_file_is_read_up_to_the_limit(size: int, here: Path) -> None:
    (here / "x").write_bytes(b"x" * size)
    assert read_file("x", LIMIT) == b"x" * size


def test_a_file_one_byte_over_the_limit_is_refused(here: Path) -> None:
    (here / "x").write_bytes(b"x" * (LIMIT + 1))
    with pytest.raises(InputError, match=f"x: the list is too large: found {LIMIT + 1} bytes, expected at most"):
        read_file("x", LIMIT, "the list")


def test_a_file_whose_size_the_file_system_does_not_tell_is_read_whole() -> None:
    """available_filter_functions is such a file, and everything in /proc."""
    assert os.stat("/proc/self/status").st_size == 0
    assert read_file("/proc/self/status", LIMIT).startswith(b"Name:")


def test_a_file_without_a_size_and_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    """It grows as fast as it is read."""
    (here / "x").touch()
    monkeypatch.setattr(os, "read", lambda fd, n: b"x" * n)
    with pytest.raises(InputError, match=f"x: is too large: found more, expected at most {LIMIT} bytes"):
        read_file("x", LIMIT)


def test_a_file_that_is_replaced_by_a_fifo_before_it_is_opened_is_refused(
    monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    os.mkfifo("x")
    (here / "y").write_bytes(b"y")
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **rest: real("y"))
    with limited(5), pytest.raises(InputError, match="x: is not a regular file"):
        read_file("x", LIMIT)


def test_a_refused_file_is_closed_again(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    os.mkfifo("x")
    real, before = os.stat, os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "stat", lambda path, **rest: real(__file__))
    with pytest.raises(InputError):
        open_regular("x")
    assert os.listdir("/proc/self/fd") == before


def test_standard_input_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"x" * (LIMIT + 1))))
    with pytest.raises(InputError, match=f"-: the list is too large: found more, expected at most {LIMIT} bytes"):
        read_input("-", LIMIT, "the list")


def test_standard_input_that_is_closed_or_fails_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="-: cannot be read: there is no standard input"):
        read_input("-", LIMIT)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.FileIO("/proc/self/mem")))
    with pytest.raises(InputError, match="-: cannot be read: Input/output error"):
        read_input("-", LIMIT)


# -- every option that names a file ------------------------------------------------------------------------------------

KERNEL = str(MINI / "vmlinux-callops")
MODULE = str(MINI / "mini.ko")
ARGUMENTS = {
    "scan FILE": ("scan", "x"),
    "scan @file": ("scan", KERNEL, "--func", "@x"),
    "scan !@file": ("scan", KERNEL, "--func", "!@x"),
    "enable FILE": ("enable", "x", "--func", "vfs_read", "-o", "out"),
    "enable @file": ("enable", KERNEL, "--func", "@x", "-o", "out"),
    "enable --stub-asm": ("enable", MODULE, "--func", "*", "--stub-asm", "x", "-o", "out"),
    "enable --against": ("enable", MODULE, "--func", "*", "--hook", "dump_stack", "--against", "x", "-o", "out"),
    "enable --sign KEY": ("enable", MODULE, "--func", "*", "--sign", "x", "x", "-o", "out"),
    "disable FILE": ("disable", "x", "--func", "vfs_read", "-o", "out"),
    "drop @file": ("drop", KERNEL, "--all-but", "@x", "-o", "out"),
    "restore FILE": ("restore", "x", "--journal", "x", "-o", "out"),
    "restore --journal": ("restore", KERNEL, "--journal", "x", "-o", "out"),
    "verify BEFORE": ("verify", "x", KERNEL),
    "verify AFTER": ("verify", KERNEL, "x"),
    "verify --journal": ("verify", KERNEL, KERNEL, "--journal", "x"),
    "check FILE": ("check", "x"),
    "check --config": ("check", KERNEL, "--config", "x"),
    "check --baseline": ("check", KERNEL, "--baseline", "x"),
    "check --kconfig": ("check", KERNEL, "--kconfig", "x"),
    "check --against": ("check", KERNEL, "--against", "x"),
    "diff OLD": ("diff", "x", KERNEL),
    "diff NEW": ("diff", KERNEL, "x"),
    "explain FILE": ("explain", "vfs_read", "x"),
    "explain @file": ("explain", "@x", KERNEL),
    "explain --splat": ("explain", "--splat", "x"),
    "explain --splat FILE": ("explain", "--splat", "log", "x"),
    "image VMLINUX": ("image", "x", "-o", "out"),
    "symbols FILE": ("symbols", "x"),
}


@pytest.mark.parametrize("option", ARGUMENTS)
@pytest.mark.parametrize("kind", ["fifo", "socket", "zero"])
def test_no_option_waits_for_what_is_no_regular_file(option: str, kind: str, here: Path, capsys: Capture) -> None:
    next(make for name, make, _ in IRREGULAR if name == kind)(here / "x")
    (here / "log").write_text("ftrace failed to modify\n [<c0>] vfs_read+0x4/0x8\n")
    with limited(20):
        code = run(list(ARGUMENTS[option]))
    captured = capsys.readouterr()
    assert (code, captured.out) == (3, "")
    assert captured.err.startswith("ftpatch: x: ") and captured.err.endswith(f"{NOT_REGULAR}\n")
    assert captured.err.count("\n") == 1
    assert not (here / "out").exists()
