"""How far the calls of a file's sites are from what they call: for the figures of a report and for the linter."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arrays import I64, U64
from ftpatch.errors import PolicyError
from ftpatch.kernel.init_text import in_init_text
from ftpatch.sites.scan import Scan


class Reach(NamedTuple):
    """One element per call: as many as sites, or as stubs where the kernel calls from stubs."""

    target: str  # the kernel's default entry
    rows: I64  # of the site table; −1 for a stub, which serves no site before the kernel boots
    distance: I64  # bytes to the target
    beyond: dict[str, int]  # calls that do not reach each of the kernel's own trampolines, by its name
    margin: I64  # bytes by which the nearest of all these may still move away; negative: out of reach


def reach_of(scan: Scan, rows: I64) -> Reach | None:
    """The reach of these sites' calls; None where there is none, or nothing that they call."""
    image, table, arch = scan.image, scan.sites, scan.arch
    target = image.symbols.value(arch.entries[0])
    if target is None or table.shape is None or not len(rows):
        return None
    va = table.branch_va[rows]
    init = in_init_text(image, va)
    if image.kind == "vmlinux" and table.shape.out_of_line and arch.site_stub:
        from ftpatch.plan.ool_slots import boot_calls

        try:
            va, init = boot_calls(image, arch.site_stub, int((~init).sum()), int(init.sum()))
            rows = np.full(len(va), -1, dtype=np.int64)
        except PolicyError:
            pass  # the areas make no sense: the sites are what is left to measure from
    distance = _distance(va, target)
    margin, beyond = margin_of(arch, distance), {}
    for number, name in enumerate(arch.far.areas if arch.far else ()):
        area = image.symbols.value(name)
        if area is not None:
            there = margin_of(arch, _distance(va, area))
            beyond[name] = int((there < 0).sum())
            # the second trampoline is freed with init text, so that only init text may use it
            margin = np.where(init | (number == 0), np.maximum(margin, there), margin)
    return Reach(arch.entries[0], rows, distance, beyond, margin)


def _distance(va: U64, target: int) -> I64:
    with np.errstate(over="ignore"):  # addresses of a hostile file may be anywhere
        return np.uint64(target).astype(np.int64) - va.view(np.int64)


def margin_of(arch: Arch, distance: I64) -> I64:
    """Bytes by which each distance may still grow until a call cannot span it; negative beyond that."""
    found: I64 = np.where(distance < 0, distance - arch.call.low, arch.call.high - distance)
    return found
