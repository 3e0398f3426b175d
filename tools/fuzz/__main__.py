"""`python -m tools.fuzz`: every target in turn, one process at a time, and a table of what came of it."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from tools.fuzz import branches, engine
from tools.fuzz.targets import TARGETS


def main() -> int:
    """Run, print the table; 1 where something was found."""
    options = _options()
    names = options.target or list(TARGETS)
    whole = sum(TARGETS[name].share for name in names)
    if engine.atheris() is None:
        print("no atheris here: mutation without coverage to guide it (pip install -e '.[fuzz]')")
    results = {}
    for name in names:
        share = TARGETS[name].share / whole
        runs = int(options.runs * share) if options.runs else 1 << 62
        seconds = options.seconds * share if options.seconds else float(1 << 30)
        job = engine.Job(name, os.path.join(options.folder, name), runs, seconds, options.seed)
        results[name] = engine.parent(job)
        _line(name, results[name])
    _sum(results)
    covered = branches.of_corpora(options.folder, names) if engine.atheris() else None
    for file, (taken, n) in sorted((covered or {}).items()):
        print(f"{file:20} {taken:5} of {n:5} branches  {100 * taken / max(n, 1):5.1f} %")
    return int(any(one["findings"] for one in results.values()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="only this one; repeatable")
    parser.add_argument("--runs", type=int, default=0, help="executions, of all targets together")
    parser.add_argument("--seconds", type=float, default=0, help="seconds, of all targets together (default: 600)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", default=os.path.join("build", "fuzz"), help="corpora and findings")
    found = parser.parse_args()
    if not (found.runs or found.seconds):
        found.seconds = 600
    return found


def _line(name: str, one: dict[str, Any]) -> None:
    deep = 100 * one["n_deep"] / max(one["n"], 1)
    print(
        f"{name:12} {one['n']:8} executions  {deep:5.1f} % past the headers  {one['n_sound']:8} accepted  "
        f"slowest {one['slowest']:6.3f} s  peak +{one['peak'] >> 20} MB  {len(one['findings'])} findings",
        flush=True,
    )
    for file, text in one["findings"].items():
        print(f"    {file}: {text}", flush=True)


def _sum(results: dict[str, dict[str, Any]]) -> None:
    n, deep = (sum(one[key] for one in results.values()) for key in ("n", "n_deep"))
    print(f"{'in all':12} {n:8} executions  {100 * deep / max(n, 1):5.1f} % past the headers")


if __name__ == "__main__":
    sys.exit(main())
