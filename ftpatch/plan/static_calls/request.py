"""What the user asks of `static-calls --set`, and what it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ftpatch.elf.function_types import FunctionTypes
from ftpatch.errors import PolicyError, UsageError
from ftpatch.plan.request import Against
from ftpatch.sites.static_calls import StaticCallTable
from ftpatch.sites.static_keys import KEY, TRAMPOLINE

if TYPE_CHECKING:
    from ftpatch.plan.module.imports import Import
    from ftpatch.sites.scan import Scan

NULL, RETURN0 = "NULL", "return0"  # what a key may be set to besides a function
NO_FILES = Against()
GLOBS = "*?[]/!"
N_SAMPLES = 3  # keys that an error names


class Setting(NamedTuple):
    """One --set."""

    key: str  # without __SCK__
    to: str  # NULL, return0, or a function as the user names it

    @property
    def option(self) -> str:
        """What the user wrote in front of the function."""
        return f"--set {self.key}="


@dataclass(frozen=True)
class SetRequest:
    """Keys, and what each is to call from now on."""

    settings: tuple[Setting, ...]
    force_signature: bool = False  # take a function with other parameters or another result
    skip_unpatchable: bool = False  # leave out keys that cannot be set, instead of refusing
    against: Against = NO_FILES  # modules


class Goal(NamedTuple):
    """What one key is to call."""

    kind: str  # NULL, RETURN0 or "function"
    name: str  # for people
    types: FunctionTypes | None = None  # of the file with the function; None where none was given, and for NULL
    row: int = -1  # of its symbol there; −1 for NULL
    # modules: row of its symbol in the module; −1 for one that it does not use yet, which is `wanted` then
    own_row: int = -1
    wanted: Import | None = None
    why: str = ""  # why nothing is known of the function


@dataclass
class SetDraft:
    """A request on its way to a plan: the obstacles found so far."""

    scan: Scan
    table: StaticCallTable
    request: SetRequest
    goals: dict[int, Goal]  # by row of the table of keys
    reasons: dict[int, str] = field(default_factory=dict)  # why a key stays as it is, by that
    signatures: dict[int, str] = field(default_factory=dict)  # what reports say of types, likewise
    warnings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)  # notes for the plan
    returns: set[int] = field(default_factory=set)  # va of code that is rewritten as a return at boot, once it is read

    @cached_property
    def trampoline_kinds(self) -> list[str | None]:
        """By key, see StaticCallTable."""
        return self.table.trampoline_kinds()

    @cached_property
    def holds(self) -> list[str]:
        """What each key holds: NULL, RETURN0 or "function"."""
        func = self.table.keys.func
        kinds = np.where(self.table.is_return0(), RETURN0, "function")
        return [str(kind) for kind in np.where((func.sec < 0) & (func.symbol < 0), NULL, kinds)]

    def refuse(self, key: int, reason: str) -> None:
        """Hold a reason against a key; the first one against a key stands."""
        self.reasons.setdefault(key, reason)

    def open(self) -> list[int]:
        """Keys without a reason against them, ascending."""
        return sorted(key for key in self.goals if key not in self.reasons)

    def name(self, key: int) -> str:
        return self.table.keys.name[key]

    def require_all(self) -> None:
        """Refuse the whole request where some key cannot be set, unless the user allows to leave it out."""
        if not self.reasons or self.request.skip_unpatchable:
            return
        lines = [f"{self.name(key)}: {reason}" for key, reason in sorted(self.reasons.items())]
        raise PolicyError(
            f"{len(self.reasons)} of {len(self.goals)} static calls cannot be set", self.scan.image.path,
            found="; ".join(lines[:N_SAMPLES]) + ("; …" if len(lines) > N_SAMPLES else ""),
            expected="all of them, or nothing is written", todo="--skip-unpatchable sets the others",
            details=tuple(lines),
        )  # fmt: skip


def read_settings(texts: Sequence[str]) -> tuple[Setting, ...]:
    """The settings of KEY=FUNC, each. Raises UsageError for what is none, and for a key that is named twice."""
    settings: dict[str, Setting] = {}
    for text in texts:
        key, equals, to = (part.strip() for part in text.partition("="))
        key = key.removeprefix(KEY).removeprefix(TRAMPOLINE)
        if not (key and equals and to):
            raise UsageError("not a setting", f"--set {text}", expected="KEY=FUNC, a static call and what it calls")
        if any(char in key for char in GLOBS):
            raise UsageError("--set takes one static call", f"--set {text}", found=f"a pattern: {key}",
                             expected="the name of a key", todo="ftpatch static-calls --key lists names")  # fmt: skip
        if key in settings:
            raise UsageError("a static call is set twice", key, found=f"{settings[key].to} and {to}",
                             expected="one function")  # fmt: skip
        settings[key] = Setting(key, to)
    return tuple(settings.values())
