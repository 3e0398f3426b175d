"""`make faults`: runs that write, disturbed at random; exit code 1 if one leaves what it must not.

Killed and refused at system calls (calls), several at once on the same names (races), and signals at any moment of a
whole program (signals). One seed gives the same choices; the moments of races and signals are the machine's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tools.faults import calls, interrupts, races

SHOWN = 10  # faults of each campaign that are shown


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.faults", description=__doc__)
    for name, n in (("calls", 2000), ("races", 300), ("signals", 500)):
        parser.add_argument(f"--{name}", type=int, default=n, metavar="N", help=f"runs (default: {n})")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as top:
        shim = calls.with_shim(Path(top)) if options.calls else None
        bad = 0
        for name, n in (("calls", options.calls), ("races", options.races), ("signals", options.signals)):
            folder = Path(top, name)
            folder.mkdir()
            if name == "calls" and shim:
                bad += show(name, *calls.campaign(options.seed, n, folder, shim))
            elif name == "races" and n:
                bad += show(name, *races.campaign(options.seed, n, folder))
            elif n:
                bad += show(name, *interrupts.campaign(options.seed, n, folder))
    return int(bad > 0)


def show(name: str, counts: Counter[str], wrong: list[str]) -> int:
    """Print what a campaign found; how many faults."""
    print(f"{name}: " + ", ".join(f"{what} {n}" for what, n in counts.items()), flush=True)
    for line in wrong[:SHOWN]:
        print(f"  {line}", flush=True)
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main())
