"""`make demo-kbuild`: real kernels whose builds check themselves, green and red.

Debian's linux-source-6.12 is built for arm64 and ppc64le, of tinyconfig with the function tracer and one module
(autofs) of seven units, by `make MAKEFILES=` with what `ftpatch kbuild --out` wrote: no file of the tree changes.
Then one thing after the other is broken as it may be in real builds; each time the build has to stop, to name the
source file, and to leave nothing behind that a later make would take. The first run builds for some minutes, later
ones take seconds.

It takes the network once, and make, gcc of both machines, flex, bison, bc and libelf-dev.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ftpatch.cli import run
from tools.apt import Apt, FetchError, extract, newest_first, say
from tools.kernels import cache_directory, ensure_tools

PACKAGE = "linux-source-6.12"
SUITES = ("bookworm-backports", "trixie", "trixie-security")
ON = """
EXPERT MODULES MODULE_UNLOAD 64BIT PPC64 PPC_BOOK3S_64 CPU_LITTLE_ENDIAN PPC_PSERIES PRINTK KALLSYMS PROC_FS SYSFS
MULTIUSER FUTEX FTRACE FUNCTION_TRACER DYNAMIC_FTRACE DEBUG_INFO_DWARF5 DEBUG_INFO_REDUCED
"""
OFF = "PPC_POWERNV COMPAT DEBUG_INFO_NONE"
MODULE, UNIT = "fs/autofs/autofs4.ko", "fs/autofs/expire.c"
OBJECT = "fs/autofs/expire.o"


@dataclass(frozen=True)
class Machine:
    """What a kernel is built with."""

    name: str
    arch: str  # ARCH=
    cross: str
    records: str  # section of an object
    other: str  # an option by which a unit's sites are others


@dataclass(frozen=True)
class Case:
    """A build that something is done to."""

    what: str
    words: tuple[str, ...]  # of make
    refused: str = ""  # the file that must not be left; "": the build has to pass
    named: tuple[str, ...] = ()  # what the build has to say
    strips: bool = False  # the object loses its records first


MACHINES = (
    Machine("arm64", "arm64", "aarch64-linux-gnu-", "__patchable_function_entries", "-fpatchable-function-entry=1"),
    Machine("ppc64le", "powerpc", "powerpc64le-linux-gnu-", "__mcount_loc", "-fpatchable-function-entry=2"),
)


def cases(machine: Machine) -> list[Case]:
    """The builds of one machine, in their order."""
    return [
        Case("a sound build", ("vmlinux", "modules")),
        Case(f"one unit of the module is built with {machine.other}", ("modules", f"CFLAGS_expire.o={machine.other}"),
             MODULE, (UNIT,)),
        Case("the module is built as before again", ("modules",)),
        Case(f"one unit of vmlinux is built with {machine.other}", ("vmlinux", f"CFLAGS_softirq.o={machine.other}"),
             "vmlinux", ("kernel/softirq.c",)),
        Case("the module is stripped as it is linked (ld -s)", ("modules", "LDFLAGS_MODULE=-s"), MODULE,
             ("names-stripped", UNIT)),
        Case("one object of the module loses its record section", ("modules",), MODULE, (UNIT,), strips=True),
        Case("all is built as before again", ("vmlinux", "modules")),
    ]  # fmt: skip


def source(folder: Path) -> Path:
    """The kernel's sources below `folder`, fetched unless they were before."""
    tree = folder / PACKAGE
    if tree.exists():
        return tree
    folder.mkdir(parents=True, exist_ok=True)
    archive, apt = folder / "source.tar.xz", Apt.prepare(cache_directory() / "apt" / "source", "amd64", SUITES)
    _, deb = apt.download(newest_first(PACKAGE, apt.candidates(PACKAGE)), folder)
    extract(deb, {archive.name: f"usr/src/{PACKAGE}.tar.xz"}, folder)
    deb.unlink()
    subprocess.run(["tar", "-C", str(folder), "-xf", str(archive)], check=True)
    archive.unlink()
    return tree


