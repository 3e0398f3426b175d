"""The text of one tree of modules: its totals, and the table by module."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ftpatch.errors import printable
from ftpatch.report.text.lines import below, line, title

if TYPE_CHECKING:
    from ftpatch.document.types import ImageObject, TreeObject
    from ftpatch.report import Document

N_NAMES = 12  # sections and the like that one line of text names


def text(tree: TreeObject, document: Document) -> Iterator[str]:
    """Totals and the table by module, bad files among them; where sites were chosen, of modules that have some."""
    images, errors = document.of_tree(tree["tree"])
    total = tree["totals"]
    yield f"{title(tree['tree'], document)}: {total['modules']} modules ({_counts(total['by_arch'])})\n"
    with_sites, without = total["with_sites"], total["without_sites"]
    yield line("sites", f"in {with_sites} modules, none in {without}; {total['bad']} bad files")
    yield line("records", f"{total['slots']} slots, {total['null']} null, {total['live']} live")
    counted = {"layouts": total["by_layout"], "sections": total["by_section"], "status": total["by_status"]}
    yield from (line(name, _counts(counts)) for name, counts in counted.items() if counts)
    usual = _usual(images)
    shown = [image for image in images if image["sites"]] if document.selected else images
    rows = {image["file"]: _row(image, usual[image["arch"]]) for image in shown}
    for error in errors:
        message = error["message"].removeprefix(printable(error["file"]) + ": ")
        rows[error["file"]] = f"{'-':>6} {'-':>5}  {'bad file':<12}", f"  ! {message}"
    yield f"{'live':>6} {'null':>5}  {'layout':<12} module\n" if rows else ""
    for file in sorted(rows, key=os.fsencode):
        figures, remark = rows[file]
        yield f"{figures} {printable(below(tree['tree'], file))}{remark}\n"


def _counts(counts: Mapping[str, int]) -> str:
    texts = [f"{printable(name)} {count}" for name, count in counts.items()]
    more = [f"and {len(texts) - N_NAMES} more"] if len(texts) > N_NAMES else []
    return ", ".join(texts[:N_NAMES] + more)


def _usual(images: Sequence[ImageObject]) -> dict[str, str]:
    """The layout that most modules of a machine have, of those that have sites."""
    counts = Counter((image["layout"] != "none", image["arch"], image["layout"]) for image in images)
    ranked = sorted(counts, key=lambda key: (key[0], counts[key], key[2]))
    return {arch: name for _, arch, name in ranked}


def _row(image: ImageObject, usual: str) -> tuple[str, str]:
    """A module's figures, and what a reader should stumble over."""
    summary, layout = image["summary"], image["layout"]
    remarks = [f"{name} {count}" for name, count in summary["by_status"].items() if name != "ready"]
    if layout not in (usual, "none"):
        remarks.append(f"layout {layout}, most have {usual}")
    figures = f"{summary['live']:>6} {summary['null']:>5}  {layout:<12}"
    return figures, f"  ! {', '.join(remarks)}" if remarks else ""
