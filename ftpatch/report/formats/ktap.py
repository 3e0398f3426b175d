"""KTAP, the kernel's own test format: a test for each file, with a subtest for each rule.

`not ok` where a finding is as severe as the check's limit. A hash sign begins a directive wherever it stands on a
result line, so names have none: a function called `# SKIP` must not pass a failed test.
Source: Documentation/dev-tools/ktap.rst, version 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ftpatch.report import Document
from ftpatch.report.results import (
    N_SHOWN,
    by_rule,
    clean,
    fails,
    no_findings,
    rules_of,
    sentence,
    severity_of,
)

if TYPE_CHECKING:
    from ftpatch.document.types import FindingRow
    from ftpatch.rules import Rule


def render(document: Document) -> Iterator[str]:
    """The whole document."""
    rules = rules_of(document) if document.kind.checks else []
    yield f"KTAP version 1\n1..{len(document.images) + len(document.errors)}\n"
    for number, image in enumerate(document.images, 1):
        if not document.kind.checks:
            yield f"ok {number} {_text(image['file'])} # SKIP {_text(no_findings(document.command))}\n"
            continue
        failed = False
        if rules:
            yield f"  KTAP version 1\n  1..{len(rules)}\n"
        found = by_rule(image)
        for subtest, rule in enumerate(rules, 1):
            findings = found.get(rule.id, [])
            bad = any(fails(document, finding) for finding in findings)
            yield from _subtest(rule, findings, subtest, bad)
            failed |= bad
        yield f"{'not ok' if failed else 'ok'} {number} {_text(image['file'])}\n"
    for number, error in enumerate(document.errors, len(document.images) + 1):
        yield f"not ok {number} {_text(error['file'])} # ERROR {_text(error['message'])}\n"


def _subtest(rule: Rule, findings: list[FindingRow], number: int, failed: bool) -> Iterator[str]:
    """Diagnostic lines, then the result."""
    for finding in findings[:N_SHOWN]:
        yield f"  # {severity_of(finding)}: {_text(sentence(finding))}\n"
    if len(findings) > N_SHOWN:
        yield f"  # and {len(findings) - N_SHOWN} more\n"
    n = sum(finding["count"] for finding in findings)
    yield f"  {'not ok' if failed else 'ok'} {number} {_text(rule.id)}" + (f" # found {n}\n" if n else "\n")


def _text(value: object) -> str:
    return clean(value).replace("#", "\\x23").strip() or "-"
