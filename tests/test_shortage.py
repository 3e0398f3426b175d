"""A machine that is short of something: one line that names it, exit code 3, every file the old one or the new one."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from elfwriter import MINI

from ftpatch import cli, memory
from ftpatch.cli import run
from ftpatch.cli.shortage import shortage

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).resolve().parents[1]
KERNEL = str(MINI / "vmlinux-callops")
MEMORY = "there is not enough memory – free memory, or raise its limit (ulimit -v)"
FILES = "too many files are open – raise their limit (ulimit -n); --jobs 1 needs the fewest"
PROCESSES = "no more processes or threads can be started – raise their limit (ulimit -u), or use --jobs 1"


def os_error(number: int, *name: str | bytes) -> OSError:
    return OSError(number, os.strerror(number), *name)


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


LINES: list[tuple[BaseException, str]] = [
    (MemoryError(), MEMORY),
    (os_error(errno.ENOMEM), MEMORY),
    (ImportError("libx.so: failed to map segment from shared object"), MEMORY),
    (ImportError("libx.so: cannot open shared object file: Too many open files"), FILES),
    (OSError("libx.so: failed to map segment from shared object"), MEMORY),
    (caused(ImportError("numpy did not load"), MemoryError()), MEMORY),
    (caused(ValueError("x"), caused(KeyError("y"), os_error(errno.EMFILE))), FILES),
    (os_error(errno.EMFILE, "a"), f"a: {FILES}"),
    (os_error(errno.ENFILE), FILES),
    (os_error(errno.EAGAIN), PROCESSES),
    (RuntimeError("can't start new thread"), PROCESSES),
    (os_error(errno.ENOSPC, b"/a"), "/a: the disk is full – free space there"),
    (os_error(errno.EDQUOT), "the disk quota is used up – free space there"),
    (os_error(errno.EFBIG), "a file would be larger than is allowed – raise the limit (ulimit -f)"),
    (os_error(errno.EROFS, "/a"),
     "/a: the file system is read-only – name another directory (TMPDIR for temporary files)"),
    (os_error(errno.EIO), "the system cannot read or write – see the kernel's log"),
    (FileNotFoundError("No usable temporary directory found in ['/tmp']"),
     "there is no directory for temporary files – set TMPDIR to one"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "line"), [pytest.param(*case, id=repr(case[0])[:60]) for case in LINES])
def test_what_was_short_is_named(
    error: BaseException, line: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """All of these ended as "this is a bug in ftpatch", with a traceback."""

    def fail(*arguments: object, **rest: object) -> None:
        raise error

    monkeypatch.setattr("ftpatch.api.reading.scan_file", fail)
    monkeypatch.setattr("ftpatch.cli.scan.scan_file", fail, raising=False)
    assert run(["scan", KERNEL]) == 3
    assert capsys.readouterr() == ("", f"ftpatch: {line}\n")


@pytest.mark.parametrize("error", [
    ValueError("x"), os_error(errno.EBADF), ImportError("No module named x"), RuntimeError("x"), OSError("x"),
    KeyError(),
])  # fmt: skip
def test_what_is_no_shortage_is_a_bug(error: Exception) -> None:
    assert shortage(error) is None


def test_causes_that_lead_to_each_other_end() -> None:
    error = ValueError()
    error.__cause__ = error
    assert shortage(error) is None


# -- real limits -------------------------------------------------------------------------------------------------------


def limited_run(limit: int, size: int, *arguments: str, where: Path) -> subprocess.CompletedProcess[str]:
    """A command line in a process of its own that has no more of something."""
    return subprocess.run(
        [sys.executable, "-m", "ftpatch", *arguments], capture_output=True, text=True, check=False, timeout=60,
        cwd=where, env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: resource.setrlimit(limit, (size, size)),
    )  # fmt: skip


@pytest.mark.parametrize("size", [64 << 20, 88 << 20, 108 << 20])
def test_numpy_is_not_loaded_where_it_would_end_the_process(size: int, tmp_path: Path) -> None:
    """OpenBLAS said so in its own words, and its exit code was that of findings: 1."""
    done = limited_run(resource.RLIMIT_AS, size, "check", KERNEL, where=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", f"ftpatch: {MEMORY}\n")


def test_a_kernel_of_gigabytes_without_the_memory_for_it(tmp_path: Path) -> None:
    with (tmp_path / "vmlinux").open("wb") as file:
        file.write(Path(KERNEL).read_bytes())
        file.truncate(4 << 30)
    done = limited_run(resource.RLIMIT_AS, 400 << 20, "scan", where=tmp_path)
    assert done.returncode == 3 and done.stderr.count("\n") == 1
    assert "there is not enough memory" in done.stderr


def test_a_patch_with_hardly_any_memory_is_made_or_refused(tmp_path: Path) -> None:
    """A thread that got no memory while it started was waited for, for ever."""
    (tmp_path / "vmlinux").write_bytes(Path(KERNEL).read_bytes())
    for size in (116 << 20, 124 << 20, 148 << 20):
        done = limited_run(
            resource.RLIMIT_AS, size, "enable", "--func", "vfs_read", "--report", "json=j", where=tmp_path
        )
        assert done.returncode in (0, 3)
        if done.returncode:
            assert done.stderr.splitlines()[-1] == f"ftpatch: {MEMORY}" and "Traceback" not in done.stderr
        assert (tmp_path / "vmlinux.patched").exists() == (tmp_path / "j").exists() == (not done.returncode)
        for made in tmp_path.glob("[!v]*"):
            made.unlink()
        (tmp_path / "vmlinux.patched").unlink(missing_ok=True)


def test_a_tree_with_few_descriptors(tmp_path: Path) -> None:
    for n in range(20):
        (tmp_path / f"m{n}.ko").write_bytes((MINI / "mini.ko").read_bytes())
    done = limited_run(resource.RLIMIT_NOFILE, 8, "scan", ".", "--jobs", "2", where=tmp_path)
    assert done.returncode == 0
    assert done.stderr.endswith(
        "ftpatch: one process reads all files: no semaphore for more can be made in /dev/shm (Too many open files)\n"
    )
    alone = limited_run(resource.RLIMIT_NOFILE, 8, "scan", ".", "--jobs", "1", where=tmp_path)
    assert (alone.returncode, alone.stdout) == (0, done.stdout)


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    done = limited_run(resource.RLIMIT_FSIZE, 4096, "enable", KERNEL, "--func", "vfs_read", "-o", "out", where=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"ftpatch: {tmp_path}/out: cannot be written: File too large\n"
    assert not list(tmp_path.iterdir())


def test_a_tree_is_read_by_one_process_where_memory_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "m.ko").write_bytes((MINI / "mini.ko").read_bytes())
    (tmp_path / "n.ko").write_bytes((MINI / "mini.ko").read_bytes())
    monkeypatch.setattr(memory, "is_there", lambda size: size <= memory.NUMPY)
    monkeypatch.setattr("ftpatch.trees._side_by_side", None)
    assert run(["scan", str(tmp_path), "--jobs", "2"]) == 0
    assert "modules" in capsys.readouterr().out


# -- standard streams --------------------------------------------------------------------------------------------------


def closing(numbers: tuple[int, ...]) -> Callable[[], None]:
    def close() -> None:
        for number in numbers:
            os.close(number)

    return close


@pytest.mark.parametrize("numbers", [(0,), (1,), (2,), (1, 2), (0, 1, 2)])
def test_a_closed_stream_never_becomes_the_output(numbers: tuple[int, ...], tmp_path: Path) -> None:
    """The output would have its descriptor: what a library says on stderr would stand in the kernel."""
    code = (
        "import os, sys\nfrom ftpatch import cli\nreal = os.open\n"
        "def opened(*given, **rest):\n"
        "    fd = real(*given, **rest)\n    given[0] == os.devnull or fd > 2 or os._exit(77)\n    return fd\n"
        f"os.open = opened\nsys.argv[1:] = ['enable', {KERNEL!r}, '--func', 'vfs_read', '-o', 'out']\ncli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=False, timeout=60, preexec_fn=closing(numbers),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0
    assert cli.run(["verify", KERNEL, str(tmp_path / "out")]) == 0
