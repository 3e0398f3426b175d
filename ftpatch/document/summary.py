"""The figures of one image: counts, what the kernel will say of them at boot, and how far its calls reach."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ftpatch.arch import Arch
from ftpatch.arch.fronts import MAX_FRONT
from ftpatch.arrays import I64, U64, Mask
from ftpatch.errors import PolicyError
from ftpatch.kernel.boot import at_boot
from ftpatch.kernel.init_text import in_init_text
from ftpatch.sites.callees import Callee
from ftpatch.sites.elsewhere import records_elsewhere
from ftpatch.sites.evidence import callees_of
from ftpatch.sites.fronts import is_nop
from ftpatch.sites.records import n_padding
from ftpatch.sites.scan import Scan
from ftpatch.sites.table import ARMED, ENABLED, OFF, PADDED, READY, STATUSES, UNRECORDED, SiteTable

if TYPE_CHECKING:
    from ftpatch.document.types import HistogramObject, PatchedRow, ReachObject, SummaryObject

N_BINS = 64  # of a histogram, at most


def summary(scan: Scan, brief: bool = False) -> SummaryObject:
    """Counts of slots and sites. `boot` and `reach` are None where the file cannot tell; and if `brief`, as they cost
    more than all the rest."""
    records, table = scan.records, scan.sites
    live = np.zeros(len(table), dtype=bool)
    live[: len(records)] = records.live
    per_status = np.bincount(table.status[live]).tolist()
    boot = None if brief else at_boot(scan, live)
    figures: SummaryObject = {
        "slots": len(records),
        "null": int(records.null.sum()),
        "live": int(records.live.sum()),
        "by_section": _by_section(table, live),
        "by_status": {STATUSES[state]: count for state, count in enumerate(per_status) if count},
        "without_record": int(((table.row < 0) & (table.status == ENABLED)).sum()),
        "with_skip": int(_with_skip(table, live).sum()),
        "boot": {"allocating": boot["allocating"], "listed": boot["listed"]} if boot else None,
        "reach": None if brief else _reach(scan, live),
    }
    if unrecorded := int((table.status == UNRECORDED).sum()):
        figures["unrecorded"] = unrecorded
    if off := int((table.status == OFF).sum()):
        figures["off"] = off
    if callees := callees_of(table):
        figures["patched"] = _patched(callees)
    if table.redirects:
        by_name = Counter((target.name, target.sure) for target in table.redirects.values())
        figures["redirected"] = [{"to": name, "sites": n, "sure": sure} for (name, sure), n in by_name.most_common()]
    if not len(records) and (padding := n_padding(scan.image)):
        figures["padding"] = padding
    if table.shape is not None and table.shape.front:
        figures["pad"] = {"before": table.shape.front, "behind": _n_behind(table)}
    if elsewhere := records_elsewhere(scan.image):
        figures["elsewhere"] = {name: len(va) for name, va in elsewhere.items()}
    return figures


def _n_behind(table: SiteTable) -> int | None:
    """How many NOPs all functions of a layout have behind their entries; None where no site shows it any more."""
    shape, image = table.shape, table.image
    untouched = np.flatnonzero(np.isin(table.status, (READY, ARMED, PADDED)))
    if shape is None or not len(untouched):
        return None
    off = table.off[untouched] + table.site[untouched]
    nops = is_nop(image, table.sec[untouched], off, MAX_FRONT // shape.unit + 1)
    nops[:, -1] = False
    runs = nops.argmin(axis=1)
    if not runs.all() and shape.old:  # one long NOP
        return None if shape.refusal else len(shape.old)
    return int(runs.min())


def _patched(callees: dict[int, Callee]) -> list[PatchedRow]:
    """What enabled sites without a record call, the most called first."""
    far = Counter((callee.name, callee.sure) for callee in callees.values() if callee.through)
    rows: list[PatchedRow] = []
    for key, n in Counter((callee.name, callee.sure) for callee in callees.values()).most_common():
        rows.append({"calls": key[0], "sites": n, "sure": key[1]})
        if far[key]:
            rows[-1]["through_veneer"] = far[key]
    return rows


def _by_section(table: SiteTable, live: Mask) -> dict[str, int]:
    """Live sites by section name, which several sections may share, in the order of the sections."""
    counts: dict[str, int] = {}
    for sec, count in enumerate(np.bincount(table.sec[live] + 1).tolist(), -1):
        if count:
            name = table.image.names[sec] if sec >= 0 else "(nowhere)"
            counts[name] = counts.get(name, 0) + count
    return counts


def _with_skip(table: SiteTable, live: Mask) -> Mask:
    """Sites whose function starts with words that the layout leaves alone: a BTI on arm64, gcc 5's std on ppc64le."""
    if table.shape is None:
        return np.zeros(len(table), dtype=bool)
    return live & (table.sec >= 0) & table.shape.skipped(table.window)


def _reach(scan: Scan, live: Mask) -> ReachObject | None:
    """How far the live sites are from the default target and, where branches are short, from the kernel's trampolines.

    max_distance, beyond: to the target; trampolines: how many sites lie beyond each of them; headroom: bytes that the
    text may still grow until some site reaches nothing.
    """
    reach = reach_of(scan, np.flatnonzero(live & (scan.sites.sec >= 0)))
    if reach is None:
        return None
    return {
        "target": reach.target,
        "max_distance": int(np.abs(reach.distance).max()),
        "limit": scan.arch.call.high,
        "beyond": int((margin_of(scan.arch, reach.distance) < 0).sum()),
        "trampolines": reach.beyond,
        "headroom": int(reach.margin.min()),
        "target_address": f"0x{reach.target_va:016x}",
        "backward": scan.arch.call.low,
        "calls_from": "stubs" if reach.rows[0] < 0 else "sites",
        "distances": _histogram(reach.distance, margin_of(scan.arch, reach.distance) < 0),
    }


def _histogram(distance: I64, far: Mask) -> HistogramObject:
    """The distances in bins whose edges are multiples of their size. far: those that are out of reach."""
    low, high = int(distance.min()), int(distance.max())
    step = max(1, 1 << max((high - low) // N_BINS, 1).bit_length())  # a power of two
    first = low // step
    at = distance // step - first
    n = high // step - first + 1
    return {
        "low": first * step, "step": step, "counts": np.bincount(at, minlength=n).tolist(),
        "beyond": np.bincount(at[far], minlength=n).tolist(),
    }  # fmt: skip


class Reach(NamedTuple):
    """One element per call: as many as sites, or as stubs where the kernel calls from stubs."""

    target: str  # the kernel's default entry
    target_va: int
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
    return Reach(arch.entries[0], target, rows, distance, beyond, margin)


def _distance(va: U64, target: int) -> I64:
    with np.errstate(over="ignore"):  # addresses of a hostile file may be anywhere
        return np.uint64(target).astype(np.int64) - va.view(np.int64)


def margin_of(arch: Arch, distance: I64) -> I64:
    """Bytes by which each distance may still grow until a call cannot span it; negative beyond that."""
    return np.asarray(np.where(distance < 0, distance - arch.call.low, arch.call.high - distance))
