"""What every user of a patched kernel has to know, told once per run, in the text and in the report."""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import Mask
from ftpatch.plan.routes import Routes
from ftpatch.plan.targets import OPS, Ops, Target
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import ENABLED, HALF, UNEXPECTED

LEAVES_LIST = (
    "the patched functions leave ftrace's list: "
    "they can no longer be traced by name, kprobed through ftrace or live-patched"
)
ONLY_INIT = (
    "records of init text leave the table too, their code unchanged: as the only ones left "
    "they would make the kernel read through a null pointer once init memory is freed"
)
NO_FILTER = (
    "this kernel's ftrace_caller has no per-site filter: "
    "a tracer that runs alone also sees the patched sites, whatever its filter"
)
STILL_BROKEN = (
    "live records name sites that are no longer as the kernel expects them (enabled, half or unexpected): "
    "at boot it will print an ftrace bug and switch ftrace off, whatever this patch does"
)
INVISIBLE = "ops nop: the sites run ftrace_caller but no tracer ever sees them"
BUILD_ID = "the build-id still names the original build, not these bytes"
SIGNATURE = "a Secure Boot signature over the image is void"


def of_enable(target: Target, ops: Ops | None, way: str, routes: Routes, n: int, more: int) -> list[str]:
    """The notes of a plan over n sites; none where nothing is patched.

    way: how records leave; more: records that leave besides those of the sites.
    """
    if not n:
        return []
    told = []
    if way != "keep":
        told.append(LEAVES_LIST)
    if more > 0:
        told.append(f"{more} {ONLY_INIT}")
    if target.own and not target.entry.literal:
        told.append(NO_FILTER)
    if ops is not None and ops.name == OPS["nop"]:
        told.append(INVISIBLE)
    for number, stub in enumerate(routes.stubs):
        calls = int((routes.through == number).sum())
        goes = "1 call goes" if calls == 1 else f"{calls} calls go"
        told.append(f"{goes} through {stub.name} at {stub.va:#x}: {stub.why}")
    return [*told, BUILD_ID, SIGNATURE]


def still_broken(scan: Scan, gone: Mask) -> tuple[str, ...]:
    """A warning where records that stay name sites at which the kernel will stumble. gone: slots that leave."""
    stays = np.flatnonzero(scan.records.live & ~gone)
    broken = int(np.isin(scan.sites.status[stays], (ENABLED, HALF, UNEXPECTED)).sum())
    return (f"{broken} {STILL_BROKEN}",) if broken else ()
