"""The kinds of change, in the order of their impact, and findings of them."""

from __future__ import annotations

from functools import cache
from typing import Any

from ftpatch.finding import SEVERITIES, Finding
from ftpatch.rules.register import rules_for


def change(rule: str, path: str, message: str, severity: str | None = None, **place: Any) -> Finding:
    """A finding about the new file; with the usual severity of its kind unless another is given."""
    return Finding(rule, severity or _severities()[rule], message, path, **place)


def class_of(finding: Finding) -> str:
    """What --fail-on calls this kind of finding."""
    return finding.rule.split("-")[1]


def impact(finding: Finding) -> tuple[int, int, int, str, str]:
    """What findings are sorted by: severity, kind, how many, name."""
    kind = list(_severities()).index(finding.rule)
    return -SEVERITIES.index(finding.severity), kind, -finding.count, finding.function or "", finding.message


@cache
def _severities() -> dict[str, str]:
    """The usual severity of each kind of change, in the order of their impact."""
    return {rule.id: rule.severity for rule in rules_for("diff")}
