"""The sums over the modules of a tree, as a JSON object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftpatch.document.types import ImageObject, TotalsObject


def totals(images: Sequence[ImageObject], n_bad: int) -> TotalsObject:
    """The sums over the modules of one tree; the counts by name begin with the greatest."""
    summaries = [image["summary"] for image in images]
    with_sites = sum(1 for summary in summaries if summary["live"])
    return {
        "modules": len(images) + n_bad,
        "bad": n_bad,
        "with_sites": with_sites,
        "without_sites": len(images) - with_sites,
        "slots": sum(summary["slots"] for summary in summaries),
        "null": sum(summary["null"] for summary in summaries),
        "live": sum(summary["live"] for summary in summaries),
        "by_section": _sum(summary["by_section"] for summary in summaries),
        "by_status": _sum(summary["by_status"] for summary in summaries),
        "by_layout": _sum({image["layout"]: 1} for image in images),
        "by_arch": _sum({image["arch"]: 1} for image in images),
    }


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))
