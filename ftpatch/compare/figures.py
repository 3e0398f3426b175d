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
    for what, before, after in _figures(old["summary"], new["summary"]):
        for name in [*before, *(name for name in after if name not in before)]:
            one, two = before.get(name, 0), after.get(name, 0)
            if one != two:
                text = f"{what} {name}".lstrip()
                yield change("diff-count", new["file"], f"{text}: {one} -> {two} ({two - one:+d})")


def _figures(old: SummaryObject, new: SummaryObject) -> Iterator[tuple[str, Mapping[str, int], Mapping[str, int]]]:
    """(what is counted, the counts before, the counts now), by name."""
    yield "", _totals(old), _totals(new)
    yield "live records in", old["by_section"], new["by_section"]
    yield "live records that are", old["by_status"], new["by_status"]
    yield "at boot:", _boot(old), _boot(new)


def _totals(summary: SummaryObject) -> dict[str, int]:
    return {
        "slots": summary["slots"], "null": summary["null"], "live": summary["live"],
        "without record": summary["without_record"], "with skip": summary["with_skip"],
    }  # fmt: skip


def _boot(summary: SummaryObject) -> dict[str, int]:
    boot = summary["boot"]
    return {} if boot is None else {"allocating": boot["allocating"], "listed": boot["listed"]}


def reach_changes(old: ImageObject, new: ImageObject) -> Iterator[Finding]:
    """How many calls are out of reach of what they call, and by how much the text may still grow."""
    before, after, path = old["summary"]["reach"], new["summary"]["reach"], new["file"]
    if before is None or after is None:
        return
    for name, one, two in (
        (after["target"], before["beyond"], after["beyond"]),
        *((name, before["trampolines"].get(name, 0), n) for name, n in after["trampolines"].items()),
    ):
        if one != two:
            yield change("diff-reach", path, f"sites beyond the reach of {name}: {one} -> {two} ({two - one:+d})",
                           severity="warning" if two > one else "note")  # fmt: skip
    one, two = before["headroom"], after["headroom"]
    if one != two:
        text = f"the text may grow by {_mib(one)} -> {_mib(two)} ({two - one:+d} bytes) until a site reaches nothing"
        yield change("diff-reach", path, text, severity="error" if two < 0 <= one else "note")


def _mib(n: int) -> str:
    return f"{n / (1 << 20):.1f} MiB"
