"""`ftpatch drop`: take functions out of the kernel's list, their code untouched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ftpatch.cli.options import layout, options, reports, selectors
from ftpatch.cli.writing import chosen_by, output, records_option, run
from ftpatch.errors import UsageError

if TYPE_CHECKING:
    from ftpatch.arrays import Mask
    from ftpatch.plan.plan import Plan
    from ftpatch.sites.scan import Scan


@click.command("drop")
@click.argument("file", default="vmlinux", metavar="[FILE]")
@options(selectors, reports, [layout], output, records_option("auto", "null", "minus4", "shrink"))
@click.option("--all-but", multiple=True, metavar="SEL", help="Drop every record but those of these; repeatable.")
def command(
    file: str, func: tuple[str, ...], status: tuple[str, ...], section: tuple[str, ...], way: str,
    all_but: tuple[str, ...], **shared: Any,
) -> int:  # fmt: skip
    """Take the records of functions out of the kernel's table, all of them or none, without touching their code: they
    can then not be traced, probed through ftrace or live-patched. --status weak-leftover takes those of dead code."""
    from ftpatch import api
    from ftpatch.plan.request import DropRequest

    if all_but and (func or status or section):
        raise UsageError("--all-but stands alone", found="other selectors", expected="--all-but SEL, repeatable")
    choose = chosen_by(all_but or func, status, section)

    def inverted(scan: Scan) -> tuple[Mask, tuple[str, ...]]:
        kept, said = choose(scan)
        has_record = scan.sites.row >= 0
        has_record[: len(scan.records)] &= scan.records.live
        return has_record & ~kept, said

    def decide(scan: Scan, chosen: Mask) -> Plan:
        return api.make_plan(scan, DropRequest(chosen, way, shared["skip_unpatchable"]))

    return run("drop", file, shared, inverted if all_but else choose, decide)
