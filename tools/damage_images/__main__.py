"""`python -m tools.damage_images --seed 1 --runs 10000`: 1 where an answer was wrong, slow, large, or no answer.

Small kernels of every form are damaged (`--real FILE`: that one, too large to be made here), and read as the verbs
do. What comes of it is an answer that is right but for what was damaged itself, or one line.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from time import process_time

from ftpatch.errors import FtpatchError
from ftpatch.sites.scan import scan_file
from tools.damage_images.damage import SLIDES, damaged
from tools.damage_images.judge import REFUSED, Answer, judged, moved_back
from tools.damage_images.kernels import Sound, all_small
from tools.damage_images.real import real
from tools.fuzz.bounds import Tally, bounded, execute
from tools.fuzz.files import Seen, command, named
from tools.fuzz.targets import Target

SLOW, LEAST = 8, 0.5  # times what the sound file takes, and seconds that are never slow
VERBS = (("scan",), ("check",), ("symbols",), ("explain", "__page_get_0"), ("static-calls",), ("scan", "--sites"))
EVERY = 8  # runs from one whole command line to the next


@dataclass
class Score:
    """What came of a campaign."""

    runs: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    by_kind: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    refusals: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)  # a line for each


@dataclass(frozen=True, eq=False)
class Case:
    """A sound kernel, what is right of it, and how long that takes."""

    sound: Sound
    right: Answer
    seconds: float


def case_of(sound: Sound) -> Case:
    with named(sound.data) as path:
        right = Answer.of(scan_file(path))
        start = process_time()
        scan_file(path)
        return Case(sound, right, process_time() - start)


def campaign(cases: list[Case], seed: int, runs: int, first: int = 0) -> Score:
    """Damage the kernels at random, `runs` times. first: number of the first run, to repeat some."""
    score, tally = Score(), Tally()
    others = tuple(case.sound for case in cases)
    with bounded():
        for number in range(first, first + runs):
            rng = Random(f"{seed} {number}")
            case = rng.choice(cases)
            kind, data = damaged(case.sound, others, rng)
            _run(case, kind, data, number, score, tally)
    return score


def _run(case: Case, kind: str, data: bytes, number: int, score: Score, tally: Tally) -> None:
    """One damaged file; what is wrong with the answer goes to the score."""
    label = f"run {number}: {case.sound.name}: {kind}"
    told: list[tuple[str, str]] = []
    target = Target(partial(_read, case, number, told), lambda real: (), lambda data, rng: data, (), 1)
    before, start = set(tally.findings), process_time()
    execute(target, data, tally)
    seconds = process_time() - start
    score.runs += 1
    what, wrong = told[0] if told else ("crashed", "")
    score.answers[what] += 1
    score.by_kind[kind][what] += 1
    if what == REFUSED:
        score.refusals[wrong] += 1
        wrong = ""
    for finding in (wrong, *(set(tally.findings) - before)):
        if finding:
            score.bad.append(f"{label}: {finding}")
    if seconds > max(SLOW * case.seconds, LEAST):
        score.bad.append(f"{label}: {seconds:.2f} s; the sound file takes {case.seconds:.2f} s")


def _read(case: Case, number: int, told: list[tuple[str, str]], data: bytes, seen: Seen) -> None:
    """Read a file as the verbs do, and now and then by one of them."""
    with named(data) as path:
        if number % EVERY == 0:
            command(seen, *_line(VERBS[number // EVERY % len(VERBS)], path))
        try:
            said = Answer.of(scan_file(path))
        except FtpatchError as error:
            told.append((REFUSED, error.what))
            raise
        told.append(judged(case.sound, case.right, moved_back(case.right, said, SLIDES)))


def _line(verb: tuple[str, ...], path: str) -> tuple[str, ...]:
    name, *rest = verb
    return (name, *rest, path) if name == "explain" else (name, path, *rest)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.damage_images", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same damage (default: 1)")
    parser.add_argument("--runs", type=int, default=10_000, help="damaged files (default: 10000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first run, to repeat one")
    parser.add_argument("--real", type=Path, action="append", default=[], help="damage this file instead; repeatable")
    options = parser.parse_args()
    cases = [case_of(sound) for sound in ([real(path) for path in options.real] or all_small())]
    score = campaign(cases, options.seed, options.runs, options.first)
    for kind, answers in sorted(score.by_kind.items()):
        print(f"{kind:12} {answers.total():6}  " + ", ".join(f"{what} {n}" for what, n in answers.most_common()))
    for what, n in score.refusals.most_common():
        print(f"{n:6}  {what}")
    print("".join(f"WRONG  {line}\n" for line in score.bad), end="")
    told = ", ".join(f"{what} {n}" for what, n in score.answers.most_common())
    print(f"seed {options.seed}: {score.runs} runs: {told}; {len(score.bad)} wrong")
    return int(bool(score.bad))


if __name__ == "__main__":
    sys.exit(main())
