"""Limits of time and address space for a command that runs in the test's own process."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

SPACE = 1536 << 20  # bytes of address space that one command may take


class TooLong(BaseException):
    """Not an Exception, so that the program cannot take it for a failure of its own."""


def _too_long(signum: int, frame: FrameType | None) -> None:
    raise TooLong


@contextmanager
def limited(seconds: float, space: int = SPACE) -> Iterator[None]:
    """A limit on the time of what runs inside, and on the address space that it takes beyond what is in use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    resource.setrlimit(resource.RLIMIT_AS, (now + space, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
