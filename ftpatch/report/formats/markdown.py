"""Markdown, made to be posted as a comment: a headline, a table of the first findings, the rest folded away.

A comment has at most 65,536 characters, so the rows stop before that. Names stand as code where they can, else as
character references: nothing in them is markup, a mention of a person or a link.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from ftpatch.finding import SEVERITIES
from ftpatch.report import Document
from ftpatch.report.results import clean, every_finding, no_findings, rules_of, severities_text, severity_of, where

if TYPE_CHECKING:
    from ftpatch.document.types import FindingRow, ImageObject

N_OPEN = 20  # rows that are not folded away
ROOM = 40_000  # characters of the rows; each other list has a quarter of that
LONGEST = 300  # characters of one name or message
TABLE = "| | rule | where | what |\n|---|---|---|---|\n"
# what may stand between backticks, and what is no markup anywhere; the second: what may be some
PLAIN = re.compile(r"[A-Za-z0-9_.+/,():@ =-]+", re.ASCII)
SPECIAL = re.compile(r"[^A-Za-z0-9 .,;:=/()'\"?%+-]|:(?=/)", re.ASCII)
BREAK = "<!-- -->"  # between a sign and the name behind it, so that nobody is called


def render(document: Document) -> Iterator[str]:
    """The whole document."""
    yield f"### ftpatch {text(document.command)}: {_headline(document)}\n\n"
    findings = sorted(every_finding(document), key=lambda pair: -SEVERITIES.index(severity_of(pair[1])))
    rows = [_row(image, finding, len(document.images) > 1) for image, finding in findings]
    n_rows = _fitting(rows, ROOM)
    if rows:
        yield TABLE + "".join(rows[: min(N_OPEN, n_rows)]) + "\n"
    if n_rows > N_OPEN:
        yield f"<details><summary>{n_rows - N_OPEN} more</summary>\n\n"
        yield TABLE + "".join(rows[N_OPEN:n_rows]) + "\n</details>\n\n"
    if n_rows < len(rows):
        yield f"… and {len(rows) - n_rows} findings that have no room here.\n\n"
    bad_files = [f"- {code(error['file'])}: {text(error['message'])}\n" for error in document.errors]
    yield from _list("Files that could not be read", bad_files, False)
    named = {finding["rule"] for _, finding in findings}
    helps = [f"- {code(rule.id)}: {text(rule.help)}\n" for rule in rules_of(document) if rule.id in named and rule.help]
    yield from _list("What the rules say", helps, True)


def _headline(document: Document) -> str:
    if not document.kind.checks:
        return text(no_findings(document.command))
    n = len(document.images)
    files = code(document.images[0]["file"]) if n == 1 else f"{n} files"
    return f"{severities_text(finding for _, finding in every_finding(document)) or 'no findings'} in {files}"


def _row(image: ImageObject, finding: FindingRow, named: bool) -> str:
    place = " ".join(part for part in (code(image["file"]) if named else "", code(where(finding))) if part)
    n = finding["count"]
    count = f" ({n} sites)" if n > 1 else ""
    return f"| {severity_of(finding)} | {code(finding['rule'])} | {place} | {text(finding['message'])}{count} |\n"


def _list(title: str, items: list[str], folded: bool) -> Iterator[str]:
    """A list under its title, as long as there is room."""
    n = _fitting(items, ROOM // 4)
    if items:
        more = f"- … and {len(items) - n} more\n" if n < len(items) else ""
        body = "".join(items[:n]) + more
        yield f"<details><summary>{title}</summary>\n\n{body}\n</details>\n" if folded else f"{title}:\n\n{body}\n"


def _fitting(items: list[str], room: int) -> int:
    """How many of the items have room together."""
    return sum(total <= room for total in accumulate(map(len, items)))


def code(value: object) -> str:
    """A name in the type of code."""
    name = clean(value)[:LONGEST]
    if not name.strip():
        return ""
    plain = PLAIN.fullmatch(name) and name == name.strip()
    return f"`{name}`" if plain else f"<code>{_escaped(name)}</code>"


def text(value: object) -> str:
    """A sentence in which nothing is markup."""
    line = clean(value).strip()
    return _escaped(line[:LONGEST] + ("…" if len(line) > LONGEST else ""))


def _escaped(line: str) -> str:
    """Every special sign as a character reference; behind those that call or link, an empty comment."""
    return re.sub(r"(?i)(www)\.", rf"\1{BREAK}.", SPECIAL.sub(_reference, line))


def _reference(match: re.Match[str]) -> str:
    sign = match[0]
    return f"&#{ord(sign)};{BREAK if sign in '@#:' else ''}" if sign.isascii() else sign
