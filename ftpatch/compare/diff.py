"""What changed for tracing between two builds, as findings: the worst first.

    lost      in both builds, no longer traceable       removed   traceable before, its function is gone
    gained    in both builds, traceable now             added     a new function that is traceable
    renamed   the compiler's name for it changed (.isra, .constprop, .part)
    layout    another layout, or another way in which the records are kept
    count     slots, sections, statuses, what the boot says     reach   how far the calls span
    module    a module of a tree came or went

Functions are matched by name and source file; one that is alone with its name on both sides, by name.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from ftpatch import trees
from ftpatch.compare.digest import Digest, Key, Site, digest_file, digest_files
from ftpatch.errors import FtpatchError, UsageError
from ftpatch.explanation.untraceable import base_name, text_of
from ftpatch.finding import SEVERITIES, Finding
from ftpatch.rules.register import rules_for

if TYPE_CHECKING:
    from ftpatch.document.types import ImageObject, SummaryObject


@dataclass(frozen=True)
class Compared:
    """Two files of one name, or one alone; findings in the order of their impact."""

    old: Digest | None
    new: Digest | None
    findings: tuple[Finding, ...]


def compare_files(old: Digest, new: Digest) -> Compared:
    """Everything that changed between two files. Raises UsageError for two machines, or a kernel and a module."""
    assert old.image is not None and new.image is not None
    before, after = old.image, new.image
    for one, two in ((before["arch"], after["arch"]), (before["kind"], after["kind"])):
        if one != two:
            raise UsageError("these two cannot be compared", new.path, found=two, expected=f"{one}, as {old.path} is")
    found = [*_layout(before, after), *_reach(before, after), *_counts(before, after), *_functions(old, new)]
    return Compared(old, new, tuple(sorted(found, key=impact)))


def judged(findings: Iterable[Finding], classes: Sequence[str]) -> tuple[Finding, ...]:
    """The findings with those of some classes as errors and all others as less, so that every format fails alike."""
    if not classes:
        return tuple(findings)
    return tuple(
        replace(
            one, severity="error" if class_of(one) in classes else min(one.severity, "warning", key=SEVERITIES.index)
        )
        for one in findings
    )


def class_of(one: Finding) -> str:
    """What --fail-on calls this kind of finding."""
    return one.rule.split("-")[1]


def impact(one: Finding) -> tuple[int, int, int, str, str]:
    """What findings are sorted by: severity, kind, how many, name."""
    return (-SEVERITIES.index(one.severity), list(_severities()).index(one.rule), -one.count, one.function or "",
            one.message)  # fmt: skip


@cache
def _severities() -> dict[str, str]:
    """The usual severity of each kind of change, in the order of their impact."""
    return {rule.id: rule.severity for rule in rules_for("diff")}


@dataclass(frozen=True)
class Comparison:
    """What changed between two files, or between two trees with the worst module first."""

    compared: tuple[Compared, ...]
    # of trees, the files that could not be read: path, why, the tree
    errors: tuple[tuple[str, FtpatchError, str], ...] = ()


def compare(
    old: str, new: str, layout: str | None = None, hashed: bool = False, jobs: int | None = None,
    watch: trees.Watch = trees.SILENT,
) -> Comparison:  # fmt: skip
    """Two files or two trees, read and compared. Raises what reading a file raises, and UsageError for one of each."""
    if os.path.isdir(old) != os.path.isdir(new):
        raise UsageError("a tree and a file cannot be compared", new, expected="two files, or two directories")
    if not os.path.isdir(old):
        sides = [digest_file(layout, hashed, path) for path in (old, new)]
        for side in sides:
            if side.error:
                raise side.error
        return Comparison((compare_files(sides[0], sides[1]),))
    before, errors = _read_tree(old, layout, hashed, jobs, watch)
    after, more = _read_tree(new, layout, hashed, jobs, watch)
    return Comparison(tuple(compare_trees(before, after, (old, new))), (*errors, *more))


def _read_tree(
    top: str, layout: str | None, hashed: bool, jobs: int | None, watch: trees.Watch
) -> tuple[list[Digest], list[tuple[str, FtpatchError, str]]]:
    """The digests of all modules of a tree in the order of their names, and what could not be read."""
    listing, found = trees.over_tree(top, lambda listing: partial(digest_files, layout, hashed), jobs, watch)
    found.sort(key=lambda digest: digest.path)
    bad = [(one.path, one.error, top) for one in found if one.error]
    bad += [(one.path, one.error, top) for one in listing.errors if one.error]
    return found, bad


def compare_trees(old: Sequence[Digest], new: Sequence[Digest], tops: tuple[str, str]) -> list[Compared]:
    """Module by module; the one with the worst findings first. Modules are matched by name, or where a tree has two of
    one name, by their path in it."""
    twice = {name for side in (old, new) for name, n in Counter(one.module for one in side).items() if n > 1}

    def keyed(side: Iterable[Digest], top: str) -> dict[str, Digest]:
        return {one.path.removeprefix(top) if one.module in twice else one.module: one for one in side if one.image}

    before, after = keyed(old, tops[0]), keyed(new, tops[1])
    unread = {one.module for side in (old, new) for one in side if one.error}
    compared = []
    for name in sorted(before.keys() | after.keys()):
        one, two = before.get(name), after.get(name)
        if one and two:
            compared.append(compare_files(one, two))
        elif (one or two) and (one or two or old[0]).module not in unread:
            compared.append(_alone(one, two))
    changed = [one for one in compared if one.findings]
    return sorted(changed, key=lambda one: impact(one.findings[0])[:2])


def _alone(old: Digest | None, new: Digest | None) -> Compared:
    one = old or new
    assert one is not None and one.image is not None
    rule, what = ("diff-module-removed", "gone") if old else ("diff-module-added", "new")
    live = one.image["summary"]["live"]
    message = f"module {one.module} is {what}, with {live} records"
    return Compared(old, new, (_finding(rule, one.path, message, "note" if old and not live else None),))


# -- figures -------------------------------------------------------------------------------------------------------


def _layout(old: ImageObject, new: ImageObject) -> Iterator[Finding]:
    if old["layout"] != new["layout"]:
        yield _finding("diff-layout", new["file"], f"layout {old['layout']} is {new['layout']} now")
    before, after = old["carrier"], new["carrier"]
    if before != after and "none" not in (before, after):
        text = f"records are kept by {after} now, no longer by {before}"
        yield _finding("diff-layout", new["file"], text, "warning")


def _counts(old: ImageObject, new: ImageObject) -> Iterator[Finding]:
    """One finding per figure of the summary that changed; sections and statuses one by one."""
    for what, before, after in _figures(old["summary"], new["summary"]):
        for name in [*before, *(name for name in after if name not in before)]:
            one, two = before.get(name, 0), after.get(name, 0)
            if one != two:
                text = f"{what} {name}".lstrip()
                yield _finding("diff-count", new["file"], f"{text}: {one} -> {two} ({two - one:+d})")


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


def _reach(old: ImageObject, new: ImageObject) -> Iterator[Finding]:
    before, after, path = old["summary"]["reach"], new["summary"]["reach"], new["file"]
    if before is None or after is None:
        return
    for name, one, two in (
        (after["target"], before["beyond"], after["beyond"]),
        *((name, before["trampolines"].get(name, 0), n) for name, n in after["trampolines"].items()),
    ):
        if one != two:
            yield _finding("diff-reach", path, f"sites beyond the reach of {name}: {one} -> {two} ({two - one:+d})",
                           severity="warning" if two > one else "note")  # fmt: skip
    one, two = before["headroom"], after["headroom"]
    if one != two:
        text = f"the text may grow by {_mib(one)} -> {_mib(two)} ({two - one:+d} bytes) until a site reaches nothing"
        yield _finding("diff-reach", path, text, severity="error" if two < 0 <= one else "note")


def _mib(n: int) -> str:
    return f"{n / (1 << 20):.1f} MiB"


# -- functions -----------------------------------------------------------------------------------------------------


def _functions(old: Digest, new: Digest) -> Iterator[Finding]:
    pairs, gone, come = _match(old.functions, new.functions)
    for one, two in pairs:
        yield from _pair(new.path, two, old.functions[one], new.functions[two])
    renamed: set[Key] = set()
    for one, two in _renamed(old.functions, new.functions, gone, come):
        renamed |= {one, two}
        n = _traceable(old.functions[one])
        yield _site_finding("diff-renamed", new.path, two, _first(new.functions[two]), f"{one[0]} is {two[0]} now", n)
    for key in gone:
        if key not in renamed and (n := _traceable(old.functions[key])):
            yield _finding("diff-removed", new.path, f"{_named(key)} is gone{_times(n)}", function=key[0], count=n)
    for key in come:
        if key not in renamed and (n := _traceable(new.functions[key])):
            yield _site_finding("diff-added", new.path, key, _first(new.functions[key]),
                                f"{_named(key)} is new and traceable{_times(n)}", n)  # fmt: skip


def _match(old: Mapping[Key, object], new: Mapping[Key, object]) -> tuple[list[tuple[Key, Key]], list[Key], list[Key]]:
    """Pairs of keys that mean the same function, and those of either side that are left over."""
    pairs = [(key, key) for key in old if key in new]
    gone, come = [key for key in old if key not in new], [key for key in new if key not in old]
    by_name: defaultdict[str, tuple[list[Key], list[Key]]] = defaultdict(lambda: ([], []))
    for side, keys in enumerate((gone, come)):
        for key in keys:
            by_name[key[0]][side].append(key)
    moved = [(one[0], two[0]) for one, two in by_name.values() if len(one) == len(two) == 1]
    pairs += moved
    left, right = {one for one, _ in moved}, {two for _, two in moved}
    return pairs, [key for key in gone if key not in left], [key for key in come if key not in right]


def _renamed(
    old: Mapping[Key, tuple[Site, ...]], new: Mapping[Key, tuple[Site, ...]], gone: list[Key], come: list[Key]
) -> Iterator[tuple[Key, Key]]:
    """Pairs of what is left over that only the compiler's suffix tells apart, traceable on both sides."""
    waiting: defaultdict[Key, list[Key]] = defaultdict(list)
    for key in come:
        if _traceable(new[key]):
            waiting[base_name(key[0]), key[1]].append(key)
    for key in gone:
        same = waiting.get((base_name(key[0]), key[1]))
        if same and _traceable(old[key]):
            yield key, same.pop(0)


