"""`enable` and `disable` for object files, which nobody has linked yet.

The call of a site is a relocation, so another function is called where that names another symbol. A mark stays at every
patched site, by which it is known again (`sites/object_marks.py`). An object may become part of a kernel: the record of
a site that is no longer what a kernel expects leaves.
"""

from __future__ import annotations

from ftpatch.errors import UnsupportedError
from ftpatch.plan.object.disable import plan_object_disable
from ftpatch.plan.object.enable import plan_object_enable
from ftpatch.plan.plan import Plan
from ftpatch.plan.request import DisableRequest, EnableRequest, Request
from ftpatch.sites.scan import Scan


def plan_object(scan: Scan, request: Request) -> Plan:
    """The plan for an object file. Raises a PlanError, or an UnsupportedError for verbs of what is linked."""
    if isinstance(request, EnableRequest):
        return plan_object_enable(scan, request)
    if isinstance(request, DisableRequest):
        return plan_object_disable(scan, request)
    raise UnsupportedError("this verb does not suit files of kind object", scan.image.path,
                           expected="a linked vmlinux or a module", todo="enable and disable take objects")  # fmt: skip
