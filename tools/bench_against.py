"""`tools.bench --against DIR`: this checkout against another one, in the same rounds of the same run.

Both run under the same Python, one after the other, round by round; what counts is processor time, which a noisy
neighbour changes little, and the greatest memory of all rounds. A line with more than SLOWER times the time is marked.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools import kernels
from tools.bench_cost import FUNCTION, Cost, measure

HERE = str(Path(__file__).resolve().parents[1])
SLOWER = 1.1
ROUNDS = 5


def commands_for(source: str, folder: Path, function: str) -> dict[str, Sequence[str]]:
    """The verbs on one kernel, each behind those whose files it reads."""
    journal, all_of_them = str(folder / "journal.json"), ("--func", "*", "--skip-unpatchable", "-o")
    one, many = str(folder / "one"), str(folder / "all")
    return {
        "scan": ["scan", source],
        "scan --format json": ["scan", "--format", "json", source],
        "check": ["check", source],
        "explain": ["explain", function, source],
        "enable one": ["enable", source, "--func", function, "-o", one],
        "diff": ["diff", source, one],
        "enable all": ["enable", source, *all_of_them, many],
        "enable all + journal": ["enable", source, *all_of_them, many, "--report", f"json={journal}"],
        "verify": ["verify", source, many],
        "verify + journal": ["verify", source, many, "--journal", journal],
        "restore": ["restore", many, "--journal", journal, "-o", str(folder / "back")],
    }


def against(other: str, names: Sequence[str]) -> bool:
    """Print a table for each kernel, and for the tree of modules; whether nothing got slower."""
    slower = []
    for name in names:
        if name == "tree":
            folder = str(kernels.modules("ppc64le-6.12"))
            commands: dict[str, Sequence[str]] = {verb: [verb, folder] for verb in ("scan", "check")}
            slower += _table(name, other, commands)
            continue
        kernel = kernels.ensure(name)
        work = Path(tempfile.mkdtemp(prefix="ftpatch-bench-", dir=kernel.vmlinux.parent))
        try:
            slower += _table(name, other, commands_for(str(kernel.vmlinux), work, FUNCTION[kernel.arch]))
        finally:
            shutil.rmtree(work)
    print(f"\nslower than {SLOWER} x: {', '.join(slower) or 'nothing'}")
    return not slower


def _table(name: str, other: str, commands: dict[str, Sequence[str]]) -> list[str]:
    """Print one table; the verbs that got slower."""
    costs: dict[tuple[str, str], list[Cost]] = {}
    for number in range(ROUNDS + 1):
        for verb, arguments in commands.items():
            for folder in (other, HERE) if number % 2 else (HERE, other):
                cost = measure([sys.executable, "-P", "-m", "ftpatch", *arguments], folder)
                if number:  # the first round compiles, and brings files into the cache
                    costs.setdefault((verb, folder), []).append(cost)
    print(f"\n{name}: processor time, by the clock, memory; {other} and then this checkout")
    slower = []
    for verb in commands:
        was, now = (_typical(costs[verb, folder]) for folder in (other, HERE))
        ratio = now.cpu / was.cpu
        slower += [f"{verb} of {name}"] * (ratio > SLOWER)
        times = f"{was.cpu:7.3f} s {now.cpu:7.3f} s {ratio:5.2f} x   {was.wall:7.3f} s {now.wall:7.3f} s"
        memory = f"{was.resident / 1e3:5.0f} MB {now.resident / 1e3:5.0f} MB"
        print(f"  ftpatch {verb:<22} {times}   {memory}{'  SLOWER' * (ratio > SLOWER)}")
    return slower


def _typical(costs: Sequence[Cost]) -> Cost:
    return Cost(statistics.median(cost.wall for cost in costs), statistics.median(cost.cpu for cost in costs),
                max(cost.resident for cost in costs))  # fmt: skip
