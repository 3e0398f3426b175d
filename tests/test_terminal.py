"""What a terminal gets: colours, a pager, tables that fit. Each run here has a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pytest

from ftpatch.cli import run
from ftpatch.cli.terminal import is_colored
from ftpatch.report.text.fitting import cells, cut

ROOT = Path(__file__).resolve().parents[1]
MINI = ROOT / "testdata/mini"
FILE = str(MINI / "vmlinux-callops")
PYTHON = [sys.executable, "-B", "-m", "ftpatch"]
N_SITES = 19  # rows of the table of FILE
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"  # the cursor


def environment(more: Mapping[str, str]) -> dict[str, str]:
    usual = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "TERM": "xterm", "HOME": "/nonexistent"}
    return {**usual, **more}


def on_terminal(
    *arguments: str,
    columns: int = 80,
    rows: int = 24,
    keys: Sequence[tuple[bytes, bytes]] = (),
    variables: Mapping[str, str] = MappingProxyType({}),
) -> tuple[int, str]:
    """Exit code of a run on a terminal of its own, and all that this showed.

    keys: (text to wait for, what is typed then), each; variables: of the environment.
    """
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(
        [*PYTHON, *arguments], stdin=follower, stdout=follower, stderr=follower, env=environment(variables),
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(follower)
    shown, waiting = b"", list(keys)
    while True:
        try:
            piece = os.read(leader, 1 << 16)
        except OSError:  # nobody has the terminal open any more
            break
        if not piece:
            break
        shown += piece
        if waiting and waiting[0][0] in shown:
            os.write(leader, waiting.pop(0)[1])
    os.close(leader)
    return process.wait(timeout=60), shown.decode().replace("\r\n", "\n")


def on_pipe(*arguments: str, **more: str) -> str:
    return subprocess.run(
        [*PYTHON, *arguments], env=environment(more), capture_output=True, text=True, check=True, timeout=60
    ).stdout


# -- colours -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "variables", "colored"),
    [
        ("auto", {}, False),  # no terminal
        ("auto", {"FORCE_COLOR": "1"}, True),
        ("auto", {"CLICOLOR_FORCE": "1"}, True),
        ("auto", {"CLICOLOR_FORCE": "0"}, False),
        ("auto", {"FORCE_COLOR": ""}, False),
        ("auto", {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ("never", {"FORCE_COLOR": "1"}, False),
        ("always", {"NO_COLOR": "1"}, True),
    ],
)
def test_who_decides_about_colours(option: str, variables: dict[str, str], colored: bool) -> None:
    assert is_colored(option, variables) == colored


@pytest.mark.parametrize(
    ("variables", "colored"),
    [({}, True), ({"TERM": "dumb"}, False), ({"NO_COLOR": "1"}, False), ({"CLICOLOR": "0"}, False),
     ({"TERM": "dumb", "FORCE_COLOR": "1"}, True)],
)  # fmt: skip
def test_a_terminal_gets_colours_where_it_can_show_them(variables: dict[str, str], colored: bool) -> None:
    code, shown = on_terminal("scan", FILE, variables=variables)
    assert code == 0
    assert ("\x1b[" in shown) == colored


# -- the pager ---------------------------------------------------------------------------------------------------------

LONG = ("scan", "--sites", FILE)  # 28 lines


def test_a_report_that_fits_starts_no_pager() -> None:
    assert "PAGED" not in on_terminal("scan", FILE, variables={"FTPATCH_PAGER": "sed s/^/PAGED/"})[1]
    assert "PAGED" not in on_terminal(*LONG, rows=100, columns=200, variables={"FTPATCH_PAGER": "sed s/^/PAGED/"})[1]


def test_a_long_report_goes_through_the_pager_with_its_colours() -> None:
    code, shown = on_terminal(*LONG, variables={"FTPATCH_PAGER": "sed s/^/PAGED/"})
    assert code == 0
    assert shown.startswith("PAGED\x1b[1m")
    assert shown.count("PAGED") == shown.count("\n") > N_SITES


@pytest.mark.parametrize(
    ("variables", "paged"),
    [
        ({"FTPATCH_PAGER": "sed s/^/PAGED/", "PAGER": "cat"}, True),
        ({"PAGER": "sed s/^/PAGED/"}, True),
        ({"PAGER": "sed s/^/PAGED/ | cat"}, True),
        ({"FTPATCH_PAGER": "", "PAGER": "sed s/^/PAGED/"}, False),
        ({"FTPATCH_PAGER": "cat", "PAGER": "sed s/^/PAGED/"}, False),
        ({"PAGER": "sed s/^/PAGED/", "TERM": "dumb"}, False),
        ({"PAGER": "no-such-pager"}, False),
        ({"PAGER": "no-such-pager | "}, False),
        ({"PAGER": "no-such-pager 'x'"}, False),
        ({"PATH": "/nonexistent"}, False),  # and so no less
    ],
)
def test_which_pager_it_is(variables: dict[str, str], paged: bool) -> None:
    """Where none is found, the report comes without."""
    code, shown = on_terminal(*LONG, variables=variables)
    assert code == 0
    assert ("PAGED" in shown) == paged
    assert "a_setup" in shown.splitlines()[-1]


def test_no_pager_where_the_user_wants_none_or_nobody_looks() -> None:
    assert "PAGED" not in on_terminal(*LONG, "--no-pager", variables={"PAGER": "sed s/^/PAGED/"})[1]
    assert "PAGED" not in on_pipe(*LONG, PAGER="sed s/^/PAGED/")


def test_a_pager_that_is_closed_early_changes_no_exit_code(tmp_path: Path) -> None:
    """With far more text than a pipe holds, which would end the run by SIGPIPE else."""
    code, shown = on_terminal("scan", "--sites", *[FILE] * 200, variables={"PAGER": "head -n 2"})
    assert (code, shown.count("\n")) == (0, 2)
    damaged = tmp_path / "no"
    damaged.touch()
    assert on_terminal("scan", "--sites", *[FILE] * 200, str(damaged), variables={"PAGER": "head -n 2"})[0] == 3


def test_ctrl_c_is_for_the_pager_alone(tmp_path: Path) -> None:
    script = tmp_path / "pager"
    script.write_text("#!/bin/sh\nkill -INT $PPID\nsed s/^/PAGED/\n")
    script.chmod(0o755)
    code, shown = on_terminal(*LONG, variables={"PAGER": str(script)})
    assert code == 0
    assert shown.count("PAGED") > N_SITES


def test_less_is_told_what_git_tells_it(tmp_path: Path) -> None:
    script = tmp_path / "pager"
    script.write_text('#!/bin/sh\necho "LESS=$LESS"\ncat >/dev/null\n')
    script.chmod(0o755)
    assert on_terminal(*LONG, variables={"PAGER": str(script)}) == (0, "LESS=FRX\n")
    assert on_terminal(*LONG, variables={"PAGER": str(script), "LESS": "S"}) == (0, "LESS=S\n")


@pytest.mark.programs
def test_less_shows_a_screen_and_ends_with_q(programs: None) -> None:
    assert shutil.which("less")
    code, shown = on_terminal(*LONG, keys=[(b"init_once", b"q")])
    assert code == 0
    assert "start_kernel" not in shown  # of the second screen
    assert re.search(r"\x1b\[1m\S+vmlinux-callops\x1b\[0m", shown)


# -- tables ------------------------------------------------------------------------------------------------------------


def widest(shown: str) -> int:
    return max(cells(line) for line in shown.split("\n"))


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
@pytest.mark.parametrize(
    "arguments",
    [
        ("scan", "--sites", "vmlinux-callops"), ("scan", "--sites", "."), ("explain", "vfs_read", "vmlinux-callops"),
        ("static-calls", "--key", "*", "--sites", "../static_calls/vmlinux"), ("symbols", "vmlinux-callops"),
        ("check", ".", "--exit-zero"),
        ("check", "vmlinux-callops", "vmlinux-kcfi"), ("scan", "--units", "../x86_64/told.ko"),
        ("enable", "--func", "*", "--dry-run", "vmlinux-callops"), ("diff", "vmlinux-callops", "vmlinux-callops-bti"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_line_is_wider_than_the_terminal(
    arguments: tuple[str, ...], columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(MINI)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert run([*arguments, "--no-pager"]) in (0, 1)
    assert 0 < widest(capsys.readouterr().out) <= columns


def test_the_site_table_of_a_terminal() -> None:
    """Columns as wide as their cells; on a narrow one without file positions; names lose their middle."""
    rows = on_terminal(*LONG, "--no-pager", "--color", "never", columns=100)[1].split("\n")
    assert rows[-3:-1] == [
        " 17  0xffff800080010278  ready   .init.text+0x280  8832  start_kernel",
        " 18  0xffff800080010360  ready   .init.text+0x368  9064  a_setup",
    ]
    rows = on_terminal(*LONG, "--no-pager", "--color", "never", columns=62)[1].split("\n")
    assert rows[-3:-1] == [
        " 17  0xffff800080010278  ready   .init.text+0x280  start…ernel",
        " 18  0xffff800080010360  ready   .init.text+0x368  a_setup",
    ]
    rows = on_pipe(*LONG, COLUMNS="62").split("\n")  # as ever
    assert rows[-2] == "    18  0xffff800080010360  ready          .init.text+0x368                9064  a_setup"


def test_a_status_that_breaks_a_kernel_is_red(tmp_path: Path) -> None:
    enabled = str(tmp_path / "enabled")
    subprocess.run([*PYTHON, "enable", "--func", "b_late", FILE, "-o", enabled], env=environment({}), check=True,
                   capture_output=True)  # fmt: skip
    shown = on_terminal("scan", "--sites", enabled, "--no-pager", columns=100)[1]
    assert "  \x1b[32menabled\x1b[0m  " in shown
    assert "ready\x1b" not in shown


@pytest.mark.parametrize(
    ("name", "room", "shown"),
    [
        ("vfs_read", 8, "vfs_read"),
        ("vfs_read_write", 8, "vfs_…ite"),
        ("x" * 5000 + "end", 9, "xxxx…xend"),
        ("読み取り関数", 8, "読み…数"),  # each takes two columns
    ],
)
def test_a_name_loses_its_middle(name: str, room: int, shown: str) -> None:
    assert cut(name, room) == shown
    assert cells(shown) <= room


def test_names_of_any_length_are_cut_in_no_time() -> None:
    assert len(cut("x" * 1_000_000, 40)) == 40


def test_escape_sequences_of_names_reach_no_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31mb\x07"
    shutil.copyfile(FILE, path)
    shown = on_terminal("scan", str(path), "--color", "never")[1]
    assert "\x1b" not in shown and "\x07" not in shown
    assert "a\\x1b[31mb\\x07" in shown.replace("\n", "")


# -- progress ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def shown_by(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """A function: what a command line shows on a terminal that is stderr, where any work is long enough for a bar."""
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    for name in ("DELAY", "STEP"):
        monkeypatch.setattr(f"ftpatch.cli.progress.{name}", 0)
    for variable, value in {"TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(variable, value)
    for variable in ("COLUMNS", "LINES"):
        monkeypatch.delenv(variable, raising=False)

    def call(*arguments: str) -> str:
        with monkeypatch.context() as patch, open(os.dup(follower), "w") as terminal:
            patch.setattr(sys, "stderr", terminal)
            assert run(list(arguments)) == 0
        shown = b""
        while select.select([leader], [], [], 0.1)[0]:  # a terminal hands over what it has, in pieces
            shown += os.read(leader, 1 << 20)
        return shown.decode()

    yield call
    os.close(leader)
    os.close(follower)


def test_a_tree_has_a_bar_that_goes_away(shown_by: Callable[..., str], tmp_path: Path) -> None:
    for i in range(4):
        shutil.copyfile(MINI / "mini.ko", tmp_path / f"{i}.ko")
    shown = shown_by("scan", str(tmp_path), "--jobs", "1")
    assert re.search(r"modules .*4/4 ", shown)
    assert "\x1b[3" not in shown  # no colour
    assert HIDE in shown and shown.rindex(SHOW) > shown.rindex(HIDE)
    assert shown.endswith("\x1b[2K")  # the line is empty again


def test_a_proof_has_a_bar_of_sites(shown_by: Callable[..., str], tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert shown_by("enable", FILE, "--func", "vfs_*", "-o", out) == ""
    assert re.search(r"sites .*2/2 ", shown_by("verify", FILE, out))


def test_work_that_ends_soon_has_no_bar(shown_by: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftpatch.cli.progress.DELAY", 1e9)
    assert shown_by("scan", str(MINI)) == ""


def test_a_dumb_terminal_has_no_bar(shown_by: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert shown_by("scan", str(MINI)) == ""


def test_an_interrupted_run_gives_the_cursor_back(tmp_path: Path) -> None:
    """Ctrl-C is typed as soon as there is a bar."""
    shutil.copyfile(MINI / "mini.ko", tmp_path / "0.ko")
    for i in range(1, 16000):
        os.link(tmp_path / "0.ko", tmp_path / f"{i}.ko")
    code, shown = on_terminal("scan", str(tmp_path), "--jobs", "2", keys=[(HIDE.encode(), b"\x03")])
    assert code == 130
    assert shown.rindex(SHOW) > shown.rindex(HIDE)
    assert shown.endswith("ftpatch: interrupted; every file is whole, old or new\n")
