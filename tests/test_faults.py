"""Faults: whatever happens to a run, every file is the old one or the new one, and nothing else stays.

Each test that says "at every call" counts the system calls of the writer, from the first file that it makes on, and
repeats the run with a fault at the first, the second, and so on. A SIGKILL hits a forked child, all else this process.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import lzma
import os
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from elfwriter import MINI

from ftpatch import cli, signals
from ftpatch.cli import run
from ftpatch.container import file_bytes
from ftpatch.elf.image import Image
from ftpatch.plan.edits import Edits
from ftpatch.write import contents as write_contents
from ftpatch.write import deliver, files, leftovers, system

ROOT = Path(__file__).resolve().parents[1]
FIXTURE = (MINI / "vmlinux-callops").read_bytes()
CALLS = ("open", "pwrite", "write", "copy_file_range", "fsync", "fchmod", "replace", "link", "unlink", "close")
TEMPORARY = re.compile(r"\.(.+)\.ftpatch-[0-9a-f]{16}")
OLD = b"what was there before\n"
NOBODY = 65534
ROOT_ONLY = "run as root"

pytestmark = pytest.mark.alone
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason=ROOT_ONLY)


@dataclass(frozen=True)
class Case:
    """A run: its arguments, the files that are there (name → content), and those that it writes."""

    arguments: tuple[str, ...]
    given: dict[str, bytes]
    written: tuple[str, ...]

    @property
    def in_place(self) -> bool:
        return "--in-place" in self.arguments


VMLINUX = {"vmlinux": FIXTURE}
READ = ("enable", "vmlinux", "--func", "vfs_read")
CASES = {
    "new output": Case((*READ, "-o", "out", "--report", "json=journal"), VMLINUX, ("out", "journal")),
    "old output": Case(
        (*READ, "-o", "out", "--report", "json=journal", "--report", "csv=table"),
        {**VMLINUX, "out": OLD, "journal": OLD},
        ("out", "journal", "table"),
    ),
    "in place": Case((*READ, "--in-place"), VMLINUX, ("vmlinux", "vmlinux.ftpatch.json")),
    "in place, old journal": Case(
        (*READ, "--in-place", "--report", "json=journal"), {**VMLINUX, "journal": OLD}, ("vmlinux", "journal")
    ),
    "image": Case(("image", "vmlinux", "-o", "out"), {**VMLINUX, "out": OLD}, ("out",)),
    "symbols": Case(
        ("symbols", "vmlinux.xz", "-o", "out", "--report", "json=list"),
        {"vmlinux.xz": lzma.compress(FIXTURE, check=lzma.CHECK_CRC32), "out": OLD, "list": OLD},
        ("out", "list"),
    ),
    "module in place": Case(
        ("enable", "mini.ko.xz", "--func", "*", "--in-place"),
        {"mini.ko.xz": lzma.compress((MINI / "mini.ko").read_bytes(), check=lzma.CHECK_CRC32)},
        ("mini.ko.xz", "mini.ko.xz.ftpatch.json"),
    ),
}
EVERY = pytest.mark.parametrize("name", CASES)
SOME = pytest.mark.parametrize("name", ["old output", "in place", "in place, old journal", "image"])
NAMELESS = pytest.mark.parametrize("nameless", [True, False], ids=["nameless", "named"])
Left = tuple[tuple[str, ...], tuple[str, ...]]  # state of each file, files that a temporary was left of
_results: dict[str, dict[str, bytes]] = {}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is also the current directory; files are read as large ones are."""
    monkeypatch.setattr(file_bytes, "WHOLE", 0)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fill(folder: Path, case: Case) -> None:
    """The folder as the run finds it."""
    for path in folder.iterdir():
        path.unlink()
    for name, content in case.given.items():
        (folder / name).write_bytes(content)


def result(name: str, folder: Path) -> dict[str, bytes]:
    """What an undisturbed run makes of the folder: name → content."""
    if name not in _results:
        fill(folder, CASES[name])
        assert run(list(CASES[name].arguments)) == 0
        _results[name] = contents(folder)
        assert set(_results[name]) == {*CASES[name].given, *CASES[name].written}
    return _results[name]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def temporaries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if TEMPORARY.fullmatch(path.name))


