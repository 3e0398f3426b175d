"""Runs that are killed, or refused something, at one of the system calls by which they write."""

from __future__ import annotations

import ctypes
import errno
import importlib
import os
import pkgutil
import random
import signal
import subprocess
import sys
from collections import Counter
from functools import cache, partial
from pathlib import Path

import ftpatch
from tools.faults.cases import Case, Folder, cases, changed, fill, result, run_here, state, temporaries, third_states

SOURCE = Path(__file__).with_name("shim.c")
NOTHING, KILL_BEFORE, KILL_BEHIND, FAIL, FAIL_FROM_HERE, HALF = range(6)
LACKS = (0, 0, 0, 1, 2)  # nothing, O_TMPFILE, linkat of a nameless file
NUMBERS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)
ACTIONS = {"killed before": KILL_BEFORE, "killed behind": KILL_BEHIND, "one call fails": FAIL,
           "all fail from then on": FAIL_FROM_HERE, "half a write": HALF}  # fmt: skip


def with_shim(folder: Path) -> ctypes.CDLL:
    """The shim, with which this process was started; where it was not, it is started anew."""
    if "ftpatch-shim" not in os.environ.get("LD_PRELOAD", ""):
        library = folder / "ftpatch-shim.so"
        subprocess.run(["cc", "-Wall", "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
        os.execve(sys.executable, [sys.executable, "-m", "tools.faults", *sys.argv[1:]],
                  {**os.environ, "LD_PRELOAD": str(library)})  # fmt: skip
    return ctypes.CDLL(os.environ["LD_PRELOAD"])


def load_everything() -> None:
    """Have all of ftpatch in memory, so that a child need not load it."""
    for module in pkgutil.walk_packages(ftpatch.__path__, "ftpatch."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def campaign(seed: int, runs: int, folder: Path, shim: ctypes.CDLL) -> tuple[Counter[str], list[str]]:
    """Counts of what happened, and a line for each third state."""
    chance, counts, wrong = random.Random(f"calls {seed}"), Counter[str](), []
    load_everything()
    result_of = cache(partial(result, folder))
    n_calls = cache(partial(count_calls, folder, shim))
    everything = cases(folder)
    for number in range(runs):
        case = chance.choice(everything)
        after = result_of(case)
        action, lacks = chance.choice(list(ACTIONS)), chance.choice(LACKS)
        at, error = chance.randint(1, n_calls(case, lacks)), chance.choice(NUMBERS)
        fill(folder, case.given)
        arm = partial(shim.shim_arm, ctypes.c_long(at), ACTIONS[action], error, lacks)
        code, told = run_here(folder, list(case.arguments), arm)
        counts["runs"] += 1
        counts[action] += 1
        counts["left a temporary name"] += bool(temporaries(folder))
        what = f"run {number}: {case.name}, {action} at call {at}, {errno.errorcode[error]}, lacks {lacks}: "
        broken = code == -signal.SIGKILL or ACTIONS[action] in (FAIL_FROM_HERE, HALF)
        faults = judged(case, after, folder, code, told, broken)
        counts["third states"] += bool(faults)
        wrong += [what + fault for fault in faults]
    return counts, wrong


def count_calls(folder: Path, shim: ctypes.CDLL, case: Case, lacks: int) -> int:
    """How many calls of the case's run there are to disturb."""
    fill(folder, case.given)
    run_here(folder, list(case.arguments), partial(shim.shim_arm, ctypes.c_long(0), NOTHING, 0, lacks))
    return int(shim.shim_count())


def judged(case: Case, after: Folder, folder: Path, code: int, told: str, broken: bool) -> list[str]:
    """What is wrong with the folder that the run left, and with the next run.

    broken: nothing could be done any more, not even cleaning up.
    """
    now, left = state(folder), temporaries(folder)
    faults = [f"{name} is neither old nor new" for name in third_states(case.given, after, now)]
    states = changed(case.given, after, now)
    if states == {"old", "new"} and now.get(case.output) != case.given.get(case.output):
        faults.append("the output without its reports")
    if code != -signal.SIGKILL:
        late = "written, but its directory cannot be flushed" in told
        expected = {"new"} if code == 0 or late else {"old"}
        if states != expected and (code == 0 or not broken):
            faults.append(f"exit code {code}, and the files are {states}: {told}")
        if code not in (0, 3) or (code == 3 and told.count("\n") != 1):
            faults.append(f"exit code {code}: {told}")
        if left and not broken:
            faults.append(f"{left} left by a run that was not killed: {told}")
    return faults + next_run(case, after, folder, states, left)


def next_run(case: Case, after: Folder, folder: Path, states: set[str], left: list[str]) -> list[str]:
    """What is wrong with a second, undisturbed run: it ends as if there had been no first one."""
    if case.in_place and states == {"new"}:
        return []  # there is nothing more to do
    code, told = run_here(folder, list(case.arguments))
    if code or state(folder) != after or temporaries(folder):
        return [f"the next run: exit code {code}, {temporaries(folder)}: {told}"]
    if told.count("removed, left by an interrupted run") != len(left):
        return [f"the next run does not say that it removed {left}: {told}"]
    return []
