"""The text of `diff`: a paragraph per file, the worst findings first, the first few of each kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ftpatch.errors import printable
from ftpatch.report import Document
from ftpatch.report.results import n_sites, place_of
from ftpatch.report.text.lines import below, first_of, head, line, title
from ftpatch.rules.register import rules_for

if TYPE_CHECKING:
    from ftpatch.document.types import FindingRow, ImageObject

N_SHOWN = 10  # findings of each kind
NOTHING = "no difference for tracing"


def render(document: Document) -> Iterator[str]:
    """The text of one `diff`."""
    for image in document.alone():
        yield head(image, document)
        yield from _file(image, document)
    for top in dict.fromkeys(image["tree"] for image in document.images if "tree" in image):
        yield from _tree(top, document)
    if not document.images:
        yield NOTHING + "\n"
    yield from (line("bad file", error["message"]) for error in document.errors)


def _file(image: ImageObject, document: Document) -> Iterator[str]:
    """One pair of files."""
    other, findings = image["compared"], image["findings"]
    if other:
        build = f", build-id {other['build_id']}" if other["build_id"] else ""
        yield line("before", printable(other["file"]) + build)
        yield line("records", f"{other['summary']['live']} live records before, {image['summary']['live']} now")
    yield line("result", _sum(findings))
    for rule in dict.fromkeys(finding["rule"] for finding in findings):
        of_rule = [finding for finding in findings if finding["rule"] == rule]
        yield f"  {_labels()[rule]}: {n_sites(of_rule)}\n"
        yield from _shown([finding["message"] + _place(finding) for finding in of_rule], document)


def _place(finding: FindingRow) -> str:
    return f" ({place_of(finding)})" if finding["section"] and finding["offset"] else ""


def _tree(top: str, document: Document) -> Iterator[str]:
    """One pair of trees: each kind of change, the worst first, with its modules."""
    images, _ = document.of_tree(top)
    placed = [(image["file"], finding) for image in images for finding in image["findings"]]
    yield f"{title(top, document)}: {len(images)} modules changed\n"
    yield line("result", _sum([finding for _, finding in placed]))
    for rule, label in _labels().items():
        of_rule = [(file, finding) for file, finding in placed if finding["rule"] == rule]
        if of_rule:
            n, n_files = n_sites(finding for _, finding in of_rule), len({file for file, _ in of_rule})
            yield f"  {label}: {n} in {n_files} modules\n"
            named = rule.startswith("diff-module")  # those name the module in their message
            texts = [("" if named else f"{below(top, file)}: ") + finding["message"] for file, finding in of_rule]
            yield from _shown(texts, document)


def _shown(texts: Sequence[str], document: Document) -> Iterator[str]:
    """The first few, or all."""
    n = len(texts) if document.show_sites else N_SHOWN
    yield from first_of([printable(text) for text in texts], n, "    ", "more (--all)")


def _sum(findings: Sequence[FindingRow]) -> str:
    counts: Counter[str] = Counter()
    for finding in findings:
        counts[finding["rule"]] += finding["count"]
    return ", ".join(f"{counts[rule]} {label}" for rule, label in _labels().items() if rule in counts) or NOTHING


def _labels() -> dict[str, str]:
    """What each kind of change is called, the worst first."""
    return {rule.id: rule.label for rule in rules_for("diff")}
