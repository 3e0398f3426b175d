"""`ftpatch diff`: what changed for tracing between two builds, or between two trees of modules."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ftpatch.cli.options import failed, layout, options, reports, to_files, to_stdout, watch
from ftpatch.report.files import check_reports

if TYPE_CHECKING:
    from ftpatch.compare.diff import Compared
    from ftpatch.document.types import ImageObject
    from ftpatch.finding import Finding

CLASSES = ("layout", "module", "lost", "reach", "removed", "renamed", "gained", "added", "count")
FAIL_HELP = "Exit 1 only for this kind of change; repeatable. Others are shown all the same."


@click.command("diff")
@click.argument("old")
@click.argument("new")
@options(reports, [layout])
@click.option("--fail-on", multiple=True, type=click.Choice(CLASSES), help=FAIL_HELP)
@click.option("--all", "show_all", is_flag=True, help="Every finding in text, not the first few of each kind.")
@click.option("--jobs", type=click.IntRange(1, 1024), metavar="N", help="Worker processes for trees.")
def command(
    old: str, new: str, format_: str, color: str, report: tuple[str, ...], layout: str | None, fail_on: tuple[str, ...],
    show_all: bool, jobs: int | None,
) -> int:  # fmt: skip
    """Compare two builds of a kernel, module or object, or two trees of modules: what is no longer traceable, what is
    now, and how layout, counts and reach changed, the worst first. Functions of one name are told apart by file.

    Exit code 1 if there is a difference; with --fail-on, if there is one of that kind.
    """
    from ftpatch import api
    from ftpatch.compare.changes import class_of
    from ftpatch.compare.diff import judged
    from ftpatch.report import Document, destinations, shows_more
    from ftpatch.rules.register import rules_for

    hashed = shows_more([format_, *(name for name, _ in destinations(report))])
    check_reports(report, [old, new])
    tree = new if os.path.isdir(new) else None
    found = api.diff(old, new, layout, hashed, jobs, watch(report))
    document = Document("diff", show_sites=show_all, rules=rules_for("diff"), fail_on="error" if fail_on else "note")
    for path, error, top in found.errors:
        failed(document, path, error, top)
    for one in found.compared:
        document.images.append(_image(one, judged(one.findings, fail_on), tree))
    to_files(document, report)
    to_stdout(document, format_, color)
    changed = any(not fail_on or class_of(finding) in fail_on for one in found.compared for finding in one.findings)
    return max([int(changed), *(error["code"] for error in document.errors)])


def _image(one: Compared, findings: Sequence[Finding], top: str | None) -> ImageObject:
    """The IMAGE object of the new file, or of the old one where that is gone, with what it was compared with."""
    from ftpatch.report.findings import finding_rows

    shown = one.new or one.old
    assert shown is not None and shown.image is not None
    image, other = shown.image, one.old.image if one.new and one.old else None
    image["compared"] = None if other is None else {
        "file": other["file"], "sha256": other["sha256"], "build_id": other["build_id"], "layout": other["layout"],
        "carrier": other["carrier"], "summary": other["summary"],
    }  # fmt: skip
    image["findings"] = finding_rows(findings)
    if top is not None:
        image["tree"] = top
    return image
