"""What every user of a patched kernel has to know, told once per run, in the text and in the report."""

from __future__ import annotations

from ftpatch.arch import Shape
from ftpatch.plan.records_out import Dropping
from ftpatch.plan.routes import Routes
from ftpatch.plan.targets import OPS, Ops, Target

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


def of_plan(
    shape: Shape, target: Target, ops: Ops | None, dropped: Dropping, routes: Routes, n: int, more: int
) -> list[str]:
    """The notes of a plan over n sites; none where nothing is patched. more: records that leave besides theirs."""
    if not n:
        return []
    found = []
    if dropped.way != "keep":
        found.append(LEAVES_LIST)
    if more:
        found.append(f"{more} {ONLY_INIT}")
    if target.own and not target.entry.literal:
        found.append(NO_FILTER)
    if ops is not None and ops.name == OPS["nop"]:
        found.append(INVISIBLE)
    for number, stub in enumerate(routes.stubs):
        calls = int((routes.through == number).sum())
        goes = "1 call goes" if calls == 1 else f"{calls} calls go"
        found.append(f"{goes} through {stub.name} at {stub.va:#x}: {stub.why}")
    return [*found, BUILD_ID, SIGNATURE]
