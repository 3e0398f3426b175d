"""What is expected of a site, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SiteExpectation:
    """What one enabled site must do when its function is called."""

    name: str  # of the function, for messages
    entry: int  # va of its local entry
    resume: int  # va of the first original instruction behind the site
    target: int  # va where execution must arrive; `resume` where a stub does all by itself
    ops: int | None  # va of the object that the target will find; None where it looks for none
    tail: bool = False  # the target is a C function, called by a stub: it changes what such a function may change


@dataclass(frozen=True)
class Outcome:
    """What an emulator saw."""

    n: int  # sites executed
    failures: tuple[str, ...] = ()  # a line each
    skipped: str = ""  # why nothing was executed; empty where it was