class Faults:
    """The writer's system calls, each passed to `act` with its number and name before it is done; and once more, with
    the next number, when it was done, if `behind`."""

    def __init__(
        self, act: Callable[[int, str, tuple[Any, ...]], None], nameless: bool = True, behind: bool = False
    ) -> None:
        self.act, self.nameless, self.behind = act, nameless, behind
        self.n = 0
        self.real = {name: getattr(os, name) for name in CALLS}

    def wrapped(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            makes = name == "open" and args[1] & (os.O_CREAT | os.O_TMPFILE & ~os.O_DIRECTORY)
            if makes or self.n:
                self.n += 1
                self.act(self.n, name, args)
            if name == "open" and not self.nameless and args[1] & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            done = self.real[name](*args, **kwargs)
            if self.n and self.behind:
                self.n += 1
                self.act(self.n, name, args)
            return done

        return call

    def install(self) -> None:
        for name in CALLS:
            setattr(os, name, self.wrapped(name))

    def remove(self) -> None:
        for name, real in self.real.items():
            setattr(os, name, real)


@contextmanager
def faults(
    act: Callable[[int, str, tuple[Any, ...]], None], nameless: bool = True, behind: bool = False
) -> Iterator[Faults]:
    made = Faults(act, nameless, behind)
    made.install()
    try:
        yield made
    finally:
        made.remove()


def child(work: Callable[[], int | None], streams: int | None = None) -> int:
    """Do it in a forked child with silent streams; its wait status."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code: int | None = 99
        try:
            silent = os.open(os.devnull, os.O_RDWR)
            for fd in (1, 2):
                os.dup2(silent if streams is None else streams, fd)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            code = work()
        finally:
            os._exit(code or 0)
    return os.waitpid(pid, 0)[1]


def check_whole(folder: Path, name: str) -> dict[str, str]:
    """Every file is the old one or the new one; which of them, by name. A patched input has its journal."""
    case, new, now = CASES[name], result_of(name), contents(folder)
    found = {}
    for file in case.written:
        old = case.given.get(file)
        assert now.get(file) in (old, new[file]), f"{file} is a mixture"
        found[file] = "new" if now.get(file) == new[file] else "old"
    for file in case.given.keys() - set(case.written):
        assert now[file] == case.given[file]
    assert now.keys() <= {*case.given, *case.written, *temporaries(folder)}
    if case.in_place and found[case.written[0]] == "new":
        assert found[case.written[1]] == "new", "a patch that nothing can undo"
    return found


def result_of(name: str) -> dict[str, bytes]:
    return _results[name]


# -- killed --------------------------------------------------------------------------------------------------------


def killed_at(n: int, case: Case, nameless: bool) -> bool:
    """Whether a run of the case comes to its n-th call, where it is killed."""

    def kill(at: int, name: str, args: tuple[Any, ...]) -> None:
        if at == n:
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> int:
        Faults(kill, nameless).install()
        return run(list(case.arguments))

    status = child(work)
    assert status in (0, signal.SIGKILL)
    return status != 0


def check_next_run(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The next run says what it removes, and ends as the interrupted one would have."""
    case, left = CASES[name], temporaries(folder)
    found = check_whole(folder, name)
    if case.in_place and found[case.written[0]] == "new":
        assert left == []
        return
    for file in case.written[1:]:  # an in-place run does not replace a journal of its usual name
        (folder / file).unlink(missing_ok=True)
    capsys.readouterr()
    assert run(list(case.arguments)) == 0
    assert sorted(line for line in capsys.readouterr().err.splitlines() if "interrupted run" in line) == [
        f"ftpatch: {folder}/{one}: removed, left by an interrupted run" for one in left
    ]
    assert set(contents(folder)) == set(result_of(name))
    assert set(check_whole(folder, name).values()) == {"new"}


def kill_everywhere(name: str, nameless: bool, folder: Path, capsys: pytest.CaptureFixture[str]) -> set[Left]:
    """Kill the run at every call, and let another follow; what the killed runs left, all sorts of it."""
    result(name, folder)
    seen: set[Left] = set()
    n = 0
    fill(folder, CASES[name])
    while killed_at(n := n + 1, CASES[name], nameless):
        of = tuple(TEMPORARY.sub(r"\1", one) for one in temporaries(folder))
        left = tuple(check_whole(folder, name).values()), of
        if left not in seen:
            check_next_run(folder, name, capsys)
        seen.add(left)
        fill(folder, CASES[name])
    assert n > 5
    return seen


@EVERY
def test_killed_at_every_call_a_run_leaves_at_most_one_temporary_which_the_next_removes(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only a file that replaces another ever has a temporary name, for one call. Reports come first: a journal alone
    can undo its patch. Once an input in place was replaced before its journal had a name.
    """
    case = CASES[name]
    seen = kill_everywhere(name, True, here, capsys)
    assert {len(of) for _, of in seen} <= {0, 1}
    assert {one for _, of in seen for one in of} == case.given.keys() & set(case.written)
    between = {states for states, _ in seen if len(set(states)) > 1}
    assert all(states[0] == "old" for states in between)
    assert len(case.written) == 1 or ("old", *["new"] * (len(case.written) - 1)) in between


@pytest.mark.parametrize("name", ["old output", "in place"])
def test_where_no_file_is_nameless_a_killed_run_leaves_at_most_one_temporary_of_each_file(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """NFS, FAT, old overlays: O_TMPFILE is refused."""
    seen = kill_everywhere(name, False, here, capsys)
    assert all(len(of) == len(set(of)) for _, of in seen)
    assert {one for _, of in seen for one in of} == set(CASES[name].written)


@pytest.mark.skipif(shutil.which("strace") is None, reason="install strace")
@pytest.mark.parametrize("call", ["linkat:1", "linkat:2", "rename:1", "fsync:2"])
def test_killed_by_strace_in_the_real_program(call: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of the program is replaced: the kernel's side of the very system call."""
    what, when = call.split(":")
    name = "in place, old journal"
    result(name, here)
    fill(here, CASES[name])
    inject = f"inject={what}:signal=KILL:when={when}"
    command = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={what}", "-e", inject]
    command += [sys.executable, "-B", "-m", "ftpatch", *CASES[name].arguments]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60, env=environment())
    if b"PTRACE" in done.stderr or b"ptrace" in done.stderr:
        pytest.skip("needs the right to trace processes")
    assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert len(temporaries(here)) <= 1
    check_next_run(here, name, capsys)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


# -- signals -------------------------------------------------------------------------------------------------------


def main(
    arguments: tuple[str, ...], act: Callable[[int, str, tuple[Any, ...]], None], nameless: bool = True,
    behind: bool = False, ignored: int = 0,
) -> int:  # fmt: skip
    """The exit code of the program's `main`, signal handlers and all, in a child whose system calls meet `act`."""

    def work() -> int:
        for signum in signals.ENDING:
            signal.signal(signum, signal.SIG_IGN if signum == ignored else signal.SIG_DFL)
        sys.argv = ["ftpatch", *arguments]
        Faults(act, nameless, behind).install()
        try:
            cli.main()
        except SystemExit as ended:
            return int(ended.code or 0)
        raise AssertionError

    return os.waitstatus_to_exitcode(child(work))


@NAMELESS
@SOME
def test_a_signal_before_and_behind_every_call_leaves_no_temporary_and_no_half_of_a_run(
    name: str, nameless: bool, here: Path
) -> None:
    case = CASES[name]
    result(name, here)
    for n in range(1, 1000):
        fill(here, case)
        signum = signals.ENDING[n % len(signals.ENDING)]

        def send(at: int, call: str, args: tuple[Any, ...], n: int = n, signum: int = signum) -> None:
            if at == n:
                os.kill(os.getpid(), signum)

        code = main(case.arguments, send, nameless, behind=True)
        assert temporaries(here) == []
        assert len(set(check_whole(here, name).values())) == 1, "all files of a run, or none"
        if code == 0:  # it has fewer calls
            break
        assert code == 128 + signum, f"call {n}"
    assert n > 10


@pytest.mark.parametrize("signum", signals.ENDING, ids=lambda signum: signal.Signals(signum).name)
def test_each_signal_that_ends_a_process_is_caught(signum: int, here: Path) -> None:
    """Once only SIGTERM and SIGINT; SIGHUP, from a closed terminal, left the temporary."""
    fill(here, CASES["new output"])

    def send(at: int, call: str, args: tuple[Any, ...]) -> None:
        if call == "fsync":
            os.kill(os.getpid(), signum)

    assert main(CASES["new output"].arguments, send, nameless=False) == 128 + signum
    assert contents(here) == VMLINUX


def test_a_second_signal_does_not_disturb_the_cleaning(here: Path) -> None:
    """systemd sends SIGHUP behind SIGTERM; people press Ctrl-C twice."""
    fill(here, CASES["new output"])

    def send(at: int, call: str, args: tuple[Any, ...]) -> None:
        if call in ("fchmod", "unlink", "close"):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGINT)

    assert main(CASES["new output"].arguments, send, nameless=False) in (130, 143)
    assert contents(here) == VMLINUX


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_nohup_or_a_shell_ignores_stays_ignored(signum: int, here: Path) -> None:
    """What a script starts with & has SIGINT ignored."""
    fill(here, CASES["new output"])

    def send(at: int, call: str, args: tuple[Any, ...]) -> None:
        os.kill(os.getpid(), signum)

    assert main(CASES["new output"].arguments, send, ignored=signum) == 0