def _pair(path: str, key: Key, old: tuple[Site, ...], new: tuple[Site, ...]) -> Iterator[Finding]:
    """What became of the functions of one name and file that both builds have."""
    before, after = _traceable(old), _traceable(new)
    if after > before:
        site = next(one for one in new if one.state == "traceable")
        yield _site_finding("diff-gained", path, key, site, f"{_named(key)} became traceable{_times(after - before)}",
                            after - before)  # fmt: skip
    elif after < before and len(new) > after:
        site = next(one for one in new if one.state != "traceable")
        n = before - after
        why = text_of(site.state, site.section)
        yield _site_finding("diff-lost", path, key, site, f"{_named(key)} is no longer traceable{_times(n)}: {why}", n)
    elif after < before:
        n = before - after
        yield _finding("diff-removed", path, f"{n} of {len(old)} functions called {_named(key)} are gone",
                       function=key[0], count=n)  # fmt: skip


def _traceable(sites: tuple[Site, ...]) -> int:
    return sum(one.state == "traceable" for one in sites)


def _first(sites: tuple[Site, ...]) -> Site:
    return next(one for one in sites if one.state == "traceable")


def _named(key: Key) -> str:
    return f"{key[0]}@{key[1]}" if key[1] else key[0]


def _times(n: int) -> str:
    return f" ({n} functions)" if n > 1 else ""


def _site_finding(rule: str, path: str, key: Key, site: Site, message: str, count: int) -> Finding:
    return _finding(rule, path, message, function=key[0], count=count, row=site.row, section=site.section,
                    offset=site.offset)  # fmt: skip


def _finding(rule: str, path: str, message: str, severity: str | None = None, **more: Any) -> Finding:
    return Finding(rule, severity or _severities()[rule], message, path, **more)
