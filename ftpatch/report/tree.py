"""A tree of modules in a report: its totals, and the table by module for people."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from ftpatch.errors import printable

N_NAMES = 12  # sections and the like that one line of text names


def totals(images: Sequence[dict[str, Any]], n_bad: int) -> dict[str, Any]:
    """The sums over the modules of one tree; the counts by name begin with the greatest."""
    summaries = [image["summary"] for image in images]
    with_sites = sum(1 for summary in summaries if summary["live"])
    return {
        "modules": len(images) + n_bad,
        "bad": n_bad,
        "with_sites": with_sites,
        "without_sites": len(images) - with_sites,
        **{key: sum(summary[key] for summary in summaries) for key in ("slots", "null", "live")},
        "by_section": _sum(summary["by_section"] for summary in summaries),
        "by_status": _sum(summary["by_status"] for summary in summaries),
        "by_layout": _sum({image["layout"]: 1} for image in images),
        "by_arch": _sum({image["arch"]: 1} for image in images),
    }


def _sum(counts: Iterator[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def text(
    tree: dict[str, Any],
    images: Sequence[dict[str, Any]],
    errors: Sequence[dict[str, Any]],
    style: tuple[str, str],
    chosen: bool,
) -> Iterator[str]:
    """Totals and the table by module, bad files among the others; with `chosen`, of modules that have sites to show."""
    total = tree["totals"]
    yield f"{style[0]}{printable(tree['tree'])}{style[1]}: {total['modules']} modules ({_counts(total['by_arch'])})\n"
    yield f"  {'sites':<10} in {total['with_sites']} modules, none in {total['without_sites']}; "
    yield f"{total['bad']} bad files\n"
    yield f"  {'records':<10} {total['slots']} slots, {total['null']} null, {total['live']} live\n"
    for key, name in (("by_layout", "layouts"), ("by_section", "sections"), ("by_status", "status")):
        if total[key]:
            yield f"  {name:<10} {_counts(total[key])}\n"
    usual = _usual(images)
    shown = [image for image in images if image["sites"]] if chosen else images
    rows = {image["file"]: _row(image, usual[image["arch"]]) for image in shown}
    rows |= {error["file"]: _bad(error) for error in errors}
    yield f"{'live':>6} {'null':>5}  {'layout':<12} module\n" if rows else ""
    for file in sorted(rows, key=os.fsencode):
        figures, remark = rows[file]
        yield f"{figures} {printable(_relative(file, tree['tree']))}{remark}\n"


def _counts(counts: dict[str, int]) -> str:
    texts = [f"{printable(name)} {count}" for name, count in counts.items()]
    more = [f"and {len(texts) - N_NAMES} more"] if len(texts) > N_NAMES else []
    return ", ".join(texts[:N_NAMES] + more)


def _usual(images: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The layout that most modules of a machine have, of those that have sites."""
    counts = Counter((image["layout"] != "none", image["arch"], image["layout"]) for image in images)
    ranked = sorted(counts, key=lambda key: (key[0], counts[key], key[2]))
    return {arch: name for _, arch, name in ranked}


def _row(image: dict[str, Any], usual: str) -> tuple[str, str]:
    """A module's figures, and what a reader should stumble over."""
    summary, layout = image["summary"], image["layout"]
    remarks = [f"{name} {count}" for name, count in summary["by_status"].items() if name != "ready"]
    if layout not in (usual, "none"):
        remarks.append(f"layout {layout}, most have {usual}")
    figures = f"{summary['live']:>6} {summary['null']:>5}  {layout:<12}"
    return figures, f"  ! {', '.join(remarks)}" if remarks else ""


def _bad(error: dict[str, Any]) -> tuple[str, str]:
    message = str(error["message"]).removeprefix(printable(error["file"]) + ": ")
    return f"{'-':>6} {'-':>5}  {'bad file':<12}", f"  ! {message}"


def _relative(file: str, top: str) -> str:
    return file.removeprefix(os.path.join(top, "")) or file
