"""A pager for reports that are longer than the terminal, as git has it.

FTPATCH_PAGER, else PAGER, else less; empty or `cat` is none. less gets LESS=FRX unless the user has set LESS: it ends
at once where all fits, shows colours, and leaves the text on the screen. A report that fits starts no program. While a
pager runs, Ctrl-C is for it alone; that it is closed early ends the report, and changes no exit code.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain

from ftpatch.cli.terminal import is_dumb, is_terminal, size
from ftpatch.signals import SIGINT, SIGPIPE, ignored, undone

DEFAULT = "less"
LESS = "FRX"  # as git sets it
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
SHELL = re.compile(r"[|&;<>()$`\"'*?\[\]#~=%\\\n]")  # what only a shell understands
NOT_STARTED = (2, 126, 127)  # what a shell ends with where it understands nothing, or there is no such program


def pager() -> list[str]:
    """The command line of the pager; empty where none is wanted, or there is none."""
    wanted = os.environ.get("FTPATCH_PAGER", os.environ.get("PAGER", DEFAULT)).strip()
    if wanted in ("", "cat") or is_dumb() or not is_terminal(sys.stdout):
        return []
    if SHELL.search(wanted):
        return ["/bin/sh", "-c", wanted]
    import shutil  # and with it every compression, which few runs need

    words = wanted.split()
    return words if shutil.which(words[0]) else []


def show(pieces: Iterator[str], emit: Callable[[str], None], paged: bool) -> None:
    """Write the pieces of a report: through a pager where they are longer than the terminal, else with `emit`.

    paged: whether a pager is wanted at all.
    """
    if not (paged and is_terminal(sys.stdout)):
        for piece in pieces:
            emit(piece)
        return
    columns, rows = size()
    first, n_rows = [], 1  # the prompt behind it
    for piece in pieces:
        first.append(piece)
        n_rows += _rows_of(piece, columns)
        if n_rows > rows:
            break
    command = pager() if n_rows > rows else []
    whole = chain(first, pieces)
    if not command:
        for piece in whole:
            emit(piece)
        return
    kept = list(whole) if command[0] == "/bin/sh" else None
    code = _page(command, kept or whole)
    if code is None or (kept and code in NOT_STARTED):
        for piece in kept or whole:
            emit(piece)


def _rows_of(piece: str, columns: int) -> int:
    """How many rows of a terminal a piece takes; lines that are too long take several."""
    lines = ESCAPES.sub("", piece).split("\n")
    return sum(max(-(-len(line) // columns), 1) for line in lines[:-1]) + -(-len(lines[-1]) // columns)


def _page(command: list[str], pieces: Iterable[str]) -> int | None:
    """Have a pager show the pieces; what it ends with, or None where it cannot be started."""
    import subprocess

    environment = {**os.environ, "LESS": os.environ.get("LESS", LESS), "LV": os.environ.get("LV", "-c")}
    sys.stdout.flush()
    with ignored(SIGINT, SIGPIPE):
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
        except OSError:
            return None
        assert process.stdin is not None
        pipe = process.stdin

        def finish() -> int:
            with suppress(BrokenPipeError):  # the user has seen enough
                pipe.close()
            return process.wait()

        with undone(finish):
            try:
                with suppress(BrokenPipeError):
                    for piece in pieces:
                        pipe.write(piece.encode("utf-8", "backslashreplace"))
                        pipe.flush()
            finally:
                code = finish()
    return code
