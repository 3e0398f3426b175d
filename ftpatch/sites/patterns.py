"""Names against regular expressions and globs that a user wrote, in bounded time.

Python's `re` may need time that doubles with each character of a name: `^(\\w+)+!$` does. It looks for signals while
it matches, so a timer that counts this process's own processor time ends it, whatever else the machine does. A timer
can be set in the main thread alone: a program that matches in another one bounds its own patterns.
"""

from __future__ import annotations

import fnmatch
import re
import signal
import threading
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from types import FrameType

from ftpatch.errors import SelectionError

SECONDS = 0.5  # of processor time for one pattern; the 44,000 names of a kernel take 0.02
ALL_SECONDS = 10  # for all patterns of a selection together
MAX_PATTERN = 4096  # characters of one
MAX_REPEATS = 100_000  # the product of all {n} and {m,n}: each turn takes the matcher's memory
SIMPLER = "no repeat inside a repeat, fewer alternatives"
REPEATS = re.compile(r"\{(\d{0,9})(?:,(\d{0,9}))?\d*\}")


class _Expired(Exception):
    """The timer's signal."""


@dataclass
class Patterns:
    """The time that the patterns of one selection may still take."""

    left: float = ALL_SECONDS  # seconds of processor time

    def regex(self, pattern: str, names: Iterable[str]) -> list[str]:
        """The names in which a regular expression is found, in their order."""
        self._require_short(pattern, f"/{pattern}/")
        if prod(max(int(number or 0), 1) for hit in REPEATS.findall(pattern) for number in hit) > MAX_REPEATS:
            raise SelectionError("the pattern repeats too often", f"/{pattern}/", found="{n} times {n} …",
                                 expected=f"at most {MAX_REPEATS} together")  # fmt: skip

        def find() -> list[str]:
            try:
                with warnings.catch_warnings(action="ignore"):  # Python's remarks on `[[` are not for our stderr
                    search = re.compile(pattern).search
            except (re.error, OverflowError, RecursionError) as error:
                raise SelectionError("not a regular expression", f"/{pattern}/", found=str(error)) from None
            return [name for name in names if search(name)]

        return self._in_time(find, f"/{pattern}/")

    def glob(self, pattern: str, names: Iterable[str]) -> list[str]:
        """The names that a glob matches from end to end, in their order."""
        self._require_short(pattern, pattern)

        def find() -> list[str]:
            match = re.compile(fnmatch.translate(pattern)).match
            return [name for name in names if match(name)]

        return self._in_time(find, pattern)

    @staticmethod
    def _require_short(pattern: str, shown: str) -> None:
        if len(pattern) > MAX_PATTERN:
            raise SelectionError("too long for a pattern", f"{shown[:40]}…", found=f"{len(pattern)} characters",
                                 expected=f"at most {MAX_PATTERN}", todo="@file takes plain names")  # fmt: skip

    def _in_time(self, find: Callable[[], list[str]], shown: str) -> list[str]:
        """What `find` returns, or a SelectionError if that takes too long."""
        if threading.current_thread() is not threading.main_thread():
            return find()
        granted = min(SECONDS, self.left)
        if granted <= 0:
            raise SelectionError("the patterns take too long", shown, found=f"{ALL_SECONDS} s of processor time by now",
                                 todo="@file takes plain names, which need no pattern")  # fmt: skip
        before = signal.signal(signal.SIGPROF, _expire)
        unused = 0.0
        try:
            signal.setitimer(signal.ITIMER_PROF, granted)
            try:
                return find()
            finally:
                unused = signal.setitimer(signal.ITIMER_PROF, 0)[0]
        except _Expired:
            raise SelectionError("the pattern takes too long", shown, expected=f"{SECONDS} s of processor time",
                                 todo=f"write it with {SIMPLER}") from None  # fmt: skip
        finally:
            signal.signal(signal.SIGPROF, before)
            self.left -= max(granted - unused, 0)  # the timer counts in ticks, and rounds up


def _expire(signum: int, frame: FrameType | None) -> None:
    raise _Expired
