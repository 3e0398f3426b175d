"""Several runs at once on the same names, one of them sometimes killed, and a reader who looks all the time."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path

from tools.faults.calls import load_everything
from tools.faults.cases import MINI, File, begin, fill, run_here, temporaries

FUNCTIONS = ("vfs_read", "vfs_write", "vfs_*", "do_sys*")
KERNEL = File((MINI / "vmlinux-callops").read_bytes())
LATEST = 0.05  # seconds until the last run of a race is begun
KILLED = 0.3  # seconds within which one may be killed


def campaign(seed: int, runs: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """Counts of what happened, and a line for each race that ended badly."""
    load_everything()
    chance, counts, wrong = random.Random(f"races {seed}"), Counter[str](), []
    known = known_outputs(folder)
    for number in range(runs):
        in_place, kills = chance.random() < 0.5, chance.random() < 0.3
        functions = [chance.choice(list(known)) for _ in range(chance.choice((2, 2, 3)))]
        fill(folder, {"vmlinux": KERNEL})
        starts = [chance.random() * LATEST for _ in functions]
        faults, killed = race(functions, starts, in_place, chance.random() * KILLED if kills else None, folder, known)
        counts["races"] += 1
        counts["in place"] += in_place
        counts["one killed"] += killed
        counts["ended badly"] += bool(faults)
        wrong += [
            f"race {number}, {functions}, {'in place' if in_place else 'one output'}: {fault}" for fault in faults
        ]
    return counts, wrong


def known_outputs(folder: Path) -> dict[str, str]:
    """The sha256 of the output of a run alone, by its function; of those that there are."""
    known = {}
    for function in FUNCTIONS:
        fill(folder, {"vmlinux": KERNEL})
        if run_here(folder, ["enable", "vmlinux", "--func", function, "-o", "out"])[0] == 0:
            known[function] = sha256((folder / "out").read_bytes())
    return known


def race(
    functions: list[str],
    starts: list[float],
    in_place: bool,
    kill_at: float | None,
    folder: Path,
    known: dict[str, str],
) -> tuple[list[str], bool]:
    """What is wrong after a race, and whether one of its runs was killed."""
    file = folder / ("vmlinux" if in_place else "out")
    journal = folder / ("vmlinux.ftpatch.json" if in_place else "journal")
    where = ["--in-place"] if in_place else ["-o", "out", "--report", "json=journal"]
    silent = os.open(os.devnull, os.O_WRONLY)
    runs = [begin(folder, ["enable", "vmlinux", "--func", function, *where], silent, partial(time.sleep, start))
            for function, start in zip(functions, starts, strict=True)]  # fmt: skip
    whole, faults = {*known.values(), sha256(KERNEL.content)}, []
    codes: dict[int, int] = {}
    began = time.monotonic()
    while len(codes) < len(runs):  # look at the file until all are done
        if kill_at is not None and time.monotonic() - began > kill_at and runs[0] not in codes:
            os.kill(runs[0], signal.SIGKILL)
            kill_at = None
        if file.exists() and (seen := sha256(file.read_bytes())) not in whole:
            faults.append(f"a reader saw {seen}")
        for pid in set(runs) - codes.keys():
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
    os.close(silent)
    killed = -signal.SIGKILL in codes.values()
    return faults + judged(file, journal, list(codes.values()), killed, in_place, known), killed


def judged(
    file: Path, journal: Path, codes: list[int], killed: bool, in_place: bool, known: dict[str, str]
) -> list[str]:
    """What is wrong with what all runs together left."""
    faults = []
    allowed = {0, -signal.SIGKILL} | ({2, 3, 5} if in_place else set())  # another was faster, and this one says so
    if not set(codes) <= allowed or not {0, -signal.SIGKILL} & set(codes):
        faults.append(f"exit codes {codes}")
    if temporaries(file.parent) and not killed:
        faults.append(f"left {temporaries(file.parent)}")
    there = sha256(file.read_bytes()) if file.exists() else ""
    written = json.loads(journal.read_bytes())["images"][0]["output"]["sha256"] if journal.exists() else ""
    if there not in (*known.values(), *([sha256(KERNEL.content)] if killed and in_place else [""] * killed)):
        faults.append(f"the file is of no run: {there}")
    if there in known.values() and there != written and not killed:
        faults.append(f"the journal is of {written}, the file is {there}")
    if there in known.values() and not written:
        faults.append("a patched file without its journal")
    return faults


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
