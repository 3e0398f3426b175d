"""JUnit XML, for GitLab, Jenkins and their like: a suite for each file, a test case for each rule.

It keeps to what both schemas in use allow, Windy Road's of Ant and that of Jenkins' xUnit plugin. The first wants a
time and a host, but a report is the same for the same input, so the time is that of reproducible builds. A rule fails
where a finding is as severe as the check's limit; what is below it stands in system-out.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from ftpatch.report import Document
from ftpatch.report.results import by_rule, clean, failing, rules_of, sentence, severity_of

if TYPE_CHECKING:
    from ftpatch.document.types import ErrorRow, FindingRow, ImageObject
    from ftpatch.rules import Rule

CLOCKLESS = 'timestamp="1970-01-01T00:00:00" hostname="localhost" time="0"'
# keys of an image that say which file it was
PROPERTIES = ("sha256", "build_id", "arch", "kind", "layout")


def render(document: Document) -> Iterator[str]:
    """The whole document."""
    rules = rules_of(document)
    yield '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n'
    for i, image in enumerate(document.images):
        yield from _suite(document, rules, image, i)
    for i, error in enumerate(document.errors, len(document.images)):
        yield from _unreadable(error, i)
    yield "</testsuites>\n"


def _suite(document: Document, rules: list[Rule], image: ImageObject, number: int) -> Iterator[str]:
    """One file: the rules that its command went by, passed or failed."""
    file, findings = image["file"], by_rule(image)
    worst = {rule.id: failing(document, findings.get(rule.id, [])) for rule in rules}
    yield _head(file, number, len(rules), sum(1 for failed in worst.values() if failed), 0)
    properties = {key: value for key, value in image.items() if key in PROPERTIES and value}
    lines = [f'   <property name="{key}" value="{_text(value)}"/>\n' for key, value in properties.items()]
    yield f"  <properties>\n{''.join(lines)}  </properties>\n"
    passed = ""
    for rule in rules:
        failed, texts = worst[rule.id], [_text(_line(finding)) for finding in findings.get(rule.id, [])]
        if failed:
            more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
            message = _text(sentence(failed[0]) + more)
            yield f'{_case(file, rule.id)}>\n   <failure type="{severity_of(failed[0])}" message="{message}">'
            yield "".join(f"{text}\n" for text in texts)
            yield f"{_text(rule.help)}</failure>\n  </testcase>\n"
        else:
            yield f"{_case(file, rule.id)}/>\n"
            passed += "".join(f"{_text(rule.id)}: {text}\n" for text in texts)
    yield f"  <system-out>{passed}</system-out>\n  <system-err></system-err>\n </testsuite>\n"


def _unreadable(error: ErrorRow, number: int) -> Iterator[str]:
    yield _head(error["file"], number, 1, 0, 1)
    yield "  <properties/>\n" + _case(error["file"], "file-is-read") + ">\n"
    yield f'   <error type="exit code {error["code"]}" message="{_text(error["message"])}"/>\n'
    yield "  </testcase>\n  <system-out></system-out>\n  <system-err></system-err>\n </testsuite>\n"


def _head(file: str, number: int, tests: int, failures: int, errors: int) -> str:
    return (
        f' <testsuite name="{_text(file)}" id="{number}" package="ftpatch" tests="{tests}" failures="{failures}" '
        f'errors="{errors}" skipped="0" {CLOCKLESS}>\n'
    )


def _case(file: str, rule: str) -> str:
    return f'  <testcase name="{_text(rule)}" classname="{_text(file)}" time="0"'


def _line(finding: FindingRow) -> str:
    return f"{severity_of(finding)}: {sentence(finding)}"


def _text(value: object) -> str:
    """Text of an attribute or element; what is printable may stand in XML."""
    return escape(clean(value))
