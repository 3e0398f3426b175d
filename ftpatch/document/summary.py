"""The figures of one image: counts, what the kernel will say of them at boot, and how far its calls reach."""

from __future__ import annotations

from typing import Any

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arrays import I64, U64, Mask
from ftpatch.elf.image import Image
from ftpatch.errors import PolicyError
from ftpatch.kernel.boot import at_boot
from ftpatch.kernel.init_text import in_init_text
from ftpatch.plan.ool_slots import boot_calls
from ftpatch.sites.records import RecordTable
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import STATUSES, SiteTable


def summary(image: Image, arch: Arch, records: RecordTable, table: SiteTable) -> dict[str, Any]:
    """Counts of slots and sites; `boot` and `reach` are None where the file cannot tell."""
    live = np.zeros(len(table), dtype=bool)
    live[: len(records)] = records.live
    per_status = np.bincount(table.status[live]).tolist()
    return {
        "slots": len(records),
        "null": int(records.null.sum()),
        "live": int(records.live.sum()),
        "by_section": _by_section(image, table, live),
        "by_status": {STATUSES[state]: count for state, count in enumerate(per_status) if count},
        "without_record": int((table.row < 0).sum()),
        "with_skip": int(_with_skip(table, live).sum()),
        "boot": at_boot(Scan(image, records, table), live),
        "reach": _reach(image, arch, table, live),
    }


def _by_section(image: Image, table: SiteTable, live: Mask) -> dict[str, int]:
    """Live sites by section name, which several sections may share, in the order of the sections."""
    found: dict[str, int] = {}
    for sec, count in enumerate(np.bincount(table.sec[live] + 1).tolist(), -1):
        if count:
            name = image.names[sec] if sec >= 0 else "(nowhere)"
            found[name] = found.get(name, 0) + count
    return found


def _with_skip(table: SiteTable, live: Mask) -> Mask:
    """Sites whose function starts with words that the layout leaves alone: a BTI on arm64, gcc 5's std on ppc64le."""
    if table.shape is None:
        return np.zeros(len(table), dtype=bool)
    return live & (table.sec >= 0) & table.shape.skipped(table.window)


def _reach(image: Image, arch: Arch, table: SiteTable, live: Mask) -> dict[str, Any] | None:
    """How far the live sites are from the default target and, where branches are short, from the kernel's trampolines.

    max_distance, beyond: to the target; trampolines: how many sites lie beyond each of them; headroom: bytes that the
    text may still grow until some site reaches nothing.
    """
    target = image.symbols.value(arch.entries[0])
    live = live & (table.sec >= 0)
    if target is None or table.shape is None or not live.any():
        return None
    sites, init = _calls(image, arch, table, live)
    distance = _distance(sites, target)
    margin = _margin(arch, distance)
    beyond = {}
    for number, name in enumerate(arch.far.areas if arch.far else ()):
        va = image.symbols.value(name)
        if va is not None:
            there = _margin(arch, _distance(sites, va))
            beyond[name] = int((there < 0).sum())
            margin = np.where(init | (number == 0), np.maximum(margin, there), margin)
    return {
        "target": arch.entries[0],
        "max_distance": int(np.abs(distance).max()),
        "limit": arch.call.high,
        "beyond": int((_margin(arch, distance) < 0).sum()),
        "trampolines": beyond,
        "headroom": int(margin.min()),
    }


def _calls(image: Image, arch: Arch, table: SiteTable, live: Mask) -> tuple[U64, Mask]:
    """Where the calls are made, and which serve init text: at the sites, or in stubs where those are out of line."""
    sites = table.branch_va[live]
    init = in_init_text(image, sites)
    if image.kind == "vmlinux" and table.shape and table.shape.out_of_line and arch.site_stub:
        try:
            return boot_calls(image, arch, arch.site_stub, int((~init).sum()), int(init.sum()))
        except PolicyError:
            pass  # the areas make no sense; the sites are what is left to measure from
    return sites, init


def _distance(sites: U64, target: int) -> I64:
    return np.uint64(target).astype(np.int64) - sites.view(np.int64)


def _margin(arch: Arch, distance: I64) -> I64:
    """Bytes by which each distance may still grow until a call cannot span it; negative beyond that."""
    found: I64 = np.where(distance < 0, distance - arch.call.low, arch.call.high - distance)
    return found
