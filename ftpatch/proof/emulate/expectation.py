"""What is said of a site, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """What one site is said to do.

    entry: va of the function's local entry; resume: va of the first original instruction behind the site; target: va
    where execution must arrive, equal to `resume` where a stub does all by itself; ops: va of the object that the
    target will find, None where it looks for none. tail: the target is a C function that a stub calls: it may change
    what such a function may change, and returns to the stub.
    """

    name: str
    entry: int
    resume: int
    target: int
    ops: int | None
    tail: bool = False


@dataclass(frozen=True)
class Outcome:
    """n: claims executed; failures: a line each; skipped: why nothing was executed, empty where it was."""

    n: int
    failures: tuple[str, ...] = ()
    skipped: str = ""
