"""Runs that write, the folders in which they begin, and what may be in those afterwards."""

from __future__ import annotations

import lzma
import os
import re
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ftpatch import cli

ROOT = Path(__file__).resolve().parents[2]
MINI = ROOT / "testdata" / "mini"
TEMPORARY = re.compile(r"\.(.+)\.ftpatch-[0-9a-f]{16}")
LENGTH = 400  # characters of stderr that are kept: its end
OLD = b"what was there before\n"
OWNER = 1234 if os.geteuid() == 0 else os.geteuid()  # of files that are replaced


@dataclass(frozen=True)
class File:
    """A file: all that a run must keep or replace as a whole."""

    content: bytes
    mode: int = 0o644
    owner: int = os.geteuid()
    attributes: tuple[tuple[str, bytes], ...] = ()


Folder = dict[str, File]


def special(content: bytes) -> File:
    """A file with an owner, a mode and an attribute that a careless run would lose."""
    return File(content, 0o640, OWNER, (("user.ftpatch", b"kept"),))


@dataclass(frozen=True, eq=False)
class Case:
    """A run: its arguments, and the files that are there."""

    name: str
    arguments: tuple[str, ...]
    given: Folder

    @property
    def in_place(self) -> bool:
        return "--in-place" in self.arguments

    @property
    def output(self) -> str:
        """The file that its reports are about."""
        return self.arguments[1] if self.in_place else "out"


def cases(folder: Path) -> list[Case]:
    """Every verb that writes, on new and on old files; `folder` is free for use."""
    kernel = File((MINI / "vmlinux-callops").read_bytes())
    module = special(lzma.compress((MINI / "mini.ko").read_bytes(), check=lzma.CHECK_CRC32))
    read = ("enable", "vmlinux", "--func", "vfs_read")
    fill(folder, {"vmlinux": kernel})
    run_here(folder, [*read, "-o", "patched", "--report", "json=journal"])
    patched = state(folder)
    given = {"vmlinux": kernel, "out": special(OLD), "journal": special(OLD)}
    return [
        Case("enable", (*read, "-o", "out", "--report", "json=journal"), {"vmlinux": kernel}),
        Case("enable over", (*read, "-o", "out", "--report", "json=journal", "--report", "csv=table"), given),
        Case("enable in place", (*read, "--in-place"), {"vmlinux": special(kernel.content)}),
        Case("enable in place over", (*read, "--in-place", "--report", "json=journal"), given),
        Case("module in place", ("enable", "m.ko.xz", "--func", "*", "--in-place"), {"m.ko.xz": module}),
        Case("drop", ("drop", "vmlinux", "--func", "vfs_*", "-o", "out", "--report", "json=journal"), given),
        Case("disable", ("disable", "patched", "--func", "vfs_read", "-o", "out"), {**patched, "out": special(OLD)}),
        Case("restore", ("restore", "patched", "--journal", "journal", "-o", "out"), {**patched, "out": special(OLD)}),
        Case("restore in place", ("restore", "patched", "--journal", "journal", "--in-place"),
             {**patched, "patched": special(patched["patched"].content)}),
        Case("image", ("image", "vmlinux", "-o", "out"), given),
        Case("scan", ("scan", "vmlinux", "--report", "json=journal", "--report", "csv=table"),
             {"vmlinux": kernel, "journal": special(OLD)}),
        Case("baseline", ("check", "vmlinux", "--write-baseline", "out"), given),
    ]  # fmt: skip


def fill(folder: Path, files: Folder) -> None:
    """Have these files in the folder and no others."""
    for path in folder.iterdir():
        path.unlink()
    for name, file in files.items():
        path = folder / name
        path.write_bytes(file.content)
        for attribute, value in file.attributes:
            os.setxattr(path, attribute, value)
        if file.owner != os.geteuid():
            os.chown(path, file.owner, file.owner)
        path.chmod(file.mode)


def state(folder: Path) -> Folder:
    """What is in the folder, temporaries left out."""
    return {path.name: _file(path) for path in folder.iterdir() if not TEMPORARY.fullmatch(path.name)}


def _file(path: Path) -> File:
    status = path.stat()
    attributes = tuple((name, os.getxattr(path, name)) for name in sorted(os.listxattr(path)))
    return File(path.read_bytes(), stat.S_IMODE(status.st_mode), status.st_uid, attributes)


def temporaries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if TEMPORARY.fullmatch(path.name))


def third_states(before: Folder, after: Folder, now: Folder) -> list[str]:
    """Files that are neither as before nor as an undisturbed run leaves them."""
    names = before.keys() | after.keys() | now.keys()
    return sorted(name for name in names if now.get(name) not in (before.get(name), after.get(name)))


def changed(before: Folder, after: Folder, now: Folder) -> set[str]:
    """`old`, `new` or both: what the files are that the run replaces or makes."""
    names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return {"new" if now.get(name) == after.get(name) else "old" for name in names}


def run_here(folder: Path, arguments: list[str], prepare: Callable[[], object] = lambda: None) -> tuple[int, str]:
    """The exit code of a child of this process that runs ftpatch's `main` in the folder, and its stderr."""
    reading, writing = os.pipe()
    pid = begin(folder, arguments, writing, prepare)
    os.close(writing)
    with open(reading, "rb") as stream:
        told = stream.read().decode()[-LENGTH:]
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), told


def begin(folder: Path, arguments: list[str], stderr: int, prepare: Callable[[], object]) -> int:
    """The process id of a child of this process that runs ftpatch's `main` in the folder."""
    pid = os.fork()
    if pid == 0:
        code: object = 99
        try:
            os.chdir(folder)
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            os.dup2(stderr, 2)
            os.closerange(3, 64)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            sys.argv = ["ftpatch", *arguments]
            prepare()
            cli.main()
        except SystemExit as ended:
            code = ended.code
        finally:
            os._exit(code if isinstance(code, int) else 0)
    return pid


def result(folder: Path, case: Case) -> Folder:
    """What an undisturbed run of the case leaves."""
    fill(folder, case.given)
    code, told = run_here(folder, list(case.arguments))
    if code:
        raise SystemExit(f"{case.name}: exit code {code}: {told}")
    return state(folder)
