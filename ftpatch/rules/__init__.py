"""The linter: rules about patch sites, one function each; the register has all there is to say of them.

A rule is asked only where it can apply: `kinds` of files, and `needs`, names of what a case must have for it. It looks
at whole columns and makes a Python object only for what it found; it never changes anything, and says nothing twice
that another rule says. Severities: an error breaks tracing, the kernel or the load; a warning loses sites or is one
step from it; a note is worth knowing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from ftpatch.errors import printable
from ftpatch.finding import Finding

if TYPE_CHECKING:
    from ftpatch.rules.case import Case, Hit

ANY = ("vmlinux", "module", "object", "program", "shared-object")  # kinds of files
MAX_FINDINGS = 1 << 16  # of one file that are told one by one; each takes a kilobyte
RELOCATABLE = ("module", "object")
Find = Callable[["Case"], Iterable["Hit"]]


@dataclass(frozen=True)
class Rule:
    """What can be found, by any verb. The texts are those of register.toml."""

    id: str
    severity: str
    title: str  # one line
    why: str = ""  # what it means
    todo: str = ""  # what to do about it
    source: str = ""  # where that is known from
    cause: str = ""  # how a file comes to be so
    label: str = ""  # what text calls so many of it
    kinds: Sequence[str] = ANY
    needs: Sequence[str] = ("records", "table")
    find: Find | None = None  # None for what `diff` and `verify` find in their own way
    verb: str = "check"  # who asks it

    @property
    def help(self) -> str:
        """The whole text, for those who met the rule for the first time."""
        return " ".join(part for part in (self.why, self.todo, self.source and f"Source: {self.source}.") if part)

    def applies(self, case: Case) -> bool:
        """Whether the case has what the rule looks at."""
        present = (name not in case.unread and getattr(case, name) is not None for name in self.needs)
        return case.kind in self.kinds and all(present)


class KeyedFinding(NamedTuple):
    """A finding, and for one without a function the symbol in front of it: together they outlive a rebuild."""

    finding: Finding
    after: str | None


def check(case: Case, rules: Sequence[Rule]) -> list[KeyedFinding]:
    """What the rules find in one file, in their order and the order of its rows; the rest of too many in one."""
    from ftpatch.rules.case import Hit

    findings: list[KeyedFinding] = []
    for rule in rules:
        if rule.find is None or not rule.applies(case):
            continue
        hits = iter(rule.find(case))
        findings += (_finding(case, rule, hit) for hit in islice(hits, max(MAX_FINDINGS - len(findings), 0)))
        n_more = sum(hit.count for hit in hits)
        if n_more:
            findings.append(
                _finding(case, rule, Hit(f"and {n_more} more, which are not told one by one", count=n_more))
            )
    return findings


def _finding(case: Case, rule: Rule, hit: Hit) -> KeyedFinding:
    table, index, after = case.table, hit.index, None
    function, row, section, offset = hit.function, index, hit.section, hit.offset
    if index is not None and "table" not in case.unread:
        sec, function = int(table.sec[index]), function or table.name(index)
        row = int(table.row[index]) if table.row[index] >= 0 else None
        if sec >= 0:
            section, offset = case.image.names[sec], int(table.off[index] + table.site[index])
        if function is None and sec >= 0:
            after = case.before_symbol(int(table.va[index]))
    text, place = printable(hit.text), (function, row, section, offset)
    return KeyedFinding(Finding(rule.id, rule.severity, text, case.image.path, *place, count=hit.count), after)
