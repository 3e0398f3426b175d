"""One command line in a forked child, under limits of time and memory; and what was wrong with it."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import TextIO

from tools import promises
from tools.hostile import place

SECONDS = 40.0  # for one command line, on a machine that has other work too; what computes ends by CPU_SECONDS
CPU_SECONDS = 5  # of processor time; a sound one takes some hundredths
SPACE = 512 << 20  # bytes of address space beyond what the server has
N_OPEN = 64  # descriptors
MADE = {"-o": "", "--output": "", "--report": "=", "--write-baseline": ""}  # options that name results, and what stands
# in front of the name


@dataclass(frozen=True)
class Answer:
    """What a command line did."""

    code: int  # negative: the signal that ended it
    out: str
    err: str
    seconds: float


def run(line: list[str]) -> Answer:
    """Run a command line in a child that has everything imported."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = monotonic()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            _child(line, out.fileno(), err.fileno())
        code = _waited(pid, start)
        seconds = monotonic() - start
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read(4 << 20).decode("utf-8", "backslashreplace"))
    return Answer(code, texts[0], texts[1], seconds)


def _child(line: list[str], out: int, err: int) -> None:
    code = 99
    try:
        null = os.open("/dev/null", os.O_RDONLY)
        for old, new in ((null, 0), (out, 1), (err, 2)):
            os.dup2(old, new)
        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        for what, limit in ((resource.RLIMIT_AS, size + SPACE), (resource.RLIMIT_NOFILE, N_OPEN),
                            (resource.RLIMIT_CORE, 0), (resource.RLIMIT_CPU, CPU_SECONDS)):  # fmt: skip
            resource.setrlimit(what, (limit, limit))
        from ftpatch.cli import main

        sys.argv = ["ftpatch", *line]
        sys.stdout, sys.stderr = _stream(1, "strict"), _stream(2, "backslashreplace")
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 98
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(code)


def _stream(fd: int, errors: str) -> TextIO:
    """As Python itself opens it."""
    return open(fd, "w", buffering=1 if fd == 2 else -1, errors=errors, closefd=False)


def _waited(pid: int, start: float) -> int:
    """The child's exit code; minus a signal's number where that ended it, SIGALRM's where it took too long."""
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if monotonic() - start > SECONDS:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return -signal.SIGALRM
        select.select([], [], [], 0.002)


def judged(line: list[str], top: Path, sound: place.Contents) -> str:
    """What is wrong with a command line's answer and with what it did to the folder; empty where nothing is.

    The folder is as it was before, in the end. sound: what its files hold.
    """
    before = place.state(top)
    answer = run(line)
    after = place.state(top)
    wrong = _of_answer(line, answer) or _of_files(line, answer.code, before, after)
    for name in sorted(set(after) - set(before), key=len, reverse=True):
        path = top / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    place.restore(top, sound, [name for name in before if after.get(name) != before[name]])
    return wrong


def _of_answer(line: list[str], answer: Answer) -> str:
    if answer.code < 0:
        late = answer.code == -signal.SIGALRM
        return f"no end within {SECONDS} s" if late else f"ended by {signal.Signals(-answer.code).name}"
    given = line[: line.index("--")] if "--" in line else line
    form = next((form for form, option in pairwise(reversed(given)) if option == "--format"), "text")  # the last counts
    n_files = len(line) if line[0] in ("scan", "check", "diff") else 1  # each bad file has its line
    text = "" if {"-h", "--help", "--color"} & set(line) else answer.out
    return promises.broken(answer.code, text, answer.err, form, n_files + 50 * any(map(os.path.isdir, line)))


def _of_files(line: list[str], code: int, before: dict[str, place.Signature], after: dict[str, place.Signature]) -> str:
    """Inputs that changed, files that were left."""
    results = _results(line)
    for name in before:
        if after.get(name) != before[name] and os.path.normpath(name) not in results:
            return f"exit code {code}, and {name!r} is not what it was"
    new = {os.path.normpath(name) for name in set(after) - set(before)}
    if code not in (0, 1) and new - _reports(line):
        return f"exit code {code}, and left {sorted(new)!r}"
    if temporary := [name for name in new if ".ftpatch-" in name]:
        return f"exit code {code}, and left {temporary!r}"
    return ""


def _results(line: list[str]) -> set[str]:
    """Names that the line gives to results: they may be replaced."""
    found: set[str] = set()
    if "--in-place" in line:  # the file may stand behind any option
        found = {name for word in line[1:] for name in (word, f"{word}.ftpatch.json")}
    for option, name in pairwise(line):
        if option in MADE:
            found.add(name.partition("=")[2] if MADE[option] else name)
    return {os.path.normpath(os.path.realpath(name)).removeprefix(f"{os.getcwd()}/") for name in found if name} | {
        os.path.normpath(name) for name in found if name
    }


def _reports(line: list[str]) -> set[str]:
    """Reports of the verbs that only read, which are written though a file among several is bad."""
    return _results(line) if line and line[0] in ("scan", "check", "diff", "explain", "verify") else set()
