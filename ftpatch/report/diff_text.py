"""A comparison for people: a paragraph per file, the worst findings first, the first few of each kind."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from ftpatch.errors import printable
from ftpatch.report import Document
from ftpatch.rules.register import rules_for

N_SHOWN = 10
BOLD, PLAIN = ("\x1b[1m", "\x1b[0m"), ("", "")


def render(document: Document) -> Iterator[str]:
    """The text of one `diff`."""
    style = BOLD if document.colored else PLAIN
    alone = [image for image in document.images if "tree" not in image]
    for image in alone:
        yield from _file(image, style, document.show_sites)
    tops = list(dict.fromkeys(image["tree"] for image in document.images if "tree" in image))
    for top in tops:
        yield from _tree(top, [one for one in document.images if one.get("tree") == top], style, document.show_sites)
    if not document.images:
        yield "no difference for tracing\n"
    yield from (f"  {'bad file':<10} {error['message']}\n" for error in document.errors)


def _file(image: dict[str, Any], style: tuple[str, str], everything: bool) -> Iterator[str]:
    """One pair of files."""
    yield f"{style[0]}{printable(image['file'])}{style[1]}: {image['arch']} {image['kind']}"
    yield f", build-id {image['build_id']}\n" if image["build_id"] else "\n"
    other = image["compared"]
    if other:
        yield _line(
            "before", printable(other["file"]) + (f", build-id {other['build_id']}" if other["build_id"] else "")
        )
        live = f"{other['summary']['live']} live records before, {image['summary']['live']} now"
        yield _line("records", live)
    yield _line("result", _sum(image["findings"]))
    yield from _findings(image["findings"], everything)


def _tree(top: str, images: Sequence[dict[str, Any]], style: tuple[str, str], everything: bool) -> Iterator[str]:
    """One pair of trees: the kinds of change with their modules, then each module that lost something."""
    findings = [{**one, "file": image["file"]} for image in images for one in image["findings"]]
    yield f"{style[0]}{printable(top)}{style[1]}: {len(images)} modules changed\n"
    yield _line("result", _sum(findings))
    present = {one["rule"] for one in findings}
    for rule in [rule for rule in _labels() if rule in present]:
        mine = [one for one in findings if one["rule"] == rule]
        n, files = sum(one["count"] for one in mine), len({one["file"] for one in mine})
        yield f"  {_labels()[rule]}: {n} in {files} modules\n"
        shown = mine if everything else mine[:N_SHOWN]
        for one in shown:
            name = one["file"].removeprefix(os.path.join(top, "")) or one["file"]
            where = "" if rule.startswith("diff-module") else f"{printable(name)}: "
            yield f"    {where}{printable(one['message'])}\n"
        if len(mine) > len(shown):
            yield f"    … and {len(mine) - len(shown)} more (--all)\n"


def _findings(findings: Sequence[dict[str, Any]], everything: bool) -> Iterator[str]:
    """The findings in their order, under a title for each kind."""
    kinds = dict.fromkeys(one["rule"] for one in findings)
    for rule in kinds:
        mine = [one for one in findings if one["rule"] == rule]
        yield f"  {_labels()[rule]}: {sum(one['count'] for one in mine)}\n"
        shown = mine if everything else mine[:N_SHOWN]
        for one in shown:
            place = f" ({one['section']}+{one['offset']})" if one["section"] and one["offset"] else ""
            yield f"    {printable(one['message'])}{printable(place)}\n"
        if len(mine) > len(shown):
            yield f"    … and {len(mine) - len(shown)} more (--all)\n"


def _sum(findings: Sequence[dict[str, Any]]) -> str:
    counts: Counter[str] = Counter()
    for one in findings:
        counts[one["rule"]] += one["count"]
    texts = [f"{counts[rule]} {label}" for rule, label in _labels().items() if rule in counts]
    return ", ".join(texts) or "no difference for tracing"


@cache
def _labels() -> dict[str, str]:
    """What each kind of change is called, the worst first."""
    return {rule.id: rule.label for rule in rules_for("diff")}


def _line(key: str, text: str) -> str:
    return f"  {key:<10} {text}\n"
