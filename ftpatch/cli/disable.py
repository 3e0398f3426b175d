"""`ftpatch disable`: the way back for chosen sites of a patched file, without its journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ftpatch.cli.options import layout, options, reports, selectors
from ftpatch.cli.writing import chosen_by, output, run

if TYPE_CHECKING:
    from ftpatch.arrays import Mask
    from ftpatch.plan.plan import Plan
    from ftpatch.sites.scan import Scan


@click.command("disable")
@click.argument("file", default="vmlinux", metavar="[FILE]")
@options(selectors, reports, [layout], output)
def command(file: str, func: tuple[str, ...], status: tuple[str, ...], section: tuple[str, ...], **shared: Any) -> int:
    """Give enabled sites the words back that the compiler left, and their records; all of them or none.

    Sites of -mprofile-kernel, which are calls in the file, become NOPs without a record."""
    from ftpatch import api
    from ftpatch.plan.request import DisableRequest

    def decide(scan: Scan, chosen: Mask) -> Plan:
        return api.make_plan(scan, DisableRequest(chosen, shared["skip_unpatchable"]))

    return run("disable", file, shared, chosen_by(func, status, section), decide)
