"""Mutation after mutation of the seeds of one target, for a number of executions or of seconds."""

from __future__ import annotations

import atexit
import importlib
import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any


@dataclass(frozen=True)
class Job:
    """What one process does. folder: where its corpus is kept and its result goes."""

    target: str
    folder: str
    runs: int
    seconds: float
    seed: int


def blind(target: Any, job: Job, tally: Any) -> None:
    """Mutations of seeds, and of mutations that got past the headers; without feedback, the same in every run."""
    from tools.fuzz.bounds import execute

    rng, pool, end = random.Random(job.seed), list(target.seeds(True)), monotonic() + job.seconds
    while tally.n < job.runs and monotonic() < end:
        data = target.mutate(rng.choice(pool), rng)
        if execute(target, data, tally) and len(pool) < 4096 and rng.random() < 0.02:
            pool.append(data)


def atheris() -> Any:
    """The package, or None."""
    try:
        return importlib.import_module("atheris")
    except ImportError:
        return None


def guided(engine: Any, target: Any, job: Job, tally: Any) -> None:
    """As libFuzzer leads: what takes a new branch joins the corpus, unless it ends at the headers. Does not return."""
    from tools.fuzz.bounds import execute
    from tools.fuzz.targets import clean

    corpus = Path(job.folder) / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for data in target.seeds(True):
        (corpus / sha256(data).hexdigest()[:16]).write_bytes(data)
    end = monotonic() + job.seconds

    def one(data: bytes) -> int:
        deep = execute(target, data, tally)
        if tally.n >= job.runs or monotonic() > end:
            save(job, tally)
            clean()
            sys.stdout.flush()
            os._exit(0)  # libFuzzer has no other end that leaves its memory alone
        return 0 if deep else -1

    def mutated(data: bytes, max_size: int, seed: int) -> bytes:
        return bytes(target.mutate(data, random.Random(seed)))[:max_size]

    options = [f"-seed={job.seed}", "-timeout=0", "-rss_limit_mb=0", "-max_len=65536", "-len_control=0"]
    options += ["-mutate_depth=1", "-verbosity=0", f"-artifact_prefix={job.folder}/"]
    # a mutation here is one change or a few already
    engine.Setup([sys.argv[0], *options, str(corpus)], one, custom_mutator=mutated)
    engine.Fuzz()


def save(job: Job, tally: Any) -> None:
    """The result for the parent, and every finding as a file."""
    folder = Path(job.folder)
    findings = {}
    for text, data in tally.findings.items():
        name = f"finding-{sha256(text.encode()).hexdigest()[:12]}"
        (folder / name).write_bytes(data)
        findings[name] = text
    figures = {"n": tally.n, "n_deep": tally.n_deep, "n_sound": tally.n_sound, "slowest": tally.slowest}
    (folder / "result.json").write_text(json.dumps({**figures, "peak": tally.peak, "findings": findings}))


def child(arguments: Sequence[str]) -> None:
    """A process for one target; `arguments` is the job as JSON."""
    job = Job(**json.loads(arguments[0]))
    engine = atheris()
    if engine is None:
        from tools.fuzz import targets
    else:
        for name in ("numpy", "zstandard", "capstone", "cryptography"):  # not ours to instrument
            importlib.import_module(name)
        hook = importlib.import_module("atheris.import_hook").HookManager
        with hook({"ftpatch"}, set(), False, trace_dataflow=False):  # tracing comparisons, it leaks numpy's arrays
            _everything()
            from tools.fuzz import targets
    from tools.fuzz.bounds import Tally, bounded, execute

    target = targets.TARGETS[job.target]
    Path(job.folder).mkdir(parents=True, exist_ok=True)
    scratch = Tally()
    for data in target.seeds(True):  # everything is imported and every cache is filled before memory is counted
        execute(target, data, scratch)
    tally = Tally(findings=scratch.findings)
    atexit.register(save, job, tally)
    with bounded():
        if engine is None:
            blind(target, job, tally)
        else:
            guided(engine, target, job, tally)


def _everything() -> None:
    """Import every module of the package, which loads most of them when they are needed."""
    root = Path(__file__).parents[2]
    for path in sorted((root / "ftpatch").rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        if "proof" not in name and not name.endswith("__main__"):
            importlib.import_module(name.removesuffix(".__init__"))


def parent(job: Job) -> dict[str, Any]:
    """Run a job in a process of its own; its result."""
    import subprocess

    result = Path(job.folder) / "result.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, "-c", "import sys; from tools.fuzz.engine import child; child(sys.argv[1:])"]
    done = subprocess.run([*command, json.dumps(asdict(job))], capture_output=True, text=True, check=False)
    if not result.exists():
        raise SystemExit(f"{job.target}: the process ended with {done.returncode}\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(result.read_text())
    return found
