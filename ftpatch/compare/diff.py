"""What changed for tracing between two builds, as findings: the worst first.

lost      in both builds, no longer traceable       removed   traceable before, its function is gone
gained    in both builds, traceable now             added     a new function that is traceable
renamed   the compiler's name for it changed (.isra, .constprop, .part)
layout    another layout, or another way in which the records are kept
count     slots, sections, statuses, what the boot says     reach   how far the calls span
module    a module of a tree came or went
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ftpatch import trees
from ftpatch.compare.changes import change, class_of, impact
from ftpatch.compare.digest import Digest, digest_file, digest_files
from ftpatch.compare.figures import count_changes, layout_changes, reach_changes
from ftpatch.compare.functions import function_changes
from ftpatch.errors import FtpatchError, UsageError
from ftpatch.finding import SEVERITIES, Finding


@dataclass(frozen=True)
class Compared:
    """Two files of one name, or one alone."""

    old: Digest | None  # None: a module that came
    new: Digest | None  # None: a module that is gone
    findings: tuple[Finding, ...]  # in the order of their impact


def compare_files(old: Digest, new: Digest) -> Compared:
    """Everything that changed between two files. Raises UsageError for two machines, or a kernel and a module."""
    assert old.image is not None and new.image is not None
    before, after = old.image, new.image
    for one, two in ((before["arch"], after["arch"]), (before["kind"], after["kind"])):
        if one != two:
            raise UsageError("these two cannot be compared", new.path, found=two, expected=f"{one}, as {old.path} is")
    found = [
        *layout_changes(before, after), *reach_changes(before, after), *count_changes(before, after),
        *function_changes(old, new),
    ]  # fmt: skip
    return Compared(old, new, tuple(sorted(found, key=impact)))


def judged(findings: Iterable[Finding], classes: Sequence[str]) -> tuple[Finding, ...]:
    """The findings with those of some classes as errors and all others as less, so that every format fails alike."""
    if not classes:
        return tuple(findings)
    return tuple(replace(finding, severity=_severity(finding, classes)) for finding in findings)


def _severity(finding: Finding, classes: Sequence[str]) -> str:
    return "error" if class_of(finding) in classes else min(finding.severity, "warning", key=SEVERITIES.index)


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
    return Compared(old, new, (change(rule, one.path, message, "note" if old and not live else None),))
