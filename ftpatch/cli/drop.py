"""`ftpatch drop`: take functions out of the kernel's list, their code untouched."""

from __future__ import annotations

import click

from ftpatch import api
from ftpatch.arrays import Mask
from ftpatch.cli.writing import WritingOptions, by_options, records, writing_verb
from ftpatch.errors import UsageError
from ftpatch.plan.plan import Plan
from ftpatch.plan.request import DropRequest
from ftpatch.sites.choice import Choose


def _choose(shared: WritingOptions, all_but: tuple[str, ...], records: str) -> Choose:
    """By the selectors, or by --all-but: every live record but those."""
    if not all_but:
        return by_options(shared)
    if shared.func or shared.status or shared.section or shared.unrecorded:
        raise UsageError("--all-but stands alone", found="other selectors", expected="--all-but SEL, repeatable")
    return api.all_but(all_but)


@writing_verb("drop", _choose)
@records("auto", "null", "minus4", "shrink")
@click.option("--all-but", multiple=True, metavar="SEL", help="Drop every record but those of these; repeatable.")
def command(scan: api.Scan, chosen: Mask, shared: WritingOptions, all_but: tuple[str, ...], records: str) -> Plan:
    """Take the records of functions out of the kernel's table, all of them or none, without touching their code: they
    can then not be traced, probed through ftrace or live-patched. --status weak-leftover takes those of dead code."""
    return api.make_plan(scan, DropRequest(chosen, records, shared.skip_unpatchable))