def test_a_signal_waits_while_files_get_their_names(here: Path) -> None:
    got: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        got.append(signum)

    before = signal.signal(signal.SIGTERM, note)
    try:
        with files.named([]):
            os.kill(os.getpid(), signal.SIGTERM)
            assert got == []
        assert got == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


# -- errors --------------------------------------------------------------------------------------------------------


@NAMELESS
@EVERY
def test_an_error_at_every_call_leaves_no_temporary_and_no_half_of_a_run(
    name: str, nameless: bool, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    result(name, here)
    n, calls = 0, 1
    codes = set()
    while (n := n + 1) <= calls:
        fill(here, case)
        number = (errno.ENOSPC, errno.EIO, errno.EDQUOT)[n % 3]
        failed: list[str] = []

        def fail(
            at: int, call: str, args: tuple[Any, ...], n: int = n, number: int = number, failed: list[str] = failed
        ) -> None:
            if at == n:
                reading = call == "open" and args[1] & os.O_ACCMODE == os.O_RDONLY
                failed.append("read back" if reading and re.search(r"/fd/|\.ftpatch-", str(args[0])) else call)
                if call == "close":
                    made.real["close"](*args)  # the descriptor is gone whatever close() says
                raise OSError(number, os.strerror(number))

        capsys.readouterr()
        with faults(fail, nameless) as made:
            code = run(list(case.arguments))
        out, err = capsys.readouterr()
        states = set(check_whole(here, name).values())
        assert temporaries(here) == []
        assert code in ((70,) if failed == ["read back"] else (0, 3)), err
        if code == 0:
            assert states == {"new"}
        else:
            assert out == ""
            assert [line for line in err.splitlines() if "warning:" not in line] == [err.splitlines()[-1]]
            assert os.strerror(number) in err
            late = "written, but its directory cannot be flushed" in err
            assert states == ({"new"} if late else {"old"})
        codes.add(code)
        calls = max(calls, made.n)
    assert {0, 3} <= codes and calls > 5


@SOME
def test_a_disk_that_is_full_from_some_call_on_leaves_whole_files(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything that takes space fails from then on, cleaning up included."""
    case = CASES[name]
    result(name, here)
    n, calls = 0, 1
    while (n := n + 1) <= calls:
        fill(here, case)

        def fail(at: int, call: str, args: tuple[Any, ...], n: int = n) -> None:
            if at >= n and call in ("pwrite", "write", "copy_file_range", "fsync", "link"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with faults(fail) as made:
            code = run(list(case.arguments))
        assert code in (0, 3)
        assert temporaries(here) == []
        found = check_whole(here, name)
        assert code or set(found.values()) == {"new"}
        calls = max(calls, made.n)


@pytest.mark.parametrize("limit", [0, 100, 20_000])
@EVERY
def test_a_file_size_limit_leaves_nothing(name: str, limit: int, here: Path) -> None:
    """A write that really fails, with EFBIG."""
    case = CASES[name]
    sizes = {file: len(content) for file, content in result(name, here).items() if file in case.written}
    fill(here, case)

    def work() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return run(list(case.arguments))

    code = os.waitstatus_to_exitcode(child(work))
    assert code == (3 if max(sizes.values()) > limit else 0)
    assert contents(here) == (case.given if code else result_of(name))


def test_a_file_size_limit_that_only_the_report_meets_leaves_no_output(here: Path) -> None:
    """The output fits, its journal does not."""
    arguments = ["enable", "mini.ko", "--func", "*", "-o", "out", "--report", "json=journal"]
    (here / "mini.ko").write_bytes((MINI / "mini.ko").read_bytes())
    assert run(arguments) == 0
    sizes = [(here / name).stat().st_size for name in ("out", "journal")]
    assert sizes[0] < sizes[1]
    for name in ("out", "journal"):
        (here / name).unlink()

    def work() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (sizes[0], sizes[0]))
        return run(arguments)

    assert os.waitstatus_to_exitcode(child(work)) == 3
    assert set(contents(here)) == {"mini.ko"}


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own, where we may mount one."""
    libc = ctypes.CDLL(None, use_errno=True)
    folder.mkdir()
    if libc.mount(b"none", os.fsencode(folder), b"tmpfs", 0, options.encode()):
        pytest.skip(f"run as root where mounting is allowed: {os.strerror(ctypes.get_errno())}")
    try:
        yield folder
    finally:
        assert libc.umount2(os.fsencode(folder), 2) == 0


@needs_root
@pytest.mark.parametrize("options", ["size=4k", "size=16k", "size=64k", "nr_inodes=2", "nr_inodes=3", "ro"])
@pytest.mark.parametrize("case", ["output", "image", "report"])
def test_a_disk_that_is_really_full_keeps_what_is_on_it(
    case: str, options: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "vmlinux").write_bytes(FIXTURE)
    with small_disk(here / "disk", options) as disk:
        if options != "ro":
            (disk / "out").write_bytes(OLD)  # takes a page and an inode
        before = contents(disk)
        code = run({
            "output": ["enable", "vmlinux", "--func", "vfs_read", "-o", "disk/out", "--report", "json=disk/journal"],
            "image": ["image", "vmlinux", "-o", "disk/out"],
            "report": ["scan", "vmlinux", "--sites", "--report", "json=disk/out"],
        }[case])  # fmt: skip
        out, err = capsys.readouterr()
        if code == 0:
            assert contents(disk).keys() == {"out", "journal"} if case == "output" else {"out"}
        else:
            assert (code, out, err.count("\n")) == (3, "", 1)
            assert re.search("No space left on device|Read-only file system", err)
            assert contents(disk) == before
        assert code == 3 or options not in ("size=4k", "ro", "nr_inodes=2")


@pytest.mark.parametrize("which", ["stdout", "stderr"])
def test_a_full_stream_changes_no_more_than_the_exit_code(which: str, here: Path) -> None:
    """Once a refusal on a full stderr was a traceback and exit 1."""
    fill(here, CASES["new output"])
    func = "vfs_read" if which == "stdout" else "no_such_function"
    command = [sys.executable, "-B", "-m", "ftpatch", "enable", "vmlinux", "--func", func, "-o", "out"]
    with open("/dev/full", "w") as full:
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, which: full}
        done = subprocess.run(command, check=False, text=True, timeout=60, env=environment(), **streams)
    if which == "stdout":
        assert (done.returncode, done.stderr) == (
            3, "ftpatch: stdout: the report cannot be written: No space left on device\n",
        )  # fmt: skip
        assert (here / "out").read_bytes() != FIXTURE
    else:
        assert (done.returncode, done.stdout) == (5, "")


# -- leftovers of others -------------------------------------------------------------------------------------------

STALE = ".out.ftpatch-0123456789abcdef"


def enable(*more: str) -> int:
    return run([*READ, "-o", "out", *more])


def test_a_leftover_is_named_and_removed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(here, CASES["new output"])
    (here / STALE).write_bytes(b"half a kernel")
    (here / STALE).chmod(0o400)
    assert enable() == 0
    assert capsys.readouterr().err == f"ftpatch: {here}/{STALE}: removed, left by an interrupted run\n"
    assert set(contents(here)) == {"vmlinux", "out"}


def test_a_leftover_of_a_report_is_removed_by_the_next_report_of_that_name(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(here, CASES["new output"])
    (here / ".r.ftpatch-0123456789abcdef").write_bytes(b"{")
    assert run(["scan", "vmlinux", "--report", "json=r"]) == 0
    assert capsys.readouterr().err.endswith("/.r.ftpatch-0123456789abcdef: removed, left by an interrupted run\n")
    assert set(contents(here)) == {"vmlinux", "r"}


def test_the_temporary_of_a_running_writer_is_left_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(here, CASES["new output"])
    with open(here / STALE, "wb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert enable() == 0
    assert capsys.readouterr().err == ""
    assert (here / STALE).exists()


@NAMELESS
def test_the_temporary_of_a_real_run_is_left_alone(
    nameless: bool, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A whole second run, at every call of the first; while that names its files, it waits for its turn, in vain."""
    case = CASES["old output"]
    result("old output", here)
    n, calls = 0, 1
    codes: list[int] = []
    monkeypatch.setattr(system, "TURNS", 1)
    while (n := n + 1) <= calls:
        fill(here, case)

        def other(at: int, call: str, args: tuple[Any, ...], n: int = n) -> None:
            if at == n:
                made.remove()
                codes.append(os.waitstatus_to_exitcode(child(lambda: run(list(case.arguments)))))
                made.install()

        capsys.readouterr()
        with faults(other, nameless) as made:
            assert run(list(case.arguments)) == 0
        assert capsys.readouterr().err == ""
        assert contents(here) == result_of("old output")
        calls = max(calls, made.n)
    assert set(codes) == {0, 3}
    assert re.fullmatch("0+3+0+", "".join(map(str, codes)))


@pytest.mark.parametrize("kind", ["symlink", "directory", "fifo", "socket", "other user's"])
def test_what_only_looks_like_a_leftover_is_left_alone(
    kind: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(here, CASES["new output"])
    stale = here / STALE
    (here / "precious").write_bytes(OLD)
    if kind == "symlink":
        stale.symlink_to("precious")
    elif kind == "directory":
        stale.mkdir()
    elif kind == "fifo":
        os.mkfifo(stale)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(STALE)
    else:
        if os.geteuid() != 0:
            pytest.skip(ROOT_ONLY)
        stale.write_bytes(OLD)
        os.chown(stale, NOBODY, NOBODY)
    assert enable() == 0
    assert capsys.readouterr().err == ""
    assert os.path.lexists(stale)
    assert (here / "precious").read_bytes() == OLD


@needs_root
def test_a_leftover_that_had_the_owner_of_the_old_file_is_removed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found by the campaign: killed behind fchown, root's run left what the next took for somebody else's file."""
    fill(here, CASES["old output"])
    for name in ("out", STALE):
        (here / name).write_bytes(OLD)
        os.chown(here / name, NOBODY, NOBODY)
    assert enable() == 0
    assert capsys.readouterr().err == f"ftpatch: {here}/{STALE}: removed, left by an interrupted run\n"
    assert temporaries(here) == []


@pytest.mark.parametrize(
    "name", [".out.ftpatch-original", ".out.ftpatch-0123456789ABCDEF", "out.ftpatch-0123456789abcdef",
             ".out.ftpatch-0123456789abcdef0", ".out.ftpatch.json.ftpatch-0123456789abcdef",
             ".ouT.ftpatch-0123456789abcdef"]
)  # fmt: skip
def test_files_of_other_names_are_left_alone(name: str, here: Path) -> None:
    fill(here, CASES["new output"])
    (here / name).write_bytes(OLD)
    assert enable() == 0
    assert (here / name).read_bytes() == OLD


@NAMELESS
def test_without_locks_a_leftover_is_left_and_named(
    nameless: bool, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some network file systems have no flock: nothing proves that the writer is gone."""
    fill(here, CASES["new output"])
    (here / STALE).write_bytes(b"half a kernel")

    def none(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with faults(lambda *args: None, nameless):
        assert enable() == 0
    assert capsys.readouterr().err == (
        f"ftpatch: {here}/{STALE}: left alone: this file system has no locks, "
        "which tell whether its writer still runs\n"
    )
    assert set(contents(here)) == {"vmlinux", "out", STALE}


def test_a_leftover_that_cannot_be_removed_is_named(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(here, CASES["new output"])
    (here / STALE).write_bytes(b"half a kernel")

    def refuse(path: str) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "unlink", refuse)
    assert enable() == 0
    assert capsys.readouterr().err == (
        f"ftpatch: {here}/{STALE}: left by an interrupted run, and cannot be removed: Operation not permitted\n"
    )


def test_a_temporary_that_another_run_took_for_a_leftover_is_made_anew(here: Path) -> None:
    """Between its creation and its lock, a temporary looks like one that nobody writes."""
    fill(here, CASES["new output"])
    hit: list[int] = []
    real = fcntl.flock

    def late(fd: int, operation: int) -> None:
        if not hit:
            hit.append(fd)
            notes: list[str] = []
            leftovers.sweep(str(here / "out"), notes.append)
            assert len(notes) == 1
        real(fd, operation)

    with faults(lambda *args: None, nameless=False), pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", late)
        assert enable() == 0
    assert set(contents(here)) == {"vmlinux", "out"}


# -- modes ---------------------------------------------------------------------------------------------------------


@NAMELESS
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o444])
def test_the_temporary_is_never_open_to_more_people_than_the_input(mode: int, nameless: bool, here: Path) -> None:
    fill(here, CASES["new output"])
    (here / "vmlinux").chmod(mode)
    seen: set[int] = set()

    def look(at: int, call: str, args: tuple[Any, ...]) -> None:
        if call in ("pwrite", "copy_file_range", "fsync", "link", "replace"):
            fd = next((one for one in args if isinstance(one, int)), None) if call in ("pwrite", "fsync") else args[1]
            if isinstance(fd, int) and stat.S_ISREG(os.fstat(fd).st_mode):
                seen.add(stat.S_IMODE(os.fstat(fd).st_mode))

    with faults(look, nameless):
        assert enable() == 0
    assert {0o600, mode} == seen
    assert stat.S_IMODE((here / "out").stat().st_mode) == mode


def test_a_set_id_bit_is_not_passed_on(here: Path) -> None:
    """The result belongs to whoever runs ftpatch: a setuid input of another user would become a setuid file of root."""
    fill(here, CASES["new output"])
    (here / "vmlinux").chmod(0o6755)
    assert enable() == 0
    assert stat.S_IMODE((here / "out").stat().st_mode) == 0o755


# -- several runs at once ------------------------------------------------------------------------------------------


def test_of_runs_with_one_output_the_last_wins_and_the_file_is_whole(here: Path) -> None:
    fill(here, CASES["new output"])
    whole = []
    for func in ("vfs_read", "vfs_*"):
        assert run(["enable", "vmlinux", "--func", func, "-o", "one"]) == 0
        whole.append((here / "one").read_bytes())
    command = [sys.executable, "-B", "-m", "ftpatch", "enable", "vmlinux", "-o", "out", "--func"]
    runs = [
        subprocess.Popen([*command, func], env=environment(), stdout=subprocess.DEVNULL)
        for func in ("vfs_read", "vfs_*") * 2
    ]
    assert [one.wait(60) for one in runs] == [0, 0, 0, 0]
    assert whole[0] != whole[1]
    assert (here / "out").read_bytes() in whole
    assert temporaries(here) == []


def test_output_and_journal_are_of_one_run(here: Path) -> None:
    """Two runs with the same names: once the output could be of one, and the journal of the other, so that nothing
    could be undone. The second is started where the first has named its journal, and not its output.
    """
    fill(here, CASES["new output"])
    command = [sys.executable, "-B", "-m", "ftpatch", "enable", "vmlinux", "-o", "out", "--report", "json=journal"]
    started: list[subprocess.Popen[bytes]] = []

    def other(at: int, call: str, args: tuple[Any, ...]) -> None:
        if call == "link" and args[1] == os.path.realpath("out"):
            started.append(
                subprocess.Popen([*command, "--func", "vfs_*"], env=environment(), stdout=subprocess.DEVNULL)
            )
            with pytest.raises(subprocess.TimeoutExpired):
                started[0].wait(2)

    with faults(other):
        assert run([*command[4:], "--func", "vfs_read"]) == 0
    assert started[0].wait(60) == 0
    assert run(["restore", "out", "--journal", "journal", "-o", "back"]) == 0
    assert (here / "back").read_bytes() == FIXTURE


def test_a_run_does_not_wait_for_ever_for_its_turn(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever may read a folder can hold its lock. Only what belongs together waits: an output alone does not."""
    fill(here, CASES["new output"])
    monkeypatch.setattr(system, "TURNS", 2)
    folder = os.open(here, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    assert enable("--report", "json=journal") == 3
    assert capsys.readouterr() == (
        "", f"ftpatch: {here}: another run gives files their names here, and does not end – nothing was written; "
        "run again\n",
    )  # fmt: skip
    assert contents(here) == VMLINUX
    assert enable() == 0
    os.close(folder)


@pytest.mark.parametrize(
    ("name", "number"), [*((name, errno.EPERM) for name in CASES), *(("old output", n) for n in files.NO_LINK[1:])]
)
def test_where_a_nameless_file_gets_no_name_it_is_copied(
    name: str, number: int, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Containers, some overlays, fs.protected_hardlinks: O_TMPFILE works, and linkat() does not."""
    result(name, here)
    fill(here, CASES[name])

    def refuse(at: int, call: str, args: tuple[Any, ...]) -> None:
        if call == "link":
            raise OSError(number, os.strerror(number))

    with faults(refuse):
        assert run(list(CASES[name].arguments)) == 0
    assert contents(here) == result_of(name)
    assert {stat.S_IMODE(path.stat().st_mode) for path in here.iterdir()} == {0o644}
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("in_place", [True, False])
def test_a_journal_whose_output_was_never_named_is_told_by_restore_and_verify(
    in_place: bool, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kill between both: the journal is there, and the file is the one before."""
    fill(here, CASES["new output"])
    assert enable("--report", "json=old") == 0
    where = "--in-place" if in_place else "-oout"

    def kill(at: int, call: str, args: tuple[Any, ...]) -> None:
        if call == "replace":
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> int:
        Faults(kill).install()
        return run(["enable", "vmlinux", "--func", "vfs_write", where, "--report", "json=journal"])

    assert child(work) == signal.SIGKILL
    capsys.readouterr()
    file = "vmlinux" if in_place else "out"
    assert run(["restore", file, "--journal", "journal", "-o", "back"]) == 5
    told = capsys.readouterr().err
    if in_place:
        assert told == "ftpatch: vmlinux: is what the journal's patch started from – there is nothing to undo\n"
        assert run(["verify", "vmlinux", "vmlinux", "--journal", "journal"]) == 1
        findings = [line for line in capsys.readouterr().out.splitlines() if "verify-journal" in line]
        assert findings == [
            "    verify-journal: vmlinux is what the journal's patch started from: its run was killed before the file "
            "had its name, or the patch was undone"
        ]
    else:
        assert told.endswith("; or of an earlier run, if that of the journal was killed: patch again\n")
        assert run(["restore", "out", "--journal", "old", "-o", "back"]) == 0
    assert run(["enable", "vmlinux", "--func", "vfs_write", where, "--report", "json=journal"]) == 0
    assert run(["restore", file, "--journal", "journal", "-o", "again"]) == 0


def in_place(func: str, journal: str | None = None) -> Callable[[], int]:
    more = [] if journal is None else ["--report", f"json={journal}"]
    return lambda: run(["enable", "vmlinux", "--func", func, "--in-place", *more])


def test_an_input_that_another_run_replaced_meanwhile_is_not_replaced(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two runs read the same file, and one is done before the other begins to write: once its patch was lost, and its
    journal with it.
    """
    fill(here, CASES["in place"])
    real = deliver.write_result

    def late(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(deliver, "write_result", real)
        assert child(in_place("vfs_write")) == 0
        return real(*args, **kwargs)

    monkeypatch.setattr(deliver, "write_result", late)
    assert in_place("vfs_read")() == 3
    assert capsys.readouterr() == (
        "", "ftpatch: vmlinux: changed while it was patched: found other bytes – nothing was written; run again\n",
    )  # fmt: skip
    journal = json.loads((here / "vmlinux.ftpatch.json").read_text())["images"][0]
    assert [site["function"] for site in journal["sites"]] == ["vfs_write"]
    assert set(contents(here)) == {"vmlinux", "vmlinux.ftpatch.json"}


def test_a_run_in_place_refuses_while_another_is_at_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(here, CASES["in place"])
    codes: list[int] = []
    real = write_contents.write

    def late(image: Image, edits: Edits, fd: int) -> None:
        codes.append(os.waitstatus_to_exitcode(child(in_place("vfs_write", "other"))))
        real(image, edits, fd)

    monkeypatch.setattr(write_contents, "write", late)
    assert in_place("vfs_read")() == 0
    assert codes == [3]
    assert contents(here) == result("in place", here)


@pytest.mark.parametrize("how", ["replaced", "replaced by the same", "written into", "removed"])
def test_an_input_that_changes_behind_the_check_is_not_replaced(
    how: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An editor, a build: they know nothing of locks. The journal is taken back."""
    fill(here, CASES["in place"])
    real = deliver._hashes

    def late(before: Image, after: Image) -> tuple[str, str, str]:
        found = real(before, after)
        if how == "written into":
            with open("vmlinux", "r+b") as file:
                file.write(FIXTURE[:4])
            os.utime("vmlinux", ns=(1, 1))
        elif how == "removed":
            os.unlink("vmlinux")
        else:
            (here / "new").write_bytes(OLD if how == "replaced" else FIXTURE)
            os.rename("new", "vmlinux")
        return found

    monkeypatch.setattr(deliver, "_hashes", late)
    assert in_place("vfs_read")() == 3
    out, err = capsys.readouterr()
    assert out == ""
    what = "No such file or directory" if how == "removed" else "another file, size or time"
    assert err == f"ftpatch: vmlinux: changed while it was patched: found {what} – nothing was written; run again\n"
    assert contents(here) == {"replaced": {"vmlinux": OLD}, "removed": {}}.get(how, VMLINUX)


def test_of_many_runs_in_place_no_patch_is_lost(here: Path) -> None:
    """Whoever succeeded is in the file, whoever did not said so."""
    fill(here, CASES["in place"])
    command = [sys.executable, "-B", "-m", "ftpatch", "enable", "vmlinux", "--in-place", "--func"]
    functions = ("vfs_read", "vfs_write")
    runs = {
        func: subprocess.Popen(
            [*command, func, "--report", f"json={func}"],
            env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        ) for func in functions
    }  # fmt: skip
    codes = {}
    for func, one in runs.items():
        one.communicate(timeout=60)
        codes[func] = one.returncode
    assert 0 in codes.values() and set(codes.values()) <= {0, 3}
    assert set(contents(here)) == {"vmlinux", *(func for func in functions if codes[func] == 0)}
    assert run(["scan", "vmlinux", "--status", "enabled", "--report", "json=r"]) == 0
    found = {site["function"] for site in json.loads((here / "r").read_text())["images"][0]["sites"]}
    assert found == {func for func in functions if codes[func] == 0}


# -- places --------------------------------------------------------------------------------------------------------


def symlink_loop(here: Path) -> tuple[str, int, str]:
    (here / "a").symlink_to("b")
    (here / "b").symlink_to("a")
    return "a", 3, "a: cannot be written: Too many levels of symbolic links"


def symlink_into_nowhere(here: Path) -> tuple[str, int, str]:
    (here / "a").symlink_to("no/where")
    return "a", 2, "a: the output's directory does not exist – make it first, or name another"


def below_a_file(here: Path) -> tuple[str, int, str]:
    return "vmlinux/out", 2, "vmlinux/out: the output's directory is not a directory"


def trailing_slash(here: Path) -> tuple[str, int, str]:
    return "new/", 2, "new/: the output has the name of a directory"


def trailing_dot(here: Path) -> tuple[str, int, str]:
    return "new/.", 2, "new/.: the output has the name of a directory"


def name_of_256(here: Path) -> tuple[str, int, str]:
    return "n" * 256, 3, "n" * 256 + ": cannot be written: File name too long"


def unix_socket(here: Path) -> tuple[str, int, str]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("sock")
    return "sock", 2, "sock: the output is not a regular file – name a file"


def symlink_to_a_directory(here: Path) -> tuple[str, int, str]:
    (here / "a").symlink_to(".")
    return "a", 2, "a: the output is not a regular file – name a file"


def symlink_to_a_device(here: Path) -> tuple[str, int, str]:
    (here / "a").symlink_to("/dev/full")
    return "a", 2, "a: the output is not a regular file – name a file"


@pytest.mark.parametrize("verb", ["enable", "image"])
@pytest.mark.parametrize(
    "place",
    [
        symlink_loop, symlink_into_nowhere, below_a_file, trailing_slash, trailing_dot, name_of_256, unix_socket,
        symlink_to_a_directory, symlink_to_a_device,
    ],
)  # fmt: skip
def test_a_place_that_takes_no_output_is_refused(
    place: Callable[[Path], tuple[str, int, str]], verb: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(here, CASES["new output"])
    out, code, message = place(here)
    before = sorted(os.listdir(here))
    arguments = ["--func", "vfs_read"] if verb == "enable" else []
    assert run([verb, "vmlinux", *arguments, "-o", out]) == code
    assert capsys.readouterr() == ("", f"ftpatch: {message}\n")
    assert sorted(os.listdir(here)) == before


def test_an_image_needs_the_name_of_a_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(here, CASES["new output"])
    assert run(["image", "vmlinux", "-o", ""]) == 2
    assert capsys.readouterr().err == "ftpatch: the output has the name of a directory\n"


@pytest.mark.parametrize("place", [symlink_loop, below_a_file, trailing_slash, name_of_256, unix_socket])
def test_a_place_that_takes_no_report_is_refused_and_no_output_is_left(
    place: Callable[[Path], tuple[str, int, str]], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(here, CASES["new output"])
    report, code, message = place(here)
    before = sorted(os.listdir(here))
    assert enable("--report", f"json={report}") == code
    assert capsys.readouterr() == ("", f"ftpatch: {message.replace('the output', 'the report')}\n")
    assert sorted(os.listdir(here)) == before


@NAMELESS
@pytest.mark.parametrize("name", ["n" * 255, "ä" * 127 + "n", "n" * 245])
def test_a_name_as_long_as_the_file_system_allows_works(
    name: str, nameless: bool, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once the temporary's name was longer than OUT's, and too long."""
    fill(here, CASES["new output"])
    with faults(lambda *args: None, nameless):
        for _ in range(2):
            assert run([*READ, "-o", name]) == 0
    assert set(contents(here)) == {"vmlinux", name}
    made = os.path.basename(leftovers.temporary_name(str(here / name)))
    assert len(os.fsencode(made)) <= 255
    (here / made).write_bytes(b"")
    capsys.readouterr()
    assert run([*READ, "-o", name]) == 0
    assert capsys.readouterr().err.endswith(": removed, left by an interrupted run\n")


def test_a_symlink_into_another_file_system_is_followed(here: Path) -> None:
    fill(here, CASES["new output"])
    if not os.access("/dev/shm", os.W_OK) or os.stat("/dev/shm").st_dev == here.stat().st_dev:
        pytest.skip("needs a writable /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as away:
        (here / "out").symlink_to(f"{away}/kernel")
        for _ in range(2):
            assert enable() == 0
            assert os.listdir(away) == ["kernel"]
        assert (here / "out").is_symlink()
        assert set(contents(here)) == {"vmlinux", "out"}


@pytest.mark.parametrize("verb", ["enable", "image"])
def test_a_current_directory_that_is_gone_is_a_usage_error(verb: str, here: Path) -> None:
    """Once a traceback."""
    fill(here, CASES["new output"])
    said = here / "said"

    def work() -> int:
        gone = here / "gone"
        gone.mkdir()
        os.chdir(gone)
        gone.rmdir()
        arguments = ["--func", "vfs_read", "--report", "json=r"] if verb == "enable" else []
        return run([verb, str(here / "vmlinux"), *arguments, "-o", "out"])

    with open(said, "wb") as file:
        assert os.waitstatus_to_exitcode(child(work, file.fileno())) == 2
    assert said.read_text() == "ftpatch: out: the current directory does not exist any more\n"


def test_in_place_says_that_the_other_names_keep_the_old_bytes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(here, CASES["in place"])
    os.link("vmlinux", "other")
    assert in_place("vfs_read")() == 0
    assert capsys.readouterr().err == "ftpatch: vmlinux: had 2 names (hard links); the others keep the old bytes\n"
    assert (here / "other").read_bytes() == FIXTURE


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that another user may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@contextmanager
def as_nobody() -> Iterator[None]:
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@needs_root
@pytest.mark.parametrize(
    "what", ["read-only directory", "closed directory", "sticky directory", "unreadable directory"]
)
def test_without_permission_nothing_is_changed(
    what: str, public: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (public / "vmlinux").write_bytes(FIXTURE)
    assert (
        run([*READ[:1], str(public / "vmlinux"), *READ[2:], "-o", str(public / "x"), "--report", "json=/dev/null"]) == 2
    )
    place = public / "place"
    place.mkdir()
    (place / "out").write_bytes(OLD)
    (place / "journal").write_bytes(OLD)
    owner = {"read-only directory": 0, "closed directory": 0}.get(what, NOBODY)
    os.chown(place / "journal", NOBODY, NOBODY)
    os.chown(place, owner if "unreadable" in what else 0, 0)
    place.chmod({"read-only directory": 0o755, "closed directory": 0o700, "sticky directory": 0o1777}.get(what, 0o300))
    capsys.readouterr()
    monkeypatch.chdir("/")
    with as_nobody():
        code = run(["enable", f"{public}/vmlinux", "--func", "vfs_read", "-o", f"{place}/out",
                    "--report", f"json={place}/journal"])  # fmt: skip
    out, err = capsys.readouterr()
    if what == "unreadable directory":  # may be written, cannot be flushed or swept
        assert code == 0
        assert err == (
            f"ftpatch: warning: {place}/out: not kept of the file it replaces: "
            "group 0 (Operation not permitted), owner 0 (Operation not permitted)\n"
        )
        assert (place / "out").read_bytes() not in (OLD, FIXTURE)
        return
    assert (code, out, err.count("\n")) == (3, "", 1)
    reason = "Operation not permitted" if what == "sticky directory" else "Permission denied"
    assert err == f"ftpatch: {place}/out: cannot be written: {reason}\n"
    assert contents(place) == {"out": OLD, "journal": OLD}


@needs_root
@pytest.mark.parametrize(
    "arguments", [("-o", "out", "--report", "json=journal"), ("--in-place",)], ids=["out", "in place"]
)
def test_a_mount_point_is_not_replaced_and_no_journal_stays(
    arguments: tuple[str, ...], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that a container has from outside."""
    fill(here, Case((), {**VMLINUX, "out": OLD, "outside": FIXTURE}, ()))
    file = "vmlinux" if "--in-place" in arguments else "out"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"outside", file.encode(), None, 4096, None):  # MS_BIND
        pytest.skip(f"run as root where mounting is allowed: {os.strerror(ctypes.get_errno())}")
    try:
        assert run(["enable", "vmlinux", "--func", "vfs_read", *arguments]) == 3
    finally:
        assert libc.umount2(file.encode(), 2) == 0
    assert capsys.readouterr() == (
        "", f"ftpatch: {here}/{file}: cannot be written: Device or resource busy – a mount point cannot be replaced: "
        "write elsewhere, and copy\n",
    )  # fmt: skip
    assert contents(here) == {**VMLINUX, "out": OLD, "outside": FIXTURE}


@needs_root
@pytest.mark.parametrize(
    ("what", "flag"), [("out", "+i"), ("out", "+a"), ("in place", "+i"), ("in place", "+a"), ("directory", "+i")]
)
def test_an_immutable_file_is_not_replaced_and_no_journal_stays(
    what: str, flag: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor one that can only be appended to."""
    fill(here, CASES["new output"])
    (here / "place").mkdir()
    for name in ("out", "vmlinux"):
        (here / "place" / name).write_bytes(OLD if name == "out" else FIXTURE)
    held = here / "place" / {"out": "out", "in place": "vmlinux", "directory": ""}[what]
    if shutil.which("chattr") is None or subprocess.run(["chattr", flag, held], capture_output=True).returncode:
        pytest.skip("needs chattr, and a file system with immutable files")
    more = ["--in-place"] if what == "in place" else ["-o", "place/out", "--report", "json=place/journal"]
    try:
        code = run(["enable", "place/vmlinux", "--func", "vfs_read", *more])
    finally:
        subprocess.run(["chattr", "-ia", held], check=True)
    assert code == 3
    assert capsys.readouterr().err.endswith(": cannot be written: Operation not permitted\n")
    assert contents(here / "place") == {"out": OLD, "vmlinux": FIXTURE}
