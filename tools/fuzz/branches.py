"""Which branches of the parsers a corpus takes: its inputs run once more, without limits, under coverage.py."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def child(arguments: Sequence[str]) -> None:
    """A process that runs the corpora of some targets; prints branches as JSON. arguments: folder, then targets."""
    coverage = importlib.import_module("coverage")
    with tempfile.TemporaryDirectory() as folder:
        meter = coverage.Coverage(branch=True, data_file=None, include=[f"{ROOT}/ftpatch/*"], config_file=False)
        meter.start()
        from tools.fuzz.bounds import Tally, bounded, execute
        from tools.fuzz.targets import TARGETS

        tally, files = Tally(), set()
        with bounded():
            for name in arguments[1:]:
                files |= set(TARGETS[name].explores)
                for path in sorted((Path(arguments[0]) / name / "corpus").iterdir()):
                    execute(TARGETS[name], path.read_bytes(), tally)
        meter.stop()
        report = Path(folder) / "report.json"
        meter.json_report(outfile=str(report), show_contexts=False)
        found = json.loads(report.read_text())["files"]
    figures = {}
    for name, one in found.items():
        short = name.rpartition("ftpatch/")[2]
        if short in files:
            figures[short] = (one["summary"]["covered_branches"], one["summary"]["num_branches"])
    print(json.dumps(figures))


def of_corpora(folder: str, targets: Sequence[str]) -> dict[str, tuple[int, int]] | None:
    """(branches taken, branches) per file of the package; None without coverage.py."""
    import subprocess

    try:
        importlib.import_module("coverage")
    except ImportError:
        return None
    command = [sys.executable, "-c", "import sys; from tools.fuzz.branches import child; child(sys.argv[1:])"]
    done = subprocess.run([*command, folder, *targets], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found: dict[str, tuple[int, int]] = json.loads(done.stdout.splitlines()[-1])
    return found
