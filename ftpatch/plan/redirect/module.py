"""`redirect` for modules."""

from __future__ import annotations

from ftpatch.errors import UnsupportedError
from ftpatch.plan.plan import Plan
from ftpatch.plan.request import RedirectRequest
from ftpatch.sites.scan import Scan


def plan_module_redirect(scan: Scan, request: RedirectRequest) -> Plan:
    """Decide everything. Raises a PlanError, or an UnsupportedError where the layout cannot be changed at all."""
    raise UnsupportedError("redirecting functions of modules is not supported yet", scan.image.path)
