"""A fork server: one process imports everything and fills every cache, and its children run the inputs.

A child takes a slice of one target's inputs, and puts each into memory that it shares with the server before it runs
it. So when a child is ended by a signal, by the C code of an assembler or an emulator, or when it hangs where Python's
signals do not reach, the server has the input, keeps it as a finding and goes on behind it.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic

from tools.fuzz.bounds import SECONDS, Tally, bounded, execute
from tools.fuzz.files import clean
from tools.fuzz.mutate import MAX_SIZE
from tools.fuzz.targets import TARGETS

STUCK = 4 * SECONDS  # seconds without a new input, after which a child is killed
PAUSE = 0.01  # seconds between two looks at the children
HEAD = struct.Struct("<2q")  # number and length of an input, in shared memory
Runner = Callable[["Slice", Tally, "Ledger"], None]


@dataclass(frozen=True)
class Slice:
    """Inputs [start, end) of a target's run, or one that is given."""

    target: str
    seed: int = 0
    start: int = 0
    end: int = 1
    real: bool = True  # with the real modules that are there
    given: bytes | None = None

    def case(self, number: int) -> bytes:
        return TARGETS[self.target].case(self.seed, number, self.real) if self.given is None else self.given


@dataclass
class Outcome:
    """What a target's slices gave together."""

    n: int = 0
    n_deep: int = 0
    n_sound: int = 0
    slowest: float = 0.0  # seconds
    peak: int = 0  # bytes that a child gained at most
    findings: dict[str, bytes] = field(default_factory=dict)  # by what went wrong; the first input that led there

    def add(self, other: Outcome) -> None:
        self.n, self.n_deep, self.n_sound = self.n + other.n, self.n_deep + other.n_deep, self.n_sound + other.n_sound
        self.slowest, self.peak = max(self.slowest, other.slowest), max(self.peak, other.peak)
        self.findings = other.findings | self.findings


class Ledger:
    """What a child shares with the server: the input that it runs, and in files what it has found so far."""

    def __init__(self, folder: str) -> None:
        self._folder, self._now = Path(folder), mmap.mmap(-1, HEAD.size + 2 * MAX_SIZE)

    def begin(self, number: int, data: bytes) -> None:
        """Another input is run from here on."""
        self._now[HEAD.size : HEAD.size + len(data)] = data
        HEAD.pack_into(self._now, 0, number, len(data))

    @property
    def number(self) -> int:
        return int(HEAD.unpack_from(self._now)[0])

    @property
    def data(self) -> bytes:
        start, size = HEAD.size, HEAD.unpack_from(self._now)[1]
        return self._now[start : start + size]

    def save(self, tally: Tally) -> None:
        for n, data in enumerate(tally.findings.values()):
            (self._folder / str(n)).write_bytes(data)
        figures = (tally.n, tally.n_deep, tally.n_sound, tally.slowest, tally.peak, list(tally.findings))
        (self._folder / "new").write_text(json.dumps(figures))
        (self._folder / "new").rename(self._folder / "result")

    def outcome(self) -> Outcome:
        """What was saved last."""
        if not (self._folder / "result").exists():
            return Outcome()
        n, n_deep, n_sound, slowest, peak, texts = json.loads((self._folder / "result").read_text())
        findings = {text: (self._folder / str(number)).read_bytes() for number, text in enumerate(texts)}
        return Outcome(n, n_deep, n_sound, slowest, peak, findings)


@dataclass
class _Child:
    """A process that runs a slice."""

    slice: Slice
    pid: int
    ledger: Ledger
    seen: int = -1  # the number of the input that it ran when the server looked last
    since: float = field(default_factory=monotonic)  # when that began

    def is_stuck(self) -> bool:
        if self.ledger.number != self.seen:
            self.seen, self.since = self.ledger.number, monotonic()
        return monotonic() - self.since > STUCK


def warm(names: Iterable[str]) -> list[str]:
    """Run every seed once, so that all is imported and cached; what went wrong with the seeds themselves."""
    wrong = []
    for name in names:
        tally = Tally()
        for data in TARGETS[name].seeds(True):
            execute(TARGETS[name], data, tally)
        wrong += [f"{name}: a seed: {text}" for text in tally.findings]
    clean()
    return wrong


def serve(queues: list[list[Slice]], run: Runner, deadline: float, n_children: int) -> dict[str, Outcome]:
    """Run the slices until there are no more or it is late; the outcome of each target.

    queues: slices that have to follow each other stand in one of them. Queues run side by side, n_children at a time.
    """
    outcomes: dict[str, Outcome] = {}
    waiting, running = list(queues), list[tuple[_Child, list[Slice]]]()
    with tempfile.TemporaryDirectory(prefix="ftpatch-fuzz-") as top:
        while waiting or running:
            if monotonic() > deadline:
                waiting = []
            while waiting and len(running) < n_children:
                first, *rest = waiting.pop(0)
                running.append((_start(first, run, top), rest))
            for entry in list(running):
                child, rest = entry
                if (left := _ended(child, outcomes.setdefault(child.slice.target, Outcome()))) is not None:
                    running.remove(entry)
                    waiting[:0] = [queue] if (queue := [*left, *rest]) else []
            select.select([], [], [], PAUSE)
    return outcomes


def isolated(target: str, data: bytes) -> str:
    """What goes wrong with one input in a child of its own; empty where nothing does."""
    outcomes = serve([[Slice(target, given=data)]], run_slice, monotonic() + STUCK, 1)
    return next(iter(outcomes[target].findings), "")


def run_slice(work: Slice, tally: Tally, ledger: Ledger) -> None:
    """The inputs of a slice, one after the other."""
    for number in range(work.start, work.end):
        data = work.case(number)
        ledger.begin(number, data)
        execute(TARGETS[work.target], data, tally)
        if number % 32 == 31:
            ledger.save(tally)


def _start(work: Slice, run: Runner, top: str) -> _Child:
    ledger = Ledger(tempfile.mkdtemp(dir=top))
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return _Child(work, pid, ledger)
    code = 1
    try:
        tally = Tally()
        with bounded():
            run(work, tally, ledger)
        ledger.save(tally)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        clean()
        os._exit(code)


def _ended(child: _Child, outcome: Outcome) -> Iterator[Slice] | None:
    """What is left of a child's slice, if it has ended or had to be killed; None while it runs."""
    pid, status = os.waitpid(child.pid, os.WNOHANG)
    if pid == 0 and not child.is_stuck():
        return None
    how = f"more than {STUCK} s, where Python cannot end it"
    if pid == 0:
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
    elif os.WIFSIGNALED(status):
        how = f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
    elif status:
        how = "ended by exit()"
    outcome.add(child.ledger.outcome())
    if pid and status == 0:
        return iter(())
    outcome.findings.setdefault(how, child.ledger.data)
    left = replace(child.slice, start=child.ledger.number + 1)
    return iter([left] if left.start < left.end else [])
