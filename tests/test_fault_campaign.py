"""A small part of `make faults`: runs killed, refused, racing and interrupted at random leave old files or new ones."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.alone


@pytest.mark.skipif(shutil.which("cc") is None, reason="install a C compiler")
def test_disturbed_runs_leave_no_third_state() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.faults", "--calls", "30", "--races", "3", "--signals", "4", "--seed", "7"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    calls, races, interrupted = done.stdout.splitlines()
    assert re.match(r"calls: runs 30, .*third states 0\b", calls)
    assert re.match(r"races: races 3, .*ended badly 0$", races)
    assert re.match(r"signals: runs 4, .*ended badly 0\b", interrupted)
