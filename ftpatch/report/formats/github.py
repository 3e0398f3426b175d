"""Annotations of GitHub Actions: workflow commands that put a finding beside the line it is about.

GitHub shows ten annotations of each severity for a step and drops the rest, so the last of more than ten says how many
there are. Source: docs.github.com, "Workflow commands for GitHub Actions"; the escaping is that of @actions/core.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ftpatch.finding import SEVERITIES
from ftpatch.report import Document
from ftpatch.report.results import clean, every_finding, sentence, severity_of, source_of

if TYPE_CHECKING:
    from ftpatch.document.types import FindingRow, ImageObject

COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}
LIMIT = 10  # annotations of one severity that GitHub shows
DATA = {"%": "%25", "\r": "%0D", "\n": "%0A"}
PROPERTY = {**DATA, ":": "%3A", ",": "%2C"}


def render(document: Document) -> Iterator[str]:
    """One command per line, the severest first; a file that cannot be read is an error."""
    lines: dict[str, list[str]] = {name: [] for name in reversed(SEVERITIES)}
    for error in document.errors:
        lines["error"].append(_command("error", {"file": error["file"], "title": "not read"}, clean(error["message"])))
    for image, finding in every_finding(document):
        severity = severity_of(finding)
        lines[severity].append(_finding(COMMANDS[severity], image, finding))
    for severity, commands in lines.items():
        shown = commands if len(commands) <= LIMIT else commands[: LIMIT - 1]
        yield from shown
        if rest := len(commands) - len(shown):
            yield _command(COMMANDS[severity], {"title": "ftpatch"}, f"{rest} more {severity}s: see the other reports")


def _finding(command: str, image: ImageObject, finding: FindingRow) -> str:
    file, line = source_of(finding) or (image["file"], 0)
    properties = {"file": file, **({"line": str(line)} if line else {}), "title": f"ftpatch {finding['rule']}"}
    help_ = clean(finding["help"])
    return _command(command, properties, sentence(finding) + (f"\n{help_}" if help_ else ""))


def _command(name: str, properties: dict[str, str], text: str) -> str:
    """`::error file=…,line=…,title=…::text`; the text may have lines of its own."""
    pairs = ",".join(f"{key}={_escaped(clean(value), PROPERTY)}" for key, value in properties.items())
    return f"::{name} {pairs}::{_escaped(text, DATA)}\n"


def _escaped(text: str, table: dict[str, str]) -> str:
    return "".join(table.get(char, char) for char in text)
