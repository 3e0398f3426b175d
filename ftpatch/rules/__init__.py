"""The linter: rules about patch sites, one function each; the register has all there is to say of them.

A rule is asked only where it can apply: `kinds` of files, and `needs`, names of what a case must have for it. It looks
at whole columns and makes a Python object only for what it found; it never changes anything, and says nothing twice
that another rule says. Severities: an error breaks tracing, the kernel or the load; a warning loses sites or is one
step from it; a note is worth knowing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftpatch.errors import printable
from ftpatch.finding import Finding

if TYPE_CHECKING:
    from ftpatch.rules.case import Case, Hit

ANY = ("vmlinux", "module", "object", "program")  # kinds of files
RELOCATABLE = ("module", "object")


@dataclass(frozen=True)
class Rule:
    """What can be found, by any verb. The texts are those of register.toml."""

    id: str
    severity: str
    title: str  # one line
    why: str = ""  # what it means
    todo: str = ""  # what to do about it
    source: str = ""  # where that is known from
    label: str = ""  # what text calls so many of it
    kinds: tuple[str, ...] = ANY
    needs: tuple[str, ...] = ("records", "table")
    find: Callable[[Case], Iterable[Hit]] | None = None  # None for what `diff` and `verify` find in their own way
    verb: str = "check"  # who asks it

    @property
    def help(self) -> str:
        """The whole text, for those who met the rule for the first time."""
        return " ".join(part for part in (self.why, self.todo, self.source and f"Source: {self.source}.") if part)

    def applies(self, case: Case) -> bool:
        """Whether the case has what the rule looks at."""
        return case.kind in self.kinds and all(_has(case, name) for name in self.needs)


def _has(case: Case, name: str) -> bool:
    value = getattr(case, name)
    return value is not None and (name != "kconfig" or bool(value))  # a configuration without options is none


@dataclass(frozen=True)
class Found:
    """A finding, and for one without a function the symbol in front of it: together they outlive a rebuild."""

    finding: Finding
    after: str | None = None


def check(case: Case, rules: Sequence[Rule]) -> list[Found]:
    """What the rules find in one file, in their order and the order of its rows."""
    found = []
    for rule in rules:
        if rule.find is not None and rule.applies(case):
            found += [_found(case, rule, hit) for hit in rule.find(case)]
    return found


def _found(case: Case, rule: Rule, hit: Hit) -> Found:
    function, row, section, offset, after = hit.function, hit.index, hit.section, hit.offset, None
    table = case.sites
    if hit.index is not None and table is not None:
        sec, function = int(table.sec[hit.index]), function or table.name(hit.index)
        row = int(table.row[hit.index]) if table.row[hit.index] >= 0 else None
        if sec >= 0:
            section, offset = case.image.names[sec], int(table.off[hit.index] + table.site[hit.index])
        if function is None and sec >= 0:
            after = case.before_symbol(int(table.va[hit.index]))
    message = printable(hit.text)
    finding = Finding(
        rule.id, rule.severity, message, case.image.path, function, row, section, offset, count=hit.count
    )  # fmt: skip
    return Found(finding, after)
