"""What the formats for other tools share: findings with their rules, what failed, and text that can break none of them.

Names in a finding come from files that anybody may have made. `clean` leaves printable characters only; each format
escapes what is special to it behind that. A document of a command that looks for nothing has no findings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ftpatch.errors import printable
from ftpatch.finding import SEVERITIES
from ftpatch.report import Document

CHECKING = ("check", "verify", "diff")  # commands that look for findings
FOUND = 1  # exit code
N_SHOWN = 10  # findings of one rule that a line format lists


@dataclass(frozen=True)
class RuleRow:
    """A rule as the reports show it."""

    id: str
    severity: str
    title: str
    help: str
    source: str


def clean(value: object) -> str:
    """The value as text on one line, without control characters, half characters and direction marks."""
    return printable(str(value))


def findings_of(image: dict[str, Any]) -> list[dict[str, Any]]:
    """The findings of one image; none where the command looks for none."""
    return list(image.get("findings") or [])


def every_finding(document: Document) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(image, finding) of the whole document."""
    for image in document.images:
        for finding in findings_of(image):
            yield image, finding


def severity_of(finding: dict[str, Any]) -> str:
    found = str(finding.get("severity"))
    return found if found in SEVERITIES else "warning"


def rules_of(document: Document) -> list[RuleRow]:
    """The rules that the command went by, in their order, and behind these any others that found something."""
    rows = {one.id: RuleRow(one.id, one.severity, one.title, one.help, one.source) for one in document.rules}
    for _, finding in every_finding(document):
        name = str(finding["rule"])
        if name not in rows:
            rows[name] = RuleRow(name, severity_of(finding), name, finding.get("help") or "", "")
    return list(rows.values())


def by_rule(image: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The findings of one image by the name of their rule."""
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in findings_of(image):
        found.setdefault(str(finding["rule"]), []).append(finding)
    return found


def fails(document: Document, finding: dict[str, Any]) -> bool:
    """Whether a finding is severe enough to fail the check."""
    return SEVERITIES.index(severity_of(finding)) >= SEVERITIES.index(document.fail_on)


def exit_code(document: Document) -> int:
    """What the process ends with: the greatest code of all files, if the command does not say another."""
    if document.exit_code is not None:
        return document.exit_code
    codes = [int(error["code"]) for error in document.errors]
    failed = any(fails(document, finding) for _, finding in every_finding(document))
    return max([0, FOUND if failed else 0, *codes])


def counts(document: Document) -> str:
    """`2 errors, 1 note`: how many findings of each severity, counting every site that one stands for."""
    total = dict.fromkeys(reversed(SEVERITIES), 0)
    for _, finding in every_finding(document):
        total[severity_of(finding)] += int(finding.get("count") or 1)
    texts = [f"{n} {name}{'s' * (n != 1)}" for name, n in total.items() if n]
    return ", ".join(texts) or "no findings"


def where(finding: dict[str, Any]) -> str:
    """`vfs_read (row 14650, .text+0x575328, fs/read_write.c:550)`, as far as it is known; may be empty."""
    row, section, offset = (finding.get(key) for key in ("row", "section", "offset"))
    parts = [
        f"row {row}" if row is not None else "",
        f"{section}+{offset}" if section and offset else section or "",
        finding.get("source") or "",
    ]
    place = ", ".join(part for part in parts if part)
    function = finding.get("function") or ""
    return clean(f"{function} ({place})" if function and place else function or place)


def sentence(finding: dict[str, Any]) -> str:
    """Where and what, on one line."""
    place, count = where(finding), int(finding.get("count") or 1)
    text = clean(finding["message"])
    return (f"{place}: " if place else "") + text + (f" ({count} sites)" if count > 1 else "")


def source_of(finding: dict[str, Any]) -> tuple[str, int] | None:
    """(file, line) of a finding whose place in the sources is known."""
    file, _, line = str(finding.get("source") or "").rpartition(":")
    return (file, int(line)) if file and line.isascii() and line.isdigit() and int(line) > 0 else None


def no_findings(command: str) -> str:
    return f"{clean(command)} looks for no findings"
