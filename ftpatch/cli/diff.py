"""`ftpatch diff`: what changed for tracing between two builds, or between two trees of modules."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from ftpatch import api
from ftpatch.cli import Verb
from ftpatch.cli.options import Reports, failed, gathered, jobs, layout, max_size, options, reports
from ftpatch.cli.usage import Choice
from ftpatch.compare.changes import class_of
from ftpatch.compare.diff import Compared, judged
from ftpatch.finding import Finding
from ftpatch.report import Document, shows_more
from ftpatch.report.files import check_reports
from ftpatch.report.objects import finding_rows
from ftpatch.rules.register import rules_for

if TYPE_CHECKING:
    from ftpatch.document.types import ImageObject

CLASSES = (
    "layout", "module", "lost", "redirected", "static", "reach", "removed", "renamed", "gained", "added", "count",
)  # fmt: skip
FAIL_HELP = "Exit 1 only for this kind of change; repeatable. Others are shown all the same."


@dataclass(frozen=True)
class DiffOptions:
    old: str  # two files, or two directories
    new: str
    layout: str | None  # of sites, where it is forced
    max_size: int | None  # bytes that a packed file may unpack to
    fail_on: tuple[str, ...]  # some of CLASSES
    show_all: bool
    jobs: int | None  # worker processes of a tree


@click.command("diff", cls=Verb)
@gathered(DiffOptions, Reports)
@click.argument("old")
@click.argument("new")
@options(reports, [layout, max_size])
@click.option("--fail-on", multiple=True, type=Choice(CLASSES), help=FAIL_HELP)
@click.option("--all", "show_all", is_flag=True, help="Every finding in text, not the first few of each kind.")
@jobs
def command(given: DiffOptions, reports: Reports) -> int:
    """Compare two builds of a kernel, module or object, or two trees of modules: what is no longer traceable, what is
    now, and how static calls, layout, counts and reach changed, the worst first. Functions of one name are told
    apart by file.

    Exit code 1 if there is a difference; with --fail-on, if there is one of that kind.
    """
    old, new, classes = given.old, given.new, given.fail_on
    check_reports(reports.report, [old, new])
    tree = new if os.path.isdir(new) else None
    hashed = shows_more(reports.formats)
    comparison = api.diff(old, new, given.layout, hashed, given.jobs, reports.watch(), given.max_size)
    document = Document(
        "diff", show_sites=given.show_all, rules=rules_for("diff"), fail_on="error" if classes else "note"
    )
    for path, error, top in comparison.errors:
        failed(document, path, error, top)
    changed = 0
    for pair in comparison.compared:
        document.images.append(_image(pair, judged(pair.findings, classes), tree))
        changed |= any(not classes or class_of(finding) in classes for finding in pair.findings)
    reports.deliver(document)
    return max([changed, *(error["code"] for error in document.errors)])


def _image(pair: Compared, findings: Sequence[Finding], top: str | None) -> ImageObject:
    """The IMAGE object of the new file, or of the old one where that is gone, with what it was compared with."""
    shown = pair.new or pair.old
    assert shown is not None and shown.image is not None
    image, other = shown.image, pair.old.image if pair.new and pair.old else None
    image["compared"] = None if other is None else {
        "file": other["file"], "sha256": other["sha256"], "build_id": other["build_id"], "layout": other["layout"],
        "carrier": other["carrier"], "summary": other["summary"],
    }  # fmt: skip
    image["findings"] = finding_rows(findings)
    if top is not None:
        image["tree"] = top
    return image
