"""`ftpatch diff`: what changed for tracing between two builds, or between two trees of modules."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from ftpatch.cli import complain
from ftpatch.cli.options import check_reports, layout, options, reports, to_files, to_stdout
from ftpatch.errors import FtpatchError, UsageError

if TYPE_CHECKING:
    from ftpatch.compare.diff import Compared
    from ftpatch.report import Document

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
    from ftpatch.compare import diff
    from ftpatch.report import Document, destinations
    from ftpatch.rules.register import rules_for

    hashed = bool({format_, *(name for name, _ in destinations(report))} - {"text", "csv"})
    if os.path.isdir(old) != os.path.isdir(new):
        raise UsageError("a tree and a file cannot be compared", new, expected="two files, or two directories")
    check_reports(report, [old, new])
    document = Document("diff", show_sites=show_all, rules=rules_for("diff"), fail_on="error" if fail_on else "note")
    if os.path.isdir(old):
        compared = _trees(old, new, layout, hashed, jobs, report, document)
    else:
        compared = [_files(old, new, layout, hashed)]
    for one in compared:
        document.images.append(_image(one, diff.judged(one.findings, fail_on), new if os.path.isdir(new) else None))
    to_files(document, report)
    to_stdout(document, format_, color)
    failed = any(not fail_on or diff.class_of(found) in fail_on for one in compared for found in one.findings)
    return max([int(failed), *(int(error["code"]) for error in document.errors)])


def _files(old: str, new: str, layout: str | None, hashed: bool) -> Compared:
    from ftpatch.compare.diff import compare_files
    from ftpatch.compare.digest import digest_file

    sides = [digest_file(layout, hashed, path) for path in (old, new)]
    for side in sides:
        if side.error:
            raise side.error
    return compare_files(sides[0], sides[1])


def _trees(
    old: str, new: str, layout: str | None, hashed: bool, jobs: int | None, report: tuple[str, ...], document: Document
) -> list[Compared]:
    """All modules of both trees; a file that cannot be read is an error of the whole, and none of its findings."""
    from ftpatch import trees
    from ftpatch.cli.scan import _progress
    from ftpatch.compare import diff

    sides = []
    for top in (old, new):
        listing = trees.walk(top)
        check_reports(report, listing.files)
        with _progress(len(listing.files)) as advance:
            found = diff.read_tree(listing, layout, hashed, jobs, advance)
        bad = [(one.path, one.error) for one in found if one.error]
        for path, error in bad + [(one.path, one.error) for one in listing.errors if one.error]:
            _bad(path, error, top, document)
        sides.append(found)
    return diff.compare_trees(sides[0], sides[1], (old, new))


def _bad(path: str, error: FtpatchError, top: str, document: Document) -> None:
    complain(error)
    document.errors.append({"file": path, "code": error.exit_code, "message": str(error), "tree": top})


def _image(one: Compared, findings: tuple[Any, ...], top: str | None) -> dict[str, Any]:
    """The IMAGE object of the new file, or of the old one where that is gone, with what it was compared with."""
    from ftpatch.report.findings import finding_rows

    image = (one.new or one.old).image  # type: ignore[union-attr]
    assert image is not None
    other = one.old.image if one.new and one.old else None
    compared = other and {key: other[key] for key in ("file", "sha256", "build_id", "layout", "carrier", "summary")}
    found = {**image, "compared": compared, "findings": finding_rows(findings)}
    return found if top is None else {**found, "tree": top}
