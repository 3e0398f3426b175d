"""What is said of a site in a program or shared object, where no kernel ever looks: in words of its own."""

from __future__ import annotations

from ftpatch.arch.shape import MATCH_OLD
from ftpatch.explanation import redirected
from ftpatch.sites.layout import shapes_of
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import STATUSES

VERDICTS = {
    "ready": "patchable: a record names its site, which is as the compiler left it",
    "enabled": "enabled: its site calls something, as a patch made it",
    "half": "half enabled: its first word is rewritten, the call is not there",
    "null": "a record of no function: the linker dropped it, or its relocation is lost",
    "weak-leftover": "patchable, but to no purpose: its code has no name, and nothing in the file refers to it",
    "stripped": "patchable, but not by a name: the symbol of its function is stripped",
    "unnamed": "patchable, but not by a name: the symbol of its function is stripped",
    "outside-text": "the record names no code",
    "unrecorded": "patchable: it calls the profiling function, as gprof wants it (-pg), which needs no record",
    "off": "patchable: its call of the profiling function (-pg) was made a NOP",
    "unexpected": "the site holds neither what the compiler left nor a call",
    "armed": "armed: its pad is filled, its switch is off, so that nothing is called yet",
    "padding": "no site: all its NOPs are in front of the entry, none behind it (-fpatchable-function-entry=N,N)",
}
ASKS = "a program's sites call what --hook or --target names; with either, ftpatch enable --dry-run tells the rest"


def verdict(scan: Scan, index: int) -> str:
    """One sentence on what a site of a program is."""
    sites, shape = scan.sites, scan.sites.shape
    status = STATUSES[sites.status[index]]
    if sites.redirected[index]:
        return redirected.verdict(sites, index)
    if status == "unexpected":
        window = sites.window[index : index + 1]
        for other in shapes_of(scan.image):
            if other.program and other.refusal and not other.called and other.match(window)[0] == MATCH_OLD:
                return f"its site is of another layout, {other.name}: {other.refusal}"
    if status == "ready" and shape is not None and shape.refusal:
        return f"a record names its site, which cannot be enabled: {shape.refusal}"
    return VERDICTS[status]
