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
    failing,
    n_sites,
    no_findings,
    rules_of,
    sentence,
    severity_of,
)
from ftpatch.report.text.lines import first_of

if TYPE_CHECKING:
    from ftpatch.document.types import FindingRow


def render(document: Document) -> Iterator[str]:
    """The whole document."""
    rules = rules_of(document)
    yield f"KTAP version 1\n1..{len(document.images) + len(document.errors)}\n"
    for number, image in enumerate(document.images, 1):
        if not document.kind.checks:
            yield f"ok {number} {_text(image['file'])} # SKIP {_text(no_findings(document.command))}\n"
            continue
        if rules:
            yield f"  KTAP version 1\n  1..{len(rules)}\n"
        findings = by_rule(image)
        failed = {name for name, of_rule in findings.items() if failing(document, of_rule)}
        for subtest, rule in enumerate(rules, 1):
            yield from _diagnosis(findings.get(rule.id, []))
            n = n_sites(findings.get(rule.id, []))
            yield f"  {_result(rule.id in failed)} {subtest} {_text(rule.id)}" + (f" # found {n}\n" if n else "\n")
        yield f"{_result(bool(failed))} {number} {_text(image['file'])}\n"
    for number, error in enumerate(document.errors, len(document.images) + 1):
        yield f"not ok {number} {_text(error['file'])} # ERROR {_text(error['message'])}\n"


def _diagnosis(findings: list[FindingRow]) -> Iterator[str]:
    """The diagnostic lines of a subtest, which stand in front of its result."""
    texts = [f"{severity_of(finding)}: {_text(sentence(finding))}" for finding in findings[:N_SHOWN]]
    yield from first_of(texts, N_SHOWN, "  # ", n=len(findings))


def _result(failed: bool) -> str:
    return "not ok" if failed else "ok"


def _text(value: object) -> str:
    return clean(value).replace("#", "\\x23").strip() or "-"
