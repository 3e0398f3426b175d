"""Whole programs that get a signal at any moment, from the start of Python on."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from ftpatch.signals import INTERRUPTED
from tools.faults.cases import MINI, ROOT, Folder, changed, fill, run_here, special, state, temporaries, third_states

PROGRAM = [sys.executable, "-B", str(ROOT / "bin/ftpatch")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
N_MODULES = 300
LATER = 1.2  # of the time that a run takes: some signals come when it is over
SIGNALS = (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
# How Python answers Ctrl-C before the first line of the program: with a traceback that names no file of ours.
PYTHONS_OWN = re.compile(r"(?s)^(?!.*/ftpatch/(?!bin/)).*KeyboardInterrupt\n$")


@dataclass(frozen=True)
class Program:
    """A command line, what it leaves and says undisturbed, and how long that takes."""

    arguments: Sequence[str]
    after: Folder
    code: int
    told: str  # on stderr
    seconds: float


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    out: str
    told: str
    children: bool  # whether a process of its group is left


def campaign(seed: int, runs: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """Counts of how the runs ended, and a line for each that ended badly."""
    chance, counts, wrong = random.Random(f"signals {seed}"), Counter[str](), []
    work, given = folder / "work", make_inputs(folder)
    program_of = cache(partial(undisturbed, work, given))
    everything = command_lines(folder / "tree")
    for number in range(runs):
        program, signum = program_of(*chance.choice(everything)), chance.choice(SIGNALS)
        times, group = chance.choice((1, 1, 2)), chance.random() < 0.3
        at = chance.random() * LATER * program.seconds
        fill(work, given)
        ended = interrupted(program.arguments, work, [signum] * times, group, at)
        how, faults = judged(program, ended, signum, given, work)
        counts["runs"] += 1
        counts[how] += 1
        counts["ended badly"] += bool(faults)
        wrong += [
            f"run {number}, {' '.join(program.arguments[:2])}, {signum.name} at {at:.3f} s: {fault}" for fault in faults
        ]
    return counts, wrong


def make_inputs(folder: Path) -> Folder:
    """A tree of modules in the folder; and the files that every run finds."""
    (folder / "work").mkdir()
    (folder / "tree").mkdir()
    for i in range(N_MODULES):
        shutil.copyfile(MINI / "mini.ko", folder / "tree" / f"{i}.ko")
    fill(folder / "work", {"vmlinux": special((MINI / "vmlinux-callops").read_bytes())})
    run_here(folder / "work", ["enable", "vmlinux", "--func", "vfs_read", "-o", "patched", "--report", "json=journal"])
    return {**state(folder / "work"), "out": special(b"old\n"), "report": special(b"old\n")}


def command_lines(tree: Path) -> list[list[str]]:
    """Every verb."""
    report = ["--report", "json=report"]
    return [
        ["--version"], ["scan", "vmlinux", *report], ["scan", str(tree), "--jobs", "2", *report],
        ["enable", "vmlinux", "--func", "vfs_*", "-o", "out", *report],
        ["enable", "vmlinux", "--func", "vfs_*", "--in-place", *report],
        ["disable", "patched", "--func", "vfs_read", "-o", "out", *report],
        ["drop", "vmlinux", "--func", "vfs_read", "-o", "out", *report],
        ["restore", "patched", "--journal", "journal", "-o", "out"], ["image", "vmlinux", "-o", "out"],
        ["verify", "vmlinux", "patched", "--journal", "journal", *report], ["check", "vmlinux", "patched", *report],
        ["diff", "vmlinux", "patched", *report], ["explain", "vfs_read", "vmlinux", *report],
    ]  # fmt: skip


def undisturbed(work: Path, given: Folder, *arguments: str) -> Program:
    """The command line, run once to its end."""
    fill(work, given)
    began = time.monotonic()
    done = subprocess.run(
        [*PROGRAM, *arguments], cwd=work, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    return Program(arguments, state(work), done.returncode, done.stderr, time.monotonic() - began)


def interrupted(arguments: Sequence[str], work: Path, signals: Sequence[int], group: bool, at: float) -> Ended:
    """How a run ends that gets these signals, one behind the other, so many seconds from its start."""
    run = subprocess.Popen(
        [*PROGRAM, *arguments], cwd=work, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    time.sleep(at)
    for signum in signals:
        (os.killpg if group else os.kill)(run.pid, signum)  # not reaped yet, so the number is its own
    out, told = run.communicate(timeout=60)
    try:
        os.killpg(run.pid, 0)
        children = True
    except ProcessLookupError:
        children = False
    return Ended(run.returncode, out, told, children)


def judged(program: Program, ended: Ended, signum: int, given: Folder, work: Path) -> tuple[str, list[str]]:
    """How the run ended, in a few words, and what is wrong with that."""
    now = state(work)
    faults = [f"{name} is neither old nor new" for name in third_states(given, program.after, now)]
    if len(changed(given, program.after, now)) > 1:
        faults.append("files of this run and others")
    if temporaries(work):
        faults.append(f"left {temporaries(work)}")
    if ended.children:
        faults.append("left a process")
    if ended.code == program.code and ended.told == program.told:
        return "finished before", faults
    if ended.code == -signum and not ended.out + ended.told:
        return "ended by the signal itself", faults
    if signum == signal.SIGINT and PYTHONS_OWN.match(ended.told) and ended.code in (1, -signum):
        return "in Python's own start", faults
    line = f"{INTERRUPTED}\n" if signum == signal.SIGINT else ""
    if ended.code != 128 + signum or ended.told.removeprefix(program.told) not in ("", line):
        faults.append(f"exit code {ended.code}: {ended.told[-300:]}")
    return "exit code 128 + n", faults
