"""What every user of a patched kernel has to know, once per run, in the text and in the report."""

from __future__ import annotations

import numpy as np

from ftpatch.arrays import I64, Mask
from ftpatch.plan.routes import Calls
from ftpatch.plan.targets import OPS, Goal
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import ENABLED, HALF, UNEXPECTED

LEAVES_LIST = (
    "the patched functions leave ftrace's list: "
    "they can no longer be traced by name, kprobed through ftrace or live-patched"
)
REDIRECTED = (
    "the redirected functions leave ftrace's list: they can no longer be traced by name, kprobed through ftrace or "
    "live-patched; their replacements still can"
)
WORD = "each redirect changes one aligned word, which may be done while other processors execute it"
REDIRECTS = (REDIRECTED, WORD)
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
JOURNAL_ALONE = "no symbol shows them later, so that the journal alone can undo this (--report json=FILE)"
NOT_SEEN_AGAIN = (
    "can no longer be found by scan and disable, as a call of this target behind a prologue is one like any other: "
    "the journal alone can undo this (--report json=FILE)"
)
BUILD_ID = "the build-id still names the original build, not these bytes"
SIGNATURE = "a Secure Boot signature over the image is void"


def of_enable(goal: Goal, way: str, calls: Calls, more: int) -> list[str]:
    """The notes of a plan for a kernel's calls; none where nothing is patched.

    way: how records leave; more: records that leave besides those of the sites.
    """
    if not len(calls.call_to):
        return []
    lines = [] if way == "keep" else [LEAVES_LIST]
    if more > 0:
        lines.append(f"{more} {ONLY_INIT}")
    if goal.target.own and not goal.target.entry.literal:
        lines.append(NO_FILTER)
    if goal.ops is not None and goal.ops.name == OPS["nop"]:
        lines.append(INVISIBLE)
    for number, stub in enumerate(calls.shared):
        n = int((calls.through == number).sum())
        lines.append(f"{n} call{' goes' if n == 1 else 's go'} through {stub.name} at {stub.va:#x}: {stub.why}")
    return [*lines, BUILD_ID, SIGNATURE]


def of_redirect(calls: Calls, more: int) -> list[str]:
    """The notes of a plan for a kernel's redirected functions. more: records that leave besides theirs."""
    lines = [*REDIRECTS]
    if more > 0:
        lines.append(f"{more} {ONLY_INIT}")
    for number, stub in enumerate(calls.shared):
        n = int((calls.through == number).sum())
        lines.append(f"{n} jump{' goes' if n == 1 else 's go'} through {stub.name} at {stub.va:#x}: {stub.why}")
    return [*lines, BUILD_ID, SIGNATURE]


def nameless(scan: Scan, index: I64) -> tuple[str, ...]:
    """What is lost where sites of a kernel have no symbol: nothing shows them once they have no record."""
    n = int((scan.sites.func[index] == scan.sites.func_end[index]).sum())
    return (f"{n} of the sites have no name: {JOURNAL_ALONE}",) if n else ()


def not_seen_again(scan: Scan, index: I64, way: str, known: bool) -> tuple[str, ...]:
    """What is lost where sites behind prologues call a function of the user's own and no record stays to name them.

    way: how records leave. known: whether only sites call the target, so that `enabled_anywhere` finds them.
    """
    if known or scan.sites.shape is None or not scan.sites.shape.anywhere:
        return ()
    n = len(index) if way != "keep" else int((scan.sites.row[index] < 0).sum())
    return (f"{n} of the sites {NOT_SEEN_AGAIN}",) if n else ()


def still_broken(scan: Scan, gone: Mask) -> tuple[str, ...]:
    """A warning where records that stay name sites at which the kernel will stumble. gone: slots that leave."""
    stays = np.flatnonzero(scan.records.live & ~gone)
    broken = int(np.isin(scan.sites.status[stays], (ENABLED, HALF, UNEXPECTED)).sum())
    return (f"{broken} {STILL_BROKEN}",) if broken else ()
