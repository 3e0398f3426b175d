"""`python -m tools.hostile`: hostile command lines, the same ones for the same seed; 1 where a promise is broken.

First every place of every line with every value, then lines with several of them and options that do not belong there.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tools.hostile import commands, place, values
from tools.hostile.run import judged


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.hostile", description=__doc__)
    parser.add_argument("--runs", type=int, default=0, help="command lines (default: each value once, and 2000 more)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verb", help="only lines of this verb")
    parser.add_argument("--slice", default="1/1", help="I/N: of the lines, the Ith of N parts (from 1)")
    options = parser.parse_args()
    lines = list(every_value()) + list(at_random(options.seed, 2000))
    if options.verb:
        lines = [line for line in lines if line[0] == options.verb]
    if options.runs:
        lines = random.Random(options.seed).sample(lines, min(options.runs, len(lines)))
    part, n_parts = map(int, options.slice.split("/"))
    lines = lines[part - 1 :: n_parts]
    broken = campaign(lines)
    print(f"seed {options.seed}: {len(lines)} command lines, {len(broken)} broke a promise")
    return int(bool(broken))


def every_value() -> Iterator[list[str]]:
    """Every sound line, and each with one hostile value."""
    for line in commands.LINES:
        yield commands.filled(line, {})
        for at in commands.places(line):
            for value in values.BY_KIND[commands.kind_of(line[at])]:
                yield commands.filled(line, {at: value})


def at_random(seed: int, n: int) -> Iterator[list[str]]:
    """Lines with several hostile values and some more options."""
    rng = random.Random(seed)
    for _ in range(n):
        line = rng.choice(commands.LINES)
        places = [at for at in commands.places(line) if rng.random() < 0.5]
        words = commands.filled(line, {at: rng.choice(values.BY_KIND[commands.kind_of(line[at])]) for at in places})
        for _ in range(rng.choice((0, 1, 1, 2))):
            at = rng.randrange(1, len(words) + 1)
            words[at:at] = rng.choice(values.EXTRAS)
        yield words


def campaign(lines: list[list[str]]) -> list[tuple[list[str], str]]:
    """The lines that broke a promise, and which; printed as they come."""
    broken: list[tuple[list[str], str]] = []
    home = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="ftpatch-hostile-") as outer:
        top = Path(outer) / "work"  # so that `..` holds nothing else
        top.mkdir()
        sound = place.build(top)
        try:
            for line in lines:
                if wrong := judged(line, top, sound):
                    broken.append((line, wrong))
                    print(f"ftpatch {_shown(line)}\n    {wrong}", flush=True)
        finally:
            os.chdir(home)
    return broken


def _shown(line: list[str]) -> str:
    words = [ascii(word) if not word.isprintable() or not word.isascii() else shlex.quote(word) for word in line]
    return " ".join(word if len(word) < 80 else f"{word[:40]}…({len(word)} characters)" for word in words)


if __name__ == "__main__":
    sys.exit(main())
