"""Plants the defect that each rule of `check` is for in kernels and modules, and prints what is found: make mutations.

    python -m tools.mutations [--rule RULE] [NAME...]      NAME: arm64-6.1, … or mini

A cell is `found` where exactly the rule fires beyond what the sound file has (and rules that cannot but fire with it),
`-` where the defect cannot be in such a file. A changed module's signature is stale: that goes without saying, and is
left out everywhere but in its own rows. Files are copied to memory once, changed in place and put back.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from ftpatch import api
from ftpatch.kernel.module import Kernel
from ftpatch.rules import KeyedFinding, check
from ftpatch.rules.case import Context
from ftpatch.rules.register import rules_for
from ftpatch.rules.run import open_case
from ftpatch.rules.signed import certificates
from tools import kernels
from tools.defects_beside import DEFECTS
from tools.modules import plain
from tools.planting import Plant, Subject

KERNELS = ("arm64-6.1", "arm64-6.12", "ppc64le-6.1", "ppc64le-6.12", "ppc64le-sid", "x86_64-6.1", "x86_64-6.12")
OTHER = {"arm64-6.1": "arm64-6.12", "arm64-6.12": "arm64-6.1", "ppc64le-6.1": "ppc64le-6.12",
         "ppc64le-6.12": "ppc64le-6.1", "ppc64le-sid": "ppc64le-6.12", "x86_64-6.1": "x86_64-6.12",
         "x86_64-6.12": "x86_64-6.1"}  # fmt: skip
MODULES = ("tun", "btrfs")  # the second where the first cannot have the defect
MINI = Path(__file__).parent.parent / "testdata"
FIXTURES = {  # with a kernel of another machine for modules; theirs have no table of exports
    **dict.fromkeys(("mini/vmlinux-kcfi", "mini/vmlinux-pfe2", "mini/vmlinux-callops", "mini/clang-sections.o",
                     "mini/callops.o", "mini-ppc64le/vmlinux-ool", "mini-ppc64le/vmlinux-pfe2",
                     "mini-ppc64le/vmlinux-mprofile", "mini-ppc64le/pfe2.o")),
    "mini/mini.ko": "mini-ppc64le/vmlinux-pfe2", "mini-ppc64le/mini.ko": "mini/vmlinux-pfe2",
}  # fmt: skip
KERNELS_OWN = (
    "module-layout",
    "module-vermagic",
    "module-versions",
    "module-symbols",
    "signature-stale",
    "loader-section/init",
)  # rules that compare a module with its kernel
UNSAID = "signature-stale"
Counts = Counter[tuple[str, str, str]]


@dataclass(frozen=True)
class Bench:
    """A copy of one file that defects are planted in, and the kernels beside it."""

    name: str
    path: Path
    subject: Subject
    own: str | None
    other: str | None
    foreign: str | None
    sound: list[Counts] = field(default_factory=list)  # what is found in it without a defect, once that was asked


def kernel(path: str) -> Kernel:
    """A kernel that modules are compared with."""
    scan = api.scan(path)
    return Kernel(scan)


def findings(bench: Bench, plant: Plant, cache: dict[str, Kernel]) -> Counts:
    """(rule, function or what is in front of it, section) of everything that is found in the file as it is now."""
    found = checked(bench, plant, cache)
    return Counter(
        (one.finding.rule, one.finding.function or one.after or "", one.finding.section or "") for one in found
    )


def checked(bench: Bench, plant: Plant, cache: dict[str, Kernel]) -> list[KeyedFinding]:
    """What is found in the file as it is now, with what stands beside it."""
    case = open_case(str(bench.path))
    beside = {"own": bench.own, "other": bench.other, "foreign": bench.foreign, "self": None}[plant.against]
    context = Context(None, None, plant.before, plant.kconfig, plant.must)
    if beside and case.kind == "module":
        if beside not in cache:
            cache[beside] = kernel(beside)
        context = replace(context, kernel=cache[beside], certificates=certificates(cache[beside].image))
    if plant.against == "self":
        context = replace(context, before=bench.subject.scan.sites)
    return check(replace(case, context=context), rules_for())


def planted(bench: Bench, plant: Plant, cache: dict[str, Kernel]) -> Counts:
    """What is found with the defect in the file; the file is as before afterwards."""
    with in_place(bench, plant):
        return findings(bench, plant, cache)


@contextmanager
def in_place(bench: Bench, plant: Plant) -> Iterator[None]:
    """The file with the defect; it is as before afterwards."""
    with open(bench.path, "r+b", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        tail = os.pread(file.fileno(), plant.cut, size - plant.cut) if plant.cut else b""
        old = []
        try:
            for pos, new in plant.edits:
                old.append((pos, os.pread(file.fileno(), len(new), pos)))
                os.pwrite(file.fileno(), new, pos)
            if plant.cut:
                file.truncate(size - plant.cut)
            yield
        finally:
            if tail:
                os.pwrite(file.fileno(), tail, size - plant.cut)
            for pos, was in reversed(old):
                os.pwrite(file.fileno(), was, pos)


def verdict(rule: str, bench: Bench, cache: dict[str, Kernel]) -> str:
    """`found`, `-`, or what went wrong."""
    plant = DEFECTS[rule](bench.subject) if bench.subject.plain else None
    alone = bench.own is None and bench.subject.scan.image.kind == "module" and rule in KERNELS_OWN
    rule = rule.partition("/")[0]
    if plant is None or alone:
        return "-"
    if not bench.sound:
        bench.sound.append(findings(bench, Plant(), cache))
    new = planted(bench, plant, cache) - bench.sound[0]
    rules = {name for name, _, _ in new}
    extra = rules - {rule, *plant.also, *({UNSAID} if rule != UNSAID else ())}
    if rule not in rules:
        return f"MISSED ({', '.join(sorted(rules)) or 'nothing'})"
    return f"ALSO {', '.join(sorted(extra))}" if extra else "found"


def benches(names: Sequence[str], folder: Path) -> Iterator[list[Bench]]:
    """The benches that make one column each: a kernel, the modules of a kernel, a fixture."""
    for name in names:
        if name == "mini":
            yield from ([fixture(one, folder)] for one in FIXTURES)
            continue
        one = kernels.ensure(name)
        own, other = str(one.vmlinux), str(kernels.ensure(OTHER[name]).vmlinux)
        foreign = str(kernels.ensure("ppc64le-6.1" if name.startswith("arm64") else "arm64-6.12").vmlinux)
        yield [_bench(name, one.vmlinux.read_bytes(), folder, own, other, foreign)]
        tree = one.vmlinux.parent / "modules"
        found = [next(iter(sorted(tree.rglob(f"{module}.ko*"))), None) for module in MODULES]
        yield [_bench(f"{name} {path.name}", plain(path), folder, own, other, foreign) for path in found if path]


def fixture(name: str, folder: Path) -> Bench:
    """A bench for a file of testdata."""
    foreign = FIXTURES.get(name)
    data = (MINI / name).read_bytes()
    return _bench(name.replace("/", " "), data, folder, None, None, str(MINI / foreign) if foreign else None, name)


def _bench(name: str, data: bytes, folder: Path, own: str | None, other: str | None, foreign: str | None,
           stock: str = "") -> Bench:  # fmt: skip
    path = folder / name.replace(" ", "-").removesuffix(".xz")
    path.write_bytes(data)
    source = folder / f"{path.name}.sound"  # the subject's own bytes stay sound
    source.write_bytes(data)
    return Bench(name, path, Subject(api.scan(str(source)), stock), own, other, foreign)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the matrix; exit code 1 if a cell is not as it should be."""
    parser = argparse.ArgumentParser(description="Plant every defect in every kernel.")
    parser.add_argument("names", nargs="*", default=["mini", *KERNELS])
    parser.add_argument("--rule", action="append", choices=sorted(DEFECTS))
    wanted = parser.parse_args(arguments)
    bad, n = 0, 0
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        for column in benches(wanted.names, Path(folder)):
            cache: dict[str, Kernel] = {}
            print(f"== {', '.join(bench.name for bench in column)}", flush=True)
            for rule in wanted.rule or DEFECTS:
                said = next((one for bench in column if (one := verdict(rule, bench, cache)) != "-"), "-")
                n += said != "-"
                bad += said not in ("found", "-")
                print(f"   {rule:<24} {said}", flush=True)
            for bench in column:
                bench.path.unlink()
                (bench.path.parent / f"{bench.path.name}.sound").unlink()
    print(f"{n} planted, {n - bad} found alone, {bad} not")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
