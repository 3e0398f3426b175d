"""Flips bits of what a patch wrote into programs: sites, stub, program headers, section headers, names, ELF header.

    python -m tools.sabotage.programs [--step N]

Every bit of each N-th byte is flipped once. What `verify` accepts must call another function than the sound result
does, as another request may have named that one. Nothing is executed: that would only find more.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from ftpatch.cli import run
from ftpatch.errors import FtpatchError
from ftpatch.proof.prove import Checks, Proof, prove
from ftpatch.recovered.image import open_image
from ftpatch.sites.scan import Scan, scan_file

SMALL = Path(__file__).parents[2] / "testdata" / "programs" / "small"
FILES = tuple(f"{machine}-{kind}" for machine in ("arm64", "ppc64le", "x86_64") for kind in ("pie", "exec", "so"))
WAYS = (("--func", "work", "--func", "numbers", "--hook", "hook"), ("--func", "vectors", "--hook", "outside"))
HEADER = range(16, 64)  # of the ELF file, behind what tells its class
MANY_ZEROS, SOME = 16, 64  # bytes of zeros of which only some are looked at, one of so many


@dataclass
class Score:
    """What came of the flips."""

    found: Counter[str] = field(default_factory=Counter)  # by the first rule that told
    legal: list[str] = field(default_factory=list)  # accepted: it calls another function
    missed: list[str] = field(default_factory=list)


def places(proof: Proof, content: bytes, size: int) -> list[int]:
    """File positions of what a patch wrote, of the ELF header, and of some of many zeros. size: of the first file."""
    changed = {at for start, end in zip(proof.runs.start.tolist(), proof.runs.end.tolist(), strict=True)
               for at in range(start, end)}  # fmt: skip
    zeros = 0
    for at in range(size, len(content)):
        zeros = zeros + 1 if not content[at] else 0
        if zeros < MANY_ZEROS or not at % SOME:
            changed.add(at)
    return sorted(changed | set(HEADER))


def flips(content: bytes, where: Sequence[int], step: int) -> Iterator[tuple[str, bytes]]:
    """Each flip of one bit, with its name."""
    for at in where[::step]:
        for bit in range(8):
            damaged = bytearray(content)
            damaged[at] ^= 1 << bit
            yield f"bit {bit} of {at:#x}", bytes(damaged)


def judged(before: Scan, path: Path) -> Proof | None:
    """The proof of a file; None where it cannot be read."""
    try:
        return prove(before, open_image(str(path)), checks=Checks(execute=False))
    except FtpatchError:
        return None


def attack(program: Path, options: Sequence[str], folder: Path, step: int) -> Score:
    """Flip bits of a patched program."""
    after, damaged, score = folder / "after", folder / "damaged", Score()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        code = run(["enable", str(program), *options, "-o", str(after)])
    before, content = scan_file(str(program)), after.read_bytes()
    sound = judged(before, after)
    assert code == 0 and sound is not None and not sound.findings, f"{program.name} is not sound as it is"
    where = places(sound, content, len(before.image.data))
    for name, bad in flips(content, where, step):
        damaged.write_bytes(bad)
        proof = judged(before, damaged)
        if proof is None:
            score.found["unreadable"] += 1
        elif proof.findings:
            score.found[proof.findings[0].rule] += 1
        else:
            other = dict(proof.callees) != dict(sound.callees)
            text = f"{program.name}: {name}: calls {', '.join(proof.callees)}"
            (score.legal if other else score.missed).append(text)
    return score


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.sabotage.programs", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(FILES))
    parser.add_argument("--step", type=int, default=1)
    given = parser.parse_args()
    missed = False
    with tempfile.TemporaryDirectory(prefix="sabotage-") as folder:
        for name in given.names:
            for way in WAYS:
                score = attack(SMALL / name, way, Path(folder), given.step)
                missed |= bool(score.missed)
                print("".join(f"{what}  {line}\n" for what, lines in (("legal", score.legal), ("MISSED", score.missed))
                              for line in lines), end="")  # fmt: skip
                print(f"{name}: {', '.join(f'{rule} {n}' for rule, n in score.found.most_common())}", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
