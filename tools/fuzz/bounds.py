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
from tools.fuzz.files import Seen
from tools.fuzz.targets import Target

SECONDS = 5.0  # of processor time, per input; the program uses the timer of SIGPROF itself
MEMORY = 200 << 20  # bytes above what the process has before the first input, which holds the inputs too
EMULATOR = 256 << 20  # bytes of address space that unicorn reserves, and hardly uses
OUR_BUG = 70


class Hang(BaseException):
    """An input took too long. No program catches it by accident."""


@dataclass
class Tally:
    """What a run has found so far. findings: a line per place in the program, and the first input that led there."""

    n: int = 0
    n_deep: int = 0
    n_sound: int = 0
    slowest: float = 0.0  # seconds
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
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        target.run(data, seen)
        tally.n_sound += not seen.refused
    except FtpatchError as error:
        if error.exit_code == OUR_BUG:
            wrong = f"{type(error).__name__}: {error.what}"
        elif not str(error).isprintable():
            wrong = f"a message that is not one line: {error.what}"
    except (Exception, Hang) as error:  # what this is all about
        wrong = _described(error)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    tally.n += 1
    tally.n_deep += seen.deep
    tally.slowest = max(tally.slowest, perf_counter() - start)
    if tally.peak > MEMORY and not wrong:
        wrong = f"more than {MEMORY >> 20} MB"
        tally.baseline = _peak()
    if wrong:
        tally.findings.setdefault(wrong, data)
    return seen.deep


def _described(error: BaseException) -> str:
    """What went wrong and where: equal for inputs that meet the same fault, as far as a line can tell."""
    stack = traceback.extract_tb(error.__traceback__)
    place = next((frame for frame in reversed(stack) if "/ftpatch/" in frame.filename), stack[-1])
    text = str(error)[:300] if isinstance(error, AssertionError | Warning) else ""
    name = place.filename.rpartition("ftpatch/" if "/ftpatch/" in place.filename else "tools/")[2]
    return f"{type(error).__name__} at {name}:{place.lineno} {text}".rstrip()


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Limits for as long as it lasts: warnings are errors, memory ends where MEMORY does, and time where SECONDS do."""

    def late(signum: int, frame: FrameType | None) -> None:
        raise Hang(f"more than {SECONDS} s")

    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    before, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGVTALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY + EMULATOR, before[1]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGVTALRM, handler)
