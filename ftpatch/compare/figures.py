"""What changed in the figures of a file: its layout, its counts, and how far its calls reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ftpatch.compare.changes import change
from ftpatch.finding import Finding

if TYPE_CHECKING:
    from ftpatch.document.types import ImageObject, SummaryObject


def layout_changes(old: ImageObject, new: ImageObject) -> Iterator[Finding]:
    """Another layout, or another way in which the records are kept."""
    if old["layout"] != new["layout"]:
        yield change("diff-layout", new["file"], f"layout {old['layout']} is {new['layout']} now")
    before, after = old["carrier"], new["carrier"]
    if before != after and "none" not in (before, after):
        text = f"records are kept by {after} now, no longer by {before}"
        yield change("diff-layout", new["file"], text, "warning")


def count_changes(old: ImageObject, new: ImageObject) -> Iterator[Finding]:
    """One finding per figure of the summary that changed; sections and statuses one by one."""
    for (what, before), (_, after) in zip(_figures(old["summary"]), _figures(new["summary"]), strict=True):
        for name in [*before, *(name for name in after if name not in before)]:
            n_old, n_new = before.get(name, 0), after.get(name, 0)
            if n_old != n_new:
                text = f"{what} {name}".lstrip()
                yield change("diff-count", new["file"], f"{text}: {n_old} -> {n_new} ({n_new - n_old:+d})")


def _figures(summary: SummaryObject) -> list[tuple[str, Mapping[str, int]]]:
    """(what is counted, the counts by name)."""
    totals = {"slots": summary["slots"], "null": summary["null"], "live": summary["live"],
              "without record": summary["without_record"], "with skip": summary["with_skip"]}  # fmt: skip
    boot = summary["boot"]
    at_boot = {} if boot is None else {"allocating": boot["allocating"], "listed": boot["listed"]}
    return [("", totals), ("live records in", summary["by_section"]), ("live records that are", summary["by_status"]),
            ("at boot:", at_boot)]  # fmt: skip


def reach_changes(old: ImageObject, new: ImageObject) -> Iterator[Finding]:
    """How many calls are out of reach of what they call, and by how much the text may still grow."""
    before, after, path = old["summary"]["reach"], new["summary"]["reach"], new["file"]
    if before is None or after is None:
        return
    trampolines = ((name, before["trampolines"].get(name, 0), n) for name, n in after["trampolines"].items())
    for name, n_old, n_new in ((after["target"], before["beyond"], after["beyond"]), *trampolines):
        if n_old != n_new:
            text = f"sites beyond the reach of {name}: {n_old} -> {n_new} ({n_new - n_old:+d})"
            yield change("diff-reach", path, text, "warning" if n_new > n_old else "note")
    left, now = before["headroom"], after["headroom"]
    if left != now:
        text = f"the text may grow by {_mib(left)} -> {_mib(now)} ({now - left:+d} bytes) until a site reaches nothing"
        yield change("diff-reach", path, text, "error" if now < 0 <= left else "note")


def _mib(n: int) -> str:
    return f"{n / (1 << 20):.1f} MiB"
