"""Boot one image and print the verdict: python -m tools.boot IMAGE."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from tools.boot import BootError, Place, Verdict, boot


def main() -> int:
    """Return 0 for a healthy boot, 1 for one with problems, 2 for one that could not be carried out."""
    options = _options()
    try:
        verdict = boot(
            options.image,
            arch=options.arch,
            names=options.name,
            kaslr=not options.nokaslr,
            watch=options.watch,
            text=options.text,
            modules=options.module,
            nic=options.nic,
            watch_module=options.watch_module,
            steps=options.step,
            expected_taint=options.expected_taint,
            timeout=options.timeout,
            log=options.log,
        )
    except (BootError, ValueError) as error:
        print(f"tools.boot: {error}", file=sys.stderr)
        return 2
    _print(verdict)
    return 1 if verdict.problems else 0


def _options() -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.boot", description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--arch", default="arm64")
    parser.add_argument("--name", action="append", default=[], help="count the tracer's hits of this function")
    parser.add_argument("--watch", action="append", default=[], type=_address, help="count executions at this address")
    parser.add_argument("--text", type=_address, help="link-time address of _stext, to watch with KASLR on")
    parser.add_argument("--module", action="append", default=[], type=Path, help="load this module, after those before")
    parser.add_argument("--nic", action="store_true", help="add a virtio network card")
    parser.add_argument(
        "--watch-module",
        action="append",
        default=[],
        type=_place,
        metavar="MODULE:SYMBOL+OFFSET",
        help="count executions at this place in a module",
    )
    parser.add_argument(
        "--expected-taint", type=_address, default=0, help="what the kernel's taint shall be in the end"
    )
    parser.add_argument("--step", action="append", default=[], help="have the guest do this in the end, see steps.c")
    parser.add_argument("--nokaslr", action="store_true")
    parser.add_argument("--timeout", type=float, default=120)
    parser.add_argument("--log", type=Path, help="write the console here")
    return parser.parse_args()


def _address(text: str) -> int:
    """Return the address that `text` gives in any notation Python knows."""
    return int(text, 0)


def _place(text: str) -> Place:
    """Return the place in a module that `text` gives as MODULE:SYMBOL or MODULE:SYMBOL+OFFSET."""
    module, _, rest = text.partition(":")
    symbol, _, offset = rest.partition("+")
    if not symbol:
        raise ValueError(text)
    return module, symbol, _address(offset or "0")


def _print(verdict: Verdict) -> None:
    """Print each field on a line: addresses in hexadecimal, of the functions just how many."""
    for field in fields(verdict):
        value = getattr(verdict, field.name)
        if field.name == "console":
            continue
        if field.name == "functions" and value is not None:
            value = f"{len(value)} listed"
        elif field.name == "text" and value is not None:
            value = hex(value)
        elif field.name == "symbols":
            value = f"{len(value)} known"
        elif field.name == "executed":
            value = {hex(address): count for address, count in value.items()}
        print(f"{field.name}: {value}")
    for problem in verdict.problems:
        print(f"problem: {problem}")


if __name__ == "__main__":
    sys.exit(main())
