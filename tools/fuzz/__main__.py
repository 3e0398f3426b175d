"""`python -m tools.fuzz`: 100,000 inputs, two processes at a time, and a table of what came of them; 1 if anything did.

Each fault is told once, with its smallest input, saved under build/fuzz, and the command that runs that again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from tools.fuzz import guided

if TYPE_CHECKING:
    from tools.fuzz.server import Outcome, Slice

RUNS, SLICE = 100_000, 1000  # inputs of a whole run, and of one child


def main() -> int:
    parser = _parser()
    options = parser.parse_args()
    led = guided.atheris() is not None and not options.blind and not options.input
    if led:
        guided.instrument()
    from tools.fuzz.targets import TARGETS  # behind that: it imports the package

    names = options.target or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if options.input:
        return _again(names, options.input)
    print(f"seed {options.seed}; inputs led by {'coverage (atheris)' if led else 'the seed alone'}", flush=True)
    shutil.rmtree(options.folder, ignore_errors=True)
    start, outcomes = monotonic(), _campaign(options, names, led)
    n_findings = sum(_told(name, outcome, options.folder) for name, outcome in outcomes.items())
    n, deep = (sum(getattr(outcome, key) for outcome in outcomes.values()) for key in ("n", "n_deep"))
    print(f"in all {n} inputs in {monotonic() - start:.0f} s, {100 * deep / max(n, 1):.1f} % past the headers, "
          f"{n_findings} faults", flush=True)  # fmt: skip
    _covered(options, names)
    return int(n_findings > 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--target", action="append", metavar="NAME", help="only this one; repeatable")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"inputs, of all targets together (default: {RUNS})")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start nothing new after this time")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same inputs (default: 1)")
    parser.add_argument("--processes", type=int, default=min(os.cpu_count() or 1, 2), help="at a time (default: 2)")
    parser.add_argument("--blind", action="store_true", help="not led by coverage, even where atheris is installed")
    parser.add_argument("--input", action="append", type=Path, metavar="FILE", help="run a saved input again")
    parser.add_argument("--folder", default=os.path.join("build", "fuzz"), help="corpora and findings")
    return parser


def _campaign(options: argparse.Namespace, names: list[str], led: bool) -> dict[str, Outcome]:
    """All targets, each in children one after the other; the outcome of each, printed as it comes."""
    from tools.fuzz.server import run_slice, serve, warm
    from tools.fuzz.targets import TARGETS

    for line in warm(names):
        print(line, flush=True)
    whole = sum(TARGETS[name].share for name in names)
    queues = [_slices(name, options.seed, options.runs * TARGETS[name].share // whole) for name in names]
    queues.sort(key=lambda queue: -len(queue))
    run: Callable[..., None] = guided.runner(options.folder) if led else run_slice
    return serve([queue for queue in queues if queue], run, monotonic() + options.seconds, options.processes)


def _slices(name: str, seed: int, n: int) -> list[Slice]:
    from tools.fuzz.server import Slice

    return [Slice(name, seed, start, min(start + SLICE, n)) for start in range(0, n, SLICE)]


def _told(name: str, outcome: Outcome, folder: str) -> int:
    """Print what a target gave, and save the inputs of its findings; how many there are."""
    from tools.fuzz.minimise import smaller
    from tools.fuzz.targets import TARGETS

    n = max(outcome.n, 1)
    print(
        f"{name:12} {outcome.n:7} inputs  {100 * outcome.n_deep / n:5.1f} % past the headers  "
        f"{100 * outcome.n_sound / n:5.1f} % accepted  slowest {outcome.slowest:6.3f} s  peak +{outcome.peak >> 20} MB"
        f"  {len(outcome.findings)} faults", flush=True,
    )  # fmt: skip
    for text, data in outcome.findings.items():
        small = smaller(data, TARGETS[name].seeds(True), partial(_same, name, text))
        path = Path(folder) / f"{name}-{sha256(text.encode()).hexdigest()[:12]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(small)
        print(f"    {text}\n        python -m tools.fuzz --target {name} --input {path}", flush=True)
    return len(outcome.findings)


def _same(name: str, text: str, data: bytes) -> bool:
    """Whether an input still goes wrong in that way."""
    from tools.fuzz.server import isolated

    return isolated(name, data) == text


def _again(names: list[str], paths: list[Path]) -> int:
    """Run saved inputs, and say what goes wrong with each."""
    from tools.fuzz.server import isolated, warm

    warm(names[:1])
    wrong = {path: isolated(names[0], path.read_bytes()) for path in paths}
    for path, text in wrong.items():
        print(f"{path}: {text or 'nothing goes wrong'}")
    return int(any(wrong.values()))


def _covered(options: argparse.Namespace, names: list[str]) -> None:
    """Print how many branches of its files each target takes, where coverage.py is installed."""
    from tools.fuzz import branches

    for name, taken, n in branches.of_targets(options.folder, names, options.seed, options.processes):
        print(f"{name:12} {taken:5} of {n:5} branches  {100 * taken / max(n, 1):5.1f} %")


if __name__ == "__main__":
    sys.exit(main())
