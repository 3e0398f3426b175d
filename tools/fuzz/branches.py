"""Which branches of its files each target takes: some of its inputs run once more, under coverage.py."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
N_INPUTS = 100  # of a target, beside its seeds and its corpus; a slow tracer follows each
CHILD = "import sys; from tools.fuzz.branches import child; child(*sys.argv[1:])"


def child(folder: str, name: str, seed: str) -> None:
    """A process for one target; prints branches taken, and branches, of the files that it explores."""
    coverage = importlib.import_module("coverage")
    meter = coverage.Coverage(branch=True, data_file=None, include=[f"{ROOT}/ftpatch/*"], config_file=False)
    meter.start()
    from tools.fuzz.bounds import Tally, bounded, execute
    from tools.fuzz.guided import corpus_of
    from tools.fuzz.targets import TARGETS

    target, tally, corpus = TARGETS[name], Tally(), corpus_of(folder, name)
    with bounded():
        for data in target.seeds(True):
            execute(target, data, tally)
        for path in sorted(corpus.iterdir()) if corpus.exists() else ():
            execute(target, path.read_bytes(), tally)
        for number in range(N_INPUTS):
            execute(target, target.case(int(seed), number, True), tally)
    meter.stop()
    with tempfile.TemporaryDirectory() as top:
        meter.json_report(outfile=f"{top}/report.json", show_contexts=False)
        files = json.loads(Path(top, "report.json").read_text())["files"]
    sums = [
        file["summary"]
        for path, file in files.items()
        if f"/{path}".partition("/ftpatch/")[2].startswith(target.explores)
    ]
    print(json.dumps([sum(each[key] for each in sums) for key in ("covered_branches", "num_branches")]))


def of_targets(folder: str, names: Sequence[str], seed: int, n_processes: int) -> Iterator[tuple[str, int, int]]:
    """(target, branches taken, branches) of each; nothing without coverage.py."""

    def of_target(name: str) -> tuple[str, int, int]:
        done = subprocess.run([sys.executable, "-c", CHILD, folder, name, str(seed)], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        taken, n = json.loads(done.stdout.splitlines()[-1])
        return name, taken, n

    try:
        importlib.import_module("coverage")
    except ImportError:
        return
    with ThreadPoolExecutor(n_processes) as pool:
        yield from pool.map(of_target, names)