def make(tree: Path, build: Path, machine: Machine, *words: str) -> subprocess.CompletedProcess[str]:
    """A make of the tree; what it says is kept."""
    command = ["make", "-s", "-C", str(tree), f"O={build}", f"ARCH={machine.arch}", f"CROSS_COMPILE={machine.cross}",
               f"-j{os.cpu_count()}", *words]  # fmt: skip
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def configured(tree: Path, build: Path, machine: Machine) -> None:
    """Give a new folder its .config."""
    if (build / ".config").exists():
        return
    build.mkdir(parents=True, exist_ok=True)
    done = make(tree, build, machine, "tinyconfig")
    with (build / ".config").open("a") as config:
        config.writelines(f"CONFIG_{name}=y\n" for name in ON.split())
        config.writelines(f"# CONFIG_{name} is not set\n" for name in OFF.split())
        config.write("CONFIG_AUTOFS_FS=m\n")
    if done.returncode or make(tree, build, machine, "olddefconfig").returncode:
        raise FetchError(f"the kernel cannot be configured: {done.stdout[-500:]}")


def problems(case: Case, code: int, said: str, build: Path) -> list[str]:
    """What is other than it has to be."""
    wrong = [] if (code != 0) == bool(case.refused) else [f"make ended with {code}"]
    wrong += [f"nothing names {text}" for text in case.named if text not in said]
    if case.refused and (build / case.refused).exists():
        wrong.append(f"{case.refused} is still there")
    if case.refused and f"{case.refused}: refused by ftpatch and removed" not in said:
        wrong.append(f"nothing says that {case.refused} was refused")
    if not case.refused:
        wrong += [f"{file} is not there" for file in ("vmlinux", MODULE)
                  if file.partition("/")[0] in " ".join(case.words) and not (build / file).exists()]  # fmt: skip
    return wrong


def shown(said: str) -> list[str]:
    """The lines that matter of what a build said."""
    lines = [line for line in said.splitlines() if not line.startswith(("make", "      ─", "        "))]
    return [line if len(line) < 160 else f"{line[:159]}…" for line in lines[:12]]


def show(tree: Path, build: Path, machine: Machine, words: Sequence[str]) -> int:
    """Run all builds of one machine; how many were not as they have to be."""
    wrong = 0
    for case in cases(machine):
        red = f"red: {case.refused} is refused and removed, the message has {' and '.join(case.named)}"
        print(f"\n{machine.name}: {case.what}\n  expected  {red if case.refused else 'green'}")
        if case.strips:
            strip = [f"{machine.cross}objcopy", "--remove-section", machine.records, str(build / OBJECT)]
            subprocess.run(strip, check=True)
        print(f"  $ make {' '.join(case.words)}", flush=True)
        done = make(tree, build, machine, *words, *case.words)
        print("".join(f"  | {line}\n" for line in shown(done.stdout)), end="")
        found = problems(case, done.returncode, done.stdout, build)
        print(f"  seen      {'red' if done.returncode else 'green'}: "
              + ("; ".join(found) + ": WRONG" if found else "as it has to be"), flush=True)  # fmt: skip
        wrong += bool(found)
        if case.strips:
            (build / OBJECT).unlink(missing_ok=True)
    return wrong


def main() -> int:
    """Return how many builds were not as they have to be."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo_kbuild", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=cache_directory() / "own" / "kbuild", help="of sources and builds"
    )
    parser.add_argument("--machine", choices=[machine.name for machine in MACHINES], help="only this one")
    options = parser.parse_args()
    wrong = 0
    try:
        ensure_tools()
        tree = source(options.folder)
        hook = options.folder / "ftpatch.mk"
        for machine in MACHINES:
            if options.machine in (None, machine.name):
                build = options.folder / machine.name
                configured(tree, build, machine)
                print(f"$ ftpatch kbuild --tree {build} --out {hook}", flush=True)
                if run(["kbuild", "--tree", str(build), "--out", str(hook)]):
                    raise FetchError("ftpatch kbuild refuses the tree")
                program = f"FTPATCH={sys.executable} -m ftpatch"
                wrong += show(tree, build, machine, [f"MAKEFILES={hook}", program])
    except (FetchError, OSError, subprocess.CalledProcessError) as error:
        say(str(error))
        return 1
    print(f"\n{'everything as it has to be' if not wrong else f'{wrong} builds not as they have to be'}")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
