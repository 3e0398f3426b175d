"""What every target needs: what became of an input, a file in memory, a folder to write to, a command line."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from ftpatch.errors import InputError
from tools import promises


@dataclass
class Seen:
    """What became of one input."""

    deep: bool = False  # past what a random file fails at: the headers of an ELF file, the frame of anything else
    refused: bool = False  # a command line said no; targets that call the library raise the refusal instead


@contextlib.contextmanager
def named(data: bytes) -> Iterator[str]:
    """A path of a file in memory with these bytes."""
    fd = os.memfd_create("fuzz", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


@cache
def _folder(pid: int) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="ftpatch-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)


def folder() -> str:
    """A folder of this process for what the journeys write."""
    return _folder(os.getpid()).name


def clean() -> None:
    """Remove that folder; for a process that ends without saying so."""
    if _folder.cache_info().currsize:
        _folder(os.getpid()).cleanup()


def command(seen: Seen, *arguments: str, form: str = "text", done: tuple[int, ...] = (0, 1)) -> int:
    """The exit code of a command line in this process, which keeps what all of them promise.

    done: the codes of one that did its work. Whatever it prints is looked at and dropped.
    """
    from ftpatch.cli import run

    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = run(list(arguments))
    wrong = promises.broken(code, out.getvalue(), err.getvalue(), form)
    assert not wrong, f"{arguments[0]}: {wrong}"
    if code not in done:
        seen.refused = True
    return code


def refused(seen: Seen, what: str) -> InputError:
    """A refusal that a journey ends with."""
    seen.refused = True
    return InputError(what)
