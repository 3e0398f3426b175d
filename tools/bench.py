"""`make bench`: what ftpatch costs on real files, as ratios against everyday tools, all measured in one run.

The files are a vmlinux each, and the tree of all modules of a build (`tools.bench tree` measures that alone). Every
command runs in turn, ROUNDS times over, so that a noisy neighbour hits all of them alike; the median counts. `sites`
are synthetic kernels, which show what a site costs; `--against DIR` compares with another checkout.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools import bench_against, bench_sites, kernels, synthetic
from tools.bench_cost import FTPATCH, FUNCTION, measure

ROUNDS, TREE_ROUNDS = 7, 3
STATIC_CALLS = ("x86_64",)  # machines whose kernels have some
KERNELS = ("arm64-6.12", "ppc64le-6.12", "ppc64le-sid", "x86_64-6.12")


def run(commands: dict[str, Sequence[str]], rounds: int = ROUNDS) -> dict[str, tuple[float, int]]:
    """Median seconds and greatest resident size of each command."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    resident = dict.fromkeys(commands, 0)
    for command in commands.values():  # compiles, and brings files into the cache
        measure(command)
    for _ in range(rounds):
        for name, command in commands.items():
            cost = measure(command)
            seconds[name].append(cost.wall)
            resident[name] = max(resident[name], cost.resident)
    return {name: (statistics.median(seconds[name]), resident[name]) for name in commands}


def commands_for(vmlinux: Path, folder: Path, function: str) -> dict[str, Sequence[str]]:
    """The commands of one kernel, ours and the everyday ones."""
    copy, out = str(folder / "copy"), str(folder / "patched")
    source = str(vmlinux)
    journal = f"json={folder / 'journal.json'}"
    return {
        "nm -S": ["nm", "-S", source],
        "readelf -sW": ["readelf", "-sW", source],
        "cp": ["cp", source, copy],
        "sync": ["sync", copy],
        "sha256sum": ["sha256sum", source],
        "--version": [FTPATCH, "--version"],
        "TAB": [FTPATCH, "completion", "zsh", "--answer", "--", "5", "", "", "ftpatch", "enable", source, "--func", ""],
        "scan": [FTPATCH, "scan", source],
        "scan --format json": [FTPATCH, "scan", "--format", "json", source],
        "enable one": [FTPATCH, "enable", source, "--func", function, "-o", out],
        "enable one + journal": [
            FTPATCH, "enable", source, "--func", function, "-o", out, "--report", journal,
        ],
        # but for one, whose record stays: some kernels cannot be without any
        "enable all": [
            FTPATCH, "enable", source, "--func", "*", "--func", f"!{function}", "--skip-unpatchable", "-o", out,
        ],
    }  # fmt: skip


def report(name: str, size: int, result: dict[str, tuple[float, int]]) -> None:
    """The table of one kernel: each of our commands against what it is held against."""
    second = {key: took for key, (took, _) in result.items()}
    writing = second["cp"] + second["sync"] + 2 * second["sha256sum"] + 2 * second["nm -S"]
    print(f"\n{name}: vmlinux of {size / 1e6:.0f} MB")
    for key in ("nm -S", "readelf -sW", "cp", "sync", "sha256sum"):
        print(f"  {key:<22} {second[key]:7.3f} s")
    print(f"  cp + sync + 2 sha256sum + 2 nm -S = {writing:.3f} s")
    rows = [
        ("--version", None, "", "aim: 0.08 s"),
        ("TAB", None, "", "aim: 0.2 s, all functions"),  # the first, which reads the kernel, is not measured
        ("scan", second["nm -S"], "nm -S", "aim: 1.0, 90 MB"),
        ("scan", second["readelf -sW"], "readelf -sW", ""),
        ("scan --format json", second["nm -S"], "nm -S", ""),
        ("enable one", writing, "that sum", "aim: 1.2"),
        ("enable one + journal", writing, "that sum", "hashes both files too"),
        ("enable all", writing, "that sum", f"aim: that + 1 s = {1 + 1 / writing:.2f}"),
    ]
    if "static-calls" in second:
        rows.append(("static-calls", second["nm -S"], "nm -S", "aim: 1.2"))
    for key, against, what, aim in rows:
        ratio = f"{second[key] / against:5.2f} x {what}" if against else ""
        print(f"  ftpatch {key:<22} {second[key]:7.3f} s  {result[key][1] / 1e3:5.0f} MB  {ratio:<22} {aim}")


def tree(name: str) -> None:
    """The table of one tree of modules: scans of all of them against unpacking them in one process."""
    folder = str(kernels.modules(name))
    n = sum(1 for _ in Path(folder).rglob("*.ko.xz"))
    unpack = 'find "$1" -type f -name "*.ko.xz" -print0 | xargs -0 xz -dc'
    scan = [FTPATCH, "scan", folder]
    commands: dict[str, Sequence[str]] = {
        "xz -dc": ["sh", "-c", unpack, "sh", folder],
        "scan": scan,
        "scan --jobs 1": [*scan, "--jobs", "1"],
        "scan --format csv": [*scan, "--format", "csv"],
    }
    result = run(commands, TREE_ROUNDS)
    unpacked = result["xz -dc"][0]
    print(f"\n{name}: {n} modules, {TREE_ROUNDS} rounds; xz -dc of all {unpacked:.3f} s; memory of the largest process")
    for key in list(commands)[1:]:
        took, size = result[key]
        aim = "aim: 0.9" if key == "scan" else ""
        print(f"  ftpatch {key:<22} {took:7.3f} s  {size / 1e3:5.0f} MB  {took / unpacked:5.2f} x xz -dc  {aim}")


def main() -> None:
    arguments = argparse.ArgumentParser(prog="tools.bench", description=__doc__)
    arguments.add_argument("names", nargs="*", help="kernels by name, tree, sites; all of them where none is named")
    arguments.add_argument("--against", metavar="DIR", help="another checkout, whose times are those to compare with")
    given = arguments.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; median of {ROUNDS} rounds"
    )
    if given.against:
        sys.exit(not bench_against.against(given.against, given.names or (*KERNELS, "tree")))
    for name in given.names or (*KERNELS, "tree", "sites"):
        if name == "tree":
            tree("ppc64le-6.12")
            continue
        if name == "sites":
            for machine in synthetic.MACHINES:
                bench_sites.table(machine)
            continue
        kernel = kernels.ensure(name)
        folder = Path(tempfile.mkdtemp(prefix="ftpatch-bench-", dir=kernel.vmlinux.parent))
        try:
            commands = commands_for(kernel.vmlinux, folder, FUNCTION[kernel.arch])
            if kernel.arch in STATIC_CALLS:
                commands["static-calls"] = [FTPATCH, "static-calls", str(kernel.vmlinux)]
            report(name, kernel.vmlinux.stat().st_size, run(commands))
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
