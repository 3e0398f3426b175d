"""The text of `diff`: a paragraph per file, the worst findings first, the first few of each kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ftpatch.errors import printable
from ftpatch.report import Document
from ftpatch.report.text.lines import Style, bad_file, below, head, line, style_of
from ftpatch.rules.register import rules_for

if TYPE_CHECKING:
    from ftpatch.document.types import FindingRow, ImageObject

N_SHOWN = 10
NOTHING = "no difference for tracing"


def render(document: Document) -> Iterator[str]:
    """The text of one `diff`."""
    style, everything = style_of(document), document.show_sites
    for image in document.alone():
        yield from head(image, style)
        yield from _file(image, everything)
    for top in dict.fromkeys(image["tree"] for image in document.images if "tree" in image):
        yield from _tree(top, document.of_tree(top)[0], style, everything)
    if not document.images:
        yield NOTHING + "\n"
    yield from map(bad_file, document.errors)


def _file(image: ImageObject, everything: bool) -> Iterator[str]:
    """One pair of files."""
    other, findings = image["compared"], image["findings"]
    if other:
        build = f", build-id {other['build_id']}" if other["build_id"] else ""
        yield line("before", printable(other["file"]) + build)
        live = f"{other['summary']['live']} live records before, {image['summary']['live']} now"
        yield line("records", live)
    yield line("result", _sum(findings))
    for rule in dict.fromkeys(finding["rule"] for finding in findings):
        mine = [finding for finding in findings if finding["rule"] == rule]
        yield f"  {_labels()[rule]}: {sum(finding['count'] for finding in mine)}\n"
        yield from _shown([printable(finding["message"] + _place(finding)) for finding in mine], everything)


def _place(finding: FindingRow) -> str:
    return f" ({finding['section']}+{finding['offset']})" if finding["section"] and finding["offset"] else ""


def _tree(top: str, images: Sequence[ImageObject], style: Style, everything: bool) -> Iterator[str]:
    """One pair of trees: each kind of change, the worst first, with its modules."""
    placed = [(image["file"], finding) for image in images for finding in image["findings"]]
    yield f"{style[0]}{printable(top)}{style[1]}: {len(images)} modules changed\n"
    yield line("result", _sum([finding for _, finding in placed]))
    for rule, label in _labels().items():
        mine = [(file, finding) for file, finding in placed if finding["rule"] == rule]
        if mine:
            n, files = sum(finding["count"] for _, finding in mine), len({file for file, _ in mine})
            yield f"  {label}: {n} in {files} modules\n"
            named = not rule.startswith("diff-module")  # those name the module in their message
            texts = [(f"{below(top, file)}: " if named else "") + finding["message"] for file, finding in mine]
            yield from _shown([printable(text) for text in texts], everything)


def _shown(texts: Sequence[str], everything: bool) -> Iterator[str]:
    """The first few, or all."""
    first = texts if everything else texts[:N_SHOWN]
    yield from (f"    {text}\n" for text in first)
    if len(texts) > len(first):
        yield f"    … and {len(texts) - len(first)} more (--all)\n"


def _sum(findings: Sequence[FindingRow]) -> str:
    counts: Counter[str] = Counter()
    for finding in findings:
        counts[finding["rule"]] += finding["count"]
    return ", ".join(f"{counts[rule]} {label}" for rule, label in _labels().items() if rule in counts) or NOTHING


def _labels() -> dict[str, str]:
    """What each kind of change is called, the worst first."""
    return {rule.id: rule.label for rule in rules_for("diff")}
