"""What one command takes: seconds, processor time and memory, measured by the kernel."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ENDS_WELL = (0, 1)  # exit codes: 1 is that of findings, which real kernels have
# As after an installation, ftpatch's modules are compiled: some environments forbid to keep what Python compiles.
COMPILED = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(Path(tempfile.gettempdir(), "ftpatch-bench-pyc"))}
FUNCTION = {"arm64": "__arm64_sys_getppid", "ppc64le": "sys_getppid", "x86_64": "__do_sys_getppid"}
FTPATCH = str(Path(sys.executable).with_name("ftpatch"))


class Cost(NamedTuple):
    """What a command takes."""

    wall: float  # seconds by the clock
    cpu: float  # seconds of processors, of the processes that it starts too
    resident: int  # KiB, at most


def measure(command: Sequence[str], package: str = "") -> Cost:
    """The cost of one command, whose output goes nowhere. package: the folder that it imports ftpatch from, "" for the
    installed one."""
    start = time.perf_counter()
    path = {"PYTHONPATH": package} if package else {}
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                             env={**os.environ, **COMPILED, **path})  # fmt: skip
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status) not in ENDS_WELL:
        message = child.stderr.read().decode() if child.stderr else ""
        raise SystemExit(f"{' '.join(command)} failed: {message}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
