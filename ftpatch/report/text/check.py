"""The text of `check`: by rule, the first few findings of each, then what to do about it; and the sums of a tree."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ftpatch.errors import printable
from ftpatch.report import Document
from ftpatch.report.results import SEVEREST_FIRST, severities_text
from ftpatch.report.text.lines import bad_file, below, each_file, line, number, style_of

if TYPE_CHECKING:
    from ftpatch.document.types import BugRow, FindingRow, GateObject, ImageObject, OracleObject, TreeObject

    Placed = tuple[str, FindingRow]  # the file, and what was found in it

N_FINDINGS, N_MODULES, N_BUGS = 3, 10, 10  # that are shown of each
WIDTH = 110
WORD = 4  # bytes of an instruction word
COLORS = {"error": "\x1b[31m", "warning": "\x1b[33m", "note": "\x1b[36m"}


def render(document: Document) -> Iterator[str]:
    """Files that were named first, then trees."""

    def one_file(image: ImageObject) -> Iterator[str]:
        yield from _file(image, document.colored)
        if oracle := image.get("oracle"):
            yield from _oracle(oracle)

    yield from each_file(document, one_file)
    for i, tree in enumerate(document.trees):
        yield "\n" if i or document.alone() else ""
        yield from _tree(tree, document)


def _file(image: ImageObject, colored: bool) -> Iterator[str]:
    findings = image["findings"]
    yield line("result", _result(findings, image["gate"]))
    for rule, severity, placed in _by_rule([("", finding) for finding in findings]):
        yield f"  {_tag(severity, colored)} {rule}: {number(_sites(placed), 'finding')}\n"
        yield from (f"      {_place(finding)}{finding['message']}\n" for _, finding in placed[:N_FINDINGS])
        if len(placed) > N_FINDINGS:
            yield f"      … and {len(placed) - N_FINDINGS} more\n"
        yield _help(placed)


def _tree(tree: TreeObject, document: Document) -> Iterator[str]:
    """The modules of one tree: their sum, and by rule in which of them."""
    top, style = tree["tree"], style_of(document)
    images, errors = document.of_tree(top)
    placed = [(image["file"], finding) for image in images for finding in image["findings"]]
    gate: GateObject = {
        "known": sum(image["gate"]["known"] for image in images),
        "ignored": sum(image["gate"]["ignored"] for image in images),
    }
    yield f"{style[0]}{printable(top)}{style[1]}: {len(images) + len(errors)} modules\n"
    yield line("result", _result([finding for _, finding in placed], gate))
    for rule, severity, of_rule in _by_rule(placed):
        files = list(dict.fromkeys(file for file, _ in of_rule))
        found = number(_sites(of_rule), "finding")
        yield f"  {_tag(severity, document.colored)} {rule}: {found} in {len(files)} modules\n"
        for file in files[:N_MODULES]:
            first, *others = [finding for name, finding in of_rule if name == file]
            more = f" (and {len(others)} more)" if others else ""
            yield f"      {printable(below(top, file))}: {_place(first)}{first['message']}{more}\n"
        if len(files) > N_MODULES:
            yield f"      … and {len(files) - N_MODULES} more modules\n"
        yield _help(of_rule)
    yield from map(bad_file, errors)


def _by_rule(findings: Sequence[Placed]) -> Iterator[tuple[str, str, list[Placed]]]:
    """(rule, severity, its findings), the severest first, else in the order of the register."""
    groups: dict[tuple[str, str], list[Placed]] = {}
    for file, finding in findings:
        groups.setdefault((finding["severity"], finding["rule"]), []).append((file, finding))
    for severity, rule in sorted(groups, key=lambda key: SEVEREST_FIRST.index(key[0])):
        yield rule, severity, groups[severity, rule]


def _place(finding: FindingRow) -> str:
    """Function, place and line of a finding, as far as there are."""
    section, offset = finding["section"], finding["offset"]
    where = f"{section}+{offset}" if section and offset else section
    parts = [part for part in (finding["function"], where, finding["source"]) if part]
    return printable(", ".join(parts)) + ": " if parts else ""


def _result(findings: Sequence[FindingRow], gate: GateObject) -> str:
    hidden = [f"{gate['known']} known"] * bool(gate["known"]) + [f"{gate['ignored']} ignored"] * bool(gate["ignored"])
    return (severities_text(findings) or "nothing found") + (f" ({', '.join(hidden)})" if hidden else "")


def _sites(placed: Sequence[Placed]) -> int:
    return sum(finding["count"] for _, finding in placed)


def _help(placed: Sequence[Placed]) -> str:
    text = placed[0][1]["help"]
    return textwrap.fill(text, WIDTH, initial_indent="      ─ ", subsequent_indent="        ") + "\n"


def _tag(severity: str, colored: bool) -> str:
    return f"{COLORS[severity]}{severity}\x1b[0m" if colored else severity


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
