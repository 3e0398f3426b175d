"""A bar on a terminal's stderr for what takes long: how far it is, how fast, and how long it will still take.

It appears after half a second, moves ten times a second, and is gone when the work is done. No thread draws it: the
worker processes of a tree are forked while it is there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ftpatch.cli.terminal import is_dumb, is_terminal
from ftpatch.progress import Advance, Progress, unseen
from ftpatch.signals import undone

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

GIVE_BACK = b"\r\x1b[2K\x1b[?25h"
DELAY, STEP = 0.5, 0.1  # seconds until it appears, and between two drawings


def progress_of(what: str) -> Progress:
    """The progress of so many things, by their name; unseen where stderr is no terminal."""

    @contextmanager
    def context(n: int) -> Iterator[Advance]:
        if not is_terminal(sys.stderr) or is_dumb():
            yield unseen
            return
        bar = _Bar(what, n)
        with undone(bar.give_back):
            try:
                yield bar.advance
            finally:
                bar.stop()

    return context


class _Bar:
    """A bar that is drawn from the second on in which it is needed."""

    def __init__(self, what: str, n: int) -> None:
        self.what, self.n, self.done = what, n, 0
        self.bar: RichProgress | None = None
        self.drawn = _seconds() + DELAY - STEP  # when it was drawn last

    def advance(self, done: int) -> None:
        self.done += done
        now = _seconds()
        if now - self.drawn < STEP:
            return
        self.drawn = now
        with suppress(OSError):  # a terminal that is gone is no reason to end
            if self.bar is None:
                self.bar = _rich_bar()
                self.bar.add_task(self.what, total=self.n, completed=self.done)
                self.bar.start()
            self.bar.update(self.bar.task_ids[0], completed=self.done)
            self.bar.refresh()

    def give_back(self) -> None:
        """Empty the line and show the cursor again, for a run that a signal ends: rich may be in the middle of it."""
        if self.bar is not None:
            os.write(2, GIVE_BACK)

    def stop(self) -> None:
        bar, self.bar = self.bar, None
        if bar is not None:
            with suppress(OSError):
                bar.stop()


def _seconds() -> float:
    """Of a clock that runs while the machine does."""
    return os.times().elapsed


def _rich_bar() -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Task as RichTask
    from rich.text import Text

    class Rate(ProgressColumn):
        """How many are done in a second."""

        def render(self, task: RichTask) -> Text:
            return Text(f"{task.speed:.0f}/s" if task.speed else "")

    columns = (TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    return Progress(
        *columns, console=Console(file=sys.stderr), auto_refresh=False, transient=True, redirect_stdout=False,
        redirect_stderr=False,
    )  # fmt: skip
