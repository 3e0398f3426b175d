"""`tools.bench sites`: what a patch site costs, from 125,000 sites to a million, in time and in memory.

What is linear costs as much for each of a million sites as for each of 125,000; the figures beside them say how much
more, and a line is marked that has more than LINEAR times as much.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools import synthetic
from tools.bench_cost import FTPATCH, Cost, measure

SIZES = (125_000, 250_000, 500_000, 1_000_000)
EMPTY = 1_000  # sites of the kernel whose cost is that of a start, and is taken off
LINEAR = 1.25


def commands_for(vmlinux: Path) -> dict[str, Sequence[str]]:
    """The commands of one kernel, in this order."""
    source, out = str(vmlinux), f"{vmlinux}.patched"
    all_of_them = ["enable", source, "--func", "*", "-o"]
    return {
        "scan": [FTPATCH, "scan", source],
        "check": [FTPATCH, "check", source],
        "enable all": [FTPATCH, *all_of_them, out],
        "enable all + journal": [FTPATCH, *all_of_them, f"{out}2", "--report", f"json={vmlinux}.json"],
        "verify": [FTPATCH, "verify", source, out],
    }


def costs(machine: synthetic.Machine, n: int) -> dict[str, Cost]:
    """What each command costs for a kernel of n sites. Its files take some hundred bytes a site, for the moment."""
    with tempfile.TemporaryDirectory(prefix="ftpatch-bench-") as folder:
        vmlinux = Path(folder, "vmlinux")
        synthetic.vmlinux(vmlinux, machine, n)
        return {name: measure(command) for name, command in commands_for(vmlinux).items()}


def table(name: str, sizes: Sequence[int] = SIZES) -> None:
    """The table of one machine: microseconds of processor time and bytes of memory for each site."""
    machine = synthetic.MACHINES[name]
    costs(machine, EMPTY)  # compiles
    start, by_size = costs(machine, EMPTY), {n: costs(machine, n) for n in sizes}
    print(f"\n{name}: synthetic kernels; processor time and memory of each site, and against {sizes[0]} sites")
    for verb in start:
        for n, cost in ((n, by_size[n][verb]) for n in sizes):
            first = by_size[sizes[0]][verb]
            site, of_first = each(cost, start[verb], n), each(first, start[verb], sizes[0])
            ratios = [mine / theirs for mine, theirs in zip(site, of_first, strict=True)]
            mark = "  NOT LINEAR" if max(ratios) > LINEAR else ""
            print(f"  ftpatch {verb:<22} {n:>9} sites {cost.cpu:8.2f} s {cost.resident / 1e3:6.0f} MB  "
                  f"{site[0]:6.1f} µs {site[1]:6.0f} B  {ratios[0]:4.2f} x {ratios[1]:4.2f} x{mark}")  # fmt: skip


def each(cost: Cost, start: Cost, n: int) -> tuple[float, float]:
    """(microseconds of processor time, bytes) of each of n sites, beside those of a start."""
    return (cost.cpu - start.cpu) / n * 1e6, (cost.resident - start.resident) * 1024 / n
