"""What the formats for other tools share: findings with their rules, what failed, and text that can break none of them.

Names in a finding come from files that anybody may have made. `clean` leaves printable characters only; each format
escapes what is special to it behind that. A document of a command that looks for nothing has no findings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ftpatch.errors import printable
from ftpatch.finding import SEVERITIES
from ftpatch.report import Document
from ftpatch.rules import Rule

if TYPE_CHECKING:
    from ftpatch.document.types import FindingRow, ImageObject

SEVEREST_FIRST = SEVERITIES[::-1]
FOUND = 1  # exit code of a check that failed
N_SHOWN = 10  # findings of one rule that a line format lists


def clean(value: object) -> str:
    """The value as text on one line, without control characters, half characters and direction marks."""
    return printable(str(value))


def every_finding(document: Document) -> Iterator[tuple[ImageObject, FindingRow]]:
    """(image, finding) of the whole document; a command that looks for none has none."""
    for image in document.images:
        for finding in image.get("findings", ()):
            yield image, finding


def severity_of(finding: FindingRow) -> str:
    return usual_severity(finding["severity"])


def usual_severity(severity: str) -> str:
    """One of SEVERITIES: a rule of somebody else's may have a severity of its own."""
    return severity if severity in SEVERITIES else "warning"


def rules_of(document: Document) -> list[Rule]:
    """The rules that the command went by, in their order, and behind these any others that found something."""
    rules = {rule.id: rule for rule in document.rules}
    for _, finding in every_finding(document):
        name = finding["rule"]
        # a rule of somebody else's that a finding names and the register does not
        rules.setdefault(name, Rule(name, severity_of(finding), name, finding["help"]))
    return list(rules.values())


def by_rule(image: ImageObject) -> dict[str, list[FindingRow]]:
    """The findings of one image by the name of their rule."""
    groups: dict[str, list[FindingRow]] = {}
    for finding in image.get("findings", ()):
        groups.setdefault(finding["rule"], []).append(finding)
    return groups


def failing(document: Document, findings: Iterable[FindingRow]) -> list[FindingRow]:
    """Those findings that are severe enough to fail the check."""
    least = SEVERITIES.index(document.fail_on)
    return [finding for finding in findings if SEVERITIES.index(severity_of(finding)) >= least]


def exit_code(document: Document) -> int:
    """What the process ends with: the greatest code of all files, if the command does not say another."""
    if document.exit_code is not None:
        return document.exit_code
    failed = failing(document, (finding for _, finding in every_finding(document)))
    return max([FOUND if failed else 0, *(error["code"] for error in document.errors)])


def severities_text(findings: Iterable[FindingRow]) -> str:
    """`2 errors, 1 note`: how many findings of each severity, counting every site that one stands for; "" for none."""
    total = dict.fromkeys(SEVEREST_FIRST, 0)
    for finding in findings:
        total[severity_of(finding)] += finding["count"]
    return ", ".join(f"{n} {name}{'s' * (n != 1)}" for name, n in total.items() if n)


def n_sites(findings: Iterable[FindingRow]) -> int:
    """How many sites the findings stand for."""
    return sum(finding["count"] for finding in findings)


def place_of(finding: FindingRow) -> str:
    """`.text+0x575328`, or the section alone; empty where it is not known."""
    section, offset = finding["section"], finding["offset"]
    return f"{section}+{offset}" if section and offset else section or ""


def where(finding: FindingRow) -> str:
    """`vfs_read (row 14650, .text+0x575328, fs/read_write.c:550)`, as far as it is known; may be empty."""
    row = finding["row"]
    parts = ["" if row is None else f"row {row}", place_of(finding), finding["source"] or ""]
    place = ", ".join(part for part in parts if part)
    function = finding["function"] or ""
    return clean(f"{function} ({place})" if function and place else function or place)


def sentence(finding: FindingRow) -> str:
    """Where and what, on one line."""
    place, count = where(finding), finding["count"]
    text = clean(finding["message"])
    return (f"{place}: " if place else "") + text + (f" ({count} sites)" if count > 1 else "")


def source_of(finding: FindingRow) -> tuple[str, int] | None:
    """(file, line) of a finding whose place in the sources is known."""
    file, _, line = (finding["source"] or "").rpartition(":")
    # isdigit alone takes the digits of every script
    return (file, int(line)) if file and line.isascii() and line.isdigit() and int(line) > 0 else None


def no_findings(command: str) -> str:
    return f"{clean(command)} looks for no findings"
