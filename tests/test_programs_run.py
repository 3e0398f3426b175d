"""Programs of thousands of functions, hooked one and all, run: their output stays, and each call is counted once.

The sources are made up by tools/program_source.py and program_source_cc.py. Their functions pass arguments in every
way, and the hook leaves nothing in the registers that a C function may change. How many calls there are, a second build
tells: that of -finstrument-functions, for which the same counter is called (no function is inlined in either build).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from ftpatch.sites.scan import scan_file
from tools.program_source import GCC_PLAIN, PLAIN, c_program, write
from tools.program_source_cc import cc_program

PFE = Path(__file__).parent.parent / "testdata" / "mini-ppc64le" / "pfe.py"
FLAGS = ("-O1", "-w", *PLAIN)
N_FUNCTIONS, N_FAMILIES = 2000, 40
# What a compiler makes of itself has sites, and -finstrument-functions leaves it alone: thunks, and what constructs and
# destroys objects that are not in a function.
WRITTEN = "/^(?!_ZThn|_ZTv|_GLOBAL__sub_I_|__cxx_global_var_init|_Z41__static_init)/"  # all others


@dataclass(frozen=True)
class Machine:
    """How programs of a machine are built with sites, and run."""

    c: tuple[str, ...]  # the compiler of C, with what makes sites
    cc: tuple[str, ...]  # that of C++; gcc before 13 loses the records of units that share functions
    run: tuple[str, ...] = ()  # in front of a program
    as_gcc13: str = ""  # the assembler, where gcc 12 puts the NOPs at the wrong entry and they are moved


MACHINES = {
    "x86_64": Machine(("gcc", *GCC_PLAIN, "-fcf-protection", "-fpatchable-function-entry=5"),
                      ("clang++", "-fuse-ld=lld", "-fpatchable-function-entry=8")),
    "arm64": Machine(("aarch64-linux-gnu-gcc", *GCC_PLAIN, "-mbranch-protection=standard",
                      "-fpatchable-function-entry=2"),
                     ("clang++", "--target=aarch64-linux-gnu", "-fuse-ld=lld", "-fpatchable-function-entry=2"),
                     ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")),
    "ppc64le": Machine(("powerpc64le-linux-gnu-gcc", *GCC_PLAIN, "-fpatchable-function-entry=2"),
                       ("powerpc64le-linux-gnu-g++", *GCC_PLAIN, "-fpatchable-function-entry=2"),
                       ("qemu-ppc64le", "-L", "/usr/powerpc64le-linux-gnu"), "powerpc64le-linux-gnu-gcc"),
}  # fmt: skip
REFERENCES = {"c": ("gcc", *GCC_PLAIN, "-finstrument-functions"),
              "cc": ("clang++", "-fuse-ld=lld", "-finstrument-functions")}  # fmt: skip


def call(*command: object, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], input=text, capture_output=True, text=True, check=True)


def compiled(source: Path, folder: Path, compiler: Sequence[str], assembler: str) -> Path:
    """The object of one source; assembler: with NOPs moved to where gcc 13 has them."""
    out = folder / f"{source.name}.o"
    as_c = ("-x", "c") if source.suffix == ".c" and "++" in compiler[0] else ()
    if assembler:
        text = call(*compiler, *FLAGS, *as_c, "-S", source, "-o", "-").stdout
        text = call(sys.executable, PFE, "gcc", "--link", "own", text=text).stdout
        call(assembler, "-x", "assembler", "-c", "-", "-o", out, text=text)
    else:
        call(*compiler, *FLAGS, *as_c, "-c", source, "-o", out)
    return out


def built(folder: Path, out: Path, compiler: Sequence[str], assembler: str = "") -> Path:
    """A program of all sources in a folder."""
    sources = sorted(path for path in folder.iterdir() if path.suffix in (".c", ".cc"))
    (objects := out.with_suffix(".objects")).mkdir()
    with ThreadPoolExecutor(2) as threads:
        work = partial(compiled, folder=objects, compiler=compiler, assembler=assembler)
        parts = list(threads.map(work, sources))
    call(*compiler, *parts, "-pthread", "-o", out)
    return out


def output(program: Path, emulator: Sequence[str] = ()) -> tuple[str, int]:
    """What a program prints, and how many calls it counts."""
    program.chmod(0o755)
    done = call(*emulator, program)
    calls, _, odd, _ = done.stderr.split()
    assert odd == "0"
    return done.stdout, int(calls)


Sources = Callable[[str], tuple[Path, int]]


@pytest.fixture(scope="session")
def sources(kernel: object, tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """A function: language → the folder of its sources, and how many calls its program makes."""
    made: dict[str, tuple[Path, int]] = {}

    def get(language: str) -> tuple[Path, int]:
        if language not in made:
            folder = tmp_path_factory.mktemp(f"run-{language}")
            write(c_program(1, N_FUNCTIONS) if language == "c" else cc_program(1, N_FAMILIES), folder / "source")
            reference = built(folder / "source", folder / "reference", REFERENCES[language])
            made[language] = folder / "source", output(reference)[1]
        return made[language]

    return get


@pytest.mark.corpus
@pytest.mark.parametrize("language", REFERENCES)
@pytest.mark.parametrize("name", MACHINES)
def test_a_hooked_program_runs_as_before_and_each_call_is_counted_once(
    name: str, language: str, sources: Sources, tmp_path: Path, ftpatch: Callable[..., str]
) -> None:
    machine = MACHINES[name]
    folder, n_calls = sources(language)
    program = built(folder, tmp_path / "program", machine.c if language == "c" else machine.cc, machine.as_gcc13)
    before = output(program, machine.run)
    assert before[1] == 0
    assert len(scan_file(str(program)).sites) > (N_FUNCTIONS if language == "c" else 25 * N_FAMILIES)
    every, journal = tmp_path / "every", tmp_path / "journal"
    ftpatch("enable", program, "--func", "*", "--hook", "count_entry", "-o", every, "--report", f"json={journal}")
    stdout, n_hooked = output(every, machine.run)
    assert stdout == before[0] and n_hooked >= n_calls
    ftpatch("verify", program, every, "--journal", journal)
    ftpatch("disable", every, "--func", "*", "-o", tmp_path / "disabled")
    assert output(tmp_path / "disabled", machine.run) == before
    ftpatch("restore", every, "--journal", journal, "-o", tmp_path / "restored")
    assert (tmp_path / "restored").read_bytes() == program.read_bytes()
    ftpatch("enable", program, "--func", WRITTEN, "--hook", "count_entry", "-o", tmp_path / "counted")
    assert output(tmp_path / "counted", machine.run) == (before[0], n_calls)
