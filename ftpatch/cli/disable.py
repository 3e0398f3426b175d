"""`ftpatch disable`: give chosen sites of a patched file their old words back, without its journal."""

from __future__ import annotations

import click

from ftpatch import api
from ftpatch.arrays import Mask
from ftpatch.cli.writing import WritingOptions, writing_verb
from ftpatch.plan.plan import Plan
from ftpatch.plan.request import DisableRequest

DISARM_HELP = "Layout pad-before: clear the pads, too, of sites whose switch is on or off."


@writing_verb("disable")
@click.option("--disarm", is_flag=True, help=DISARM_HELP)
def command(scan: api.Scan, chosen: Mask, shared: WritingOptions, disarm: bool) -> Plan:
    """Give enabled sites the words back that the compiler left, and their records; all of them or none.

    Sites of -mprofile-kernel and -pg, which are calls in the file, become NOPs without a record, and so do all sites
    of an object that call the profiling function."""
    return api.make_plan(scan, DisableRequest(chosen, shared.skip_unpatchable, disarm, shared.unrecorded))
