"""What changed for tracing between two builds, as findings: the worst first.

lost      in both builds, no longer traceable       removed   traceable before, its function is gone
gained    in both builds, traceable now             added     a new function that is traceable
redirected  it is untraceable as before, and another function takes its place
renamed   the compiler's name for it changed (.isra, .constprop, .part)
layout    another layout, or another way in which the records are kept
count     slots, sections, statuses, what the boot says     reach   how far the calls span
module    a module of a tree came or went
static    a static call came or went, holds another function, or is called from others
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from ftpatch import trees
from ftpatch.compare.changes import change, class_of, impact
from ftpatch.compare.digest import Digest, digest_files
from ftpatch.compare.figures import count_changes, layout_changes, reach_changes
from ftpatch.compare.functions import function_changes
from ftpatch.compare.static_calls import static_call_changes
from ftpatch.document.request import Request
from ftpatch.errors import FtpatchError, UsageError
from ftpatch.finding import SEVERITIES, Finding
from ftpatch.inputs import Path


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
    for wanted, found in ((before["arch"], after["arch"]), (before["kind"], after["kind"])):
        if wanted != found:
            raise UsageError("these two cannot be compared", new.path, found=found,
                             expected=f"{wanted}, as {old.path} is",
                             todo="name the same file of both builds")  # fmt: skip
    figures = (findings(before, after) for findings in (layout_changes, reach_changes, count_changes))
    calls = static_call_changes(old.static_calls, new.static_calls, new.path)
    return Compared(old, new, tuple(sorted(chain(*figures, function_changes(old, new), calls), key=impact)))


def judged(findings: Iterable[Finding], classes: Sequence[str]) -> tuple[Finding, ...]:
    """The findings with those of some classes as errors and all others as less, so that every format fails alike."""

    def severity(finding: Finding) -> str:
        return "error" if class_of(finding) in classes else min(finding.severity, "warning", key=SEVERITIES.index)

    return tuple(replace(finding, severity=severity(finding)) if classes else finding for finding in findings)


@dataclass(frozen=True)
class Comparison:
    """What changed between two files, or between two trees with the worst module first."""

    compared: tuple[Compared, ...]
    errors: tuple[tuple[str, FtpatchError, str], ...] = ()  # of trees, what cannot be read: path, why, the tree


def compare(
    old: Path, new: Path, layout: str | None = None, hashed: bool = False, jobs: int | None = None,
    watch: trees.Watch = trees.SILENT, max_size: int | None = None,
) -> Comparison:  # fmt: skip
    """Two files or two trees, read and compared. Raises what reading a file raises, and UsageError for one of each."""
    old, new = os.fspath(old), os.fspath(new)
    if os.path.isdir(old) != os.path.isdir(new):
        raise UsageError("a tree and a file cannot be compared", new, expected="two files, or two directories",
                         todo="name the same of both builds")  # fmt: skip
    request = Request(layout=layout, max_size=max_size, hashed=hashed)
    if not os.path.isdir(old):
        before, after = digest_files(request, (old, new))
        if error := before.error or after.error:
            raise error
        return Comparison((compare_files(before, after),))
    sides, errors = [], []
    for top in (old, new):
        listing, digests = trees.over_tree(top, lambda listing: partial(digest_files, request), jobs, watch)
        sides.append(sorted(digests, key=lambda digest: digest.path))
        errors += [(file.path, file.error, top) for file in sides[-1] if file.error]
        errors += [(folder.path, folder.error, top) for folder in listing.errors if folder.error]
    return Comparison(tuple(compare_trees(sides[0], sides[1], (old, new))), tuple(errors))


def compare_trees(old: Sequence[Digest], new: Sequence[Digest], tops: tuple[str, str]) -> list[Compared]:
    """Module by module; the one with the worst findings first. Modules are matched by name, or where a tree has two of
    one name, by their path in it."""
    twice = {name for side in (old, new) for name, n in Counter(file.module for file in side).items() if n > 1}

    def keyed(side: Iterable[Digest], top: str) -> dict[str, Digest]:
        read = (file for file in side if file.image)
        return {file.path.removeprefix(top) if file.module in twice else file.module: file for file in read}

    before, after = keyed(old, tops[0]), keyed(new, tops[1])
    unread = {file.module for file in (*old, *new) if file.error}
    compared = []
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was and now:
            compared.append(compare_files(was, now))
        elif (file := was or now) and file.module not in unread:
            compared.append(_alone(file, now is None))
    changed = [pair for pair in compared if pair.findings]
    return sorted(changed, key=lambda pair: impact(pair.findings[0])[:2])


def _alone(file: Digest, gone: bool) -> Compared:
    rule, what = ("diff-module-removed", "gone") if gone else ("diff-module-added", "new")
    live = file.image["summary"]["live"] if file.image else 0
    text = f"module {file.module} is {what}, with {live} records"
    finding = change(rule, file.path, text, "note" if gone and not live else None)
    return Compared(file if gone else None, None if gone else file, (finding,))
