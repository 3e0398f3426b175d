"""Stubs in a linked kernel: those of sites out of line, and where a stub of any kind may stand at all.

The kernel hands out the slots of its stub areas at boot, to its records in ascending order, without looking at what is
in them. So a stub may only be in a slot that no record will get.
Source: arch/powerpc/kernel/trace/ftrace.c ftrace_init_ool_stub() (Linux 7.2).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ftpatch.arch.parts import SiteStub
from ftpatch.arch.proof_tables import BIT64, tables_of
from ftpatch.arrays import I64, Mask
from ftpatch.elf.image import Image
from ftpatch.kernel.init_text import in_init_text, init_text
from ftpatch.proof.call_targets import READ
from ftpatch.proof.case import NEW, Case, Pairs
from ftpatch.proof.changes import Runs
from ftpatch.proof.decoders import both, branch_targets
from ftpatch.proof.free_places import is_left_empty, why_not_free
from ftpatch.proof.site_words import stub_faults

REACH = 1 << 25  # bytes of a ppc64 branch, either way


@dataclass(frozen=True)
class Area:
    """One array of slots for stubs."""

    name: str  # symbol
    va: int  # of the first slot
    n: int  # slots
    init: bool  # for sites of init text, with which it is freed
    taken: int  # slots from the start that the kernel hands out at boot


@dataclass(frozen=True)
class Stubs:
    """The stub of each pair; 0 where it has none."""

    literal: int  # bytes of the ops pointer at the start of a slot; 0 where the kernel reads none
    old_slot: I64  # va of the slot in the first file
    slot: I64  # va of the slot in the second
    target: I64  # va that the call in it goes to, where the stub is sound


def check_stubs(case: Case, pairs: Pairs) -> Stubs | None:
    """The stubs of sites out of line, as they are found; findings for those that are none. None where the kernel has
    nothing of the kind."""
    image, kind, literal = case.after.image, case.arch.site_stub, _literal(case.after.image)
    if not pairs.shape.out_of_line or kind is None or literal is None:
        return None
    branch = pairs.va(pairs.branch_off).view(np.int64)
    old = np.where(pairs.old == NEW, branch_targets(case.before.image, branch) - literal, 0)
    stubs = Stubs(literal, old, np.zeros(len(pairs), np.int64), np.zeros(len(pairs), np.int64))
    at = np.flatnonzero(pairs.new == NEW)
    seen, site = both(case.arch, pairs.words[at]), branch[at]
    va = site + seen.distance
    faults, call, back = stub_faults(case, image.words(*image.place(va.view(np.uint64)), 0, 4))
    areas, init = _areas(case, kind, 16 + literal), in_init_text(image, site.view(np.uint64)).tolist()
    for row, i in enumerate(at.tolist()):
        if why := seen.why[row] or _misplaced(areas, 16 + literal, int(va[row]) - literal & BIT64, init[row]):
            pairs.say("verify-stub", i, f"its branch to {int(va[row]) & BIT64:#x} {why}")
            continue
        stubs.slot[i] = va[row] - literal
        if faults[row]:
            pairs.say("verify-stub", i, faults[row])
        elif (distance := int(va[row] + 12 + back[row] - site[row])) != 4:
            pairs.say("verify-stub", i, f"its stub goes on {distance:+#x} bytes from the site, expected +0x4")
        else:
            stubs.target[i] = va[row] + 4 + call[row]
    slots = stubs.slot[stubs.slot != 0].view(np.uint64)
    case.account_for("stub", image.pos(*image.place(slots)) + literal, 16)
    _check_empty(case, pairs, stubs)
    return stubs


def _literal(image: Image) -> int | None:
    """Bytes of the ops pointer in a slot, 0 where the kernel reads none; None without the kernel's entry."""
    first = image.symbols.value(image.arch.entries[0])
    return None if first is None else 8 * image.arch.read_entry(image.code(first, READ)).literal


