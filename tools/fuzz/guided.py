"""Inputs that coverage chooses: libFuzzer, by atheris, where it is installed.

What takes a branch that nothing has taken yet joins the corpus, unless it ends at the headers; its mutations are those
of the target. The same seed gives the same inputs, as long as the program is the same.
"""

from __future__ import annotations

import importlib
import os
import random
import sys
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing these imports the package, which is to be instrumented first
    from tools.fuzz.bounds import Tally
    from tools.fuzz.server import Ledger, Slice

ROOT = Path(__file__).parents[2]
OPTIONS = (
    "-timeout=3600",
    "-rss_limit_mb=0",
    "-max_len=131072",
    "-len_control=0",
    "-verbosity=0",
    "-mutate_depth=1",
)  # fmt: skip  (a mutation here is one change or a few already)
OTHERS = ("numpy", "zstandard", "capstone", "cryptography")  # not ours to instrument


def atheris() -> Any:
    """The package, or None."""
    try:
        return importlib.import_module("atheris")
    except ImportError:
        return None


def corpus_of(folder: str, target: str) -> Path:
    return Path(folder) / target / "corpus"


def runner(folder: str) -> Any:
    """A function that runs a slice so; its corpora are kept in `folder`."""
    from tools.fuzz.bounds import execute
    from tools.fuzz.files import clean
    from tools.fuzz.targets import TARGETS

    def run(work: Slice, tally: Tally, ledger: Ledger) -> None:
        target, engine, corpus = TARGETS[work.target], atheris(), corpus_of(folder, work.target)
        corpus.mkdir(parents=True, exist_ok=True)
        for data in target.seeds(work.real):
            (corpus / sha256(data).hexdigest()[:16]).write_bytes(data)

        def one(data: bytes) -> int:
            ledger.begin(work.start + tally.n, data)
            deep = execute(target, data, tally)
            if tally.n % 32 == 31:
                ledger.save(tally)
            if work.start + tally.n >= work.end:
                ledger.save(tally)
                clean()
                os._exit(0)  # libFuzzer has no other end that leaves its memory alone
            return 0 if deep else -1

        def mutated(data: bytes, max_size: int, seed: int) -> bytes:
            return bytes(target.mutate(data, random.Random(seed)))[:max_size]

        seed = f"-seed={work.seed * 1000 + work.start // 1000 + 1}"
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), sys.stderr.fileno())
        engine.Setup([sys.argv[0], seed, *OPTIONS, str(corpus)], one, custom_mutator=mutated)
        engine.Fuzz()

    return run


def instrument() -> None:
    """Import every module of the package so that its branches are counted; before anything else has imported it."""
    for name in OTHERS:
        importlib.import_module(name)
    hook = importlib.import_module("atheris.import_hook").HookManager
    with hook({"ftpatch"}, set(), False, trace_dataflow=False):  # tracing comparisons, it leaks numpy's arrays
        for path in sorted((ROOT / "ftpatch").rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            if not name.endswith("__main__"):
                importlib.import_module(name.removesuffix(".__init__"))
