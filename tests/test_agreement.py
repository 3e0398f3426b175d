"""Whatever a writing verb publishes, `verify` accepts: with its journal and without, again and again.

Every fixture goes through a table of requests, each of which may refuse; what is written goes through the way back and
through a second patch. Emulation has tests of its own and would take minutes here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftpatch.cli import run
from ftpatch.proof.emulate.expectation import Outcome

TESTDATA = Path(__file__).parent.parent / "testdata"
ARM64, PPC64LE = TESTDATA / "mini", TESTDATA / "mini-ppc64le"
FIXTURES = sorted(path for folder in (ARM64, PPC64LE) for path in folder.iterdir()
                  if path.name.startswith("vmlinux") or path.name == "mini.ko")  # fmt: skip
SETS = {
    "one": ("--func", "row:3"),
    "some": ("--func", "row:5", "--func", "row:6", "--func", "row:7"),
    "named": ("--func", "*"),
    "all": ("--status", "ready", "--status", "weak-leftover"),
    "init": ("--section", ".init.text"),
}
OPS = (("--ops", "nop"), ("--ops-via", "thunk"), ("--ops-via", "literal"))
HOOKS = (("--hook", "_printk"), ("--hook", "mini_util"), ("--ops", "nop"))
FIRST = (
    ("enable", "--func", "row:5", "--func", "row:6", "--func", "row:7"),
    ("enable", "--status", "ready", "--status", "weak-leftover", "--skip-unpatchable"),
    ("drop", "--func", "row:5", "--func", "row:6", "--func", "row:7"),
)
AGAIN = (
    ("disable", "--func", "*", "--skip-unpatchable"),
    ("disable", "--status", "enabled"),
    ("enable", "--func", "row:8"),
    ("enable", "--status", "ready", "--status", "weak-leftover", "--skip-unpatchable"),
    ("drop", "--func", "row:8", "--func", "row:10"),
    ("drop", "--status", "ready", "--status", "weak-leftover", "--skip-unpatchable"),
)
REFUSED = {2, 3, 4, 5}  # usage, input, unsupported, plan


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is emulated, and the disk is not waited for."""
    monkeypatch.setattr("ftpatch.proof.prove.emulate", lambda *_, **__: Outcome(0))
    monkeypatch.setattr(os, "fsync", lambda _: None)


def written(folder: Path, name: str, verb: str, before: Path, *options: str) -> Path | None:
    """What a verb makes of a file, which `verify` finds no fault with; None where the request is refused."""
    after, journal = folder / name, folder / f"{name}.json"
    code = run([verb, str(before), *options, "-o", str(after), "--report", f"json={journal}"])
    if code:
        assert code in REFUSED
        return None
    if "keep" not in options:  # a record that stays is a fault, which only the journal excuses
        assert run(["verify", str(before), str(after)]) == 0
    assert run(["verify", str(before), str(after), "--journal", str(journal)]) == 0
    return after


def requests(path: Path) -> Iterator[tuple[str, ...]]:
    """The options of enable that are tried with every set of sites."""
    module = path.suffix == ".ko"
    for way in ("auto", "shrink", "keep") if module else ("auto", "null", "minus4", "shrink", "keep"):
        yield ("--records", way)
    yield from HOOKS if module else OPS


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_is_written_is_found_sound(fixture: Path, tmp_path: Path) -> None:
    for chosen in SETS.values():
        for options in requests(fixture):
            after = written(tmp_path, "after", "enable", fixture, *chosen, *options)
            if after is None:
                written(tmp_path, "after", "enable", fixture, *chosen, *options, "--skip-unpatchable")
        for way in ("auto", "shrink"):
            written(tmp_path, "dropped", "drop", fixture, *chosen, "--records", way, "--skip-unpatchable")


@pytest.mark.parametrize("first", FIRST, ids=" ".join)
@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_is_written_over_it_is_found_sound(fixture: Path, first: tuple[str, ...], tmp_path: Path) -> None:
    once = written(tmp_path, "once", first[0], fixture, *first[1:])
    for verb, *second in AGAIN if once is not None else ():
        twice = written(tmp_path, "twice", verb, once, *second) if once is not None else None
        if twice is not None and verb == "enable":
            written(tmp_path, "back", "disable", twice, "--status", "enabled", "--skip-unpatchable")
