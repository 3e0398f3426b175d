"""How a failure is told, and the checks that no machine changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ftpatch.errors import printable
from ftpatch.proof.emulate.expectation import SiteExpectation
from ftpatch.proof.emulate.memory import Memory

FRAME = 128  # bytes from the caller's stack pointer upwards that must stay as they were
BIT64 = (1 << 64) - 1


def line(site: SiteExpectation, what: str, found: int | str, expected: int | str) -> str:
    """One failure: name, what, found, expected."""
    shown = [f"{value:#x}" if isinstance(value, int) else value for value in (found, expected)]
    return printable(f"{site.name}: {what}: found {shown[0]}, expected {shown[1]}")


def first_difference(found: Sequence[int], expected: Sequence[int], names: Iterable[tuple[int, str]]) -> str | None:
    """The first register of `names` (index, name) that differs, as the end of a sentence."""
    for at, name in names:
        if found[at] != expected[at]:
            return f"{name}: found {found[at]:#x}, expected {expected[at]:#x}"
    return None


def wrong_ops(memory: Memory, sites: Sequence[SiteExpectation], places: Sequence[int | None]) -> dict[int, str]:
    """Index of a site → why the ops pointer, which its target reads at `places`, is not the one that is expected.

    places: None where a site names no ops or its target finds them elsewhere.
    """
    known = [at for at, place in enumerate(places) if place is not None]
    read = memory.pointers(np.array([places[at] for at in known], dtype=np.uint64))
    failures = {}
    for at, value, right, there in zip(known, read.value.tolist(), read.right, read.present, strict=True):
        site, place = sites[at], places[at]
        if site.ops is None:
            continue
        if not there:
            failures[at] = line(site, "no ops pointer where the target reads it", f"nothing at {place:#x}", site.ops)
        elif value != site.ops:
            failures[at] = line(site, f"the ops pointer at {place:#x}", value, site.ops)
        elif not right:
            failures[at] = line(site, f"the ops pointer at {place:#x} as the kernel moves", "no relocation, or two",
                                "one relocation" if memory.moves else "none")  # fmt: skip
    return failures
