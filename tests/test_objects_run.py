"""Objects patched, linked and run: the output stays, and the tracer is called as often as _mcount was."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tools.programs import ensure_tools

pytestmark = pytest.mark.corpus
PG = Path(__file__).parent.parent / "testdata" / "pg"
Run = Callable[..., str]
ARM64, PPC64LE = (
    ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"],
    ["qemu-ppc64le", "-L", "/usr/powerpc64le-linux-gnu"],
)
CROSS = {"aarch64": ARM64, "powerpc64le": PPC64LE, "x86_64": []}


class Build(NamedTuple):
    """How work.c is compiled."""

    machine: str
    options: str
    called: str  # what its sites call as compiled
    tracer: str = ""  # options of tracer.S
    clang: bool = False


BUILDS = {
    "arm64-O0": Build("aarch64", "-O0 -pg -DNESTED", "_mcount"),
    "arm64-O2": Build("aarch64", "-O2 -pg -DNESTED", "_mcount"),
    "arm64-clang": Build("aarch64", "-O2 -pg", "_mcount", clang=True),
    "ppc64le-O0": Build("powerpc64le", "-O0 -pg -DNESTED", "_mcount"),
    "ppc64le-O2": Build("powerpc64le", "-O2 -pg -DNESTED", "_mcount"),
    "ppc64le-mprofile": Build("powerpc64le", "-O2 -pg -mprofile-kernel -DNESTED", "_mcount", "-DMPROFILE"),
    "x86_64-O0": Build("x86_64", "-O0 -pg -DNESTED", "mcount"),
    "x86_64-no-pie": Build("x86_64", "-O2 -pg -fno-pie -DNESTED", "mcount"),
    "x86_64-fentry": Build("x86_64", "-O2 -pg -mfentry -DNESTED", "__fentry__"),
    "x86_64-clang": Build("x86_64", "-O2 -pg -mfentry", "__fentry__", clang=True),
}


def done(*command: object) -> str:
    return subprocess.run(
        [str(part) for part in command], check=True, capture_output=True, text=True, timeout=60
    ).stdout


def counts(build: Build, program: Path) -> tuple[int, int, int]:
    """(what the program computed, calls of the tracer, calls of the profiling function)."""
    numbers = re.fullmatch(r"(-?\d+) traced (\d+) profiled (\d+)\n", done(*CROSS[build.machine], program))
    assert numbers is not None
    return int(numbers[1]), int(numbers[2]), int(numbers[3])


@pytest.mark.parametrize("name", BUILDS)
def test_a_patched_object_traces_what_it_profiled(name: str, tmp_path: Path, ftpatch: Run) -> None:
    ensure_tools()
    build = BUILDS[name]
    gcc = f"{build.machine}-linux-gnu-gcc"
    compiler = ["clang", f"--target={build.machine}-linux-gnu"] if build.clang else [gcc]
    pie = ["-no-pie"] if "-fno-pie" in build.options else []
    for source, command in (("work.c", [*compiler, *build.options.split()]), ("main.c", [gcc, "-O1"]),
                            ("tracer.S", [gcc, *build.tracer.split()])):  # fmt: skip
        done(*command, "-c", PG / source, "-o", tmp_path / f"{source[0]}.o")

    def linked(work: str) -> tuple[int, int, int]:
        program = tmp_path / f"{work}.out"
        done(gcc, *pie, "-Wl,-z,execstack", tmp_path / f"{work}.o", tmp_path / "m.o", tmp_path / "t.o", "-o", program)
        return counts(build, program)

    def patched(verb: str, old: str, new: str, *options: str) -> None:
        ftpatch(verb, tmp_path / f"{old}.o", "--func", "*", *options, "-o", tmp_path / f"{new}.o")

    value, traced, n = linked("w")
    assert traced == 0 and n > 1000
    patched("enable", "w", "on", "--target", "tracer")
    patched("disable", "on", "off")
    patched("enable", "off", "again", "--target", "tracer")
    patched("enable", "off", "back", "--target", build.called)
    assert [linked(work) for work in ("on", "off", "again", "back")] == [
        (value, n, 0), (value, 0, 0), (value, n, 0), (value, 0, n),
    ]  # fmt: skip