def _places(image: Image, kind: SiteStub) -> dict[str, tuple[int, int]]:
    """The stub areas by name: va of the first slot, and how many there are."""
    places = {}
    for name in (*kind.text, kind.init):
        va, count = image.symbols.value(name), image.symbols.value(f"{name}_count")
        pos = image.pos_of_va(count) if count is not None else -1
        if va is not None and pos >= 0:
            places[name] = va, int.from_bytes(image.data[pos : pos + 4].tobytes(), "little")
    return places


def in_slots(image: Image, va: I64) -> Mask:
    """Which addresses are in slots for the stubs of sites; where the file does not tell where slots are, at what looks
    like a stub."""
    kind, literal = image.arch.site_stub, _literal(image)
    places = _places(image, kind) if kind is not None and literal is not None else {}
    save, restore, _ = tables_of(image.arch).site_stub or (0, 0, "")
    words = image.words(*image.place(va.view(np.uint64)), 0, 3)
    inside = (words[:, 0] == save) & (words[:, 2] == restore) if not places else np.zeros(len(va), dtype=bool)
    for start, n in places.values():
        inside |= (va.view(np.uint64) >= start) & (va.view(np.uint64) < start + n * (16 + (literal or 0)))
    return inside


def _areas(case: Case, kind: SiteStub, size: int) -> list[Area]:
    """The stub areas and what the kernel takes of each: records in order, the near area first while it reaches."""
    sites, image = case.after.sites, case.after.image
    places, taken, near = _places(image, kind), Counter[str](), kind.text[0]
    low, high = init_text(image)
    known = (sites.row >= 0) & (sites.sec >= 0) & ~np.isin(sites.sec, image.sections_named(".exit.text"))
    va, n = places.get(near, (0, 0))
    for site in np.sort(sites.body_va[known]).tolist():  # each slot depends on all before it
        if low <= site < high:
            taken[kind.init] += 1
        else:
            taken[near if taken[near] < n and abs(site - va - taken[near] * size) < REACH else kind.text[-1]] += 1
    return [Area(name, va, n, name == kind.init, taken[name]) for name, (va, n) in places.items()]


def _misplaced(areas: list[Area], size: int, slot: int, init: bool) -> str:
    """Why no stub of a site may be in the slot at that va; empty where one may. init: whether the site is init text."""
    area = next((area for area in areas if area.va <= slot < area.va + area.n * size), None)
    if area is None or (slot - area.va) % size:
        return "goes to no slot for stubs"
    if init != area.init:
        return f"goes to {area.name}, which is for other text"
    number = (slot - area.va) // size
    if number < area.taken:
        return f"goes to slot {number} of {area.name}, and the kernel hands out {area.taken} of them at boot"
    return ""


def _check_empty(case: Case, pairs: Pairs, stubs: Stubs) -> None:
    """The slots of sites that were enabled and are not any more, or elsewhere: empty again."""
    image = case.after.image
    left = stubs.old_slot[(pairs.old == NEW) & pairs.differs]
    pos = image.pos(*image.place(left[~np.isin(left, stubs.slot)].view(np.uint64)))
    pos = pos[pos >= 0]
    empty = ~image.data.rows(pos, 16 + stubs.literal).any(axis=1)
    case.account_for("stub taken away", pos[empty], 16 + stubs.literal)


def check_shared(case: Case, runs: Runs, stubs: set[tuple[int, int]]) -> None:
    """New shared stubs, (va, bytes) each, stand where nothing was."""
    for va, size in sorted(stubs):
        pos = case.after.image.pos_of_va(va)
        if not runs.touch(np.array([pos], dtype=np.int64), size)[0]:
            continue
        case.account_for("shared stub", [pos], size)
        if why := why_not_free(case.before, va, size):
            case.say("verify-stub", f"a shared stub of {size} bytes stands at {va:#x}, {why}", pos=pos)


def account_for_cleared(case: Case, va: int, size: int) -> None:
    """A stub that nothing goes through any more, where nothing is left of it: NOPs behind a NOP, else zeros."""
    pos, image = case.after.image.pos_of_va(va), case.after.image
    if pos >= 0 and (is_left_empty(image, pos, size) if case.tables.veneer else not image.data[pos : pos + size].any()):
        case.account_for("stub taken away", [pos], size)
