"""`ftpatch disable`: the way back for chosen sites of a patched file, without its journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftpatch.cli.writing import writing_verb

if TYPE_CHECKING:
    from ftpatch.arrays import Mask
    from ftpatch.cli.writing import WritingOptions
    from ftpatch.plan.plan import Plan
    from ftpatch.sites.scan import Scan


@writing_verb("disable")
def command(scan: Scan, chosen: Mask, shared: WritingOptions) -> Plan:
    """Give enabled sites the words back that the compiler left, and their records; all of them or none.

    Sites of -mprofile-kernel, which are calls in the file, become NOPs without a record."""
    from ftpatch import api
    from ftpatch.plan.request import DisableRequest

    return api.make_plan(scan, DisableRequest(chosen, shared.skip_unpatchable))
