"""The text of `check`: by rule, the first few findings of each, then what to do about it; and the sums of a tree."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ftpatch.errors import printable
from ftpatch.report import Document
from ftpatch.report.results import SEVEREST_FIRST, n_sites, place_of, severities_text
from ftpatch.report.text.lines import (
    ALARM,
    REMARK,
    WARNING,
    below,
    files_and_trees,
    first_of,
    line,
    number,
    tinted,
    title,
)

if TYPE_CHECKING:
    from ftpatch.document.oracle import BugRow, OracleObject
    from ftpatch.document.types import FindingRow, GateObject, ImageObject, TreeObject

    Placed = tuple[str, FindingRow]  # the file, and what was found in it

N_FINDINGS, N_MODULES, N_BUGS = 3, 10, 10  # that are shown of each
WIDTH, INDENT = 110, " " * 6  # of the help; in front of what stands below a rule
WORD = 4  # bytes of an instruction word
TINTS = {"error": ALARM, "warning": WARNING, "note": REMARK}


def render(document: Document) -> Iterator[str]:
    """Files that were named first, then trees."""
    yield from files_and_trees(document, lambda image: _file(image, document), lambda tree: _tree(tree, document))


def _file(image: ImageObject, document: Document) -> Iterator[str]:
    findings = image["findings"]
    yield line("result", _result(findings, [image["gate"]]))
    yield from _skipped(image)
    for headline, placed in _by_rule([("", finding) for finding in findings], document):
        yield f"{headline}\n"
        yield from first_of([finding_text(finding) for _, finding in placed], N_FINDINGS, INDENT)
        yield _help(placed)
    if oracle := image.get("oracle"):
        yield from _oracle(oracle)


def _skipped(image: ImageObject) -> Iterator[str]:
    """The rules that were not asked, by what they need."""
    by_need: dict[str, list[str]] = {}
    for row in image.get("skipped", ()):
        by_need.setdefault(row["needs"], []).append(row["rule"])
    for needs, rules in by_need.items():
        shown = ", ".join(rules[:N_FINDINGS]) + (f" and {len(rules) - N_FINDINGS} more" if rules[N_FINDINGS:] else "")
        yield line("skipped", f"needs {needs}")
        yield line("", shown)


def _tree(tree: TreeObject, document: Document) -> Iterator[str]:
    """The modules of one tree: their sum, and by rule in which of them."""
    images, errors = document.of_tree(tree["tree"])
    placed = [(below(tree["tree"], image["file"]), finding) for image in images for finding in image["findings"]]
    yield f"{title(tree['tree'], document)}: {len(images) + len(errors)} modules\n"
    yield line("result", _result([finding for _, finding in placed], [image["gate"] for image in images]))
    for headline, of_rule in _by_rule(placed, document):
        files: dict[str, list[str]] = {}
        for file, finding in of_rule:
            files.setdefault(file, []).append(finding_text(finding))
        texts = [f"{printable(file)}: {messages[0]}" + (f" (and {len(messages) - 1} more)" if messages[1:] else "")
                 for file, messages in files.items()]  # fmt: skip
        yield f"{headline} in {len(files)} modules\n"
        yield from first_of(texts, N_MODULES, INDENT, "more modules")
        yield _help(of_rule)
    yield from (line("bad file", error["message"]) for error in errors)


def _by_rule(findings: Sequence[Placed], document: Document) -> Iterator[tuple[str, list[Placed]]]:
    """(headline, findings) of each rule, the severest first, else in the order of the register."""
    groups: dict[tuple[str, str], list[Placed]] = {}
    for file, finding in findings:
        groups.setdefault((finding["severity"], finding["rule"]), []).append((file, finding))
    for severity, rule in sorted(groups, key=lambda key: SEVEREST_FIRST.index(key[0])):
        placed = groups[severity, rule]
        tag = tinted(severity, TINTS[severity], document)
        yield f"  {tag} {rule}: {number(n_sites(finding for _, finding in placed), 'finding')}", placed


def finding_text(finding: FindingRow) -> str:
    """A finding behind its function, place and line, as far as there are."""
    parts = [part for part in (finding["function"], place_of(finding), finding["source"]) if part]
    return (printable(", ".join(parts)) + ": " if parts else "") + finding["message"]


def _result(findings: Sequence[FindingRow], gates: Sequence[GateObject]) -> str:
    known, ignored = sum(gate["known"] for gate in gates), sum(gate["ignored"] for gate in gates)
    hidden = [f"{n} {what}" for n, what in ((known, "known"), (ignored, "ignored")) if n]
    return (severities_text(findings) or "nothing found") + (f" ({', '.join(hidden)})" if hidden else "")


def _help(placed: Sequence[Placed]) -> str:
    text = placed[0][1]["help"]  # the same for all of a rule
    return textwrap.fill(text, WIDTH, initial_indent=f"{INDENT}─ ", subsequent_indent=f"{INDENT}  ") + "\n"


def _oracle(oracle: OracleObject) -> Iterator[str]:
    """What the kernel prints at boot, how much it lists, where it stops."""
    pages, bugs = "an unknown number of" if oracle["pages"] is None else oracle["pages"], oracle["bugs"]
    if bugs:
        yield line("at boot", f"ftrace bug: ftrace failed to modify {_call(bugs[0])}")
    yield line("" if bugs else "at boot", f"ftrace: allocating {oracle['allocating']} entries in {pages} pages")
    if not bugs:
        before, after = len(oracle["listed_before"]), len(oracle["listed_after"])
        yield line("listed", f"{before} functions, {after} once init memory is freed (--format json has their names)")
        return
    yield line("listed", "none: ftrace is off from the first bug on, and available_filter_functions cannot be opened")
    yield line("bug", printable(bugs[0]["text"]))
    yield from (line("not reached", printable(bug["text"])) for bug in bugs[1:N_BUGS])
    if len(bugs) > N_BUGS:
        yield line("", f"… and {len(bugs) - N_BUGS} more that the kernel does not come to")


def _call(bug: BugRow) -> str:
    """The site as the kernel names it, and its word as it prints that: byte by byte."""
    actual = bytes.fromhex(bug["actual"][2:])
    actual = actual[::-1] if len(actual) == WORD else actual  # a word is a number, longer code bytes as they lie
    return f"{printable(bug['function'])}+{bug['offset']}, actual: {actual.hex(':')}"
