"""`make sabotage`: every kind of damage in kernels and modules of Debian's; exit code 1 if one is not found.
With --runs: a seeded campaign of random changes to what is made of the fixtures, without any kernel.

Each file is patched in a few ways first, and must be found sound as it is. A kind is caught where one of its own rules
tells it; a dash means that it does not apply.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from ftpatch.cli import run
from tools import kernels
from tools.sabotage import KINDS, Mutation, Victim, damaged, victim_of
from tools.sabotage.campaign import campaign, fixtures, results

NAMES = ("arm64-6.1", "arm64-6.12", "ppc64le-6.1", "ppc64le-6.12", "ppc64le-sid", "x86_64-6.1", "x86_64-6.12")
FUNCTIONS = ("vfs_read", "vfs_write", "proc_reg_open", "do_sys_open*", "kernel_clone")
REDIRECTS = ("--map", "vfs_read=vfs_write", "--map", "proc_reg_open=vfs_write")
SETTINGS = ("--set", "pv_sched_clock=read_tsc", "--set", "might_resched=NULL")
FORCED = ("--force-signature", "--assume-register-args")
MODULE, HOOK = "dummy.ko*", "dump_stack"
CAUGHT, MISSED, OTHERWISE, NOTHING = "+", "MISSED", "(+)", "-"


@dataclass(frozen=True)
class Way:
    """One patch of one file: what the table calls it, the file, the options of the verb, and the verb."""

    name: str
    path: Path
    options: tuple[str, ...]
    verb: str = "enable"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.sabotage", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(NAMES), help="kernels (default: all, and a module each)")
    parser.add_argument("--seed", type=int, default=1, help="of a campaign")
    parser.add_argument("--runs", type=int, default=0, help="a campaign of so many random changes instead of all kinds")
    options = parser.parse_args()
    if options.runs:
        return random_changes(options.seed, options.runs)
    columns: dict[str, dict[str, str]] = {}
    for way in (way for name in options.names for way in ways(name)):
        columns[way.name] = column(way)
        print(f"{way.name}: {summary(columns[way.name])}", flush=True)
    print()
    show(columns)
    return int(any(MISSED in found.values() for found in columns.values()))


def random_changes(seed: int, runs: int) -> int:
    """A campaign over the fixtures; 1 where something was accepted without a reason, or nothing could be said."""
    silent = redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO())
    with tempfile.TemporaryDirectory(prefix="sabotage-") as folder, silent[0], silent[1]:
        score = campaign(list(results(fixtures(), Path(folder))), seed, runs)
    for what, lines in (("legal", score.legal), ("ACCEPTED", score.missed), ("CRASHED", score.crashed)):
        print("".join(f"{what}  {line}\n" for line in lines), end="")
    print(", ".join(f"{rule} {n}" for rule, n in score.found.most_common()))
    n = len(score.legal) + len(score.missed)
    print(f"seed {seed}: {score.runs} runs, {n} accepted, {len(score.legal)} of them equal to another legal request; "
          f"{len(score.crashed)} crashed")  # fmt: skip
    return int(bool(score.missed or score.crashed))


def ways(name: str) -> Iterator[Way]:
    """The patches of one kernel and of a module of its build."""
    kernel, tree = kernels.ensure(name), kernels.modules(name)
    some = tuple(option for function in FUNCTIONS for option in ("--func", function))
    yield Way(name, kernel.vmlinux, some)
    if name == "arm64-6.12":
        yield Way(f"{name} thunk", kernel.vmlinux, (*some, "--ops-via", "thunk"))
    if name == "arm64-6.1":
        yield Way(f"{name} shrink", kernel.vmlinux, (*some, "--records", "shrink"))
    if name == "ppc64le-6.12":
        yield Way(f"{name} far", kernel.vmlinux, ("--section", ".init.text", "--func", "*", "--skip-unpatchable"))
    path = sorted(tree.rglob(MODULE))[0]
    against = ("--func", "dummy_*", "--func", "!dummy_validate", "--skip-unpatchable", "--against", str(kernel.vmlinux))
    yield Way(f"{name} ko hook", path, (*against, "--hook", HOOK))
    if name.startswith("x86_64"):  # whose ftrace_caller no module can call
        yield Way(f"{name} static", kernel.vmlinux, (*SETTINGS, "--force-signature"), "static-calls")
        path = sorted(tree.rglob("btrfs.ko*"))[0]
        own = (
            "--set",
            "tp_func_btrfs_sync_file=NULL",
            "--set",
            "tp_func_btrfs_inode_new=__traceiter_btrfs_inode_evict",
        )
        yield Way(
            f"{name} ko static", path, (*own, "--force-signature", "--against", str(kernel.vmlinux)), "static-calls"
        )
        return
    yield Way(f"{name} ko", path, against)
    yield Way(f"{name} redirect", kernel.vmlinux, (*REDIRECTS, "--force-signature"), "redirect")
    becomes = ("--map", "dummy_dev_init=dummy_get_stats64", "--map", "dummy_change_carrier=netif_carrier_on")
    yield Way(f"{name} ko redirect", path, (*becomes, *FORCED, "--against", str(kernel.vmlinux)), "redirect")


def column(way: Way) -> dict[str, str]:
    """What became of every kind of damage."""
    with tempfile.TemporaryDirectory(dir=kernels.cache_directory(), prefix="sabotage-") as folder:
        out, journal = Path(folder, "after.ko" if ".ko" in way.path.name else "after"), Path(folder, "journal")
        arguments = [way.verb, str(way.path), *way.options, "-o", str(out), "--report", f"json={journal}"]
        if quietly(arguments)[0]:
            raise SystemExit(f"{way.name}: ftpatch {' '.join(arguments)} failed")
        if rules := found_in(way.path, out):
            raise SystemExit(f"{way.name} is not sound as it is: {', '.join(rules)}")
        victim = victim_of(way.path, out, journal)
        return {kind.name: attempt(kind, victim, way.path) for kind in KINDS}


def attempt(kind: Mutation, victim: Victim, before: Path) -> str:
    """What verify says of one kind of damage."""
    damage = kind.make(victim)
    if damage is None:
        return NOTHING
    with damaged(victim, damage):
        rules = found_in(before, victim.path)
    return CAUGHT if rules & kind.rules else OTHERWISE if rules else MISSED


def found_in(before: Path, after: Path) -> set[str]:
    """The rules that verify finds broken; `unreadable` where it refuses the file."""
    code, text = quietly(["verify", str(before), str(after), "--format", "json"])
    if code == 0:
        return set()
    if code != 1:
        if code not in (3, 4):
            raise SystemExit(f"verify ended with exit code {code}")
        return {"unreadable"}
    return {finding["rule"] for finding in json.loads(text)["images"][0]["findings"]}


def quietly(arguments: list[str]) -> tuple[int, str]:
    """Exit code and stdout of one command line."""
    stdout = io.StringIO()
    with redirect_stdout(stdout), redirect_stderr(io.StringIO()):
        code = run(arguments)
    return code, stdout.getvalue()


def summary(found: dict[str, str]) -> str:
    n = {what: sum(1 for one in found.values() if one == what) for what in (CAUGHT, OTHERWISE, MISSED, NOTHING)}
    counts = f"{n[CAUGHT]} caught, {n[OTHERWISE]} caught by another rule, {n[MISSED]} missed"
    return f"{counts}, {n[NOTHING]} do not apply"


def show(columns: dict[str, dict[str, str]]) -> None:
    """Kinds by files."""
    for number, name in enumerate(columns):
        print(f"{number + 1:>3}  {name}")
    print(f"{'':<44}" + "".join(f"{number + 1:>4}" for number in range(len(columns))))
    for kind in KINDS:
        print(f"{kind.name:<44}" + "".join(f"{found[kind.name]:>4}" for found in columns.values()))


if __name__ == "__main__":
    sys.exit(main())
