"""Run a target on one input, within bounds: time, memory, and no exception but a refusal."""

from __future__ import annotations

import contextlib
import resource
import signal
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import perf_counter
from types import FrameType

from ftpatch.errors import FtpatchError
from tools.fuzz.targets import Seen, Target

SECONDS = 5.0  # of processor time, per input
MEMORY = 200 << 20  # bytes above what the process has before the first input, which holds the inputs too
OUR_BUG = 70


class Hang(BaseException):
    """An input took too long. No program catches it by accident."""


@dataclass
class Tally:
    """What a run has found so far. findings: a line per place in the program, and the first input that led there."""

    n: int = 0
    n_deep: int = 0
    n_sound: int = 0
    slowest: float = 0.0
    baseline: int = field(default_factory=lambda: _peak())
    findings: dict[str, bytes] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """Bytes of memory that the process has gained since the tally was made."""
        return _peak() - self.baseline


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def execute(target: Target, data: bytes, tally: Tally) -> bool:
    """Run the target once; whether the input got past the headers. What goes wrong becomes a finding."""
    seen, start, wrong = Seen(), perf_counter(), ""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        target.run(data, seen)
        tally.n_sound += 1
    except FtpatchError as error:
        if error.exit_code == OUR_BUG:
            wrong = f"{type(error).__name__}: {error.what}"
        elif "\n" in str(error):
            wrong = f"a message of several lines: {error.what}"
    except (Exception, Hang) as error:  # what this is all about
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = str(error)[:120] if isinstance(error, AssertionError | Warning) else ""
        wrong = f"{type(error).__name__} at {place.filename.rpartition('ftpatch/')[2]}:{place.lineno} {text}".rstrip()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    tally.n += 1
    tally.n_deep += seen.deep
    tally.slowest = max(tally.slowest, perf_counter() - start)
    if wrong:
        tally.findings.setdefault(wrong, data)
    return seen.deep


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Limits for as long as it lasts: warnings are errors, memory ends where MEMORY does, and time where SECONDS do."""

    def late(signum: int, frame: FrameType | None) -> None:
        raise Hang(f"more than {SECONDS} s")

    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    before, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGPROF, late)
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, before[1]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGPROF, handler)
