"""Signals from the first moment on: exit code 128 + n, at most one line, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from elfwriter import MINI

from ftpatch.signals import INTERRUPTED

ROOT = Path(__file__).resolve().parents[1]
SCRIPT, MODULE = [str(ROOT / "bin/ftpatch")], ["-m", "ftpatch"]
LINE = f"{INTERRUPTED}\n"
pytestmark = pytest.mark.alone

# Sends a signal to its own process when the n-th module is looked for, the first being ftpatch.
AT_IMPORT = """
import posix, sys
class Sends:
    n = 0
    def find_spec(self, name, path=None, target=None):
        Sends.n += name == "ftpatch" or Sends.n > 0
        if Sends.n == int(posix.environ[b"AT"]):
            Sends.n += 1
            posix.kill(posix.getpid(), int(posix.environ[b"SIGNAL"]))
sys.meta_path.insert(0, Sends())
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a kernel, which is also the current directory."""
    shutil.copyfile(MINI / "vmlinux-callops", tmp_path / "vmlinux")
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook/sitecustomize.py").write_text(AT_IMPORT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ended_at_import(program: list[str], at: int, signum: int) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a run that writes, and gets the signal at the import of that number."""
    done = subprocess.run(
        [sys.executable, "-B", *program, "enable", "vmlinux", "--func", "vfs_read", "-o", "out"],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": f"hook:{ROOT}", "AT": str(at), "SIGNAL": str(int(signum))},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 12, 25, 50, 90, 130, 180])
def test_ctrl_c_while_modules_are_loaded(at: int, here: Path) -> None:
    """Once a traceback through click or numpy, from Python's start to the end of the imports."""
    code, out, err = ended_at_import(SCRIPT, at, signal.SIGINT)
    assert (code, out, err) == (130, "", LINE if at > 4 else err)
    assert err in ("", LINE)  # the first few come before the program knows what to say
    assert sorted(os.listdir()) == ["hook", "vmlinux"]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE])
@pytest.mark.parametrize("at", [6, 120])
def test_other_signals_while_modules_are_loaded(at: int, signum: int, here: Path) -> None:
    assert ended_at_import(SCRIPT, at, signum) == (128 + signum, "", "")
    assert sorted(os.listdir()) == ["hook", "vmlinux"]


@pytest.mark.parametrize("at", [20, 100])
def test_python_m_ftpatch_is_the_same(at: int, here: Path) -> None:
    assert ended_at_import(MODULE, at, signal.SIGINT) == (130, "", LINE)


def test_the_program_ignores_what_its_starter_ignores(here: Path) -> None:
    """A shell's & and nohup; the run is done as if nothing had happened."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code, out, err = ended_at_import(SCRIPT, 60, signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, err) == (0, "")
    assert "out written and checked" in out


def ftpatch(*arguments: str) -> list[str]:
    return [sys.executable, "-B", *SCRIPT, *arguments]


ENV = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["scan", "--help"], ["check", "--list-rules"], ["--version"], ["scan", "vmlinux"],
                  ["enable", "vmlinux", "--func", "*", "-o", "out"]],
)  # fmt: skip
def test_without_a_reader_of_stdout_the_run_ends_as_by_sigpipe(arguments: list[str], here: Path) -> None:
    """What tells a pipeline under `pipefail` that the report is cut."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(ftpatch(*arguments), stdout=writing, stderr=subprocess.PIPE, env=ENV, timeout=60, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_without_a_reader_of_stderr_the_run_goes_on(here: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    (here / "out").write_bytes(b"old")
    os.link("out", "other")  # there is a remark on that
    arguments = ["enable", "vmlinux", "--func", "vfs_read", "-o", "out"]
    done = subprocess.run(ftpatch(*arguments), stdout=subprocess.PIPE, stderr=writing, env=ENV, timeout=60, check=False)
    os.close(writing)
    assert done.returncode == 0
    assert b"out written and checked" in done.stdout
    assert (here / "out").read_bytes() != b"old"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_emulator_does_not_outlive_the_run(signum: int, here: Path) -> None:
    """Here a program of its name that never ends."""
    (here / "qemu-ppc64le").write_text("#!/bin/sh\nwhile :; do :; done\n")
    (here / "qemu-ppc64le").chmod(0o755)
    kernel = str(ROOT / "testdata/mini-ppc64le/vmlinux-mprofile")
    env = {**ENV, "PATH": f"{here}:{os.environ['PATH']}"}
    assert subprocess.run(ftpatch("enable", kernel, "--func", "vfs_read", "-o", "out"), env=ENV).returncode == 0
    arguments = ftpatch("verify", kernel, "out", "--report", "json=report")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as run:
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
        deadline = time.monotonic() + 60
        while (
            not (pids := children.read_text().split()) or b"qemu" not in Path(f"/proc/{pids[0]}/cmdline").read_bytes()
        ):
            assert run.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        run.send_signal(signum)
        out, err = run.communicate(timeout=30)
    assert run.returncode == (-signum if signum == signal.SIGKILL else 128 + signum)
    assert (out, err) == (b"", LINE.encode() if signum == signal.SIGINT else b"")
    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/{pids[0]}/exe") and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not os.path.exists(f"/proc/{pids[0]}/exe")
    assert sorted(os.listdir()) == ["hook", "out", "qemu-ppc64le", "vmlinux"]
